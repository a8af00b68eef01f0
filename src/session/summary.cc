#include "session/summary.h"

#include "engine/wire.h"
#include "halo_build_info.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

double Seconds(int64_t us) { return static_cast<double>(us) * 1e-6; }

/// In units of the currency that prices are in.
double Cost(int64_t billionths) { return static_cast<double>(billionths) * 1e-9; }

/// `coalesced`: instances that took the result of an equal call.
Json ToolJson(const OperatorCounts& c) {
  return {
      {"id", c.id}, {"calls", c.calls}, {"coalesced", c.merged}, {"busy_s", Seconds(c.busy_us)}};
}

Json OperatorJson(const OperatorCounts& c) {
  return {{"id", c.id},
          {"kind", OperatorKindName(c.kind)},
          {"model", c.model},
          {"logical", c.logical},
          {"merged", c.merged},
          {"distinct", c.distinct},
          {"executed", c.executed},
          {"cached", c.cached},
          {"from_cache", c.from_cache},
          {"nulled", c.nulled},
          {"skipped", c.skipped},
          {"failed", c.failed},
          {"unfinished", c.unfinished},
          {"calls", c.calls},
          {"prompt_tokens", c.prompt_tokens},
          {"reused_tokens", c.reused_tokens},
          {"prefilled_tokens", c.prefilled_tokens},
          {"recomputed_tokens", c.recomputed_tokens},
          {"ahead_tokens", c.ahead_tokens},
          {"output_tokens", c.output_tokens},
          {"cost", Cost(c.cost)},
          {"busy_s", Seconds(c.busy_us)},
          {"engine_s", Seconds(c.engine_us)}};
}

Json ReplanningsJson(const std::vector<Replanning>& replannings) {
  Json json = Json::array();
  for (const Replanning& one : replannings) {
    json.push_back({{"at_s", one.at_s},
                    {"rest_as_planned_s", one.current_s},
                    {"rest_s", one.revised_s},
                    {"why", one.why}});
  }
  return json;
}

Json EngineJson(const SummaryInput::EngineOfWorker& engine) {
  const EngineStatistics& s = engine.counters;
  const double mean = s.decode_steps > 0 ? static_cast<double>(s.decode_tokens) /
                                               static_cast<double>(s.decode_steps)
                                         : 0.0;
  return {{"worker", engine.worker},
          {"model", engine.model},
          {"steps", s.steps},
          {"decode_batch_mean", mean},
          {"draft_tokens", s.draft_tokens},
          {"accepted_tokens", s.accepted_tokens},
          {"busy_s", Seconds(s.busy_us)},
          {"prefill_s", Seconds(s.prefill_us)},
          {"decode_s", Seconds(s.decode_us)},
          {"sampling_s", Seconds(s.sampling_us)},
          {"grammar_s", Seconds(s.grammar_us)},
          {"copy_s", Seconds(s.copy_us)},
          {"loads", s.loads},
          {"load_s", Seconds(s.load_us)},
          {"restarts", s.restarts}};
}

}  // namespace

Json SummaryJson(const SummaryInput& input) {
  const RunReport& report = *input.report;
  const int64_t finished = report.counts.rows_ok + report.counts.rows_failed;
  // Without a known total (standard input) the rows are those that were opened.
  const int64_t total = input.rows_total >= 0 ? input.rows_total : report.counts.rows_opened;
  Json operators = Json::array(), tools = Json::array();
  int64_t prompt = 0, reused = 0, prefilled = 0, recomputed = 0, output = 0, ahead = 0;
  for (const OperatorCounts& counts : report.operators) {
    operators.push_back(OperatorJson(counts));
    if (counts.kind != OperatorKind::kInference) tools.push_back(ToolJson(counts));
    if (input.workflows.size() > 1) operators.back()["workflow"] = input.workflows[counts.source];
    prompt += counts.prompt_tokens;
    reused += counts.reused_tokens;
    prefilled += counts.prefilled_tokens;
    recomputed += counts.recomputed_tokens;
    ahead += counts.ahead_tokens;
    output += counts.output_tokens;
  }
  EngineStatistics all;
  Json engines = Json::array();
  for (const SummaryInput::EngineOfWorker& engine : input.engines) {
    engines.push_back(EngineJson(engine));
    AddCounters(engine.counters, all);
  }
  return {{"rows",
           {{"total", total},
            {"ok", report.counts.rows_ok},
            {"failed", report.counts.rows_failed},
            {"unfinished", total - finished}}},
          {"operators", operators},
          {"tokens",
           {{"prompt", prompt},
            {"reused", reused},
            {"prefilled", prefilled},
            {"recomputed", recomputed},
            {"ahead", ahead},
            {"output", output}}},
          {"cache", {{"calls", report.counts.from_cache}, {"tokens", report.cached_tokens}}},
          {"cost", Cost(report.cost)},
          {"stopped", report.stop_cause == StopCause::kNone
                          ? Json()
                          : Json{{"by", StopCauseName(report.stop_cause)},
                                 {"reason", report.stop_reason},
                                 {"larger_budget", input.larger_budget}}},
          {"elapsed_s", input.elapsed_s},
          {"planning_s", input.setup_s},
          {"lower_bound_s", input.lower_bound_s ? Json(*input.lower_bound_s) : Json()},
          {"model_switches", input.fleet.model_switches},
          {"moved_calls", input.fleet.moved_calls},
          {"replannings", ReplanningsJson(input.replannings)},
          {"kv",
           {{"forks", all.forks},
            {"copies", all.copies},
            {"keeps", all.keeps},
            {"spills", all.spills},
            {"restores", all.restores},
            {"disk_writes", all.disk_writes},
            {"disk_reads", all.disk_reads},
            {"migrations", all.migrations},
            {"evictions", all.evictions}}},
          {"engine", engines},
          {"tools", tools},
          {"planner", input.planner},
          {"deterministic", input.deterministic},
          {"seed", input.seed},
          {"version", build_info::kVersion}};
}

}  // namespace halo
