#include "logic/halotest_run.h"

#include <gtest/gtest.h>

#include <regex>
#include <sstream>
#include <stdexcept>

#include "runtime/simulated_tools.h"
#include "support/simulated_run.h"
#include "tool/function/local_function.h"

namespace halo::test {
namespace {

/// The one place of a file's fault or difference.
#define HALOTEST_FAILURE(line) ADD_FAILURE_AT(file_.path.c_str(), line)

std::string ReplaceAll(std::string text, const std::string& what, const std::string& by) {
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size())) {
    text.replace(at, what.size(), by);
  }
  return text;
}

const char* FinishName(const Completion& completion) {
  if (completion.failure) return "failed";
  switch (completion.finish) {
    case FinishReason::kEndToken:
      return "end";
    case FinishReason::kStopString:
      return "stop";
    case FinishReason::kMaxTokens:
      return "length";
    case FinishReason::kFailed:
      return "failed";
  }
  return "?";
}

/// What a run leaves behind for `ensure`, `prompts` and `expect`.
struct Outcome {
  RunReport report;
  std::vector<Json> rows;
  std::string plan;  // as EXPLAIN prints it
  bool output_finished = false;
  int64_t elapsed_us = 0;
  std::map<std::string, int64_t> running, peak_running;  // by operator; "": all
  // By operator: rows, rows, reasons, times.
  std::map<std::string, std::vector<std::string>> started, ended, finishes, start_ms;
  std::map<std::pair<std::string, std::string>, std::string> prompts;  // (operator, row)
};

class OutcomeObserver final : public RunObserver {
 public:
  explicit OutcomeObserver(Outcome& outcome) : outcome_(outcome) {}
  void OnCall(const CallRecord& call) override {
    const std::string row =
        call.row.id.is_string() ? call.row.id.get<std::string>() : call.row.id.dump();
    outcome_.prompts[{call.op.id, row}] = call.prompt.text;
    outcome_.ended[call.op.id].push_back(row);
    outcome_.finishes[call.op.id].emplace_back(FinishName(call.completion));
    if (call.merged) return;
    --outcome_.running[call.op.id];
    --outcome_.running[""];
  }
  void OnToolCall(const ToolCallRecord& call) override {
    outcome_.ended[call.op.id].push_back(call.row.id.is_string() ? call.row.id.get<std::string>()
                                                                 : call.row.id.dump());
    outcome_.finishes[call.op.id].emplace_back(call.completion.failure ? "failed" : "ok");
    if (call.merged) return;
    --outcome_.running[call.op.id];
    --outcome_.running[""];
  }

 private:
  Outcome& outcome_;
};

bool SameAsFarAsGiven(const Json& expected, const Json& actual) {
  if (!expected.is_object() || !actual.is_object()) return expected == actual;
  for (const auto& [key, value] : expected.items()) {
    if (!actual.contains(key)) return false;
    // Outputs are compared whole: one too many is a difference.
    if (key == "outputs" ? value != actual[key] : !SameAsFarAsGiven(value, actual[key]))
      return false;
  }
  return true;
}

class HalotestRunner {
 public:
  explicit HalotestRunner(const HalotestFile& file) : file_(file) {}

  void Run(bool update) {
    if (!file_.error.empty()) return CheckErrors();
    const Outcome outcome = Execute(Option("naive", "false") == "true");
    CheckExplain(outcome.plan);
    CheckEnsure(outcome);
    CheckPrompts(outcome);
    ExpectAccounting(outcome.report);
    if (update) {
      Update(outcome);
    } else {
      CheckRows(outcome);
    }
    for (const std::string& rule : RulesOffForNaive()) {
      if (!file_.same_as_naive) break;
      SCOPED_TRACE("without " + rule);
      EXPECT_EQ(JoinRows(outcome.rows), JoinRows(Execute(false, {rule}).rows));
    }
    if (file_.same_as_naive) {
      SCOPED_TRACE("the naive run");
      const Outcome naive = Execute(true);
      ExpectAccounting(naive.report);
      EXPECT_EQ(JoinRows(outcome.rows), JoinRows(naive.rows))
          << file_.path << ": expect_same_as naive";
    }
  }

 private:
  std::string Option(const std::string& name, const std::string& otherwise) const {
    const auto found = file_.options.find(name);
    return found == file_.options.end() ? otherwise : found->second;
  }

