// planner_gap: how far from the optimum the planners plan, and how long they take.
//
//   planner_gap [--instances N] [--limit SECONDS] [--budget SECONDS] [--json FILE] [--markdown
//   FILE] [--workflows FOLDER --rows FOLDER --profile FILE...]
//
// Gap: random problems (scheduling_instances.h, GapShape) against milp, which is told of list's
// schedule only, so that it finds what dp finds by itself or not at all. Those that it does not
// close within the limit are counted and listed beside, never among the gaps. Where the exhaustive
// search of the tests can try all, it must agree. With profiles, the same of the problems that the
// optimizer makes of W1 to W6 (workload_simulation.h). Growth: 10 to 1,000 operators on 4 workers,
// within the same budget, against a search of 20 seconds and the lower bound.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/baseline_planners.h"
#include "bench/scheduling_instances.h"
#include "bench/statistics.h"
#include "bench/workload_simulation.h"
#include "optimizer/planners/planners.h"
#include "test/optimizer/exhaustive_planner.h"

namespace halo::bench {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMostOrders = 200'000;

struct Flags {
  int32_t instances = 240;
  double limit_s = 120.0;
  double budget_s = 0.2;
  double large_budget_s = 0.8;
  double long_search_s = 20.0;
  bool growth = true;
  std::string json, markdown;
  std::string workflows = "workflows", rows = "workflows/rows";
  std::vector<std::string> profiles;
};

/// One problem, and what is counted of it.
struct Instance {
  SchedulingProblem problem;
  std::string name;
  uint64_t seed = 0;           ///< of baselines that draw
  std::string group, variant;  ///< row and column of a table, for those that have one
};

int32_t CallsOf(const SchedulingProblem& problem) {
  return static_cast<int32_t>(
      std::count_if(problem.tasks.begin(), problem.tasks.end(),
                    [](const SchedulingTask& task) { return task.model != kNoResident; }));
}

bool MayShare(const SchedulingProblem& problem) {
  return std::any_of(problem.tasks.begin(), problem.tasks.end(),
                     [](const SchedulingTask& task) { return task.work_s.size() > 1; });
}

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Schedule Checked(const SchedulingProblem& problem, Schedule schedule) {
  const std::string fault = FaultOf(problem, schedule);
  if (!fault.empty()) throw std::runtime_error(schedule.planner + ": " + fault);
  return schedule;
}

/// The least of those of which `share` of all are no greater.
double Percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  const double place = share * static_cast<double>(values.size());
  return values[std::min(values.size() - 1, static_cast<size_t>(std::max(0.0, place - 1e-9)))];
}

struct Figures {
  std::map<std::string, std::vector<double>> gaps, seconds;  // of each planner
  int32_t closed = 0, open = 0, confirmed = 0, shared_out = 0, on_several = 0, proved = 0;
  std::map<int32_t, std::pair<int32_t, int32_t>> by_calls;  // (closed, all)
  std::vector<double> several_gaps;                         ///< of dp, on two workers or more
  std::vector<double> open_over_bound;              ///< dp over milp's bound, where not closed
  int32_t open_dp_shorter = 0, open_dp_longer = 0;  ///< than the best that milp found
  Json open_ones = Json::array();
  Json each = Json::array();  ///< of instances with a group
};

void NoteEach(const Instance& instance, Json figures_of_it, Figures* figures) {
  if (instance.group.empty()) return;
  figures_of_it["group"] = instance.group;
  figures_of_it["variant"] = instance.variant;
  figures->each.push_back(std::move(figures_of_it));
}

