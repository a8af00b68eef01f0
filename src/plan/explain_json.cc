// EXPLAIN for programs.
#include <nlohmann/json.hpp>

#include "plan/physical_plan.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

Json EstimateJson(const Estimate& estimate) {
  return {{"value", estimate.value}, {"low", estimate.low}, {"high", estimate.high}};
}

Json Known(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

/// Where its prompts' KV comes from and for how many operators it is kept afterwards. Kept KV goes
/// to host memory where others need the room; what nobody is known to need goes first.
Json KvJson(const LogicalPlan& plan, const LogicalNode& node) {
  const bool begins = node.kv_source >= 0;
  return {{"from", begins ? Json(plan.operator_of(node.kv_source).id) : Json()},
          {"from_answer", begins && node.kv_source_answer},
          {"shared", node.kv_shared.empty() ? Json() : Json(node.kv_shared)},
          {"kept_for", node.kv_consumers},
          {"kept_answer", node.keep_answer},
          {"beyond", node.lone_prompts ? "as far as others begin alike" : "all of it"}};
}

/// Which models lie on a worker when: a load takes the place of what does not fit beside it.
Json ResidencyJson(const PhysicalPlan& plan) {
  Json loads = Json::array();
  for (const PlacedOperator& placed : plan.placements) {
    if (placed.load_s <= 0.0) continue;
    const PlannedOperator& planned = plan.operators[placed.op];
    loads.push_back({{"worker", placed.worker},
                     {"model", TargetOf(*plan.sources[planned.source].plan, planned.op)},
                     {"from_s", placed.start_s - placed.load_s},
                     {"ready_s", placed.start_s}});
  }
  return loads;
}

Json GroupJson(const PrefixGroup& group) {
  return {{"operators", group.operators},
          {"parent", group.parent < 0 ? Json() : Json(group.parent)},
          {"prefix", group.prefix},
          {"values", group.values},
          {"tokens", group.tokens},
          {"constant_tokens", group.constant_tokens},
          {"prefixes", group.prefixes},
          {"calls", group.calls},
          {"saved_tokens", group.saved_tokens},
          {"saved_s", group.saved_s}};
}

Json OperatorJson(const PhysicalPlan& plan, const PlannedOperator& planned) {
  const PlannedSource& source = plan.sources[planned.source];
  const LogicalNode& node = source.plan->at(planned.op);
  const Operator& op = source.plan->operator_of(planned.op);
  Json waits_for = Json::array();
  for (const OperatorIndex input : node.waits_for)
    waits_for.push_back(source.plan->operator_of(input).id);
  Json wanted_by = Json::array();
  for (const OperatorIndex guard : node.wanted_by)
    wanted_by.push_back(source.plan->operator_of(guard).id);
  Json said = {{"workflow", source.workflow},
               {"id", op.id},
               {"kind", OperatorKindName(op.kind)},
               {"target", TargetOf(*source.plan, planned.op)},
               {"waits_for", std::move(waits_for)},
               {"wanted_by", std::move(wanted_by)},
               {"order", node.order},
               {"start_s", Known(planned.start_s)},
               {"lone_prompts", node.lone_prompts},
               {"removed", node.removed},
               {"same_as", planned.same_as < 0 ? Json() : Json(planned.same_as)},
               {"constant", planned.is_constant},
               {"prefix_group", planned.prefix_group < 0 ? Json() : Json(planned.prefix_group)}};
  if (op.is_inference()) {
    said["prompt_layout"] = PromptLayoutName(node.layout);
    said["batch_limit"] = planned.batch_limit;
    said["kv"] = KvJson(*source.plan, node);
  }
  const OperatorEstimate& e = planned.estimate;
  said["estimate"] = {{"instances", EstimateJson(e.instances)},
                      {"calls", EstimateJson(e.calls)},
                      {"prompt_tokens", EstimateJson(e.prompt_tokens)},
                      {"reused_tokens", EstimateJson(e.reused_tokens)},
                      {"source_tokens", e.source_tokens},
                      {"output_tokens", EstimateJson(e.output_tokens)},
                      {"busy_s", EstimateJson(e.busy_s)},
                      {"pace", e.pace},
                      {"assumptions", e.assumptions}};
  if (planned.actual) {
    const OperatorActual& a = *planned.actual;
    said["actual"] = {{"instances", a.instances},         {"calls", a.calls},
                      {"prompt_tokens", a.prompt_tokens}, {"reused_tokens", a.reused_tokens},
                      {"output_tokens", a.output_tokens}, {"busy_s", a.busy_s}};
  }
  return said;
}

}  // namespace

std::string ExplainJson(const PhysicalPlan& plan) {
  Json sources = Json::array(), operators = Json::array(), groups = Json::array(),
       rules = Json::array(), workers = Json::array(), placements = Json::array();
  for (const PlannedSource& source : plan.sources) {
    sources.push_back(
        {{"workflow", source.workflow}, {"rows", source.rows < 0 ? Json() : Json(source.rows)}});
  }
  for (const PlannedOperator& planned : plan.operators)
    operators.push_back(OperatorJson(plan, planned));
  for (const PrefixGroup& group : plan.prefix_groups) groups.push_back(GroupJson(group));
  for (const AppliedRule& rule : plan.rules) {
    rules.push_back({{"name", rule.name},
                     {"on", rule.is_on},
                     {"changes", rule.changes},
                     {"saved_s", rule.saved_s}});
  }
  for (const PlanWorker& worker : plan.workers)
    workers.push_back({{"name", worker.name}, {"memory_bytes", worker.memory_bytes}});
  for (const PlacedOperator& placed : plan.placements) {
    placements.push_back({{"operator", placed.op},
                          {"worker", placed.worker},
                          {"share", placed.share},
                          {"shares", placed.shares},
                          {"start_s", placed.start_s},
                          {"end_s", placed.end_s},
                          {"load_s", placed.load_s}});
  }
  const Json said = {{"version", 1},
                     {"sources", sources},
                     {"operators", operators},
                     {"prefix_groups", groups},
                     {"rules", rules},
                     {"planner", plan.planner},
                     {"workers", workers},
                     {"placements", placements},
                     {"loads", ResidencyJson(plan)},
                     {"costs_known", plan.has_costs},
                     {"engine_busy_s", EstimateJson(plan.engine_busy_s)},
                     {"elapsed_s", EstimateJson(plan.elapsed_s)},
                     {"actual_engine_busy_s", Known(plan.actual_engine_busy_s)},
                     {"actual_elapsed_s", Known(plan.actual_elapsed_s)},
                     {"load_s", plan.load_s},
                     {"lower_bound_s", plan.lower_bound_s},
                     {"notes", plan.notes}};
  return said.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace halo
