#include "bench/lower_bound.h"

#include <gtest/gtest.h>

#include "make_call.h"

namespace halo::bench {
namespace {

/// One model: 0.01 s a prefilled token, 0.1 s a decoded one at best, 1 s alone.
Rates SomeRates() {
  ModelRates model;
  model.rates = {{false, "split", 1, 0.02},
                 {false, "split", 4, 0.01},
                 {true, "split", 1, 1.0},
                 {true, "split", 8, 0.1},
                 {true, "unified", 8, 0.2}};
  model.sampling_s = 0.001;
  model.load_s = 5.0;
  model.file_bytes = 100;
  return {{"m", model}};
}

BoundSettings Memory(int64_t bytes) {
  BoundSettings settings;
  settings.memory_bytes = bytes;
  return settings;
}

ToolCall Http(const std::string& row, const std::string& op, double drawn_s,
              const std::string& request = "") {
  ToolCall call;
  call.row = row;
  call.op = op;
  call.kind = "http";
  call.target = "http://h";
  call.request = request.empty() ? row + op : request;
  call.may_share = !request.empty();
  call.drawn = true;
  call.latency_s = drawn_s;
  return call;
}

ToolCall Query(const std::string& row, const std::string& op, double cpu_s) {
  ToolCall call = Http(row, op, 0.0);
  call.kind = "sql";
  call.target = "db";
  call.drawn = false;
  call.latency_s = 10 * cpu_s;  // the machine did other things meanwhile
  call.cpu_s = cpu_s;
  return call;
}

TEST(LowerBound, MachineTimeIsUniqueTokensAndOutputsAtTheBestRates) {
  // Two prompts of 4 tokens that share 2: 6 unique tokens; 4 output tokens.
  const std::vector<Call> calls = {MakeCall({1, 2, 3, 4}, {9, 9}, "r1"),
                                   MakeCall({1, 2, 5, 6}, {9, 9}, "r2")};
  const LowerBound bound = ComputeLowerBound({calls, {}}, {{"a", {}}}, SomeRates(), {});
  EXPECT_DOUBLE_EQ(bound.machine_s, 6 * 0.01 + 4 * (0.1 + 0.001));
  EXPECT_DOUBLE_EQ(bound.machine_without_first_tokens_s, 6 * 0.01 + 2 * 0.1 + 4 * 0.001);
  // A row alone: its own 2 prompt tokens and 2 output tokens at the rates of one sequence.
  EXPECT_DOUBLE_EQ(bound.chain_s, 2 * 0.02 + 2 * 1.001);
  EXPECT_DOUBLE_EQ(bound.lower_bound_s, bound.chain_s);
}

TEST(LowerBound, TheChainFollowsInputs) {
  const std::vector<Call> calls = {MakeCall({1}, {9}, "r1", "a"),
                                   MakeCall({2}, {9, 9, 9}, "r1", "b"),
                                   MakeCall({3}, {9, 9}, "r1", "c"), MakeCall({4}, {9}, "r2", "a")};
  const LowerBound bound =
      ComputeLowerBound({calls, {}}, {{"a", {}}, {"b", {}}, {"c", {"a", "b"}}}, SomeRates(), {});
  EXPECT_DOUBLE_EQ(bound.chain_s, (0.02 + 3 * 1.001) + (0.02 + 2 * 1.001));
  EXPECT_EQ(bound.chain_row, "r1");
}

TEST(LowerBound, EqualGreedyCallsCountOnce) {
  std::vector<Call> calls = {MakeCall({1, 2}, {9, 9}, "r1"), MakeCall({1, 2}, {9, 9}, "r2")};
  EXPECT_EQ(DescribeWorkload(calls).at("m").output_tokens, 4);
  for (Call& call : calls) call.temperature = 0.0;
  const ModelWork work = DescribeWorkload(calls).at("m");
  EXPECT_EQ(work.calls, 1);
  EXPECT_EQ(work.equal_calls, 1);
  EXPECT_EQ(work.output_tokens, 2);
}

TEST(LowerBound, MeanContextWeighsByOutputTokens) {
  const Workload work = DescribeWorkload({MakeCall(std::vector<int32_t>(10, 1), {9}, "r1"),
                                          MakeCall(std::vector<int32_t>(20, 2), {9, 9, 9}, "r2")});
  EXPECT_DOUBLE_EQ(work.at("m").mean_prompt_tokens, 15.0);
  EXPECT_DOUBLE_EQ(work.at("m").mean_output_tokens, 2.0);
  EXPECT_DOUBLE_EQ(work.at("m").mean_decode_context, (10.0 + 20.0 + 21.0 + 22.0) / 4);
}

TEST(LowerBound, AModelThatDoesNotFitIsLoadedOnce) {
  const std::vector<Call> calls = {MakeCall({1}, {9}, "r1", "a", "m"),
                                   MakeCall({1}, {9}, "r1", "a", "n")};
  Rates rates = SomeRates();
  rates["n"] = rates["m"];
  rates["n"].file_bytes = 60;
  rates["n"].load_s = 3.0;
  const double all_fit = ComputeLowerBound({calls, {}}, {{"a", {}}}, rates, Memory(160)).machine_s;
  EXPECT_EQ(ComputeLowerBound({calls, {}}, {{"a", {}}}, rates, Memory(0)).machine_s, all_fit);
  const LowerBound bound = ComputeLowerBound({calls, {}}, {{"a", {}}}, rates, Memory(120));
  EXPECT_EQ(bound.model_loads, 1);
  EXPECT_DOUBLE_EQ(bound.machine_s, all_fit + 3.0);
}

TEST(LowerBound, RatesSurviveAFileAndMediansDropPointsThatAreNotEverywhere) {
  const Rates once = RatesFromJson(nlohmann::json::parse(ToJson(SomeRates()).dump()));
  EXPECT_EQ(once.at("m").rates.size(), 5U);
  EXPECT_EQ(once.at("m").Best(true).batch, 8);
  EXPECT_EQ(once.at("m").Best(true).layout, "split");
  Rates slower = SomeRates(), fewer = SomeRates();
  for (Rate& rate : slower["m"].rates) rate.token_s *= 3;
  fewer["m"].rates.pop_back();
  const Rates medians = MedianRates({SomeRates(), slower, fewer});
  EXPECT_EQ(medians.at("m").rates.size(), 4U);
  EXPECT_DOUBLE_EQ(medians.at("m").Best(false).token_s, 0.01);
}

TEST(LowerBound, OneHostIsOneToolWhoeverAsks) {
  const CallLog log = {{MakeCall({1}, {9}, "r1")},
                       {Http("r1", "x", 0.03), Http("r1", "y", 0.05), Http("r2", "x", 64.0)}};
  BoundSettings settings;
  settings.latency_scale = 1000;
  const LowerBound bound =
      ComputeLowerBound(log, {{"a", {}}, {"x", {}}, {"y", {}}}, SomeRates(), settings);
  EXPECT_DOUBLE_EQ(bound.tools_s, (30.0 + 50.0 + 64'000.0) / 32);
  EXPECT_EQ(bound.slowest_tool, "http http://h");
  settings.tool_concurrency = 2;
  settings.latency_scale = 1;
  EXPECT_DOUBLE_EQ(
      ComputeLowerBound(log, {{"a", {}}, {"x", {}}, {"y", {}}}, SomeRates(), settings).tools_s,
      64.08 / 2);
}

TEST(LowerBound, ToolsTakeProcessorTimeFromTheMachineAndAreInTheChain) {
  const CallLog log = {{MakeCall({1}, {9}, "r1", "a"), MakeCall({2}, {9}, "r1", "b")},
                       {Query("r1", "q", 4.0), Http("r1", "h", 3.0)}};
  const WorkflowGraph graph = {{"a", {}}, {"q", {"a"}}, {"h", {"a"}}, {"b", {"q", "h"}}};
  BoundSettings settings;
  settings.threads = 2;
  const LowerBound bound = ComputeLowerBound(log, graph, SomeRates(), settings);
  EXPECT_DOUBLE_EQ(bound.machine_s, 2 * 0.01 + 2 * 0.101 + 4.0 / 2);
  // Processor time, not what the clock on the wall said; the request runs beside it.
  EXPECT_DOUBLE_EQ(bound.chain_s, (0.02 + 1.001) + 4.0 + (0.02 + 1.001));
  EXPECT_DOUBLE_EQ(bound.lower_bound_s, bound.chain_s);
}

TEST(LowerBound, EqualToolCallsCountOnceWhereTheyAreShared) {
  std::vector<ToolCall> tools = {Http("r1", "x", 8.0, "same"), Http("r2", "x", 5.0, "same"),
                                 Http("r3", "x", 6.0, "other"), Http("r4", "x", 7.0)};
  tools.push_back(Http("r5", "x", 0.0, "same"));
  tools.back().merged = true;
  tools.push_back(Http("r6", "x", 1'000.0));
  tools.back().failed = true;
  const CallLog log = {{MakeCall({1}, {9, 9}, "r2", "a")}, tools};
  const WorkflowGraph graph = {{"a", {}}, {"x", {"a"}}};
  BoundSettings settings;
  EXPECT_DOUBLE_EQ(ComputeLowerBound(log, graph, SomeRates(), settings).tools_s, 26.0 / 32);
  EXPECT_DOUBLE_EQ(ComputeLowerBound(log, graph, SomeRates(), settings).chain_s, 8.0);
  settings.shares_tool_calls = true;
  const LowerBound shared = ComputeLowerBound(log, graph, SomeRates(), settings);
  EXPECT_DOUBLE_EQ(shared.tools_s, (5.0 + 6.0 + 7.0) / 32);
  // r1 asks at once and would have it after 8 s, r2 asks later and has it before: nobody waits
  // longer.
  const double r2_s = (0.02 + 2 * 1.001) + 5.0;
  EXPECT_DOUBLE_EQ(shared.chain_s, r2_s);
  const ToolTimes times = DescribeTools(tools, settings);
  EXPECT_EQ(times.at("http http://h").calls, 3);
  EXPECT_EQ(times.at("http http://h").equal_calls, 1);
}

TEST(LowerBound, WhatIsMissingIsAnError) {
  const std::vector<Call> calls = {MakeCall({1}, {9})};
  EXPECT_THROW(ComputeLowerBound({calls, {}}, {{"b", {}}}, SomeRates(), {}), std::runtime_error);
  EXPECT_THROW(ComputeLowerBound({calls, {}}, {{"a", {}}}, {}, {}), std::runtime_error);
}

}  // namespace
}  // namespace halo::bench
