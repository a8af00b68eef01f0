// What a simulation showed, for people and for programs.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "session/simulated_run.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kWorkersShown = 8;

/// "  x 1.04": how often the estimate goes into what happened; two figures of what is small.
std::string Factor(double happened, double estimated) {
  if (estimated <= 0.0 || happened <= 0.0) return "";
  constexpr double kSmall = 0.1;
  const double factor = happened / estimated;
  return factor < kSmall ? fmt::format("  x {:.2g}", factor) : fmt::format("  x {:.2f}", factor);
}

std::string Beside(const char* what, double happened, double estimated) {
  return fmt::format("  {:<22}{:>14.3f} s   estimated {:>14.3f} s {}\n", what, happened, estimated,
                     Factor(happened, estimated));
}

std::string Memory(int64_t bytes) {
  constexpr double kMebibyte = 1 << 20, kGibibyte = 1 << 30;
  const auto amount = static_cast<double>(bytes);
  return amount < kGibibyte ? fmt::format("{:.1f} MiB", amount / kMebibyte)
                            : fmt::format("{:.1f} GiB", amount / kGibibyte);
}

/// An id that fits into `width` bytes: the middle makes way, whole characters of it.
std::string Shortened(const std::string& id, size_t width) {
  if (id.size() <= width) return id;
  const std::string gap = "...";
  const auto is_inside = [&id](size_t at) { return (static_cast<uint8_t>(id[at]) & 0xC0) == 0x80; };
  size_t front = (width - gap.size()) / 2;
  size_t back = id.size() - (width - gap.size() - front);
  while (is_inside(front)) --front;
  while (back < id.size() && is_inside(back)) ++back;
  return id.substr(0, front) + gap + id.substr(back);
}

std::string WorkersText(const SimulationReport& report) {
  std::string text = fmt::format("workers{:>25}{:>10}{:>8}{:>10}{:>12}{:>14}\n", "busy", "busy s",
                                 "loads", "load s", "calls", "memory MiB");
  const double elapsed_s = std::max(report.elapsed_s, 1e-9);
  const auto line = [&](const std::string& name, const SimulatedWorkerReport& worker) {
    constexpr double kMebibyte = 1 << 20;
    text +=
        fmt::format("  {:<20}{:>8.1f} %{:>10.3f}{:>8}{:>10.3f}{:>12}{:>14.0f}\n", name,
                    100.0 * worker.busy_s / elapsed_s, worker.busy_s, worker.loads, worker.load_s,
                    worker.calls, static_cast<double>(worker.peak_memory_bytes) / kMebibyte);
  };
  if (report.workers.size() <= kWorkersShown) {
    for (size_t w = 0; w < report.workers.size(); ++w)
      line(fmt::format("worker {}", w), report.workers[w]);
    return text;
  }
  std::vector<size_t> by_busy(report.workers.size());
  for (size_t w = 0; w < by_busy.size(); ++w) by_busy[w] = w;
  std::stable_sort(by_busy.begin(), by_busy.end(), [&](size_t a, size_t b) {
    return report.workers[a].busy_s > report.workers[b].busy_s;
  });
  const size_t middle = by_busy.size() / 2;
  line(fmt::format("most: worker {}", by_busy.front()), report.workers[by_busy.front()]);
  line(fmt::format("middle: worker {}", by_busy[middle]), report.workers[by_busy[middle]]);
  line(fmt::format("least: worker {}", by_busy.back()), report.workers[by_busy.back()]);
  const auto idle = std::count_if(report.workers.begin(), report.workers.end(),
                                  [](const SimulatedWorkerReport& w) { return w.calls == 0; });
  if (idle > 0) text += fmt::format("  {} of {} have no calls\n", idle, report.workers.size());
  return text;
}

