#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "halo/session.h"
#include "runtime/tool_calls.h"
#include "tool/tool.h"
#include "workflow/workflow.h"

namespace halo {

/// The tools of a run and what their calls are made with.
struct RunTools {
  std::unique_ptr<ToolRunner> runner;  ///< null: no workflow has a tool
  ToolSetup setup;
  std::vector<std::string> files;        ///< that connections read: no result may take their place
  std::vector<std::string> unreachable;  ///< servers that are not there now, and why
  std::vector<std::string> notices;  ///< what is no error, such as a server that is not there yet
};

/// Opens what the workflows' tools need: connections, secrets, the right to reach out (contract 6).
/// Statements are checked against their databases where those can be reached. `workflows` outlive
/// nothing here. `spill_folder`: for DuckDB; "": none. Throws Error(kWorkflow or kConfig) with
/// everything that is missing or not allowed, before anything is executed.
RunTools OpenTools(const std::vector<const Workflow*>& workflows, const RunOptions& options,
                   const std::string& spill_folder, Clock& clock);

/// Checks every statement against its database's catalogue without executing it (`halo validate
/// --connect`). Throws as OpenTools does, also where a database cannot be reached.
void CheckStatements(const std::vector<const Workflow*>& workflows, const RunOptions& options,
                     Clock& clock);

}  // namespace halo
