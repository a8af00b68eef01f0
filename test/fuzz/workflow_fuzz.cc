// libFuzzer target: any bytes, taken for a workflow file or for rows, end in a value or in a
// halo::Error.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "workflow/json_row.h"
#include "workflow/workflow.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    halo::ParseWorkflow(text, "fuzz.yaml");
  } catch (const halo::Error& error) {
    // A fault without a message or a file helps nobody.
    for (const halo::Diagnostic& fault : error.diagnostics()) {
      if (fault.message.empty() || fault.location.file.empty()) __builtin_trap();
    }
    if (error.diagnostics().empty()) __builtin_trap();
  }
  halo::ParseJsonRow(text);
  return 0;
}
