#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/descriptor.h"
#include "engine/crash_record.h"
#include "engine/engine_process.h"
#include "engine/remote_engine.h"

namespace halo {

struct SupervisedEngineOptions {
  std::string model_name;  ///< for messages
  EngineLauncher launch;   ///< finds socket, crash record and, where shared, turns inherited
  std::optional<SetupMessage> setup;  ///< sent to each new process first
  /// Of an engine like this one, whose process is not started before Load or a request then. Name
  /// "": none is known, and it is waited for.
  EngineDescription description;
  int turns = -1;                   ///< file of EngineTurns; -1: it has the cores for itself
  int32_t most_failed_starts = 3;   ///< in a row, before the engine is given up
  int32_t most_crashes = 20;        ///< in a row without an answer in between; the same
  int64_t first_wait_us = 100'000;  ///< before the second start in a row; doubled each time
  int64_t most_wait_us = 5'000'000;
  /// Told, in a sentence, of each process that was lost and is started again. May be empty.
  std::function<void(const std::string&)> on_restart;
};

/// An engine in a child process that is started anew when it ends: an assertion of llama.cpp, a
/// fault of a GPU, the kernel out of memory or a kill -9 cost the passes under way and nothing
/// else. Every request is kept here until it is answered. Draws are counted, not streamed, so what
/// is computed again is answered the same; KV that was kept for later requests is gone, and they
/// are computed from their first token.
///
/// The process:
///
///   starting --describes itself--> serving --lost--> ended --wait--> starting ...
///       \------fault or lost--------------------------^  \--too many in a row--> Error
///
/// A request:
///
///   held --sent--> in the engine --answered--> finished
///     ^-----------lost------/ \--caught once too often--> failed, "poisonous_call"
///
/// Caught is what was being computed when the process ended (CrashRecord), not what waited inside.
/// What was caught twice runs alone: nothing else is in the engine until it is answered. If that
/// ends the process too, and nothing had been answered since the start, the request did it, and
/// fails; where something had been, the process may have been ended from outside, and the request
/// goes first, alone, in the next one. So a request that ends its engine does so four times at
/// most, and one that does not never fails, as long as each process answers something.
class SupervisedEngine final : public Engine {
 public:
  /// Starts the process and waits until it has an engine, unless its description is given. Throws
  /// the Error that it gives as the reason why it has none, or Error(kConfig).
  SupervisedEngine(SupervisedEngineOptions options, const Clock& clock);
  ~SupervisedEngine() override;

  const EngineDescription& Describe() const override { return description_; }
  void Submit(Request request) override;
  void Cancel(RequestId id) override;
  void CancelWaiting() override;
  void Release(RequestId id, int32_t consumers) override;
  /// `deadline_us` on the steady clock; 0 looks only at what has come. Throws Error(kIo) once the
  /// engine is given up.
  std::vector<Completion> Poll(int64_t deadline_us) override;
  int64_t pending() const override { return static_cast<int64_t>(held_.size() + finished_.size()); }
  EngineStatistics Statistics() const override;
  EngineSpans TakeSpans() override;
  int ready_descriptor() const override { return ready_.get(); }
  /// Where its process ends before it has answered, nothing is left: so says TakeExports.
  void Export(RequestId id) override;
  std::vector<KvTransfer> TakeExports() override;
  void Import(KvTransfer kv) override;
  void Load() override;
  void Unload() override;
  Residency residency() const override;

  /// The process, for tests; -1: none now.
  pid_t pid() const { return process_ ? process_->pid() : -1; }

 private:
  /// By order of submission.
  using Place = uint64_t;

  /// A request that has not been answered.
  struct Held {
    Request request;
    int32_t caught = 0;
    bool is_sent = false;
    bool is_cancelled = false;
  };

  /// There is something that its process will say without being asked again.
  bool is_awaited() const {
    return !held_.empty() || !exporting_.empty() ||
           (remote_ != nullptr && residency() == Residency::kChanging);
  }
  bool is_serving() const { return remote_ != nullptr && remote_->is_described(); }
  void Start();
  bool TryToStart();
  void TakeDescription();
  void TakeAnswers(std::vector<Completion> answers);
  void TakeKv();
  void OnLoss();
  std::string LoseProcess();
  void CountLoss(bool was_serving, const std::string& how);
  void CatchRequests(const std::optional<std::vector<RequestId>>& computed, const std::string& how);
  void OnCaught(Place place, Held& held, const std::string& how);
  void SendHeld();
  void Send(Held& held);
  void EndHeld(Place place, Failure failure);
  void FailExpired();
  void Listen(int descriptor);
  void WakeAt(int64_t time_us);
  void AddStatistics(EngineStatistics& total) const;
  void Step(int64_t deadline_us);

  SupervisedEngineOptions options_;
  const Clock& clock_;
  EngineDescription description_;  ///< name "": not known yet
  Descriptor ready_;               ///< epoll: the socket, and the timer
  Descriptor timer_;
  int64_t wake_at_us_ = 0;                  ///< what the timer is set to; 0: it is not
  std::unique_ptr<EngineProcess> process_;  ///< with remote_ and record_
  std::unique_ptr<RemoteEngine> remote_;
  std::unique_ptr<CrashRecord> record_;

  Place next_place_ = 1;
  std::map<Place, Held> held_;
  std::unordered_map<RequestId, Place> place_of_;
  std::set<Place> unsent_;
  std::set<Place> lone_;              ///< caught twice; the first goes next
  std::vector<Completion> finished_;  ///< not given out yet

  std::multiset<RequestId> exporting_;  ///< asked of the process and not answered, each time
  std::vector<KvTransfer> exports_;     ///< not given out yet
  bool has_answered_ = false;           ///< since the process started
  bool wants_loaded_ = true;            ///< a process that is started has weights at once
  int32_t failed_starts_ = 0;           ///< in a row
  int32_t crashes_ = 0;                 ///< in a row without an answer
  int64_t start_at_us_ = 0;             ///< no sooner
  EngineStatistics before_;             ///< of processes that have ended, and the restarts
  SpanLog spans_;                       ///< of theirs, and the restarts
  int64_t lost_at_us_ = 0;              ///< 0: it is there, or never was
};

}  // namespace halo
