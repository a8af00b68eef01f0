#include "engine/remote_engine.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "engine/crash_record.h"
#include "engine/engine_turns.h"

namespace halo {
namespace {

/// Queues KV in the one direction or the other.
template <typename Direction>
void PutKv(KvTransfer kv, Connection& connection) {
  KvMessage message{kv.id, std::move(kv.adapter), std::move(kv.tokens), kv.bytes};
  std::string frame = EncodeFrame(Direction(std::move(message)));
  if (kv.kv == nullptr) return connection.Put(std::move(frame));
  connection.Put(std::move(frame), std::move(kv.kv));
}

/// What PutKv has sent. Throws Error(kIo) where message and memory do not belong together.
KvTransfer KvFrom(KvMessage message, Descriptor attachment) {
  if (message.bytes < 0 || (message.bytes > 0) != bool(attachment))
    throw Error(ErrorCode::kIo, "engine connection: KV came without its memory");
  KvTransfer kv{message.id, std::move(message.adapter), std::move(message.tokens), message.bytes};
  if (attachment) kv.kv = std::make_shared<const Descriptor>(std::move(attachment));
  return kv;
}

}  // namespace

RemoteEngine::RemoteEngine(Descriptor socket, std::optional<SetupMessage> setup)
    : connection_(std::move(socket)) {
  if (setup) is_told_to_load_ = setup->setup.load;
  if (setup) connection_.Put(EncodeFrame(ToEngine(std::move(*setup))));
  connection_.Write();
}

bool RemoteEngine::AwaitDescription(int64_t deadline_us) {
  const SteadyClock clock;
  Receive();
  for (int64_t now = clock.NowUs(); connection_.is_open() && !is_described_ && now < deadline_us;
       now = clock.NowUs()) {
    connection_.Wait(deadline_us - now);
    connection_.Write();
    Receive();
  }
  return is_described_;
}

void RemoteEngine::Send(const Request& request) {
  if (!is_told_to_load_) TellResidency(true);
  pending_.insert(request.id);
  connection_.Put(EncodeFrame(request));
  if (!connection_.is_open()) LosePending();
}

void RemoteEngine::Cancel(RequestId id) {
  connection_.Put(EncodeFrame(ToEngine(CancelMessage{id})));
}

void RemoteEngine::CancelWaiting() {
  connection_.Put(EncodeFrame(ToEngine(CancelWaitingMessage{})));
}

void RemoteEngine::Release(RequestId id, int32_t consumers) {
  connection_.Put(EncodeFrame(ToEngine(ReleaseMessage{id, consumers})));
}

void RemoteEngine::TellResidency(bool load) {
  is_told_to_load_ = load;
  ++unanswered_loads_;
  connection_.Put(EncodeFrame(ToEngine(LoadMessage{load})));
  connection_.Write();
}

void RemoteEngine::Export(RequestId id) {
  ++unanswered_exports_;
  connection_.Put(EncodeFrame(ToEngine(ExportMessage{id})));
  connection_.Write();
}

void RemoteEngine::Import(KvTransfer kv) {
  PutKv<ToEngine>(std::move(kv), connection_);
  connection_.Write();  // it holds memory and a descriptor, and nobody may poll for long
}

void RemoteEngine::LosePending() {
  for (const RequestId id : pending_) {
    Completion completion;
    completion.id = id;
    completion.failure =
        Failure{"", "engine_lost", "the engine's process went away: " + connection_.why(), true};
    lost_.push_back(std::move(completion));
  }
  pending_.clear();
  std::sort(lost_.begin(), lost_.end(),
            [](const Completion& a, const Completion& b) { return a.id < b.id; });
}

void RemoteEngine::Take(std::string_view body, Descriptor attachment) {
  FromEngine message = DecodeFromEngine(body);
  if (auto* completion = std::get_if<Completion>(&message)) {
    // An id that is not pending was lost or never asked for; the other end is not trusted to be
    // right about it.
    if (pending_.erase(completion->id) > 0) arrived_.push_back(std::move(*completion));
  } else if (auto* description = std::get_if<EngineDescription>(&message)) {
    if (is_described_) return;  // constant over its life
    description_ = std::move(*description);
    is_described_ = true;
  } else if (auto* fault = std::get_if<EngineFault>(&message)) {
    fault_ = std::move(*fault);
  } else if (auto* kv = std::get_if<KvMessage>(&message)) {
    unanswered_exports_ = std::max<int64_t>(0, unanswered_exports_ - 1);
    exports_.push_back(KvFrom(std::move(*kv), std::move(attachment)));
  } else if (std::holds_alternative<LoadedMessage>(message)) {
    unanswered_loads_ = std::max<int64_t>(0, unanswered_loads_ - 1);
  } else if (const auto* spans = std::get_if<EngineSpans>(&message)) {
    spans_.Add(*spans);
  } else {
    statistics_ = std::get<EngineStatistics>(message);
  }
}

void RemoteEngine::Receive() {
  if (!connection_.is_open()) return;
  connection_.Read(
      [this](std::string_view body, Descriptor attachment) { Take(body, std::move(attachment)); });
  if (!connection_.is_open()) LosePending();
}

std::vector<Completion> RemoteEngine::Poll(int64_t deadline_us) {
  const SteadyClock clock;
  if (std::exchange(is_waited_for_, false)) connection_.Put(EncodeFrame(ToEngine(GoOnMessage{})));
  connection_.Write();
  Receive();
  for (int64_t now = clock.NowUs(); connection_.is_open() && arrived_.empty() && lost_.empty() &&
                                    exports_.empty() && is_awaited() && now < deadline_us;
       now = clock.NowUs()) {
    connection_.Wait(deadline_us - now);
    connection_.Write();
    Receive();
  }
  std::vector<Completion> finished = std::exchange(arrived_, {});
  is_waited_for_ = !finished.empty();
  std::move(lost_.begin(), lost_.end(), std::back_inserter(finished));
  lost_.clear();
  return finished;
}

namespace {

/// What the other end asks of an engine.
void Obey(Engine& engine, ToEngine message, Descriptor attachment, CrashRecord* record,
          Connection& connection) {
  if (auto* kv = std::get_if<KvMessage>(&message)) {
    engine.Import(KvFrom(std::move(*kv), std::move(attachment)));
  } else if (const auto* wanted = std::get_if<ExportMessage>(&message)) {
    engine.Export(wanted->id);
    for (KvTransfer& found : engine.TakeExports()) PutKv<FromEngine>(std::move(found), connection);
  } else if (const auto* load = std::get_if<LoadMessage>(&message)) {
    try {
      load->load ? engine.Load() : engine.Unload();
    } catch (const Error& error) {
      connection.Put(EncodeFrame(FromEngine(EngineFault{error.code(), error.what()})));
      connection.Write();
      throw;
    }
    connection.Put(EncodeFrame(FromEngine(engine.Statistics())));
    connection.Put(EncodeFrame(FromEngine(LoadedMessage{})));
  } else if (auto* request = std::get_if<Request>(&message)) {
    if (record != nullptr) record->SetTaken(request->id);
    engine.Submit(std::move(*request));
    if (record != nullptr) record->SetTaken(0);
  } else if (const auto* cancel = std::get_if<CancelMessage>(&message)) {
    engine.Cancel(cancel->id);
  } else if (std::holds_alternative<CancelWaitingMessage>(message)) {
    engine.CancelWaiting();
  } else if (const auto* release = std::get_if<ReleaseMessage>(&message)) {
    engine.Release(release->id, release->consumers);
  } else if (std::holds_alternative<SetupMessage>(message)) {
    throw Error(ErrorCode::kIo,
                "engine connection: an engine that is served cannot be set up anew");
  }
}

/// One engine at one end of a connection.
class EngineServer {
 public:
  EngineServer(Engine& engine, Connection& connection, const ServedWith& with)
      : engine_(engine), connection_(connection), with_(with) {}