/// The optimum by milp; nothing where it was not closed, which is noted.
std::optional<double> OptimumOf(const Flags& flags, const Instance& instance, double dp_s,
                                Figures* figures) {
  const double begin = Now();
  const Schedule exact = Checked(
      instance.problem, PlanByMilp(instance.problem, {.budget_s = flags.limit_s, .now_s = Now}));
  const double exact_s = Now() - begin;
  figures->seconds["milp"].push_back(exact_s);
  auto& [closed, all] = figures->by_calls[CallsOf(instance.problem)];
  ++all;
  fmt::print(stderr, "{}: milp {} in {:.1f} s, dp {:+.3f} %\n", instance.name,
             exact.proved_optimal ? "closed" : "OPEN", exact_s,
             100.0 * (dp_s / exact.makespan_s - 1.0));
  if (exact.proved_optimal) {
    ++closed;
    ++figures->closed;
    return exact.makespan_s;
  }
  ++figures->open;
  const double over_bound = std::max(0.0, dp_s / exact.lower_bound_s - 1.0);
  NoteEach(instance, {{"closed", false}, {"dp_over_bound", over_bound}}, figures);
  figures->open_over_bound.push_back(over_bound);
  if (dp_s < exact.makespan_s * (1.0 - 1e-6)) ++figures->open_dp_shorter;
  if (dp_s > exact.makespan_s * (1.0 + 1e-6)) ++figures->open_dp_longer;
  figures->open_ones.push_back({{"instance", instance.name},
                                {"milp_s", exact.makespan_s},
                                {"milp_bound_s", exact.lower_bound_s},
                                {"dp_s", dp_s}});
  return std::nullopt;
}

/// Whether the exhaustive search could try everything. Throws where it found another optimum.
bool IsConfirmed(const Instance& instance, double optimum_s) {
  const bool one_worker = instance.problem.workers.size() == 1;
  if (CallsOf(instance.problem) > (one_worker ? 8 : 5)) return false;  // too many orders to try
  const std::optional<double> shortest = ShortestMakespan(instance.problem, kMostOrders);
  if (!shortest) return false;
  if (std::abs(*shortest - optimum_s) > 2e-6 * *shortest) {
    throw std::runtime_error(fmt::format("{}: the exhaustive search says {} s, milp {} s",
                                         instance.name, *shortest, optimum_s));
  }
  return true;
}

void MeasureInstance(const Flags& flags, const Instance& instance, Figures* figures) {
  const SchedulingProblem& problem = instance.problem;
  std::map<std::string, Schedule> schedules;
  for (const char* name : {"list", "beam", "dp"}) {
    const double begin = Now();
    schedules[name] =
        Checked(problem, PlanByName(name, problem, {.budget_s = flags.budget_s, .now_s = Now}));
    figures->seconds[name].push_back(Now() - begin);
  }
  for (const std::string& name : BaselineNames()) {
    schedules[name] = Checked(problem, PlanByBaseline(name, problem, instance.seed));
  }
  const std::optional<double> optimum_s =
      OptimumOf(flags, instance, schedules["dp"].makespan_s, figures);
  if (!optimum_s) return;
  if (MayShare(problem)) ++figures->shared_out;
  if (schedules["dp"].proved_optimal) ++figures->proved;
  if (IsConfirmed(instance, *optimum_s)) ++figures->confirmed;
  for (const auto& [name, schedule] : schedules) {
    // Below the optimum by CBC's tolerance at most: PlanByMilp's proof holds to 1e-6.
    const double gap = schedule.makespan_s / *optimum_s - 1.0;
    if (gap < -2e-6)
      throw std::runtime_error(instance.name + ": " + name + " is shorter than the optimum");
    figures->gaps[name].push_back(std::max(0.0, gap));
  }
  const double dp_gap = figures->gaps["dp"].back();
  NoteEach(instance, {{"closed", true}, {"dp_gap", dp_gap}}, figures);
  if (problem.workers.size() > 1) {
    ++figures->on_several;
    figures->several_gaps.push_back(dp_gap);
  }
}

Json Summary(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double value : values) sum += value;
  return {{"mean", sum / static_cast<double>(values.size())},
          {"p95", Percentile(values, 0.95)},
          {"worst", *std::max_element(values.begin(), values.end())}};
}

Instance RandomOne(int32_t index) {
  const InstanceShape shape = GapShape(index);
  const auto seed = static_cast<uint64_t>(index);
  return {RandomInstance(shape, seed), fmt::format("{:4} {}", index, ToString(shape)), seed};
}

/// The same workers, but for the first one slower: a factor on everything that they do.
void MakeUnequal(SchedulingProblem* problem) {
  constexpr double kSlower[] = {1.0, 2.0, 1.25, 1.5};
  for (size_t w = 0; w < problem->workers.size(); ++w) {
    const double factor = kSlower[w % std::size(kSlower)];
    for (ResidentModel& model : problem->models) model.load_s[w] *= factor;
    for (SchedulingTask& task : problem->tasks) {
      for (std::vector<double>& line : task.work_s) line[w] *= factor;
      if (!task.kv_saved_s.empty()) task.kv_saved_s[w] *= factor;
    }
  }
}

