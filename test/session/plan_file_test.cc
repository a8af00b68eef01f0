#include "session/plan_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "plan/physical_plan.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;

constexpr const char* kWorkflow = R"(graph:
  name: f
  defaults: {model: m, temperature: 0}
  nodes:
    - {id: in, type: input, outputs: [text]}
    - {id: side, prompt: "Side {{ text }}", outputs: [aside]}
    - {id: first, prompt: "A {{ text }}", outputs: [a]}
    - {id: second, inputs: [a], prompt: "B {{ a }}", outputs: [b]}
    - {id: free, prompt: "C {{ b }}", inputs: [b], outputs: [c], prompt_layout: auto}
    - {id: gate, prompt: "D {{ text }}", outputs: [open]}
    - {id: costly, prompt: "E {{ text }}", outputs: [d]}
    - {id: guarded, inputs: [d, open], when: "open == 'yes'", prompt: "F {{ d }}", outputs: [e]}
  edges: [{from: side, to: second}]
)";

class PlanFileTest : public testing::Test {
 protected:
  PlanFileTest()
      : workflow_(ParseWorkflow(kWorkflow, "f.yaml")), plan_(MakeLogicalPlan(workflow_)) {
    PhysicalPlan physical;
    physical.sources.push_back({workflow_.name, &plan_, 1});
    for (const LogicalNode& node : plan_.nodes) {
      PlannedOperator planned;
      planned.op = node.op;
      physical.operators.push_back(planned);
    }
    saved_ = Json::parse(ExplainJson(physical));
  }

  Json& Saved(const std::string& id) {
    for (Json& one : saved_["operators"]) {
      if (one["id"] == id) return one;
    }
    throw std::runtime_error("no operator " + id);
  }
  LogicalNode& Node(const std::string& id) {
    return plan_.nodes[static_cast<size_t>(*workflow_.Find(id))];
  }
  void Apply(bool layouts_only = false) {
    ApplyPlanFile(saved_.dump(), "p.json", {&plan_}, layouts_only);
  }
  void ExpectRefused(const std::string& why) {
    try {
      Apply();
      FAIL() << "taken, though " << why;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      EXPECT_THAT(error.what(), HasSubstr(why));
      EXPECT_THAT(error.what(), HasSubstr("p.json"));
    }
  }

  Workflow workflow_;
  LogicalPlan plan_;
  Json saved_;
};

TEST_F(PlanFileTest, WhatIsSavedIsCarriedOut) {
  Saved("side")["removed"] = true;
  Saved("second")["waits_for"] = {"first"};
  Saved("free")["prompt_layout"] = "context_first";
  Saved("costly")["wanted_by"] = {"guarded"};
  Saved("costly")["waits_for"] = {"gate"};
  Saved("first")["lone_prompts"] = true;
  std::swap(Saved("side")["order"], Saved("first")["order"]);
  Apply();
  VerifyLogicalPlan(plan_);
  EXPECT_TRUE(Node("side").removed);
  EXPECT_EQ(Node("second").waits_for, std::vector<OperatorIndex>{*workflow_.Find("first")});
  EXPECT_EQ(Node("free").layout, PromptLayout::kContextFirst);
  EXPECT_LT(Node("first").order, Node("side").order);
  EXPECT_EQ(Node("costly").wanted_by, std::vector<OperatorIndex>{*workflow_.Find("guarded")});
  EXPECT_EQ(Node("costly").waits_for, std::vector<OperatorIndex>{*workflow_.Find("gate")});
  EXPECT_TRUE(Node("first").lone_prompts);
}

TEST_F(PlanFileTest, NestingHasABound) {
  constexpr size_t kDeep = 1'000'000;
  const std::string deep =
      R"({"version":1,"operators":[{"workflow":"f","id":"first","waits_for":)" +
      std::string(kDeep, '[') + std::string(kDeep, ']') + "}]}";
  try {
    ApplyPlanFile(deep, "p.json", {&plan_}, false);
    FAIL() << "taken";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("p.json: is no plan: nested more than 64 levels deep"));
  }
}

TEST_F(PlanFileTest, TheReferenceTakesLayoutsOnly) {
  Saved("side")["removed"] = true;
  Saved("free")["prompt_layout"] = "context_first";
  Apply(true);
  VerifyLogicalPlan(plan_);
  EXPECT_FALSE(Node("side").removed);
  EXPECT_EQ(Node("free").layout, PromptLayout::kContextFirst);
}

