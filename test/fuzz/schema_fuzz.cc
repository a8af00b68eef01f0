// Any bytes, taken for a JSON Schema and an answer (cut at 0xFF): the schema is refused with its
// faults or kept to, and whatever its grammar allows passes the validator, which knows nothing of
// grammars.

#include <nlohmann/json.hpp>

#include "fuzz/property.h"
#include "model/grammar_states.h"
#include "model/output_schema.h"

namespace {

using Json = nlohmann::ordered_json;

/// A text that the grammar allows, its choices made by `choices`; "" if none is found soon.
std::string Write(const std::shared_ptr<const halo::Grammar>& grammar, const std::string& choices) {
  constexpr size_t kMostBytes = 300;
  constexpr int64_t kWork = 200'000;
  halo::GrammarStates states(grammar);
  states.AllowWork(kWork);
  std::string text;
  halo::GrammarStates::StateId state = states.start();
  for (size_t i = 0; i < kMostBytes; ++i) {
    if (states.CanEnd(state) && (i >= choices.size() || states.MustEnd(state))) return text;
    const auto classes = static_cast<size_t>(grammar->class_count());
    const size_t first = i < choices.size() ? static_cast<unsigned char>(choices[i]) : 0;
    halo::GrammarStates::StateId next = halo::GrammarStates::kRefused;
    for (size_t k = 0; k < classes && next == halo::GrammarStates::kRefused; ++k) {
      const uint8_t byte = grammar->byte_of(static_cast<int32_t>((first + k) % classes));
      next = states.Step(state, byte);
      if (next != halo::GrammarStates::kRefused) text += static_cast<char>(byte);
    }
    halo::fuzz::Require(next != halo::GrammarStates::kRefused || states.CanEnd(state),
                        "a state that is no end has a way on");
    if (next == halo::GrammarStates::kRefused) return text;
    state = next;
  }
  return "";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto [source, answer] = halo::fuzz::TwoTexts(data, size);
  const Json schema = Json::parse(source, nullptr, false);
  if (schema.is_discarded()) return 0;
  try {
    std::vector<halo::SchemaFault> faults;
    const auto compiled = halo::OutputSchema::OfJsonSchema(schema, faults);
    halo::fuzz::Require((compiled == nullptr) == !faults.empty(),
                        "refused with faults, or kept to");
    for (const halo::SchemaFault& fault : faults)
      halo::fuzz::Require(!fault.message.empty(), "a fault says something");
    if (compiled == nullptr) return 0;
    Json value;
    compiled->Check(answer, false, value);
    const std::string text = Write(halo::Grammar::Compile(compiled->grammar(), "fuzzed"), answer);
    if (text.empty()) return 0;
    const auto failure = compiled->Check(text, false, value);
    if (failure) std::fprintf(stderr, "%s\n%s\n", text.c_str(), failure->message.c_str());
    halo::fuzz::Require(!failure, "what the grammar allows, the validator accepts");
  } catch (const halo::Error& error) {
    halo::fuzz::RequireMeaningful(error, false);
  } catch (const halo::Failure& failure) {
    halo::fuzz::Require(!failure.message.empty(), "a failure has a message");
  }
  return 0;
}
