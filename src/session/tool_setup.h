#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "halo/session.h"
#include "optimizer/query_cost.h"
#include "runtime/tool_calls.h"
#include "tool/tool.h"
#include "workflow/workflow.h"

namespace halo {

/// What databases say that queries cost.
struct DatabaseCosts {
  /// [workflows][operators] nothing where none was asked, or it had nothing to say.
  std::vector<std::vector<std::optional<QueryCost>>> operators;
  std::vector<std::string> unasked;  ///< databases that could not be asked, and why
};

/// The tools of a run and what their calls are made with.
struct RunTools {
  std::unique_ptr<ToolRunner> runner;  ///< null: no workflow has a tool
  ToolSetup setup;
  std::vector<std::string> files;        ///< that connections read: no result may take their place
  std::vector<std::string> unreachable;  ///< servers that are not there now, and why
  std::vector<std::string> notices;  ///< what is no error, such as a server that is not there yet
  DatabaseCosts costs;
  /// [workflows][operators] RunSource::tool_contents.
  std::vector<std::vector<Signature>> contents;
};

/// Opens what the workflows' tools need: connections, secrets, the right to reach out (contract 6).
/// Statements are checked against their databases where those can be reached, and databases are
/// asked what reads cost. `workflows` outlive
/// nothing here. `spill_folder`: for DuckDB; "": none. `on_threads`: ToolMailbox::on_threads, or
/// null. Throws Error(kWorkflow or kConfig) with everything that is missing or not allowed, before
/// anything is executed.
RunTools OpenTools(const std::vector<const Workflow*>& workflows, const RunOptions& options,
                   const std::string& spill_folder, Clock& clock,
                   std::function<void(int32_t)> on_threads = nullptr);

/// Asks databases what the workflows' queries cost (`halo explain --ask-databases`): by EXPLAIN,
/// which executes nothing; files are opened to read and none is made. Throws as OpenTools does
/// where something is missing or not allowed.
DatabaseCosts AskDatabases(const std::vector<const Workflow*>& workflows,
                           const RunOptions& options);

/// What OpenTools would refuse before it opens anything, one fault each.
std::vector<std::string> MissingFor(const std::vector<const Workflow*>& workflows,
                                    const RunOptions& options);

/// Checks every statement against its database's catalogue without executing it (`halo validate
/// --connect`). Throws as OpenTools does, also where a database cannot be reached.
void CheckStatements(const std::vector<const Workflow*>& workflows, const RunOptions& options,
                     Clock& clock);

}  // namespace halo
