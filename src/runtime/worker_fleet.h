#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/descriptor.h"
#include "engine/engine.h"

namespace halo {

/// A model that workers can hold.
struct FleetModel {
  std::string name;
  int64_t weights_bytes = 0;
  int64_t kv_bytes = 0;  ///< that a replica's room for KV takes
};

struct WorkerFleetOptions {
  std::vector<FleetModel> models;
  std::vector<int64_t> memory_bytes;  ///< [workers] for weights and KV; each model alone fits
  /// [models] workers that the plan has it run on, ascending and not empty. The others hold it when
  /// that is worth a load.
  std::vector<std::vector<int32_t>> workers_of_model;
  /// Makes a replica, loaded or not. `like`: what another replica of the model is, so that nothing
  /// has to be waited for; null for the first. May throw Error.
  std::function<std::unique_ptr<Engine>(int32_t worker, size_t model, bool load,
                                        const EngineDescription* like)>
      make;
  /// True while something outside is under way of which more requests may follow: then an idle
  /// model stays for as long as it would take to load again. Null: never.
  std::function<bool()> more_may_come;
  /// Told, in a sentence, of a replica that was given up while others go on. May be empty.
  std::function<void(const std::string&)> on_loss;
};

/// What a fleet did beyond its engines' own counters.
struct FleetStatistics {
  int64_t model_switches = 0;  ///< models unloaded to make way for another
  int64_t moved_calls = 0;     ///< that had been given to one worker and were run by another
};

/// Several workers, each a device (or a share of the cores) with memory of its own that holds one
/// replica of each of several models, and an engine in front of them for each model: the scheduler
/// gives it requests as it would give them to one replica, and the fleet decides where they run,
/// and which models are loaded where.
///
/// A request:
///
///     placed --worker has the model--> with a replica --------------------------> answered
///       \--else--> held --loaded--------^    \--cancelled there, moved--> placed elsewhere
///
/// Where. The plan's worker (Request::worker), else one that has the model and least to do. KV that
/// lies with another worker is brought over, while both go on computing, where that takes less time
/// than computing it again; else it is released there.
///
/// Residency. A model with held requests is loaded as soon as its weights and its room for KV fit
/// beside what is loaded; the one whose next request is first in order comes first. For room,
/// models without any request are unloaded, the longest unused first. No model is unloaded while it
/// has requests: the scheduler gives out all that is ready before it waits, so a loaded model works
/// off all there is for it, and models change as seldom as the dependencies allow. Where tools are
/// under way an idle model is kept for as long as loading it took (ski rental: at most twice the
/// cost of knowing). While the last sequences of one drain, the weights of the next are loaded if
/// they fit beside it. Nothing starves: rows are finite, and so is the window of open ones. (An
/// online server will need a bound on how many calls pass one that waits, as SimulatedWorker has.)
///
/// Uneven work. Where a worker has little left to do while another has calls that have not begun,
/// half of the difference moves over (work stealing, Blumofe and Leiserson 1999); calls whose KV
/// lies where they are only if more than a batch waits ahead of them, and with their KV. A model is
/// loaded for that where a full batch waits, as a load takes about as long as a few calls.
///
/// Loss. A replica that is given up (SupervisedEngine) loses its requests to the model's other
/// workers; without any its error ends the run.
///
/// Whoever polls the fronts submits what follows from answers before polling another one: what has
/// no requests then is taken for idle.
///
/// Not thread-safe; engines that have a descriptor (Engine::ready_descriptor) work elsewhere
/// meanwhile, others in Poll, in turns.
class WorkerFleet {
 public:
  /// Makes the replicas of the plan; those that fit on their worker, models in order, are loaded.
  /// Throws what `make` throws.
  WorkerFleet(WorkerFleetOptions options, const Clock& clock);
  ~WorkerFleet();
  WorkerFleet(const WorkerFleet&) = delete;
  WorkerFleet& operator=(const WorkerFleet&) = delete;

  /// [models] In front of all replicas of a model; lives as long as the fleet.
  Engine& engine(size_t model);
  int32_t workers() const { return static_cast<int32_t>(options_.memory_bytes.size()); }
  /// Null: the worker has never held the model.
  Engine* replica(int32_t worker, size_t model);
  const FleetStatistics& statistics() const { return statistics_; }

 private:
  class Front;
  /// (-priority, order, id): next first.
  using Rank = std::tuple<int64_t, int64_t, RequestId>;