/// Of each profile and workload nine: 1, 2 and 4 workers with loose and tight memory, and three
/// with workers that are not equal.
std::vector<Instance> WorkloadInstances(const Flags& flags) {
  struct Variant {
    int32_t workers;
    bool tight, unequal;
  };
  constexpr Variant kVariants[] = {{1, false, false}, {1, true, false}, {2, false, false},
                                   {2, true, false},  {2, true, true},  {4, false, false},
                                   {4, true, false},  {4, false, true}, {4, true, true}};
  std::vector<Instance> instances;
  for (const std::string& file : flags.profiles) {
    const WorkloadCosts costs = ReadWorkloadCosts(file);
    for (const char* workload : kWorkloads) {
      for (const Variant& variant : kVariants) {
        Instance instance;
        instance.problem = PlacementProblemOf(
            SimulationOf(flags.workflows, flags.rows, workload, costs, variant.workers,
                         variant.tight ? costs.tight_memory_bytes : costs.loose_memory_bytes));
        if (variant.unequal) MakeUnequal(&instance.problem);
        instance.group = fmt::format("{}, {}", workload, costs.label);
        instance.variant =
            fmt::format("{}{}, {}", variant.workers, variant.unequal ? " unequal" : "",
                        variant.tight ? "tight" : "loose");
        instance.name = instance.group + ", " + instance.variant;
        instance.seed = instances.size();
        instances.push_back(std::move(instance));
      }
    }
  }
  return instances;
}

Json GapReport(const Flags& flags, size_t count, const std::function<Instance(size_t)>& make) {
  Figures figures;
  for (size_t index = 0; index < count; ++index) MeasureInstance(flags, make(index), &figures);
  if (figures.closed == 0) throw std::runtime_error("milp closed no instance");
  Json report;
  report["instances"] = count;
  report["limit_s"] = flags.limit_s;
  report["budget_s"] = flags.budget_s;
  report["closed"] = figures.closed;
  report["not_closed"] = figures.open;
  report["not_closed_instances"] = figures.open_ones;
  if (!figures.open_over_bound.empty()) {
    report["not_closed_dp_over_bound"] = Summary(figures.open_over_bound);
    report["not_closed_dp_shorter"] = figures.open_dp_shorter;
    report["not_closed_dp_longer"] = figures.open_dp_longer;
  }
  report["each"] = figures.each;
  report["confirmed_exhaustively"] = figures.confirmed;
  report["closed_with_shards"] = figures.shared_out;
  report["dp_proved_by_itself"] = figures.proved;
  for (const auto& [calls, counts] : figures.by_calls) {
    report["closed_by_calls"][std::to_string(calls)] = {{"closed", counts.first},
                                                        {"all", counts.second}};
  }
  for (const auto& [name, gaps] : figures.gaps) report["gap"][name] = Summary(gaps);
  if (!figures.several_gaps.empty()) {
    report["dp_gap_on_several_workers"] = Summary(figures.several_gaps);
    report["closed_on_several_workers"] = figures.on_several;
  }
  for (const auto& [name, seconds] : figures.seconds) report["planning_s"][name] = Summary(seconds);
  return report;
}

Json GrowthReport(const Flags& flags) {
  Json rows = Json::array();
  for (const int32_t calls : {10, 20, 50, 100, 200, 500, 1000}) {
    for (const bool tight : {false, true}) {
      const InstanceShape shape{.calls = calls,
                                .workers = 4,
                                .models = 4,
                                .most_shards = 4,
                                .unequal = tight,
                                .tight_memory = tight};
      const SchedulingProblem problem = RandomInstance(shape, static_cast<uint64_t>(calls));
      const auto timed = [&](const char* name, double budget_s, double* seconds) {
        const double begin = Now();
        Schedule schedule =
            Checked(problem, PlanByName(name, problem, {.budget_s = budget_s, .now_s = Now}));
        *seconds = Now() - begin;
        return schedule;
      };
      double list_took_s = 0.0, short_took_s = 0.0, took_s = 0.0, long_took_s = 0.0;
      const Schedule list = timed("list", flags.budget_s, &list_took_s);
      const Schedule quick = timed("auto", flags.budget_s, &short_took_s);
      const Schedule plan = timed("auto", flags.large_budget_s, &took_s);
      const Schedule longer = timed("auto", flags.long_search_s, &long_took_s);
      const double best =
          std::min({list.makespan_s, quick.makespan_s, plan.makespan_s, longer.makespan_s});
      fmt::print(stderr, "{}: auto {:.1f} s in {:.3f} s, best known {:.1f} s, bound {:.1f} s\n",
                 ToString(shape), plan.makespan_s, took_s, best, longer.lower_bound_s);
      rows.push_back({{"shape", ToString(shape)},
                      {"operators", problem.tasks.size()},
                      {"list_planning_s", list_took_s},
                      {"list_over_best", list.makespan_s / best - 1.0},
                      {"quick_planning_s", short_took_s},
                      {"quick_over_best", quick.makespan_s / best - 1.0},
                      {"auto_planning_s", took_s},
                      {"auto_over_best", plan.makespan_s / best - 1.0},
                      {"auto_over_bound", plan.makespan_s / longer.lower_bound_s - 1.0}});
    }
  }
  return rows;
}

