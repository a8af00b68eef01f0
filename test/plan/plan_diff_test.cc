#include "plan/plan_diff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace halo {
namespace {

using testing::HasSubstr;
using testing::Not;
using Json = nlohmann::ordered_json;

Json Plan() {
  return Json::parse(
      R"({"version": 1, "planner": "dp", "elapsed_s": {"value": 9.5, "low": 1, "high": 20},
    "engine_busy_s": {"value": 12.0}, "load_s": 0.5, "workers": [{"name": "worker 0", "memory_bytes": 100}],
    "operators": [
      {"workflow": "w", "id": "a", "order": 0, "prompt_layout": "instruction_first", "waits_for": [],
       "kv": {"from": null, "kept_for": 1}, "estimate": {"calls": {"value": 8}}},
      {"workflow": "w", "id": "b", "order": 1, "prompt_layout": "instruction_first", "waits_for": ["a"],
       "kv": {"from": "a", "kept_for": 0}}],
    "rules": [{"name": "urgent_first", "on": true, "changes": []}],
    "placements": [{"operator": 0, "worker": 0}, {"operator": 1, "worker": 0}, {"operator": 1, "worker": 1}]})");
}

TEST(PlanDiff, EqualPlansDecideTheSame) {
  Json estimated = Plan();
  estimated["operators"][0]["estimate"]["calls"]["value"] = 9;
  const std::string text = DiffPlans(Plan().dump(), "old.json", estimated.dump());
  EXPECT_THAT(text, HasSubstr("old.json -> this plan\n"));
  EXPECT_THAT(text, HasSubstr("elapsed              9.5 s -> 9.5 s\n"));
  EXPECT_THAT(text, HasSubstr("Both decide the same."));
}

TEST(PlanDiff, NamesEachDecision) {
  Json now = Plan();
  now["elapsed_s"]["value"] = 4.25;
  now["operators"][0]["prompt_layout"] = "context_first";
  now["operators"][1]["kv"]["from"] = nullptr;
  now["operators"][1]["kv"]["shared"] = 3;
  now["placements"][0]["worker"] = 1;
  now["rules"][0]["on"] = false;
  now["planner"] = "beam";
  const std::string text = DiffPlans(Plan().dump(), "old.json", now.dump());
  for (const char* line :
       {"  elapsed              9.5 s -> 4.25 s\n",
        "  a: prompt_layout: instruction_first -> context_first\n", "  a: workers: [0] -> [1]\n",
        "  b: kv.from: a -> null\n", "  b: kv.shared: null -> 3\n",
        "  rule urgent_first: on: true -> false\n", "  planner: dp -> beam\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("b: prompt_layout")));
  EXPECT_THAT(text, Not(HasSubstr("Both decide")));
}

TEST(PlanDiff, OperatorsComeAndGo) {
  Json now = Plan();
  now["operators"][1]["id"] = "c";
  const std::string text = DiffPlans(Plan().dump(), "old.json", now.dump());
  EXPECT_THAT(text, HasSubstr("  c: is new\n"));
  EXPECT_THAT(text, HasSubstr("b: is gone\n"));
}

TEST(PlanDiff, WhatIsNoPlanIsRefusedByName) {
  for (const char* text :
       {"", "[]", "{", "{\"version\": 2, \"operators\": []}", "{\"version\": 1}"}) {
    try {
      DiffPlans(text, "old.json", Plan().dump());
      FAIL() << text;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("old.json: is no plan")) << text;
    }
  }
  // Nonsense within one is a difference.
  const char* odd = R"({"version": 1, "operators": [7, {}], "placements": 3, "rules": {"a": 1}})";
  EXPECT_THAT(DiffPlans(odd, "old.json", Plan().dump()), HasSubstr("a: is new"));
}

}  // namespace
}  // namespace halo
