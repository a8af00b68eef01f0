// Simulated workers take the time that their costs say, and keep to their memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "base/random.h"
#include "engine/simulated/scripted_answer.h"
#include "engine/simulated/simulated_fleet.h"
#include "model/output_schema.h"
#include "session/simulated_parts.h"

namespace halo::test {
namespace {

constexpr int64_t kMs = 1000;  // in us
constexpr int32_t kAnswerTokens = 5;

/// A pass takes a ms a token and a step of any size 10 ms.
SimulatedModel PlainModel(const std::string& name) {
  SimulatedModel model;
  model.name = name;
  model.costs.prefill_s = [](double prompts, double tokens, double) {
    return std::round(prompts * tokens) * 1e-3;
  };
  model.costs.decode_s = [](double, double) { return 10e-3; };
  model.costs.load_s = 0.1;
  model.costs.weights_bytes = 1000;
  model.costs.kv_token_bytes = 1;
  model.answer = [](const Request& request, int32_t max_tokens) {
    SimulatedAnswer answer;
    answer.output_tokens = std::min(kAnswerTokens, max_tokens);
    answer.text = "to " + request.prompt_text.substr(0, 4);
    return answer;
  };
  return model;
}

class FleetTest : public testing::Test {
 protected:
  void Make(int32_t workers, int64_t memory_bytes, size_t models = 1, int32_t sequences = 4) {
    options_.memory_bytes.assign(static_cast<size_t>(workers), memory_bytes);
    options_.host_bytes = 1 << 20;
    options_.sequences = sequences;
    for (size_t m = 0; m < models; ++m)
      options_.models.push_back(PlainModel("m" + std::to_string(m)));
    clock_.AdvanceTo(kMs);
    fleet_ = std::make_unique<SimulatedFleet>(options_, clock_);
  }

  /// `tokens` of prompt that begin with `start`.
  void Submit(RequestId id, const std::string& start, size_t tokens, size_t model = 0) {
    Request request;
    request.id = id;
    request.order = static_cast<int64_t>(id);
    request.prompt_text = start + std::string(4 * tokens - start.size(), 'x');
    request.sampling.max_tokens = kAnswerTokens;
    fleet_->engine(model).Submit(std::move(request));
  }

  std::vector<Completion> Drain(size_t model = 0) {
    std::vector<Completion> all;
    while (fleet_->engine(model).pending() > 0) {
      for (Completion& completion : fleet_->engine(model).Poll(0))
        all.push_back(std::move(completion));
    }
    return all;
  }

  int64_t EndMs(const Completion& completion) const { return completion.finished_us / kMs - 1; }

