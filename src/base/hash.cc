#include "base/hash.h"

#include <new>
#include <tuple>
#include <type_traits>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace halo {
namespace {

/// The state of a builder, and of a const one, which is only read.
template <typename State>
auto* StateIn(State& bytes) {
  static_assert(sizeof(XXH3_state_t) <= std::tuple_size_v<std::remove_const_t<State>>);
  static_assert(std::is_trivially_copyable_v<XXH3_state_t>);
  using Pointer = std::conditional_t<std::is_const_v<State>, const XXH3_state_t*, XXH3_state_t*>;
  return reinterpret_cast<Pointer>(bytes.data());
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

SignatureBuilder::SignatureBuilder() {
  static_assert(alignof(XXH3_state_t) <= kStateAlignment);
  XXH3_128bits_reset(new (state_.data()) XXH3_state_t);
}

SignatureBuilder& SignatureBuilder::Add(std::string_view text) {
  Add(static_cast<int64_t>(text.size()));
  XXH3_128bits_update(StateIn(state_), text.data(), text.size());
  return *this;
}

SignatureBuilder& SignatureBuilder::Add(std::span<const int32_t> tokens) {
  return Add(std::string_view(reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes()));
}

SignatureBuilder& SignatureBuilder::Add(int64_t value) {
  XXH3_128bits_update(StateIn(state_), &value, sizeof value);
  return *this;
}

SignatureBuilder& SignatureBuilder::Add(double value) {
  XXH3_128bits_update(StateIn(state_), &value, sizeof value);
  return *this;
}

SignatureBuilder& SignatureBuilder::Add(const Signature& signature) {
  return Add(static_cast<int64_t>(signature.high)).Add(static_cast<int64_t>(signature.low));
}

Signature SignatureBuilder::Finish() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(StateIn(state_));
  return {hash.high64, hash.low64};
}

uint64_t Hash64(std::string_view text) { return XXH3_64bits(text.data(), text.size()); }

}  // namespace halo
