#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "plan/html_page.h"
#include "plan/physical_plan.h"
#include "plan/plan_words.h"

namespace halo {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr const char* kHostile = R"(graph:
  name: "<script>alert(1)<script>"
  defaults: {model: "m\"<b>", temperature: 0}
  nodes:
    - {id: in, type: input, outputs: [text]}
    - {id: first, prompt: "A {{ text }}", outputs: [a]}
    - {id: second, inputs: [a], prompt: "B {{ a }}", outputs: [b]}
)";

class ExplainTest : public testing::Test {
 protected:
  ExplainTest()
      : workflow_(ParseWorkflow(kHostile, "f.yaml")), logical_(MakeLogicalPlan(workflow_)) {
    plan_.sources.push_back({workflow_.name, &logical_, 10});
    for (const LogicalNode& node : logical_.nodes) {
      PlannedOperator planned;
      planned.op = node.op;
      planned.estimate.instances = Estimate::Exactly(10);
      planned.estimate.calls = {8, 4, 10};
      planned.estimate.prompt_tokens = Estimate::Exactly(100);
      planned.estimate.reused_tokens = Estimate::Exactly(40);
      planned.estimate.output_tokens = Estimate::Exactly(20);
      planned.estimate.busy_s = {1.5, 1.0, 2.0};
      plan_.operators.push_back(planned);
    }
    plan_.operators[1].estimate.assumptions = {"answers are <long>"};
    plan_.rules.push_back({"some_rule", "does something", true, {"first & second"}, 0.5, 0.001});
    plan_.rules.push_back({"other_rule", "does nothing", true, {}, 0.0, 0.001});
    plan_.rules.push_back({"third_rule", "is off", false, {}, 0.0, 0.0});
    plan_.workers.push_back({"worker 0", 1 << 30});
    plan_.placements.push_back({0, 0, 0, 1, 0.5, 2.0, 0.5});
    plan_.placements.push_back({1, 0, 0, 1, 2.0, 3.5, 0.0});
    plan_.planner = "dp";
    plan_.engine_busy_s = {3.0, 2.0, 4.0};
    plan_.elapsed_s = {3.5, 2.5, 4.5};
    plan_.has_costs = true;
  }

  Workflow workflow_;
  LogicalPlan logical_;
  PhysicalPlan plan_;
};

TEST_F(ExplainTest, TextSaysWhatIsExpectedAndWhy) {
  const std::string text = ExplainText(plan_);
  EXPECT_THAT(text, HasSubstr("2 operators, 1 model, 10 rows"));
  EXPECT_THAT(text, HasSubstr("costs   8 (4 to 10) calls, each 100 tokens in, 40 of them reused, "
                              "20 out, 1.5 s (1.0 s to 2.0 s)"));
  EXPECT_THAT(text, HasSubstr("assumed answers are <long>"));
  EXPECT_THAT(text,
              HasSubstr("some_rule          does something: saves 500 ms\n      first & second\n"));
  EXPECT_THAT(text, HasSubstr("no change by       other_rule\n"));
  EXPECT_THAT(text, HasSubstr("third_rule         off"));
  EXPECT_THAT(text, HasSubstr("  500 ms to    2.0 s  first, after 500 ms of loading"));
  EXPECT_THAT(text, HasSubstr("total: engine busy for 3.0 s (2.0 s to 4.0 s), elapsed 3.5 s"));
}

TEST_F(ExplainTest, WhatIsNotKnownIsNotPrinted) {
  plan_.has_costs = false;
  const std::string text = ExplainText(plan_);
  EXPECT_THAT(text, HasSubstr("20 out\n"));
  EXPECT_THAT(text, Not(HasSubstr("total:")));
  EXPECT_THAT(text, Not(HasSubstr("placement")));
}

TEST_F(ExplainTest, ActualsStandBesideEstimatesWithTheErrorFactor) {
  plan_.operators[0].actual = OperatorActual{10, 4, 50.0, 10.0, 20.0, 3.0};
  const std::string text = ExplainText(plan_);
  EXPECT_THAT(text, HasSubstr("actual  calls 4 (estimated 8, factor 2.00); tokens in 50 (estimated "
                              "100, factor 2.00); out 20 (estimated 20, factor 1.00)"));
}

TEST_F(ExplainTest, JsonHoldsEveryFigure) {
  const auto said = nlohmann::json::parse(ExplainJson(plan_));
  EXPECT_EQ(said["operators"].size(), 2U);
  EXPECT_EQ(said["operators"][1]["waits_for"], nlohmann::json::array({"first"}));
  EXPECT_EQ(said["operators"][0]["estimate"]["busy_s"]["high"], 2.0);
  EXPECT_EQ(said["placements"][0]["load_s"], 0.5);
  EXPECT_EQ(said["rules"][2]["on"], false);
  EXPECT_EQ(said["sources"][0]["rows"], 10);
}

