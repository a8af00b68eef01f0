#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace halo {

/// What a model file says of itself, read by a bounded parser of our own.
struct GgufSummary {
  std::string path;
  uint64_t file_bytes = 0;
  std::string architecture;   ///< "llama", "qwen3", ...
  std::string name;           ///< general.name, may be ""
  std::string weight_type;    ///< type of most weight bytes: "F16", "Q8_0", "Q4_K", ...
  std::string chat_template;  ///< "" if none
  uint64_t parameters = 0;
  int64_t context_tokens = 0;  ///< trained context
  int64_t layers = 0, width = 0, heads = 0, kv_heads = 0, feed_forward = 0,
          head_width = 0;  ///< largest of any layer
  int64_t vocabulary = 0;
  bool has_weights = false;                    ///< false for vocabulary-only files
  std::map<std::string, std::string> scalars;  ///< every scalar key, printed
};

/// Bytes of the KV of one token in half precision, by the shape.
int64_t KvTokenBytes(const GgufSummary& summary);

/// Reads and checks a GGUF file before llama.cpp sees it: magic, version, counts, key and tensor
/// names, types, dimensions, offsets and sizes against the file's length, array lengths, alignment,
/// and the keys llama.cpp divides by or allocates from. Every count is bounded before anything is
/// allocated; never reads past the file.
///
/// llama.cpp throws on most of what is wrong but aborts on the rest, and with it the process. What
/// can be reached by plain values of plain architectures (llama, qwen2, qwen3 and their like) is
/// refused here; gguf_check_test counts how many damaged files pass and still end llama.cpp. Other
/// architectures are checked for what all have in common. Throws Error(kModel) naming the file, the
/// offset and what is wrong.
GgufSummary CheckGguf(const std::string& path);

/// The same for bytes that the caller holds; `name` stands for the path.
GgufSummary CheckGgufBytes(std::span<const uint8_t> bytes, const std::string& name);

/// The summary as a person reads it, several lines.
std::string DescribeModel(const GgufSummary& summary);

}  // namespace halo
