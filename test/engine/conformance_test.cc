// What every engine must do, run over each of them in process, through a socket pair and in a
// child process.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <map>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "base/text.h"
#include "engine/llama/llama_engine.h"
#include "engine/remote_engine.h"
#include "engine/simulated/simulated_engine.h"
#include "engine/supervised_engine.h"
#include "support/test_models.h"

namespace halo {
namespace {

/// An engine and whatever it needs to live.
class Harness {
 public:
  virtual ~Harness() = default;
  virtual Engine& engine() = 0;
  /// While an engine is held, it takes what is sent and does no work. In process it only works when
  /// it is asked to.
  virtual void Hold() {}
  virtual void GoOn() {}
};

LlamaSetup LlamaOptions(int32_t sequences) {
  LlamaSetup options;
  options.model_name = "tiny";
  options.model_path = test::TinyModel();
  options.threads = 1;
  options.sequences = sequences;
  options.context_tokens = 512;
  options.kv_bytes = 64 << 20;
  options.kept_bytes = 16 << 20;
  return options;
}

std::unique_ptr<LlamaEngine> MakeLlama(int32_t sequences, const Clock& clock) {
  LlamaEngineOptions options;
  static_cast<LlamaSetup&>(options) = LlamaOptions(sequences);
  options.vocabulary = Vocabulary::Load(options.model_path);
  return std::make_unique<LlamaEngine>(std::move(options), clock);
}

std::unique_ptr<SimulatedEngine> MakeSimulated(int32_t sequences, VirtualClock& clock) {
  SimulatedEngineOptions options;
  options.sequences = sequences;
  options.context_tokens = 512;
  options.script = [](const Request& request) {
    return ScriptedReply{"reply to " + std::to_string(request.prompt_text.size()),
                         1000,
                         FinishReason::kEndToken,
                         {}};
  };
  return std::make_unique<SimulatedEngine>(std::move(options), clock);
}

class LlamaHarness final : public Harness {
 public:
  explicit LlamaHarness(int32_t sequences) : engine_(MakeLlama(sequences, clock_)) {}
  Engine& engine() override { return *engine_; }

 private:
  SteadyClock clock_;
  std::unique_ptr<LlamaEngine> engine_;
};

class SimulatedHarness final : public Harness {
 public:
  explicit SimulatedHarness(int32_t sequences) : engine_(MakeSimulated(sequences, clock_)) {}
  Engine& engine() override { return *engine_; }

 private:
  VirtualClock clock_;
  std::unique_ptr<SimulatedEngine> engine_;
};

/// Another engine that can be held.
class HeldEngine final : public Engine {
 public:
  explicit HeldEngine(Engine& inner) : inner_(inner) {}
  void SetHeld(bool held) {
    held_ = held;
    held_.notify_all();
  }

  const EngineDescription& Describe() const override { return inner_.Describe(); }
  void Submit(Request request) override { inner_.Submit(std::move(request)); }
  void Cancel(RequestId id) override { inner_.Cancel(id); }
  void CancelWaiting() override { inner_.CancelWaiting(); }
  void Release(RequestId id, int32_t consumers) override { inner_.Release(id, consumers); }
  std::vector<Completion> Poll(int64_t deadline_us) override {
    held_.wait(true);
    return inner_.Poll(deadline_us);
  }
  int64_t pending() const override { return inner_.pending(); }
  EngineStatistics Statistics() const override { return inner_.Statistics(); }
  void Export(RequestId id) override { inner_.Export(id); }
  std::vector<KvTransfer> TakeExports() override { return inner_.TakeExports(); }
  void Import(KvTransfer kv) override { inner_.Import(std::move(kv)); }
  void Load() override { inner_.Load(); }
  void Unload() override { inner_.Unload(); }
  Residency residency() const override { return inner_.residency(); }

