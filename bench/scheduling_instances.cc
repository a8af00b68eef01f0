#include "bench/scheduling_instances.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/random.h"

namespace halo {
namespace {

constexpr int64_t kGibibyte = int64_t{1} << 30;

class InstanceMaker {
 public:
  InstanceMaker(const InstanceShape& shape, uint64_t seed) : shape_(shape), random_(seed) {}

  SchedulingProblem Make() {
    MakeWorkers();
    MakeModels();
    MakeMemory();
    for (int32_t call = 0; call < shape_.calls; ++call) MakeCall();
    return problem_;
  }

 private:
  double Between(double low, double high) { return low + (high - low) * random_.Uniform(); }
  bool Often(double probability) { return random_.Uniform() < probability; }
  double Lag() {
    constexpr double kLags[] = {1.0, 0.25, 0.05};
    return kLags[random_.Below(3)];
  }

  void MakeWorkers() {
    for (int32_t worker = 0; worker < shape_.workers; ++worker) {
      problem_.workers.push_back({.name = "w" + std::to_string(worker)});
      speed_.push_back(shape_.unequal && worker > 0 ? Between(0.4, 1.3) : 1.0);
    }
  }

  void MakeModels() {
    for (int32_t model = 0; model < shape_.models; ++model) {
      ResidentModel made{.name = "m" + std::to_string(model)};
      const double gibibytes = Between(2.0, 14.0);
      const double load_s = gibibytes * Between(0.2, 1.5);
      for (const double speed : speed_) {
        made.weights_bytes.push_back(static_cast<int64_t>(gibibytes) * kGibibyte);
        made.load_s.push_back(load_s / speed);
      }
      size_.push_back(gibibytes);
      problem_.models.push_back(std::move(made));
    }
  }

  void MakeMemory() {
    double largest = 0.0, all = 0.0;
    for (const double size : size_) {
      largest = std::max(largest, size);
      all += size;
    }
    for (int32_t worker = 0; worker < shape_.workers; ++worker) {
      double room = shape_.tight_memory ? largest + 4.0 + Between(0.0, 0.4) * all : all + 8.0;
      if (shape_.unequal && worker > 0 && Often(0.5)) room += 6.0;
      problem_.workers[worker].memory_bytes = static_cast<int64_t>(std::ceil(room)) * kGibibyte;
      if (Often(0.4)) {
        problem_.workers[worker].resident.push_back(
            static_cast<ResidentIndex>(random_.Below(static_cast<uint64_t>(shape_.models))));
      }
    }
    // Equal workers are equal in this too.
    for (PlannedWorker& worker : problem_.workers) {
      if (!shape_.unequal)
        worker = {worker.name, problem_.workers[0].memory_bytes, problem_.workers[0].resident};
    }
  }

  TaskIndex MakeTool(TaskIndex parent) {
    SchedulingTask tool{.name = "t" + std::to_string(problem_.tasks.size())};
    tool.parents.push_back({parent, Lag()});
    tool.tool_s = Between(0.5, 20.0);
    problem_.tasks.push_back(std::move(tool));
    return static_cast<TaskIndex>(problem_.tasks.size()) - 1;
  }

  std::vector<TaskDependency> Parents() {
    std::vector<TaskDependency> parents;
    if (calls_.empty() || Often(0.2)) return parents;
    const size_t count = Often(0.35) ? 2 : 1;
    for (size_t i = 0; i < count; ++i) {
      // Recent calls are parents more often, so that graphs are deep as well as wide.
      const uint64_t reach = std::min<uint64_t>(calls_.size(), Often(0.6) ? 4 : calls_.size());
      TaskIndex parent = calls_[calls_.size() - 1 - random_.Below(reach)];
      if (shape_.tools && Often(0.2)) parent = MakeTool(parent);
      const bool there = std::any_of(parents.begin(), parents.end(),
                                     [parent](const auto& need) { return need.parent == parent; });
      if (!there) parents.push_back({parent, Lag()});
    }
    return parents;
  }

  void MakeCall() {
    SchedulingTask call;
    call.parents = Parents();
    call.name = "c" + std::to_string(problem_.tasks.size());
    call.model = static_cast<ResidentIndex>(random_.Below(static_cast<uint64_t>(shape_.models)));
    const double variable = std::exp(Between(std::log(4.0), std::log(40.0)));
    const double fixed = Between(0.1, 2.0);
    const auto most_shards = 1 + random_.Below(static_cast<uint64_t>(shape_.most_shards));
    for (uint64_t shards = 1; shards <= most_shards; ++shards) {
      std::vector<double>& line = call.work_s.emplace_back();
      for (const double speed : speed_) {
        line.push_back((fixed + variable / static_cast<double>(shards)) / speed);
      }
    }
    call.kv_bytes.assign(speed_.size(), static_cast<int64_t>(random_.Below(4)) * kGibibyte);
    for (const TaskDependency& need : call.parents) {
      if (problem_.tasks[need.parent].model != call.model || !Often(0.6)) continue;
      call.kv_source = need.parent;
      const double share = Between(0.1, 0.5);
      for (const double speed : speed_) call.kv_saved_s.push_back(share * variable / speed);
      break;
    }
    calls_.push_back(static_cast<TaskIndex>(problem_.tasks.size()));
    problem_.tasks.push_back(std::move(call));
  }

  const InstanceShape& shape_;
  RandomStream random_;
  SchedulingProblem problem_;
  std::vector<double> speed_, size_;
  std::vector<TaskIndex> calls_;
};

}  // namespace

std::string ToString(const InstanceShape& shape) {
  return std::to_string(shape.calls) + " calls, " + std::to_string(shape.workers) +
         (shape.unequal ? " unequal" : "") + " workers, " + std::to_string(shape.models) +
         " models, up to " + std::to_string(shape.most_shards) + " shards, " +
         (shape.tight_memory ? "tight" : "loose") + " memory";
}

SchedulingProblem RandomInstance(const InstanceShape& shape, uint64_t seed) {
  return InstanceMaker(shape, seed).Make();
}

InstanceShape GapShape(int32_t index) {
  RandomStream random(0x676170 + static_cast<uint64_t>(index));
  InstanceShape shape;
  shape.calls = 4 + index % 7;
  shape.workers = 1 + static_cast<int32_t>(random.Below(4));
  shape.models = 1 + static_cast<int32_t>(random.Below(4));
  shape.most_shards = 1 + static_cast<int32_t>(random.Below(static_cast<uint64_t>(shape.workers)));
  shape.unequal = index % 3 == 2;
  shape.tight_memory = random.Below(2) == 0;
  return shape;
}

}  // namespace halo
