#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "model/jinja_evaluator.h"

/// What the files of the built-in filters, methods, tests and functions share. All keep the origin
/// of every byte, charge for what they make, and note what depends on a hole's text.
namespace halo::jinja {

constexpr uint32_t Kind(JinjaKind kind) { return 1U << static_cast<uint32_t>(kind); }
inline constexpr uint32_t kText = Kind(JinjaKind::kText);
inline constexpr uint32_t kList = Kind(JinjaKind::kList);
inline constexpr uint32_t kMap = Kind(JinjaKind::kMap);
inline constexpr uint32_t kNumber = Kind(JinjaKind::kInt) | Kind(JinjaKind::kFloat);
inline constexpr uint32_t kNone = Kind(JinjaKind::kNone);
inline constexpr uint32_t kUndefined = Kind(JinjaKind::kUndefined);
inline constexpr uint32_t kScalar = kNumber | Kind(JinjaKind::kBool);

constexpr char LowerByte(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
constexpr char UpperByte(char c) {
  return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
}

// Arguments by name or position. What is none or undefined counts as not given; what is of another
// kind is a fault.

/// Null if it is not given. The template acts on the text.
const std::string* TextArgument(JinjaEvaluator& run, const JinjaArguments& arguments,
                                std::string_view name, size_t position);
/// Must be given.
const JinjaValue& Needed(JinjaEvaluator& run, const JinjaArguments& arguments,
                         std::string_view name, size_t position, JinjaKind kind);
/// Whether it is given and true.
bool Flag(JinjaEvaluator& run, const JinjaArguments& arguments, std::string_view name,
          size_t position);
int64_t IntArgument(JinjaEvaluator& run, const JinjaArguments& arguments, std::string_view name,
                    size_t position, int64_t otherwise);
/// The arguments from position `used` on.
JinjaArguments Rest(const JinjaArguments& arguments, size_t used);

std::span<const JinjaBuiltin> TextMethods();
std::span<const JinjaBuiltin> ListMethods();
std::span<const JinjaBuiltin> JsonMethods();

/// The filter `default`, which anything has.
JinjaValue Default(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments);
/// The function tojson(value, ...).
JinjaValue JsonFunction(JinjaEvaluator& run, const JinjaValue& self,
                        const JinjaArguments& arguments);

}  // namespace halo::jinja