 private:
  Engine& inner_;
  std::atomic<bool> held_ = false;
};

/// The engine in a thread of its own behind a socket pair.
class SocketHarness final : public Harness {
 public:
  explicit SocketHarness(std::unique_ptr<Harness> inner)
      : inner_(std::move(inner)), served_(inner_->engine()) {
    int sockets[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    server_ = std::thread([this, socket = sockets[1]] {
      Connection connection{Descriptor(socket)};
      ServeEngine(served_, connection);
    });
    client_ = std::make_unique<RemoteEngine>(Descriptor(sockets[0]));
    constexpr int64_t kPatienceUs = 60'000'000;
    EXPECT_TRUE(client_->AwaitDescription(SteadyClock().NowUs() + kPatienceUs));
  }
  ~SocketHarness() override {
    client_.reset();  // closes the connection, on which the server ends
    server_.join();
  }
  Engine& engine() override { return *client_; }
  void Hold() override { served_.SetHeld(true); }
  void GoOn() override { served_.SetHeld(false); }

 private:
  std::unique_ptr<Harness> inner_;
  HeldEngine served_;
  std::thread server_;
  std::unique_ptr<RemoteEngine> client_;
};

/// The engine in a process of its own. Held by being stopped.
class SupervisedHarness final : public Harness {
 public:
  SupervisedHarness(std::vector<std::string> arguments, std::optional<SetupMessage> setup) {
    SupervisedEngineOptions options;
    options.model_name = "m";
    options.launch =
        ProgramLauncher(std::string(HALO_BIN_DIR) + "/engine_program", std::move(arguments));
    options.setup = std::move(setup);
    engine_ = std::make_unique<SupervisedEngine>(std::move(options), clock_);
  }
  Engine& engine() override { return *engine_; }
  void Hold() override { kill(engine_->pid(), SIGSTOP); }
  void GoOn() override { kill(engine_->pid(), SIGCONT); }

  static std::unique_ptr<Harness> Llama(int32_t sequences) {
    return std::make_unique<SupervisedHarness>(std::vector<std::string>{"engine_program", "llama"},
                                               SetupMessage{LlamaOptions(sequences), "test"});
  }
  static std::unique_ptr<Harness> Simulated(int32_t sequences) {
    return std::make_unique<SupervisedHarness>(
        std::vector<std::string>{"engine_program", "simulated", std::to_string(sequences)},
        std::nullopt);
  }

 private:
  SteadyClock clock_;
  std::unique_ptr<SupervisedEngine> engine_;
};

struct Kind {
  const char* name;
  std::function<std::unique_ptr<Harness>(int32_t sequences)> make;
};

class Conformance : public testing::TestWithParam<Kind> {
 protected:
  void Start(int32_t sequences) {
    harness_ = GetParam().make(sequences);
    engine_ = &harness_->engine();
  }

  /// A prompt of `tokens` tokens (words for engines that take text) that no other `salt` shares.
  Request Ask(RequestId id, int32_t tokens, int32_t salt) const {
    Request request;
    request.id = id;
    request.order = static_cast<int64_t>(id);
    request.sampling.max_tokens = 8;
    for (int32_t i = 0; i < tokens; ++i) {
      const int32_t word = 100 + (i == 0 ? salt : i * 7 + salt) % 5000;
      if (engine_->Describe().has_token_ids) {
        request.prompt_tokens.push_back(word);
      } else {
        request.prompt_text += "w" + std::to_string(word) + " ";
      }
    }
    return request;
  }

  /// Request 1, whose KV stays for so many others.
  void ComputeAndKeep(int32_t consumers) {
    Request parent = Ask(1, 60, 1);
    parent.keep = {consumers, true};
    engine_->Submit(parent);
    ASSERT_EQ(Drain().size(), 1U);
  }

