#include "demo_model/evaluation.h"

#include "base/clock.h"
#include "base/error.h"
#include "engine/llama/llama_engine.h"
#include "model/chat_template.h"
#include "model/gguf_check.h"
#include "model/vocabulary.h"

namespace halo::demo {
namespace {

using Json = nlohmann::ordered_json;

constexpr int32_t kMostAnswerTokens = 160;
constexpr int32_t kSequences = 16;
constexpr int32_t kContextTokens = 512;  // of a message, its instruction and an answer

const char* RoleName(Turn::Role role) {
  if (role == Turn::Role::kSystem) return "system";
  return role == Turn::Role::kUser ? "user" : "assistant";
}

LlamaEngineOptions EngineOptions(const std::string& model_path, int32_t threads,
                                 std::shared_ptr<const Vocabulary> vocabulary) {
  LlamaEngineOptions options;
  options.model_name = "demo";
  options.model_path = model_path;
  options.vocabulary = std::move(vocabulary);
  options.threads = threads;
  options.sequences = kSequences;
  // Prompts share nothing worth keeping, and attention passes over all KV there is.
  options.kv_bytes = int64_t{24} << 20;
  options.kept_bytes = int64_t{1} << 20;
  options.context_tokens = kContextTokens;
  return options;
}

std::vector<TokenId> PromptTokens(const std::vector<Turn>& turns, const ChatTemplate& chat,
                                  const Vocabulary& vocabulary) {
  std::vector<ChatMessage> messages;
  for (const Turn& turn : turns)
    messages.push_back({RoleName(turn.role), {PromptSpan::Data(turn.text)}});
  return vocabulary.TokenizePrompt(chat.Render(messages, true));
}

/// The conversation without its last turn, which is the answer.
std::vector<Turn> Question(const Conversation& conversation) {
  return {conversation.turns.begin(), conversation.turns.end() - 1};
}

/// Whether all three are right.
bool CountExtraction(const std::string& answer, const Json& facts, SplitFigures& figures) {
  const Json parsed = Json::parse(answer, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return false;
  ++figures.valid_json;
  const auto right = [&](const char* key) {
    return parsed.contains(key) && parsed[key] == facts[key] ? 1 : 0;
  };
  figures.product += right("product");
  figures.problem += right("problem");
  figures.sentiment += right("sentiment");
  const int all = right("product") * right("problem") * right("sentiment");
  figures.extraction += all;
  return all == 1;
}

bool CountReply(const std::string& answer, const Json& facts, SplitFigures& figures) {
  const bool names_both = answer.find(facts["product"].get<std::string>()) != std::string::npos &&
                          answer.find(facts["problem"].get<std::string>()) != std::string::npos;
  figures.reply += names_both ? 1 : 0;
  return names_both;
}

}  // namespace

std::vector<std::string> Answer(const std::string& model_path,
                                const std::vector<std::vector<Turn>>& conversations,
                                int32_t max_tokens, int32_t threads) {
  CheckGguf(model_path);
  const std::shared_ptr<const Vocabulary> vocabulary = Vocabulary::Load(model_path);
  const ChatTemplate chat(vocabulary->chat_template(), vocabulary->bos_text(),
                          vocabulary->eos_text(), "2026-01-01");
  const SteadyClock clock;
  LlamaEngine engine(EngineOptions(model_path, threads, vocabulary), clock);
  for (size_t i = 0; i < conversations.size(); ++i) {
    Request request;
    request.id = i + 1;
    request.order = static_cast<int64_t>(i);
    request.prompt_tokens = PromptTokens(conversations[i], chat, *vocabulary);
    request.sampling.max_tokens = max_tokens;
    engine.Submit(std::move(request));
  }
  std::vector<std::string> answers(conversations.size());
  while (engine.pending() > 0) {
    for (Completion& completion : engine.Poll(clock.NowUs() + 1'000'000)) {
      if (completion.failure) throw Error(ErrorCode::kModel, completion.failure->message);
      answers[static_cast<size_t>(completion.id - 1)] = std::move(completion.text);
    }
  }
  return answers;
}

std::vector<SplitFigures> EvaluateMessages(const std::string& model_path, uint64_t seed,
                                           uint64_t prompts, int32_t threads) {
  std::vector<SplitFigures> figures;
  for (const Split split : kMeasuredSplits) {
    std::vector<Conversation> asked;
    std::vector<std::vector<Turn>> questions;
    for (uint64_t i = 0; i < 2 * prompts; ++i) {
      asked.push_back(i < prompts ? MakeExtraction(split, seed, i) : MakeReply(split, seed, i));
      questions.push_back(Question(asked.back()));
    }
    const std::vector<std::string> answers =
        Answer(model_path, questions, kMostAnswerTokens, threads);
    SplitFigures of_split;
    of_split.split = std::string(SplitName(split));
    of_split.prompts = static_cast<int64_t>(prompts);
    for (size_t i = 0; i < asked.size(); ++i) {
      const bool right = i < prompts ? CountExtraction(answers[i], asked[i].facts, of_split)
                                     : CountReply(answers[i], asked[i].facts, of_split);
      if (!right) of_split.failures.push_back({questions[i].back().text, answers[i]});
    }
    figures.push_back(std::move(of_split));
  }
  return figures;
}

}  // namespace halo::demo