TEST_F(PlanFileTest, PlacementsAreThoseOfTheFile) {
  PhysicalPlan plan;
  plan.sources.push_back({workflow_.name, &plan_, 1});
  plan.workers = {{"worker 0", 1}, {"worker 1", 1}};
  for (const LogicalNode& node : plan_.nodes) {
    PlannedOperator planned;
    planned.op = node.op;
    plan.operators.push_back(planned);
    plan.placements.push_back({plan.operators.size() - 1, 0, 0, 1, 0.0, 1.0, 0.0});
  }
  plan.placements.front().shares = 2;
  plan.placements.push_back({0, 1, 1, 2, 0.5, 1.5, 0.25});
  const auto refused = [](const std::string& text, PhysicalPlan to) {
    try {
      ApplyPlacements(text, "p.json", to);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      return std::string(error.what());
    }
    return std::string();
  };

  const Json saved = Json::parse(ExplainJson(plan));
  PhysicalPlan taken = plan;
  taken.placements.clear();
  ApplyPlacements(saved.dump(), "p.json", taken);
  ASSERT_EQ(taken.placements.size(), plan.placements.size());
  EXPECT_EQ(taken.placements.back().worker, 1);
  EXPECT_EQ(taken.placements.back().share, 1);
  EXPECT_EQ(taken.placements.back().load_s, 0.25);

  PhysicalPlan alone = plan;
  alone.workers.pop_back();
  EXPECT_THAT(refused(saved.dump(), alone), HasSubstr("say --workers 2"));
  Json without = saved;
  without["placements"].erase(0);
  EXPECT_THAT(refused(without.dump(), plan), HasSubstr("not placed once for each share"));
  const std::pair<const char*, int> wrong[] = {
      {"worker", 2}, {"worker", -1}, {"share", 2}, {"shares", 0}, {"operator", 99}};
  for (const auto& [key, value] : wrong) {
    Json changed = saved;
    changed["placements"].back()[key] = value;
    EXPECT_THAT(refused(changed.dump(), plan), HasSubstr("p.json: a placement's ")) << key;
  }
  Json no_time = saved;
  no_time["placements"][0]["start_s"] = "soon";
  EXPECT_THAT(refused(no_time.dump(), plan), HasSubstr("start_s"));
  const auto at_times = [&](double start_s, double end_s, double load_s) {
    Json changed = saved;
    changed["placements"][0]["start_s"] = start_s;
    changed["placements"][0]["end_s"] = end_s;
    changed["placements"][0]["load_s"] = load_s;
    return refused(changed.dump(), plan);
  };
  EXPECT_THAT(at_times(-1.0, 1.0, 0.0), HasSubstr("start_s is no time"));
  EXPECT_THAT(at_times(0.0, 1e300, 0.0), HasSubstr("end_s is no time"));
  EXPECT_THAT(at_times(0.0, 1.0, -1.0), HasSubstr("load_s is no time"));
  EXPECT_THAT(at_times(2.0, 1.0, 0.0), HasSubstr("ends before it begins"));
  Json whole_and_half = saved;
  for (Json& one : whole_and_half["placements"]) {
    if (one["operator"] == 0 && one["share"] == 0) one["shares"] = 1;
  }
  EXPECT_THAT(refused(whole_and_half.dump(), plan), HasSubstr("once for each share"));
  Json none = saved;
  none.erase("placements");
  EXPECT_THAT(refused(none.dump(), plan), HasSubstr("no placements"));
}

TEST_F(PlanFileTest, PlansThatWouldChangeRowsOrAreOfOthersAreRefused) {
  const Json good = saved_;
  const auto refused = [&](const std::function<void()>& change, const std::string& why) {
    saved_ = good;
    change();
    ExpectRefused(why);
  };
  refused([&] { Saved("first")["removed"] = true; }, "'first' is left out, but an output needs it");
  refused([&] { Saved("second")["waits_for"] = Json::array(); },
          "does not wait for all that it reads");
  refused([&] { Saved("first")["waits_for"] = {"side"}; }, "does not put before it");
  refused([&] { Saved("costly")["wanted_by"] = {"guarded"}; }, "what its wanted_by ask");
  refused([&] { Saved("first")["wanted_by"] = {"guarded"}; }, "wanted by others");
  refused([&] { Saved("first")["wanted_by"] = {"nobody"}; }, "which there is not");
  refused([&] { Saved("first")["wanted_by"] = "guarded"; }, "no list");
  refused([&] { Saved("first")["lone_prompts"] = 1; }, "true and false are known");
  refused(
      [&] {
        Saved("second")["waits_for"] = {"first", "side", "first"};
      },
      "'second' waits for an operator twice");
  refused([&] { Saved("first")["prompt_layout"] = "context_first"; },
          "the workflow says instruction_first");
  refused([&] { Saved("first")["prompt_layout"] = "sideways"; }, "which there is not");
  refused(
      [&] {
        Saved("first")["order"] = 0;
        Saved("second")["order"] = 0;
      },
      "two operators have the order 0");
  refused([&] { Saved("first")["order"] = -1; }, "which no operator can have");
  refused([&] { Saved("first")["order"] = "1"; }, "lacks removed, order or waits_for");
  refused([&] { Saved("side")["removed"] = true; }, "waits for 'side', which is left out");
  refused([&] { Saved("first")["id"] = "other"; }, "has no operator 'first'");
  refused([&] { saved_["operators"].push_back(Saved("first")); }, "twice");
  refused(
      [&] {
        saved_["operators"].push_back({{"workflow", "g"}, {"id", "x"}});
      },
      "plan of others");
  refused([&] { saved_["version"] = 2; }, "is no plan of this version");
  refused([&] { saved_ = Json::array(); }, "is no plan of this version");
}

}  // namespace
}  // namespace halo
