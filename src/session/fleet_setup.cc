#include "session/fleet_setup.h"

#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <thread>
#include <utility>

#include "base/error.h"
#include "engine/engine_turns.h"
#include "engine/llama/llama_engine.h"
#include "engine/llama/loaded_model.h"

namespace halo {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;
/// Of an accelerator's memory, for weights and KV; the rest is what passes need.
constexpr double kUsableShare = 0.85;
/// Calls at their longest that a model should be able to run at once.
constexpr int32_t kFairBatch = 16;

int64_t MachineMemoryBytes() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
}

/// Of the disk, for KV of all engines.
int64_t KeptDiskBytes(const RunOptions& options, const std::string& folder) {
  constexpr int64_t kMost = int64_t{16} << 30;
  constexpr int64_t kShare = 4;
  if (options.kept_disk_bytes >= 0) return options.kept_disk_bytes;
  struct statfs disk = {};
  if (folder.empty() || statfs(folder.c_str(), &disk) != 0) return 0;
  if (disk.f_type == TMPFS_MAGIC || disk.f_type == RAMFS_MAGIC) return 0;
  return std::min(kMost, static_cast<int64_t>(disk.f_bavail) * disk.f_bsize / kShare);
}

int32_t ThreadsThere(int32_t given) {
  const int32_t cores = static_cast<int32_t>(std::max(1U, std::thread::hardware_concurrency()));
  return given > 0 ? given : cores;
}

KvLayout LayoutByName(const std::string& name) {
  if (name == "auto") return KvLayout::kAuto;
  if (name == "split") return KvLayout::kSplit;
  if (name == "unified") return KvLayout::kUnified;
  throw Error(ErrorCode::kUsage,
              "--kv-layout: expected auto, split or unified, got '" + name + "'");
}

/// The reference computes exactly wherever it can, so that it is the same for runs with and without
/// --deterministic.
Exactness ExactnessOf(const RunOptions& options) {
  if (options.deterministic == Determinism::kRequired) return Exactness::kRequired;
  if (options.deterministic == Determinism::kOff) return Exactness::kOff;
  return options.naive ? Exactness::kIfKnown : Exactness::kIfFree;
}

/// KV of so many calls at their longest, at most `most`; that where no length is foreseen.
int64_t KvOf(const ModelToHost& model, int32_t calls, int64_t most) {
  if (model.expected_tokens <= 0) return most;
  constexpr int64_t kGranularity = 256;  // as LlamaEngine lays out its room
  const int64_t each = (model.expected_tokens + kGranularity - 1) / kGranularity * kGranularity;
  return std::min(most, each * std::min(calls, model.sequences) * model.kv_token_bytes);
}

/// How to make the engines of a run.
class EngineMaker {
 public:
  EngineMaker(const RunOptions& options, std::vector<ModelToHost> models, MemoryShares memory,
              int32_t accelerators, EngineHost& host, const Clock& clock)
      : options_(options),
        models_(std::move(models)),
        memory_(std::move(memory)),
        accelerators_(accelerators),
        host_(host),
        kept_disk_bytes_(KeptDiskBytes(options, host.kept_folder)),
        clock_(clock) {
    host.workers = options.workers;
    const int32_t most = EngineTurns::kMostLanes / options.workers;
    host.lanes = ThreadShares::LanesFor(ThreadsOfWorker(options),
                                        std::min(most, static_cast<int32_t>(models_.size())));
  }

  std::unique_ptr<Engine> Make(int32_t worker, size_t index, bool load,
                               const EngineDescription* like) const {
    const ModelToHost& model = models_[index];
    const int64_t kept =
        options_.kept_memory_bytes > 0 ? options_.kept_memory_bytes : MachineMemoryBytes() / 8;
    LlamaEngineOptions engine;
    engine.model_name = model.name;
    engine.model_path = model.path;
    engine.adapters = model.adapters;
    engine.vocabulary = model.vocabulary;
    engine.threads = ThreadsOfWorker(options_);
    engine.devices = DevicesOfWorker(worker, options_.workers, accelerators_);
    engine.load = load;
    engine.sequences = model.sequences;
    engine.kv_bytes = memory_.kv_bytes[index];
    const int64_t engines = static_cast<int64_t>(models_.size()) * options_.workers;
    engine.kept_bytes = std::max<int64_t>(1, kept / engines);  // 0: the engine's choice
    engine.kept_folder = host_.kept_folder;
    engine.kept_disk_bytes = kept_disk_bytes_ / engines;
    engine.context_tokens = options_.context_tokens;
    engine.expected_tokens = model.expected_tokens;
    engine.layout = LayoutByName(options_.kv_layout);
    engine.reuse = !options_.naive;
    engine.prompt_lookup = options_.prompt_lookup && !options_.naive;
    engine.exactness = ExactnessOf(options_);
    engine.hash_logits = !options_.dump_prompts.empty() && engine.exactness != Exactness::kOff;
    engine.record_spans = !options_.trace.empty();
    return MakeEngine(std::move(engine), host_, worker, like, clock_);
  }

