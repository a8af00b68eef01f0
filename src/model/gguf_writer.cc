#include "model/gguf_writer.h"

#include <cstring>

namespace halo {
namespace {

template <typename T>
void Append(std::string& bytes, T value) {
  char raw[sizeof(T)];
  std::memcpy(raw, &value, sizeof(T));
  bytes.append(raw, sizeof(T));
}

void AppendText(std::string& bytes, std::string_view text) {
  Append(bytes, static_cast<uint64_t>(text.size()));
  bytes.append(text);
}

uint64_t Padded(uint64_t bytes) {
  return (bytes + GgufHeader::kAlignment - 1) / GgufHeader::kAlignment * GgufHeader::kAlignment;
}

}  // namespace

void GgufHeader::BeginKey(std::string_view key, GgufType type) {
  AppendText(keys_, key);
  Append(keys_, static_cast<uint32_t>(type));
  ++key_count_;
}

void GgufHeader::AddText(std::string_view key, std::string_view value) {
  BeginKey(key, GgufType::kString);
  AppendText(keys_, value);
}

void GgufHeader::AddUint32(std::string_view key, uint32_t value) {
  BeginKey(key, GgufType::kUint32);
  Append(keys_, value);
}

void GgufHeader::AddFloat32(std::string_view key, float value) {
  BeginKey(key, GgufType::kFloat32);
  Append(keys_, value);
}

void GgufHeader::AddBool(std::string_view key, bool value) {
  BeginKey(key, GgufType::kBool);
  Append(keys_, static_cast<uint8_t>(value ? 1 : 0));
}

void GgufHeader::BeginList(std::string_view key, GgufType type, size_t count) {
  BeginKey(key, GgufType::kArray);
  Append(keys_, static_cast<uint32_t>(type));
  Append(keys_, static_cast<uint64_t>(count));
}

void GgufHeader::AddTexts(std::string_view key, const std::vector<std::string>& values) {
  BeginList(key, GgufType::kString, values.size());
  for (const std::string& value : values) AppendText(keys_, value);
}

void GgufHeader::AddInt32s(std::string_view key, const std::vector<int32_t>& values) {
  BeginList(key, GgufType::kInt32, values.size());
  for (const int32_t value : values) Append(keys_, value);
}

void GgufHeader::AddCopy(std::string_view key, const GgufValue& value) {
  AppendText(keys_, key);
  keys_.append(reinterpret_cast<const char*>(value.encoded.data()), value.encoded.size());
  ++key_count_;
}

uint64_t GgufHeader::AddTensor(std::string_view name, std::span<const int64_t> dims,
                               int32_t ggml_type, uint64_t bytes) {
  AppendText(tensors_, name);
  Append(tensors_, static_cast<uint32_t>(dims.size()));
  for (const int64_t dim : dims) Append(tensors_, dim);
  Append(tensors_, ggml_type);
  const uint64_t offset = data_bytes_;
  Append(tensors_, offset);
  data_bytes_ += Padded(bytes);
  ++tensor_count_;
  return offset;
}

std::string GgufHeader::Finish() const {
  std::string header = "GGUF";
  Append(header, uint32_t{3});
  Append(header, tensor_count_);
  Append(header, key_count_);
  header += keys_;
  header += tensors_;
  header.resize(Padded(header.size()), '\0');
  return header;
}

}  // namespace halo
