// How answers grow: a token is drawn and taken, until one ends the answer.
#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/random.h"
#include "base/text.h"
#include "engine/llama/llama_engine.h"

namespace halo {

void LlamaEngine::SampleNext(std::span<const Drawn> drawn) {
  const auto vocabulary = static_cast<size_t>(options_.vocabulary->size());
  const int64_t start_us = clock_.NowUs();
  std::vector<TokenDraw> draws;
  const Live* before = nullptr;
  int32_t ahead = 0;  // of the answer so far, if the draft is right
  for (const auto& [live, logits] : drawn) {
    ahead = live == before ? ahead + 1 : 0;
    before = live;
    if (live->grammar != nullptr) continue;  // what it allows is known in this thread only
    const SamplingParameters& sampling = live->request.sampling;
    const int32_t sampled = live->sampled() + ahead;
    const bool hold_back_end = sampled < sampling.min_tokens;
    draws.push_back(
        {{logits, vocabulary},
         &sampling,
         hold_back_end ? std::span<const TokenId>(end_tokens_) : std::span<const TokenId>(),
         UniformDraw(sampling.draw_key, static_cast<uint64_t>(sampled))});
  }
  sampler_.Sample(draws);
  const int64_t sampling_us = clock_.NowUs() - start_us;
  if (!draws.empty()) statistics_.sampling_us += sampling_us;
  std::span<const TokenDraw> left = draws;
  while (!drawn.empty()) {
    Live& live = *drawn.front().live;
    const size_t count = 1 + live.draft.size();
    const size_t of_it = live.grammar == nullptr ? count : 0;
    live.engine_us += static_cast<double>(sampling_us) * static_cast<double>(of_it) /
                      std::max(1.0, static_cast<double>(draws.size()));
    TakeDrawn(drawn.first(count), left.first(of_it));
    drawn = drawn.subspan(count);
    left = left.subspan(of_it);
  }
}

/// The request's next token, and those behind it for as long as what comes out is what was guessed.
/// `draws`: empty where a grammar is to be heeded.
void LlamaEngine::TakeDrawn(std::span<const Drawn> of_one, std::span<const TokenDraw> draws) {
  Live& live = *of_one.front().live;
  const auto vocabulary = static_cast<size_t>(options_.vocabulary->size());
  const std::vector<TokenId> draft = std::exchange(live.draft, {});
  const int32_t first = live.computed;
  for (size_t i = 0; i < of_one.size(); ++i) {
    const std::span<const float> logits(of_one[i].logits, vocabulary);
    live.computed = first + static_cast<int32_t>(i);
    if (options_.hash_logits) AddToHash(live, logits);
    const bool goes_on =
        draws.empty() ? SampleByGrammar(live, logits) : GoOnWith(live, draws[i].token, false);
    if (!goes_on) return;
    if (i == draft.size() || live.tokens.back() != draft[i]) break;
    ++statistics_.accepted_tokens;
    ++statistics_.decode_tokens;
  }
  live.high_water = std::max(live.high_water, live.computed);
  if (live.computed < first + static_cast<int32_t>(draft.size()))
    room_->Cut(live.sequence, live.computed);
}

void LlamaEngine::AddToHash(Live& live, std::span<const float> logits) {
  const std::string_view text(reinterpret_cast<const char*>(logits.data()), logits.size_bytes());
  live.completion.logits_hash = SignatureBuilder()
                                    .Add(static_cast<int64_t>(live.completion.logits_hash))
                                    .Add(static_cast<int64_t>(Hash64(text)))
                                    .Finish()
                                    .low;
}

bool LlamaEngine::SampleByGrammar(Live& live, std::span<const float> logits) {
  const int64_t start_us = clock_.NowUs();
  const SamplingParameters& sampling = live.request.sampling;
  const int32_t sampled = live.sampled();
  TokenId token = -1;
  bool must_end = false;
  try {
    token = ChooseByGrammar(live, logits, sampled < sampling.min_tokens,
                            UniformDraw(sampling.draw_key, static_cast<uint64_t>(sampled)));
    const int64_t sampling_us = clock_.NowUs() - start_us;
    statistics_.sampling_us += sampling_us;
    live.engine_us += static_cast<double>(sampling_us);
    must_end = token >= 0 && FollowGrammar(live, token);
  } catch (const Failure& failure) {
    Fail(live, failure.code.c_str(), failure.message, failure.retriable);
    return false;
  }
  return GoOnWith(live, token, must_end);
}

bool LlamaEngine::GoOnWith(Live& live, TokenId token, bool must_end) {
  if (token < 0) {
    Fail(live, "bad_logits", "the model gave no number for any token that may come next", true);
    return false;
  }
  live.tokens.push_back(token);
  if (options_.prompt_lookup) {
    if (const std::optional<bool> right = live.lookup.Follow(live.tokens))
      live.guesses->Add(*right);
  }
  if (options_.vocabulary->IsEndOfGeneration(token)) {
    Finish(live, FinishReason::kEndToken);
  } else if (StopsHere(live, token)) {
    Finish(live, FinishReason::kStopString);
  } else if (live.sampled() >= live.max_tokens) {
    Finish(live, FinishReason::kMaxTokens);
  } else if (must_end) {
    // Only an end token may follow: its logits need not be computed.
    live.tokens.push_back(options_.vocabulary->end_token());
    Finish(live, FinishReason::kEndToken);
  } else {
    return true;
  }
  return false;
}

TokenId LlamaEngine::ChooseByGrammar(Live& live, std::span<const float> logits, bool hold_back_end,
                                     double draw) {
  const int64_t start_us = clock_.NowUs();
  const bool can_end = live.grammar->CanEnd(live.cursor);
  const TokenMask& allowed = live.grammar->Allowed(live.cursor);
  const int64_t grammar_us = clock_.NowUs() - start_us;
  statistics_.grammar_us += grammar_us;
  statistics_.sampling_us -= grammar_us;  // within what the caller counts
  if (allowed.count == 0 && (!can_end || end_tokens_.empty())) {
    throw Failure{"", "grammar_dead_end",
                  can_end ? "the answer must end here, and the model has no end token"
                          : "no token of the model goes on as the grammar asks",
                  false};
  }
  // min_tokens cannot ask for what the grammar refuses.
  const bool may_end = can_end && (!hold_back_end || allowed.count == 0);
  const std::span<const TokenId> also =
      may_end ? std::span<const TokenId>(end_tokens_) : std::span<const TokenId>();
  return sampler_.sampler().SampleAllowed(logits, live.request.sampling, allowed, also, draw);
}

bool LlamaEngine::FollowGrammar(Live& live, TokenId token) {
  if (options_.vocabulary->IsEndOfGeneration(token)) return false;
  const int64_t start_us = clock_.NowUs();
  if (!live.grammar->Accept(live.cursor, token)) {
    // A fault of the grammar's automaton, which costs this call and nothing else.
    throw Failure{"", "grammar_dead_end", "the grammar refuses a token that it allowed", false};
  }
  const bool must_end = live.grammar->MustEnd(live.cursor) && options_.vocabulary->end_token() >= 0;
  statistics_.grammar_us += clock_.NowUs() - start_us;
  return must_end;
}

bool LlamaEngine::StopsHere(Live& live, TokenId token) {
  const std::string& piece = options_.vocabulary->Piece(token);
  const size_t before = live.text.size();
  live.text += piece;
  if (live.sampled() < live.request.sampling.min_tokens) return false;
  size_t first = std::string::npos;
  for (const std::string& stop : live.request.sampling.stop) {
    // A stop string may have begun in earlier tokens.
    const size_t from = before >= stop.size() - 1 ? before - (stop.size() - 1) : 0;
    first = std::min(first, live.text.find(stop, from));
  }
  if (first == std::string::npos) return false;
  live.text.resize(first);
  live.completion.cut = true;
  return true;
}

void LlamaEngine::Finish(Live& live, FinishReason reason) {
  Completion& completion = live.completion;
  completion.finish = reason;
  completion.tokens.assign(live.tokens.begin() + live.prompt_size, live.tokens.end());
  completion.output_tokens = static_cast<int64_t>(completion.tokens.size());
  if (reason == FinishReason::kMaxTokens) live.text.resize(CompleteUtf8Length(live.text));
  completion.text = ReplaceInvalidUtf8(live.text);
  completion.finished_us = clock_.NowUs();
  completion.engine_us = std::llround(live.engine_us);
  if (completion.output_tokens > 0) batching().AnswerEnded(completion.output_tokens);
  KeepOrFree(live);
  completed_.push_back(std::move(completion));
  live_.erase(live.request.id);
}

void LlamaEngine::Fail(Live& live, const char* code, std::string message, bool retriable) {
  Completion& completion = live.completion;
  completion.finish = FinishReason::kFailed;
  completion.failure = Failure{"", code, std::move(message), retriable};
  completion.prompt_tokens =
      completion.reused_tokens + completion.prefilled_tokens;  // what was looked at
  completion.output_tokens = static_cast<int64_t>(live.tokens.size()) - live.prompt_size;
  completion.finished_us = clock_.NowUs();
  completion.engine_us = std::llround(live.engine_us);
  GroupOf(live).waiting.erase(RankOf(live));
  closes_.erase(RankOf(live));
  if (live.request.consumes != 0 && live.state == Live::State::kWaiting && !live.counted) {
    Consume(live.request.consumes);
  }
  if (live.sequence >= 0) {
    const int32_t sequence = live.sequence;
    Detach(live);
    FreeSequence(sequence);
  }
  completed_.push_back(std::move(completion));
  live_.erase(live.request.id);
}

}  // namespace halo