 private:
  const RunOptions& options_;
  std::vector<ModelToHost> models_;
  MemoryShares memory_;
  int32_t accelerators_;
  const EngineHost& host_;
  int64_t kept_disk_bytes_;
  const Clock& clock_;
};

/// Of a worker's accelerators, of the one that has least; 0: there are none.
int64_t LeastMemory(const RunOptions& options, const std::vector<Accelerator>& accelerators) {
  int64_t least = 0;
  for (int32_t worker = 0; worker < options.workers; ++worker) {
    int64_t bytes = 0;
    for (const int32_t device :
         DevicesOfWorker(worker, options.workers, static_cast<int32_t>(accelerators.size())))
      bytes += accelerators[static_cast<size_t>(device)].memory_bytes;
    least = worker == 0 ? bytes : std::min(least, bytes);
  }
  if (accelerators.empty()) return 0;
  // Shared by turns where there are fewer than workers: the one that has most workers counts.
  const auto devices = static_cast<int64_t>(accelerators.size());
  return least / ((options.workers + devices - 1) / devices);
}

}  // namespace

// Threads of one pass wait for each other at each of its hundreds of operations, and while one of
// them chooses and prepares what comes next; passes of workers wait for nobody. What speaks against
// workers: each one's passes read all weights, which has to be paid for by the calls in them. On
// two cores, two workers take 0.83 to 0.95 of one worker's time with files of 18 MB and many calls,
// as long with 12 to 48, 1.1 to 1.3 times as long with 4 to 16; with 145 MB as long at 24
// calls, 1.24 times as long at 4 (docs/benchmarks/processor.md).
int32_t AutomaticWorkers(int32_t threads, int64_t largest_model_bytes, int64_t calls) {
  constexpr int64_t kBytesOfThread = int64_t{192} << 20;
  constexpr int64_t kBytesOfCall = int64_t{16} << 20;
  constexpr int64_t kCallsOfWorker = 12;
  constexpr int64_t kFewThreads = 4;    // what more of them lose to waiting is not known
  constexpr int64_t kMostWorkers = 16;  // each has KV, and static prefixes, of its own
  const int64_t have = ThreadsThere(threads);
  const int64_t bytes = std::max<int64_t>(1, largest_model_bytes);
  const int64_t by_size = std::clamp((bytes + kBytesOfThread - 1) / kBytesOfThread,
                                     std::max<int64_t>(1, have / kMostWorkers), have);
  const int64_t batches = std::max<int64_t>(1, calls / kCallsOfWorker);
  const int64_t by_calls = std::min(kFewThreads, (have + batches - 1) / batches);
  const int64_t each = std::min(have, std::max(by_size, by_calls));
  const int64_t paid_for = std::max<int64_t>(1, calls * kBytesOfCall / bytes);
  return static_cast<int32_t>(std::min(have / each, paid_for));
}

int32_t ThreadsOfWorker(const RunOptions& options) {
  const int32_t threads = ThreadsThere(options.threads);
  return options.workers <= threads ? threads / options.workers : threads;
}

int32_t AcceleratorWorkers(const std::vector<int64_t>& device_bytes, int64_t largest_model_bytes) {
  // Half of it for KV: weights alone would leave room for a call or two.
  constexpr double kWeightsShare = kUsableShare / 2;
  const int64_t least = *std::min_element(device_bytes.begin(), device_bytes.end());
  const double room = std::max(1.0, kWeightsShare * static_cast<double>(least));
  const double each = std::max(1.0, std::ceil(static_cast<double>(largest_model_bytes) / room));
  const auto devices = static_cast<double>(device_bytes.size());
  return static_cast<int32_t>(std::max(1.0, std::floor(devices / each)));
}

int32_t WorkersOfMemory(int64_t memory_bytes, const std::vector<ModelToHost>& models,
                        int32_t most) {
  constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();
  int64_t all = 0, largest = 0;
  for (const ModelToHost& model : models) {
    if (model.expected_tokens <= 0) return 1;  // what a fair batch takes is not known
    const int64_t bytes = model.weights_bytes + KvOf(model, kFairBatch, kNoLimit);
    all += bytes;
    largest = std::max(largest, bytes);
  }
  const int64_t each = all <= memory_bytes ? all : largest;
  return static_cast<int32_t>(
      std::clamp<int64_t>(memory_bytes / std::max<int64_t>(1, each), 1, most));
}

