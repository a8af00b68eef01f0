#include "core/core_run.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"

namespace halo::python {
namespace {

using Json = nlohmann::ordered_json;

Json JsonOf(const OperatorProgress& op) {
  return {{"id", op.id},
          {"instances", op.instances},
          {"done", op.done},
          {"failed", op.failed},
          {"calls_running", op.calls_running}};
}

Json JsonOf(const Progress& progress) {
  Json operators = Json::array();
  for (const OperatorProgress& op : progress.operators) operators.push_back(JsonOf(op));
  return {{"rows_total", progress.rows_total},
          {"rows_ok", progress.rows_ok},
          {"rows_failed", progress.rows_failed},
          {"instances_total", progress.instances_total},
          {"instances_done", progress.instances_done},
          {"calls_done", progress.calls_done},
          {"calls_running", progress.calls_running},
          {"prompt_tokens", progress.prompt_tokens},
          {"reused_tokens", progress.reused_tokens},
          {"output_tokens", progress.output_tokens},
          {"elapsed_s", progress.elapsed_s},
          {"left_s", progress.left_s},
          {"operators", operators},
          {"waits", progress.waits}};
}

const char* NameOf(RunStatus status) {
  switch (status) {
    case RunStatus::kAllOk:
      return "ok";
    case RunStatus::kRowsFailed:
      return "rows_failed";
    case RunStatus::kStopped:
      return "stopped";
    case RunStatus::kInterrupted:
      return "interrupted";
    case RunStatus::kFailed:
    case RunStatus::kUsage:
      break;
  }
  return "failed";
}

std::string TextOf(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string JsonOf(const RunOutcome& outcome, const std::string& run_folder) {
  Json failures = Json::array();
  for (const FailureGroup& group : outcome.failures)
    failures.push_back({{"operator", group.operator_id},
                        {"code", group.code},
                        {"rows", group.rows},
                        {"example_row", Json::parse(group.example_row)},
                        {"example", group.example}});
  return TextOf({{"status", NameOf(outcome.status)},
                 {"stop_reason", outcome.stop_reason},
                 {"summary", Json::parse(outcome.summary_json)},
                 {"notices", outcome.notices},
                 {"failures", failures},
                 {"rows_failed", outcome.rows_failed},
                 {"outputs", outcome.outputs},
                 {"run_dir", run_folder}});
}

}  // namespace

CoreRun::CoreRun() : ready_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!ready_)
    throw Error(ErrorCode::kConfig, std::string("cannot begin a run: ") + std::strerror(errno));
}

std::shared_ptr<CoreRun> CoreRun::Begin(Kind kind, SimulationOptions options) {
  std::shared_ptr<CoreRun> run(new CoreRun());  // shared as the class says
  run->thread_ = std::thread([run, kind, all = std::move(options)]() mutable {
    run->Work(kind, std::move(all));
    run.reset();
  });
  return run;
}

/// The thread has nothing left to do but to end.
CoreRun::~CoreRun() {
  if (thread_.get_id() == std::this_thread::get_id()) {
    thread_.detach();
  } else {
    thread_.join();
  }
}

void CoreRun::GiveUp() {
  Stop(2);
  if (thread_.get_id() == std::this_thread::get_id()) return;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return has_ended_; });
}

void CoreRun::Work(Kind kind, SimulationOptions options) {
  options.run.on_row = [this](FinishedRow row) {
    const std::lock_guard lock(mutex_);
    finished_.push_back(std::move(row));
    // A row costs as little as this where nobody waits for it.
    if (finished_.size() == 1) (void)eventfd_write(ready_.get(), 1);
    if (finished_.size() >= wanted_) changed_.notify_all();
  };
  try {
    if (kind == Kind::kSimulation) {
      const std::string report = SimulationJson(Simulate(options));
      const std::lock_guard lock(mutex_);
      outcome_ = report;
    } else {
      Execute(std::move(options.run));
    }
  } catch (const Failure& failure) {
    const std::lock_guard lock(mutex_);
    fault_ = std::make_exception_ptr(Error(ErrorCode::kIo, failure.message));
  } catch (...) {
    const std::lock_guard lock(mutex_);
    fault_ = std::current_exception();
  }
  options = {};  // what belongs to Python goes before the run is over
  const std::lock_guard lock(mutex_);
  has_ended_ = true;
  (void)eventfd_write(ready_.get(), 1);
  changed_.notify_all();
}

void CoreRun::Execute(RunOptions options) {
  Session session(std::move(options));
  const auto keep_progress = [&](const Progress& progress) {
    const std::lock_guard lock(mutex_);
    news_.insert(news_.end(), progress.news.begin(), progress.news.end());
    progress_ = progress;
    if (run_folder_.empty()) run_folder_ = session.RunFolder();
  };
  try {
    const RunOutcome outcome = session.Run(stop_, keep_progress);
    const std::lock_guard lock(mutex_);
    run_folder_ = session.RunFolder();
    outcome_ = JsonOf(outcome, run_folder_);
  } catch (...) {
    const std::lock_guard lock(mutex_);
    run_folder_ = session.RunFolder();
    throw;
  }
}

std::vector<FinishedRow> CoreRun::Take(size_t most, size_t least, double most_s) {
  std::unique_lock lock(mutex_);
  wanted_ = std::max<size_t>(1, least);
  changed_.wait_for(lock, std::chrono::duration<double>(most_s),
                    [&] { return finished_.size() >= wanted_ || has_ended_; });
  std::vector<FinishedRow> rows;
  const size_t count = std::min(most, finished_.size());
  rows.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    rows.push_back(std::move(finished_.front()));
    finished_.pop_front();
  }
  eventfd_t told = 0;
  if (finished_.empty() && !has_ended_) (void)eventfd_read(ready_.get(), &told);
  return rows;
}

bool CoreRun::is_over() const {
  const std::lock_guard lock(mutex_);
  return has_ended_ && finished_.empty();
}

void CoreRun::Stop(int level) {
  int before = stop_.load();
  while (before < level && !stop_.compare_exchange_weak(before, level)) {
  }
}

bool CoreRun::Join(double most_s) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::duration<double>(most_s), [&] { return has_ended_; });
}

std::string CoreRun::ProgressJson() const {
  const std::lock_guard lock(mutex_);
  if (!progress_) return "";
  Json json = JsonOf(*progress_);
  json["news"] = news_;
  return TextOf(json);
}

std::string CoreRun::OutcomeJson() const {
  const std::lock_guard lock(mutex_);
  if (fault_) std::rethrow_exception(fault_);
  if (!has_ended_) throw Error(ErrorCode::kUsage, "the run has not ended");
  return outcome_;
}

std::string CoreRun::RunFolder() const {
  const std::lock_guard lock(mutex_);
  return run_folder_;
}

}  // namespace halo::python
