#include "runtime/worker_fleet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "base/check.h"
#include "base/error.h"

namespace halo {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

/// An engine that answers when the test says so, and loads when it is polled.
class FakeEngine final : public Engine {
 public:
  FakeEngine(int32_t sequences, bool load)
      : residency_(load ? Residency::kLoaded : Residency::kUnloaded) {
    description_.name = "fake";
    description_.has_kv = true;
    description_.has_token_ids = true;
    statistics_.prefill_tokens = 1;
    statistics_.prefill_us = 100'000;
    description_.sequences = sequences;
  }

  const EngineDescription& Describe() const override { return description_; }
  void Submit(Request request) override {
    EXPECT_NE(residency_, Residency::kUnloaded) << "requests go to engines that were loaded";
    inside_.emplace(request.id, std::move(request));
  }
  void Cancel(RequestId id) override {
    if (inside_.contains(id)) Fail(id, "cancelled");
  }
  void CancelWaiting() override {
    while (!inside_.empty() && !has_begun_) Cancel(inside_.begin()->first);
  }
  void Release(RequestId id, int32_t consumers) override { released_[id] += consumers; }
  std::vector<Completion> Poll(int64_t) override {
    if (is_silent_) return {};
    if (is_broken_) throw Error(ErrorCode::kIo, "given up");
    if (residency_ == Residency::kChanging && !is_slow_) {
      residency_ = wants_loaded_ ? Residency::kLoaded : Residency::kUnloaded;
    }
    return std::exchange(done_, {});
  }
  int64_t pending() const override { return static_cast<int64_t>(inside_.size() + done_.size()); }
  EngineStatistics Statistics() const override { return statistics_; }
  void Load() override { Change(true); }
  void Unload() override {
    EXPECT_EQ(pending(), 0) << "nothing is pending when weights are given back";
    Change(false);
  }
  Residency residency() const override { return residency_; }

  void Answer(RequestId id) {
    Completion completion;
    completion.id = id;
    completion.finish = FinishReason::kEndToken;
    completion.started_us = 1;
    EXPECT_EQ(inside_.erase(id), 1U) << id;
    done_.push_back(std::move(completion));
  }
  void AnswerAll() {
    while (!inside_.empty()) Answer(inside_.begin()->first);
  }
  void Fail(RequestId id, const char* code) {
    Completion completion;
    completion.id = id;
    completion.failure = Failure{"", code, "", false};
    completion.started_us = has_begun_ ? 1 : 0;
    EXPECT_EQ(inside_.erase(id), 1U);
    done_.push_back(std::move(completion));
  }
  std::vector<RequestId> Inside() const {
    std::vector<RequestId> ids;
    for (const auto& [id, request] : inside_) ids.push_back(id);
    return ids;
  }

  void Export(RequestId id) override { exports_.push_back({id, "", {1}, is_empty_ ? 0 : 8}); }
  std::vector<KvTransfer> TakeExports() override {
    return is_slow_ ? std::vector<KvTransfer>() : std::exchange(exports_, {});
  }
  void Import(KvTransfer kv) override { imported_.insert(kv.id); }

  std::map<RequestId, Request> inside_;
  std::vector<KvTransfer> exports_;
  std::set<RequestId> imported_;
  bool is_empty_ = false;  ///< nothing is left of what it kept
  std::map<RequestId, int32_t> released_;
  bool is_broken_ = false;
  bool is_slow_ = false;    ///< does not get to loading or unloading
  bool is_silent_ = false;  ///< what it says is still on the way
  bool has_begun_ = false;  ///< with all that is inside
  EngineStatistics statistics_;

 private:
  void Change(bool load) {
    if (load == wants_loaded_ && residency_ != Residency::kUnloaded) return;
    wants_loaded_ = load;
    residency_ = Residency::kChanging;
  }