std::string GapTable(const Flags& flags, const Json& gap, const std::string& problems) {
  std::string text;
  const auto percent = [](const Json& value) {
    return fmt::format("{:.3f} %", 100.0 * value.get<double>());
  };
  text += fmt::format(
      "{} {}; milp closed {} within {} s, {} not; {} confirmed by trying everything; {} of the "
      "closed share calls out; dp proved {} optimal by itself within {:.0f} ms.\n\nClosed by "
      "number "
      "of calls:",
      gap["instances"].get<int>(), problems, gap["closed"].get<int>(), flags.limit_s,
      gap["not_closed"].get<int>(), gap["confirmed_exhaustively"].get<int>(),
      gap["closed_with_shards"].get<int>(), gap["dp_proved_by_itself"].get<int>(),
      flags.budget_s * 1e3);
  for (const auto& [calls, counts] : gap["closed_by_calls"].items()) {
    text +=
        fmt::format(" {}: {} of {};", calls, counts["closed"].get<int>(), counts["all"].get<int>());
  }
  text.back() = '.';
  text += "\n\n| planner | mean gap | 95 of 100 below | worst |\n|---|---|---|---|\n";
  std::vector<std::string> names{"dp", "beam", "list"};
  for (const std::string& name : BaselineNames()) names.push_back(name);
  for (const std::string& name : names) {
    const Json& row = gap["gap"][name];
    text += fmt::format("| {} | {} | {} | {} |\n", name, percent(row["mean"]), percent(row["p95"]),
                        percent(row["worst"]));
  }
  if (gap.contains("dp_gap_on_several_workers")) {
    const Json& row = gap["dp_gap_on_several_workers"];
    text += fmt::format("\ndp on two workers or more ({} of them): mean {}, worst {}.\n",
                        gap["closed_on_several_workers"].get<int>(), percent(row["mean"]),
                        percent(row["worst"]));
  }
  if (gap.contains("not_closed_dp_over_bound")) {
    const Json& row = gap["not_closed_dp_over_bound"];
    text += fmt::format(
        "\nWhere milp did not close, dp is over its bound by at most {} on average, {} at worst; "
        "shorter than the best that milp found in {} of them, longer in {}.\n",
        percent(row["mean"]), percent(row["worst"]), gap["not_closed_dp_shorter"].get<int>(),
        gap["not_closed_dp_longer"].get<int>());
  }
  text += "\n| planner | mean planning | worst |\n|---|---|---|\n";
  for (const auto& [name, row] : gap["planning_s"].items()) {
    text += fmt::format("| {} | {:.1f} ms | {:.1f} ms |\n", name, 1e3 * row["mean"].get<double>(),
                        1e3 * row["worst"].get<double>());
  }
  return text;
}

