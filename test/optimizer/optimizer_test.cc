#include "optimizer/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <tuple>

#include "base/error.h"
#include "optimizer/planners/planners.h"
#include "optimizer/rule.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;
using testing::Contains;
using testing::HasSubstr;

/// A batch of workflows with their rows, planned with default costs; a token is four bytes.
class Batch {
 public:
  void Add(const std::string& yaml, const std::vector<Json>& rows) {
    auto one = std::make_unique<One>();
    one->workflow = ParseWorkflow(yaml, "f" + std::to_string(all_.size()) + ".yaml");
    one->plan = MakeLogicalPlan(one->workflow);
    one->rows = std::make_unique<RowStatistics>(ColumnSetsOf(one->plan, "prompt"));
    for (const Json& row : rows) one->rows->Add(row);
    all_.push_back(std::move(one));
  }

  PhysicalPlan Plan(OptimizerOptions options = {}, const OperatorHistory* history = nullptr,
                    const std::string& planner = "list") {
    std::vector<OptimizerSource> sources;
    for (const auto& one : all_) {
      OptimizerSource source{&one->plan, "prompt", one->rows.get(), {}};
      source.query_costs.resize(one->workflow.operators.size(), query_cost);
      for (const ModelRequest& model : one->plan.models) {
        ModelFacts facts;
        facts.name = facts.digest = model.name;
        facts.profile = DefaultProfile(model.name, 1 << 20, 1 << 10);
        facts.profile_id = "default";
        source.models.push_back(std::move(facts));
      }
      sources.push_back(std::move(source));
    }
    options.worker_memory_bytes = int64_t{1} << 40;
    options.planner = planner;
    return Optimize(sources, history, options);
  }

  std::optional<QueryCost> query_cost;  ///< of every operator

  const LogicalPlan& logical(size_t source) const { return all_[source]->plan; }
  OperatorIdentity identity(size_t source, OperatorIndex op) const {
    return IdentifyOperators(all_[source]->plan, "prompt")[static_cast<size_t>(op)];
  }

 private:
  struct One {
    Workflow workflow;
    LogicalPlan plan;
    std::unique_ptr<RowStatistics> rows;
  };
  std::vector<std::unique_ptr<One>> all_;
};

std::vector<Json> Rows(int64_t count, int64_t distinct, const std::string& text) {
  std::vector<Json> rows;
  for (int64_t i = 0; i < count; ++i)
    rows.push_back({{"id", i}, {"prompt", text + std::to_string(i % distinct)}});
  return rows;
}

const AppliedRule& RuleOf(const PhysicalPlan& plan, const std::string& name) {
  for (const AppliedRule& rule : plan.rules) {
    if (rule.name == name) return rule;
  }
  throw std::runtime_error("no rule " + name);
}

std::string TwoReaders(const std::string& instruction) {
  return "start_ops: [a, b]\nend_ops: [a, b]\nops:\n  a: {model: m, temperature: 0, prompt_layout: "
         "auto, prompt: \"" +
         instruction + " A\"}\n  b: {model: m, temperature: 0, prompt_layout: auto, prompt: \"" +
         instruction + " B\"}\n";
}

TEST(OptimizerTest, CallsAreTheDifferentRowsAndSampledOnesAll) {
  Batch batch;
  batch.Add(R"(start_ops: [a, s]
end_ops: [b, s]
ops:
  a: {model: m, temperature: 0}
  b: {model: m, temperature: 0, input_ops: [a]}
  s: {model: m, samples: 3}
)",
            Rows(100, 10, "text "));
  const PhysicalPlan plan = batch.Plan();
  EXPECT_EQ(plan.operators[0].estimate.calls, Estimate::Exactly(10));
  // Conversations may turn out equal, so fewer calls are possible.
  const LogicalPlan& logical = batch.logical(0);
  for (const PlannedOperator& planned : plan.operators) {
    const std::string& id = logical.operator_of(planned.op).id;
    const Estimate expected = id == "a"   ? Estimate::Exactly(10)
                              : id == "b" ? Estimate{10, 1, 10}
                                          : Estimate::Exactly(300);
    EXPECT_EQ(planned.estimate.calls, expected) << id;
    EXPECT_EQ(planned.estimate.instances, Estimate::Exactly(100)) << id;
  }
}

TEST(OptimizerTest, ContextGoesFirstWhereRowsAreLongerThanInstructions) {
  Batch batch;
  batch.Add(TwoReaders("Short."), Rows(10, 10, std::string(400, 'x')));
  batch.Add(TwoReaders(std::string(400, 'y')), Rows(10, 10, "short "));
  const PhysicalPlan plan = batch.Plan();
  EXPECT_EQ(batch.logical(0).at(0).layout, PromptLayout::kContextFirst);
  EXPECT_EQ(batch.logical(0).at(1).kv_source, 0);
  EXPECT_EQ(batch.logical(1).at(0).layout, PromptLayout::kInstructionFirst);
  EXPECT_EQ(batch.logical(1).at(1).kv_source, -1);
  EXPECT_THAT(RuleOf(plan, "prompt_layout").changes,
              Contains(HasSubstr("a of f1 becomes instruction_first")));
}

