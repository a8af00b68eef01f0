// What earlier runs have left in the cache, and what this one leaves there.
#include <algorithm>

#include "runtime/executor_impl.h"

namespace halo {
namespace {

using State = InstanceState;

/// A part of a question: enough of a hash to see that two differ.
uint32_t PartOf(const SignatureBuilder& part) { return static_cast<uint32_t>(part.Finish().low); }

uint32_t AskerOf(const RowState& row, const Operator& op) {
  return PartOf(SignatureBuilder().Add(op.id).Add(row.id_text));
}

Failure NotKnown() { return {"", "not_known", "no earlier run has made this call", false}; }

}  // namespace

bool Executor::Impl::MayCache(const RowState& row, OperatorIndex op) const {
  return options.cache != nullptr && !PlanOf(row).operator_of(op).cache.off;
}

/// What equal calls of one run may share, and is pure, runs may share, too; reads for as long as
/// their authors say. Where the workflows write to what is read, a read is of its moment.
bool Executor::Impl::MayCacheTool(const RowState& row, OperatorIndex op,
                                  const ToolWork& work) const {
  if (!MayCache(row, op) || sources[row.source].tool_contents.empty()) return false;
  if (work.call.effect == ToolEffect::kWrite || !options.tool_setup.share) return false;
  if (states[row.source].is_alone[static_cast<size_t>(op)]) return false;
  return PlanOf(row).operator_of(op).cache.most_s ||
         (work.may_share && work.call.effect == ToolEffect::kPure);
}

/// Most tokens of an answer. A model's context may end it before its own limit does.
int64_t Executor::Impl::LimitOf(const RowState& row, OperatorIndex op, int32_t sample,
                                const Request& request) const {
  const auto prompt = static_cast<int64_t>(AskedBy(row, op, sample).prompt.tokens.size());
  const int64_t most = request.sampling.max_tokens;
  const int64_t context = EngineOf(row.source, op)->Describe().context_tokens;
  return context > 0 ? std::min(most, context - prompt) : most;
}

Signature Executor::Impl::CacheKeyOf(const RowState& row, OperatorIndex op,
                                     const Call& call) const {
  const auto model = static_cast<size_t>(PlanOf(row).at(op).model);
  return SignatureBuilder()
      .Add("cached")
      .Add(call.key)
      .Add(sources[row.source].models[model].computed_by)
      .Add(LimitOf(row, op, call.sample, call.request))
      .Finish();
}

Signature Executor::Impl::CacheKeyOf(const RowState& row, OperatorIndex op,
                                     const ToolWork& work) const {
  return SignatureBuilder()
      .Add("cached tool")
      .Add(work.request)
      .Add(sources[row.source].tool_contents[static_cast<size_t>(op)])
      .Finish();
}

/// The key, and what it was made of (KeyOf has the same in one).
CacheQuestion Executor::Impl::QuestionOf(const RowState& row, OperatorIndex op,
                                         const Call& call) const {
  const LogicalNode& node = PlanOf(row).at(op);
  const RunSource& source = sources[row.source];
  const ModelBinding& model = source.models[static_cast<size_t>(node.model)];
  const SamplingParameters& sampling = call.request.sampling;
  const Prompt& prompt = AskedBy(row, op, call.sample).prompt;
  CacheQuestion question;
  question.key = CacheKeyOf(row, op, call);
  question.asker = AskerOf(row, PlanOf(row).operator_of(op));
  SignatureBuilder content;
  content.Add(model.content);
  if (node.adapter != kNoAdapter)
    content.Add(source.adapter_contents[static_cast<size_t>(node.adapter)]);
  question.at(QuestionPart::kModel) = PartOf(content);
  question.at(QuestionPart::kBuild) = PartOf(SignatureBuilder().Add(model.computed_by));
  question.at(QuestionPart::kPrompt) =
      PartOf(SignatureBuilder().Add(prompt.tokens).Add(prompt.tokens.empty() ? prompt.text : ""));
  SignatureBuilder limits;
  limits.Add(LimitOf(row, op, call.sample, call.request)).Add(int64_t{sampling.max_tokens});
  limits.Add(int64_t{sampling.min_tokens});
  for (const std::string& stop : sampling.stop) limits.Add(stop);
  question.at(QuestionPart::kLimits) = PartOf(limits);
  question.at(QuestionPart::kSchema) = PartOf(SignatureBuilder().Add(call.request.grammar));
  if (sampling.temperature <= 0.0F) return question;
  question.at(QuestionPart::kSampling) = PartOf(SignatureBuilder()
                                                    .Add(double{sampling.temperature})
                                                    .Add(double{sampling.top_p})
                                                    .Add(double{sampling.min_p})
                                                    .Add(int64_t{sampling.top_k}));
  question.at(QuestionPart::kDraws) =
      PartOf(SignatureBuilder().Add(static_cast<int64_t>(sampling.draw_key)));
  return question;
}

CacheQuestion Executor::Impl::QuestionOf(const RowState& row, OperatorIndex op,
                                         const ToolWork& work) const {
  CacheQuestion question;
  question.key = CacheKeyOf(row, op, work);
  question.asker = AskerOf(row, PlanOf(row).operator_of(op));
  question.is_tool = true;
  const Signature& content = sources[row.source].tool_contents[static_cast<size_t>(op)];
  question.at(QuestionPart::kModel) = PartOf(SignatureBuilder().Add(content));
  question.at(QuestionPart::kPrompt) = PartOf(SignatureBuilder().Add(work.request));
  return question;
}

std::optional<JournalRecord> Executor::Impl::FindCached(RowState& row, OperatorIndex op,
                                                        const Call& call) {
  if (!MayCache(row, op)) return std::nullopt;
  std::optional<JournalRecord> record =
      options.cache->Find(CacheKeyOf(row, op, call), PlanOf(row).operator_of(op).cache.most_s);
  if (!record || record->ending != JournalRecord::Ending::kAnswer) return std::nullopt;
  return record;
}

std::optional<JournalRecord> Executor::Impl::FindCached(RowState& row, OperatorIndex op,
                                                        const ToolWork& work) {
  if (!MayCacheTool(row, op, work)) return std::nullopt;
  std::optional<JournalRecord> record =
      options.cache->Find(CacheKeyOf(row, op, work), PlanOf(row).operator_of(op).cache.most_s);
  if (!record || record->ending != JournalRecord::Ending::kValue) return std::nullopt;
  return record;
}

void Executor::Impl::KeepForLaterRuns(const Call& call, JournalRecord record) {
  if (!MayCache(*call.row, call.op)) return;
  record.cost = 0;  // it was this run's
  options.cache->Put(QuestionOf(*call.row, call.op, call), record);
}

void Executor::Impl::KeepForLaterRuns(const ToolWork& work, const ToolResult& result) {
  if (!MayCacheTool(*work.row, work.op, work)) return;
  options.cache->Put(QuestionOf(*work.row, work.op, work), ValueRecord(result));
}

/// No call is made in this run (`only_known`), and this one was not made before.
void Executor::Impl::Refuse(const Call& call) {
  StartCall(call);
  Completion completion;
  completion.failure = NotKnown();
  EndInstance(*call.row, call.op, completion, call, false);
}

void Executor::Impl::RefuseTool(const ToolWork& work) {
  At(*work.row, work.op).state = State::kSubmitted;
  CountStart(*work.row, work.op);
  ToolCompletion completion;
  completion.failure = NotKnown();
  EndTool(*work.row, work.op, work, completion, nullptr, false);
}

}  // namespace halo
