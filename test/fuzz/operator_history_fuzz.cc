// Any bytes, taken for the history of operators: refused with what is wrong, or read, in which case
// what is written of it is read again without change, after another run, too.

#include "fuzz/property.h"
#include "optimizer/operator_history.h"

namespace {

using halo::OperatorHistory;

void RequireSameAgain(const OperatorHistory& history) {
  const std::string written = history.ToJson();
  halo::fuzz::Require(OperatorHistory::Read(written, "written.json").ToJson() == written,
                      "a history that was read survives another journey");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  OperatorHistory history;
  try {
    history = OperatorHistory::Read(halo::fuzz::Text(data, size), "history.json");
  } catch (const halo::Error& error) {
    halo::fuzz::Require(error.code() == halo::ErrorCode::kConfig,
                        "a bad history is a matter of configuration");
    halo::fuzz::RequireMeaningful(error, false);
    return 0;
  }
  // What was read or written must be readable: an Error from here on is a failure.
  RequireSameAgain(history);
  history.Add({1, 2}, "digest", {10, 8, 800, 80, 40, 200, 0.5});
  RequireSameAgain(history);
  return 0;
}
