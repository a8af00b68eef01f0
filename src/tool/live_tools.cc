#include "tool/live_tools.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "tool/function/local_function.h"

namespace halo {

void LiveTools::TakeSql(std::unique_ptr<ToolBackend> backend,
                        const std::vector<std::string>& connections) {
  for (const std::string& name : connections) by_connection_[name] = backend.get();
  sql_.push_back(std::move(backend));
}

/// Null for a function that runs here.
ToolBackend* LiveTools::BackendOf(const ToolCall& call) const {
  if (const auto* sql = std::get_if<SqlCall>(&call.what)) {
    const auto found = by_connection_.find(sql->connection);
    HALO_CHECK(found != by_connection_.end(), "every connection of a run has a backend");
    return found->second;
  }
  if (std::holds_alternative<HttpCall>(call.what)) {
    HALO_CHECK(http_ != nullptr, "a run with HTTP calls has someone to make them");
    return http_.get();
  }
  const std::string& function = std::get<FunctionCall>(call.what).function;
  if (FindLocalFunction(function) == nullptr) {
    HALO_CHECK(host_ != nullptr, "a run with functions of its program has someone to call them");
    return host_.get();
  }
  const bool is_program = function == "exec";
  HALO_CHECK(!is_program || exec_ != nullptr, "a run with programs has someone to run them");
  return is_program ? exec_.get() : nullptr;
}

void LiveTools::Submit(ToolCall call) {
  ToolBackend* backend = BackendOf(call);
  by_call_.emplace(call.id, backend);
  if (backend == nullptr) {
    RunHere(call);
  } else {
    backend->Submit(std::move(call));
  }
}

void LiveTools::RunHere(const ToolCall& call) {
  const auto& function = std::get<FunctionCall>(call.what);
  ToolCompletion completion;
  completion.id = call.id;
  completion.started_us = clock_.NowUs();
  const int64_t cpu_us = ThreadCpuUs();
  try {
    const LocalFunction* known = FindLocalFunction(function.function);
    HALO_CHECK(known != nullptr && known->run != nullptr, "functions are checked before a run");
    completion.value = known->run(function);
  } catch (Failure& failure) {
    completion.failure = std::move(failure);
  }
  completion.finished_us = clock_.NowUs();
  completion.cpu_us = ThreadCpuUs() - cpu_us;
  mailbox_.Put(std::move(completion));
}

void LiveTools::Cancel(ToolCallId id) {
  const auto found = by_call_.find(id);
  if (found != by_call_.end() && found->second != nullptr) found->second->Cancel(id);
}

std::vector<ToolCompletion> LiveTools::Poll(int64_t deadline_us) {
  const int64_t wait_us = deadline_us > 0 ? std::max<int64_t>(0, deadline_us - clock_.NowUs()) : 0;
  std::vector<ToolCompletion> completions = mailbox_.Take(wait_us);
  for (const ToolCompletion& completion : completions) by_call_.erase(completion.id);
  return completions;
}

}  // namespace halo
