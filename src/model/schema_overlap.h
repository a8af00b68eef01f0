#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "model/schema_validator.h"

namespace halo {

/// Tells whether the alternatives of a `oneOf` exclude each other. While decoding any of them may
/// be written, and the validator then wants exactly one to fit: alternatives that share a value
/// would fail answers that the grammar allows.
class SchemaOverlap {
 public:
  /// `root` has no faults and outlives this.
  explicit SchemaOverlap(const nlohmann::ordered_json& root);

  /// False only if no value that the grammar of one of these schemas allows fits the other. Types,
  /// constants, bounds, counts, formats and the members of objects are understood, patterns are
  /// not. Work is bounded over all calls: beyond that, true.
  bool MayShareAValue(const nlohmann::ordered_json& first, const nlohmann::ordered_json& second);

 private:
  using Json = nlohmann::ordered_json;

  bool MayFit(const Json& made, const Json& into, int32_t depth);
  bool MayFitOfType(const Json& made, const Json& into, const std::string& type, int32_t depth);
  bool ArraysMayFit(const Json& made, const Json& into, int32_t depth);
  bool ObjectsMayFit(const Json& made, const Json& into, int32_t depth);
  bool AnyValueFits(const Json& finite, const Json& other);
  const Json* Resolve(const Json& schema) const;

  const Json& root_;
  SchemaValidator validator_;
  int64_t pairs_left_;  // of schemas to be compared
  int64_t work_left_;   // as SchemaValidator counts it, and values compared
};

}  // namespace halo
