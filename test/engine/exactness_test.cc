// Exact answers: every call's logits, bit for bit those of the reference, whatever was done to run
// calls together.
#include "engine/llama/exactness.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <llama.h>

#include <cmath>
#include <iostream>
#include <map>
#include <memory>
#include <set>

#include "base/clock.h"
#include "base/random.h"
#include "engine/llama/llama_engine.h"
#include "model/synth.h"
#include "support/test_models.h"

namespace halo {
namespace {

using testing::HasSubstr;

/// How work is batched; nothing of it may show in a logit.
struct Batching {
  const char* name;
  int32_t threads = 2;
  int32_t sequences = 16;
  int32_t batch_tokens = 0;
  int32_t micro_batch_tokens = 0;
  int64_t kv_bytes = 256 << 20;
  int64_t kept_bytes = 128 << 20;
  bool reverse = false;         ///< the requests of a round come in the opposite order
  bool urgent = false;          ///< every third request
  bool threads_change = false;  ///< from pass to pass
};

const Batching kReference{"reference", 1, 1};

/// Calls in rounds: trees of shared prefixes, conversations on finished calls, calls of higher
/// priority that preempt.
struct Traffic {
  uint64_t seed = 1;
  int contexts = 4;
  int calls_per_context = 5;
  int rounds = 3;
  int32_t context_tokens = 150;  ///< mean
  int32_t answer_tokens = 16;    ///< most
};

struct Answer {
  std::vector<TokenId> tokens;
  uint64_t logits_hash = 0;
  friend bool operator==(const Answer&, const Answer&) = default;
};

struct Outcome {
  std::map<RequestId, Answer> answers;
  EngineStatistics statistics;
  int64_t reused_tokens = 0;
};

/// The mode refuses a CPU whose kernels were not tested, so there is nothing to test there.
#define SKIP_WHERE_REFUSED() \
  if (const std::string why = WhyNotExactHere(); !why.empty()) GTEST_SKIP() << why

std::vector<TokenId> Tokens(RandomStream& random, size_t count) {
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = static_cast<TokenId>(1000 + random.Below(20000));
  return tokens;
}

/// The requests of one round, the same for every engine as long as earlier answers are.
std::vector<Request> Round(const Traffic& traffic, int round,
                           const std::map<RequestId, Request>& asked,
                           const std::map<RequestId, Answer>& answers) {
  RandomStream random(traffic.seed * 1000 + static_cast<uint64_t>(round));
  RequestId id = 1 + static_cast<RequestId>(round) * 1000;
  std::vector<Request> requests;
  const auto add = [&](std::vector<TokenId> prompt) -> Request& {
    Request request;
    request.id = id++;
    request.order = static_cast<int64_t>(request.id);
    request.prompt_tokens = std::move(prompt);
    request.sampling.max_tokens =
        1 + static_cast<int32_t>(random.Below(static_cast<uint64_t>(traffic.answer_tokens)));
    request.sampling.temperature = random.Below(2) == 0 ? 0.0F : 0.7F;
    request.sampling.draw_key = request.id;
    request.keep = {1, true};
    if (random.Below(6) == 0) request.priority = 1;
    requests.push_back(std::move(request));
    return requests.back();
  };
  for (int context = 0; context < traffic.contexts; ++context) {
    const auto length = static_cast<size_t>(traffic.context_tokens / 2) +
                        random.Below(static_cast<uint64_t>(traffic.context_tokens));
    const std::vector<TokenId> shared = Tokens(random, length);
    for (int call = 0; call < traffic.calls_per_context; ++call) {
      std::vector<TokenId> prompt = shared;
      const std::vector<TokenId> own = Tokens(random, 1 + random.Below(40));
      prompt.insert(prompt.end(), own.begin(), own.end());
      add(std::move(prompt));
    }
  }
  for (const auto& [parent, request] : asked) {
    if (random.Below(2) == 0) continue;
    // A turn on top of what was decoded: its KV was made a token at a time, the reference prefills
    // all of it.
    std::vector<TokenId> prompt = request.prompt_tokens;
    const std::vector<TokenId>& said = answers.at(parent).tokens;
    prompt.insert(prompt.end(), said.begin(), said.end());
    const std::vector<TokenId> turn = Tokens(random, 1 + random.Below(20));
    prompt.insert(prompt.end(), turn.begin(), turn.end());
    add(std::move(prompt)).consumes = parent;
  }
  return requests;
}

Outcome RunTraffic(const Traffic& traffic, const std::string& model, const Batching& batching,
                   bool reference, const std::vector<LlamaAdapter>& adapters = {}) {
  LlamaEngineOptions options;
  options.model_name = "m";
  options.model_path = model;
  options.adapters = adapters;
  options.vocabulary = Vocabulary::Load(model);
  options.threads = batching.threads;
  options.sequences = batching.sequences;
  options.kv_bytes = batching.kv_bytes;
  options.kept_bytes = batching.kept_bytes;
  options.context_tokens = 1024;
  options.batch_tokens = batching.batch_tokens;
  options.micro_batch_tokens = batching.micro_batch_tokens;
  options.reuse = !reference;
  options.exactness = Exactness::kRequired;
  options.hash_logits = true;
  const SteadyClock clock;
  LlamaEngine engine(std::move(options), clock);
  EXPECT_TRUE(engine.Describe().exact);

  Outcome outcome;
  std::map<RequestId, Request> asked;
  int32_t passes = 0;
  const auto step = [&] {
    if (batching.threads_change) engine.UseThreads(1 + passes++ % 3);
    for (Completion& completion : engine.Poll(0)) {
      EXPECT_FALSE(completion.failure) << (completion.failure ? completion.failure->message : "");
      EXPECT_NE(completion.logits_hash, 0U);
      outcome.reused_tokens += completion.reused_tokens;
      outcome.answers[completion.id] = {std::move(completion.tokens), completion.logits_hash};
    }
  };
  for (int round = 0; round < traffic.rounds; ++round) {
    std::vector<Request> requests = Round(traffic, round, asked, outcome.answers);
    if (batching.reverse) std::reverse(requests.begin(), requests.end());
    for (Request& request : requests) {
      // A conversation keeps its adapter, and the model as it is has its share.
      const auto parent = asked.find(request.consumes);
      if (parent != asked.end()) {
        request.adapter = parent->second.adapter;
      } else if (const size_t which = request.id % (adapters.size() + 1); which > 0) {
        request.adapter = adapters[which - 1].name;
      }
      asked[request.id] = request;
      if (reference) request.consumes = 0;
      request.urgent = batching.urgent && request.id % 3 == 0;
      // What goes ahead comes when others run already.
      if (request.priority > 0) step();
      engine.Submit(std::move(request));
    }
    while (engine.pending() > 0) step();
  }
  outcome.statistics = engine.Statistics();
  return outcome;
}

void ExpectEqual(const Outcome& outcome, const Outcome& reference, const std::string& what) {
  ASSERT_EQ(outcome.answers.size(), reference.answers.size()) << what;
  size_t different = 0;
  for (const auto& [id, answer] : reference.answers)
    different += outcome.answers.at(id) == answer ? 0 : 1;
  EXPECT_EQ(different, 0U) << what << ": calls whose logits differ from the reference's, of "
                           << reference.answers.size();
}

const std::vector<Batching>& Batchings() {
  static const std::vector<Batching> all = {
      {"one at a time with reuse", 2, 1},
      {"two threads", 2, 16},
      {"one thread", 1, 16},
      {"all at once", 2, 64},
      {"small chunks", 2, 16, 64, 32},
      {"odd chunks", 1, 7, 37, 37},
      {"in the opposite order", 2, 16, 0, 0, 256 << 20, 128 << 20, true},
      {"urgent ones among them", 2, 16, 0, 0, 256 << 20, 128 << 20, false, true},
      {.name = "threads that come and go", .threads_change = true},
      {"no host memory for what is kept", 2, 3, 0, 0, 256 << 20, 1},
      {"little room", 2, 4, 128, 64, 12 << 20, 4 << 20},
  };
  return all;
}

SynthShape Width512() {
  SynthShape shape = ShapeByName("tiny");
  shape.name = "width512";
  shape.layers = 3;
  shape.width = 512;
  shape.heads = 8;
  shape.kv_heads = 2;
  shape.head_width = 64;
  shape.feed_forward = 1536;
  return shape;
}

class WeightTypes : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Exactness, WeightTypes, testing::Values("F16", "Q8_0", "Q4_K"),
                         [](const auto& c) { return c.param; });

TEST_P(WeightTypes, LogitsOfTinyDoNotDependOnBatching) {
  SKIP_WHERE_REFUSED();
  const std::string model = test::TinyModel(GetParam(), 24);
  const Traffic traffic;
  const Outcome reference = RunTraffic(traffic, model, kReference, true);
  EXPECT_EQ(reference.reused_tokens, 0);
  bool forked = false, spilled = false, restored = false, preempted = false;
  for (const Batching& batching : Batchings()) {
    const Outcome outcome = RunTraffic(traffic, model, batching, false);
    ExpectEqual(outcome, reference, batching.name);
    forked = forked || outcome.statistics.copies > 0;
    spilled = spilled || outcome.statistics.spills > 0;
    restored = restored || outcome.statistics.restores > 0;
    preempted = preempted || outcome.statistics.preemptions > 0;
  }
  EXPECT_TRUE(forked && spilled && restored && preempted)
      << "the traffic does not reach what it is to test";
}

TEST_P(WeightTypes, LogitsOfWidth512DoNotDependOnBatching) {
  SKIP_WHERE_REFUSED();
  const std::string model = test::SynthModel(Width512(), GetParam());
  const Traffic traffic{.seed = 2, .contexts = 3, .rounds = 2, .context_tokens = 250};
  const Outcome reference = RunTraffic(traffic, model, kReference, true);
  for (const Batching& batching : {Batchings()[1], Batchings()[5]}) {
    ExpectEqual(RunTraffic(traffic, model, batching, false), reference, batching.name);
  }
}

TEST_P(WeightTypes, LogitsWithAdaptersDoNotDependOnBatching) {
  SKIP_WHERE_REFUSED();
  for (const std::string& model :
       {test::TinyModel(GetParam(), 24), test::SynthModel(Width512(), GetParam())}) {
    // Ranks that fill the kernels' tiles and one that does not.
    const std::vector<LlamaAdapter> adapters = {{"half", test::Adapter(model, "F16", 16, 1), 1.0},
                                                {"full", test::Adapter(model, "F32", 64, 2), 0.7},
                                                {"odd", test::Adapter(model, "F16", 6, 3), 1.0}};
    const Traffic traffic{.seed = 5, .contexts = 2, .calls_per_context = 8, .rounds = 2};
    const Outcome reference = RunTraffic(traffic, model, kReference, true, adapters);
    std::set<uint64_t> hashes;
    for (const auto& [id, answer] : reference.answers) hashes.insert(answer.logits_hash);
    EXPECT_EQ(hashes.size(), reference.answers.size());
    for (const size_t i : {1, 5, 8}) {
      const Batching& batching = Batchings()[i];
      const Outcome outcome = RunTraffic(traffic, model, batching, false, adapters);
      ExpectEqual(outcome, reference, batching.name);
      EXPECT_GT(outcome.statistics.adapter_changes, 0);
    }
  }
}

TEST(ExactnessTest, LogitsOfQwen3WithWideHeadsDoNotDependOnBatching) {
  SKIP_WHERE_REFUSED();
  SynthShape shape = ShapeByName("qwen3-0.6b");
  shape.name = "qwen3-small";
  shape.layers = 2;
  shape.width = 256;
  shape.heads = 8;
  shape.kv_heads = 2;
  shape.feed_forward = 512;
  shape.vocabulary = "gpt-2";
  const std::string model = test::SynthModel(shape, "Q8_0");
  const Traffic traffic{.seed = 4, .contexts = 2, .rounds = 2};
  const Outcome reference = RunTraffic(traffic, model, kReference, true);
  for (const Batching& batching : {Batchings()[1], Batching{"three threads", 3, 16}}) {
    ExpectEqual(RunTraffic(traffic, model, batching, false), reference, batching.name);
  }
}

TEST(ExactnessTest, LogitsOf135mDoNotDependOnBatching) {
  SKIP_WHERE_REFUSED();
  const std::string model = test::SynthModel(ShapeByName("135m"), "Q8_0");
  const Traffic traffic{.seed = 3,
                        .contexts = 2,
                        .calls_per_context = 3,
                        .rounds = 2,
                        .context_tokens = 80,
                        .answer_tokens = 8};
  const Outcome reference = RunTraffic(traffic, model, kReference, true);
  ExpectEqual(RunTraffic(traffic, model, Batchings()[1], false), reference, "two threads");
}

TEST(ExactnessTest, WithoutItTheHashesSeeADifference) {
  SKIP_WHERE_REFUSED();
  // Else equal hashes would prove nothing: the same traffic with stock kernels must not be bitwise
  // equal.
  const std::string model = test::TinyModel("F16", 24);
  const SteadyClock clock;
  std::set<uint64_t> hashes;
  for (const bool exact : {false, true}) {
    LlamaEngineOptions options;
    options.model_path = model;
    options.vocabulary = Vocabulary::Load(model);
    options.context_tokens = 1024;
    options.hash_logits = true;
    options.exactness = exact ? Exactness::kRequired : Exactness::kOff;
    LlamaEngine engine(std::move(options), clock);
    RandomStream random(5);
    Request request;
    request.id = 1;
    request.prompt_tokens = Tokens(random, 200);
    request.sampling.max_tokens = 4;
    engine.Submit(request);
    while (engine.pending() > 0) {
      for (const Completion& completion : engine.Poll(0)) hashes.insert(completion.logits_hash);
    }
  }
  EXPECT_EQ(hashes.size(), 2U);
}

/// Logits after a prompt, computed in passes of `chunk` tokens, and after one more token that is
/// decoded.
std::vector<float> LogitsOf(const std::string& model_path, bool exact, size_t chunk) {
  llama_model_params params = llama_model_default_params();
  params.use_extra_bufts = false;
  const std::unique_ptr<llama_model, decltype(&llama_model_free)> model(
      llama_model_load_from_file(model_path.c_str(), params), llama_model_free);
  KvRoom::Shape shape;
  shape.sequences = 1;
  shape.tokens_per_sequence = 1024;
  shape.tokens = 1024;
  shape.threads = 2;
  shape.exact = exact;
  KvRoom room(model.get(), shape);
  RandomStream random(9);
  constexpr size_t kPrompt = 300;
  const std::vector<TokenId> tokens = Tokens(random, kPrompt + 1);
  std::vector<float> logits;
  for (size_t at = 0; at <= kPrompt;) {
    const size_t end = at == kPrompt ? kPrompt + 1 : std::min(kPrompt, at + chunk);
    std::vector<KvRoom::BatchToken> batch;
    for (; at < end; ++at)
      batch.push_back({tokens[at], static_cast<int32_t>(at), 0, at + 1 == end});
    bool restored = false;
    EXPECT_TRUE(room.Decode(batch, restored));
    const float* row = room.Logits(static_cast<int32_t>(batch.size()) - 1);
    if (at >= kPrompt)
      logits.insert(logits.end(), row,
                    row + llama_vocab_n_tokens(llama_model_get_vocab(model.get())));
  }
  return logits;
}

/// Root mean square of the difference, as a share of that of `b`.
double Difference(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0.0, size = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / size);
}

