#include <gtest/gtest.h>
#include <llama.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/random.h"
#include "model/gguf_check.h"
#include "model/mutation.h"
#include "model/small_model.h"
#include "support/test_models.h"

// How well CheckGguf stands before llama.cpp: damaged files that it lets pass are loaded and run by
// llama.cpp in a process of their own, and the processes that die are counted.

namespace halo {
namespace {

// What became of the process.
enum Fate { kRan = 0, kRefused = 1, kThrew = 2, kKilled = 3 };

int RunModel(const std::string& path) {
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_model_params model_params = llama_model_default_params();
  model_params.n_gpu_layers = 0;
  llama_model* model = llama_model_load_from_file(path.c_str(), model_params);
  if (model == nullptr) return kRefused;
  llama_context_params params = llama_context_default_params();
  params.n_ctx = 64;
  params.n_threads = params.n_threads_batch = 1;
  llama_context* context = llama_init_from_model(model, params);
  if (context == nullptr) return kRefused;
  const llama_vocab* vocab = llama_model_get_vocab(model);
  const std::string text = "Hello, w\xC3\xB6rld \xF0\x9F\x98\x80\n\x01 <|endoftext|></s> aa bb";
  std::vector<llama_token> tokens(64);
  const int32_t count =
      llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                     static_cast<int32_t>(tokens.size()), true, true);
  tokens.resize(static_cast<size_t>(std::clamp(count, 0, 48)));
  if (tokens.empty()) return kRefused;
  for (int step = 0; step < 4; ++step) {
    if (llama_decode(context,
                     llama_batch_get_one(tokens.data(), static_cast<int32_t>(tokens.size()))) != 0)
      break;
    const float* logits = llama_get_logits_ith(context, -1);
    const auto best = std::max_element(logits, logits + llama_vocab_n_tokens(vocab)) - logits;
    tokens.assign(1, static_cast<llama_token>(best));
    char piece[64];
    llama_token_to_piece(vocab, tokens[0], piece, sizeof(piece), 0, true);
  }
  return kRan;
}

Fate RunInAChild(const std::string& path) {
  const pid_t child = fork();
  if (child == 0) {
    // Aborts of the child are expected: no core files, no text.
    constexpr unsigned kMostSeconds = 60;
    alarm(kMostSeconds);
    close(STDERR_FILENO);
    try {
      _exit(RunModel(path));
    } catch (const std::exception&) {
      _exit(kThrew);
    }
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) <= kThrew ? static_cast<Fate>(WEXITSTATUS(status))
                                                            : kKilled;
}

TEST(GgufLlama, AcceptedFilesDoNotEndLlamaCpp) {
  constexpr int kFiles = 400;  // accepted ones that differ from the original
  const std::string folder = test::FreshFolder("gguf_llama");
  const std::string originals[] = {
      test::SmallModel(folder), test::SmallModel(folder, "qwen3"),
      test::SmallModel(folder, "llama", test::SmallSentencePieceVocabulary())};
  const std::string path = folder + "/mutated.gguf";
  RandomStream random(7);
  std::map<Fate, int> fates;
  for (int i = 0, run = 0; run < kFiles; ++i) {
    const std::string& original = originals[i % 3];
    const std::string mutated = test::Mutated(original, random);
    if (mutated == original) continue;
    try {
      CheckGgufBytes({reinterpret_cast<const uint8_t*>(mutated.data()), mutated.size()}, "mutated");
    } catch (const Error&) {
      continue;
    }
    test::WriteFile(path, mutated);
    const Fate fate = RunInAChild(path);
    ++fates[fate];
    ++run;
    if (fate >= kThrew)
      test::WriteFile(folder + "/fate-" + std::to_string(fate) + "-" + std::to_string(i) + ".gguf",
                      mutated);
  }
  RecordProperty("ran", fates[kRan]);
  RecordProperty("refused", fates[kRefused]);
  EXPECT_EQ(fates[kThrew], 0) << "kept in " << folder;
  EXPECT_EQ(fates[kKilled], 0) << "kept in " << folder;
}

}  // namespace
}  // namespace halo
