// How instances end, and what follows for those that depend on them.
#include <algorithm>
#include <map>

#include "base/check.h"
#include "runtime/executor_impl.h"

namespace halo {
namespace {

using State = InstanceState;

std::string_view Trimmed(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

/// What an answer says: the JSON of a schema's, or its text. Throws Failure where it is not what
/// the schema asks for.
nlohmann::ordered_json ReadAnswer(const Operator& op, const Completion& completion) {
  if (op.schema == nullptr) return completion.text;
  nlohmann::ordered_json value;
  const bool cut = completion.finish == FinishReason::kMaxTokens;
  if (std::optional<Failure> fault = op.schema->Check(completion.text, cut, value))
    throw std::move(*fault);
  return value;
}

/// What a vote counts: blanks around a text do not.
std::string Ballot(const nlohmann::ordered_json& value) {
  return value.is_string()
             ? std::string(Trimmed(value.get_ref<const std::string&>()))
             : value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

/// The most frequent sample; ties go to the lowest.
size_t Elect(const std::vector<nlohmann::ordered_json>& values) {
  std::map<std::string, size_t> votes;
  for (const auto& value : values) ++votes[Ballot(value)];
  size_t best = 0;
  for (size_t i = 1; i < values.size(); ++i) {
    if (votes[Ballot(values[i])] > votes[Ballot(values[best])]) best = i;
  }
  return best;
}

}  // namespace

/// All inputs have ended: the instance becomes ready or ends without a call. False if it ended,
/// which its consumers have not been told yet.
bool Executor::Impl::StartOrSkip(RowState& row, OperatorIndex op) {
  const LogicalNode& node = PlanOf(row).at(op);
  const bool is_wanted = node.wanted_by.empty() ||
                         std::any_of(node.wanted_by.begin(), node.wanted_by.end(),
                                     [&](OperatorIndex guard) { return GoesAhead(row, guard); });
  if (!is_wanted) {
    EndWithoutCall(row, op, InstanceEnd::kOmitted);
    return false;
  }
  Instance& instance = At(row, op);
  if (instance.lacks_input) {
    // Conditions are asked before it is missed.
    if (GoesAhead(row, op)) {
      Abandon(row, op);
    } else {
      instance.skip = SkipReason::kCondition;
      EndWithoutCall(row, op, InstanceEnd::kSkipped);
    }
    return false;
  }
  try {
    instance.skip = WhySkipped(row, op);
    if (instance.skip != SkipReason::kNone) {
      EndWithoutCall(row, op, InstanceEnd::kSkipped);
      return false;
    }
  } catch (Failure& failure) {
    FailInstance(row, op, std::move(failure));
    return true;
  }
  MakeReady(row, op);
  return true;
}

SkipReason Executor::Impl::WhySkipped(const RowState& row, OperatorIndex op) const {
  const Operator& what = PlanOf(row).operator_of(op);
  const bool gone = std::any_of(what.names.begin(), what.names.end(),
                                [&](const NameBinding& name) { return IsGone(row, name); });
  if (!gone) return ConditionsHold(row, what) ? SkipReason::kNone : SkipReason::kCondition;
  // Skipped either way. By its conditions if they say so, since then nothing else is needed.
  return GoesAhead(row, op) ? SkipReason::kInput : SkipReason::kCondition;
}

/// Skipped, and the instance that reads it cannot do without.
bool Executor::Impl::IsGone(const RowState& row, const NameBinding& name) const {
  return name.required && !name.producers.empty() &&
         std::all_of(name.producers.begin(), name.producers.end(), [&](OperatorIndex producer) {
           return At(row, producer).end == InstanceEnd::kSkipped;
         });
}

/// Throws Failure where a condition has no answer.
bool Executor::Impl::ConditionsHold(const RowState& row, const Operator& op) const {
  // In order: once a loop is over, what later iterations said is not there to be asked.
  for (const Condition& until : op.over) {
    if (Holds(row, until)) return false;
  }
  return op.when.expression == nullptr || Holds(row, op.when);
}

/// False if the operator's conditions say, or will never be asked, that the instance does nothing
/// with its inputs. What they look at has ended.
bool Executor::Impl::GoesAhead(const RowState& row, OperatorIndex op) const {
  const auto can_answer = [&](OperatorIndex input) {
    const InstanceEnd end = At(row, input).end;
    return end != InstanceEnd::kFailed && end != InstanceEnd::kUnfinished &&
           end != InstanceEnd::kOmitted;
  };
  const std::vector<OperatorIndex>& asked =
      states[row.source].condition_inputs[static_cast<size_t>(op)];
  if (!std::all_of(asked.begin(), asked.end(), can_answer)) return false;
  try {
    return ConditionsHold(row, PlanOf(row).operator_of(op));
  } catch (const Failure&) {
    return true;  // it fails when its turn comes
  }
}

bool Executor::Impl::Holds(const RowState& row, const Condition& condition) const {
  std::map<std::string, nlohmann::ordered_json> values{{"row", row.row.values}};
  for (const NameBinding& name : condition.names)
    values.emplace(name.name, ValueOf(row, name, nullptr));
  return condition.expression->IsTrue(values);
}

/// What a name stands for in this row; null for what was skipped, nulled or not there yet. `answer`
/// (if asked for) is set where the value is the text of an answer, `tool` where a tool gave it.
nlohmann::ordered_json Executor::Impl::ValueOf(const RowState& row, const NameBinding& name,
                                               const Conversation** answer,
                                               const Operator** tool) const {
  if (!name.column.empty()) {
    const auto found = row.row.values.find(name.column);
    if (found == row.row.values.end()) {
      throw Failure{"", "missing_column", "the row has no column '" + name.column + "'", false};
    }
    return *found;
  }
  for (const OperatorIndex producer : name.producers) {
    const Instance& instance = At(row, producer);
    if (instance.end == InstanceEnd::kSkipped) continue;
    if (instance.end != InstanceEnd::kOk) return nullptr;
    const Operator& what = PlanOf(row).operator_of(producer);
    if (!what.is_inference()) {
      if (tool != nullptr) *tool = &what;
      return ToolOutput(*what.tool, *instance.result, name.field);
    }
    const Conversation& conversation = *instance.conversation;
    if (!conversation.answer_value) {
      if (answer != nullptr) *answer = &conversation;
      return conversation.answer_text;
    }
    if (name.field.empty()) return *conversation.answer_value;
    const auto field = conversation.answer_value->find(name.field);
    return field == conversation.answer_value->end() ? nlohmann::ordered_json() : *field;
  }
  return nullptr;
}

void Executor::Impl::MakeReady(RowState& row, OperatorIndex op) {
  Instance& instance = At(row, op);
  HALO_CHECK(instance.state == State::kWaiting, "instances only go forward");
  instance.state = State::kReady;
  states[row.source].ready[static_cast<size_t>(op)].push(&row);
}

/// A call's completion reaches one of the instances that waited for it.
void Executor::Impl::EndInstance(RowState& row, OperatorIndex op, const Completion& completion,
                                 const Call& call, bool merged) {
  Instance& instance = At(row, op);
  instance.prompt_tokens += completion.prompt_tokens;
  instance.output_tokens += completion.output_tokens;
  if (observer != nullptr) {
    std::optional<CacheQuestion> question;
    if (options.only_known && MayCache(row, op)) question = QuestionOf(row, op, call);
    observer->OnCall({PlanOf(row).operator_of(op), row.row, call.request,
                      AskedBy(row, op, call.sample).prompt, completion, row.source, merged,
                      call.engine, question ? &*question : nullptr});
  }
  if (instance.samples != nullptr) return EndSample(row, op, completion, call);
  if (completion.failure) return FailInstance(row, op, *completion.failure);
  if (row.cancelled)
    return FailInstance(row, op, {"", "cancelled", "the row was cancelled", false});
  // The engine watches the deadline of the row that made the call only.
  const bool late = merged && row.deadline_us > 0 && clock.NowUs() > row.deadline_us;
  if (late)
    return FailInstance(row, op,
                        {"", "deadline", "the row took longer than its deadline allows", false});
  const Operator& what = PlanOf(row).operator_of(op);
  const bool is_list = what.samples > 1 && !what.vote;
  if (what.schema == nullptr && !is_list) return TakeAnswer(row, op, completion, std::nullopt);
  nlohmann::ordered_json value;
  try {
    value = ReadAnswer(what, completion);
  } catch (Failure& failure) {
    if (RepairAnswer(row, op, 0, completion, failure)) return;
    return FailInstance(row, op, std::move(failure));
  }
  // Greedy samples are all alike, so one call was made for them.
  if (is_list)
    value = nlohmann::ordered_json(
        std::vector<nlohmann::ordered_json>(static_cast<size_t>(what.samples), value));
  TakeAnswer(row, op, completion, std::move(value));
}

/// One of several samples is there. With the last one the instance ends: what came of it does not
/// depend on the order in which they came.
void Executor::Impl::EndSample(RowState& row, OperatorIndex op, const Completion& completion,
                               const Call& call) {
  Instance& instance = At(row, op);
  SampleSet& samples = *instance.samples;
  const Operator& what = PlanOf(row).operator_of(op);
  try {
    if (!completion.failure && what.repair > 0) ReadAnswer(what, completion);
  } catch (const Failure& failure) {
    if (RepairAnswer(row, op, call.sample, completion, failure)) return;
  }
  samples.answers[static_cast<size_t>(call.sample)] = completion;
  ++samples.done;
  if (samples.done < static_cast<int32_t>(samples.answers.size())) return;
  if (row.cancelled)
    return FailInstance(row, op, {"", "cancelled", "the row was cancelled", false});
  std::vector<nlohmann::ordered_json> values;
  try {
    for (const auto& answer : samples.answers) {
      if (answer->failure) throw *answer->failure;
      values.push_back(ReadAnswer(what, *answer));
    }
  } catch (Failure& failure) {
    return FailInstance(row, op, std::move(failure));
  }
  const size_t chosen = what.vote ? Elect(values) : 0;
  const Completion winner = std::move(*samples.answers[chosen]);
  instance.samples.reset();
  TakeAnswer(row, op, winner, what.vote ? values[chosen] : nlohmann::ordered_json(values));
}

/// An answer does not fit its schema: the model is told what is wrong with it and asked again, as
/// often as `repair` says. What it said before is no part of the conversation that others go on
/// with. False if the answer stands: then the instance fails by it.
bool Executor::Impl::RepairAnswer(RowState& row, OperatorIndex op, int32_t sample,
                                  const Completion& answer, const Failure& fault) {
  Instance& instance = At(row, op);
  const int32_t round = RoundOf(row, op, sample);
  if (row.cancelled || round >= PlanOf(row).operator_of(op).repair) return false;
  if (stopping) return is_left_for_later();
  Conversation refused = AskedBy(row, op, sample);
  refused.answer_text = answer.text;
  refused.answer_tokens = answer.tokens;
  refused.answer_cut = answer.cut;
  refused.answer_ended = answer.finish == FinishReason::kEndToken;
  const PromptBuilder& builder = *states[row.source].builders[static_cast<size_t>(op)];
  Again again;
  try {
    Repair repair{round + 1, builder.Repair(refused, fault.message)};
    if (instance.repairs == nullptr)
      instance.repairs = std::make_unique<std::map<int32_t, Repair>>();
    instance.repairs->insert_or_assign(sample, std::move(repair));
    Ask(row, op, sample, again.call);
  } catch (const Failure&) {
    return false;  // it cannot be asked: what was wrong with the answer says more
  }
  // What later calls begin with is the new call's to keep.
  const int32_t consumers = instance.request == 0 ? 0 : KeepFor(row, op).consumers;
  if (consumers > 0) again.call.engine->Release(instance.request, consumers);
  if (instance.samples == nullptr) instance.request = 0;
  AddressRequest(row, op, sample, again.call.request);
  if (instance.samples != nullptr)
    instance.samples->requests[static_cast<size_t>(sample)] = again.call.request.id;
  again.failed.failure = fault;
  due_retries.push_back(std::move(again));
  return true;
}

/// The instance has its output: `value`, which is made of the text of `completion`; none: the text.
void Executor::Impl::TakeAnswer(RowState& row, OperatorIndex op, const Completion& completion,
                                std::optional<nlohmann::ordered_json> value) {
  Instance& instance = At(row, op);
  Conversation& conversation = *instance.conversation;
  conversation.answer_text = completion.text;
  conversation.answer_tokens = completion.tokens;
  conversation.answer_cut = completion.cut;
  conversation.answer_ended = completion.finish == FinishReason::kEndToken;
  if (value && *value != completion.text) conversation.answer_value = std::move(value);
  if (instance.readers_left == 0) {
    conversation.messages.clear();
    conversation.prompt = {};
  }
  Close(row, op, InstanceEnd::kOk);
  Propagate(row, op);
}

/// The only way to kDone.
void Executor::Impl::Close(RowState& row, OperatorIndex op, InstanceEnd end) {
  Instance& instance = At(row, op);
  HALO_CHECK(instance.state != State::kDone, "an instance ends once");
  instance.state = State::kDone;
  instance.end = end;
  instance.repairs.reset();
  ++CountsOf(row, op).ended;
  if (--row.open_instances > 0) return;
  row.ended_us = clock.NowUs();
  Settle(row);
  if (options.journal != nullptr) row.journaled = options.journal->appended();
  NoteRowEnd(row);
  if (!options.input_order) ended_rows.emplace_back(row.source, row.row.index);
}

/// [operators] true for instances that what the row shows came from. It follows from what
/// conditions said, not from what was run besides, and so is the same for every plan.
std::vector<bool> Executor::Impl::NeededInstances(const RowState& row) const {
  const LogicalPlan& plan = PlanOf(row);
  std::vector<bool> needed(plan.nodes.size());
  for (size_t i = plan.nodes.size(); i > 0; --i) {
    const LogicalNode& node = plan.nodes[i - 1];
    if (node.shown) needed[i - 1] = true;
    if (!needed[i - 1]) continue;
    const auto need = [&](OperatorIndex input) { needed[static_cast<size_t>(input)] = true; };
    const Instance& instance = row.instances[i - 1];
    const std::vector<OperatorIndex>& asked = states[row.source].condition_inputs[i - 1];
    std::for_each(asked.begin(), asked.end(), need);
    if (instance.skip == SkipReason::kCondition) continue;
    if (instance.skip == SkipReason::kInput) {
      for (const NameBinding& name : plan.operator_of(node.op).names) {
        if (IsGone(row, name)) std::for_each(name.producers.begin(), name.producers.end(), need);
      }
      continue;
    }
    const bool was_not_asked =
        instance.end == InstanceEnd::kUnfinished &&
        std::any_of(asked.begin(), asked.end(), [&](OperatorIndex input) {
          const InstanceEnd end = At(row, input).end;
          return end == InstanceEnd::kFailed || end == InstanceEnd::kUnfinished;
        });
    if (!was_not_asked) std::for_each(node.inputs.begin(), node.inputs.end(), need);
  }
  return needed;
}

/// All instances have ended: what the row says of itself.
void Executor::Impl::Settle(RowState& row) {
  if (row.failure) return;  // it could not be read
  const LogicalPlan& plan = PlanOf(row);
  const std::vector<bool> needed = NeededInstances(row);
  for (const LogicalNode& node : plan.nodes) {
    const auto at = static_cast<size_t>(node.op);
    const Instance& instance = row.instances[at];
    if (!needed[at]) continue;
    row.prompt_tokens += instance.prompt_tokens;
    row.output_tokens += instance.output_tokens;
    if (instance.end == InstanceEnd::kSkipped) row.skipped.push_back(node.op);
  }
  // The first operator in order is to blame, whichever failed first.
  OperatorIndex first = -1;
  for (auto& [op, failure] : row.failures) {
    if (!needed[static_cast<size_t>(op)] || (first >= 0 && op > first)) continue;
    first = op;
    row.failure = failure;
  }
  row.failures.clear();
}

/// `op` has ended: who waited for it goes on, or ends unfinished where it cannot do without what a
/// failed one would have said.
void Executor::Impl::Propagate(RowState& row, OperatorIndex op) {
  std::vector<OperatorIndex> ended = {op};
  while (!ended.empty()) {
    const OperatorIndex current = ended.back();
    ended.pop_back();
    const InstanceEnd end = At(row, current).end;
    const bool is_missing = end == InstanceEnd::kFailed || end == InstanceEnd::kUnfinished;
    for (const Waiter& waiter : states[row.source].waiters[static_cast<size_t>(current)]) {
      Instance& instance = At(row, waiter.op);
      if (is_missing && waiter.reads) {
        if (!waiter.is_conditional || waiter.asks) {
          if (Abandon(row, waiter.op)) ended.push_back(waiter.op);
          continue;
        }
        instance.lacks_input = true;
      }
      if (--instance.inputs_left > 0 || instance.state != State::kWaiting) continue;
      if (!StartOrSkip(row, waiter.op)) ended.push_back(waiter.op);
    }
  }
}

void Executor::Impl::FailInstance(RowState& row, OperatorIndex op, Failure failure) {
  const Operator& what = PlanOf(row).operator_of(op);
  Instance& instance = At(row, op);
  const bool was_built = instance.conversation != nullptr || instance.built;
  if (!was_built) {
    // It failed before a call could be made: it counts as one that was tried.
    CountStart(row, op);
    ReleaseKvOf(row, op);
    DropReads(row, op);
  }
  // Nobody waits for a row that was given up.
  const bool row_is_over = row.cancelled || failure.code == "cancelled" ||
                           (failure.code == "deadline" && row.deadline_us > 0);
  // What is not known may be no failure at all.
  const OnError on_error = row_is_over || options.only_known ? OnError::kFail : what.on_error;
  if (on_error != OnError::kFail) {
    if (on_error == OnError::kNull) ++CountsOf(row, op).nulled;
    Close(row, op, on_error == OnError::kNull ? InstanceEnd::kNulled : InstanceEnd::kSkipped);
    Propagate(row, op);
    return;
  }
  ++CountsOf(row, op).failed;
  if (failure.operator_id.empty()) failure.operator_id = what.id;
  row.failures.emplace_back(op, std::move(failure));
  Close(row, op, InstanceEnd::kFailed);
  Propagate(row, op);
}

/// It is skipped or omitted.
void Executor::Impl::EndWithoutCall(RowState& row, OperatorIndex op, InstanceEnd end) {
  OperatorCounts& counts = CountsOf(row, op);
  ++counts.distinct;
  ++counts.skipped;
  ReleaseKvOf(row, op);
  DropReads(row, op);
  Close(row, op, end);
}

/// It will never have what it reads. False if it had ended before.
bool Executor::Impl::Abandon(RowState& row, OperatorIndex op) {
  if (At(row, op).state != State::kWaiting) return false;
  OperatorCounts& counts = CountsOf(row, op);
  ++counts.distinct;
  ++counts.unfinished;
  ReleaseKvOf(row, op);
  DropReads(row, op);
  Close(row, op, InstanceEnd::kUnfinished);
  return true;
}

/// The plan leaves it out: it counts nowhere, and nobody waits for it.
void Executor::Impl::Omit(RowState& row, OperatorIndex op) {
  ReleaseKvOf(row, op);
  DropReads(row, op);
  Close(row, op, InstanceEnd::kUnfinished);
}

void Executor::Impl::ReleaseKvOf(RowState& row, OperatorIndex op) {
  const OperatorIndex source = PlanOf(row).at(op).kv_source;
  if (source < 0 || options.naive) return;
  const RequestId request = At(row, source).request;
  const LogicalNode& node = PlanOf(row).at(op);
  if (request != 0)
    sources[row.source].models[static_cast<size_t>(node.model)].engine->Release(request, 1);
}

/// This operator will not look at what the others said again.
void Executor::Impl::DropReads(RowState& row, OperatorIndex op) {
  for (const OperatorIndex read : states[row.source].reads[static_cast<size_t>(op)]) {
    Instance& instance = At(row, read);
    HALO_CHECK(instance.readers_left > 0, "readers are counted");
    if (--instance.readers_left > 0 || instance.state != State::kDone) continue;
    // An output of the row stays.
    if (!options.all_outputs && !PlanOf(row).operator_of(read).is_end) instance.result.reset();
    if (!instance.conversation) continue;
    // The answer stays for the row's outputs; what only others' prompts need goes.
    instance.conversation->messages = {};
    instance.conversation->prompt = {};
    instance.conversation->answer_tokens = {};
  }
}

}  // namespace halo