  std::map<RequestId, Completion> Drain() {
    std::map<RequestId, Completion> all;
    const SteadyClock clock;
    const int64_t give_up_us = clock.NowUs() + 60'000'000;
    while (engine_->pending() > 0) {
      if (clock.NowUs() > give_up_us) {
        ADD_FAILURE() << "the engine does not come to an end";
        break;
      }
      // The simulated engine's deadline is on its virtual clock, where 0 means "as far as needed".
      const bool virtual_time = engine_->Describe().name == "simulated" && !remote();
      for (Completion& completion : engine_->Poll(virtual_time ? 0 : clock.NowUs() + 100'000)) {
        const RequestId id = completion.id;
        EXPECT_TRUE(all.emplace(id, std::move(completion)).second)
            << "request " << id << " was answered twice";
      }
    }
    return all;
  }

  static bool remote() {
    const std::string name = GetParam().name;
    return name.find("Socket") != std::string::npos || name.find("Process") != std::string::npos;
  }

  std::unique_ptr<Harness> harness_;
  Engine* engine_ = nullptr;
};

TEST_P(Conformance, DescribesItself) {
  Start(4);
  const EngineDescription& description = engine_->Describe();
  EXPECT_EQ(description.sequences, 4);
  EXPECT_EQ(description.context_tokens, 512);
  EXPECT_FALSE(description.name.empty());
  EXPECT_EQ(engine_->pending(), 0);
}

TEST_P(Conformance, AnswersEachRequestOnce) {
  Start(4);
  constexpr RequestId kRequests = 30;
  for (RequestId id = 1; id <= kRequests; ++id)
    engine_->Submit(Ask(id, 5 + static_cast<int32_t>(id), static_cast<int32_t>(id)));
  EXPECT_EQ(engine_->pending(), static_cast<int64_t>(kRequests));
  const auto all = Drain();
  ASSERT_EQ(all.size(), kRequests);
  for (const auto& [id, completion] : all) {
    EXPECT_FALSE(completion.failure.has_value()) << id;
    EXPECT_EQ(completion.prompt_tokens, 5 + static_cast<int64_t>(id));
    EXPECT_EQ(completion.prompt_tokens, completion.reused_tokens + completion.prefilled_tokens)
        << id;
    EXPECT_GE(completion.output_tokens, 1);
    EXPECT_LE(completion.output_tokens, 8);
    EXPECT_EQ(FindInvalidUtf8(completion.text), std::string::npos);
    EXPECT_NE(completion.finish, FinishReason::kFailed);
  }
}

TEST_P(Conformance, APromptIsComputedForOthersThatBeginWithIt) {
  Start(2);
  if (!engine_->Describe().has_token_ids) return;  // it has no KV
  Request ahead = Ask(1, 40, 1);
  ahead.sampling.max_tokens = 0;
  engine_->Submit(ahead);
  const Completion none = Drain().at(1);
  EXPECT_FALSE(none.failure.has_value());
  EXPECT_EQ(none.finish, FinishReason::kMaxTokens);
  EXPECT_EQ(none.prefilled_tokens, 40);
  EXPECT_EQ(none.output_tokens, 0);
  EXPECT_TRUE(none.tokens.empty());
  EXPECT_EQ(none.text, "");

  const Request whole = Ask(2, 60, 1);
  engine_->Submit(whole);
  const Completion after = Drain().at(2);
  EXPECT_EQ(after.reused_tokens, 40);
  EXPECT_EQ(after.prefilled_tokens, 20);
  Start(2);
  engine_->Submit(whole);
  const Completion alone = Drain().at(2);
  EXPECT_EQ(alone.reused_tokens, 0);
  EXPECT_EQ(alone.tokens, after.tokens);
  EXPECT_EQ(alone.text, after.text);
}

TEST_P(Conformance, APromptLongerThanTheContextFailsAlone) {
  Start(4);
  engine_->Submit(Ask(1, 10, 1));
  engine_->Submit(Ask(2, 600, 2));
  engine_->Submit(Ask(3, 10, 3));
  const auto all = Drain();
  ASSERT_EQ(all.size(), 3U);
  EXPECT_FALSE(all.at(1).failure.has_value());
  ASSERT_TRUE(all.at(2).failure.has_value());
  EXPECT_EQ(all.at(2).failure->code, "prompt_too_long");
  EXPECT_EQ(all.at(2).prompt_tokens, all.at(2).reused_tokens + all.at(2).prefilled_tokens);
  EXPECT_FALSE(all.at(3).failure.has_value());
}

TEST_P(Conformance, ACancelledRequestIsAnsweredAndTheOthersAreToo) {
  Start(1);
  for (RequestId id = 1; id <= 5; ++id) engine_->Submit(Ask(id, 20, static_cast<int32_t>(id)));
  engine_->Cancel(4);
  engine_->Cancel(99);  // nobody
  const auto all = Drain();
  ASSERT_EQ(all.size(), 5U);
  ASSERT_TRUE(all.at(4).failure.has_value());
  EXPECT_EQ(all.at(4).failure->code, "cancelled");
  for (const RequestId id : {1U, 2U, 3U, 5U}) EXPECT_FALSE(all.at(id).failure.has_value()) << id;
}

TEST_P(Conformance, WhatHasNotStartedCanBeCancelledAtOnce) {
  Start(1);
  harness_->Hold();
  for (RequestId id = 1; id <= 6; ++id) engine_->Submit(Ask(id, 20, static_cast<int32_t>(id)));
  engine_->CancelWaiting();
  harness_->GoOn();
  const auto all = Drain();
  ASSERT_EQ(all.size(), 6U);
  size_t cancelled = 0;
  for (const auto& [id, completion] : all) {
    if (!completion.failure) continue;
    EXPECT_EQ(completion.failure->code, "cancelled");
    EXPECT_EQ(completion.started_us, 0) << "it never started";
    ++cancelled;
  }
  // A server takes what has come and works a step in turns, so the first may have started.
  EXPECT_GE(cancelled, remote() ? 4U : 6U);
  engine_->Submit(Ask(7, 20, 7));
  EXPECT_FALSE(Drain().at(7).failure.has_value());
}

TEST_P(Conformance, ReleasingWhatIsNotThereIsHarmless) {
  Start(2);
  engine_->Release(12345, 3);
  engine_->Submit(Ask(1, 5, 1));
  engine_->Release(1, 1);
  EXPECT_EQ(Drain().size(), 1U);
  engine_->Release(1, 1);
}

TEST_P(Conformance, WhatWasUnloadedLoadsAgainForTheNextRequest) {
  Start(2);
  const bool unloads = engine_->Describe().name == "llama";
  const SteadyClock clock;
  const auto wait = [&] {
    const int64_t give_up_us = clock.NowUs() + 60'000'000;
    while (engine_->residency() == Residency::kChanging && clock.NowUs() < give_up_us)
      EXPECT_TRUE(engine_->Poll(clock.NowUs()).empty());
  };
  engine_->Submit(Ask(1, 20, 1));
  const Completion first = Drain().at(1);
  for (RequestId id = 2; id <= 3; ++id) {
    engine_->Unload();
    wait();
    // A remote one says what it was told.
    EXPECT_EQ(engine_->residency(),
              unloads || remote() ? Residency::kUnloaded : Residency::kLoaded);
    if (id == 3) engine_->Load();
    engine_->Submit(Ask(id, 20, 1));
    const Completion again = Drain().at(id);
    EXPECT_EQ(again.tokens, first.tokens);
    EXPECT_EQ(again.text, first.text);
    wait();
    EXPECT_EQ(engine_->residency(), Residency::kLoaded);
  }
  if (unloads) {
    EXPECT_EQ(engine_->Statistics().loads, 3);
  }
}

/// What comes of an export, or nothing after a minute.
std::optional<KvTransfer> AwaitExport(Engine& engine) {
  const SteadyClock clock;
  const int64_t give_up_us = clock.NowUs() + 60'000'000;
  while (clock.NowUs() < give_up_us) {
    EXPECT_TRUE(engine.Poll(clock.NowUs() + 1000).empty());
    std::vector<KvTransfer> found = engine.TakeExports();
    if (!found.empty()) return std::move(found.front());
  }
  return std::nullopt;
}

TEST_P(Conformance, KvThatIsAskedForTwiceIsAnsweredTwice) {
  Start(2);
  if (engine_->Describe().name != "llama") return;  // it has no KV to give
  ComputeAndKeep(2);
  engine_->Export(1);
  engine_->Export(1);
  const SteadyClock clock;
  const int64_t give_up_us = clock.NowUs() + 60'000'000;
  std::vector<KvTransfer> found;
  while (found.size() < 2 && clock.NowUs() < give_up_us) {
    EXPECT_TRUE(engine_->Poll(clock.NowUs() + 1000).empty());
    for (KvTransfer& kv : engine_->TakeExports()) found.push_back(std::move(kv));
  }
  ASSERT_EQ(found.size(), 2U);
  EXPECT_GT(found[0].bytes, 0);
  EXPECT_EQ(found[1].bytes, found[0].bytes);
}

TEST_P(Conformance, KvIsGivenAwayWithoutWeights) {
  Start(2);
  if (engine_->Describe().name != "llama") return;  // it has no KV to give
  ComputeAndKeep(1);
  engine_->Unload();
  engine_->Export(1);
  const std::optional<KvTransfer> kv = AwaitExport(*engine_);
  ASSERT_TRUE(kv.has_value());
  EXPECT_GT(kv->bytes, 0);
}

TEST_P(Conformance, KvMovesToAnotherEngine) {
  Start(2);
  if (engine_->Describe().name != "llama") {
    // It has no KV to give: it says nothing, and goes on.
    engine_->Export(1);
    engine_->Submit(Ask(1, 10, 1));
    EXPECT_FALSE(Drain().at(1).failure.has_value());
    EXPECT_TRUE(engine_->TakeExports().empty());
    return;
  }
  Request parent = Ask(1, 60, 1);
  parent.keep = {1, true};
  engine_->Submit(parent);
  const Completion said = Drain().at(1);
  Request child = Ask(2, 0, 0);
  child.prompt_tokens = parent.prompt_tokens;
  child.prompt_tokens.insert(child.prompt_tokens.end(), said.tokens.begin(), said.tokens.end());
  child.prompt_tokens.push_back(777);
  child.consumes = 1;
  const auto prompt_tokens = static_cast<int64_t>(child.prompt_tokens.size());

  engine_->Export(1);
  std::optional<KvTransfer> kv = AwaitExport(*engine_);
  ASSERT_TRUE(kv.has_value());
  EXPECT_EQ(kv->id, 1U);
  EXPECT_GT(kv->bytes, 0);
  const std::unique_ptr<Harness> from = std::move(harness_);
  Start(2);
  engine_->Import(*kv);
  engine_->Submit(child);
  const Completion moved = Drain().at(2);
  EXPECT_LE(moved.prefilled_tokens, 2);
  EXPECT_EQ(moved.reused_tokens, prompt_tokens - moved.prefilled_tokens);

  // As if it had been computed there.
  Start(2);
  engine_->Submit(child);
  const Completion computed = Drain().at(2);
  EXPECT_EQ(computed.prefilled_tokens, prompt_tokens);
  EXPECT_EQ(computed.tokens, moved.tokens);

  // What is not there is said, too, and taking it does no harm.
  engine_->Export(99);
  kv = AwaitExport(*engine_);
  ASSERT_TRUE(kv.has_value());
  EXPECT_EQ(kv->id, 99U);
  EXPECT_EQ(kv->bytes, 0);
  engine_->Import(*kv);
  engine_->Submit(Ask(3, 10, 3));
  EXPECT_FALSE(Drain().at(3).failure.has_value());
}

TEST_P(Conformance, HigherPriorityAndLowerOrderGoFirst) {
  Start(1);
  std::vector<RequestId> ends;
  Request late = Ask(1, 5, 1);
  late.order = 9;
  Request early = Ask(2, 5, 2);
  early.order = 3;
  Request urgent = Ask(3, 5, 3);
  urgent.priority = 1;
  urgent.order = 20;
  engine_->Submit(late);
  engine_->Submit(early);
  engine_->Submit(urgent);
  const bool virtual_time = engine_->Describe().name == "simulated" && !remote();
  const SteadyClock clock;
  while (engine_->pending() > 0) {
    for (const Completion& c : engine_->Poll(virtual_time ? 0 : clock.NowUs() + 100'000))
      ends.push_back(c.id);
  }
  // Through a socket the first may have started before the others came.
  if (remote()) {
    EXPECT_EQ(ends.size(), 3U);
  } else {
    EXPECT_EQ(ends, (std::vector<RequestId>{3, 2, 1}));
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, Conformance,
                         testing::Values(Kind{"Llama",
                                              [](int32_t n) -> std::unique_ptr<Harness> {
                                                return std::make_unique<LlamaHarness>(n);
                                              }},
                                         Kind{"Simulated",
                                              [](int32_t n) -> std::unique_ptr<Harness> {
                                                return std::make_unique<SimulatedHarness>(n);
                                              }},
                                         Kind{"LlamaSocket",
                                              [](int32_t n) -> std::unique_ptr<Harness> {
                                                return std::make_unique<SocketHarness>(
                                                    std::make_unique<LlamaHarness>(n));
                                              }},
                                         Kind{"SimulatedSocket",
                                              [](int32_t n) -> std::unique_ptr<Harness> {
                                                return std::make_unique<SocketHarness>(
                                                    std::make_unique<SimulatedHarness>(n));
                                              }},
                                         Kind{"LlamaProcess", SupervisedHarness::Llama},
                                         Kind{"SimulatedProcess", SupervisedHarness::Simulated}),
                         [](const auto& kind) { return std::string(kind.param.name); });

TEST(RemoteEngine, ALostConnectionFailsWhatIsUnderWay) {
  int sockets[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
  EngineDescription description;
  description.name = "fake";
  const std::string hello = EncodeFrame(FromEngine(description));
  ASSERT_EQ(write(sockets[1], hello.data(), hello.size()), static_cast<ssize_t>(hello.size()));
  RemoteEngine engine{Descriptor(sockets[0])};
  ASSERT_TRUE(engine.AwaitDescription(SteadyClock().NowUs() + 60'000'000));
  Request request;
  request.id = 7;
  engine.Submit(request);
  close(sockets[1]);
  const SteadyClock clock;
  const std::vector<Completion> lost = engine.Poll(clock.NowUs() + 1'000'000);
  ASSERT_EQ(lost.size(), 1U);
  ASSERT_TRUE(lost[0].failure.has_value());
  EXPECT_EQ(lost[0].failure->code, "engine_lost");
  EXPECT_TRUE(lost[0].failure->retriable);
  request.id = 8;
  engine.Submit(request);
  EXPECT_EQ(engine.Poll(0).size(), 1U);
}

}  // namespace
}  // namespace halo
