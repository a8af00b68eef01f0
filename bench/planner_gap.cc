// planner_gap: how far from the optimum the planners plan, and how long they take.
//
//   planner_gap [--instances N] [--limit SECONDS] [--budget SECONDS] [--json FILE] [--markdown
//   FILE]
//
// Gap: random problems (scheduling_instances.h, GapShape) against milp, which is told of list's
// schedule only, so that it finds what dp finds by itself or not at all. Those that it does not
// close within the limit are counted and listed beside, never among the gaps. Where the exhaustive
// search of the tests can try all, it must agree. Growth: 10 to 1,000 operators on 4 workers,
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
};

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
  Json open_ones = Json::array();
};

void MeasureInstance(const Flags& flags, int32_t index, Figures* figures) {
  const InstanceShape shape = GapShape(index);
  const SchedulingProblem problem = RandomInstance(shape, static_cast<uint64_t>(index));
  std::map<std::string, Schedule> schedules;
  for (const char* name : {"list", "beam", "dp"}) {
    const double begin = Now();
    schedules[name] =
        Checked(problem, PlanByName(name, problem, {.budget_s = flags.budget_s, .now_s = Now}));
    figures->seconds[name].push_back(Now() - begin);
  }
  for (const std::string& name : BaselineNames()) {
    schedules[name] = Checked(problem, PlanByBaseline(name, problem, static_cast<uint64_t>(index)));
  }
  const double begin = Now();
  const Schedule exact =
      Checked(problem, PlanByMilp(problem, {.budget_s = flags.limit_s, .now_s = Now}));
  const double exact_s = Now() - begin;
  figures->seconds["milp"].push_back(exact_s);
  auto& [closed, all] = figures->by_calls[shape.calls];
  ++all;
  fmt::print(stderr, "{:4} {}: milp {} in {:.1f} s, dp {:+.3f} %\n", index, ToString(shape),
             exact.proved_optimal ? "closed" : "OPEN", exact_s,
             100.0 * (schedules["dp"].makespan_s / exact.makespan_s - 1.0));
  if (!exact.proved_optimal) {
    ++figures->open;
    figures->open_ones.push_back({{"instance", index},
                                  {"shape", ToString(shape)},
                                  {"milp_s", exact.makespan_s},
                                  {"milp_bound_s", exact.lower_bound_s},
                                  {"dp_s", schedules["dp"].makespan_s}});
    return;
  }
  ++closed;
  ++figures->closed;
  if (shape.most_shards > 1) ++figures->shared_out;
  if (schedules["dp"].proved_optimal) ++figures->proved;
  if (shape.calls <= (shape.workers == 1 ? 8 : 5)) {  // else too many orders to try
    const std::optional<double> shortest = ShortestMakespan(problem, kMostOrders);
    if (shortest) {
      if (std::abs(*shortest - exact.makespan_s) > 2e-6 * *shortest) {
        throw std::runtime_error(
            fmt::format("instance {}: the exhaustive search says {} s, milp {} s", index, *shortest,
                        exact.makespan_s));
      }
      ++figures->confirmed;
    }
  }
  for (const auto& [name, schedule] : schedules) {
    // Below the optimum by CBC's tolerance at most: PlanByMilp's proof holds to 1e-6.
    const double gap = schedule.makespan_s / exact.makespan_s - 1.0;
    if (gap < -2e-6) {
      throw std::runtime_error(
          fmt::format("instance {}: {} is shorter than the optimum", index, name));
    }
    figures->gaps[name].push_back(std::max(0.0, gap));
  }
  if (shape.workers > 1) {
    ++figures->on_several;
    figures->several_gaps.push_back(figures->gaps["dp"].back());
  }
}

Json Summary(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double value : values) sum += value;
  return {{"mean", sum / static_cast<double>(values.size())},
          {"p95", Percentile(values, 0.95)},
          {"worst", *std::max_element(values.begin(), values.end())}};
}

Json GapReport(const Flags& flags) {
  Figures figures;
  for (int32_t index = 0; index < flags.instances; ++index) MeasureInstance(flags, index, &figures);
  if (figures.closed == 0) throw std::runtime_error("milp closed no instance");
  Json report;
  report["instances"] = flags.instances;
  report["limit_s"] = flags.limit_s;
  report["budget_s"] = flags.budget_s;
  report["closed"] = figures.closed;
  report["not_closed"] = figures.open;
  report["not_closed_instances"] = figures.open_ones;
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

std::string GapTable(const Flags& flags, const Json& gap) {
  std::string text;
  const auto percent = [](const Json& value) {
    return fmt::format("{:.3f} %", 100.0 * value.get<double>());
  };
  text += fmt::format(
      "{} random problems; milp closed {} within {} s, {} not; {} confirmed by trying everything; "
      "{} "
      "of the closed share calls out; dp proved {} optimal by itself within {} ms.\n\nClosed by "
      "number of calls:",
      gap["instances"].get<int>(), gap["closed"].get<int>(), flags.limit_s,
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
  text += "\n| planner | mean planning | worst |\n|---|---|---|\n";
  for (const auto& [name, row] : gap["planning_s"].items()) {
    text += fmt::format("| {} | {:.1f} ms | {:.1f} ms |\n", name, 1e3 * row["mean"].get<double>(),
                        1e3 * row["worst"].get<double>());
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
  if (flags.instances > 0) report["gap"] = GapReport(flags);
  if (flags.growth) report["growth"] = GrowthReport(flags);
  std::string markdown;
  if (report.contains("gap")) markdown += GapTable(flags, report["gap"]) + "\n";
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