  void Run() {
    connection_.Put(EncodeFrame(FromEngine(engine_.Describe())));
    while (true) {
      connection_.Write();
      WaitForMore();
      connection_.Read([this](std::string_view body, Descriptor attachment) {
        Take(body, std::move(attachment));
      });
      if (!connection_.is_open()) return;
      if (engine_.pending() == 0 || held_until_us_ > clock_.NowUs()) continue;
      held_until_us_ = 0;
      is_refused_ = !MayGo();
      if (!is_refused_) MakePass();
    }
  }

 private:
  // How long to wait for what follows from an answer. In process it is there before the next pass;
  // making a prompt takes about 0.1 ms, and a pass that begins without it leaves a hole in the
  // batch, or moves KV to fill that.
  static constexpr int64_t kReactionUs = 5'000;
  // How often an engine that others go before looks again, and takes what has come; a pass takes
  // longer.
  static constexpr int64_t kLookAgainUs = 2'000;
  static constexpr int64_t kForEver = -1;
  // With answers, or when there are so many.
  static constexpr size_t kSpansOfMessage = 256;

  void WaitForMore() {
    if (engine_.pending() == 0) {
      if (with_.turns != nullptr) with_.turns->Announce(0);
      connection_.Wait(kForEver);
    } else if (const int64_t now = clock_.NowUs(); held_until_us_ > now) {
      connection_.Wait(held_until_us_ - now);
    } else if (is_refused_) {
      connection_.Wait(kLookAgainUs);
    }
  }

