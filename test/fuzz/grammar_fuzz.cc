// libFuzzer target: any bytes, taken for a grammar, for a JSON Schema and for an answer, end in a
// value, a halo::Error or a halo::Failure.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/grammar_states.h"
#include "model/output_schema.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    halo::GrammarStates states(halo::Grammar::Compile(text, "fuzzed"));
    states.AllowWork(100'000);
    states.StepAll(states.start(), text);
  } catch (const halo::Error&) {
  } catch (const halo::Failure&) {
  }
  const auto schema = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (schema.is_discarded()) return 0;
  std::vector<halo::SchemaFault> faults;
  const auto made = halo::OutputSchema::OfJsonSchema(schema, faults);
  if ((made == nullptr) == faults.empty()) __builtin_trap();
  nlohmann::ordered_json value;
  if (made) made->Check(text, false, value);
  return 0;
}
