#include "model/output_schema.h"

#include <algorithm>

#include "model/grammar_states.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

/// Deeper values are refused: copying and writing them recurses.
constexpr int32_t kMaxLevels = 500;

/// Most brackets that are open at once, texts aside.
int32_t LevelsOf(const std::string& json) {
  int32_t open = 0;
  int32_t most = 0;
  bool in_text = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (in_text) {
      if (c == '\\') ++i;
      in_text = c != '"';
    } else if (c == '"') {
      in_text = true;
    } else if (c == '[' || c == '{') {
      most = std::max(most, ++open);
    } else if (c == ']' || c == '}') {
      --open;
    }
  }
  return most;
}

}  // namespace

std::shared_ptr<const OutputSchema> OutputSchema::OfJsonSchema(const Json& schema,
                                                               std::vector<SchemaFault>& faults) {
  std::vector<SchemaFault> found = CheckJsonSchema(schema);
  faults.insert(faults.end(), found.begin(), found.end());
  if (!found.empty()) return nullptr;
  try {
    std::shared_ptr<OutputSchema> made(new OutputSchema());
    made->grammar_ = JsonSchemaToGrammar(schema);
    Grammar::Compile(made->grammar_, "grammar");
    made->validator_ = std::make_unique<const SchemaValidator>(schema);
    return made;
  } catch (const Error& error) {
    for (const Diagnostic& diagnostic : error.diagnostics()) {
      faults.push_back({"", "no answer can be kept to it: " + diagnostic.message});
    }
    return nullptr;
  }
}

std::shared_ptr<const OutputSchema> OutputSchema::OfGrammar(const std::string& gbnf,
                                                            const std::string& name) {
  std::shared_ptr<OutputSchema> made(new OutputSchema());
  made->grammar_ = gbnf;
  made->compiled_ = Grammar::Compile(gbnf, name);
  return made;
}

std::string OutputSchema::FaultOf(const std::string& text, Json& value) const {
  if (!is_json()) {
    value = text;
    try {
      GrammarStates states(compiled_);
      states.AllowWork(int64_t{1} << 28);
      const GrammarStates::StateId end = states.StepAll(states.start(), text);
      const bool fits = end != GrammarStates::kRefused && states.CanEnd(end);
      return fits ? "" : "it does not fit the grammar";
    } catch (const Failure& failure) {
      return failure.message;
    }
  }
  if (LevelsOf(text) > kMaxLevels) return "its JSON is nested more than 500 deep";
  try {
    value = Json::parse(text);
  } catch (const Json::exception& error) {
    return std::string("it is not JSON: ") + error.what();
  }
  return validator_->Check(value);
}

std::optional<Failure> OutputSchema::Check(const std::string& text, bool cut_at_max_tokens,
                                           Json& value) const {
  const std::string fault = FaultOf(text, value);
  if (fault.empty()) return std::nullopt;
  if (cut_at_max_tokens) {
    return Failure{"", "output_cut",
                   "the answer was cut at max_tokens before it was complete: give it more "
                   "max_tokens or a smaller schema (" +
                       fault + ")",
                   false};
  }
  return Failure{"", "invalid_output", "the answer does not fit the schema: " + fault, false};
}

}  // namespace halo
