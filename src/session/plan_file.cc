#include "session/plan_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/bounded_json.h"
#include "base/error.h"
#include "plan/operator_reads.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

/// Reads one file; every fault names it.
class PlanReader {
 public:
  PlanReader(const std::string& path, bool layouts_only)
      : path_(path), layouts_only_(layouts_only) {}

  void Apply(const std::string& text, const std::vector<LogicalPlan*>& plans) {
    std::string fault;
    const Json said = ParseBoundedJson(text, fault);
    if (!fault.empty()) Refuse("is no plan: " + fault);
    const bool is_plan = said.is_object() && said.contains("operators") &&
                         said["operators"].is_array() && said.contains("version") &&
                         said["version"] == 1;
    if (!is_plan) Refuse("is no plan of this version; halo explain --format json writes one");
    for (const Json& one : said["operators"]) AddOperator(one);
    size_t taken = 0;
    for (LogicalPlan* plan : plans) taken += ApplyTo(*plan);
    if (taken != operators_.size()) {
      Refuse(fmt::format("has {} operators, the workflows have {}: it is the plan of others",
                         operators_.size(), taken));
    }
  }

 private:
  [[noreturn]] void Refuse(const std::string& what) const {
    throw Error(ErrorCode::kUsage, "--plan " + path_ + ": " + what);
  }

  std::string TextOf(const Json& one, const char* key) const {
    const auto found = one.is_object() ? one.find(key) : one.end();
    if (!one.is_object() || found == one.end() || !found->is_string())
      Refuse(fmt::format("an operator has no text '{}'", key));
    return found->get<std::string>();
  }

  void AddOperator(const Json& one) {
    const std::string workflow = TextOf(one, "workflow"), id = TextOf(one, "id");
    if (!operators_.emplace(std::pair(workflow, id), one).second)
      Refuse(fmt::format("has the operator '{}' of {} twice", id, workflow));
  }

  size_t ApplyTo(LogicalPlan& plan) {
    for (LogicalNode& node : plan.nodes) {
      const std::string& id = plan.operator_of(node.op).id;
      const auto found = operators_.find({plan.workflow->name, id});
      if (found == operators_.end())
        Refuse(fmt::format("has no operator '{}' of {}", id, plan.workflow->name));
      ApplyLayout(plan, node, found->second);
      if (!layouts_only_) ApplyRest(plan, node, found->second);
    }
    if (!layouts_only_) CheckTogether(plan);
    LinkKvSources(plan);
    return plan.nodes.size();
  }

  void ApplyLayout(const LogicalPlan& plan, LogicalNode& node, const Json& said) const {
    const Operator& op = plan.operator_of(node.op);
    if (!op.is_inference()) return;
    const std::string name = TextOf(said, "prompt_layout");
    const PromptLayout layouts[] = {PromptLayout::kInstructionFirst, PromptLayout::kContextFirst};
    const auto layout = std::find_if(std::begin(layouts), std::end(layouts), [&](PromptLayout one) {
      return name == PromptLayoutName(one);
    });
    if (layout == std::end(layouts))
      Refuse(fmt::format("'{}' has the layout '{}', which there is not", op.id, name));
    if (op.prompt_layout != PromptLayout::kAuto && op.prompt_layout != *layout) {
      Refuse(fmt::format("'{}' has the layout {}, the workflow says {}", op.id, name,
                         PromptLayoutName(op.prompt_layout)));
    }
    node.layout = *layout;
  }

