#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/llama/llama_setup.h"
#include "halo/session.h"
#include "model/vocabulary.h"
#include "plan/physical_plan.h"
#include "runtime/worker_fleet.h"
#include "session/engine_host.h"

namespace halo {

/// A model file of a run, as far as its engines have to know.
struct ModelToHost {
  std::string name, path;
  std::vector<LlamaAdapter> adapters;
  std::shared_ptr<const Vocabulary> vocabulary;  ///< shared by engines and prompts, immutable
  int64_t weights_bytes = 0;
  int64_t kv_token_bytes = 0;
  int32_t sequences = 1;         ///< calls that there are, or that run at once
  int32_t expected_tokens = 0;   ///< longest prompt and answer foreseen; 0: unknown
  std::vector<int32_t> workers;  ///< of the plan, ascending; empty: all
};

/// Throws Error(kUsage) for workers that cannot be had here.
void CheckWorkers(const RunOptions& options);

/// Throws Error(kUsage) for a model whose weights, and KV of a token or two, do not fit a worker.
void CheckFits(const std::string& model, int64_t weights_bytes, int64_t kv_token_bytes,
               int64_t memory_bytes);

/// How many workers a machine with accelerators of these memories has: one for each, or fewer with
/// several each where the largest model needs them (llama.cpp splits its layers). At least 1.
int32_t AcceleratorWorkers(const std::vector<int64_t>& device_bytes, int64_t largest_model_bytes);
/// How many workers, at most `most`, may share the memory: each has room for any of the models with
/// a fair batch of calls, and none needs models to take turns that one worker would hold side by
/// side. At least 1.
int32_t WorkersOfMemory(int64_t memory_bytes, const std::vector<ModelToHost>& models, int32_t most);

/// The accelerators of a worker, equal parts of them all; shared by turns where there are fewer
/// than workers. Empty where there are none.
std::vector<int32_t> DevicesOfWorker(int32_t worker, int32_t workers, int32_t devices);

/// Room for KV of each model on a worker, and the memory that the worker has.
struct MemoryShares {
  std::vector<int64_t> kv_bytes;  ///< [models]
  int64_t memory_bytes = 0;
};
/// All models share a worker's memory where each can run a fair batch beside the others; else each
/// has what it needs of what its own weights leave, and they take turns. Throws Error(kUsage)
/// naming a model that does not fit alone. `device_bytes`: of the accelerators of a worker; 0: it
/// computes in this machine's memory.
MemoryShares ShareMemory(const RunOptions& options, const std::vector<ModelToHost>& models,
                         int64_t device_bytes);

/// The workers of a run, with their engines in this process or in children of `host`'s program;
/// both outlive them. Models in the order in which they are to be loaded. Throws Error.
std::unique_ptr<WorkerFleet> MakeFleet(const RunOptions& options,
                                       const std::vector<ModelToHost>& models, EngineHost& host,
                                       std::function<bool()> more_may_come, const Clock& clock);

}  // namespace halo