  /// Each diagnostic must match its line of the section, in order.
  void CheckErrors() const {
    try {
      ParseWorkflow(file_.workflow, "flow.yaml");
      HALOTEST_FAILURE(file_.error[0].number) << "the workflow was accepted";
    } catch (const Error& error) {
      const std::vector<Diagnostic>& found = error.diagnostics();
      for (size_t i = 0; i < std::max(found.size(), file_.error.size()); ++i) {
        if (i >= file_.error.size()) {
          HALOTEST_FAILURE(file_.error[0].number) << "one more error: " << found[i].ToString();
        } else if (i >= found.size()) {
          HALOTEST_FAILURE(file_.error[i].number) << "not reported: " << file_.error[i].text;
        } else if (!std::regex_search(found[i].ToString(), std::regex(file_.error[i].text))) {
          HALOTEST_FAILURE(file_.error[i].number)
              << found[i].ToString() << "\ndoes not match " << file_.error[i].text;
        }
      }
    }
  }

  /// The first rule for an operator's call; null without one.
  const ScriptRule* RuleFor(const std::string& op, const std::string& row, int32_t sample,
                            int32_t attempt) const {
    for (const ScriptRule& rule : file_.script) {
      if (MatchesWildcard(rule.operator_pattern, op) && MatchesWildcard(rule.row_pattern, row) &&
          (rule.sample < 0 || rule.sample == sample) &&
          (rule.attempt < 0 || rule.attempt == attempt))
        return &rule;
    }
    return nullptr;
  }

  /// What a tool is asked, for {{call}} and for what has no rule.
  static Json DescribeCall(const ToolCall& call) {
    if (const auto* sql = std::get_if<SqlCall>(&call.what)) {
      Json values = Json::array();
      for (const SqlArgument& argument : sql->arguments) values.push_back(argument.value);
      return {{"sql", sql->text}, {"values", values}};
    }
    if (const auto* http = std::get_if<HttpCall>(&call.what)) {
      Json asked = {{"url", http->url}};
      if (http->body) asked["body"] = *http->body;
      return asked;
    }
    const auto& function = std::get<FunctionCall>(call.what);
    return {{"inputs", function.inputs}};
  }

  /// A rule's reply, as JSON where it is JSON. Without one functions run, and others answer what
  /// they were asked.
  ScriptedResult ToolReply(const ToolCall& call, Outcome& outcome, const Clock& clock) const {
    for (const std::string& key : {call.script_operator, std::string()}) {
      const int64_t running = ++outcome.running[key];
      outcome.peak_running[key] = std::max(outcome.peak_running[key], running);
    }
    outcome.started[call.script_operator].push_back(call.script_row);
    outcome.start_ms[call.script_operator].push_back(std::to_string(clock.NowUs() / 1000));
    const ScriptRule* rule =
        RuleFor(call.script_operator, call.script_row, -1, call.script_attempt);
    const auto* function = std::get_if<FunctionCall>(&call.what);
    if (rule == nullptr && function != nullptr)
      return {FindLocalFunction(function->function)->run(*function), 0, std::nullopt, 0};
    const Json asked = DescribeCall(call);
    if (rule == nullptr) return {{{"rows", Json::array({asked})}, {"rowcount", 1}}, 0, {}, 0};
    std::string text = ReplaceAll(rule->reply, "{{call}}", asked.dump());
    text = ReplaceAll(text, "{{row}}", call.script_row);
    Json value = Json::parse(text, nullptr, false);
    if (value.is_discarded()) value = text;
    return {std::move(value), rule->latency_us, rule->failure, rule->retry_after_us};
  }

