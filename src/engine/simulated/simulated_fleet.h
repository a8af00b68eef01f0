#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "engine/simulated/simulated_engine.h"
#include "engine/simulated/simulated_worker.h"

namespace halo {

struct SimulatedFleetOptions {
  std::vector<SimulatedModel> models;
  std::vector<int64_t> memory_bytes;  ///< [workers], each enough for every model's weights
  int64_t host_bytes = 0;             ///< of each worker, for KV that has left the device
  int32_t sequences = 64;             ///< of each model on each worker
  int32_t context_tokens = 1 << 20;
  bool reuse = true;
  /// A worker with little left to do takes requests that have not begun from the one that has most
  /// of them, by the rules of WorkerFleet; KV stays where it is.
  bool moves_calls = false;
  /// The worker that is to run a request; -1: whoever has the model and least to do, else whoever
  /// has least to do. Null: always that.
  std::function<int32_t(const Request&)> worker_of;
  /// [models] on how many workers a model may run, which says how many requests are taken; empty:
  /// on all.
  std::vector<int32_t> workers_of_model;
  SimulatedObserver* observer = nullptr;        ///< outlives the fleet; may be null
  std::shared_ptr<SimulatedTimeline> timeline;  ///< shared by all on the clock; may be null
};

/// Many workers on one virtual clock, and an engine in front of them for each model: the scheduler
/// gives it requests as it would give them to one replica, and it hands each to a worker.
///
/// A discrete-event simulation: the events are the ends of the workers' steps, in order of time,
/// then of workers. After a step in which something finished, its worker begins the next one only
/// when the scheduler has had the chance to submit what follows, as with an engine in its thread.
class SimulatedFleet {
 public:
  SimulatedFleet(SimulatedFleetOptions options, VirtualClock& clock);
  ~SimulatedFleet();
  SimulatedFleet(const SimulatedFleet&) = delete;
  SimulatedFleet& operator=(const SimulatedFleet&) = delete;

  /// [models]. Polling one moves the clock to the next completion of any of them, but not past what
  /// others on the timeline have to report.
  Engine& engine(size_t model);
  int32_t workers() const { return static_cast<int32_t>(workers_.size()); }
  const SimulatedWorker& worker(int32_t index) const {
    return *workers_[static_cast<size_t>(index)];
  }

 private:
  class Front;
  /// Where a request went, as long as it may be asked for.
  struct Placed {
    int32_t worker = 0;
    int32_t consumers = 0;
    bool is_done = false;
  };

  void Submit(size_t model, Request request);
  void Cancel(RequestId id);
  void CancelWaiting(size_t model);
  void Release(size_t model, RequestId id, int32_t consumers);
  std::vector<Completion> Poll(size_t model, int64_t deadline_us);
  EngineStatistics Statistics(size_t model) const;

  int32_t ChooseWorker(size_t model, const Request& request) const;
  void Wake(int32_t worker);
  void Announce();
  void Run(int64_t time_us, int32_t worker);
  void TakeOver(int32_t worker);
  void Move(size_t model, int32_t from, int32_t to);
  void Deliver(std::vector<Completion> ended);
  void ForgetConsumers(RequestId id, int32_t consumers);

  SimulatedFleetOptions options_;
  VirtualClock& clock_;
  std::vector<std::unique_ptr<SimulatedWorker>> workers_;
  std::vector<std::unique_ptr<Front>> fronts_;
  std::set<std::pair<int64_t, int32_t>> events_;  // (time, worker)
  std::vector<bool> has_event_;                   // [workers]
  std::unordered_map<RequestId, Placed> placed_;
  std::unordered_map<RequestId, size_t> model_of_;  // of requests that are not done
  int64_t announced_us_ = -1;                       // on the timeline; -1: nothing is
};

}  // namespace halo