TEST(OptimizerTest, AWrittenLayoutIsKept) {
  Batch batch;
  std::string yaml = TwoReaders(std::string(400, 'y'));
  for (size_t at = yaml.find("auto"); at != std::string::npos; at = yaml.find("auto"))
    yaml.replace(at, 4, "context_first");
  batch.Add(yaml, Rows(10, 10, "short "));
  batch.Plan();
  EXPECT_EQ(batch.logical(0).at(0).layout, PromptLayout::kContextFirst);
}

/// Whether the rule takes `a` of a workflow for one whose prompts are like no others.
bool IsLone(const std::string& operators, const std::vector<Json>& rows,
            const std::string& end = "a") {
  Batch batch;
  batch.Add("start_ops: [a]\nend_ops: [" + end + "]\nops:\n" + operators, rows);
  batch.Plan();
  return batch.logical(0).at(0).lone_prompts;
}

TEST(OptimizerTest, PromptsAreLoneWhereTheyBeginWithAValueThatNoOtherRowHas) {
  const std::string alone = "  a: {model: m, temperature: 0, prompt: Say it.}\n";
  EXPECT_TRUE(IsLone(alone, Rows(10, 10, "x")));
  // Equal rows share one call.
  EXPECT_TRUE(IsLone(alone, Rows(10, 5, "x")));
  // What follows is computed from all of the row, so calls are more than beginnings.
  EXPECT_FALSE(
      IsLone("  a: {model: m, temperature: 0, prompt_layout: context_first, prompt: \"Say {{ "
             "row.id }}.\"}\n",
             Rows(10, 5, "x")));
  // Samples of one prompt begin alike, and so do the same instructions of two operators.
  EXPECT_FALSE(IsLone("  a: {model: m, samples: 3, prompt: Say it.}\n", Rows(10, 10, "x")));
  Batch batch;
  batch.Add(
      "start_ops: [a, b]\nend_ops: [a, b]\nops:\n  a: {model: m, temperature: 0, prompt: Say "
      "it.}\n  b: {model: m, temperature: 0, max_tokens: 7, prompt: Say it.}\n",
      Rows(10, 10, "x"));
  batch.Plan();
  EXPECT_FALSE(batch.logical(0).at(0).lone_prompts);
  // A conversation goes on from it.
  EXPECT_FALSE(
      IsLone(alone + "  b: {model: m, temperature: 0, input_ops: [a]}\n", Rows(3, 3, "x"), "b"));
}

/// Whether `a`, whose prompts go on with the text of the row, is lone beside another operator.
bool IsLoneBeside(const std::string& other) {
  Batch batch;
  batch.Add(
      "graph:\n  defaults: {model: m, temperature: 0}\n  nodes:\n"
      "    - {id: in, type: input, outputs: [text, note]}\n"
      "    - {id: a, prompt: \"Of {{ text }}: who?\", outputs: [x]}\n" +
          other,
      {{{"text", "one"}, {"note", "three"}}, {{"text", "two"}, {"note", "four"}}});
  batch.Plan();
  return batch.logical(0).at(0).lone_prompts;
}

TEST(OptimizerTest, PromptsAreNotLoneWhereAnothersGoesOnWithTheSameValue) {
  EXPECT_TRUE(IsLoneBeside(""));
  EXPECT_FALSE(IsLoneBeside("    - {id: b, prompt: \"Of {{ text }}: why?\", outputs: [y]}\n"));
  EXPECT_FALSE(IsLoneBeside("    - {id: b, prompt: \"Of {{ row.text }}\", outputs: [y]}\n"));
  // Text that is longer, another column, an answer, another model: nothing of the value.
  EXPECT_TRUE(IsLoneBeside("    - {id: b, prompt: \"Of course {{ text }}\", outputs: [y]}\n"));
  EXPECT_TRUE(IsLoneBeside("    - {id: b, prompt: \"Of {{ note }}\", outputs: [y]}\n"));
  EXPECT_TRUE(IsLoneBeside("    - {id: b, inputs: [x], prompt: \"Of {{ x }}\", outputs: [y]}\n"));
  EXPECT_TRUE(IsLoneBeside("    - {id: b, model: n, prompt: \"Of {{ text }}\", outputs: [y]}\n"));
  // What is computed of a column may be the column.
  EXPECT_FALSE(IsLoneBeside("    - {id: b, prompt: \"Of {{ text | trim }}\", outputs: [y]}\n"));
}

