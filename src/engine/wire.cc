#include "engine/wire.h"

#include <bit>
#include <concepts>
#include <cstring>
#include <optional>
#include <type_traits>
#include <utility>

namespace halo {
namespace {

static_assert(std::endian::native == std::endian::little, "both ends are on one machine");

[[noreturn]] void Refuse(const std::string& what) {
  throw Error(ErrorCode::kIo, "engine connection: " + what);
}

/// `M`, to be read or to be written: each message has one list of its fields, in their order.
template <typename T, typename M>
concept Is = std::same_as<std::remove_const_t<T>, M>;

void Fields(auto& each, Is<Failure> auto& f) {
  each(f.operator_id, f.code, f.message, f.retriable);
}

void Fields(auto& each, Is<SamplingParameters> auto& s) {
  each(s.temperature, s.top_p, s.top_k, s.min_p, s.max_tokens, s.min_tokens, s.stop, s.draw_key);
}

void Fields(auto& each, Is<KeepHint> auto& k) { each(k.consumers, k.answer, k.lone); }

void Fields(auto& each, Is<Request> auto& r) {
  each(r.id, r.prompt_tokens, r.prompt_text, r.sampling, r.adapter, r.grammar,
       r.static_prefix_tokens, r.consumes, r.keep, r.priority, r.order, r.urgent, r.deadline_us,
       r.script_operator, r.script_row, r.row_index, r.script_sample, r.script_attempt);
}

void Fields(auto& each, Is<CancelMessage> auto& c) { each(c.id); }
void Fields(auto&, Is<CancelWaitingMessage> auto&) {}
void Fields(auto& each, Is<ReleaseMessage> auto& r) { each(r.id, r.consumers); }
void Fields(auto&, Is<GoOnMessage> auto&) {}

void Fields(auto& each, Is<LoadMessage> auto& l) { each(l.load); }
void Fields(auto&, Is<LoadedMessage> auto&) {}
void Fields(auto& each, Is<ExportMessage> auto& e) { each(e.id); }
void Fields(auto& each, Is<KvMessage> auto& k) { each(k.id, k.adapter, k.tokens, k.bytes); }

void Fields(auto& each, Is<LlamaAdapter> auto& a) { each(a.name, a.path, a.scale); }

void Fields(auto& each, Is<LlamaSetup> auto& s) {
  each(s.model_name, s.model_path, s.adapters, s.threads, s.devices, s.load, s.sequences,
       s.kv_bytes, s.kept_bytes, s.kept_folder, s.kept_disk_bytes, s.context_tokens,
       s.expected_tokens, s.layout, s.prompt_lookup, s.reuse, s.exactness, s.hash_logits,
       s.record_spans, s.batch_tokens, s.micro_batch_tokens, s.running_sequences,
       s.refill_sequences, s.draft_tokens);
}

void Fields(auto& each, Is<SetupMessage> auto& s) {
  each(s.version, s.worker, s.workers, s.lanes, s.setup);
}

void Fields(auto& each, Is<Signature> auto& s) { each(s.high, s.low); }

void Fields(auto& each, Is<EngineDescription> auto& d) {
  each(d.name, d.model, d.vocabulary, d.context_tokens, d.sequences, d.kv_bytes_per_token,
       d.kv_tokens, d.has_token_ids, d.has_kv, d.exact);
}

void Fields(auto& each, Is<Completion> auto& c) {
  each(c.id, c.finish, c.failure, c.tokens, c.text, c.cut, c.prompt_tokens, c.reused_tokens,
       c.prefilled_tokens, c.recomputed_tokens, c.output_tokens, c.started_us, c.finished_us,
       c.engine_us, c.logits_hash);
}

void Fields(auto& each, Is<EngineStatistics> auto& s) {
  each(s.steps, s.decode_steps, s.decode_tokens, s.draft_tokens, s.accepted_tokens,
       s.prefill_tokens, s.busy_us, s.prefill_us, s.decode_us, s.sampling_us, s.copy_us, s.forks,
       s.copies, s.spills, s.restores, s.evictions, s.preemptions, s.grammar_us, s.adapter_changes,
       s.restarts, s.loads, s.load_us, s.migrations, s.keeps, s.disk_writes, s.disk_reads,
       s.disk_faults);
}

void Fields(auto& each, Is<EngineFault> auto& f) { each(f.code, f.message); }

void Fields(auto& each, Is<EngineSpan> auto& s) {
  each(s.kind, s.start_us, s.end_us, s.tokens, s.sequences, s.running, s.kv_tokens);
}

void Fields(auto& each, Is<EngineSpans> auto& s) { each(s.spans, s.left_out); }

/// The last value of each enum that crosses.
constexpr FinishReason LastOf(FinishReason) { return FinishReason::kFailed; }
constexpr KvLayout LastOf(KvLayout) { return KvLayout::kSplit; }
constexpr Exactness LastOf(Exactness) { return Exactness::kRequired; }
constexpr ErrorCode LastOf(ErrorCode) { return ErrorCode::kUnsupported; }
constexpr EngineSpan::Kind LastOf(EngineSpan::Kind) { return EngineSpan::Kind::kRestart; }

template <typename T>
concept Number = std::is_arithmetic_v<T> && !std::same_as<T, bool>;
template <typename T>
concept Enum = std::is_enum_v<T>;

/// Writes fields behind one another.
class Writer {
 public:
  explicit Writer(std::string& to) : to_(to) {}