  ScriptedReply Reply(const Request& request, Outcome& outcome, const Clock& clock) const {
    for (const std::string& key : {request.script_operator, std::string()}) {
      const int64_t running = ++outcome.running[key];
      outcome.peak_running[key] = std::max(outcome.peak_running[key], running);
    }
    outcome.started[request.script_operator].push_back(request.script_row);
    outcome.start_ms[request.script_operator].push_back(std::to_string(clock.NowUs() / 1000));
    if (const ScriptRule* found = RuleFor(request.script_operator, request.script_row,
                                          request.script_sample, request.script_attempt)) {
      const ScriptRule& rule = *found;
      std::string text = ReplaceAll(rule.reply, "{{operator}}", request.script_operator);
      text = ReplaceAll(text, "{{row}}", request.script_row);
      text = ReplaceAll(text, "{{max_tokens}}", std::to_string(request.sampling.max_tokens));
      text = ReplaceAll(text, "{{min_tokens}}", std::to_string(request.sampling.min_tokens));
      text = ReplaceAll(text, "{{prompt}}", request.prompt_text);
      return {text, rule.latency_us, rule.finish, rule.failure};
    }
    return {request.script_operator + ":" + request.script_row, 0, FinishReason::kEndToken,
            std::nullopt};
  }

  std::vector<Row> Rows() const {
    std::vector<Row> rows;
    for (const TestLine& line : file_.rows) {
      const int64_t index = static_cast<int64_t>(rows.size());
      if (line.text[0] != '!') {
        const Json values = Json::parse(line.text, nullptr, false);
        if (!values.is_object())
          throw std::runtime_error(file_.At(line.number) + ": a row is a JSON object");
        rows.push_back(MakeTestRow(index, values));
        continue;
      }
      Row row;
      row.index = index;
      row.id = "line:" + std::to_string(index + 1);
      row.values = Json::object();
      const size_t space = line.text.find(' ');
      row.failure = Failure{"", line.text.substr(1, space - 1), line.text.substr(space + 1), false};
      rows.push_back(std::move(row));
    }
    return rows;
  }

  Outcome Execute(bool naive, std::set<std::string> rules_off = {}) const {
    Outcome outcome;
    SimulatedEngineOptions engine_options;
    engine_options.sequences = std::stoi(Option("sequences", "64"));
    engine_options.context_tokens = std::stoi(Option("context", "1000000"));
    const Clock* clock = nullptr;
    engine_options.script = [&](const Request& request) { return Reply(request, outcome, *clock); };
    rules_off.merge(RulesOff(naive));
    SimulatedRig rig(file_.workflow, "flow.yaml", engine_options,
                     Option("all_outputs", "false") == "true");
    clock = &rig.clock;
    SimulatedTools tools(
        {std::stoi(Option("tools", "32")),
         [&](const ToolCall& call) { return ToolReply(call, outcome, *clock); }, rig.timeline},
        rig.clock);
    ListFeed feed(Rows());
    ListSink sink;
    std::shared_ptr<const ChatTemplate> chat;
    if (Option("chat", "none") == "chatml")
      chat = std::make_shared<ChatTemplate>("", "", "", "2026-01-31");
    RunSource source = rig.Source(feed, sink, chat);
    source.prompt_column = ResolveColumn(rig.workflow, Option("column", ""));
    outcome.plan = ExplainText(rig.Optimize(Rows(), source.prompt_column, rules_off));
    source.row_timeout_us = std::stoll(Option("row_timeout_ms", "0")) * 1000;

    ExecutorOptions options;
    options.naive = naive;
    options.seed = std::stoull(Option("seed", "0"));
    options.window = std::stoll(Option("window", "65536"));
    options.spill_folder = testing::TempDir();
    options.input_order = Option("order", "input") == "input";
    options.all_outputs = Option("all_outputs", "false") == "true";
    options.stop_on_error = Option("on_error", "continue") == "stop";
    options.max_failures = std::stod(Option("max_failures", "-1"));
    options.max_failures_share = std::stod(Option("max_failures_share", "-1"));
    options.stop_when_all_fail = Option("stop_when_all_fail", "on") == "on";
    options.budget.calls = std::stoll(Option("most_calls", "-1"));
    options.budget.tokens = std::stoll(Option("most_tokens", "-1"));
    const int64_t most_ms = std::stoll(Option("most_ms", "-1"));
    options.budget.time_us = most_ms < 0 ? -1 : most_ms * 1000;
    options.tools = &tools;
    options.tool_setup.concurrency = std::stoi(Option("tools", "32"));
    options.tool_setup.share = Option("tool_cache", "on") == "on";
    for (const Operator& op : rig.workflow.operators) {
      const auto* sql = op.is_inference() ? nullptr : std::get_if<SqlSpec>(&op.tool->what);
      if (sql != nullptr)
        options.tool_setup.connections[sql->connection] = {
            SqlDialect::kDuckDb, {}, {}, Option("writes_spread", "") == "true"};
    }
    OutcomeObserver observer(outcome);
    const StopFlag stop{0};
    outcome.report = Executor({source}, options, rig.clock, &observer).Run(stop);
    outcome.rows = sink.rows;
    outcome.output_finished = sink.finished;
    outcome.elapsed_us = rig.clock.NowUs();
    return outcome;
  }

