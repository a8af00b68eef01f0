#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "engine/llama/llama_engine.h"
#include "support/test_models.h"

namespace halo::test {

/// How an engine over the tiny model is made.
struct RoomSetup {
  int32_t sequences = 8;
  int64_t kv_bytes = 64 << 20;
  int64_t kept_bytes = 32 << 20;
  std::string kept_folder = {};
  int64_t kept_disk_bytes = 64 << 20;
  int32_t context_tokens = 1024;
  int32_t expected_tokens = 0;
  KvLayout layout = KvLayout::kAuto;
  bool reuse = true;
  bool load = true;
  double mean_output = 0;
  bool exact = false;     ///< where that is known to hold
  bool adapters = false;  ///< "x" and "y"
  int32_t batch_tokens = 0;
  int32_t running_sequences = 0;
  int32_t refill_sequences = 0;
  bool still = false;  ///< a clock that does not move: nothing can be measured
};

/// Tests of one engine that computes in Poll.
class LlamaEngineTest : public testing::Test {
 protected:
  void Make(const RoomSetup& setup) {
    LlamaEngineOptions options;
    options.model_name = "tiny";
    options.model_path = TinyModel("Q8_0", setup.mean_output);
    options.vocabulary = vocabulary_ = Vocabulary::Load(options.model_path);
    options.threads = 1;
    options.sequences = setup.sequences;
    options.kv_bytes = setup.kv_bytes;
    options.kept_bytes = setup.kept_bytes;
    options.kept_folder = setup.kept_folder;
    options.kept_disk_bytes = setup.kept_disk_bytes;
    options.context_tokens = setup.context_tokens;
    options.expected_tokens = setup.expected_tokens;
    options.layout = setup.layout;
    options.reuse = setup.reuse;
    options.load = setup.load;
    options.batch_tokens = setup.batch_tokens;
    options.running_sequences = setup.running_sequences;
    options.refill_sequences = setup.refill_sequences;
    if (setup.exact || setup.adapters) options.exactness = Exactness::kIfKnown;
    if (setup.adapters) {
      options.adapters = {{"x", Adapter(options.model_path, "F16", 8, 1), 1.0},
                          {"y", Adapter(options.model_path, "F16", 8, 2), 0.5}};
    }
    const Clock& clock = setup.still ? static_cast<const Clock&>(still_clock_) : clock_;
    engine_ = std::make_unique<LlamaEngine>(std::move(options), clock);
  }

  static std::vector<TokenId> Tokens(uint64_t seed, size_t count) {
    RandomStream random(seed);
    std::vector<TokenId> tokens(count);
    for (TokenId& token : tokens) token = static_cast<TokenId>(1000 + random.Below(20000));
    return tokens;
  }

  static std::vector<TokenId> Joined(std::vector<TokenId> a, const std::vector<TokenId>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  }

  Request Ask(RequestId id, std::vector<TokenId> prompt, int32_t max_tokens = 6) {
    Request request;
    request.id = id;
    request.order = static_cast<int64_t>(id);
    request.prompt_tokens = std::move(prompt);
    request.sampling.max_tokens = max_tokens;
    return request;
  }

  std::map<RequestId, Completion> Drain() {
    std::map<RequestId, Completion> all;
    for (int step = 0; engine_->pending() > 0 && step < 20000; ++step) {
      for (Completion& completion : engine_->Poll(0)) {
        EXPECT_FALSE(completion.failure) << (completion.failure ? completion.failure->message : "");
        EXPECT_EQ(completion.prompt_tokens, completion.reused_tokens + completion.prefilled_tokens);
        all[completion.id] = std::move(completion);
      }
      engine_->CheckInvariants();
    }
    EXPECT_EQ(engine_->pending(), 0);
    return all;
  }

  SteadyClock clock_;
  VirtualClock still_clock_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  std::unique_ptr<LlamaEngine> engine_;
};

}  // namespace halo::test