TEST(OptimizerTest, OperatorsOfTwoWorkflowsShareTheirCalls) {
  const std::string yaml =
      "start_ops: [a]\nend_ops: [a]\nops:\n  a: {model: m, temperature: 0, prompt: Same.}\n";
  Batch batch;
  batch.Add(yaml, Rows(10, 10, "x"));
  batch.Add(yaml, Rows(15, 15, "x"));
  const PhysicalPlan plan = batch.Plan();
  EXPECT_EQ(plan.operators[1].same_as, 0);
  // x0 to x9 are in both.
  EXPECT_EQ(plan.operators[0].estimate.calls, Estimate::Exactly(15));
  EXPECT_EQ(plan.operators[1].estimate.calls, Estimate::Exactly(0));
  EXPECT_GT(RuleOf(plan, "equal_operators").saved_s, 0.0);
}

// What EXPLAIN prints is to be the same wherever, and however busy the machine is.
TEST(OptimizerTest, AutomaticPlansDoNotDependOnTheClock) {
  std::string yaml = "start_ops: [o0]\nend_ops: [end]\nops:\n  o0: {model: m0, max_tokens: 50}\n";
  std::string all = "o0";
  for (int i = 1; i < 12; ++i) {
    const std::string id = "o" + std::to_string(i);
    yaml += "  " + id + ": {model: m" + std::to_string(i % 3) + ", input_ops: [o" +
            std::to_string(i / 3) + "], max_tokens: " + std::to_string(10 + 37 * i % 101) + "}\n";
    all += ", " + id;
  }
  yaml += "  end: {model: m0, input_ops: [" + all + "]}\n";
  const auto placed_by = [&](double tick_s) {
    Batch batch;
    batch.Add(yaml, Rows(40, 40, "text "));
    OptimizerOptions options;
    options.workers = 3;
    double now_s = 0.0;
    options.now_s = [&] { return now_s += tick_s; };
    std::vector<std::tuple<size_t, int32_t, double>> placed;
    for (const PlacedOperator& one : batch.Plan(options, nullptr, "auto").placements)
      placed.emplace_back(one.op, one.worker, one.start_s);
    return placed;
  };
  EXPECT_EQ(placed_by(0.0), placed_by(1.0));
}

TEST(OptimizerTest, RulesThatAreOffDoNothing) {
  const std::string yaml =
      "start_ops: [a, b]\nend_ops: [a, b]\nops:\n  a: {model: m, temperature: 0}\n  b: {model: m, "
      "temperature: 0}\n";
  Batch batch;
  batch.Add(yaml, Rows(10, 10, "x"));
  OptimizerOptions options;
  options.rules_off = {"equal_operators"};
  const PhysicalPlan plan = batch.Plan(options);
  EXPECT_FALSE(RuleOf(plan, "equal_operators").is_on);
  EXPECT_EQ(plan.operators[1].same_as, -1);
  EXPECT_EQ(plan.operators[1].estimate.calls, Estimate::Exactly(10));
}

TEST(OptimizerTest, UnknownRulesAreNamedWithASuggestion) {
  Batch batch;
  batch.Add("start_ops: [a]\nend_ops: [a]\nops:\n  a: {model: m}\n", {});
  OptimizerOptions options;
  options.rules_off = {"equal_operator"};
  try {
    batch.Plan(options);
    FAIL() << "taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("did you mean 'equal_operators'"));
  }
}

TEST(OptimizerTest, HistoryTakesThePlaceOfAssumptions) {
  Batch batch;
  batch.Add(
      "start_ops: [a]\nend_ops: [a]\nops:\n  a: {model: m, temperature: 0, max_tokens: 200}\n",
      Rows(20, 20, "x"));
  const PhysicalPlan before = batch.Plan();
  EXPECT_EQ(before.operators[0].estimate.output_tokens.value, 100.0);
  EXPECT_FALSE(before.operators[0].estimate.assumptions.empty());
  OperatorHistory history;
  history.Add(batch.identity(0, 0).signature, "m", {50, 50, 50 * 30, 0, 50 * 12, 50 * 12 * 12, 0});
  const PhysicalPlan after = batch.Plan({}, &history);
  EXPECT_EQ(after.operators[0].estimate.output_tokens, Estimate::Exactly(12));
  EXPECT_EQ(after.operators[0].estimate.prompt_tokens.value, 30.0);
  EXPECT_TRUE(after.operators[0].estimate.assumptions.empty());
  EXPECT_LT(after.engine_busy_s.value, before.engine_busy_s.value);
}

