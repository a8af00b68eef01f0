#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/grammar.h"
#include "model/json_schema.h"
#include "model/schema_validator.h"

namespace halo {

/// What the answers of an operator must look like: kept to while decoding, by the grammar, and
/// checked again when an answer is there. Immutable, safe to share between threads.
class OutputSchema {
 public:
  /// Of a JSON Schema; answers are JSON values. Null, with `faults` filled, if it cannot be kept
  /// to.
  static std::shared_ptr<const OutputSchema> OfJsonSchema(const nlohmann::ordered_json& schema,
                                                          std::vector<SchemaFault>& faults);
  /// Of a grammar in GBNF; answers are texts. Throws Error(kWorkflow) with the place in the
  /// grammar, which errors call `name`.
  static std::shared_ptr<const OutputSchema> OfGrammar(const std::string& gbnf,
                                                       const std::string& name);

  /// GBNF, for the engine.
  const std::string& grammar() const { return grammar_; }
  bool is_json() const { return validator_ != nullptr; }

  /// What is wrong with an answer, or nothing: failure "output_cut" if it ends at max_tokens before
  /// it is complete, else "invalid_output". `value` becomes the answer's value: what its JSON says,
  /// or the text.
  std::optional<Failure> Check(const std::string& text, bool cut_at_max_tokens,
                               nlohmann::ordered_json& value) const;

 private:
  OutputSchema() = default;
  std::string FaultOf(const std::string& text, nlohmann::ordered_json& value) const;

  std::string grammar_;
  std::shared_ptr<const Grammar> compiled_;           // of texts
  std::unique_ptr<const SchemaValidator> validator_;  // of JSON
};

}  // namespace halo