  void operator()(const auto&... fields) { (Put(fields), ...); }

 private:
  void PutBytes(const void* bytes, size_t count) {
    to_.append(static_cast<const char*>(bytes), count);
  }
  void PutCount(size_t count) { Put(static_cast<uint32_t>(count)); }

  void Put(const Number auto& number) { PutBytes(&number, sizeof number); }
  void Put(const Enum auto& value) { Put(static_cast<uint8_t>(value)); }
  void Put(const Is<bool> auto& value) { Put(static_cast<uint8_t>(value ? 1 : 0)); }
  void Put(const std::string& text) {
    PutCount(text.size());
    to_ += text;
  }
  template <typename Value>
  void Put(const std::vector<Value>& values) {
    PutCount(values.size());
    if constexpr (Number<Value>) {
      PutBytes(values.data(), values.size() * sizeof(Value));
    } else {
      for (const Value& value : values) Put(value);
    }
  }
  template <typename Value>
  void Put(const std::optional<Value>& value) {
    Put(value.has_value());
    if (value) Put(*value);
  }
  void Put(const auto& message) { Fields(*this, message); }

  std::string& to_;
};

/// Reads them. What does not fit is refused before there is memory for it.
class Reader {
 public:
  explicit Reader(std::string_view from) : from_(from) {}

  void operator()(auto&... fields) { (Get(fields), ...); }
  void End() const {
    if (!from_.empty()) Refuse("a message with " + std::to_string(from_.size()) + " bytes more");
  }

 private:
  std::string_view Take(size_t count) {
    if (count > from_.size()) {
      Refuse("a message that ends too early: " + std::to_string(count) + " bytes wanted, " +
             std::to_string(from_.size()) + " there");
    }
    const std::string_view taken = from_.substr(0, count);
    from_.remove_prefix(count);
    return taken;
  }
  /// Of things that take `bytes_each` at least.
  size_t TakeCount(size_t bytes_each) {
    uint32_t count = 0;
    Get(count);
    if (count > from_.size() / bytes_each) {
      Refuse("a message that says it has " + std::to_string(count) + " values, and has " +
             std::to_string(from_.size()) + " bytes");
    }
    return count;
  }
  uint8_t TakeChoice(int last) {
    uint8_t choice = 0;
    Get(choice);
    if (choice > last) {
      Refuse("a choice of " + std::to_string(last + 1) + " has no number " +
             std::to_string(choice));
    }
    return choice;
  }

  void Get(Number auto& number) { std::memcpy(&number, Take(sizeof number).data(), sizeof number); }
  template <Enum Value>
  void Get(Value& value) {
    value = static_cast<Value>(TakeChoice(static_cast<int>(LastOf(Value{}))));
  }
  void Get(Is<bool> auto& value) { value = TakeChoice(1) == 1; }
  void Get(std::string& text) { text = Take(TakeCount(1)); }
  template <typename Value>
  void Get(std::vector<Value>& values) {
    if constexpr (Number<Value>) {
      values.resize(TakeCount(sizeof(Value)));
      const std::string_view bytes = Take(values.size() * sizeof(Value));
      if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    } else {
      values.clear();
      for (size_t left = TakeCount(1); left > 0; --left) Get(values.emplace_back());
    }
  }
  template <typename Value>
  void Get(std::optional<Value>& value) {
    value.reset();
    if (TakeChoice(1) == 1) Get(value.emplace());
  }
  void Get(auto& message) { Fields(*this, message); }

