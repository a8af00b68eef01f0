#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"
#include "engine/simulated/simulated_costs.h"
#include "engine/simulated/simulated_kv.h"

namespace halo {

/// What a simulated model says to a request.
struct SimulatedAnswer {
  std::string text;
  std::vector<TokenId> tokens;  ///< ids, for engines that have them; `output_tokens` many
  int32_t output_tokens = 1;    ///< the end token included; at least 1, unless none was wanted
  FinishReason finish = FinishReason::kEndToken;
  std::optional<Failure> failure;  ///< instead of an answer, when its last token is due
};

/// A model that workers can load.
struct SimulatedModel {
  std::string name;
  SimulatedCosts costs;
  Signature vocabulary;
  bool has_token_ids = false;  ///< prompts are ids; otherwise text of which four bytes are a token
  /// The answer to a request, of `max_tokens` tokens at most. Must be a pure function of the two;
  /// for temperature 0 of what equal calls have in common.
  std::function<SimulatedAnswer(const Request&, int32_t max_tokens)> answer;
};

enum class SimulatedStep : uint8_t { kLoad, kPrefill, kDecode };

/// What a worker is about to do, and all that it holds meanwhile.
struct SimulatedTick {
  int32_t worker = 0;
  size_t model = 0;
  SimulatedStep step = SimulatedStep::kLoad;
  int64_t start_us = 0, end_us = 0;
  int64_t memory_bytes = 0;      ///< that it has
  int64_t weights_bytes = 0;     ///< of resident models, the one that is loaded included
  int64_t running_kv_bytes = 0;  ///< of running requests at their longest
  int64_t kept_kv_bytes = 0;     ///< of finished ones, on the device
  int64_t host_kv_bytes = 0;     ///< in host memory
  int64_t running = 0, waiting = 0;
  int64_t sequences = 0;  ///< of the model: running ones and kept ones that lie in the way
  int64_t in_step = 0;    ///< requests that the pass computes
  int64_t tokens = 0;     ///< that it computes
};

/// Hears of every step of every worker, for tests.
class SimulatedObserver {
 public:
  virtual ~SimulatedObserver() = default;
  virtual void OnTick(const SimulatedTick&) {}
  /// A request comes to a worker.
  virtual void OnSubmit(int32_t /*worker*/, size_t /*model*/, const Request&) {}
  /// A request begins, so many steps of its worker after it was submitted.
  virtual void OnStart(int32_t /*worker*/, const Request&, int64_t /*steps_waited*/) {}
  /// A request that has begun, or has not, is there no more.
  virtual void OnLeave(int32_t /*worker*/, RequestId) {}
};

struct SimulatedWorkerOptions {
  int32_t index = 0;
  int64_t memory_bytes = 0;  ///< for weights and KV
  int64_t host_bytes = 0;    ///< for KV that has left the device
  int32_t sequences = 64;    ///< of each model, running side by side
  int32_t context_tokens = 1 << 20;
  bool reuse = true;                      ///< false: every prompt is computed from its first token
  SimulatedObserver* observer = nullptr;  ///< outlives the worker; may be null
};

/// What a worker did so far.
struct SimulatedWorkerTotals {
  int64_t busy_us = 0;  ///< loads not included
  int64_t load_us = 0;
  int64_t loads = 0;
  int64_t calls = 0;
  int64_t peak_memory_bytes = 0;
};

/// One device: it holds models, loads and drops them, and does one thing at a time, a load or a
/// pass of one model. In time it behaves as LlamaEngine does: requests go by (priority, order), the
/// longest known prefix of a prompt is not computed again, one that is on its way is waited for, a
/// request starts only when its worst case fits, prompts go first in passes of bounded size, what
/// is finished stays until its place is needed.
///
/// Models. One that is not resident and has the next request in line is loaded as soon as it fits,
/// idle ones being dropped for it. Where it does not, the residents go on until they have nothing
/// left that may begin.
///
/// Fairness. What cannot begin, for its model or its prefix is not there yet, is passed by requests
/// behind it, but by no more than kMostPassedPerSequence times the sequences of a model: then the
/// line is closed behind it until it has begun. Requests ahead of it still begin, and one that
/// waits for memory closes the line at once. While all sequences of a request's own model run it is
/// not passed: what others begin then takes nothing that it waits for.
///
/// Left out: preemption by priority, adapters' turns (an adapter only has KV of its own), the
/// layout of KV streams.
class SimulatedWorker {
 public:
  SimulatedWorker(const std::vector<SimulatedModel>& models, SimulatedWorkerOptions options);

  /// Its completion if it is refused.
  std::optional<Completion> Submit(size_t model, Request request, int64_t now_us);
  /// Nothing if it is not here any more.
  std::optional<Completion> Cancel(RequestId id, int64_t now_us);
  void CancelWaiting(size_t model, int64_t now_us, std::vector<Completion>& ended);
  void Release(size_t model, RequestId id, int32_t consumers);
  /// Gives up requests that have not begun, at most so many, the last in order first; those that go
  /// on from another only if `with_source`.
  std::vector<Request> TakeWaiting(size_t model, int64_t most, bool with_source);