  std::set<std::string> RulesOff(bool naive) const {
    std::set<std::string> off = naive ? RulesOffForNaive() : std::set<std::string>();
    std::istringstream names(Option("rules_off", ""));
    for (std::string name; std::getline(names, name, ',');) off.insert(name);
    return off;
  }

  void CheckExplain(const std::string& plan) const {
    size_t from = 0;
    for (const TestLine& line : file_.explain) {
      const size_t found = plan.find(line.text, from);
      if (found == std::string::npos) {
        HALOTEST_FAILURE(line.number)
            << "the plan does not say (there or later): " << line.text << "\n"
            << plan;
      } else {
        from = found + line.text.size();
      }
    }
  }

  static const OperatorCounts* CountsOf(const Outcome& outcome, const std::string& op) {
    for (const OperatorCounts& counts : outcome.report.operators) {
      if (counts.id == op) return &counts;
    }
    return nullptr;
  }

  static std::string Joined(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : ",") + word;
    return text;
  }

  /// The value that a rule asks for, as text; nothing if there is no such property.
  static std::optional<std::string> Property(const EnsureRule& rule, const Outcome& outcome) {
    static const std::map<std::string, int64_t OperatorCounts::*> kCounts = {
        {"logical", &OperatorCounts::logical},
        {"merged", &OperatorCounts::merged},
        {"distinct", &OperatorCounts::distinct},
        {"executed", &OperatorCounts::executed},
        {"failed", &OperatorCounts::failed},
        {"skipped", &OperatorCounts::skipped},
        {"nulled", &OperatorCounts::nulled},
        {"unfinished", &OperatorCounts::unfinished},
        {"calls", &OperatorCounts::calls},
        {"prompt_tokens", &OperatorCounts::prompt_tokens},
        {"output_tokens", &OperatorCounts::output_tokens},
        {"busy_us", &OperatorCounts::busy_us}};
    static const std::map<std::string, std::map<std::string, std::vector<std::string>> Outcome::*>
        kLists = {{"order", &Outcome::started},
                  {"end_order", &Outcome::ended},
                  {"start_ms", &Outcome::start_ms},
                  {"finish", &Outcome::finishes}};
    if (const auto count = kCounts.find(rule.name); count != kCounts.end()) {
      const OperatorCounts* counts = CountsOf(outcome, rule.argument);
      if (counts == nullptr) return std::nullopt;
      return std::to_string(counts->*count->second);
    }
    if (const auto list = kLists.find(rule.name); list != kLists.end()) {
      const auto& lists = outcome.*list->second;
      return lists.contains(rule.argument) ? Joined(lists.at(rule.argument)) : "";
    }
    if (rule.name == "peak_running") {
      return std::to_string(outcome.peak_running.contains(rule.argument)
                                ? outcome.peak_running.at(rule.argument)
                                : 0);
    }
    return RunProperty(rule, outcome);
  }

  static std::optional<std::string> RunProperty(const EnsureRule& rule, const Outcome& outcome) {
    const RunReport& report = outcome.report;
    if (rule.name == "rows_ok") return std::to_string(report.counts.rows_ok);
    if (rule.name == "rows_failed") return std::to_string(report.counts.rows_failed);
    if (rule.name == "rows_opened") return std::to_string(report.counts.rows_opened);
    if (rule.name == "rows_unfinished") return std::to_string(report.rows_unfinished);
    if (rule.name == "calls_done") return std::to_string(report.counts.calls_done);
    if (rule.name == "peak_open_rows") return std::to_string(report.peak_open_rows);
    if (rule.name == "elapsed_ms") return std::to_string(outcome.elapsed_us / 1000);
    if (rule.name == "output_finished") return outcome.output_finished ? "true" : "false";
    if (rule.name == "end") {
      return report.end == RunEnd::kFinished  ? "finished"
             : report.end == RunEnd::kStopped ? "stopped"
                                              : "interrupted";
    }
    if (rule.name == "stopped_by") return StopCauseName(report.stop_cause);
    if (rule.name == "tokens") {
      int64_t tokens = 0;
      for (const OperatorCounts& counts : report.operators)
        tokens += counts.prompt_tokens + counts.output_tokens;
      return std::to_string(tokens);
    }
    return std::nullopt;
  }

  void CheckEnsure(const Outcome& outcome) const {
    for (const EnsureRule& rule : file_.ensure) {
      const std::optional<std::string> actual = Property(rule, outcome);
      const std::string said = rule.name + (rule.argument.empty() ? "" : "(" + rule.argument + ")");
      if (!actual) {
        HALOTEST_FAILURE(rule.line) << "there is no " << said;
        continue;
      }
      bool holds = *actual == rule.value;
      if (rule.comparison == ">=") holds = std::stoll(*actual) >= std::stoll(rule.value);
      if (rule.comparison == "<=") holds = std::stoll(*actual) <= std::stoll(rule.value);
      if (!holds)
        HALOTEST_FAILURE(rule.line)
            << said << " is " << *actual << ", not " << rule.comparison << rule.value;
    }
  }

  /// Line breaks at the end do not count: a section cannot show them.
  static std::string WithoutEnd(std::string text) {
    while (text.ends_with('\n')) text.pop_back();
    return text;
  }

  void CheckPrompts(const Outcome& outcome) const {
    for (const PromptRule& rule : file_.prompts) {
      const auto found = outcome.prompts.find({rule.op, rule.row});
      if (found == outcome.prompts.end()) {
        HALOTEST_FAILURE(rule.line) << "there was no call " << rule.op << "(" << rule.row << ")";
      } else if (WithoutEnd(found->second) != WithoutEnd(rule.text)) {
        HALOTEST_FAILURE(rule.line) << "the prompt of " << rule.op << "(" << rule.row << ") is\n"
                                    << found->second << "\n--- and not\n"
                                    << rule.text;
      }
    }
  }

  void CheckRows(const Outcome& outcome) const {
    if (!file_.has_expect) return;
    for (size_t i = 0; i < std::max(outcome.rows.size(), file_.expect.size()); ++i) {
      if (i >= outcome.rows.size()) {
        HALOTEST_FAILURE(file_.expect[i].number) << "the row is missing: " << file_.expect[i].text;
        continue;
      }
      if (i >= file_.expect.size()) {
        HALOTEST_FAILURE(file_.expect.empty() ? 1 : file_.expect.back().number)
            << "one more row: " << outcome.rows[i].dump();
        continue;
      }
      const Json expected = Json::parse(file_.expect[i].text, nullptr, false);
      if (!expected.is_object()) {
        HALOTEST_FAILURE(file_.expect[i].number) << "an expected row is a JSON object";
      } else if (!SameAsFarAsGiven(expected, outcome.rows[i])) {
        HALOTEST_FAILURE(file_.expect[i].number)
            << "expected " << expected.dump() << "\n     got " << outcome.rows[i].dump();
      }
    }
  }

  /// Rows that are as expected keep their lines; new ones have the keys that the old ones had.
  void Update(const Outcome& outcome) const {
    std::vector<std::string> lines;
    for (size_t i = 0; i < outcome.rows.size(); ++i) {
      const Json& row = outcome.rows[i];
      Json shown = row;
      if (!file_.expect.empty()) {
        const std::string& line = file_.expect[std::min(i, file_.expect.size() - 1)].text;
        const Json old = Json::parse(line, nullptr, false);
        if (i < file_.expect.size() && old.is_object() && SameAsFarAsGiven(old, row)) {
          lines.push_back(line);
          continue;
        }
        if (old.is_object()) {
          shown = Json::object();
          for (const auto& [key, value] : old.items()) {
            if (row.contains(key)) shown[key] = row[key];
          }
        }
      }
      lines.push_back(shown.dump());
    }
    if (file_.has_expect) ReplaceExpectations(file_, lines);
  }

  const HalotestFile& file_;
};

}  // namespace

void RunHalotest(const HalotestFile& file, bool update) { HalotestRunner(file).Run(update); }

}  // namespace halo::test
