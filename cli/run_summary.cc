#include "run_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/text.h"
#include "log.h"
#include "terminal_display.h"

namespace halo::cli {
namespace {

using Json = nlohmann::ordered_json;

/// A line for each operator, under the name of its workflow where there are several.
std::string OperatorTable(const nlohmann::ordered_json& operators) {
  size_t width = 8;
  bool any_skipped = false;
  for (const auto& op : operators) {
    width = std::max(width, op.at("id").get<std::string>().size());
    any_skipped = any_skipped || op.at("skipped").get<int64_t>() > 0;
  }
  const auto line = [&](const std::string& id, const auto&... cells) {
    std::string text = fmt::format("  {:<{}}", id, width);
    size_t column = 0;
    for (const std::string& cell : {std::string(cells)...}) {
      constexpr size_t kSkipped = 2, kFirstTokens = 4;
      if (column != kSkipped || any_skipped)
        text += fmt::format(" {:>{}}", cell, column < kFirstTokens ? 7 : 10);
      ++column;
    }
    return text + "\n";
  };
  std::string text =
      line("operator", "calls", "merged", "skipped", "failed", "prompt", "reused", "output");
  std::string workflow;
  for (const auto& op : operators) {
    const std::string of = op.value("workflow", "");
    if (of != workflow) text += of + ":\n";
    workflow = of;
    const auto count = [&](const char* name) { return std::to_string(op.at(name).get<int64_t>()); };
    text += line(op.at("id").get<std::string>(), count("calls"), count("merged"), count("skipped"),
                 count("failed"), count("prompt_tokens"), count("reused_tokens"),
                 count("output_tokens"));
  }
  return text;
}

/// A word as a shell reads it back.
std::string ShellQuoted(const std::string& word) {
  constexpr std::string_view kPlain = "-_./=:,@%+";
  const bool is_plain = !word.empty() && std::all_of(word.begin(), word.end(), [&](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || kPlain.find(c) != kPlain.npos;
  });
  if (is_plain) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

/// What earlier runs had left. Kept summaries of older versions say nothing of it.
std::string FromCache(const Json& summary) {
  const auto cache = summary.find("cache");
  const int64_t calls = cache == summary.end() ? 0 : cache->at("calls").get<int64_t>();
  if (calls == 0) return "";
  const int64_t tokens = cache->at("tokens").get<int64_t>();
  const char* were = calls == 1 ? "call was" : "calls were";
  if (tokens == 0) return fmt::format("{} {} answered from the cache\n", calls, were);
  return fmt::format("{} {} answered from the cache ({} tokens)\n", calls, were, tokens);
}

/// Where the time went: of engines, and of tools as their calls took it.
std::string SlowestOperators(const Json& operators) {
  constexpr size_t kMost = 3;
  std::vector<std::pair<double, std::string>> slowest;
  double all_s = 0.0;
  for (const Json& op : operators) {
    const double seconds = op.at(op.at("kind") == "llm" ? "engine_s" : "busy_s").get<double>();
    all_s += seconds;
    slowest.emplace_back(seconds, op.at("id").get<std::string>());
  }
  std::stable_sort(slowest.begin(), slowest.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  if (slowest.size() < 2 || all_s <= 0.0) return "";
  std::string text = "slowest:";
  for (size_t i = 0; i < std::min(kMost, slowest.size()) && slowest[i].first > 0.0; ++i) {
    text += fmt::format("{} {} {} ({:.0f} %)", i == 0 ? "" : ",", slowest[i].second,
                        DurationWords(slowest[i].first), 100.0 * slowest[i].first / all_s);
  }
  return text + "\n";
}

}  // namespace

std::string DescribeSummary(const std::string& summary_json) {
  const auto s = nlohmann::ordered_json::parse(summary_json);
  const auto& rows = s.at("rows");
  const auto& tokens = s.at("tokens");
  std::string text = fmt::format("{} rows: {} ok, {} failed", rows.at("total").get<int64_t>(),
                                 rows.at("ok").get<int64_t>(), rows.at("failed").get<int64_t>());
  if (rows.at("unfinished").get<int64_t>() > 0) {
    text += fmt::format(", {} unfinished", rows.at("unfinished").get<int64_t>());
  }
  text += fmt::format("; {} (and {} to load)\n", DurationWords(s.at("elapsed_s").get<double>()),
                      DurationWords(s.at("planning_s").get<double>()));
  text += OperatorTable(s.at("operators"));
  text += SlowestOperators(s.at("operators"));
  text += FromCache(s);
  // Without a model there is nothing to say of tokens and of how exact answers are.
  if (s.at("engine").empty()) return text;
  const double prompt = tokens.at("prompt").get<double>();
  const double reused = tokens.at("reused").get<double>();
  text +=
      fmt::format("tokens: {} of prompts, {:.0f} % of them reused; {} generated\n",
                  tokens.at("prompt").get<int64_t>(), prompt > 0 ? 100.0 * reused / prompt : 0.0,
                  tokens.at("output").get<int64_t>());
  const double cost = s.value("cost", 0.0);
  if (cost > 0.0) text += fmt::format("cost: {:.6g}\n", cost);
  const bool has_workers = std::any_of(s.at("engine").begin(), s.at("engine").end(),
                                       [](const Json& engine) { return engine.at("worker") > 0; });
  for (const auto& engine : s.at("engine")) {
    text += fmt::format(
        "engine {}{}: {} steps, {:.1f} calls a decode step", engine.at("model").get<std::string>(),
        has_workers ? fmt::format(" of worker {}", engine.at("worker").get<int64_t>()) : "",
        engine.at("steps").get<int64_t>(), engine.at("decode_batch_mean").get<double>());
    const int64_t restarts = engine.at("restarts").get<int64_t>();
    if (restarts > 0) text += fmt::format("; its process was started again {} times", restarts);
    text += "\n";
  }
  if (s.at("planner") == "naive") return text;
  text += s.at("deterministic").get<bool>() ? "answers are bit for bit those of --naive\n"
                                            : "answers equal those of --naive up to rounding\n";
  return text;
}

std::string DescribeFailure(const FailureGroup& group) {
  const std::string where = group.operator_id.empty() ? "" : group.operator_id + ": ";
  if (group.rows == 1) {
    return Printable(fmt::format("failed: row {}: {}{} ({})", group.example_row, where,
                                 group.example, group.code));
  }
  return Printable(fmt::format("failed: {} rows: {}{}; for example row {}: {}", group.rows, where,
                               group.code, group.example_row, group.example));
}

std::string DescribeEnd(const RunOutcome& outcome) {
  if (outcome.status == RunStatus::kInterrupted) return "stopped by a signal";
  if (outcome.status == RunStatus::kStopped) return Printable("stopped: " + outcome.stop_reason);
  return "";
}

namespace {

/// What a run that its budget has stopped has to be given to go on; "" for others.
std::string LargerBudget(const RunOutcome& outcome) {
  const auto summary = nlohmann::json::parse(outcome.summary_json);
  const auto stopped = summary.find("stopped");
  if (stopped == summary.end() || !stopped->is_object()) return "";
  const std::string budget = stopped->value("larger_budget", "");
  return budget.empty() ? "" : " --budget " + budget;
}

}  // namespace

std::string NextCommand(const RunOutcome& outcome, const std::string& run_folder,
                        const std::vector<std::string>& arguments) {
  const bool is_stopped = outcome.status == RunStatus::kStopped;
  if (!run_folder.empty()) {
    // Rows that have failed have their failures from the journal: it would only stop again.
    const bool by_failures = is_stopped && outcome.rows_failed > 0 && LargerBudget(outcome).empty();
    if (by_failures || outcome.status == RunStatus::kRowsFailed)
      return "halo retry " + ShellQuoted(run_folder);
    if (is_stopped || outcome.status == RunStatus::kInterrupted)
      return "halo resume " + ShellQuoted(run_folder) + LargerBudget(outcome);
    return "";
  }
  if (outcome.status == RunStatus::kRowsFailed) {
    std::string files;
    for (const std::string& path : outcome.outputs)
      if (path.ends_with(".jsonl")) files += " " + ShellQuoted(path);
    return files.empty() ? "" : "grep '\"status\":\"failed\"'" + files;
  }
  if (!is_stopped && outcome.status != RunStatus::kInterrupted) return "";
  std::string command;
  for (const std::string& argument : arguments)
    command += (command.empty() ? "" : " ") + ShellQuoted(argument);
  return command;
}

}  // namespace halo::cli
