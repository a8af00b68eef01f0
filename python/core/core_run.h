#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/descriptor.h"
#include "halo/session.h"
#include "session/simulated_run.h"

namespace halo::python {

/// One run, or one simulation, on a thread of its own, which knows nothing of Python: it takes rows
/// from streams and leaves finished ones in a queue. So whoever waits for rows needs no lock of the
/// interpreter, and the scheduler never waits for one.
///
/// Whoever has begun a run gives it up (`GiveUp`) when nobody wants its rows any more. The thread
/// shares the run with them: what it gives back to Python at its end may be what had the last hold
/// of the run.
///
/// The queue is as long as rows were added and not taken: whoever adds them bounds both.
class CoreRun : public std::enable_shared_from_this<CoreRun> {
 public:
  enum class Kind : uint8_t { kRun, kSimulation };

  /// Throws Error(kConfig) where the system gives no descriptor.
  static std::shared_ptr<CoreRun> Begin(Kind kind, SimulationOptions options);
  ~CoreRun();
  CoreRun(const CoreRun&) = delete;
  CoreRun& operator=(const CoreRun&) = delete;

  /// Finished rows, `most` at most; waits until there are `least`, for `most_s` at most. None:
  /// there is none yet, or there will be none (`is_over`).
  std::vector<FinishedRow> Take(size_t most, size_t least, double most_s);
  /// True when the run has ended and all its rows were taken.
  bool is_over() const;
  /// Readable while there are rows to take or the run has ended.
  int ready_descriptor() const { return ready_.get(); }

  /// 1 finishes what runs and begins nothing new, 2 gives that up, too. Never less than before.
  void Stop(int level);
  /// Ends it at once and waits until it has, unless its own thread is who calls.
  void GiveUp();
  /// Waits for the end of the run's thread, `most_s` at most. True if it has ended.
  bool Join(double most_s);
  /// The latest Progress as JSON; "" before the first.
  std::string ProgressJson() const;
  /// How it ended: {"status", "stop_reason", "summary", "notices", "failures", "rows_failed",
  /// "outputs", "run_dir"} as JSON; of a simulation its report. Throws what the run threw. The run
  /// has ended.
  std::string OutcomeJson() const;
  /// The folder in which it is kept, once it has begun; "": none.
  std::string RunFolder() const;

 private:
  CoreRun();
  void Work(Kind kind, SimulationOptions options);
  void Execute(RunOptions options);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Descriptor ready_;
  std::atomic<int> stop_{0};
  // Under mutex_:
  std::deque<FinishedRow> finished_;
  size_t wanted_ = 1;  // rows that whoever takes them waits for
  std::optional<Progress> progress_;
  std::vector<std::string> news_;
  bool has_ended_ = false;
  std::exception_ptr fault_;
  std::string outcome_;
  std::string run_folder_;
  std::thread thread_;
};

}  // namespace halo::python