  /// A model on a worker.
  struct Replica {
    std::unique_ptr<Engine> engine;  // null: never made
    bool is_lost = false;
    bool is_ahead = false;         // weights alone were loaded: there is no room for its KV yet
    bool is_leaving = false;       // told to unload
    std::map<Rank, Request> held;  // until it is loaded
    int64_t sent = 0;              // requests inside the engine
    int64_t exporting = 0;         // KV that it was asked for
    int64_t idle_since_us = 0;     // since when `sent` is 0
  };
  /// A request on its way.
  struct Sent {
    size_t model = 0;
    int32_t worker = 0;
    bool is_held = true;
    bool is_arriving = false;             // its KV is on the way; it is in arriving_
    bool is_cancelled = false;            // by the scheduler: it moves no more
    bool is_called_back = false;          // by the fleet: its engine was told to cancel it
    int32_t consumers = 0;                // of its KV, still to come
    int32_t moves_to = -1;                // cancelled there to go to this worker; -1: it stays
    std::unique_ptr<const Request> copy;  // null: there is nowhere to move it
  };
  /// Where an answered request's KV lies, as long as it may be asked for.
  struct Kept {
    size_t model = 0;
    int32_t worker = 0;
    int32_t consumers = 0;
  };
  /// A request that waits for its KV to come from another worker.
  struct Arriving {
    size_t model = 0;
    int32_t from = 0, to = 0;
    Request request;
  };

  static Rank RankOf(const Request& request) {
    return {-int64_t{request.priority}, request.order, request.id};
  }
  Replica& At(int32_t worker, size_t model) {
    return replicas_[static_cast<size_t>(worker)][model];
  }
  const Replica& At(int32_t worker, size_t model) const {
    return replicas_[static_cast<size_t>(worker)][model];
  }

  // Where requests go
  void Submit(size_t model, Request request);
  int32_t ChooseWorker(size_t model, const Request& request) const;
  bool CanRun(int32_t worker, size_t model) const { return !At(worker, model).is_lost; }
  void Place(size_t model, int32_t worker, Request request);
  void Route(size_t model, int32_t worker, Request request);
  void BringKv(size_t model, int32_t from, int32_t to, Request request);
  bool IsWorthBringing(size_t model, int32_t from, const Request& request) const;
  void OnKv(int32_t worker, size_t model, KvTransfer kv);
  bool HandOver(size_t model, int32_t to, KvTransfer kv);
  void ForgetConsumers(RequestId id, int32_t consumers);
  void Cancel(RequestId id);
  void CancelWaiting(size_t model);
  void Release(RequestId id, int32_t consumers);
  void EndHeld(RequestId id);
  /// As the scheduler hears of a request that it took back in time.
  Completion NotBegun(RequestId id) const;

  // Residency
  void Make(int32_t worker, size_t model, bool load);
  int64_t BytesOf(size_t model) const {
    return options_.models[model].weights_bytes + options_.models[model].kv_bytes;
  }
  int64_t UsedBytes(int32_t worker) const;
  void ManageResidency(int32_t worker);
  bool TryLoad(int32_t worker, size_t model);
  bool UnloadOneFor(int32_t worker, size_t model);
  bool MayLeave(const Replica& replica) const;
  void LoadAhead(int32_t worker, size_t model);
  void LoadNow(int32_t worker, size_t model);
  void SendHeld(int32_t worker, size_t model);

  // Uneven work
  void Balance(size_t model);
  int64_t SequencesOf(size_t model) const;
  int64_t Pending(int32_t worker, size_t model) const;
  int64_t Waiting(int32_t worker, size_t model) const;
  int64_t PendingOf(int32_t worker) const;
  int32_t WhoTakesOver(size_t model, int32_t busiest) const;
  void Move(size_t model, int32_t from, int32_t to, int64_t most);
  void MoveTo(int32_t to, size_t model, RequestId id);

  // Answers
  std::vector<Completion> Poll(size_t model, int64_t deadline_us);
  void Manage();
  void Collect();
  bool AnyDone() const;
  void Deliver(int32_t worker, size_t model, std::vector<Completion> ended);
  void CollectFrom(int32_t worker, size_t model);
  void OnLoss(int32_t worker, size_t model, const std::string& why);
  std::vector<RequestId> TakeAllOf(int32_t worker, size_t model);
  void Wait(int64_t until_us) const;

  WorkerFleetOptions options_;
  const Clock& clock_;
  Descriptor ready_;                            // epoll over all replicas' descriptors
  bool works_elsewhere_ = true;                 // every replica has one
  std::vector<std::vector<Replica>> replicas_;  // [workers][models]
  std::vector<std::unique_ptr<Front>> fronts_;  // [models]
  std::unordered_map<RequestId, Sent> sent_;
  std::unordered_map<RequestId, Kept> kept_;
  std::multimap<RequestId, Arriving> arriving_;  // by whose KV it is, in order
  std::vector<int64_t> moving_;                  // [models] requests cancelled to be moved
  size_t next_turn_ = 0;                         // of engines that work in Poll
  FleetStatistics statistics_;
};

}  // namespace halo