std::vector<int32_t> DevicesOfWorker(int32_t worker, int32_t workers, int32_t devices) {
  if (devices == 0) return {};
  if (workers >= devices) return {worker % devices};
  std::vector<int32_t> own;
  for (int32_t d = worker * devices / workers; d < (worker + 1) * devices / workers; ++d)
    own.push_back(d);
  return own;
}

void CheckWorkers(const RunOptions& options) {
  if (options.naive && options.workers > 1)
    throw Error(ErrorCode::kUsage, "--naive runs one call at a time, on one worker");
  const int32_t threads = ThreadsThere(options.threads);
  if (options.workers > threads) {
    throw Error(ErrorCode::kUsage,
                fmt::format("--workers {}: each worker needs a thread of its own, and there are {}"
                            " (halo simulate shows what more would do)",
                            options.workers, threads));
  }
  if (options.workers > EngineTurns::kMostLanes) {
    throw Error(ErrorCode::kUsage, fmt::format("--workers {}: there may be {} at most",
                                               options.workers, EngineTurns::kMostLanes));
  }
}

void CheckFits(const std::string& model, int64_t weights_bytes, int64_t kv_token_bytes,
               int64_t memory_bytes) {
  const int64_t least = weights_bytes + 2 * kv_token_bytes;
  if (memory_bytes >= least) return;
  throw Error(ErrorCode::kUsage,
              fmt::format("--worker-memory: {} needs {:.1f} MiB for its weights, and room for KV; "
                          "there are {:.1f} MiB",
                          model, static_cast<double>(weights_bytes) / kMiB,
                          static_cast<double>(memory_bytes) / kMiB));
}

MemoryShares ShareMemory(const RunOptions& options, const std::vector<ModelToHost>& models,
                         int64_t device_bytes) {
  MemoryShares shares;
  shares.memory_bytes = options.worker_memory_bytes;
  int64_t weights = 0;
  for (const ModelToHost& model : models) weights += model.weights_bytes;
  if (shares.memory_bytes == 0)
    shares.memory_bytes = static_cast<int64_t>(kUsableShare * static_cast<double>(device_bytes));
  if (shares.memory_bytes == 0)
    shares.memory_bytes = weights + MachineMemoryBytes() / 4 / options.workers;
  const int64_t room = shares.memory_bytes - weights;
  std::vector<int64_t> wanted;
  int64_t fair = 0;
  for (const ModelToHost& model : models) {
    const int64_t alone = shares.memory_bytes - model.weights_bytes;
    CheckFits(model.name, model.weights_bytes, model.kv_token_bytes, shares.memory_bytes);
    wanted.push_back(KvOf(model, model.sequences, alone));
    fair += KvOf(model, kFairBatch, alone);
  }
  if (models.size() > 1 && fair > room) {
    shares.kv_bytes = std::move(wanted);
    return shares;
  }
  const auto all = static_cast<double>(std::accumulate(wanted.begin(), wanted.end(), int64_t{0}));
  for (const int64_t bytes : wanted) {
    const double part = all > 0.0 ? static_cast<double>(bytes) / all : 1.0;
    shares.kv_bytes.push_back(static_cast<int64_t>(part * static_cast<double>(room)));
  }
  return shares;
}

std::unique_ptr<WorkerFleet> MakeFleet(const RunOptions& options,
                                       const std::vector<ModelToHost>& models, EngineHost& host,
                                       std::function<bool()> more_may_come, const Clock& clock) {
  const std::vector<Accelerator> accelerators = Accelerators();
  const MemoryShares memory = ShareMemory(options, models, LeastMemory(options, accelerators));
  const auto maker = std::make_shared<EngineMaker>(
      options, models, memory, static_cast<int32_t>(accelerators.size()), host, clock);
  std::vector<int32_t> all(static_cast<size_t>(options.workers));
  std::iota(all.begin(), all.end(), 0);
  WorkerFleetOptions fleet;
  for (size_t m = 0; m < models.size(); ++m) {
    fleet.models.push_back({models[m].name, models[m].weights_bytes, memory.kv_bytes[m]});
    fleet.workers_of_model.push_back(models[m].workers.empty() ? all : models[m].workers);
  }
  fleet.memory_bytes.assign(all.size(), memory.memory_bytes);
  fleet.more_may_come = std::move(more_may_come);
  fleet.on_loss = host.on_restart;
  fleet.make = [maker](int32_t worker, size_t model, bool load, const EngineDescription* like) {
    return maker->Make(worker, model, load, like);
  };
  return std::make_unique<WorkerFleet>(std::move(fleet), clock);
}

}  // namespace halo
