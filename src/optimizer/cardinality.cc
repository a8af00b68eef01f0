#include "optimizer/cardinality.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace halo {
namespace {

constexpr double kBytesPerToken = 4.0;
/// Share of max_tokens that an answer is taken to have where nothing is known.
constexpr double kAssumedAnswerShare = 0.5;
constexpr double kAssumedQuery_s = 0.005;
constexpr double kAssumedFunction_s = 0.0001;
constexpr double kAssumedResultTokens = 200.0;

std::set<std::string> KeyOf(const OperatorReads& reads) {
  return reads.whole_row ? std::set<std::string>{"*"} : reads.columns;
}

/// The text of a template without its expressions and statements.
std::string LiteralText(const Template* text) {
  if (text == nullptr) return "";
  const std::string& source = text->source();
  std::string literal;
  for (size_t at = 0; at < source.size();) {
    const size_t open = source.find('{', at);
    if (open == std::string::npos || open + 1 >= source.size()) {
      literal += source.substr(at);
      break;
    }
    const char kind = source[open + 1];
    const char* close = kind == '{' ? "}}" : kind == '%' ? "%}" : kind == '#' ? "#}" : nullptr;
    literal += source.substr(at, open - at);
    if (close == nullptr) {
      literal += '{';
      at = open + 1;
      continue;
    }
    const size_t end = source.find(close, open + 2);
    at = end == std::string::npos ? source.size() : end + 2;
  }
  return literal;
}

double WrittenTokens(const Operator& op, const ModelFacts& model) {
  double tokens = TokensOfText(model, LiteralText(op.instruction.get())) +
                  TokensOfText(model, LiteralText(op.body.get()));
  for (const MessageSpec& message : op.messages)
    tokens += TokensOfText(model, LiteralText(message.content.get()));
  return tokens;
}

struct MeanAndVariance {
  double mean = 0.0, variance = 0.0;
};

/// Tokens of the columns that the operator itself puts into its prompt.
MeanAndVariance RowTokens(const Operator& op, const OperatorReads& reads,
                          const OptimizerSource& source, const ModelFacts& model) {
  if (source.rows == nullptr || source.rows->sample().empty()) return {};
  constexpr size_t kRows = 64;
  const auto& sample = source.rows->sample();
  const size_t rows = std::min(kRows, sample.size());
  double sum = 0.0, squares = 0.0;
  for (size_t i = 0; i < rows; ++i) {
    double tokens = 0.0;
    for (const std::string& column : reads.columns) {
      const auto found = sample[i].find(column);
      if (found == sample[i].end()) continue;
      const bool is_turns =
          op.form == PromptForm::kRowPrompt && found->is_array() && !found->empty();
      tokens += TokensOfText(
          model, TextOfValue(is_turns ? (*found)[RowPromptElement(op, found->size())] : *found));
    }
    if (reads.whole_row) tokens += TokensOfText(model, TextOfValue(sample[i]));
    sum += tokens;
    squares += tokens * tokens;
  }
  const double mean = sum / static_cast<double>(rows);
  return {mean, std::max(0.0, squares / static_cast<double>(rows) - mean * mean)};
}

Estimate MeanOf(double sum, double sum_of_squares, double count) {
  const double mean = sum / count;
  const double variance = std::max(0.0, sum_of_squares / count - mean * mean);
  constexpr double kErrors = 1.28;
  const double error = kErrors * std::sqrt(variance / count);
  return {mean, std::max(0.0, mean - error), mean + error};
}

/// What earlier runs took, over what this very profile says of them.
std::optional<double> PaceOf(const OperatorRecord* record, const std::string& profile_id) {
  if (record == nullptr || profile_id.empty() || record->profile != profile_id ||
      !(record->profile_s > 0.0) || !(record->engine_s > 0.0))
    return std::nullopt;
  return record->engine_s / record->profile_s;
}

/// Of a model's calls. Of little work nothing: most of it may be one call that waited for a core.
std::optional<double> EnginePaceOf(const OperatorRecord* record, const std::string& profile_id) {
  constexpr double kLeast_s = 0.1;
  if (record == nullptr || record->profile_s < kLeast_s) return std::nullopt;
  return PaceOf(record, profile_id);
}

/// A number with commas between thousands.
std::string Grouped(double number) {
  std::string digits = fmt::format("{:.0f}", number);
  for (size_t end = digits.size(); end > 3; end -= 3) digits.insert(end - 3, ",");
  return digits;
}

/// Sequences that run side by side on average: fewer than fit where the last ones run out.
double MeanBatch(double calls, int32_t sequences) {
  const double most = std::min(calls, static_cast<double>(sequences));
  return std::max(1.0, std::min(most, sequences * calls / (calls + sequences / 2.0)));
}

}  // namespace

