// Prompts that are computed before they are asked: while tools keep every engine idle, what is
// known of the prompts that wait for them.
#include <algorithm>
#include <limits>

#include "runtime/executor_impl.h"
#include "runtime/worker_placement.h"

namespace halo {
namespace {

using State = InstanceState;

/// Computed ahead at a time: a call that becomes ready meanwhile waits for no more than one pass.
constexpr int64_t kMostTokensAtOnce = 512;
/// Less than this is not worth a request.
constexpr size_t kLeastTokens = 16;
/// Open rows looked at, the oldest ones.
constexpr int kRowsLookedAt = 1024;
/// Texts in place of what is not known. What unlike ones leave equal does not depend on it.
constexpr const char* kProbes[] = {"A", "9", "\n\nb"};

}  // namespace

/// All that the name may stand for has ended.
bool Executor::Impl::IsKnown(const RowState& row, const NameBinding& name) const {
  return std::all_of(name.producers.begin(), name.producers.end(), [&](OperatorIndex producer) {
    return At(row, producer).state == State::kDone;
  });
}

/// True if what is known of the instance's prompt has not been computed yet, and the instance is
/// likely to have one.
bool Executor::Impl::MayGoAhead(const RowState& row, const LogicalNode& node) const {
  const Instance& instance = At(row, node.op);
  const Operator& op = PlanOf(row).operator_of(node.op);
  if (node.removed || instance.state != State::kWaiting || instance.lacks_input) return false;
  if (instance.inputs_left >= instance.ahead_of || IsTool(row.source, node.op)) return false;
  // A conversation's KV is kept by itself, and a condition may say that there is no call.
  const bool goes_on = op.history == History::kContinue || op.history == History::kTranscript;
  if (goes_on || node.kv_source >= 0 || op.is_conditional()) return false;
  const Engine& engine = *EngineOf(row.source, node.op);
  return engine.Describe().has_token_ids && engine.residency() == Residency::kLoaded;
}

/// The prompt's leading tokens that do not depend on what is still unknown; none where templates
/// refuse a text in its place.
Prompt Executor::Impl::KnownPrompt(const RowState& row, OperatorIndex op) const {
  const PromptBuilder& builder = *states[row.source].builders[static_cast<size_t>(op)];
  std::optional<Prompt> known;
  try {
    for (const char* probe : kProbes) {
      Conversation unknown;
      unknown.answer_text = probe;
      Prompt prompt = builder.Build(InputsOf(row, op, &unknown)).prompt;
      if (!known) known = prompt;
      std::vector<TokenId>& tokens = known->tokens;
      const auto apart =
          std::mismatch(tokens.begin(), tokens.end(), prompt.tokens.begin(), prompt.tokens.end());
      tokens.erase(apart.first, tokens.end());
    }
  } catch (const Failure&) {
    return {};  // what is wrong with the row, if anything, is told when its call is made
  }
  known->static_prefix_tokens =
      std::min(known->static_prefix_tokens, static_cast<int32_t>(known->tokens.size()));
  return *std::move(known);
}

/// Nothing runs, tools are waited for: the engines compute what they would be asked for later
/// anyway. Their KV stays where the call finds it. Not where tokens or calls are counted.
void Executor::Impl::ComputeAhead() {
  const bool may = options.prefill_ahead && !options.naive && !options.only_known && !stopping &&
                   options.budget.is_unlimited() && calls.empty() && !tool_work.empty();
  if (!may || ahead_tokens >= kMostTokensAtOnce) return;
  int looked_at = 0;
  for (const auto& [key, row] : open_rows) {
    if (++looked_at > kRowsLookedAt) return;
    if (row->open_instances == 0 || row->cancelled) continue;
    for (const LogicalNode& node : PlanOf(*row).nodes) {
      if (!MayGoAhead(*row, node)) continue;
      At(*row, node.op).ahead_of = At(*row, node.op).inputs_left;
      Prompt prompt = KnownPrompt(*row, node.op);
      if (prompt.tokens.size() < kLeastTokens) continue;
      SendAhead(*row, node.op, std::move(prompt));
      if (ahead_tokens >= kMostTokensAtOnce) return;
    }
  }
}

void Executor::Impl::SendAhead(const RowState& row, OperatorIndex op, Prompt prompt) {
  Request request;
  request.id = next_request++;
  request.sampling.max_tokens = 0;
  request.adapter = AdapterOf(row, op);
  request.static_prefix_tokens = prompt.static_prefix_tokens;
  request.priority = std::numeric_limits<int32_t>::min();
  request.order = OrderOf(row, op);
  request.row_index = row.row.index;
  request.script_operator = PlanOf(row).operator_of(op).id;
  request.script_row = row.id_text;
  const WorkerPlacement* placement = sources[row.source].placement;
  if (placement != nullptr)
    request.worker = placement->WorkerOf(request.script_operator, row.row.index);
  const auto tokens = static_cast<int64_t>(prompt.tokens.size());
  request.prompt_tokens = std::move(prompt.tokens);
  ahead.emplace(request.id, Ahead{states[row.source].counts[static_cast<size_t>(op)], tokens});
  ahead_tokens += tokens;
  EngineOf(row.source, op)->Submit(std::move(request));
}

/// False: it was a call. What went wrong is told by the call that asks the same.
bool Executor::Impl::TakeAhead(const Completion& completion) {
  const auto found = ahead.find(completion.id);
  if (found == ahead.end()) return false;
  report.operators[found->second.counts].ahead_tokens += completion.prefilled_tokens;
  ahead_tokens -= found->second.tokens;
  ahead.erase(found);
  return true;
}

}  // namespace halo
