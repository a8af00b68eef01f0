#include "session/simulated_parts.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>

#include "base/hash.h"
#include "base/random.h"
#include "tool/function/local_function.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kBytesPerToken = 4;
constexpr double kUsPerS = 1e6;

/// Ids of ordinary words, for texts that look like some; whatever is printable where a vocabulary
/// has none.
std::vector<TokenId> WordsOf(const Vocabulary& vocabulary) {
  constexpr size_t kMost = 512, kLeast = 16, kLetters = 3;
  std::vector<TokenId> words, others;
  for (TokenId token = 0; token < vocabulary.size() && words.size() < kMost; ++token) {
    const std::string& piece = vocabulary.Piece(token);
    if (piece.empty() || vocabulary.IsSteering(token) || vocabulary.IsEndOfGeneration(token))
      continue;
    const auto is_letter = [](char c) { return c >= 'a' && c <= 'z'; };
    if (std::all_of(piece.begin(), piece.end(), is_letter)) others.push_back(token);
    if (piece.size() > kLetters && piece[0] == ' ' &&
        std::all_of(piece.begin() + 1, piece.end(), is_letter))
      words.push_back(token);
  }
  if (words.size() < kLeast) words.insert(words.end(), others.begin(), others.end());
  if (words.empty()) words.push_back(0);
  return words;
}

}  // namespace

SimulatedCosts CostsOf(const ModelProfile& profile) {
  SimulatedCosts costs;
  // A copy, so that the costs need nothing else to live.
  costs.prefill_s = [profile](double prompts, double tokens, double context) {
    return PrefillSeconds(profile, prompts, tokens, context);
  };
  costs.decode_s = [profile](double sequences, double context) {
    return DecodeSeconds(profile, sequences, sequences, context);
  };
  costs.sampling_token_s = profile.sampling_token_s;
  costs.greedy_token_s = profile.greedy_token_s;
  costs.grammar_token_s = profile.grammar_token_s;
  costs.load_s = profile.load_s;
  costs.weights_bytes = profile.weights_bytes;
  costs.kv_token_bytes = profile.kv_token_bytes;
  costs.copy_s = profile.copy_s;
  costs.copy_token_s = profile.copy_token_s;
  costs.spill_s = profile.spill_s;
  costs.spill_token_s = profile.spill_token_s;
  costs.restore_s = profile.restore_s;
  costs.restore_token_s = profile.restore_token_s;
  costs.batch_tokens = profile.passes.batch_tokens;
  costs.long_tokens = profile.passes.long_tokens;
  costs.long_together = profile.passes.long_together;
  return costs;
}

SimulatedAnswers::SimulatedAnswers(uint64_t seed, std::map<std::string, AnswerLengths> lengths,
                                   std::shared_ptr<const Vocabulary> vocabulary)
    : seed_(seed), lengths_(std::move(lengths)), vocabulary_(std::move(vocabulary)) {
  if (vocabulary_ != nullptr) words_ = WordsOf(*vocabulary_);
}

uint64_t SimulatedAnswers::KeyOf(const Request& request) const {
  SignatureBuilder key;
  key.Add(static_cast<int64_t>(seed_));
  if (request.sampling.temperature > 0.0F)
    return key.Add(static_cast<int64_t>(request.sampling.draw_key)).Finish().low;
  key.Add(request.prompt_text).Add(request.prompt_tokens).Add(request.adapter);
  key.Add(request.grammar).Add(int64_t{request.sampling.max_tokens});
  key.Add(int64_t{request.sampling.min_tokens});
  for (const std::string& stop : request.sampling.stop) key.Add(stop);
  return key.Finish().low;
}

SimulatedAnswer SimulatedAnswers::Answer(const Request& request, int32_t max_tokens) {
  const uint64_t key = KeyOf(request);
  const auto known = lengths_.find(request.script_operator);
  const AnswerLengths lengths = known == lengths_.end() ? AnswerLengths{} : known->second;
  const int32_t least = std::min(max_tokens, request.sampling.min_tokens);
  SimulatedAnswer answer;
  answer.output_tokens = std::max(least, DrawLength(lengths, max_tokens, key));
  const bool is_cut = answer.output_tokens >= max_tokens && request.grammar.empty();
  answer.finish = is_cut ? FinishReason::kMaxTokens : FinishReason::kEndToken;
  if (!request.grammar.empty()) {
    FillByGrammar(request, answer.output_tokens, key, answer);
    answer.output_tokens = std::clamp(answer.output_tokens, 1, max_tokens);
    if (vocabulary_ != nullptr) answer.tokens.resize(static_cast<size_t>(answer.output_tokens));
    return answer;
  }
  const int32_t words = std::max(1, answer.output_tokens - (is_cut ? 0 : 1));
  if (vocabulary_ == nullptr) {
    answer.text = DrawWords(words, key);
    return answer;
  }
  for (int32_t i = 0; i < words; ++i) {
    const double draw = UniformDraw(key, static_cast<uint64_t>(i) + 2);
    const auto word = static_cast<size_t>(draw * static_cast<double>(words_.size()));
    answer.tokens.push_back(words_[word]);
  }
  answer.text = vocabulary_->Detokenize(answer.tokens);
  if (words < answer.output_tokens && vocabulary_->end_token() >= 0)
    answer.tokens.push_back(vocabulary_->end_token());
  answer.output_tokens = static_cast<int32_t>(answer.tokens.size());
  return answer;
}