TEST_F(ExplainTest, PromptsThatBeginAlikeAreNamedInEveryForm) {
  PrefixGroup group;
  group.operators = {0, 1};
  group.prefix = "\"A <b>\" + {{ text }}";
  group.values = 1;
  group.tokens = 31.4;
  group.constant_tokens = 12.0;
  group.prefixes = 8.0;
  group.calls = 16.0;
  group.saved_tokens = 155.0;
  group.saved_s = 0.25;
  plan_.prefix_groups = {group};
  plan_.operators[0].prefix_group = plan_.operators[1].prefix_group = 0;
  logical_.nodes[1].kv_source = 0;
  logical_.nodes[1].kv_shared = group.prefix;
  EXPECT_EQ(PrefixGroupWords(group),
            "31 tokens, 12 of them in every row, 8 different in 16 calls, saves 155 tokens");
  EXPECT_THAT(ExplainText(plan_),
              HasSubstr("KV      begins with that of first (\"A <b>\" + {{ text }})"));
  const auto said = nlohmann::json::parse(ExplainJson(plan_));
  EXPECT_EQ(said["prefix_groups"][0]["prefix"], group.prefix);
  EXPECT_EQ(said["prefix_groups"][0]["parent"], nullptr);
  EXPECT_EQ(said["prefix_groups"][0]["saved_tokens"], 155.0);
  EXPECT_EQ(said["operators"][1]["kv"]["shared"], group.prefix);
  const std::string mermaid = ExplainMermaid(plan_);
  EXPECT_THAT(mermaid, HasSubstr("p0{{\"#quot;A #lt;b#gt;#quot; + {{ text }}<br/>31 tokens, "));
  EXPECT_THAT(mermaid, HasSubstr("p0 -.- o1\n"));
  const std::string html = ExplainHtml(plan_);
  EXPECT_THAT(html, HasSubstr("&quot;A &lt;b&gt;&quot; + {{ text }}</td><td class=\"name\">first, "
                              "second</td><td>31</td><td>12</td><td>8</td><td>16</td>"
                              "<td>155</td><td>250 ms</td>"));
  EXPECT_THAT(html, Not(HasSubstr("<b>\"")));
}

TEST_F(ExplainTest, EveryFormIsTheSameEachTimeAndWithoutPlanningTimes) {
  PhysicalPlan again = plan_;
  again.rules[0].planning_s = 7.0;
  EXPECT_EQ(ExplainText(plan_), ExplainText(again));
  EXPECT_EQ(ExplainJson(plan_), ExplainJson(again));
  EXPECT_EQ(ExplainMermaid(plan_), ExplainMermaid(again));
  EXPECT_EQ(ExplainHtml(plan_), ExplainHtml(again));
}

TEST_F(ExplainTest, ThePageShowsWhatBecameOfEstimates) {
  EXPECT_THAT(ExplainHtml(plan_), Not(HasSubstr("<small>was ")));
  plan_.operators[0].actual = OperatorActual{10, 4, 50.0, 10.0, 20.0, 3.0};
  plan_.operators[1].actual = OperatorActual{10, 6, 51.0, 11.0, 21.0, 1.0};
  const std::string html = ExplainHtml(plan_);
  EXPECT_THAT(html, HasSubstr("<small>4 to 10</small><small>was 4</small></td>"
                              "<td>100<small>was 50</small></td><td>40<small>was 10</small></td>"
                              "<td>20<small>was 20</small></td>"));
  EXPECT_THAT(html, HasSubstr("<td>3.0 s</td><td>2.00</td>"));
}

TEST_F(ExplainTest, NamesThatAreMarkupStayText) {
  const std::string html = ExplainHtml(plan_);
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;"));
  EXPECT_THAT(html, Not(HasSubstr("\"<b>")));
  EXPECT_THAT(html, HasSubstr("answers are &lt;long&gt;"));
  EXPECT_THAT(html, Not(HasSubstr("http://")));
  EXPECT_THAT(ExplainMermaid(plan_), Not(HasSubstr("<b>")));
}

TEST(PlanWordsTest, QuantitiesReadAsPeopleWriteThem) {
  EXPECT_EQ(SecondsWords(0.0), "0 s");
  EXPECT_EQ(SecondsWords(0.0123), "12 ms");
  EXPECT_EQ(SecondsWords(0.9996), "1.0 s");
  EXPECT_EQ(SecondsWords(99.96), "2 min");
  EXPECT_EQ(SecondsWords(7200.0), "2.0 h");
  EXPECT_EQ(RoundedWords(3.14159), "3.1");
  EXPECT_EQ(RoundedWords(9.96), "10");
  EXPECT_EQ(CountWords({2.0, 1.0, 3.0}), "2 (1 to 3)");
  EXPECT_EQ(HtmlText("<a b='c'>&\""), "&lt;a b=&#39;c&#39;&gt;&amp;&quot;");
}

}  // namespace
}  // namespace halo