  SimulatedFleetOptions options_;
  VirtualClock clock_;
  std::unique_ptr<SimulatedFleet> fleet_;
};

TEST_F(FleetTest, OneRequestTakesItsLoadItsPromptAndItsSteps) {
  Make(1, 1 << 20);
  Submit(1, "a", 20);
  const std::vector<Completion> done = Drain();
  ASSERT_EQ(done.size(), 1U);
  // The last pass over the prompt gives the first token.
  EXPECT_EQ(EndMs(done[0]), 100 + 20 + (kAnswerTokens - 1) * 10);
  EXPECT_EQ(done[0].prompt_tokens, 20);
  EXPECT_EQ(done[0].prefilled_tokens, 20);
  EXPECT_EQ(done[0].output_tokens, kAnswerTokens);
  EXPECT_EQ(done[0].engine_us, (20 + (kAnswerTokens - 1) * 10) * kMs);
  EXPECT_EQ(fleet_->worker(0).totals().load_us, 100 * kMs);
}

TEST_F(FleetTest, StepsAreShared) {
  Make(1, 1 << 20);
  Submit(1, "a", 20);
  Submit(2, "b", 30);
  const std::vector<Completion> done = Drain();
  ASSERT_EQ(done.size(), 2U);
  for (const Completion& completion : done)
    EXPECT_EQ(EndMs(completion), 100 + 50 + (kAnswerTokens - 1) * 10);
}

TEST_F(FleetTest, APrefixIsComputedOnce) {
  Make(1, 1 << 20);
  Submit(1, "a", 20);
  Submit(2, "a", 20);  // the same prompt: it waits for the other's, and computes its last token
  const std::vector<Completion> done = Drain();
  ASSERT_EQ(done.size(), 2U);
  EXPECT_EQ(done[1].reused_tokens, 19);
  EXPECT_EQ(done[1].prefilled_tokens, 1);
}

TEST_F(FleetTest, TwoThatDoNotFitGoOneByOne) {
  Make(1, 1000 + 30);  // a request of 20 + 5 tokens, but no second one
  Submit(1, "a", 20);
  Submit(2, "b", 20);
  const std::vector<Completion> done = Drain();
  ASSERT_EQ(done.size(), 2U);
  EXPECT_EQ(EndMs(done[0]), 100 + 60);
  EXPECT_EQ(EndMs(done[1]), 100 + 60 + 60);
}

TEST_F(FleetTest, ALongPromptIsRefused) {
  Make(1, 1000 + 30);
  Submit(1, "a", 31);
  const std::vector<Completion> done = Drain();
  ASSERT_EQ(done.size(), 1U);
  ASSERT_TRUE(done[0].failure.has_value());
  EXPECT_EQ(done[0].failure->code, "prompt_too_long");
}

TEST_F(FleetTest, ModelsThatDoNotFitTogetherTakeTurns) {
  Make(1, 1000 + 100, 2);
  for (RequestId id = 1; id <= 40; ++id)
    Submit(id, std::string(1, static_cast<char>('a' + id % 26)), 20, id % 2);
  // Both are polled: a request that ends in one engine waits there to be fetched.
  size_t done = 0;
  while (done < 40) {
    for (size_t m = 0; m < 2; ++m) done += fleet_->engine(m).Poll(0).size();
  }
  const SimulatedWorkerTotals& totals = fleet_->worker(0).totals();
  EXPECT_LE(totals.peak_memory_bytes, 1100);
  // A turn goes on for four times the sequences, so there are few of them.
  EXPECT_GE(totals.loads, 2);
  EXPECT_LE(totals.loads, 4);
}

TEST_F(FleetTest, RequestsAheadGoFirstButThoseBehindPassAFewTimesOnly) {
  // Hears in which order requests begin.
  struct Starts final : SimulatedObserver {
    void OnStart(int32_t, const Request& request, int64_t) override { ids.push_back(request.id); }
    std::vector<RequestId> ids;
  } starts;
  options_.observer = &starts;
  constexpr int32_t kSequences = 2;
  Make(1, 1000 + 100, 2, kSequences);
  constexpr RequestId kWaits = 1000;
  constexpr RequestId kAhead = 30, kBehind = 2000;
  Submit(kWaits, "w", 20, 1);
  Submit(1, "a", 20, 0);
  // Whenever a request ahead ends, the next one comes: a chain. And always there are some behind.
  RequestId ahead = 1, behind = kBehind;
  size_t done = 0;
  for (; behind < kBehind + 4; ++behind) Submit(behind + 1, std::to_string(behind + 1), 20, 0);
  while (fleet_->engine(0).pending() + fleet_->engine(1).pending() > 0) {
    for (const Completion& completion : fleet_->engine(0).Poll(0)) {
      if (completion.id < kWaits && ahead < kAhead) {
        ++ahead;
        Submit(ahead, std::to_string(ahead), 20, 0);
      } else if (completion.id >= kBehind && behind < kBehind + 100) {
        ++behind;
        Submit(behind, std::to_string(behind), 20, 0);
      }
    }
    done += fleet_->engine(1).Poll(0).size();
  }
  EXPECT_EQ(done, 1U);
  const auto waited = std::find(starts.ids.begin(), starts.ids.end(), kWaits);
  ASSERT_NE(waited, starts.ids.end());
  const auto passed =
      std::count_if(starts.ids.begin(), waited, [](RequestId id) { return id >= kBehind; });
  EXPECT_EQ(passed, kMostPassedPerSequence * kSequences);
  EXPECT_EQ(std::count_if(starts.ids.begin(), waited, [](RequestId id) { return id < kWaits; }),
            static_cast<std::ptrdiff_t>(kAhead));
}

TEST_F(FleetTest, WorkIsSpreadWhereNobodySaysWhereItGoes) {
  Make(3, 1 << 20, 1, 1);
  for (RequestId id = 1; id <= 6; ++id) Submit(id, std::string(1, static_cast<char>('a' + id)), 20);
  Drain();
  for (int32_t w = 0; w < 3; ++w) EXPECT_GT(fleet_->worker(w).totals().calls, 0) << w;
}

TEST_F(FleetTest, CancelledRequestsEndOnceAndHoldUpNobody) {
  Make(1, 1 << 20);
  options_.timeline = std::make_shared<SimulatedTimeline>();
  fleet_ = std::make_unique<SimulatedFleet>(options_, clock_);
  Submit(1, "a", 20);
  Submit(2, "b", 20);
  EXPECT_TRUE(fleet_->engine(0).Poll(clock_.NowUs() + 110 * kMs).empty());
  fleet_->engine(0).Cancel(1);
  fleet_->engine(0).Cancel(2);
  EXPECT_TRUE(options_.timeline->due_us.empty());
  const std::vector<Completion> done = Drain();
  ASSERT_EQ(done.size(), 2U);
  for (const Completion& completion : done) EXPECT_EQ(completion.failure->code, "cancelled");
  Submit(3, "c", 20);
  EXPECT_EQ(Drain().size(), 1U);
}

TEST(ScriptedAnswerTest, LengthsHaveTheMeanAndDeviationOfHistory) {
  constexpr int kDraws = 20'000;
  double sum = 0.0, squares = 0.0;
  for (uint64_t key = 0; key < kDraws; ++key) {
    const double length = DrawLength({100.0, 30.0}, 1000, key * 7919);
    sum += length;
    squares += length * length;
  }
  const double mean = sum / kDraws;
  EXPECT_NEAR(mean, 100.0, 1.5);
  EXPECT_NEAR(std::sqrt(squares / kDraws - mean * mean), 30.0, 1.5);
  for (uint64_t key = 0; key < 100; ++key) {
    EXPECT_EQ(DrawLength({100.0, 0.0}, 1000, key), 100);
    EXPECT_LE(DrawLength({100.0, 30.0}, 90, key), 90);
  }
}

TEST(ScriptedAnswerTest, TextsOfGrammarsAreWhatSchemasAskFor) {
  const std::vector<nlohmann::ordered_json> schemas = {
      {{"type", "object"},
       {"properties",
        {{"kind", {{"enum", {"complaint", "praise", "a very long kind of question indeed"}}}},
         {"score", {{"type", "integer"}, {"minimum", 1}, {"maximum", 99}}},
         {"parts", {{"type", "array"}, {"items", {{"type", "string"}}}, {"maxItems", 4}}},
         {"note", {{"type", "string"}, {"maxLength", 60}}}}},
       {"required", {"kind", "score", "parts", "note"}}},
      {{"type", "array"}, {"items", {{"type", "number"}}}, {"minItems", 2}},
      {{"type", "string"}, {"pattern", "^[A-Z][a-z]{2,9}-[0-9]+$"}},
      {{"type", "object"},
       {"properties",
        {{"any", {{"type", "object"}}}, {"day", {{"type", "string"}, {"format", "date"}}}}},
       {"required", {"day"}}}};
  for (const nlohmann::ordered_json& schema : schemas) {
    std::vector<SchemaFault> faults;
    const auto made = OutputSchema::OfJsonSchema(schema, faults);
    ASSERT_NE(made, nullptr) << schema.dump();
    const GrammarTexts texts(made->grammar());
    std::set<std::string> different;
    for (uint64_t key = 0; key < 300; ++key) {
      const std::string text = texts.Draw(static_cast<int64_t>(key), key);
      different.insert(text);
      nlohmann::ordered_json value;
      const auto failure = made->Check(text, false, value);
      EXPECT_FALSE(failure.has_value()) << text << ": " << failure->message;
    }
    EXPECT_GT(different.size(), 100U) << schema.dump();
  }
}

TEST(ScriptedAnswerTest, TextsOfGrammarsAreAboutAsLongAsAsked) {
  const std::string grammar = R"(root ::= "{" word ("," word)* "}"
word ::= "\"" [a-z ]* "\"")";
  const GrammarTexts texts(grammar);
  for (const int64_t bytes : {10, 100, 1000}) {
    double sum = 0.0;
    for (uint64_t key = 0; key < 100; ++key)
      sum += static_cast<double>(texts.Draw(bytes, key).size());
    EXPECT_NEAR(sum / 100.0, static_cast<double>(bytes), 0.2 * static_cast<double>(bytes) + 2.0);
  }
}

TEST(ScriptedAnswerTest, AGrammarWithoutAFiniteTextIsRefused) {
  EXPECT_ANY_THROW(GrammarTexts("root ::= \"a\" root"));
}

}  // namespace
}  // namespace halo::test