TEST(ExactnessTest, ExactKernelsComputeTheSameFunctionAsTheStockOnes) {
  SKIP_WHERE_REFUSED();
  for (const char* type : {"F16", "Q8_0", "Q4_K"}) {
    const std::string model = test::SynthModel(Width512(), type);
    const std::vector<float> stock = LogitsOf(model, false, 512);
    // Stock kernels differ among themselves by rounding: as much as that, and no more.
    const double rounding = Difference(LogitsOf(model, false, 1), stock);
    const double difference = Difference(LogitsOf(model, true, 512), stock);
    EXPECT_GT(rounding, 0.0) << type;
    EXPECT_GT(difference, 0.0) << type << ": the exact kernels were not used";
    EXPECT_LT(difference, 2.0 * rounding) << type;
    EXPECT_EQ(LogitsOf(model, true, 1), LogitsOf(model, true, 512)) << type;
    std::cout << type << ": rounding of stock kernels " << rounding << ", exact against stock "
              << difference << "\n";
  }
}

TEST(ExactnessTest, WhatWasNotTestedIsRefusedWithItsReason) {
  SKIP_WHERE_REFUSED();
  const std::string model = test::TinyModel("Q8_0");
  EXPECT_EQ(WhyNotExact(model, KvLayout::kSplit), "");
  EXPECT_EQ(WhyNotExact(model, KvLayout::kAuto), "");
  EXPECT_THAT(WhyNotExact(model, KvLayout::kUnified), HasSubstr("use split"));
  EXPECT_EQ(WhyNotExact(model, KvLayout::kSplit, true), "");
  EXPECT_EQ(WhyNotExact(test::TinyModel("Q4_K"), KvLayout::kSplit), "");
  EXPECT_THAT(WhyNotExact(test::TinyModel("Q4_K"), KvLayout::kSplit, true), HasSubstr("faster"));
  LlamaEngineOptions options;
  options.model_name = "m";
  options.model_path = model;
  options.vocabulary = Vocabulary::Load(model);
  options.layout = KvLayout::kUnified;
  options.exactness = Exactness::kRequired;
  const SteadyClock clock;
  try {
    LlamaEngine engine(options, clock);
    FAIL() << "unified KV was taken for exact";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kConfig);
    EXPECT_THAT(error.what(), HasSubstr("--deterministic"));
  }
  options.exactness = Exactness::kIfKnown;
  EXPECT_FALSE(LlamaEngine(options, clock).Describe().exact);
}

}  // namespace
}  // namespace halo
