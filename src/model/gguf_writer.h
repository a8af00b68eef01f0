#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/gguf_reader.h"

namespace halo {

/// Builds the header of a GGUF 3 file: keys and tensors in the order they were added. The data are
/// the caller's to write, tensor by tensor, at the offsets that AddTensor returns plus the header's
/// length.
class GgufHeader {
 public:
  static constexpr uint64_t kAlignment = 32;

  void AddText(std::string_view key, std::string_view value);
  void AddUint32(std::string_view key, uint32_t value);
  void AddFloat32(std::string_view key, float value);
  void AddBool(std::string_view key, bool value);
  void AddTexts(std::string_view key, const std::vector<std::string>& values);
  void AddInt32s(std::string_view key, const std::vector<int32_t>& values);
  /// Copies a value of another file as it is.
  void AddCopy(std::string_view key, const GgufValue& value);
  /// Dimensions in GGUF's order, the row length first. Returns the tensor's offset from the start
  /// of the data.
  uint64_t AddTensor(std::string_view name, std::span<const int64_t> dims, int32_t ggml_type,
                     uint64_t bytes);

  /// The header with the padding behind it.
  std::string Finish() const;
  /// Bytes of all tensors with the padding after each.
  uint64_t data_bytes() const { return data_bytes_; }

 private:
  void BeginKey(std::string_view key, GgufType type);
  void BeginList(std::string_view key, GgufType type, size_t count);

  std::string keys_;
  std::string tensors_;
  uint64_t key_count_ = 0;
  uint64_t tensor_count_ = 0;
  uint64_t data_bytes_ = 0;
};

}  // namespace halo