  std::string_view from_;
};

/// Where fields lie.
struct Addresses {
  std::vector<int64_t*> of;
  void operator()(auto&... fields) { (of.push_back(&fields), ...); }
};

/// The byte before the fields: which message of its direction it is, and which direction.
constexpr uint8_t kFromEngine = 0x80;
template <typename Direction>
constexpr uint8_t kFirstKind = std::same_as<Direction, FromEngine> ? kFromEngine : 0;

/// Of what may be long, so that a frame does not grow again and again.
size_t TextBytes(const Request& r) {
  return r.prompt_tokens.size() * sizeof(TokenId) + r.prompt_text.size() + r.grammar.size();
}
size_t TextBytes(const Completion& c) { return c.tokens.size() * sizeof(TokenId) + c.text.size(); }
size_t TextBytes(const auto& /*message*/) { return 0; }

void PutLength(uint32_t length, char* at) { std::memcpy(at, &length, kLengthBytes); }

template <typename Message>
std::string Encode(uint8_t kind, const Message& message) {
  // A request without its prompt, and nearly every other message.
  constexpr size_t kUsualBytes = 512;
  std::string frame;
  frame.reserve(kUsualBytes + TextBytes(message));
  frame.resize(kLengthBytes);
  Writer write(frame);
  write(kind, message);
  PutLength(static_cast<uint32_t>(frame.size() - kLengthBytes), frame.data());
  return frame;
}

/// The message of the direction's kind number `Index` or one behind it.
template <typename Direction, size_t Index = 0>
Direction Decode(size_t kind, Reader& read) {
  if constexpr (Index < std::variant_size_v<Direction>) {
    if (kind > Index) return Decode<Direction, Index + 1>(kind, read);
    std::variant_alternative_t<Index, Direction> message;
    read(message);
    read.End();
    return message;
  } else {
    Refuse("a message of a kind that does not cross in this direction");
  }
}

template <typename Direction>
Direction Decode(std::string_view body) {
  Reader read(body);
  uint8_t kind = 0;
  read(kind);
  // What is below the direction's first kind becomes a large number.
  return Decode<Direction>(static_cast<size_t>(kind) - kFirstKind<Direction>, read);
}

}  // namespace

std::string EncodeFrame(const ToEngine& message) {
  return std::visit(
      [&](const auto& fields) { return Encode(static_cast<uint8_t>(message.index()), fields); },
      message);
}

std::string EncodeFrame(const Request& request) {
  static_assert(std::same_as<std::variant_alternative_t<0, ToEngine>, Request>);
  return Encode(0, request);
}

std::string EncodeFrame(const FromEngine& message) {
  return std::visit(
      [&](const auto& fields) {
        return Encode(static_cast<uint8_t>(kFromEngine + message.index()), fields);
      },
      message);
}

ToEngine DecodeToEngine(std::string_view body) { return Decode<ToEngine>(body); }

FromEngine DecodeFromEngine(std::string_view body) { return Decode<FromEngine>(body); }

std::vector<int64_t*> Counters(EngineStatistics& s) {
  Addresses counters;
  Fields(counters, s);
  return counters.of;
}

void AddCounters(EngineStatistics part, EngineStatistics& total) {
  const std::vector<int64_t*> from = Counters(part), to = Counters(total);
  for (size_t i = 0; i < to.size(); ++i) *to[i] += *from[i];
}

std::string EncodeSharedLength(size_t bytes) {
  std::string length(kLengthBytes, '\0');
  PutLength(kInSharedMemory | static_cast<uint32_t>(bytes), length.data());
  return length;
}

void MarkAttachment(std::string& frame) {
  uint32_t length = 0;
  std::memcpy(&length, frame.data(), kLengthBytes);
  length |= kHasAttachment;
  std::memcpy(frame.data(), &length, kLengthBytes);
}

bool FrameReader::Next(Frame& frame) {
  if (buffer_.size() - start_ < kLengthBytes) return false;
  uint32_t length = 0;
  std::memcpy(&length, buffer_.data() + start_, kLengthBytes);
  const bool is_shared = (length & kInSharedMemory) != 0;
  const bool has_attachment = (length & kHasAttachment) != 0;
  const uint32_t size = length & ~(kInSharedMemory | kHasAttachment);
  if (is_shared && has_attachment) Refuse("a message has one descriptor at most");
  if (size > kFrameLimit || (is_shared && size == 0)) {
    Refuse("a message of " + std::to_string(size) + " bytes; at most " +
           std::to_string(kFrameLimit) + " are taken");
  }
  const uint32_t here = is_shared ? 0 : size;
  if (buffer_.size() - start_ - kLengthBytes < here) return false;
  frame.shared_bytes = is_shared ? size : 0;
  frame.has_attachment = has_attachment;
  frame.body = buffer_.substr(start_ + kLengthBytes, here);
  start_ += kLengthBytes + here;
  if (start_ == buffer_.size()) {
    buffer_.clear();
    start_ = 0;
  } else if (start_ > (1U << 20)) {
    buffer_.erase(0, start_);
    start_ = 0;
  }
  return true;
}

}  // namespace halo