TEST(OptimizerTest, WhatRunsTookCorrectsTheProfileTheyWereMeasuredWith) {
  Batch batch;
  batch.Add("start_ops: [a]\nend_ops: [a]\nops:\n  a: {model: m, temperature: 0}\n",
            Rows(50, 50, "x"));
  const auto busy_after = [&](double engine_s, const std::string& profile) {
    OperatorHistory history;
    history.Add(batch.identity(0, 0).signature, "m",
                {50, 50, 50 * 30, 0, 50 * 12, 50 * 12 * 12, 0, engine_s, 2.0, profile});
    return batch.Plan({}, &history).operators[0].estimate;
  };
  const double as_profile = busy_after(2.0, "default").busy_s.value;
  EXPECT_DOUBLE_EQ(busy_after(3.0, "default").busy_s.value, 1.5 * as_profile);
  EXPECT_DOUBLE_EQ(busy_after(3.0, "default").pace, 1.5);
  EXPECT_DOUBLE_EQ(busy_after(3.0, "of another machine").busy_s.value, as_profile);
}

// A call or two that had to wait for a core say nothing about a million of them.
TEST(OptimizerTest, WhatTookNextToNothingIsNoPace) {
  Batch batch;
  batch.Add("start_ops: [a]\nend_ops: [a]\nops:\n  a: {model: m, temperature: 0}\n",
            Rows(50, 50, "x"));
  const auto pace_after = [&](double own_s, double of_model_s) {
    OperatorHistory history;
    history.Add(batch.identity(0, 0).signature, "m",
                {2, 2, 2 * 30, 0, 2 * 12, 2 * 12 * 12, 0, 60 * own_s, own_s, "default"});
    history.Add(ModelPaceSignature(), "m",
                {2, 2, 0, 0, 0, 0, 0, 3 * of_model_s, of_model_s, "default"});
    return batch.Plan({}, &history).operators[0].estimate.pace;
  };
  EXPECT_DOUBLE_EQ(pace_after(0.01, 0.02), 1.0);
  EXPECT_DOUBLE_EQ(pace_after(0.01, 20.0), 3.0);
  EXPECT_DOUBLE_EQ(pace_after(10.0, 20.0), 60.0);
}

TEST(OptimizerTest, APlanSaysWhenOperatorsStartAndHowManyCallsRunAtOnce) {
  Batch batch;
  batch.Add(R"(graph:
  name: f
  connections: {shop: "duckdb::memory:"}
  defaults: {model: m, temperature: 0}
  nodes:
    - {id: in, type: input, outputs: [prompt]}
    - {id: first, prompt: "A {{ prompt }}", outputs: [a], max_batch_size: 3}
    - {id: found, type: db_query, connection: shop, sql: "SELECT :t", parameters: {t: "{{ a }}"}, param_types: {t: text}}
    - {id: last, inputs: [found], prompt: "B {{ found }}", outputs: [b]}
)",
            Rows(20, 20, "x"));
  const PhysicalPlan plan = batch.Plan();
  const auto of = [&](const std::string& id) -> const PlannedOperator& {
    for (const PlannedOperator& planned : plan.operators) {
      if (batch.logical(0).operator_of(planned.op).id == id) return planned;
    }
    throw std::runtime_error("no operator " + id);
  };
  EXPECT_EQ(of("first").batch_limit, 3);
  EXPECT_EQ(of("last").batch_limit, ModelFacts().sequences);
  EXPECT_EQ(of("found").batch_limit, 0);
  EXPECT_LT(*of("first").start_s, *of("found").start_s);
  EXPECT_LT(*of("found").start_s, *of("last").start_s);
}

/// A batch of one query over 10 rows.
Batch OneQuery() {
  Batch batch;
  batch.Add(R"(graph:
  connections: {db: "duckdb::memory:"}
  nodes:
    - {id: in, type: input, outputs: [prompt]}
    - {id: q, type: db_query, sql: "SELECT :p", parameters: {p: "{{ prompt }}"}}
)",
            Rows(10, 10, "x"));
  return batch;
}

