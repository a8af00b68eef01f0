#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "engine/engine.h"
#include "runtime/executor.h"
#include "session/trace_file.h"

namespace halo {

/// Where spans lie side by side that overlap: each goes to a slot that is free by then.
class TraceSlots {
 public:
  /// The slot of a span. The one that was used last before it, so that few are needed.
  size_t Take(int64_t start_us, int64_t end_us);
  size_t size() const { return busy_until_us_.size(); }

 private:
  std::vector<int64_t> busy_until_us_;  // [slots]
};

/// `--trace`: what a run did, and when (docs/trace.md). Says who asked (operators, row ids) and how
/// much (tokens, sequences); never what: no prompt, answer, parameter or header is in it.
class RunTrace final : public RunObserver {
 public:
  /// `clock` outlives it. Throws Error(kIo).
  RunTrace(const std::string& path, int64_t start_us, const Clock& clock);

  /// A replica that records spans (LlamaSetup::record_spans): what calls are given to, the worker
  /// that runs them, and the replica there, null as long as there is none. All outlive the trace.
  void AddEngine(const std::string& name, const Engine& front, int32_t worker,
                 std::function<Engine*()> replica);
  /// A part of the run as a whole.
  void AddPhase(const std::string& name, int64_t start_us, int64_t end_us);
  /// Something that was decided for the run as a whole.
  void AddNote(const std::string& text, int64_t time_us);

  void OnAttempt(const CallRecord& call) override;
  void OnToolAttempt(const ToolCallRecord& call) override;
  void OnRow(size_t source, const RowResult& row) override;
  void OnTurn(const RunCounts& counts) override;

  /// Writes what is left. Returns what a person should know of the file, "" if nothing.
  std::string Finish();

 private:
  struct Worker {
    std::function<Engine*()> engine;
    int32_t process = 0;
    TraceSlots calls;
    bool has_not_begun = false;  ///< the lane of calls that never ran has a name
    int32_t running = -1;        ///< counters as they were written last
    int64_t kv_tokens = -1;
  };
  /// Calls of a connection, a host or a function.
  struct Target {
    TraceSlots slots;
    std::vector<int32_t> threads;  // [slots]
    int32_t rank = 0;
  };

  void TakeSpans(Worker& worker);
  void AddSpan(Worker& worker, const EngineSpan& span);
  void Count(std::string_view name, int64_t now_us, int64_t value, int64_t& last);

  const Clock& clock_;
  TraceFile file_;
  std::vector<Worker> workers_;
  std::map<std::pair<const Engine*, int32_t>, size_t> worker_of_;
  std::map<std::string, Target> targets_;
  int32_t tool_threads_ = 0;
  int64_t rows_opened_ = 0;
  int64_t rows_open_ = -1, calls_in_flight_ = -1, from_cache_ = 0;  // as they were written last
  int64_t last_flush_us_ = 0;
};

}  // namespace halo
