// What is known of a prompt is computed while tools are waited for.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "model/vocabulary.h"
#include "runtime/executor.h"
#include "runtime/simulated_tools.h"
#include "support/simulated_run.h"
#include "support/test_models.h"

namespace halo::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr int64_t kSecond = 1'000'000;

/// Answers at the next poll, one token for each that is allowed, and remembers what it was asked.
class RecordingEngine final : public Engine {
 public:
  RecordingEngine() {
    description_.name = "recording";
    description_.sequences = 4;
    description_.context_tokens = 4096;
    description_.has_token_ids = true;
  }
  const EngineDescription& Describe() const override { return description_; }
  void Submit(Request request) override {
    Completion completion;
    completion.id = request.id;
    completion.finish = FinishReason::kMaxTokens;
    completion.prompt_tokens = static_cast<int64_t>(request.prompt_tokens.size());
    completion.prefilled_tokens = completion.prompt_tokens;
    completion.output_tokens = request.sampling.max_tokens;
    completion.tokens.assign(static_cast<size_t>(request.sampling.max_tokens), 1000);
    if (!completion.tokens.empty()) completion.text = "said";
    ended_.push_back(std::move(completion));
    requests.push_back(std::move(request));
  }
  void Cancel(RequestId /*id*/) override {}
  void CancelWaiting() override {}
  void Release(RequestId /*id*/, int32_t /*consumers*/) override {}
  std::vector<Completion> Poll(int64_t /*deadline_us*/) override {
    return std::exchange(ended_, {});
  }
  int64_t pending() const override { return static_cast<int64_t>(ended_.size()); }
  EngineStatistics Statistics() const override { return {}; }
  Residency residency() const override {
    return is_there ? Residency::kLoaded : Residency::kUnloaded;
  }

  /// Those of an operator that only compute a prompt, or those that ask.
  std::vector<Request> Of(const std::string& op, bool ahead) const {
    std::vector<Request> found;
    for (const Request& request : requests) {
      if (request.script_operator == op && (request.sampling.max_tokens == 0) == ahead)
        found.push_back(request);
    }
    return found;
  }

  std::vector<Request> requests;
  bool is_there = true;

 private:
  EngineDescription description_;
  std::vector<Completion> ended_;
};

bool BeginsWith(const std::vector<TokenId>& whole, const std::vector<TokenId>& front) {
  return front.size() < whole.size() && std::equal(front.begin(), front.end(), whole.begin());
}

class AheadTest : public testing::Test {
 protected:
  RunReport Run(const std::string& nodes, const std::vector<std::string>& questions,
                ExecutorOptions options = {.prefill_ahead = true}) {
    SimulatedRig rig(
        "graph:\n  allow_hosts: [example.org]\n  defaults: {model: m, max_tokens: 2}\n"
        "  nodes:\n    - {id: in, type: input, outputs: [q]}\n" +
            nodes,
        "flow.yaml", {});
    SimulatedToolOptions simulated;
    simulated.timeline = rig.timeline;
    simulated.script = [](const ToolCall&) {
      return ScriptedResult{Json("found"), kSecond, std::nullopt, 0};
    };
    SimulatedTools tools(simulated, rig.clock);
    options.tools = &tools;
    std::vector<Json> rows;
    for (const std::string& q : questions) rows.push_back({{"q", q}});
    ListFeed feed = ListFeed::Of(rows);
    ListSink sink;
    RunSource source = rig.Source(feed, sink);
    source.models.front().engine = &engine_;
    source.models.front().prompts.vocabulary = vocabulary_;
    const StopFlag stop{0};
    RunReport report = Executor({source}, options, rig.clock, nullptr).Run(stop);
    ExpectAccounting(report);
    EXPECT_EQ(engine_.pending(), 0);
    EXPECT_EQ(report.counts.rows_ok, static_cast<int64_t>(questions.size()));
    return report;
  }

  std::shared_ptr<const Vocabulary> vocabulary_ = Vocabulary::Load(TinyModel());
  RecordingEngine engine_;
};

const std::string kGet = "    - {id: get, type: http, url: \"http://example.org/{{ q }}\"}\n";
const std::string kSaid =
    "    - {id: said, inputs: [q, get], prompt: \"Here is a question about the great lakes, and "
    "what the "
    "archive has on it. Question: {{ q }}. Archive: {{ get }}. Answer.\"}\n";

