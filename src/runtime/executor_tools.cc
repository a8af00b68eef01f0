// Calls of tools: made as early as what they read is there, shared where they are equal, repeated
// where that may help.
#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/random.h"
#include "runtime/executor_impl.h"
#include "tool/function/local_function.h"

namespace halo {
namespace {

using State = InstanceState;

/// Calls of one target that are given out beyond those it runs at once, so that none is idle.
constexpr int64_t kGivenOutPerSlot = 2;

Failure Cancelled() { return {"", "cancelled", "the row was cancelled", false}; }

Failure Late() { return {"", "deadline", "the row took longer than its deadline allows", false}; }

/// A row as scripts and traces name it.
std::string ScriptRow(const RowState& row) {
  return row.row.id.is_string() ? row.row.id.get<std::string>() : row.id_text;
}

/// What a call's tool orders it by: the row's priority, then its place among rows of that.
int64_t ToolOrder(const RowState& row, int64_t order) {
  constexpr int64_t kPlaces = int64_t{1} << 31;
  return -int64_t{row.priority} * kPlaces + std::min(order, kPlaces - 1);
}

/// True for functions of the embedding program: few run at once, for any time, so that their
/// backend counts the limit of an attempt from its start.
bool BackendCountsTheLimit(const ToolCall& call) {
  const auto* function = std::get_if<FunctionCall>(&call.what);
  return function != nullptr && FindLocalFunction(function->function) == nullptr;
}

/// True for failures that say something about the row that made the call, not about the call.
bool IsOfTheRow(const Failure& failure) {
  return failure.code == "cancelled" || failure.code == "deadline";
}

}  // namespace

bool Executor::Impl::MaySubmitTool(size_t source, OperatorIndex op) const {
  const ToolCallBuilder& tool = *states[source].tools[static_cast<size_t>(op)];
  const auto found = given_out.find(tool.target());
  return found == given_out.end() || found->second < kGivenOutPerSlot * tool.at_once();
}

/// True while tools have less than a round of calls ahead of them.
bool Executor::Impl::ToolsAreHungry() const {
  return options.tools != nullptr && !options.naive &&
         static_cast<int64_t>(tool_work.size()) < kGivenOutPerSlot * options.tool_setup.concurrency;
}

void Executor::Impl::SubmitTool(RowState& row, OperatorIndex op) {
  ToolWork work;
  work.row = &row;
  work.op = op;
  try {
    if (row.cancelled) throw Cancelled();
    BuiltToolCall built = BuildToolCall(row, op);
    work.call = std::move(built.call);
    work.request = built.request;
    work.may_share = built.may_share;
  } catch (Failure& failure) {
    FailInstance(row, op, std::move(failure));
    return;
  }
  At(row, op).built = true;
  DropReads(row, op);
  if (work.may_share && !options.naive) work.signature = work.request;
  if (work.signature) AddVersions(work, *work.signature);
  // Equal reads of what is written to need not have had one result: each has its own record.
  const bool is_alone = states[row.source].is_alone[static_cast<size_t>(op)];
  if (is_alone && TakeKnownTool(row, op, work)) return;
  if (MergeTool(row, op, work)) return;
  if (!is_alone && TakeKnownTool(row, op, work)) return;
  if (options.journal != nullptr && work.call.effect == ToolEffect::kWrite)
    return BeginWrite(std::move(work));
  SendTool(std::move(work));
}

BuiltToolCall Executor::Impl::BuildToolCall(RowState& row, OperatorIndex op) const {
  const Operator& what = PlanOf(row).operator_of(op);
  std::map<std::string, nlohmann::ordered_json> values{{"row", row.row.values}};
  for (const NameBinding& name : what.names) values.emplace(name.name, ValueOf(row, name, nullptr));
  const uint64_t draw_key = SignatureBuilder()
                                .Add(static_cast<int64_t>(options.seed))
                                .Add(what.id)
                                .Add(row.id_text)
                                .Finish()
                                .low;
  BuiltToolCall built = ToolOf(row, op).Build(values, draw_key);
  built.call.order = ToolOrder(row, OrderOf(row, op));
  built.call.script_row = ScriptRow(row);
  return built;
}

/// A read shares what was read while its tables stood still: their versions belong to its key.
void Executor::Impl::AddVersions(const ToolWork& work, Signature& signature) const {
  const ToolCallBuilder& tool = ToolOf(*work.row, work.op);
  const auto found = versions.find(tool.target());
  if (found == versions.end()) return;  // nothing was written
  SignatureBuilder key;
  key.Add(signature).Add(found->second.all);
  bool stood_still = found->second.all == 0;
  for (const SqlName& name : tool.read()) {
    const auto table = found->second.tables.find(name.name);
    const int64_t version = table == found->second.tables.end() ? 0 : table->second;
    key.Add(version);
    stood_still = stood_still && version == 0;
  }
  // What was read before the first write of the run keeps its key.
  if (!stood_still) signature = key.Finish();
}

/// Before a write is sent and after it has come back: what is read in between may be either. Behind
/// a write of which it is not known what it changed there may be views: from then on none is known.
void Executor::Impl::CountWrite(const ToolWork& work) {
  if (work.call.effect != ToolEffect::kWrite) return;
  const ToolCallBuilder& tool = ToolOf(*work.row, work.op);
  TableVersions& connection = versions[tool.target()];
  const std::vector<SqlName>* written = tool.written();
  if (written == nullptr || connection.all > 0) {
    ++connection.all;
    return;
  }
  for (const SqlName& name : *written) ++connection.tables[name.name];
}

bool Executor::Impl::MergeTool(RowState& row, OperatorIndex op, const ToolWork& work) {
  if (!work.signature) return false;
  if (const ToolResult result = results.Find(*work.signature)) {
    CountMerged(row, op);
    At(row, op).state = State::kMerged;
    if (states[row.source].is_alone[static_cast<size_t>(op)])
      RecordTool(row, op, work, ToolCompletion{}, result, true);
    EndTool(row, op, work, ToolCompletion{}, result, true);
    return true;
  }
  const auto under_way = tool_work_by_signature.find(*work.signature);
  if (under_way == tool_work_by_signature.end()) return false;
  tool_work.at(under_way->second).followers.emplace_back(&row, op);
  At(row, op).state = State::kMerged;
  CountMerged(row, op);
  return true;
}

/// Gives a call to its tool.
void Executor::Impl::SendTool(ToolWork work) {
  if (options.only_known) return RefuseTool(work);
  RowState& row = *work.row;
  At(row, work.op).state = State::kSubmitted;
  CountStart(row, work.op);
  ++CountsOf(row, work.op).calls;
  ++CountsOf(row, work.op).running;
  ++calls_made;
  ++given_out[ToolOf(row, work.op).target()];
  CountWrite(work);
  work.call.id = next_request++;
  work.call.script_attempt = work.attempt;
  work.call.deadline_us = row.deadline_us;
  if (work.call.timeout_us > 0 && !BackendCountsTheLimit(work.call)) {
    const int64_t until_us = clock.NowUs() + work.call.timeout_us;
    work.call.deadline_us = row.deadline_us > 0 ? std::min(row.deadline_us, until_us) : until_us;
  }
  if (work.signature) tool_work_by_signature.emplace(*work.signature, work.call.id);
  ToolCall call = work.call;
  tool_work.emplace(call.id, std::move(work));
  options.tools->Submit(std::move(call));
}

void Executor::Impl::PollTools(int64_t deadline_us) {
  if (tool_work.empty()) return;
  for (ToolCompletion& completion : options.tools->Poll(deadline_us))
    OnToolCompletion(std::move(completion));
}

void Executor::Impl::OnToolCompletion(ToolCompletion completion) {
  const auto found = tool_work.find(completion.id);
  HALO_CHECK(found != tool_work.end(), "a tool answers each call once");
  ToolWork work = std::move(found->second);
  tool_work.erase(found);
  --given_out[ToolOf(*work.row, work.op).target()];
  --CountsOf(*work.row, work.op).running;
  CountWrite(work);
  if (work.signature) {
    const auto leader = tool_work_by_signature.find(*work.signature);
    if (leader != tool_work_by_signature.end() && leader->second == completion.id)
      tool_work_by_signature.erase(leader);
  }
  CountToolCompletion(work, completion);
  if (completion.failure) RecordSpent(work.request, Completion{}, 0);
  const bool own_limit = completion.failure && completion.failure->code == "deadline" &&
                         work.call.timeout_us > 0 &&
                         (work.row->deadline_us == 0 || clock.NowUs() < work.row->deadline_us);
  if (own_limit) {
    completion.failure =
        Failure{"", "timeout",
                "the call took longer than its limit of " +
                    nlohmann::json(static_cast<double>(work.call.timeout_us) / 1e6).dump() + " s",
                true};
  }
  if (!RetryToolLater(work, completion)) ConcludeTool(std::move(work), std::move(completion));
}

void Executor::Impl::CountToolCompletion(ToolWork& work, const ToolCompletion& completion) {
  ++report.counts.calls_done;
  CountAnswer(CountsOf(*work.row, work.op));
  if (completion.started_us > 0) {
    const int64_t busy_us = std::max<int64_t>(0, completion.finished_us - completion.started_us);
    CountsOf(*work.row, work.op).busy_us += busy_us;
    work.busy_us += busy_us;
  }
  if (observer == nullptr) return;
  const RowState& row = *work.row;
  observer->OnToolAttempt({PlanOf(row).operator_of(work.op), row.row, work.call,
                           ToolOf(row, work.op).target(), work.request, work.may_share, completion,
                           nullptr, row.source, false, work.busy_us});
}

/// True if the call is made again later: exponential back-off with jitter, and never before the
/// other side wants it.
bool Executor::Impl::RetryToolLater(ToolWork& work, ToolCompletion& completion) {
  const RetryPolicy& retry = PlanOf(*work.row).operator_of(work.op).retry;
  const bool may = completion.failure && completion.failure->retriable &&
                   (!stopping || is_left_for_later()) && !work.row->cancelled &&
                   work.attempt < retry.max;
  if (!may) return false;
  constexpr double kUsPerS = 1e6;
  const double full_s = BackOffSeconds(retry, work.attempt);
  const uint64_t key = SignatureBuilder()
                           .Add(static_cast<int64_t>(options.seed))
                           .Add("back-off")
                           .Add(work.call.script_operator)
                           .Add(work.row->id_text)
                           .Finish()
                           .low;
  const double jitter = 0.5 + 0.5 * UniformDraw(key, static_cast<uint64_t>(work.attempt));
  const int64_t wait_us =
      std::max(completion.retry_after_us, static_cast<int64_t>(full_s * jitter * kUsPerS));
  const int64_t due_us = clock.NowUs() + wait_us;
  // A row that will be over by then fails now, and whoever else waits for the call makes it.
  while (work.row->deadline_us > 0 && due_us >= work.row->deadline_us) {
    EndTool(*work.row, work.op, work, completion, nullptr, false);
    if (!PassOn(work)) return true;
  }
  ++work.attempt;
  tool_retries.emplace(due_us, ToolAgain{std::move(work), std::move(completion)});
  return true;
}

/// Gives a call whose row has ended to the first of those who wait for it and have time. False if
/// there is none.
bool Executor::Impl::PassOn(ToolWork& work) {
  while (!work.followers.empty()) {
    const auto [row, op] = work.followers.front();
    work.followers.erase(work.followers.begin());
    const bool is_late = row->deadline_us > 0 && clock.NowUs() > row->deadline_us;
    if (row->cancelled || is_late) {
      ToolCompletion over;
      over.failure = row->cancelled ? Cancelled() : Late();
      EndTool(*row, op, work, over, nullptr, true);
      continue;
    }
    work.row = row;
    work.op = op;
    // What is asked is the same; who asks is not.
    work.call.order = ToolOrder(*row, OrderOf(*row, op));
    work.call.script_operator = PlanOf(*row).operator_of(op).id;
    work.call.script_row = ScriptRow(*row);
    At(*row, op).state = State::kSubmitted;
    CountStart(*row, op);
    return true;
  }
  return false;
}

void Executor::Impl::MakeDueToolCalls() {
  while (!tool_retries.empty() && (stopping || tool_retries.begin()->first <= clock.NowUs())) {
    auto node = tool_retries.extract(tool_retries.begin());
    ToolAgain& again = node.mapped();
    const bool row_is_late =
        again.work.row->deadline_us > 0 && clock.NowUs() > again.work.row->deadline_us;
    if (!stopping && CallsAreSpent()) StopAtCalls();
    if (is_left_for_later() && !again.work.row->cancelled && !row_is_late) {
      At(*again.work.row, again.work.op).state = State::kReady;
    } else if (stopping || again.work.row->cancelled || row_is_late) {
      if (row_is_late) again.failed.failure = Late();
      if (again.work.row->cancelled) again.failed.failure = Cancelled();
      ConcludeTool(std::move(again.work), std::move(again.failed));
    } else {
      SendTool(std::move(again.work));
    }
  }
}

/// The call is over: everyone who waited for it hears of it.
void Executor::Impl::ConcludeTool(ToolWork work, ToolCompletion completion) {
  ToolResult result;
  if (!completion.failure) {
    result = std::make_shared<const nlohmann::ordered_json>(std::move(completion.value));
    if (work.signature) results.Put(*work.signature, result);
  }
  RecordTool(*work.row, work.op, work, completion, result, false);
  if (result != nullptr) KeepForLaterRuns(work, result);
  EndTool(*work.row, work.op, work, completion, result, false);
  if (work.followers.empty()) return;
  if (completion.failure && IsOfTheRow(*completion.failure)) {
    if (stopping) return;
    // The row gave it up; the first of those who wait makes it anew for all of them.
    work.attempt = 0;
    work.busy_us = 0;
    if (PassOn(work)) SendTool(std::move(work));
    return;
  }
  for (const auto& [row, op] : work.followers) {
    const bool is_alone = states[row->source].is_alone[static_cast<size_t>(op)];
    if (is_alone || completion.failure) RecordTool(*row, op, work, completion, result, true);
    EndTool(*row, op, work, completion, result, true);
  }
}

void Executor::Impl::EndTool(RowState& row, OperatorIndex op, const ToolWork& work,
                             const ToolCompletion& completion, const ToolResult& result,
                             bool merged) {
  if (observer != nullptr) {
    std::optional<CacheQuestion> question;
    if (options.only_known && MayCacheTool(row, op, work)) question = QuestionOf(row, op, work);
    observer->OnToolCall({PlanOf(row).operator_of(op), row.row, work.call, ToolOf(row, op).target(),
                          work.request, work.may_share, completion, result.get(), row.source,
                          merged, merged ? 0 : work.busy_us, question ? &*question : nullptr});
  }
  if (row.cancelled) return FailInstance(row, op, Cancelled());
  if (completion.failure) return FailInstance(row, op, *completion.failure);
  // A tool watches the deadline of the row that made the call only.
  if (merged && row.deadline_us > 0 && clock.NowUs() > row.deadline_us) {
    return FailInstance(row, op, Late());
  }
  Instance& instance = At(row, op);
  const bool is_read =
      instance.readers_left > 0 || options.all_outputs || PlanOf(row).operator_of(op).is_end;
  if (is_read) instance.result = result;
  Close(row, op, InstanceEnd::kOk);
  Propagate(row, op);
}

void Executor::Impl::CancelToolsOf(const RowState& row) {
  for (auto& [id, work] : tool_work) {
    // Others may be waiting for the same result; this row fails when it comes.
    if (work.row != &row || !work.followers.empty()) continue;
    if (work.signature) tool_work_by_signature.erase(*work.signature);
    options.tools->Cancel(id);
  }
  // What waits to be made again is due now: the next turn ends it.
  std::vector<decltype(tool_retries)::node_type> due;
  for (auto it = tool_retries.begin(); it != tool_retries.end();) {
    const auto next = std::next(it);
    if (it->second.work.row == &row) due.push_back(tool_retries.extract(it));
    it = next;
  }
  for (auto& node : due) {
    node.key() = clock.NowUs();
    tool_retries.insert(std::move(node));
  }
}

}  // namespace halo