void SimulatedAnswers::FillByGrammar(const Request& request, int32_t tokens, uint64_t key,
                                     SimulatedAnswer& answer) {
  std::unique_ptr<GrammarTexts>& texts = grammars_[request.grammar];
  if (texts == nullptr) texts = std::make_unique<GrammarTexts>(request.grammar);
  answer.text = texts->Draw((tokens - 1) * kBytesPerToken, key);
  if (vocabulary_ != nullptr) {
    answer.tokens = vocabulary_->TokenizePart({PromptSpan::Data(answer.text)});
    if (vocabulary_->end_token() >= 0) answer.tokens.push_back(vocabulary_->end_token());
    answer.output_tokens = static_cast<int32_t>(answer.tokens.size());
  } else {
    const auto bytes = static_cast<int64_t>(answer.text.size());
    answer.output_tokens = static_cast<int32_t>((bytes + kBytesPerToken - 1) / kBytesPerToken) + 1;
  }
}

SimulatedToolResults::SimulatedToolResults(uint64_t seed, const Workflow& workflow,
                                           const PhysicalPlan& plan, size_t source)
    : seed_(seed) {
  std::set<std::string> columns;
  for (const PlannedOperator& planned : plan.operators) {
    if (planned.source != source || workflow.at(planned.op).is_inference()) continue;
    const Operator& op = workflow.at(planned.op);
    const OperatorEstimate& estimate = planned.estimate;
    mean_s_[op.id] = estimate.busy_s.value / std::max(1.0, estimate.calls.value);
    const auto* sql = std::get_if<SqlSpec>(&op.tool->what);
    if (sql == nullptr) continue;
    // "0.name": a column of a row.
    for (const auto& [output, path] : sql->result_mappings) {
      const size_t dot = path.find('.');
      if (dot != std::string::npos) columns.insert(path.substr(dot + 1));
    }
  }
  columns_.assign(columns.begin(), columns.end());
  if (columns_.empty()) columns_ = {"value"};
}

Json SimulatedToolResults::RowsOf(const SqlCall& call) const {
  constexpr int64_t kRows = 5;
  constexpr int32_t kWords = 6;
  SignatureBuilder asked;
  asked.Add(static_cast<int64_t>(seed_)).Add(call.connection).Add(call.text);
  for (const SqlArgument& argument : call.arguments) asked.Add(argument.value.dump());
  const uint64_t key = asked.Finish().low;
  Json rows = Json::array();
  for (int64_t i = 0; i < std::min(kRows, call.most_rows); ++i) {
    Json row = Json::object();
    for (const std::string& column : columns_) {
      const uint64_t cell =
          SignatureBuilder().Add(static_cast<int64_t>(key)).Add(i).Add(column).Finish().low;
      row[column] = DrawWords(kWords, cell);
    }
    rows.push_back(std::move(row));
  }
  const auto count = static_cast<int64_t>(rows.size());
  return {{"rows", std::move(rows)}, {"rowcount", count}};
}

ScriptedResult SimulatedToolResults::Answer(const ToolCall& call) const {
  ScriptedResult result;
  SignatureBuilder who;
  who.Add(static_cast<int64_t>(seed_)).Add(call.script_operator).Add(call.script_row);
  const uint64_t key = who.Add(int64_t{call.script_attempt}).Finish().low;
  constexpr double kSpread = 0.5;  // of the logarithm
  const double normal = std::sqrt(-2.0 * std::log(1.0 - UniformDraw(key, 0))) *
                        std::cos(2.0 * std::numbers::pi * UniformDraw(key, 1));
  const auto mean = mean_s_.find(call.script_operator);
  const double seconds = (mean == mean_s_.end() ? 0.0 : mean->second) *
                         std::exp(kSpread * normal - kSpread * kSpread / 2.0);
  result.latency_us = std::llround(seconds * kUsPerS);
  if (const auto* sql = std::get_if<SqlCall>(&call.what)) {
    result.value = RowsOf(*sql);
    return result;
  }
  if (const auto* http = std::get_if<HttpCall>(&call.what)) {
    if (http->latency_mode != HttpLatencyMode::kLive) result.latency_us = http->latency_us;
    constexpr int32_t kWords = 40;
    const uint64_t asked =
        SignatureBuilder().Add(http->url).Add(http->body.value_or("")).Finish().low;
    result.value = http->latency_mode == HttpLatencyMode::kSimulated
                       ? Json{{"status", "ok"}}
                       : Json(DrawWords(kWords, asked));
    return result;
  }
  const auto& function = std::get<FunctionCall>(call.what);
  const LocalFunction* local = FindLocalFunction(function.function);
  if (local == nullptr || local->run == nullptr) {
    constexpr int32_t kWords = 12;
    const uint64_t asked = Hash64(function.inputs.dump());
    result.value = Json::object();
    for (const std::string& output : function.outputs)
      result.value[output] = DrawWords(kWords, asked);
    return result;
  }
  try {
    result.value = local->run(function);
  } catch (const Failure& failure) {
    result.failure = failure;
  }
  return result;
}

}  // namespace halo