  /// Begins what is next; the time when it ends, or nothing if nothing is to be done. Requests
  /// whose time has run out end at once.
  std::optional<int64_t> Begin(int64_t now_us, std::vector<Completion>& ended);
  /// Ends what was begun, at the time that Begin gave.
  void End(int64_t now_us, std::vector<Completion>& ended);
  bool is_busy() const { return current_.has_value(); }

  bool IsResident(size_t model) const { return replicas_[model].is_resident; }
  int64_t pending() const { return static_cast<int64_t>(live_.size()); }
  int64_t pending(size_t model) const {
    return waiting(model) + static_cast<int64_t>(replicas_[model].running.size());
  }
  /// That have not begun.
  int64_t waiting(size_t model) const {
    return static_cast<int64_t>(replicas_[model].waiting.size());
  }
  /// Most tokens of prompt and answer of one request.
  int32_t ContextTokens(size_t model) const;
  const EngineStatistics& Statistics(size_t model) const { return replicas_[model].statistics; }
  const SimulatedWorkerTotals& totals() const { return totals_; }

 private:
  /// (-priority, order, id): next first.
  using Rank = std::tuple<int64_t, int64_t, RequestId>;

  struct Live {
    enum class State : uint8_t { kWaiting, kPrefilling, kDecoding };
    Request request;
    size_t model = 0;
    State state = State::kWaiting;
    std::vector<TokenId> prompt;  // ids, or four bytes of text each
    size_t prompt_bytes = 0;      // of text
    SimulatedAnswer answer;
    int32_t max_tokens = 0;  // of the answer, after the context is taken into account
    int32_t computed = 0;    // of the prompt
    int32_t sampled = 0;
    int64_t kv_bytes = 0;  // at its longest
    SimulatedKv::HolderId holder = -1;
    double engine_us = 0.0;
    int64_t submitted_step = 0;
    int64_t passed = 0;  // by how many requests behind it
    Completion completion;
  };

  struct Replica {
    bool is_resident = false;
    std::set<Rank> waiting;
    std::vector<Live*> running;  // in order of start
    SimulatedKv kv;
    bool prefilled_last = false;
    int64_t used_step = 0;  // when it last did something
    EngineStatistics statistics;
  };

  /// The step that is under way.
  struct Current {
    SimulatedStep step = SimulatedStep::kLoad;
    size_t model = 0;
    int64_t start_us = 0;
    std::vector<std::pair<RequestId, int32_t>> parts;  // and tokens of each
    double pass_us = 0.0, token_us = 0.0;              // token_us: sampling, of all
  };

  static Rank RankOf(const Request& request) {
    return {-request.priority, request.order, request.id};
  }
  const SimulatedCosts& CostsOf(size_t model) const { return models_[model].costs; }
  Completion Fail(Live& live, const char* code, const char* message, int64_t now_us);
  void FailExpired(int64_t now_us, std::vector<Completion>& ended);
  void Leave(Live& live);

  // Memory
  int64_t UsedBytes() const;
  int64_t KeptBytes() const;
  int64_t RunningCount() const;
  bool FreeBytes(int64_t bytes, SimulatedKv::HolderId but, size_t model);
  void Spill(size_t model, int64_t tokens);
  void DropResident(size_t model);
  bool DropIdleFor(int64_t bytes, size_t model, bool though_they_wait);

  // What is next
  std::optional<size_t> ModelToLoad();
  bool IsClosedTo(const Rank& rank) const;
  void CountPassed(const Rank& by);
  void Admit(int64_t now_us);
  enum class Admission : uint8_t { kStarted, kWaitsForPrefix, kNoSequence, kNoMemory };
  Admission TryAdmit(Live& live, int64_t now_us);
  void TakePrefix(Live& live, const SimulatedKv::Prefix& prefix);
  std::optional<size_t> NextReplica() const;
  bool AnyRuns(const Replica& replica, Live::State state, bool urgent) const;
  std::vector<Live*> ChoosePrefill(const Replica& replica) const;
  void PlanPrefill(Replica& replica, Current& step);
  void PlanDecode(Replica& replica, Current& step);
  double SamplingUs(const Live& live) const;
  int64_t StartStep(Current step, int64_t now_us, double seconds);
  void Tell(const Current& step, int64_t end_us) const;

  void EndPrefill(const Current& step, int64_t now_us, std::vector<Completion>& ended);
  void EndDecode(const Current& step, int64_t now_us, std::vector<Completion>& ended);
  void Sample(Live& live, int64_t now_us, std::vector<Completion>& ended);
  void Finish(Live& live, int64_t now_us, std::vector<Completion>& ended);

  const std::vector<SimulatedModel>& models_;
  SimulatedWorkerOptions options_;
  std::vector<Replica> replicas_;  // [models]
  std::unordered_map<RequestId, std::unique_ptr<Live>> live_;
  int64_t with_deadline_ = 0;  // of live_
  std::optional<Current> current_;
  size_t last_model_ = 0;
  std::set<Rank> closes_;  // waiting requests that nothing behind them may pass any more
  int64_t weights_bytes_ = 0, running_bytes_ = 0;
  double moved_us_ = 0.0;  // KV copied and moved since the last pass
  int64_t steps_ = 0;
  SimulatedWorkerTotals totals_;
};

}  // namespace halo