/// One line a group: the gap of dp, or what it is over milp's bound at most.
std::string EachTable(const Json& each) {
  std::vector<std::string> groups, variants;
  std::map<std::pair<std::string, std::string>, std::string> cells;
  const auto note = [](std::vector<std::string>* names, const std::string& name) {
    if (std::find(names->begin(), names->end(), name) == names->end()) names->push_back(name);
  };
  for (const Json& one : each) {
    const std::string group = one["group"], variant = one["variant"];
    note(&groups, group);
    note(&variants, variant);
    cells[{group, variant}] =
        one["closed"] ? fmt::format("{:.2f} %", 100.0 * one["dp_gap"].get<double>())
                      : fmt::format("open, < {:.1f} %", 100.0 * one["dp_over_bound"].get<double>());
  }
  std::string text = "| gap of dp |", marks = "| --- |";
  for (const std::string& variant : variants) {
    text += " " + variant + " |";
    marks += " ---: |";
  }
  text += "\n" + marks + "\n";
  for (const std::string& group : groups) {
    text += "| " + group + " |";
    for (const std::string& variant : variants) text += " " + cells[{group, variant}] + " |";
    text += "\n";
  }
  return text;
}

std::string GrowthTable(const Flags& flags, const Json& growth) {
  std::string text = fmt::format(
      "| problem | operators | list | over the best known | auto, {:.0f} ms | over the best "
      "known | "
      "auto, {:.0f} ms | over the best known | over the bound "
      "|\n|---|---|---|---|---|---|---|---|---|\n",
      flags.budget_s * 1e3, flags.large_budget_s * 1e3);
  const auto percent = [](const Json& value) {
    return fmt::format("{:.2f} %", 100.0 * value.get<double>());
  };
  for (const Json& row : growth) {
    const auto milliseconds = [&row](const char* key) {
      return fmt::format("{:.0f} ms", 1e3 * row[key].get<double>());
    };
    text += fmt::format("| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
                        row["shape"].get<std::string>(), row["operators"].get<int>(),
                        milliseconds("list_planning_s"), percent(row["list_over_best"]),
                        milliseconds("quick_planning_s"), percent(row["quick_over_best"]),
                        milliseconds("auto_planning_s"), percent(row["auto_over_best"]),
                        percent(row["auto_over_bound"]));
  }
  return text;
}

void Write(const std::string& path, const std::string& text) {
  if (path.empty()) return;
  std::ofstream file(path, std::ios::binary);
  file << text;
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

void Run(const Flags& flags) {
  Json report;
  if (flags.instances > 0) {
    report["gap"] = GapReport(flags, static_cast<size_t>(flags.instances),
                              [](size_t index) { return RandomOne(static_cast<int32_t>(index)); });
  }
  if (!flags.profiles.empty()) {
    const std::vector<Instance> workloads = WorkloadInstances(flags);
    report["workload_gap"] =
        GapReport(flags, workloads.size(), [&](size_t index) { return workloads[index]; });
  }
  if (flags.growth) report["growth"] = GrowthReport(flags);
  std::string markdown;
  if (report.contains("gap")) markdown += GapTable(flags, report["gap"], "random problems") + "\n";
  if (report.contains("workload_gap"))
    markdown += GapTable(flags, report["workload_gap"], "problems of W1 to W6") + "\n" +
                EachTable(report["workload_gap"]["each"]) + "\n";
  if (report.contains("growth")) markdown += GrowthTable(flags, report["growth"]);
  Write(flags.json, report.dump(2) + "\n");
  Write(flags.markdown, markdown);
  fmt::print("{}", markdown);
}

}  // namespace
}  // namespace halo::bench

int main(int argc, char** argv) {
  CLI::App app{"The planners beside the optimum, and how they grow"};
  halo::bench::Flags flags;
  app.add_option("--instances", flags.instances, "random problems; 0: leave them out");
  app.add_option("--limit", flags.limit_s, "seconds that milp may take for one");
  app.add_option("--budget", flags.budget_s, "seconds that dp and beam may take");
  app.add_option("--large-budget", flags.large_budget_s, "the same, for growth");
  app.add_option("--long-search", flags.long_search_s, "seconds of the search for the best known");
  app.add_flag("!--no-growth", flags.growth, "leave growth out");
  app.add_option("--workflows", flags.workflows, "folder of W1 to W6");
  app.add_option("--rows", flags.rows, "folder of their rows");
  app.add_option("--profile", flags.profiles, "measure W1 to W6 with these costs (repeatable)");
  app.add_option("--json", flags.json, "write the figures there");
  app.add_option("--markdown", flags.markdown, "write the tables there");
  CLI11_PARSE(app, argc, argv);
  try {
    halo::bench::Run(flags);
  } catch (const std::exception& error) {
    fmt::print(stderr, "planner_gap: {}\n", error.what());
    return 1;
  }
  return 0;
}
