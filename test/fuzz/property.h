#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace halo::fuzz {

/// Ends the process where a property does not hold, so that libFuzzer keeps the input.
inline void Require(bool holds, const char* property) {
  if (holds) return;
  std::fprintf(stderr, "property does not hold: %s\n", property);
  std::abort();
}

/// The bytes of an input as a text.
inline std::string Text(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Two parts of an input, cut at the first byte 0xFF, which no UTF-8 text has; the second may be
/// empty. So seeds stay texts that a person can read.
inline std::pair<std::string, std::string> TwoTexts(const uint8_t* data, size_t size) {
  const std::string all = Text(data, size);
  const size_t cut = all.find('\xFF');
  if (cut == std::string::npos) return {all, ""};
  return {all.substr(0, cut), all.substr(cut + 1)};
}

/// An error must say something, of something: every diagnostic has a message, and there is one.
inline void RequireMeaningful(const Error& error, bool with_place) {
  Require(!error.diagnostics().empty(), "an error has a diagnostic");
  for (const Diagnostic& diagnostic : error.diagnostics()) {
    Require(!diagnostic.message.empty(), "a diagnostic has a message");
    Require(!with_place || !diagnostic.location.file.empty(), "a diagnostic names its file");
  }
}

}  // namespace halo::fuzz