std::string OperatorsText(const SimulationReport& report) {
  size_t width = 8;
  for (const SimulatedOperatorReport& op : report.operators) width = std::max(width, op.id.size());
  constexpr size_t kWidest = 48, kShown = 50;
  width = std::min(width, kWidest);
  std::string text =
      fmt::format("{:<{}}{:>12}{:>12}{:>10}{:>14}{:>14}{}\n", "operators", width + 2, "calls",
                  "estimated", "merged", "seconds", "estimated", "  factor");
  size_t shown = 0;
  for (const SimulatedOperatorReport& op : report.operators) {
    if (shown++ == kShown) break;
    text += fmt::format("  {:<{}}{:>12}{:>12.0f}{:>10}{:>14.3f}{:>14.3f}{}\n",
                        Shortened(op.id, width), width, op.calls, op.estimated_calls, op.merged,
                        op.seconds, op.estimated_s, Factor(op.seconds, op.estimated_s));
  }
  if (report.operators.size() > kShown)
    text +=
        fmt::format("  and {} more (--format json has all)\n", report.operators.size() - kShown);
  return text;
}

}  // namespace

std::string SimulationText(const SimulationReport& report) {
  std::string text = fmt::format("{}: {} rows on {} {} of {}, planner {}, seed {}\n\n",
                                 report.workflow, report.rows, report.workers.size(),
                                 report.workers.size() == 1 ? "worker" : "workers",
                                 Memory(report.worker_memory_bytes), report.planner, report.seed);
  text += fmt::format("rows ok {}, failed {}\n", report.rows_ok, report.rows_failed);
  text += fmt::format("tokens: prompt {} (reused {}), output {}\n\n", report.prompt_tokens,
                      report.reused_tokens, report.output_tokens);
  text += Beside("elapsed", report.elapsed_s, report.estimated_elapsed_s);
  text += Beside("engines busy", report.busy_s, report.estimated_busy_s);
  text += Beside("loading models", report.load_s, report.estimated_load_s);
  if (report.tool_s > 0.0 || report.estimated_tool_s > 0.0)
    text += Beside("tools, added up", report.tool_s, report.estimated_tool_s);
  text += "\n" + WorkersText(report) + "\n" + OperatorsText(report);
  for (const std::string& failure : report.first_failures) text += "\nfailed: " + failure;
  for (const std::string& note : report.notes) text += "\nnote: " + note;
  if (!report.first_failures.empty() || !report.notes.empty()) text += "\n";
  return text;
}

std::string SimulationJson(const SimulationReport& report) {
  Json workers = Json::array(), operators = Json::array();
  for (const SimulatedWorkerReport& worker : report.workers) {
    workers.push_back(
        {{"busy_s", worker.busy_s},
         {"busy_share", report.elapsed_s > 0.0 ? worker.busy_s / report.elapsed_s : 0.0},
         {"loads", worker.loads},
         {"load_s", worker.load_s},
         {"calls", worker.calls},
         {"peak_memory_bytes", worker.peak_memory_bytes}});
  }
  for (const SimulatedOperatorReport& op : report.operators) {
    operators.push_back({{"id", op.id},
                         {"model", op.model.empty() ? Json() : Json(op.model)},
                         {"instances", op.instances},
                         {"merged", op.merged},
                         {"calls", op.calls},
                         {"estimated_calls", op.estimated_calls},
                         {"failed", op.failed},
                         {"prompt_tokens", op.prompt_tokens},
                         {"reused_tokens", op.reused_tokens},
                         {"output_tokens", op.output_tokens},
                         {"seconds", op.seconds},
                         {"estimated_s", op.estimated_s}});
  }
  const auto pair = [](double simulated, double estimated) {
    return Json{{"simulated_s", simulated},
                {"estimated_s", estimated},
                {"factor", estimated > 0.0 ? Json(simulated / estimated) : Json()}};
  };
  const Json whole = {
      {"workflow", report.workflow},
      {"planner", report.planner},
      {"seed", report.seed},
      {"rows", {{"total", report.rows}, {"ok", report.rows_ok}, {"failed", report.rows_failed}}},
      {"worker_memory_bytes", report.worker_memory_bytes},
      {"elapsed", pair(report.elapsed_s, report.estimated_elapsed_s)},
      {"lower_bound_s", report.lower_bound_s},
      {"engines_busy", pair(report.busy_s, report.estimated_busy_s)},
      {"loads", pair(report.load_s, report.estimated_load_s)},
      {"tools", pair(report.tool_s, report.estimated_tool_s)},
      {"tokens",
       {{"prompt", report.prompt_tokens},
        {"reused", report.reused_tokens},
        {"output", report.output_tokens}}},
      {"workers", std::move(workers)},
      {"operators", std::move(operators)},
      {"failures", report.first_failures},
      {"notes", report.notes}};
  return whole.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace halo
