#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "model/schema_pattern.h"

namespace halo {

/// Checks values against a JSON Schema keyword by keyword, as the standard defines them, knowing
/// nothing of grammars: the second opinion on what was decoded under one. Keywords are those that
/// CheckJsonSchema accepts.
///
/// Of our own, since none fits: Debian's valijson brings Qt, has no bound on its work (alternatives
/// inside alternatives double it at each level, and answers are hostile), and matches patterns with
/// std::regex over bytes, which recurses for each byte. Work and depth are bounded here.
///
/// Immutable, safe to share between threads.
class SchemaValidator {
 public:
  /// `schema` has no faults.
  explicit SchemaValidator(nlohmann::ordered_json schema);

  /// What is wrong with `value`, with its place ("#/age: 7 is less than the minimum 18"), or "".
  std::string Check(const nlohmann::ordered_json& value) const;

  /// True if `value` fits `part`, a schema inside the schema. Takes what it costs from `work`
  /// (schemas looked at, and bytes of texts against patterns); false once that is used up.
  bool Fits(const nlohmann::ordered_json& value, const nlohmann::ordered_json& part,
            int64_t& work) const;

 private:
  class Visit;
  void FindPatterns(const nlohmann::ordered_json& node);

  nlohmann::ordered_json schema_;
  std::map<std::string, PatternMatcher> patterns_;
};

}  // namespace halo
