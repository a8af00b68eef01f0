// Any bytes, taken for a grammar (GBNF) and an answer (cut at 0xFF): the grammar is refused with a
// place, or reads the answer within its limits.

#include "fuzz/property.h"
#include "model/grammar_states.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr int64_t kWork = 100'000;
  const auto [source, answer] = halo::fuzz::TwoTexts(data, size);
  try {
    halo::GrammarStates states(halo::Grammar::Compile(source, "fuzzed"));
    states.AllowWork(kWork);
    const auto state = states.StepAll(states.start(), answer);
    if (state == halo::GrammarStates::kRefused) return 0;
    halo::fuzz::Require(states.CanEnd(state) || !states.MustEnd(state),
                        "where nothing may follow, the answer may end");
  } catch (const halo::Error& error) {
    halo::fuzz::RequireMeaningful(error, false);
  } catch (const halo::Failure& failure) {
    halo::fuzz::Require(!failure.message.empty(), "a failure has a message");
  }
  return 0;
}
