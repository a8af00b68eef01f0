#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace halo {

/// A 128-bit content hash (XXH3). Equal signatures are taken for equal contents.
struct Signature {
  uint64_t high = 0;
  uint64_t low = 0;

  friend bool operator==(const Signature&, const Signature&) = default;
  friend auto operator<=>(const Signature&, const Signature&) = default;
  std::string ToHex() const;  ///< 32 lower-case hexadecimal digits
};

/// Feeds typed fields into one signature. Every field is length-prefixed, so ("ab","c") and
/// ("a","bc") differ.
class SignatureBuilder {
 public:
  SignatureBuilder();
  SignatureBuilder& Add(std::string_view text);
  SignatureBuilder& Add(std::span<const int32_t> tokens);
  SignatureBuilder& Add(int64_t value);
  SignatureBuilder& Add(double value);
  SignatureBuilder& Add(const Signature& signature);
  Signature Finish() const;

 private:
  /// An XXH3_state_t: fields are hashed as they come, and kept nowhere.
  static constexpr size_t kStateBytes = 576, kStateAlignment = 64;
  alignas(kStateAlignment) std::array<std::byte, kStateBytes> state_;
};

/// 64-bit XXH3 of a text.
uint64_t Hash64(std::string_view text);

struct SignatureHasher {
  size_t operator()(const Signature& s) const { return static_cast<size_t>(s.high ^ s.low); }
};

}  // namespace halo
