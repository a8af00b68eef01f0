#include "plan/plan_diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/bounded_json.h"
#include "base/error.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

/// What is decided of an operator, beside where it runs.
constexpr const char* kDecisions[] = {
    "kind",         "target",      "removed",   "same_as",       "constant",
    "waits_for",    "order",       "wanted_by", "prompt_layout", "prefix_group",
    "lone_prompts", "batch_limit", "kv"};

Json ReadPlan(const std::string& text, const std::string& name) {
  std::string fault;
  Json plan = ParseBoundedJson(text, fault);
  if (!fault.empty()) throw Error(ErrorCode::kUsage, name + ": is no plan: " + fault);
  const bool is_plan = plan.is_object() && plan.value("version", Json()) == 1 &&
                       plan.contains("operators") && plan["operators"].is_array();
  if (!is_plan) {
    throw Error(ErrorCode::kUsage,
                name + ": is no plan of this version; halo explain --format json writes one");
  }
  return plan;
}

/// The member, or null.
Json At(const Json& object, const char* key) {
  return object.is_object() && object.contains(key) ? object[key] : Json();
}

std::string TextOf(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

/// Of an object the members that differ, of everything else the whole.
void Compare(const std::string& what, const Json& before, const Json& after,
             std::vector<std::string>& lines) {
  if (before == after) return;
  if (before.is_object() && after.is_object()) {
    for (const auto& [key, value] : before.items())
      Compare(what + "." + key, value, At(after, key.c_str()), lines);
    for (const auto& [key, value] : after.items()) {
      if (!before.contains(key)) Compare(what + "." + key, Json(), value, lines);
    }
    return;
  }
  lines.push_back(fmt::format("{}: {} -> {}", what, TextOf(before), TextOf(after)));
}

/// By place in the plan: workers of an operator's shares, in their order.
std::map<int64_t, Json> WorkersOf(const Json& plan) {
  std::map<int64_t, Json> workers;
  for (const Json& placed : At(plan, "placements")) {
    const Json op = At(placed, "operator");
    if (!op.is_number_integer()) continue;
    Json& of_operator = workers.emplace(op.get<int64_t>(), Json::array()).first->second;
    of_operator.push_back(At(placed, "worker"));
  }
  return workers;
}

using Name = std::pair<std::string, std::string>;  // workflow, operator

struct PlacedLine {
  Json op;
  Json workers;
};

/// Operators in their order, by name.
std::vector<std::pair<Name, PlacedLine>> OperatorsOf(const Json& plan) {
  std::map<int64_t, Json> workers = WorkersOf(plan);
  std::vector<std::pair<Name, PlacedLine>> operators;
  for (const Json& op : plan["operators"]) {
    const auto place = static_cast<int64_t>(operators.size());
    operators.push_back({{TextOf(At(op, "workflow")), TextOf(At(op, "id"))}, {op, workers[place]}});
  }
  return operators;
}

void CompareOperators(const Json& before, const Json& after, std::vector<std::string>& lines) {
  const auto now = OperatorsOf(after);
  std::map<Name, PlacedLine> left;
  for (auto& [name, op] : OperatorsOf(before)) left.emplace(name, std::move(op));
  const std::string only = now.empty() ? "" : now.front().first.first;
  const bool is_one = std::all_of(now.begin(), now.end(),
                                  [&](const auto& each) { return each.first.first == only; });
  const auto called = [&](const Name& name) {
    return is_one && name.first == only ? name.second : name.first + "/" + name.second;
  };
  for (const auto& [name, op] : now) {
    const auto found = left.find(name);
    if (found == left.end()) {
      lines.push_back(called(name) + ": is new");
      continue;
    }
    for (const char* decision : kDecisions) {
      Compare(called(name) + ": " + decision, At(found->second.op, decision), At(op.op, decision),
              lines);
    }
    Compare(called(name) + ": workers", found->second.workers, op.workers, lines);
    left.erase(found);
  }
  for (const auto& [name, op] : left) lines.push_back(called(name) + ": is gone");
}

void CompareRules(const Json& before, const Json& after, std::vector<std::string>& lines) {
  std::map<std::string, Json> known;
  for (const Json& rule : At(before, "rules")) known.emplace(TextOf(At(rule, "name")), rule);
  for (const Json& rule : At(after, "rules")) {
    const std::string name = TextOf(At(rule, "name"));
    const Json earlier = known.contains(name) ? known.at(name) : Json();
    for (const char* part : {"on", "changes"})
      Compare("rule " + name + ": " + part, At(earlier, part), At(rule, part), lines);
  }
}

/// Seconds of an estimate or a number; "?": not known.
std::string Seconds(const Json& plan, const char* key) {
  Json seconds = At(plan, key);
  if (seconds.is_object()) seconds = At(seconds, "value");
  return seconds.is_number() ? fmt::format("{:.3g} s", seconds.get<double>()) : "?";
}

}  // namespace

std::string DiffPlans(const std::string& before, const std::string& before_name,
                      const std::string& after) {
  const Json old_plan = ReadPlan(before, before_name), new_plan = ReadPlan(after, "this plan");
  std::vector<std::string> lines;
  CompareOperators(old_plan, new_plan, lines);
  CompareRules(old_plan, new_plan, lines);
  for (const char* part : {"planner", "workers", "sources"})
    Compare(part, At(old_plan, part), At(new_plan, part), lines);
  std::string text = before_name + " -> this plan\n";
  for (const auto& [key, words] :
       {std::pair("elapsed_s", "elapsed"), std::pair("engine_busy_s", "engines busy"),
        std::pair("load_s", "loading models")}) {
    text += fmt::format("  {:<16}{:>10} -> {}\n", words, Seconds(old_plan, key),
                        Seconds(new_plan, key));
  }
  text += lines.empty() ? "\nBoth decide the same.\n" : "\n";
  for (const std::string& line : lines) text += "  " + line + "\n";
  return text;
}

}  // namespace halo