TEST_F(AheadTest, WhatIsKnownIsComputedWhileToolsAreWaitedFor) {
  const RunReport report = Run(kGet + kSaid, {"how deep is it", "who fishes there"});
  const std::vector<Request> ahead = engine_.Of("said", true), asked = engine_.Of("said", false);
  ASSERT_THAT(ahead, SizeIs(2));
  ASSERT_THAT(asked, SizeIs(2));
  int64_t tokens = 0;
  for (const Request& request : ahead) {
    tokens += static_cast<int64_t>(request.prompt_tokens.size());
    EXPECT_LT(request.priority, asked.front().priority);
    const Request& call = asked[static_cast<size_t>(request.row_index)];
    EXPECT_TRUE(BeginsWith(call.prompt_tokens, request.prompt_tokens));
    // Only what the archive says is missing.
    EXPECT_GT(2 * request.prompt_tokens.size(), call.prompt_tokens.size());
    EXPECT_EQ(request.static_prefix_tokens, call.static_prefix_tokens);
    EXPECT_EQ(request.row_index, call.row_index);
  }
  EXPECT_EQ(engine_.requests.front().id, ahead.front().id) << "before the tool has answered";
  for (const OperatorCounts& counts : report.operators)
    EXPECT_EQ(counts.ahead_tokens, counts.id == "said" ? tokens : 0);
}

TEST_F(AheadTest, AnAnswerMakesMoreKnown) {
  Run("    - {id: plan, inputs: [q], prompt: \"Plan: {{ q }}\"}\n"
      "    - {id: get, type: http, url: \"http://example.org/{{ plan }}\"}\n"
      "    - {id: said, inputs: [q, plan, get], prompt: \"The question, the plan for it and what "
      "the archive "
      "has. Question: {{ q }}. Plan: {{ plan }}. Archive: {{ get }}.\"}\n",
      {"how deep is it"});
  const std::vector<Request> ahead = engine_.Of("said", true), asked = engine_.Of("said", false);
  ASSERT_THAT(ahead, SizeIs(1));  // while `plan` was computed the engine had that to do
  ASSERT_THAT(asked, SizeIs(1));
  EXPECT_TRUE(BeginsWith(asked[0].prompt_tokens, ahead[0].prompt_tokens));
  EXPECT_EQ(std::count(ahead[0].prompt_tokens.begin(), ahead[0].prompt_tokens.end(), 1000), 2);
}

TEST_F(AheadTest, NotMuchAtATime) {
  const std::string words = [] {
    std::string text;
    for (int i = 0; i < 300; ++i) text += "lake " + std::to_string(i) + " ";
    return text;
  }();
  Run(kGet + kSaid, std::vector<std::string>(12, words));
  // The tool's answers are there at the next turn.
  const std::vector<Request> ahead = engine_.Of("said", true);
  ASSERT_THAT(ahead, SizeIs(1));
  EXPECT_GT(ahead.front().prompt_tokens.size(), 512U);
}

TEST_F(AheadTest, NothingWhereItMayBeInVainOrIsCounted) {
  ExecutorOptions on{.prefill_ahead = true};
  ExecutorOptions naive = on, counted = on, off;
  naive.naive = true;
  counted.budget.tokens = 1'000'000;
  for (const ExecutorOptions& options : {naive, counted, off}) {
    engine_.requests.clear();
    Run(kGet + kSaid, {"how deep is it"}, options);
    EXPECT_THAT(engine_.Of("said", true), IsEmpty());
    EXPECT_THAT(engine_.Of("said", false), SizeIs(1));
  }
  engine_.requests.clear();
  engine_.is_there = false;
  Run(kGet + kSaid, {"how deep is it"});
  EXPECT_THAT(engine_.Of("said", true), IsEmpty()) << "no model is loaded for it";
  engine_.is_there = true;
  engine_.requests.clear();
  Run(kGet +
          "    - {id: said, inputs: [q, get], when: \"get != 'x'\", prompt: \"A question about the "
          "great "
          "lakes, and what the archive has: {{ q }}. {{ get }}\"}\n",
      {"how deep is it"});
  EXPECT_THAT(engine_.Of("said", true), IsEmpty()) << "its condition may say that there is no call";
}

}  // namespace
}  // namespace halo::test
