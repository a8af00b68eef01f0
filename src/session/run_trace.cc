#include "session/run_trace.h"

#include <fmt/format.h>

#include <string_view>
#include <utility>

#include "base/text.h"

namespace halo {
namespace {

using Lane = TraceFile::Lane;

constexpr int32_t kScheduler = 1, kTools = 2, kFirstEngine = 3;  // processes
constexpr Lane kPhases{kScheduler, 1}, kRows{kScheduler, 2};
constexpr int32_t kPasses = 1, kCopies = 2, kModel = 3, kNotBegun = 4, kFirstCall = 10;  // threads
constexpr int32_t kMostSlots = 100'000;  // of a target, in ranks

struct SpanWords {
  const char* name;
  int32_t thread;
  bool is_pass;
};

SpanWords WordsOf(EngineSpan::Kind kind) {
  switch (kind) {
    case EngineSpan::Kind::kPrefill:
      return {"prefill", kPasses, true};
    case EngineSpan::Kind::kDecode:
      return {"decode", kPasses, true};
    case EngineSpan::Kind::kSpill:
      return {"spill", kCopies, false};
    case EngineSpan::Kind::kRestore:
      return {"restore", kCopies, false};
    case EngineSpan::Kind::kCopy:
      return {"copy", kCopies, false};
    case EngineSpan::Kind::kLoad:
      return {"load model", kModel, false};
    case EngineSpan::Kind::kLayOut:
      return {"lay out KV", kModel, false};
    case EngineSpan::Kind::kRestart:
      return {"restart process", kModel, false};
  }
  return {"?", kModel, false};
}

/// A row's id; a long one's beginning.
nlohmann::ordered_json ShortId(const nlohmann::ordered_json& id) {
  constexpr size_t kMostBytes = 100;
  if (!id.is_string() || id.get_ref<const std::string&>().size() <= kMostBytes) return id;
  const std::string_view text = std::string_view(id.get_ref<const std::string&>());
  return std::string(text.substr(0, CompleteUtf8Length(text.substr(0, kMostBytes)))) + "...";
}

TraceFile::Arguments WhoAsked(const Operator& op, const Row& row, size_t source, int32_t attempt,
                              const std::optional<Failure>& failure) {
  TraceFile::Arguments arguments = {
      {"operator", op.id}, {"row", ShortId(row.id)}, {"source", source}};
  if (attempt > 0) arguments["attempt"] = attempt;
  if (failure) arguments["failed"] = failure->code;
  return arguments;
}

}  // namespace

size_t TraceSlots::Take(int64_t start_us, int64_t end_us) {
  size_t best = busy_until_us_.size();
  for (size_t slot = 0; slot < busy_until_us_.size(); ++slot) {
    const bool is_free = busy_until_us_[slot] <= start_us;
    const bool is_better =
        best == busy_until_us_.size() || busy_until_us_[slot] > busy_until_us_[best];
    if (is_free && is_better) best = slot;
  }
  if (best == busy_until_us_.size()) busy_until_us_.push_back(0);
  busy_until_us_[best] = end_us;
  return best;
}

RunTrace::RunTrace(const std::string& path, int64_t start_us, const Clock& clock)
    : clock_(clock), file_(path, start_us) {
  file_.NameProcess(kScheduler, "scheduler");
  file_.NameThread(kPhases, "run", 1);
  file_.NameThread(kRows, "rows", 2);
}

void RunTrace::AddEngine(const std::string& name, const Engine& front, int32_t worker,
                         std::function<Engine*()> replica) {
  const auto process = kFirstEngine + static_cast<int32_t>(workers_.size());
  worker_of_.emplace(std::pair(&front, worker), workers_.size());
  workers_.push_back({std::move(replica), process, {}});
  file_.NameProcess(process, fmt::format("worker {}: {}", worker, name));
  file_.NameThread({process, kPasses}, "passes", kPasses);
  file_.NameThread({process, kCopies}, "copies of KV", kCopies);
  file_.NameThread({process, kModel}, "model", kModel);
}

void RunTrace::AddPhase(const std::string& name, int64_t start_us, int64_t end_us) {
  file_.AddSpan(kPhases, name, start_us, end_us);
}

void RunTrace::AddNote(const std::string& text, int64_t time_us) {
  file_.AddInstant(kPhases, text, time_us);
}

void RunTrace::OnAttempt(const CallRecord& call) {
  Worker& worker = workers_.at(worker_of_.at({call.engine, call.completion.worker}));
  const Completion& done = call.completion;
  TraceFile::Arguments arguments =
      WhoAsked(call.op, call.row, call.source, call.request.script_attempt, done.failure);
  if (call.op.samples > 1) arguments["sample"] = call.request.script_sample;
  if (done.started_us == 0) {
    const Lane lane{worker.process, kNotBegun};
    if (!std::exchange(worker.has_not_begun, true))
      file_.NameThread(lane, "calls that ended before they began", kNotBegun);
    return file_.AddInstant(lane, call.op.id,
                            done.finished_us > 0 ? done.finished_us : clock_.NowUs(), arguments);
  }
  arguments.update({{"prompt_tokens", done.prompt_tokens},
                    {"reused_tokens", done.reused_tokens},
                    {"prefilled_tokens", done.prefilled_tokens},
                    {"recomputed_tokens", done.recomputed_tokens},
                    {"output_tokens", done.output_tokens},
                    {"engine_us", done.engine_us}});
  const size_t known = worker.calls.size();
  const size_t slot = worker.calls.Take(done.started_us, done.finished_us);
  const Lane lane{worker.process, kFirstCall + static_cast<int32_t>(slot)};
  if (slot == known) file_.NameThread(lane, fmt::format("calls, slot {}", slot + 1), lane.thread);
  file_.AddSpan(lane, call.op.id, done.started_us, done.finished_us, arguments);
}

void RunTrace::OnToolAttempt(const ToolCallRecord& call) {
  const ToolCompletion& done = call.completion;
  if (targets_.empty()) file_.NameProcess(kTools, "tools");
  const auto [place, is_new] = targets_.try_emplace(call.target);
  Target& target = place->second;
  if (is_new) target.rank = static_cast<int32_t>(targets_.size()) * kMostSlots;
  TraceFile::Arguments arguments =
      WhoAsked(call.op, call.row, call.source, call.call.script_attempt, done.failure);
  if (done.cpu_us) arguments["cpu_us"] = *done.cpu_us;
  // A call that never began has no length.
  const int64_t end_us = done.finished_us > 0 ? done.finished_us : clock_.NowUs();
  const int64_t start_us = done.started_us > 0 ? done.started_us : end_us;
  const size_t slot = target.slots.Take(start_us, end_us);
  if (slot == target.threads.size()) {
    target.threads.push_back(++tool_threads_);
    file_.NameThread({kTools, tool_threads_}, fmt::format("{}, slot {}", call.target, slot + 1),
                     target.rank + static_cast<int32_t>(slot));
  }
  file_.AddSpan({kTools, target.threads[slot]}, call.op.id, start_us, end_us, arguments);
}

void RunTrace::OnRow(size_t source, const RowResult& row) {
  file_.AddInstant(kRows, row.failure ? "row failed" : "row written", clock_.NowUs(),
                   {{"row", ShortId(row.id)}, {"source", source}});
}

void RunTrace::Count(std::string_view name, int64_t now_us, int64_t value, int64_t& last) {
  if (std::exchange(last, value) != value) file_.AddCounter(kScheduler, name, now_us, value);
}

void RunTrace::OnTurn(const RunCounts& counts) {
  constexpr int64_t kFlushEveryUs = 1'000'000;
  const int64_t now_us = clock_.NowUs();
  const int64_t opened = counts.rows_opened - std::exchange(rows_opened_, counts.rows_opened);
  if (opened > 0) file_.AddInstant(kRows, "rows opened", now_us, {{"rows", opened}});
  Count("rows open", now_us, counts.rows_opened - counts.rows_ok - counts.rows_failed, rows_open_);
  Count("calls in flight", now_us, counts.calls_running, calls_in_flight_);
  Count("answers from the cache", now_us, counts.from_cache, from_cache_);
  for (Worker& worker : workers_) TakeSpans(worker);
  if (now_us - last_flush_us_ < kFlushEveryUs) return;
  last_flush_us_ = now_us;
  file_.Flush();
}

void RunTrace::TakeSpans(Worker& worker) {
  Engine* engine = worker.engine();
  if (engine == nullptr) return;
  const EngineSpans taken = engine->TakeSpans();
  for (const EngineSpan& span : taken.spans) AddSpan(worker, span);
  file_.AddLeftOut(taken.left_out);
}

void RunTrace::AddSpan(Worker& worker, const EngineSpan& span) {
  const SpanWords words = WordsOf(span.kind);
  TraceFile::Arguments arguments;
  if (words.is_pass) {
    arguments = {{"tokens", span.tokens}, {"sequences", span.sequences}};
  } else if (words.thread == kCopies) {
    arguments = {{"tokens", span.tokens}};
  }
  file_.AddSpan({worker.process, words.thread}, words.name, span.start_us, span.end_us, arguments);
  if (!words.is_pass) return;
  if (std::exchange(worker.running, span.running) != span.running)
    file_.AddCounter(worker.process, "running sequences", span.end_us, span.running);
  if (std::exchange(worker.kv_tokens, span.kv_tokens) != span.kv_tokens)
    file_.AddCounter(worker.process, "KV tokens", span.end_us, span.kv_tokens);
}

std::string RunTrace::Finish() {
  for (Worker& worker : workers_) TakeSpans(worker);
  file_.Flush();
  if (file_.left_out() == 0) return file_.fault();
  const std::string left_out =
      Counted(file_.left_out(), "event") + " of the run left out of the trace";
  return file_.fault().empty() ? left_out : file_.fault() + "; " + left_out;
}

}  // namespace halo