  void ApplyRest(const LogicalPlan& plan, LogicalNode& node, const Json& said) const {
    const std::string& id = plan.operator_of(node.op).id;
    if (!said.contains("removed") || !said["removed"].is_boolean() || !said.contains("order") ||
        !said["order"].is_number_integer() || !said.contains("waits_for") ||
        !said["waits_for"].is_array())
      Refuse(fmt::format("'{}' lacks removed, order or waits_for", id));
    node.removed = said["removed"].get<bool>();
    if (node.removed && node.needed)
      Refuse(fmt::format("'{}' is left out, but an output needs it", id));
    const auto order = said["order"].get<int64_t>();
    if (order < 0 || order >= static_cast<int64_t>(plan.nodes.size()))
      Refuse(fmt::format("'{}' has the order {}, which no operator can have", id, order));
    node.order = static_cast<int32_t>(order);
    const auto lone = said.find("lone_prompts");
    if (lone != said.end() && !lone->is_boolean())
      Refuse(fmt::format("'{}' has lone_prompts {}; true and false are known", id, lone->dump()));
    node.lone_prompts = lone != said.end() && lone->get<bool>();
    ApplyGuards(plan, node, said);
    const std::vector<OperatorIndex> own = ConditionInputs(plan.operator_of(node.op));
    std::set<OperatorIndex> asked(own.begin(), own.end());
    for (const OperatorIndex guard : node.wanted_by) {
      const std::vector<OperatorIndex> inputs = ConditionInputs(plan.operator_of(guard));
      asked.insert(inputs.begin(), inputs.end());
    }
    std::vector<OperatorIndex> waits_for;
    for (const Json& input : said["waits_for"]) {
      const std::optional<OperatorIndex> other =
          input.is_string() ? plan.workflow->Find(input.get<std::string>()) : std::nullopt;
      const std::vector<OperatorIndex>& declared = plan.operator_of(node.op).inputs;
      const bool may_wait =
          other && (asked.contains(*other) ||
                    std::find(declared.begin(), declared.end(), *other) != declared.end());
      if (!may_wait) {
        Refuse(fmt::format("'{}' waits for {}, which the workflow does not put before it", id,
                           input.dump()));
      }
      waits_for.push_back(*other);
    }
    std::sort(waits_for.begin(), waits_for.end());
    if (std::adjacent_find(waits_for.begin(), waits_for.end()) != waits_for.end())
      Refuse(fmt::format("'{}' waits for an operator twice", id));
    if (!std::includes(waits_for.begin(), waits_for.end(), node.inputs.begin(), node.inputs.end()))
      Refuse(fmt::format("'{}' does not wait for all that it reads", id));
    if (!std::includes(waits_for.begin(), waits_for.end(), asked.begin(), asked.end()))
      Refuse(fmt::format("'{}' does not wait for what its wanted_by ask", id));
    node.waits_for = std::move(waits_for);
  }

  void ApplyGuards(const LogicalPlan& plan, LogicalNode& node, const Json& said) const {
    const std::string& id = plan.operator_of(node.op).id;
    node.wanted_by.clear();
    const auto wanted_by = said.find("wanted_by");
    if (wanted_by == said.end()) return;
    if (!wanted_by->is_array()) Refuse(fmt::format("'{}' has a wanted_by that is no list", id));
    for (const Json& guard : *wanted_by) {
      const std::optional<OperatorIndex> other =
          guard.is_string() ? plan.workflow->Find(guard.get<std::string>()) : std::nullopt;
      if (!other) Refuse(fmt::format("'{}' is wanted by {}, which there is not", id, guard.dump()));
      node.wanted_by.push_back(*other);
    }
    std::sort(node.wanted_by.begin(), node.wanted_by.end());
    if (!node.wanted_by.empty() && node.wanted_by != GuardsOf(plan)[static_cast<size_t>(node.op)])
      Refuse(fmt::format("'{}' is wanted by others than its wanted_by says", id));
    for (const OperatorIndex guard : node.wanted_by) {
      for (const OperatorIndex input : ConditionInputs(plan.operator_of(guard))) {
        if (input >= node.op)
          Refuse(fmt::format("'{}' cannot wait for '{}', which comes later", id,
                             plan.operator_of(input).id));
      }
    }
  }

  void CheckTogether(const LogicalPlan& plan) const {
    std::vector<bool> taken(plan.nodes.size(), false);
    for (const LogicalNode& node : plan.nodes) {
      if (taken[static_cast<size_t>(node.order)])
        Refuse(fmt::format("two operators have the order {}", node.order));
      taken[static_cast<size_t>(node.order)] = true;
      for (const OperatorIndex input : node.waits_for) {
        if (plan.at(input).removed && !node.removed) {
          Refuse(fmt::format("'{}' waits for '{}', which is left out", plan.operator_of(node.op).id,
                             plan.operator_of(input).id));
        }
      }
    }
  }

  const std::string& path_;
  bool layouts_only_;
  std::map<std::pair<std::string, std::string>, Json> operators_;  // by (workflow, id)
};

}  // namespace

void ApplyPlanFile(const std::string& text, const std::string& path,
                   const std::vector<LogicalPlan*>& plans, bool layouts_only) {
  PlanReader(path, layouts_only).Apply(text, plans);
}

namespace {

[[noreturn]] void RefusePlan(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::kUsage, "--plan " + path + ": " + what);
}

/// A plan that says where calls run.
Json ParsePlacements(const std::string& text, const std::string& path) {
  std::string fault;
  Json said = ParseBoundedJson(text, fault);
  const bool has_both = said.is_object() && said.contains("workers") &&
                        said["workers"].is_array() && said.contains("placements") &&
                        said["placements"].is_array();
  if (!fault.empty() || !has_both) RefusePlan(path, "has no workers or no placements");
  return said;
}

/// Reads where a saved plan has calls run.
class PlacementReader {
 public:
  PlacementReader(const std::string& path, PhysicalPlan& plan) : path_(path), plan_(plan) {}

