#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace halo {

/// One thing wrong with a JSON Schema.
struct SchemaFault {
  std::string pointer;  ///< JSON pointer of the place; "" is the whole schema
  std::string message;
};

/// Everything for which `schema` cannot be kept to while decoding: keywords that are unknown, not
/// supported, or without effect where they stand, values that they cannot have, and schemas beyond
/// the limits. Nothing that a schema says is dropped silently.
///
/// Supported: type (a name or a list), properties, required, additionalProperties, items,
/// prefixItems, minItems, maxItems, enum, const, minLength, maxLength, pattern, format (date, time,
/// date-time, uuid), minimum, maximum, exclusiveMinimum, exclusiveMaximum of integers, minimum and
/// maximum of numbers where they are whole, anyOf, oneOf of alternatives that exclude each other,
/// allOf of objects, $ref within the schema, and annotations.
std::vector<SchemaFault> CheckJsonSchema(const nlohmann::ordered_json& schema);

/// The grammar (GBNF) of the texts that `schema`, which has no faults, allows: llama.cpp's
/// conversion, with rules of our own where its own admit what no JSON parser reads (lone
/// surrogates, exponents without bound, patterns over the written string), no calendar has, or that
/// are beyond the bounds of a number.
/// Properties come in the schema's order; an object with `properties` has no others unless
/// `additionalProperties` says so. Throws Error(kWorkflow).
std::string JsonSchemaToGrammar(const nlohmann::ordered_json& schema);

/// The least and greatest integers of a schema with bounds (infinite where there is none).
double LowestInteger(const nlohmann::ordered_json& schema);
double HighestInteger(const nlohmann::ordered_json& schema);

inline constexpr size_t kMaxSchemaBytes = size_t{1} << 20;
inline constexpr int32_t kMaxSchemaNodes = 5000;     ///< schemas inside the schema
inline constexpr int32_t kMaxSchemaDepth = 100;      ///< levels, references followed
inline constexpr size_t kMaxSchemaReferences = 256;  ///< different `$ref`
inline constexpr size_t kMaxEnumValues = 50'000;
inline constexpr size_t kMaxProperties = 1000;         ///< of one object
inline constexpr size_t kMaxOptionalProperties = 100;  ///< of one object
inline constexpr int64_t kMaxSchemaCount = 1'000'000;  ///< of maxLength, maxItems
inline constexpr int64_t kMaxSchemaInteger = 999'999'999'999'999;

}  // namespace halo