  EngineDescription description_;
  Residency residency_;
  bool wants_loaded_ = residency_ == Residency::kLoaded;
  std::vector<Completion> done_;
};

class WorkerFleetTest : public testing::Test {
 protected:
  /// Models of weights 10 and KV 5 each.
  void Make(size_t models, std::vector<int64_t> memory,
            std::vector<std::vector<int32_t>> workers_of_model = {}) {
    WorkerFleetOptions options;
    for (size_t m = 0; m < models; ++m) options.models.push_back({"m" + std::to_string(m), 10, 5});
    std::vector<int32_t> all;
    for (size_t w = 0; w < memory.size(); ++w) all.push_back(static_cast<int32_t>(w));
    options.memory_bytes = std::move(memory);
    options.workers_of_model = std::move(workers_of_model);
    options.workers_of_model.resize(models, all);
    options.more_may_come = [this] { return more_may_come_; };
    options.on_loss = [this](const std::string& what) { losses_.push_back(what); };
    options.make = [this](int32_t worker, size_t model, bool load, const EngineDescription*) {
      auto engine = std::make_unique<FakeEngine>(kSequences, load);
      engines_[{worker, model}] = engine.get();
      return engine;
    };
    fleet_ = std::make_unique<WorkerFleet>(std::move(options), clock_);
  }
  FakeEngine& At(int32_t worker, size_t model = 0) { return *engines_.at({worker, model}); }

  void Ask(RequestId id, size_t model = 0, int32_t worker = -1, RequestId consumes = 0,
           int32_t consumers = 0) {
    Request request;
    request.id = id;
    request.order = static_cast<int64_t>(id);
    request.worker = worker;
    request.prompt_tokens = {1, 2};
    request.consumes = consumes;
    request.keep.consumers = consumers;
    fleet_->engine(model).Submit(std::move(request));
  }
  /// Polls front after front until something comes back, as the scheduler does; ids, failures as
  /// -id.
  std::vector<int64_t> Poll() {
    std::vector<int64_t> ids;
    for (size_t m = 0; m < fronts() && ids.empty(); ++m) {
      if (fleet_->engine(m).pending() == 0) continue;
      for (const Completion& completion : fleet_->engine(m).Poll(0)) {
        const auto id = static_cast<int64_t>(completion.id);
        ids.push_back(completion.failure ? -id : id);
      }
    }
    return ids;
  }
  size_t fronts() const {
    size_t most = 0;
    for (const auto& [place, engine] : engines_) most = std::max(most, place.second + 1);
    return most;
  }
  int64_t switches() const { return fleet_->statistics().model_switches; }