  void Apply(const std::string& text) {
    const Json said = ParsePlacements(text, path_);
    if (said["workers"].size() != plan_.workers.size()) {
      Refuse(fmt::format("is for {0} workers, this is for {1}: say --workers {0}",
                         said["workers"].size(), plan_.workers.size()));
    }
    for (const Json& one : said["operators"]) AddPosition(one);
    plan_.placements.clear();
    for (const Json& one : said["placements"]) Add(one);
    CheckShares();
  }

 private:
  [[noreturn]] void Refuse(const std::string& what) const { RefusePlan(path_, what); }

  /// The file's operators may stand in another order than the plan's.
  void AddPosition(const Json& one) {
    for (size_t i = 0; i < plan_.operators.size(); ++i) {
      const PlannedOperator& planned = plan_.operators[i];
      const LogicalPlan& logical = *plan_.sources[planned.source].plan;
      if (one["workflow"] == logical.workflow->name &&
          one["id"] == logical.operator_of(planned.op).id)
        return positions_.push_back(i);
    }
    Refuse("is the plan of others");
  }

  /// A whole number of an object, in [least, most].
  int64_t Number(const Json& one, const char* key, int64_t least, int64_t most) const {
    const auto found = one.is_object() ? one.find(key) : one.end();
    const bool is_number = one.is_object() && found != one.end() && found->is_number_integer();
    const int64_t value = is_number ? found->get<int64_t>() : least - 1;
    if (value < least || value > most)
      Refuse(fmt::format("a placement's {} is no number from {} to {}", key, least, most));
    return value;
  }
  double Seconds(const Json& one, const char* key) const {
    const auto found = one.find(key);
    if (found == one.end() || !found->is_number())
      Refuse(fmt::format("a placement has no {}", key));
    constexpr double kMost_s = 1e9;
    const double seconds = found->get<double>();
    if (!(seconds >= 0.0 && seconds <= kMost_s))
      Refuse(fmt::format("a placement's {} is no time: {} s", key, seconds));
    return seconds;
  }

  void Add(const Json& one) {
    const auto workers = static_cast<int64_t>(plan_.workers.size());
    PlacedOperator placed;
    const auto last = static_cast<int64_t>(positions_.size()) - 1;
    placed.op = positions_[static_cast<size_t>(Number(one, "operator", 0, last))];
    placed.worker = static_cast<int32_t>(Number(one, "worker", 0, workers - 1));
    placed.shares = static_cast<int32_t>(Number(one, "shares", 1, workers));
    placed.share = static_cast<int32_t>(Number(one, "share", 0, placed.shares - 1));
    placed.start_s = Seconds(one, "start_s");
    placed.end_s = Seconds(one, "end_s");
    placed.load_s = Seconds(one, "load_s");
    if (placed.end_s < placed.start_s) Refuse("a placement ends before it begins");
    plan_.placements.push_back(placed);
  }

  void CheckShares() const {
    for (size_t i = 0; i < plan_.operators.size(); ++i) {
      const PlannedOperator& planned = plan_.operators[i];
      const LogicalPlan& logical = *plan_.sources[planned.source].plan;
      const LogicalNode& node = logical.at(planned.op);
      std::set<int32_t> shares;
      size_t count = 0;
      int32_t of = 1;
      bool alike = true;  // all are parts of as many
      for (const PlacedOperator& placed : plan_.placements) {
        if (placed.op != i) continue;
        alike = alike && (count == 0 || placed.shares == of);
        ++count;
        of = placed.shares;
        shares.insert(placed.share);
      }
      const bool runs = planned.same_as < 0 && node.model != kNoModel && !node.removed;
      const size_t wanted = runs ? static_cast<size_t>(of) : 0;
      if (!alike || count != wanted || shares.size() != wanted) {
        Refuse(fmt::format("'{}' is not placed once for each share of its rows",
                           logical.operator_of(planned.op).id));
      }
    }
  }

  const std::string& path_;
  PhysicalPlan& plan_;
  std::vector<size_t> positions_;  // [operators of the file] in the plan
};

}  // namespace

int32_t WorkersOfPlanFile(const std::string& text, const std::string& path) {
  constexpr size_t kMostWorkers = 1024;
  const size_t workers = ParsePlacements(text, path)["workers"].size();
  if (workers < 1 || workers > kMostWorkers)
    RefusePlan(path, fmt::format("is for {} workers, expected 1 to {}", workers, kMostWorkers));
  return static_cast<int32_t>(workers);
}

void ApplyPlacements(const std::string& text, const std::string& path, PhysicalPlan& plan) {
  PlacementReader(path, plan).Apply(text);
}

std::set<std::string> RulesOfPlanFiles() {
  return {"unused_operators", "tight_dependencies", "prompt_layout", "urgent_first"};
}

}  // namespace halo
