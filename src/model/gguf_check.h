#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace halo {

/// What a model file says of itself, read by a bounded parser of our own.
struct GgufSummary {
  std::string path;
  uint64_t file_bytes = 0;
  std::string architecture;       ///< "llama", "qwen3", ...
  std::string name;               ///< general.name, may be ""
  std::string weight_type;        ///< type of most weights: "F16", "Q8_0", "Q4_K", ...
  std::string chat_template;      ///< "" if none
  uint64_t parameters = 0;
  int64_t context_tokens = 0;     ///< trained context
  int64_t layers = 0, width = 0, heads = 0, kv_heads = 0, feed_forward = 0, head_width = 0;
  int64_t vocabulary = 0;
  bool has_weights = false;       ///< false for vocabulary-only files
  std::map<std::string, std::string> scalars;  ///< every scalar key, printed
};

/// Reads and checks a GGUF file before llama.cpp sees it: magic, version, counts, key and tensor names, types,
/// dimensions, offsets and sizes against the file's length, array lengths, alignment, and the keys llama.cpp
/// divides by or allocates from. Every count is bounded before anything is allocated; never reads past the file.
/// Throws Error(kModel) naming the file, the offset and what is wrong.
GgufSummary CheckGguf(const std::string& path);

/// The summary as a person reads it, several lines.
std::string DescribeModel(const GgufSummary& summary);

}  // namespace halo
