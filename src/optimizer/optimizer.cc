#include "optimizer/optimizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "optimizer/placement.h"
#include "optimizer/rule.h"
#include "optimizer/rules/rules.h"

namespace halo {
namespace {

std::vector<std::unique_ptr<Rule>> MakeRules() {
  std::vector<std::unique_ptr<Rule>> rules;
  // What is not run needs no better place, layout or order.
  rules.push_back(std::make_unique<UnusedOperators>());
  // Fewer dependencies leave more freedom to everything below.
  rules.push_back(std::make_unique<TightDependencies>());
  // Adds waiting, where that saves calls: after the rule that takes it away.
  rules.push_back(std::make_unique<GuardsFirst>());
  // Layouts are part of what operators ask: before equal ones are looked for.
  rules.push_back(std::make_unique<ChoosePromptLayout>());
  rules.push_back(std::make_unique<EqualOperators>());
  rules.push_back(std::make_unique<ConstantOperators>());
  // Of operators that still make calls of their own.
  rules.push_back(std::make_unique<PrefixGroups>());
  rules.push_back(std::make_unique<LonePrompts>());
  // Last: ranks are made of what all others have left to do.
  rules.push_back(std::make_unique<OrderByUrgency>());
  return rules;
}

double BusySeconds(const PhysicalPlan& plan) {
  double busy_s = 0.0;
  for (const PlannedOperator& planned : plan.operators) {
    const LogicalNode& node = plan.sources[planned.source].plan->at(planned.op);
    if (node.model != kNoModel) busy_s += planned.estimate.busy_s.value;
  }
  return busy_s;
}

void RefuseUnknownRules(const std::set<std::string>& names) {
  std::vector<std::string> known;
  for (const auto& rule : AllRules()) known.emplace_back(rule->name());
  for (const std::string& name : names) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    throw Error(ErrorCode::kUsage, "--rules-off: there is no rule '" + name + "'" +
                                       DidYouMean(name, known) +
                                       fmt::format("; rules are {}", fmt::join(known, ", ")));
  }
}

PhysicalPlan PlanOf(const std::vector<OptimizerSource>& sources) {
  PhysicalPlan plan;
  for (size_t s = 0; s < sources.size(); ++s) {
    const OptimizerSource& source = sources[s];
    plan.sources.push_back({source.plan->workflow->name, source.plan,
                            source.rows == nullptr ? -1 : source.rows->rows()});
    for (const LogicalNode& node : source.plan->nodes) {
      PlannedOperator planned;
      planned.source = s;
      planned.op = node.op;
      plan.operators.push_back(std::move(planned));
    }
  }
  return plan;
}

std::vector<PromptLayout> LayoutsOf(const std::vector<OptimizerSource>& sources) {
  std::vector<PromptLayout> layouts;
  for (const OptimizerSource& source : sources) {
    for (const LogicalNode& node : source.plan->nodes) layouts.push_back(node.layout);
  }
  return layouts;
}

void NoteWhatIsNotKnown(const std::vector<OptimizerSource>& sources, PhysicalPlan& plan) {
  constexpr double kMostError = 0.3;
  std::set<std::string> unmeasured, unresolved, disturbed;
  plan.has_costs = true;
  for (const OptimizerSource& source : sources) {
    if (source.rows == nullptr) {
      plan.notes.push_back(source.plan->workflow->name +
                           ": its rows are not known; estimates are for one row");
    }
    for (const ModelFacts& model : source.models) {
      if (model.digest.empty()) {
        unresolved.insert(model.name);
      } else if (!model.profile.measured) {
        unmeasured.insert(model.name);
      } else if (model.profile.relative_error > kMostError) {
        disturbed.insert(
            fmt::format("{} ({:.0f} %)", model.name, model.profile.relative_error * 100.0));
      }
    }
  }
  if (!unresolved.empty()) {
    plan.has_costs = false;
    plan.notes.push_back(
        fmt::format("no file is known for {}: tokens are a quarter of the bytes, "
                    "seconds are not estimated (--model NAME=FILE)",
                    fmt::join(unresolved, ", ")));
  }
  if (!disturbed.empty()) {
    plan.notes.push_back(
        fmt::format("{}: the profile was measured on a busy machine and is off by so much; halo "
                    "calibrate once it is quiet",
                    fmt::join(disturbed, ", ")));
  }
  if (!unmeasured.empty()) {
    plan.notes.push_back(
        fmt::format("{}: not in the cost profile, so seconds are careful defaults (halo "
                    "calibrate --model NAME=FILE measures)",
                    fmt::join(unmeasured, ", ")));
  }
}

}  // namespace

const std::vector<std::unique_ptr<Rule>>& AllRules() {
  static const std::vector<std::unique_ptr<Rule>> rules = MakeRules();
  return rules;
}

std::set<std::string> RulesOffForNaive() {
  std::set<std::string> off;
  for (const auto& rule : AllRules()) {
    if (dynamic_cast<const ChoosePromptLayout*>(rule.get()) == nullptr) off.insert(rule->name());
  }
  return off;
}

std::string OptimizerState::NameOf(const PlannedOperator& planned) const {
  const std::string& id = operator_of(planned).id;
  return sources.size() == 1 ? id : id + " of " + sources[planned.source].plan->workflow->name;
}

PhysicalPlan Optimize(std::vector<OptimizerSource>& sources, const OperatorHistory* history,
                      const OptimizerOptions& options) {
  RefuseUnknownRules(options.rules_off);
  PhysicalPlan plan = PlanOf(sources);
  // Making an estimator counts tokens in rows and templates. Of what rules change, only layouts are
  // part of what it looks up (in history, by identity); so one serves until a layout has changed.
  std::vector<PromptLayout> layouts = LayoutsOf(sources);
  auto estimator = std::make_unique<CardinalityEstimator>(sources, history);
  estimator->EstimateAll(plan);
  for (const auto& rule : AllRules()) {
    AppliedRule applied;
    applied.name = rule->name();
    applied.what = rule->what();
    applied.is_on = !options.rules_off.contains(applied.name);
    if (applied.is_on) {
      const double start_s = options.now_s ? options.now_s() : 0.0;
      const double before_s = BusySeconds(plan);
      OptimizerState state{sources, *estimator, plan};
      applied.changes = rule->Apply(state);
      if (!applied.changes.empty()) {
        for (const OptimizerSource& source : sources) VerifyLogicalPlan(*source.plan);
        if (const std::vector<PromptLayout> now = LayoutsOf(sources); now != layouts) {
          layouts = now;
          estimator = std::make_unique<CardinalityEstimator>(sources, history);
        }
        estimator->EstimateAll(plan);
      }
      applied.saved_s = before_s - BusySeconds(plan);
      applied.planning_s = (options.now_s ? options.now_s() : 0.0) - start_s;
    }
    plan.rules.push_back(std::move(applied));
  }
  NoteWhatIsNotKnown(sources, plan);
  PlaceOperators(sources, options, plan);
  return plan;
}

}  // namespace halo
