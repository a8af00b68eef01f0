#include "base/hash.h"

#include <cstring>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace halo {
namespace {

template <typename T>
void AppendRaw(std::string& bytes, const T& value) {
  char raw[sizeof(T)];
  std::memcpy(raw, &value, sizeof(T));
  bytes.append(raw, sizeof(T));
}

}  // namespace

std::string Signature::ToHex() const {
  static const char* kDigits = "0123456789abcdef";
  std::string text;
  for (uint64_t word : {high, low}) {
    for (int shift = 60; shift >= 0; shift -= 4) text += kDigits[(word >> shift) & 15U];
  }
  return text;
}

SignatureBuilder& SignatureBuilder::Add(std::string_view text) {
  AppendRaw(bytes_, static_cast<uint64_t>(text.size()));
  bytes_.append(text);
  return *this;
}

SignatureBuilder& SignatureBuilder::Add(std::span<const int32_t> tokens) {
  return Add(std::string_view(reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes()));
}

SignatureBuilder& SignatureBuilder::Add(int64_t value) {
  AppendRaw(bytes_, value);
  return *this;
}

SignatureBuilder& SignatureBuilder::Add(double value) {
  AppendRaw(bytes_, value);
  return *this;
}

SignatureBuilder& SignatureBuilder::Add(const Signature& signature) {
  AppendRaw(bytes_, signature.high);
  AppendRaw(bytes_, signature.low);
  return *this;
}

Signature SignatureBuilder::Finish() const {
  const XXH128_hash_t hash = XXH3_128bits(bytes_.data(), bytes_.size());
  return {hash.high64, hash.low64};
}

uint64_t Hash64(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

}  // namespace halo