  void Take(std::string_view body, Descriptor attachment) {
    ToEngine message = DecodeToEngine(body);
    if (std::holds_alternative<GoOnMessage>(message)) {
      held_until_us_ = 0;
      return;
    }
    if (const auto* request = std::get_if<Request>(&message); request != nullptr && request->urgent)
      urgent_.insert(request->id);
    has_cancelled_ = has_cancelled_ || std::holds_alternative<CancelMessage>(message) ||
                     std::holds_alternative<CancelWaitingMessage>(message);
    Obey(engine_, std::move(message), std::move(attachment), with_.record, connection_);
  }

  /// Of the next pass. What is urgent does not wait for others to join it.
  int32_t Fullness() const {
    if (!urgent_.empty()) return EngineTurns::kFull;
    const int64_t sequences = std::max(1, engine_.Describe().sequences);
    return static_cast<int32_t>(EngineTurns::kFull * std::min(engine_.pending(), sequences) /
                                sequences);
  }

  bool MayGo() {
    if (with_.turns == nullptr) return true;
    with_.turns->Announce(std::max(1, Fullness()));
    return has_cancelled_ || with_.turns->MayTake();
  }

  void MakePass() {
    has_cancelled_ = false;
    if (with_.turns != nullptr) {
      const int32_t threads = with_.turns->Take();
      if (with_.use_threads) with_.use_threads(threads);
    }
    const std::vector<Completion> finished = engine_.Poll(0);
    if (with_.turns != nullptr) {
      if (with_.rest != nullptr && with_.turns->IsAwaited()) with_.rest();
      with_.turns->GiveBack();
    }
    spans_.Add(engine_.TakeSpans());
    if (spans_.size() >= kSpansOfMessage || (spans_.size() > 0 && !finished.empty()))
      connection_.Put(EncodeFrame(FromEngine(spans_.Take())));
    if (finished.empty()) return;
    connection_.Put(EncodeFrame(FromEngine(engine_.Statistics())));
    for (const Completion& completion : finished) {
      if (with_.record != nullptr) with_.record->End(completion.id);
      urgent_.erase(completion.id);
      connection_.Put(EncodeFrame(FromEngine(completion)));
    }
    held_until_us_ = clock_.NowUs() + kReactionUs;
  }

  const SteadyClock clock_;
  Engine& engine_;
  Connection& connection_;
  const ServedWith& with_;
  SpanLog spans_;
  std::unordered_set<RequestId> urgent_;  ///< not answered yet
  int64_t held_until_us_ = 0;             ///< 0: nothing is waited for
  bool is_refused_ = false;               ///< others go first
  bool has_cancelled_ = false;            ///< what it gives back at its next pass is waited for
};

}  // namespace

void ServeEngine(Engine& engine, Connection& connection, const ServedWith& with) {
  EngineServer(engine, connection, with).Run();
}

}  // namespace halo