  static constexpr int32_t kSequences = 4;
  SteadyClock clock_;
  std::map<std::pair<int32_t, size_t>, FakeEngine*> engines_;
  bool more_may_come_ = false;
  std::vector<std::string> losses_;
  std::unique_ptr<WorkerFleet> fleet_;
};

TEST_F(WorkerFleetTest, APlannedWorkerIsTakenElseTheOneWithLeastToDo) {
  Make(1, {100, 100});
  Ask(1, 0, 1);
  Ask(2, 0, 1);
  Ask(3);
  EXPECT_THAT(At(0).Inside(), ElementsAre(3));
  EXPECT_THAT(At(1).Inside(), ElementsAre(1, 2));
  EXPECT_EQ(fleet_->engine(0).Describe().sequences, 2 * kSequences);
  At(1).AnswerAll();
  EXPECT_THAT(Poll(), ElementsAre(1, 2));
  EXPECT_EQ(fleet_->engine(0).pending(), 1);
}

TEST_F(WorkerFleetTest, ModelsThatFitAreLoadedSideBySide) {
  Make(2, {30});
  EXPECT_EQ(At(0, 0).residency(), Residency::kLoaded);
  EXPECT_EQ(At(0, 1).residency(), Residency::kLoaded);
}

TEST_F(WorkerFleetTest, AModelIsUnloadedOnlyWhenNothingIsLeftForIt) {
  Make(2, {20});
  EXPECT_EQ(At(0, 1).residency(), Residency::kUnloaded);
  Ask(1, 0);
  Ask(2, 1);
  EXPECT_THAT(Poll(), IsEmpty());
  EXPECT_THAT(At(0, 0).Inside(), ElementsAre(1));
  EXPECT_THAT(At(0, 1).Inside(), IsEmpty());
  At(0, 0).Answer(1);
  EXPECT_THAT(Poll(), ElementsAre(1));
  // What follows from the answer comes before anything changes.
  Ask(3, 0);
  EXPECT_THAT(Poll(), IsEmpty());
  EXPECT_THAT(At(0, 0).Inside(), ElementsAre(3));
  EXPECT_EQ(switches(), 0);
  At(0, 0).Answer(3);
  EXPECT_THAT(Poll(), ElementsAre(3));
  Poll();
  EXPECT_EQ(switches(), 1);
  Poll();
  EXPECT_THAT(At(0, 1).Inside(), ElementsAre(2));
  EXPECT_EQ(At(0, 0).residency(), Residency::kUnloaded);
}

TEST_F(WorkerFleetTest, NothingIsLoadedBeforeTheOtherHasGone) {
  Make(2, {20});
  At(0, 0).is_slow_ = true;
  Ask(1, 1);
  for (int i = 0; i < 3; ++i) EXPECT_THAT(Poll(), IsEmpty());
  EXPECT_EQ(At(0, 0).residency(), Residency::kChanging);
  EXPECT_EQ(At(0, 1).residency(), Residency::kUnloaded);
  EXPECT_EQ(switches(), 1);
  At(0, 0).is_slow_ = false;
  Poll();
  Poll();
  EXPECT_THAT(At(0, 1).Inside(), ElementsAre(1));
}

TEST_F(WorkerFleetTest, TheModelWhoseRequestIsFirstInOrderComesNext) {
  Make(3, {20});
  Ask(7, 2);
  Ask(5, 1);
  for (int i = 0; i < 3; ++i) Poll();
  EXPECT_THAT(At(0, 1).Inside(), ElementsAre(5));
  EXPECT_THAT(At(0, 2).Inside(), IsEmpty());
}

TEST_F(WorkerFleetTest, WhatCameWhileItsModelWasLoadedDoesNotWaitForAnotherModel) {
  Make(2, {20});
  Ask(5, 1);
  Poll();
  At(0, 1).is_slow_ = true;
  Poll();
  EXPECT_EQ(At(0, 1).residency(), Residency::kChanging);
  Ask(7, 1);
  Ask(6, 0);  // first in order, and without room before the other has gone
  At(0, 1).is_slow_ = false;
  for (int i = 0; i < 3; ++i) Poll();
  EXPECT_THAT(At(0, 1).Inside(), ElementsAre(5, 7));
  At(0, 1).AnswerAll();
  for (int i = 0; i < 4; ++i) Poll();
  EXPECT_THAT(At(0, 0).Inside(), ElementsAre(6));
}

TEST_F(WorkerFleetTest, AnIdleModelStaysAsLongAsLoadingItTookWhileToolsAreUnderWay) {
  Make(2, {20});
  At(0, 0).statistics_.loads = 1;
  At(0, 0).statistics_.load_us = int64_t{1} << 40;
  more_may_come_ = true;
  Ask(1, 1);
  for (int i = 0; i < 3; ++i) Poll();
  EXPECT_EQ(switches(), 0);
  more_may_come_ = false;
  for (int i = 0; i < 3; ++i) Poll();
  EXPECT_EQ(switches(), 1);
  EXPECT_THAT(At(0, 1).Inside(), ElementsAre(1));
}

TEST_F(WorkerFleetTest, WeightsComeAheadWhileTheLastSequencesDrain) {
  Make(2, {25});  // both weights, KV of one
  EXPECT_EQ(At(0, 1).residency(), Residency::kUnloaded);
  for (RequestId id = 1; id <= kSequences + 1; ++id) Ask(id, 0);
  Ask(9, 1);
  Poll();
  EXPECT_EQ(At(0, 1).residency(), Residency::kUnloaded) << "more waits than runs";
  At(0, 0).Answer(1);
  Poll();
  Poll();
  EXPECT_NE(At(0, 1).residency(), Residency::kUnloaded);
  EXPECT_THAT(At(0, 1).Inside(), IsEmpty()) << "there is no room for its KV yet";
  At(0, 0).AnswerAll();
  for (int i = 0; i < 4; ++i) Poll();
  EXPECT_THAT(At(0, 1).Inside(), ElementsAre(9));
}

TEST_F(WorkerFleetTest, HalfOfWhatWaitsMovesToAWorkerWithNothingToDo) {
  Make(1, {100, 100});
  for (RequestId id = 1; id <= 12; ++id) Ask(id, 0, 0);
  EXPECT_THAT(Poll(), IsEmpty());
  EXPECT_THAT(At(1).Inside(), ElementsAre(7, 8, 9, 10, 11, 12)) << "the last in order";
  EXPECT_EQ(fleet_->statistics().moved_calls, 6);
  At(0).AnswerAll();
  At(1).AnswerAll();
  EXPECT_EQ(Poll().size() + Poll().size(), 12U);
}

TEST_F(WorkerFleetTest, WhatRunsDoesNotMove) {
  Make(1, {100, 100});
  for (RequestId id = 1; id <= kSequences; ++id) Ask(id, 0, 0);
  Poll();
  EXPECT_THAT(At(1).Inside(), IsEmpty());
}

TEST_F(WorkerFleetTest, CallsWhoseKvIsHereStayUnlessABatchWaits) {
  Make(1, {100, 100});
  for (RequestId id = 1; id <= 6; ++id) Ask(id, 0, 0, 0, 1);
  At(0).AnswerAll();
  EXPECT_EQ(Poll().size(), 6U);
  for (RequestId id = 11; id <= 16; ++id) Ask(id, 0, 0, id - 10);
  Poll();
  EXPECT_THAT(At(1).Inside(), IsEmpty());
  for (RequestId id = 1; id <= 6; ++id) EXPECT_EQ(At(0).released_[id], 0);
  for (RequestId id = 21; id <= 24; ++id) Ask(id, 0, 0);
  for (RequestId id = 31; id <= 33; ++id) Ask(id, 0, 0);
  Poll();
  EXPECT_THAT(At(1).Inside(), testing::Not(IsEmpty()));
}

TEST_F(WorkerFleetTest, KvThatLiesElsewhereIsBroughtOver) {
  Make(1, {100, 100});
  Ask(1, 0, 0, 0, 3);
  At(0).Answer(1);
  EXPECT_THAT(Poll(), ElementsAre(1));
  At(0).is_slow_ = true;
  Ask(2, 0, 1, 1);
  Ask(3, 0, 1, 1);
  EXPECT_THAT(Poll(), IsEmpty());
  EXPECT_THAT(At(1).Inside(), IsEmpty()) << "the KV comes first";
  fleet_->engine(0).Cancel(2);
  EXPECT_THAT(Poll(), ElementsAre(-2));
  At(0).is_slow_ = false;
  Poll();
  EXPECT_THAT(At(1).Inside(), ElementsAre(3));
  EXPECT_THAT(At(1).imported_, ElementsAre(1));
  EXPECT_EQ(At(1).inside_.at(3).consumes, 1U);
  // What has gone there is computed here.
  At(0).is_empty_ = true;
  Ask(4, 0, 1, 1);
  Poll();
  EXPECT_EQ(At(1).inside_.at(4).consumes, 0U);
}

TEST_F(WorkerFleetTest, KvThatIsCheaperToComputeIsReleasedWhereItLies) {
  Make(1, {100, 100});
  At(0).statistics_.prefill_us = 1;
  Ask(1, 0, 0, 0, 2);
  At(0).Answer(1);
  EXPECT_THAT(Poll(), ElementsAre(1));
  Ask(2, 0, 0, 1);
  EXPECT_EQ(At(0).inside_.at(2).consumes, 1U);
  EXPECT_EQ(At(0).released_[1], 0);
  Ask(3, 0, 1, 1);
  EXPECT_EQ(At(1).inside_.at(3).consumes, 0U);
  EXPECT_EQ(At(0).released_[1], 1);
}

TEST_F(WorkerFleetTest, ACallThatIsCancelledWhileItMovesEnds) {
  Make(1, {100, 100});
  for (RequestId id = 1; id <= 12; ++id) Ask(id, 0, 0);
  fleet_->engine(0).CancelWaiting();
  std::vector<int64_t> ended;
  for (int i = 0; i < 2; ++i) {
    for (const int64_t id : Poll()) ended.push_back(id);
  }
  std::sort(ended.begin(), ended.end());
  EXPECT_THAT(ended, ElementsAre(-12, -11, -10, -9, -8, -7, -6, -5, -4, -3, -2, -1));
  EXPECT_EQ(fleet_->engine(0).pending(), 0);
}

TEST_F(WorkerFleetTest, AStopWhileCallsMoveFailsNoneOfThem) {
  Make(1, {100, 100});
  for (RequestId id = 1; id <= 12; ++id) Ask(id, 0, 0);
  At(0).has_begun_ = true;  // before it hears that some of them are to move
  At(0).is_silent_ = true;
  EXPECT_THAT(Poll(), IsEmpty());
  ASSERT_LT(At(0).inside_.size(), 12U) << "some of them move";
  fleet_->engine(0).CancelWaiting();
  At(0).is_silent_ = false;
  At(0).AnswerAll();
  size_t taken_back = 0, answered = 0;
  for (const Completion& completion : fleet_->engine(0).Poll(0)) {
    ++(completion.failure ? taken_back : answered);
    EXPECT_EQ(completion.started_us > 0, !completion.failure) << "the scheduler takes it back";
  }
  EXPECT_EQ(taken_back + answered, 12U);
  EXPECT_GT(taken_back, 0U);
  EXPECT_EQ(fleet_->engine(0).pending(), 0);
}

TEST_F(WorkerFleetTest, CallsThatMoveToAWorkerThatIsLostMeanwhileGoElsewhere) {
  Make(1, {100, 100, 100});
  for (RequestId id = 1; id <= 18; ++id) Ask(id, 0, 0);
  At(0).is_silent_ = true;  // what it gives back is on the way
  Poll();
  ASSERT_LT(At(0).inside_.size(), 18U) << "some of them move";
  At(1).is_broken_ = true;
  At(2).is_broken_ = true;
  Ask(21, 0, 1);
  Ask(22, 0, 2);
  Poll();
  Poll();
  EXPECT_EQ(losses_.size(), 2U);
  At(0).is_silent_ = false;
  size_t answers = 0;
  for (int i = 0; i < 4; ++i) {
    Poll();
    At(0).AnswerAll();
    answers += Poll().size();
  }
  EXPECT_EQ(answers, 20U);
  EXPECT_EQ(fleet_->engine(0).pending(), 0);
}

TEST_F(WorkerFleetTest, ACallThatIsCancelledBeforeItBeginsWantsItsKvNoMore) {
  Make(2, {20, 20});
  Ask(1, 0, 0, 0, 1);
  At(0, 0).Answer(1);
  EXPECT_THAT(Poll(), ElementsAre(1));
  Ask(2, 1, 0);
  for (int i = 0; i < 3; ++i) Poll();  // the other model takes the worker
  Ask(3, 0, 0, 1);
  fleet_->engine(0).Cancel(3);
  EXPECT_EQ(At(0, 0).released_[1], 1);
}

TEST_F(WorkerFleetTest, AModelIsLoadedElsewhereForAFullBatch) {
  Make(1, {100, 100}, {{0}});
  for (RequestId id = 1; id <= 2 * kSequences - 1; ++id) Ask(id, 0, 0);
  Poll();
  EXPECT_FALSE(engines_.contains({1, 0}));
  Ask(90, 0, 0);
  for (int i = 0; i < 3; ++i) Poll();
  ASSERT_TRUE(engines_.contains({1, 0}));
  EXPECT_THAT(At(1).Inside(), testing::Not(IsEmpty()));
}

TEST_F(WorkerFleetTest, OthersTakeTheCallsOfAWorkerThatIsLost) {
  Make(1, {100, 100});
  Ask(1, 0, 0);
  Ask(2, 0, 0);
  Ask(3, 0, 1, 0, 1);
  At(1).Answer(3);
  EXPECT_THAT(Poll(), ElementsAre(3));
  Ask(6, 0, 0, 3);  // its KV is on the way to where nobody is
  At(0).is_broken_ = true;
  EXPECT_THAT(Poll(), IsEmpty());
  Poll();
  EXPECT_THAT(At(1).Inside(), ElementsAre(1, 2, 6));
  EXPECT_EQ(losses_.size(), 1U);
  Ask(4, 0, 0);
  EXPECT_THAT(At(1).Inside(), ElementsAre(1, 2, 4, 6));
  At(1).AnswerAll();
  EXPECT_EQ(Poll().size(), 4U);
  Ask(5);
  At(1).is_broken_ = true;
  EXPECT_THROW(Poll(), Error);
}

/// Whatever happens in whatever order: each request has one answer, and no worker holds more than
/// its memory.
TEST_F(WorkerFleetTest, RandomRunsAnswerEachRequestOnceWithinMemory) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 draw(seed);
    const auto any = [&](size_t below) { return draw() % below; };
    const size_t models = 1 + any(3), workers = 1 + any(3);
    const std::vector<int64_t> memory(workers, static_cast<int64_t>(15 + 5 * any(8)));
    engines_.clear();
    Make(models, memory);
    std::set<RequestId> open;
    RequestId next = 1;
    const auto check = [&] {
      for (size_t w = 0; w < workers; ++w) {
        int64_t used = 0;
        for (size_t m = 0; m < models; ++m) {
          const auto found = engines_.find({static_cast<int32_t>(w), m});
          if (found == engines_.end()) continue;
          const FakeEngine& engine = *found->second;
          if (engine.residency() == Residency::kUnloaded) continue;
          used += engine.pending() > 0 ? 15 : 10;  // KV where something runs
        }
        EXPECT_LE(used, memory[w]);
      }
    };
    for (int step = 0; step < 400; ++step) {
      const size_t what = any(10);
      if (what < 4 && step < 250) {
        const int32_t worker = static_cast<int32_t>(any(workers + 1)) - 1;
        open.insert(next);
        const RequestId source = next > 4 ? 1 + any(next - 1) : 0;
        Ask(next, next % models, worker, source - source % models + next % models,
            static_cast<int32_t>(any(3)));
        ++next;
      } else if (what == 4 && !open.empty()) {
        const RequestId id = *open.begin();
        for (size_t m = 0; m < models; ++m) fleet_->engine(m).Cancel(id);
      } else if (what < 8) {
        for (auto& [place, engine] : engines_) {
          engine->is_slow_ = any(4) == 0;
          if (any(2) == 0 && !engine->inside_.empty())
            engine->Answer(engine->inside_.begin()->first);
        }
      }
      for (const int64_t id : Poll()) {
        EXPECT_EQ(open.erase(static_cast<RequestId>(std::abs(id))), 1U) << "answered twice";
      }
      check();
    }
    for (int step = 0; step < 1000 && !open.empty(); ++step) {
      for (auto& [place, engine] : engines_) {
        engine->is_slow_ = false;
        engine->AnswerAll();
      }
      for (const int64_t id : Poll()) open.erase(static_cast<RequestId>(std::abs(id)));
      check();
    }
    EXPECT_THAT(open, IsEmpty());
  }
}

}  // namespace
}  // namespace halo