TEST(OptimizerTest, QueriesTakeWhatTheirDatabaseSaysOfThem) {
  Batch batch = OneQuery();
  const OperatorEstimate unasked = batch.Plan().operators[0].estimate;
  EXPECT_THAT(unasked.assumptions, Contains("a call is taken to last 5 ms"));
  for (const SqlDialect dialect : {SqlDialect::kDuckDb, SqlDialect::kPostgres}) {
    const QueryRate rate = DefaultQueryRate(dialect);
    batch.query_cost = QueryCost{dialect, 45'000.0, ""};
    const OperatorEstimate some = batch.Plan().operators[0].estimate;
    EXPECT_DOUBLE_EQ(some.busy_s.value, 10.0 * (rate.call_s + 45'000.0 * rate.unit_s));
    EXPECT_LT(some.busy_s.low, some.busy_s.value);
    EXPECT_GT(some.busy_s.high, some.busy_s.value);
    EXPECT_THAT(some.assumptions,
                Contains(testing::AllOf(HasSubstr("45,000 units of"), HasSubstr(rate.explain))));
    batch.query_cost->units = 90'000.0;
    const OperatorEstimate twice = batch.Plan().operators[0].estimate;
    EXPECT_DOUBLE_EQ(twice.busy_s.value - some.busy_s.value, 10.0 * 45'000.0 * rate.unit_s);
    // A connection ends what takes longer.
    batch.query_cost->units = 1e18;
    EXPECT_DOUBLE_EQ(batch.Plan().operators[0].estimate.busy_s.value, 10.0 * QueryRate::kMost_s);
  }
}

TEST(OptimizerTest, EarlierQueriesScaleWhatADatabaseSays) {
  Batch batch = OneQuery();
  batch.query_cost = QueryCost{SqlDialect::kDuckDb, 45'000.0, ""};
  const OperatorEstimate alone = batch.Plan().operators[0].estimate;
  const auto after = [&](SqlDialect of, const std::string& rate) {
    OperatorHistory history;
    OperatorRecord pace;
    pace.calls = 4.0;
    pace.engine_s = 3.0;
    pace.profile_s = 2.0;
    pace.profile = rate;
    history.Add(QueryPaceSignature(of), "", pace);
    return batch.Plan({}, &history).operators[0].estimate;
  };
  const OperatorEstimate scaled = after(SqlDialect::kDuckDb, QueryRateName(SqlDialect::kDuckDb));
  EXPECT_DOUBLE_EQ(scaled.busy_s.value, 1.5 * alone.busy_s.value);
  EXPECT_LT(scaled.busy_s.high / scaled.busy_s.value, alone.busy_s.high / alone.busy_s.value);
  EXPECT_THAT(scaled.assumptions, Contains(testing::EndsWith(", as earlier queries took")));
  EXPECT_THAT(alone.assumptions, testing::Not(Contains(HasSubstr("earlier"))));
  // Of another kind of database, or beside another rate, it says nothing.
  EXPECT_EQ(after(SqlDialect::kPostgres, QueryRateName(SqlDialect::kPostgres)).busy_s,
            alone.busy_s);
  EXPECT_EQ(after(SqlDialect::kDuckDb, "of another version").busy_s, alone.busy_s);
}

TEST(OptimizerTest, AQuerysOwnHistoryIsBetterThanItsCost) {
  Batch batch = OneQuery();
  batch.query_cost = QueryCost{SqlDialect::kPostgres, 45'000.0, "it runs under plan 'b' of 2"};
  OperatorHistory history;
  OperatorRecord own;
  own.instances = own.calls = 10.0;
  own.latency_s = 0.02;
  history.Add(batch.identity(0, batch.Plan().operators[0].op).signature, "", own);
  const OperatorEstimate known = batch.Plan({}, &history).operators[0].estimate;
  EXPECT_DOUBLE_EQ(known.busy_s.value, 0.02);
  // Which plan it runs under is said all the same.
  EXPECT_THAT(known.assumptions, testing::ElementsAre("it runs under plan 'b' of 2"));
}

TEST(OptimizerTest, ConversationsBeginWithTheirParents) {
  Batch batch;
  batch.Add(R"(start_ops: [a]
end_ops: [b]
ops:
  a: {model: m, temperature: 0, max_tokens: 40}
  b: {model: m, temperature: 0, input_ops: [a]}
)",
            Rows(10, 10, std::string(80, 'x')));
  const PhysicalPlan plan = batch.Plan();
  const OperatorEstimate& a = plan.operators[0].estimate;
  const OperatorEstimate& b = plan.operators[1].estimate;
  EXPECT_EQ(b.reused_tokens.value, a.prompt_tokens.value + a.output_tokens.value);
  EXPECT_GE(b.prompt_tokens.value, b.reused_tokens.value);
}

TEST(OptimizerTest, PrefixesThatAreAlikeMakeAGroup) {
  const std::string shared(80, 'p');
  Batch batch;
  batch.Add("start_ops: [a, b, c]\nend_ops: [a, b, c]\nops:\n  a: {model: m, prompt: \"" + shared +
                " one\"}\n  b: {model: m, prompt: \"" + shared +
                " two\"}\n  c: {model: m, prompt: \"another\"}\n",
            Rows(5, 5, "x"));
  const PhysicalPlan plan = batch.Plan();
  ASSERT_EQ(plan.prefix_groups.size(), 1U);
  const PrefixGroup& group = plan.prefix_groups[0];
  EXPECT_THAT(group.operators, testing::ElementsAre(0, 1));
  EXPECT_EQ(group.prefix, "\"" + shared.substr(0, 37) + "...\"");
  EXPECT_EQ(group.values, 0);
  EXPECT_EQ(group.tokens, 81.0 / 4.0);
  EXPECT_EQ(group.constant_tokens, group.tokens);
  EXPECT_EQ(group.calls, 10.0);
  EXPECT_EQ(group.saved_tokens, group.tokens);  // once, where each of the two had it once
  EXPECT_EQ(plan.operators[0].prefix_group, 0);
  EXPECT_EQ(plan.operators[2].prefix_group, -1);
}

const std::string kJudge = "You are a judge of long experience: ";  // 36 bytes, 9 tokens

/// A graph over rows with the columns text, note and prompt.
std::string Judges(const std::string& nodes) {
  return "graph:\n  defaults: {model: m, temperature: 0}\n  nodes:\n"
         "    - {id: in, type: input, outputs: [text, note]}\n" +
         nodes;
}

/// `texts` different texts of 40 bytes, and a note of its own for each row.
std::vector<Json> Cases(int64_t count, int64_t texts) {
  std::vector<Json> rows;
  for (int64_t i = 0; i < count; ++i) {
    std::string text = std::to_string(100 + i % texts);
    text.resize(40, 'x');
    rows.push_back({{"id", i}, {"text", text}, {"note", "note " + std::to_string(1000 + i)}});
  }
  return rows;
}

TEST(OptimizerTest, GroupsStandInGroupsWhereValuesAreShared) {
  Batch batch;
  batch.Add(Judges("    - {id: a, prompt: \"" + kJudge +
                   "{{ text }}, who?\", outputs: [x]}\n    - {id: b, prompt: \"" + kJudge +
                   "{{ row.text }}; why?\", outputs: [y]}\n    - {id: c, prompt: \"" + kJudge +
                   "{{ note }}\", outputs: [z]}\n"),
            Cases(12, 6));
  const PhysicalPlan plan = batch.Plan();
  ASSERT_EQ(plan.prefix_groups.size(), 2U);
  const PrefixGroup& all = plan.prefix_groups[0];
  EXPECT_THAT(all.operators, testing::ElementsAre(0, 1, 2));
  EXPECT_EQ(all.prefix, "\"You are a judge of long experience:\"");
  EXPECT_EQ(all.parent, -1);
  const PrefixGroup& two = plan.prefix_groups[1];
  EXPECT_THAT(two.operators, testing::ElementsAre(0, 1));
  EXPECT_EQ(two.prefix, "\"You are a judge of long experience:\" + {{ text }}");
  EXPECT_EQ(two.parent, 0);
  EXPECT_EQ(two.values, 1);
  EXPECT_EQ(two.constant_tokens, 9.0);
  EXPECT_EQ(two.tokens, 19.0);
  EXPECT_EQ(two.prefixes, 6.0);
  EXPECT_EQ(two.calls, 12.0);
  EXPECT_EQ(two.saved_tokens, 60.0);  // six texts of ten tokens, for one of the two
  EXPECT_GT(two.saved_s, 0.0);
  EXPECT_EQ(plan.operators[0].prefix_group, 1);
  EXPECT_EQ(plan.operators[2].prefix_group, 0);
  EXPECT_THAT(RuleOf(plan, "prefix_groups").changes,
              Contains("a, b begin with \"You are a judge of long experience:\" + {{ text }}: 19 "
                       "tokens, 9 of them in every row, 6 different in 12 calls, saves 60 tokens"));
}

TEST(OptimizerTest, ValuesAreComputedOnceForAllThatBeginWithThem) {
  Batch batch;
  batch.Add(Judges("    - {id: a, prompt: \"" + kJudge +
                   "{{ text }}, who?\", outputs: [x]}\n    - {id: b, prompt: \"" + kJudge +
                   "{{ text }}; why?\", outputs: [y]}\n"),
            Cases(12, 12));
  const PhysicalPlan plan = batch.Plan();
  // The first computes the constant part once, the second finds it and the text of each row.
  EXPECT_DOUBLE_EQ(plan.operators[0].estimate.reused_tokens.value, 9.0 * 11.0 / 12.0);
  EXPECT_DOUBLE_EQ(plan.operators[1].estimate.reused_tokens.value, 19.0);
  EXPECT_EQ(batch.logical(0).at(1).kv_source, 0);
  EXPECT_DOUBLE_EQ(plan.operators[1].estimate.source_tokens, 10.0);
  EXPECT_EQ(plan.operators[0].estimate.source_tokens, 0.0);
}

TEST(OptimizerTest, ValuesThatRepeatAreComputedOnceForEachDifferentOne) {
  Batch batch;
  batch.Add(Judges("    - {id: a, prompt: \"" + kJudge + "{{ text }}{{ note }}\", outputs: [x]}\n"),
            Cases(12, 3));
  const PhysicalPlan plan = batch.Plan();
  EXPECT_EQ(plan.operators[0].estimate.calls, Estimate::Exactly(12));
  EXPECT_DOUBLE_EQ(plan.operators[0].estimate.reused_tokens.value,
                   9.0 * 11.0 / 12.0 + 10.0 * 9.0 / 12.0);
}

TEST(OptimizerTest, SamplesBeginLikeTheFirst) {
  Batch batch;
  batch.Add(
      Judges("    - {id: a, samples: 3, temperature: 1, prompt: \"{{ text }}\", outputs: [x]}\n"),
      Cases(12, 12));
  const OperatorEstimate estimate = batch.Plan().operators[0].estimate;
  EXPECT_EQ(estimate.calls, Estimate::Exactly(36));
  EXPECT_DOUBLE_EQ(estimate.prompt_tokens.value, 10.0);
  EXPECT_DOUBLE_EQ(estimate.reused_tokens.value, 10.0 * 2.0 / 3.0);
}

/// How many of a plan's groups share a value.
size_t GroupsWithValues(const PhysicalPlan& plan) {
  return static_cast<size_t>(
      std::count_if(plan.prefix_groups.begin(), plan.prefix_groups.end(),
                    [](const PrefixGroup& group) { return group.values > 0; }));
}

TEST(OptimizerTest, OnlyEqualValuesOfOneModelsPromptsMakeAGroup) {
  const std::string first = "    - {id: a, prompt: \"" + kJudge + "{{ text }}\", outputs: [x]}\n";
  const auto with = [&](const std::string& keys, const std::string& value) {
    Batch batch;
    batch.Add(Judges(first + "    - {id: b, " + keys + "prompt: \"" + kJudge + value +
                     " now\", outputs: [y]}\n"),
              Cases(12, 12));
    return GroupsWithValues(batch.Plan());
  };
  EXPECT_EQ(with("", "{{ text }}"), 1U);
  EXPECT_EQ(with("", "{{ row['text'] }}"), 1U);
  EXPECT_EQ(with("", "{{ note }}"), 0U);
  EXPECT_EQ(with("", "{{ text | upper }}"), 0U);
  EXPECT_EQ(with("model: other, ", "{{ text }}"), 0U);
  EXPECT_EQ(with("lora_config: {file: l}, ", "{{ text }}"), 0U);
  // A column of that name in another workflow's rows says something else.
  Batch batch;
  batch.Add(Judges(first), Cases(12, 12));
  batch.Add(Judges("    - {id: b, prompt: \"" + kJudge + "{{ text }} now\", outputs: [y]}\n"),
            Cases(12, 12));
  const PhysicalPlan plan = batch.Plan();
  EXPECT_EQ(GroupsWithValues(plan), 0U);
  ASSERT_EQ(plan.prefix_groups.size(), 1U);
  EXPECT_THAT(plan.prefix_groups[0].operators, testing::ElementsAre(0, 1));
}

TEST(OptimizerTest, AnswersOfOperatorsThatAskTheSameAreOneValue) {
  const auto with = [&](const std::string& sampling) {
    Batch batch;
    batch.Add(Judges("    - {id: p1, prompt: \"Of {{ text }}\", outputs: [one]" + sampling +
                     "}\n    - {id: p2, prompt: \"Of {{ text }}\", outputs: [two]" + sampling +
                     "}\n    - {id: a, inputs: [one], prompt: \"" + kJudge +
                     "{{ one }} who?\", outputs: [x]}\n    - {id: b, inputs: [two], prompt: \"" +
                     kJudge + "{{ two }} why?\", outputs: [y]}\n"),
              Cases(12, 12));
    size_t groups = 0;
    const PhysicalPlan plan = batch.Plan();
    for (const PrefixGroup& group : plan.prefix_groups)
      groups += group.values > 0 && group.operators == std::vector<size_t>{2, 3};
    return groups;
  };
  EXPECT_EQ(with(""), 1U);
  EXPECT_EQ(with(", temperature: 1"), 0U);
}

TEST(OptimizerTest, AConversationIsNoGroupUntilItParts) {
  const std::string one = "  b: {model: m, temperature: 0, input_ops: [a], prompt: More.}\n";
  const std::string begin =
      "ops:\n  a: {model: m, temperature: 0, prompt: \"" + kJudge + kJudge + "\"}\n";
  Batch alone;
  alone.Add("start_ops: [a]\nend_ops: [b]\n" + begin + one, Rows(4, 4, "x"));
  EXPECT_EQ(alone.Plan().prefix_groups.size(), 0U);
  Batch parts;
  parts.Add("start_ops: [a]\nend_ops: [b, c]\n" + begin + one +
                "  c: {model: m, temperature: 0, input_ops: [a], prompt: Why.}\n",
            Rows(4, 4, "x"));
  const PhysicalPlan plan = parts.Plan();
  ASSERT_EQ(plan.prefix_groups.size(), 1U);
  EXPECT_EQ(plan.prefix_groups[0].prefix, "the conversation of a + {{ a }}");
  EXPECT_THAT(plan.prefix_groups[0].operators, testing::ElementsAre(1, 2));
}

TEST(OptimizerTest, AThousandOperatorsMakeNoMoreGroupsThanThereAreWaysToPart) {
  std::string nodes;
  constexpr size_t kOperators = 1000;
  for (size_t i = 0; i < kOperators; ++i)
    nodes += "    - {id: o" + std::to_string(i) + ", prompt: \"" + kJudge +
             (i % 2 == 0 ? "{{ text }}" : "{{ note }}") + " question " + std::to_string(i) +
             "\", outputs: [x" + std::to_string(i) + "]}\n";
  Batch batch;
  batch.Add(Judges(nodes), Cases(4, 4));
  const PhysicalPlan plan = batch.Plan();
  EXPECT_LT(plan.prefix_groups.size(), kOperators);
  EXPECT_EQ(plan.prefix_groups[0].operators.size(), kOperators);
  EXPECT_THAT(RuleOf(plan, "prefix_groups").changes.front(), HasSubstr(" and 992 more begin with"));
}

TEST(OptimizerTest, WorkIsPlacedOnEveryWorker) {
  Batch batch;
  batch.Add(R"(start_ops: [a, b]
end_ops: [a, b]
ops:
  a: {model: m}
  b: {model: n}
)",
            Rows(100, 100, "x"));
  OptimizerOptions options;
  options.workers = 2;
  const PhysicalPlan two = batch.Plan(options);
  const PhysicalPlan one = batch.Plan();
  EXPECT_EQ(two.workers.size(), 2U);
  EXPECT_LT(two.elapsed_s.value, one.elapsed_s.value);
  std::set<int32_t> used;
  for (const PlacedOperator& placed : two.placements) used.insert(placed.worker);
  EXPECT_EQ(used.size(), 2U);
}

/// Tool seconds as planners see them, of calls that take 3 s each.
std::map<std::string, double> ToolSeconds(const std::string& nodes, int64_t rows) {
  Batch batch;
  batch.Add(
      "graph:\n  allow_hosts: [a.example, b.example]\n  nodes:\n"
      "    - {id: q, type: input, outputs: [prompt]}\n" +
          nodes,
      Rows(rows, rows, "x"));
  std::map<std::string, double> seconds;
  OptimizerOptions options;
  options.place = [&seconds](const SchedulingProblem& problem) {
    for (const SchedulingTask& task : problem.tasks) seconds[task.name] = task.tool_s;
    return PlanByList(problem, {});
  };
  batch.Plan(options);
  return seconds;
}

std::string WebCall(const std::string& id, const std::string& url) {
  return "    - {id: " + id + ", type: http, url: \"http://" + url +
         "\", effect: read, latency_s: 3, outputs: [" + id + "_said]}\n";
}

TEST(OptimizerTest, ToolsOfOneHostShareItsTurns) {
  const std::string one = WebCall("one", "a.example/1/{{ prompt }}");
  const std::string two = WebCall("two", "a.example/2/{{ prompt }}");
  const std::string other = WebCall("other", "b.example/{{ prompt }}");
  using Seconds = std::map<std::string, double>;
  // 64 calls are two rounds of 32.
  EXPECT_EQ(ToolSeconds(one + other, 64), (Seconds{{"one", 6.0}, {"other", 6.0}}));
  EXPECT_EQ(ToolSeconds(one + two + other, 64),
            (Seconds{{"one", 12.0}, {"two", 12.0}, {"other", 6.0}}));
  EXPECT_EQ(ToolSeconds(one + two, 16), (Seconds{{"one", 3.0}, {"two", 3.0}}))
      << "both fit into one round";
  // In a chain the second has nothing to ask while the first is in its first block of 64 rows.
  const std::string after = WebCall("after", "a.example/2/{{ one_said.status }}");
  EXPECT_EQ(ToolSeconds(one + after, 64), (Seconds{{"one", 6.0}, {"after", 6.0}}));
  EXPECT_EQ(ToolSeconds(one + after, 128), (Seconds{{"one", 18.0}, {"after", 18.0}}));
}

TEST(OptimizerTest, ACallersPlannerTakesThePlaceOfTheNamedOne) {
  Batch batch;
  batch.Add(TwoReaders("Say it."), Rows(100, 100, "x"));
  SchedulingProblem seen;
  OptimizerOptions options;
  options.workers = 2;
  options.place = [&seen](const SchedulingProblem& problem) {
    seen = problem;
    Schedule schedule = PlanByList(problem, {});
    schedule.planner = "mine";
    return schedule;
  };
  const PhysicalPlan plan = batch.Plan(options);
  EXPECT_EQ(plan.planner, "mine");
  EXPECT_EQ(seen.workers.size(), 2U);
  ASSERT_EQ(seen.tasks.size(), 2U);
  EXPECT_EQ(seen.tasks[0].name, "a");
  EXPECT_EQ(plan.placements.size(), PlanByList(seen, {}).shards.size());

  options.place = [](const SchedulingProblem&) { return Schedule{}; };
  EXPECT_DEATH(batch.Plan(options), "broken") << "an empty schedule is none";
}

}  // namespace
}  // namespace halo