double TokensOfText(const ModelFacts& model, const std::string& text) {
  if (text.empty()) return 0.0;
  return model.count_tokens ? static_cast<double>(model.count_tokens(text))
                            : static_cast<double>(text.size()) / kBytesPerToken;
}

double TokensOfWrittenText(const ModelFacts& model, const std::string& text) {
  if (text.empty() || !model.count_written_tokens) return TokensOfText(model, text);
  return static_cast<double>(model.count_written_tokens(text));
}

std::string TextOfValue(const nlohmann::ordered_json& value) {
  if (value.is_string()) return value.get<std::string>();
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

namespace {

/// Columns that prompts depend on up to each of their first values.
void AddBeginnings(const LogicalPlan& plan, const std::vector<OperatorIdentity>& identities,
                   const std::string& prompt_column, std::vector<std::set<std::string>>& sets) {
  // Each set is counted in every row; what follows seldom tells more beginnings apart.
  constexpr size_t kMostValues = 3;
  PromptSetting setting;
  setting.prompt_column = prompt_column;
  for (const auto& prompt : TemplatePrompts(plan, identities, setting)) {
    if (!prompt) continue;
    std::set<std::string> columns;
    size_t values = 0;
    for (const PromptPiece& piece : prompt->pieces) {
      if (!piece.is_open()) continue;
      bool each_row = piece.whole_row;
      columns.insert(piece.columns.begin(), piece.columns.end());
      for (const OperatorIndex producer : piece.producers) {
        const OperatorIdentity& of = identities[static_cast<size_t>(producer)];
        each_row = each_row || of.varies || of.reaches.whole_row;
        columns.insert(of.reaches.columns.begin(), of.reaches.columns.end());
      }
      if (each_row || ++values > kMostValues) break;
      if (!columns.empty()) sets.push_back(columns);
    }
  }
}

}  // namespace

std::vector<std::set<std::string>> ColumnSetsOf(const LogicalPlan& plan,
                                                const std::string& prompt_column) {
  std::vector<std::set<std::string>> sets;
  const std::vector<OperatorIdentity> identities = IdentifyOperators(plan, prompt_column);
  for (const OperatorIdentity& identity : identities) {
    if (!identity.each_row && identity.reaches.reads_row()) sets.push_back(KeyOf(identity.reaches));
  }
  AddBeginnings(plan, identities, prompt_column, sets);
  // A rule may choose the other layout.
  LogicalPlan other = plan;
  bool may_change = false;
  for (LogicalNode& node : other.nodes) {
    if (plan.operator_of(node.op).prompt_layout != PromptLayout::kAuto) continue;
    may_change = true;
    node.layout = node.layout == PromptLayout::kContextFirst ? PromptLayout::kInstructionFirst
                                                             : PromptLayout::kContextFirst;
  }
  if (may_change)
    AddBeginnings(other, IdentifyOperators(other, prompt_column), prompt_column, sets);
  return sets;
}

std::vector<std::vector<OperatorIdentity>> CardinalityEstimator::IdentitiesOf(
    const std::vector<OptimizerSource>& sources) {
  std::vector<std::vector<OperatorIdentity>> identities;
  for (const OptimizerSource& source : sources)
    identities.push_back(IdentifyOperators(*source.plan, source.prompt_column));
  return identities;
}

CardinalityEstimator::CardinalityEstimator(const std::vector<OptimizerSource>& sources,
                                           const OperatorHistory* history)
    : sources_(sources), identities_(IdentitiesOf(sources)), sharing_(sources, identities_) {
  for (size_t s = 0; s < sources.size(); ++s) {
    std::vector<Facts> facts;
    for (const LogicalNode& node : sources[s].plan->nodes)
      facts.push_back(FactsOf(sources[s], node.op, history, identity(s, node.op)));
    facts_.push_back(std::move(facts));
  }
}

CardinalityEstimator::Facts CardinalityEstimator::FactsOf(const OptimizerSource& source,
                                                          OperatorIndex index,
                                                          const OperatorHistory* history,
                                                          const OperatorIdentity& identity) const {
  const Operator& op = source.plan->operator_of(index);
  Facts facts;
  const ModelFacts* model = nullptr;
  if (op.is_inference()) {
    model = &source.models[static_cast<size_t>(source.plan->at(index).model)];
    facts.written_tokens = WrittenTokens(op, *model);
    const OperatorReads own = ReadsOf(*source.plan->workflow, index, source.prompt_column);
    const MeanAndVariance row = RowTokens(op, own, source, *model);
    facts.row_tokens = row.mean;
    facts.row_variance = row.variance;
  }
  if (history != nullptr) {
    facts.record = history->Find(identity.signature, model == nullptr ? "" : model->digest);
    if (model != nullptr) facts.pace = history->Find(ModelPaceSignature(), model->digest);
  }
  if (facts.record != nullptr) {
    const OperatorRecord& record = *facts.record;
    const double mean = record.output_tokens / record.calls;
    facts.answer_variance =
        std::max(0.0, record.output_tokens_squared / record.calls - mean * mean);
  }
  const auto position = static_cast<size_t>(index);
  if (position < source.query_costs.size() && source.query_costs[position]) {
    facts.cost = &*source.query_costs[position];
    if (history != nullptr) facts.pace = history->Find(QueryPaceSignature(facts.cost->dialect), "");
  }
  return facts;
}

/// Rows whose values differ in what reaches the operator, over all sources in which it is the same.
Estimate CardinalityEstimator::DistinctRows(const PhysicalPlan& plan, size_t position) const {
  const PlannedOperator& first = plan.operators[position];
  std::vector<const DistinctCounter*> counters;
  for (size_t i = position; i < plan.operators.size(); ++i) {
    const PlannedOperator& other = plan.operators[i];
    if (i != position && other.same_as != static_cast<int32_t>(position)) continue;
    const RowStatistics* rows = sources_[other.source].rows;
    const DistinctCounter* counter =
        rows == nullptr ? nullptr : rows->Find(KeyOf(identity(other.source, other.op).reaches));
    const bool is_new = std::find(counters.begin(), counters.end(), counter) == counters.end();
    if (counter != nullptr && is_new) counters.push_back(counter);
  }
  Estimate count;
  if (counters.size() == 1) {
    count = counters.front()->Count();
  } else {
    DistinctCounter all;
    for (const DistinctCounter* counter : counters) all.Merge(*counter);
    count = all.Count();
  }
  const bool only_row = sources_[first.source].plan->at(first.op).inputs.empty();
  // What it reads may turn out equal for rows that differ.
  return only_row ? count : Estimate{count.value, std::min(1.0, count.value), count.high};
}

void CardinalityEstimator::EstimateCalls(const PhysicalPlan& plan, size_t position,
                                         OperatorEstimate& estimate) const {
  const PlannedOperator& planned = plan.operators[position];
  const OptimizerSource& source = sources_[planned.source];
  const Operator& op = source.plan->operator_of(planned.op);
  const Facts& facts = facts_[planned.source][static_cast<size_t>(planned.op)];
  const double rows = source.rows == nullptr ? 1.0 : static_cast<double>(source.rows->rows());
  estimate.instances = Estimate::Exactly(rows);
  if (source.plan->at(planned.op).removed || planned.same_as >= 0) {
    if (source.plan->at(planned.op).removed) estimate.instances = {};
    return;
  }
  if (source.rows == nullptr) {
    estimate.calls = Estimate::Exactly(1.0);
    return;
  }
  const bool known = facts.record != nullptr && facts.record->instances > 0.0;
  const OperatorIdentity& what = identity(planned.source, planned.op);
  if (what.each_row) {
    estimate.calls = estimate.instances;
  } else if (what.is_constant()) {
    estimate.calls = Estimate::Exactly(std::min(1.0, rows));
  } else {
    estimate.calls = DistinctRows(plan, position);
  }
  const bool drawn = op.is_inference() && op.sampling.temperature > 0.0;
  if (drawn && op.samples > 1) estimate.calls = estimate.calls * op.samples;
  const bool is_conditional = op.is_conditional() || !source.plan->at(planned.op).wanted_by.empty();
  const bool may_be_fewer = is_conditional || !estimate.calls.is_exact();
  if (known && may_be_fewer && rows > 0.0) {
    const double share = facts.record->calls / facts.record->instances;
    const double calls = std::min(estimate.calls.high, share * rows);
    estimate.calls = Estimate{calls, std::min(calls, estimate.calls.low), estimate.calls.high};
    return;
  }
  if (is_conditional) {
    estimate.calls.low = 0.0;
    estimate.assumptions.push_back("its condition is taken to hold for every row");
  }
}

/// Between the shortest and the longest prompt of a pass: two deviations, about what four draws of
/// a normal distribution span.
double CardinalityEstimator::SpreadTokens(size_t source, OperatorIndex op) const {
  const std::vector<Facts>& facts = facts_[source];
  double variance = facts[static_cast<size_t>(op)].row_variance;
  for (const OperatorIndex producer : identity(source, op).reaches.producers)
    variance += facts[static_cast<size_t>(producer)].answer_variance;
  return 2.0 * std::sqrt(variance);
}

/// Mean tokens of a call's prompt: what is written and what rows give, and what others answer.
Estimate CardinalityEstimator::PromptTokens(const PhysicalPlan& plan, size_t position) const {
  const size_t first = position - static_cast<size_t>(plan.operators[position].op);
  const auto of = [&](OperatorIndex other) -> const OperatorEstimate& {
    return plan.operators[first + static_cast<size_t>(other)].estimate;
  };
  Estimate tokens = Estimate::Within(sharing_.known_tokens(position), 0.05);
  const TemplatedPrompt& prompt = sharing_.prompt(position);
  if (prompt.continues >= 0) tokens += of(prompt.continues).prompt_tokens;
  for (const PromptPiece& piece : prompt.pieces) {
    for (const OperatorIndex producer : piece.producers) {
      tokens += of(producer).output_tokens * piece.answer_share;
      if (piece.with_conversation) tokens += of(producer).prompt_tokens;
    }
  }
  return tokens;
}

/// How many more beginnings an operator has than the rows of its own source give it, where its
/// calls serve other sources.
double CardinalityEstimator::WiderThanItsSource(const PhysicalPlan& plan, size_t position,
                                                double calls) const {
  const PlannedOperator& planned = plan.operators[position];
  const RowStatistics* rows = sources_[planned.source].rows;
  if (!planned.serves_others || rows == nullptr) return 1.0;
  const DistinctCounter* own = rows->Find(KeyOf(identity(planned.source, planned.op).reaches));
  return own == nullptr ? 1.0 : std::max(1.0, calls / std::max(1.0, own->Count().value));
}

void CardinalityEstimator::EstimateReuse(const PhysicalPlan& plan, size_t position,
                                         SharingPass& pass, OperatorEstimate& estimate) const {
  const PlannedOperator& planned = plan.operators[position];
  const LogicalPlan& logical = *sources_[planned.source].plan;
  const auto answer_tokens = [&](size_t other, bool with_conversation) {
    const OperatorEstimate& of = plan.operators[other].estimate;
    return of.output_tokens.value + (with_conversation ? of.prompt_tokens.value : 0.0);
  };
  const auto is_kept = [&](size_t other) {
    const PlannedOperator& of = plan.operators[other];
    return sources_[of.source].plan->at(of.op).keep_answer;
  };
  const double calls = estimate.calls.value;
  const SharingPass::Shared shared =
      pass.Add(position, calls, WiderThanItsSource(plan, position, calls), answer_tokens, is_kept);
  const double prompt = estimate.prompt_tokens.value;
  double reused = shared.reused_tokens, source = shared.source_tokens;
  const OperatorIndex parent = sharing_.prompt(position).continues;
  if (parent >= 0) {
    const double before =
        plan.operators[position - static_cast<size_t>(planned.op) + static_cast<size_t>(parent)]
            .estimate.prompt_tokens.value;
    reused += before;
    source += before;
  }
  // The last token is always computed: its logits are wanted. In a conversation it is in the turn
  // that goes on from it.
  reused = std::min(reused, parent >= 0 ? prompt : std::max(0.0, prompt - 1.0));
  estimate.reused_tokens = Estimate::Within(reused, 0.1);
  estimate.source_tokens = logical.at(planned.op).kv_source < 0 ? 0.0 : std::min(source, reused);
}

void CardinalityEstimator::EstimateInference(const PhysicalPlan& plan, size_t position,
                                             SharingPass& pass, OperatorEstimate& estimate) const {
  const PlannedOperator& planned = plan.operators[position];
  const OptimizerSource& source = sources_[planned.source];
  const LogicalNode& node = source.plan->at(planned.op);
  const Operator& op = source.plan->operator_of(planned.op);
  const ModelFacts& model = source.models[static_cast<size_t>(node.model)];
  const Facts& facts = facts_[planned.source][static_cast<size_t>(planned.op)];
  Estimate prompt = PromptTokens(plan, position);
  const int32_t most = op.sampling.max_tokens.constant;
  if (facts.record != nullptr) {
    const OperatorRecord& record = *facts.record;
    prompt = Estimate::Within(record.prompt_tokens / record.calls, 0.05);
    estimate.output_tokens =
        MeanOf(record.output_tokens, record.output_tokens_squared, record.calls);
  } else {
    estimate.output_tokens = {std::max(1.0, most * kAssumedAnswerShare), 1.0,
                              static_cast<double>(most)};
    estimate.assumptions.push_back(
        fmt::format("answers are taken to be half of their {} tokens", most));
  }
  estimate.prompt_tokens = prompt;
  const double calls = estimate.calls.value;
  EstimateReuse(plan, position, pass, estimate);
  const double fresh = prompt.value - estimate.reused_tokens.value;
  const double output = estimate.output_tokens.value;
  const double batch = MeanBatch(calls, model.sequences);
  // Prompts of later operators, and of later rows, come as answers make room for them.
  PrefillArrival arrival;
  if (!node.waits_for.empty() || calls > model.sequences)
    arrival.together = PromptsOfPass(batch, output);
  arrival.spread_tokens = SpreadTokens(planned.source, planned.op);
  const double token_s = (op.sampling.temperature > 0.0 ? model.profile.sampling_token_s
                                                        : model.profile.greedy_token_s) +
                         (op.schema ? model.profile.grammar_token_s : 0.0);
  const auto seconds = [&](double answer) {
    return PrefillSeconds(model.profile, calls, fresh, estimate.reused_tokens.value, arrival) +
           DecodeSeconds(model.profile, calls * std::max(0.0, answer - 1.0), batch,
                         prompt.value + answer / 2.0) +
           calls * answer * token_s +
           calls *
               (model.profile.copy_s + model.profile.copy_token_s * estimate.reused_tokens.value);
  };
  const double share = model.profile.relative_error;
  estimate.pace = EnginePaceOf(facts.record, model.profile_id)
                      .value_or(EnginePaceOf(facts.pace, model.profile_id).value_or(1.0));
  estimate.busy_s = Estimate{seconds(output), seconds(estimate.output_tokens.low) * (1.0 - share),
                             seconds(estimate.output_tokens.high) * (1.0 + share)} *
                    estimate.pace;
}

/// Of one call of a query whose cost is known.
Estimate CardinalityEstimator::QuerySeconds(const Facts& facts, OperatorEstimate& estimate) {
  // What one call takes over what its cost says: four of five of W1 to W6 lie within
  // (docs/cost_model.md), where the pace is known and where it is not.
  constexpr double kSpread = 3.0, kSpreadWithoutPace = 6.0;
  const QueryCost& cost = *facts.cost;
  const QueryRate rate = DefaultQueryRate(cost.dialect);
  const std::optional<double> known = PaceOf(facts.pace, QueryRateName(cost.dialect));
  const double pace = known.value_or(1.0);
  const double each_s = std::min(QueryRate::kMost_s, pace * rate.SecondsOf(cost));
  estimate.assumptions.push_back(fmt::format(
      "a call is taken to last {:.3g} ms: {} units of {} at {:.3g} ns, and {:.3g} ms in any case{}",
      each_s * 1e3, Grouped(cost.units), rate.explain, pace * rate.unit_s * 1e9,
      pace * rate.call_s * 1e3, known ? ", as earlier queries took" : ""));
  const double spread = known ? kSpread : kSpreadWithoutPace;
  return {each_s, each_s / spread, each_s * spread};
}

void CardinalityEstimator::EstimateTool(size_t source, OperatorIndex index,
                                        OperatorEstimate& estimate) const {
  const Operator& op = sources_[source].plan->operator_of(index);
  const Facts& facts = facts_[source][static_cast<size_t>(index)];
  estimate.output_tokens = {kAssumedResultTokens, 0.0, static_cast<double>(op.tool->prompt.tokens)};
  if (facts.cost != nullptr && !facts.cost->choice.empty())
    estimate.assumptions.push_back(facts.cost->choice);
  if (facts.record != nullptr && facts.record->calls > 0.0) {
    const double mean = facts.record->latency_s / facts.record->calls;
    estimate.busy_s = estimate.calls * Estimate::Within(mean, 0.3);
    return;
  }
  if (facts.cost != nullptr) {
    estimate.busy_s = estimate.calls * QuerySeconds(facts, estimate);
    return;
  }
  const auto* http = std::get_if<HttpSpec>(&op.tool->what);
  double each_s =
      std::holds_alternative<FunctionSpec>(op.tool->what) ? kAssumedFunction_s : kAssumedQuery_s;
  const bool declared = http != nullptr &&
                        http->mean_latency.kind == ValueTemplate::Kind::kConstant &&
                        http->mean_latency.constant.is_number();
  if (declared) {
    each_s = http->mean_latency.constant.get<double>() * http->latency_unit_s *
             sources_[source].latency_scale;
  } else {
    estimate.assumptions.push_back(fmt::format("a call is taken to last {:g} ms", each_s * 1000.0));
  }
  estimate.busy_s = estimate.calls * (declared ? Estimate::Within(each_s, 0.3)
                                               : Estimate{each_s, each_s / 10.0, each_s * 10.0});
}

void CardinalityEstimator::EstimateAll(PhysicalPlan& plan) const {
  SharingPass pass(sharing_);
  for (PlannedOperator& planned : plan.operators) planned.serves_others = false;
  for (const PlannedOperator& planned : plan.operators) {
    if (planned.same_as < 0) continue;
    PlannedOperator& serving = plan.operators[static_cast<size_t>(planned.same_as)];
    serving.serves_others = serving.serves_others || serving.source != planned.source;
  }
  for (size_t i = 0; i < plan.operators.size(); ++i) {
    PlannedOperator& planned = plan.operators[i];
    OperatorEstimate estimate;
    EstimateCalls(plan, i, estimate);
    if (planned.same_as >= 0) {
      const OperatorEstimate& same = plan.operators[static_cast<size_t>(planned.same_as)].estimate;
      estimate.prompt_tokens = same.prompt_tokens;
      estimate.output_tokens = same.output_tokens;
    } else if (sources_[planned.source].plan->operator_of(planned.op).is_inference()) {
      EstimateInference(plan, i, pass, estimate);
    } else {
      EstimateTool(planned.source, planned.op, estimate);
    }
    planned.estimate = std::move(estimate);
  }
}

std::vector<PrefixGroup> CardinalityEstimator::Groups(const PhysicalPlan& plan) const {
  SharingPass pass(sharing_);
  std::vector<bool> live(plan.operators.size(), false);
  for (size_t i = 0; i < plan.operators.size(); ++i) {
    const PlannedOperator& planned = plan.operators[i];
    const LogicalPlan& logical = *sources_[planned.source].plan;
    const bool asks = logical.operator_of(planned.op).is_inference() && planned.same_as < 0;
    live[i] = asks && !logical.at(planned.op).removed;
    OperatorEstimate estimate = planned.estimate;
    if (live[i]) EstimateReuse(plan, i, pass, estimate);
  }
  return pass.Groups(live);
}

}  // namespace halo
