#include "engine/wire.h"

#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

namespace halo {
namespace {

using Json = nlohmann::json;

[[noreturn]] void Refuse(const std::string& what) {
  throw Error(ErrorCode::kIo, "engine connection: " + what);
}

/// Looks through a message for lists in lists: decoding one level takes a piece of the stack.
class DepthCheck final : public nlohmann::json_sax<Json> {
 public:
  static constexpr int kMaxLevels = 8;  // messages have three

  bool too_deep() const { return levels_ > kMaxLevels; }

  bool null() override { return true; }
  bool boolean(bool /*value*/) override { return true; }
  bool number_integer(number_integer_t /*value*/) override { return true; }
  bool number_unsigned(number_unsigned_t /*value*/) override { return true; }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override { return true; }
  bool string(string_t& /*value*/) override { return true; }
  bool binary(binary_t& /*value*/) override { return true; }
  bool key(string_t& /*value*/) override { return true; }
  bool start_object(std::size_t /*elements*/) override { return Open(); }
  bool end_object() override { return Close(); }
  bool start_array(std::size_t /*elements*/) override { return Open(); }
  bool end_array() override { return Close(); }
  // Decoding says it better.
  bool parse_error(std::size_t /*position*/, const std::string& /*token*/,
                   const Json::exception& /*error*/) override {
    return false;
  }

 private:
  bool Open() { return ++levels_ <= kMaxLevels; }
  bool Close() {
    --levels_;
    return true;
  }

  int levels_ = 0;
};

/// A number of a message, which must fit: get_to() would cut it without a word.
template <typename Number>
void Read(const Json& j, Number& number) {
  if constexpr (std::is_floating_point_v<Number>) {
    if (!j.is_number()) Refuse(std::string("expected a number, found ") + j.type_name());
    number = j.get<Number>();
  } else {
    static_assert(std::is_integral_v<Number> && !std::is_same_v<Number, bool>);
    const bool fits = j.is_number_unsigned()  ? std::in_range<Number>(j.get<uint64_t>())
                      : j.is_number_integer() ? std::in_range<Number>(j.get<int64_t>())
                                              : false;
    if (!fits) {
      Refuse(std::string("expected a whole number of ") + std::to_string(8 * sizeof(Number)) +
             " bits, found " + (j.is_number() ? j.dump() : j.type_name()));
    }
    number = j.get<Number>();
  }
}

void Read(const Json& j, bool& value) { j.get_to(value); }
void Read(const Json& j, std::string& text) { j.get_to(text); }
void Read(const Json& j, LlamaAdapter& adapter);
void Read(const Json& j, EngineSpan& span);

template <typename Value>
void Read(const Json& j, std::vector<Value>& values) {
  if (!j.is_array()) Refuse(std::string("expected a list, found ") + j.type_name());
  values.resize(j.size());
  for (size_t i = 0; i < values.size(); ++i) Read(j[i], values[i]);
}

/// Token ids as bytes: as a list, each would be a value of its own while it is encoded and decoded,
/// which is most of what a long prompt costs on its way.
Json TokensToJson(const std::vector<TokenId>& tokens) {
  static_assert(std::endian::native == std::endian::little, "both ends are on one machine");
  std::vector<uint8_t> bytes(tokens.size() * sizeof(TokenId));
  if (!bytes.empty()) std::memcpy(bytes.data(), tokens.data(), bytes.size());
  return Json::binary(std::move(bytes));
}

void ReadTokens(const Json& j, std::vector<TokenId>& tokens) {
  const auto& bytes = j.get_binary();
  if (bytes.size() % sizeof(TokenId) != 0)
    Refuse("token ids of " + std::to_string(bytes.size()) + " bytes");
  tokens.resize(bytes.size() / sizeof(TokenId));
  if (!bytes.empty()) std::memcpy(tokens.data(), bytes.data(), bytes.size());
}

/// An enum from its number, the last of its values being `last`.
template <typename Enum>
void ReadEnum(const Json& j, Enum& value, Enum last) {
  int number = 0;
  Read(j, number);
  if (number < 0 || number > static_cast<int>(last))
    Refuse("a choice of " + std::to_string(static_cast<int>(last) + 1) + " has no number " +
           std::to_string(number));
  value = static_cast<Enum>(number);
}

Json ToJson(const Failure& f) {
  return Json::array({f.operator_id, f.code, f.message, f.retriable});
}

Failure FailureFrom(const Json& j) {
  return {j.at(0).get<std::string>(), j.at(1).get<std::string>(), j.at(2).get<std::string>(),
          j.at(3).get<bool>()};
}

Json ToJson(const SamplingParameters& s) {
  return {{"temperature", s.temperature},
          {"top_p", s.top_p},
          {"top_k", s.top_k},
          {"min_p", s.min_p},
          {"max_tokens", s.max_tokens},
          {"min_tokens", s.min_tokens},
          {"stop", s.stop},
          {"draw_key", s.draw_key}};
}

SamplingParameters SamplingFrom(const Json& j) {
  SamplingParameters s;
  Read(j.at("temperature"), s.temperature);
  Read(j.at("top_p"), s.top_p);
  Read(j.at("top_k"), s.top_k);
  Read(j.at("min_p"), s.min_p);
  Read(j.at("max_tokens"), s.max_tokens);
  Read(j.at("min_tokens"), s.min_tokens);
  Read(j.at("stop"), s.stop);
  Read(j.at("draw_key"), s.draw_key);
  return s;
}

Json ToJson(const Request& r) {
  return {{"kind", "request"},
          {"id", r.id},
          {"prompt_tokens", TokensToJson(r.prompt_tokens)},
          {"prompt_text", Json::binary({r.prompt_text.begin(), r.prompt_text.end()})},
          {"sampling", ToJson(r.sampling)},
          {"adapter", r.adapter},
          {"grammar", r.grammar},
          {"static_prefix_tokens", r.static_prefix_tokens},
          {"consumes", r.consumes},
          {"keep_consumers", r.keep.consumers},
          {"keep_answer", r.keep.answer},
          {"keep_lone", r.keep.lone},
          {"priority", r.priority},
          {"order", r.order},
          {"urgent", r.urgent},
          {"deadline_us", r.deadline_us},
          {"script_operator", r.script_operator},
          {"script_row", r.script_row},
          {"row_index", r.row_index},
          {"script_sample", r.script_sample},
          {"script_attempt", r.script_attempt}};
}

std::string TextFrom(const Json& j) {
  const auto& bytes = j.get_binary();
  return {bytes.begin(), bytes.end()};
}

Request RequestFrom(const Json& j) {
  Request r;
  Read(j.at("id"), r.id);
  ReadTokens(j.at("prompt_tokens"), r.prompt_tokens);
  r.prompt_text = TextFrom(j.at("prompt_text"));
  r.sampling = SamplingFrom(j.at("sampling"));
  Read(j.at("adapter"), r.adapter);
  Read(j.at("grammar"), r.grammar);
  Read(j.at("static_prefix_tokens"), r.static_prefix_tokens);
  Read(j.at("consumes"), r.consumes);
  Read(j.at("keep_consumers"), r.keep.consumers);
  Read(j.at("keep_answer"), r.keep.answer);
  Read(j.at("keep_lone"), r.keep.lone);
  Read(j.at("priority"), r.priority);
  Read(j.at("order"), r.order);
  Read(j.at("urgent"), r.urgent);
  Read(j.at("deadline_us"), r.deadline_us);
  Read(j.at("script_operator"), r.script_operator);
  Read(j.at("script_row"), r.script_row);
  Read(j.at("row_index"), r.row_index);
  Read(j.at("script_sample"), r.script_sample);
  Read(j.at("script_attempt"), r.script_attempt);
  return r;
}

Json ToJson(const Completion& c) {
  return {{"kind", "completion"},
          {"id", c.id},
          {"finish", static_cast<int>(c.finish)},
          {"failure", c.failure ? ToJson(*c.failure) : Json()},
          {"tokens", TokensToJson(c.tokens)},
          {"text", c.text},
          {"cut", c.cut},
          {"counts",
           {c.prompt_tokens, c.reused_tokens, c.prefilled_tokens, c.recomputed_tokens,
            c.output_tokens}},
          {"times", {c.started_us, c.finished_us, c.engine_us}},
          {"logits_hash", c.logits_hash}};
}

Completion CompletionFrom(const Json& j) {
  Completion c;
  Read(j.at("id"), c.id);
  ReadEnum(j.at("finish"), c.finish, FinishReason::kFailed);
  if (!j.at("failure").is_null()) c.failure = FailureFrom(j.at("failure"));
  ReadTokens(j.at("tokens"), c.tokens);
  Read(j.at("text"), c.text);
  Read(j.at("cut"), c.cut);
  const Json& counts = j.at("counts");
  Read(counts.at(0), c.prompt_tokens);
  Read(counts.at(1), c.reused_tokens);
  Read(counts.at(2), c.prefilled_tokens);
  Read(counts.at(3), c.recomputed_tokens);
  Read(counts.at(4), c.output_tokens);
  Read(j.at("times").at(0), c.started_us);
  Read(j.at("times").at(1), c.finished_us);
  Read(j.at("times").at(2), c.engine_us);
  Read(j.at("logits_hash"), c.logits_hash);
  return c;
}

Json ToJson(const EngineDescription& d) {
  return {{"kind", "description"},
          {"name", d.name},
          {"model", d.model},
          {"vocabulary", {d.vocabulary.high, d.vocabulary.low}},
          {"context_tokens", d.context_tokens},
          {"sequences", d.sequences},
          {"kv_bytes_per_token", d.kv_bytes_per_token},
          {"kv_tokens", d.kv_tokens},
          {"has_token_ids", d.has_token_ids},
          {"has_kv", d.has_kv},
          {"exact", d.exact}};
}

EngineDescription DescriptionFrom(const Json& j) {
  EngineDescription d;
  Read(j.at("name"), d.name);
  Read(j.at("model"), d.model);
  Read(j.at("vocabulary").at(0), d.vocabulary.high);
  Read(j.at("vocabulary").at(1), d.vocabulary.low);
  Read(j.at("context_tokens"), d.context_tokens);
  Read(j.at("sequences"), d.sequences);
  Read(j.at("kv_bytes_per_token"), d.kv_bytes_per_token);
  Read(j.at("kv_tokens"), d.kv_tokens);
  Read(j.at("has_token_ids"), d.has_token_ids);
  Read(j.at("has_kv"), d.has_kv);
  Read(j.at("exact"), d.exact);
  return d;
}

Json ToJson(const LlamaAdapter& a) {
  return {{"name", a.name}, {"path", a.path}, {"scale", a.scale}};
}

Json ToJson(const SetupMessage& message) {
  const LlamaSetup& s = message.setup;
  Json adapters = Json::array();
  for (const LlamaAdapter& adapter : s.adapters) adapters.push_back(ToJson(adapter));
  return {{"kind", "setup"},
          {"version", message.version},
          {"takes_turns", message.takes_turns},
          {"model_name", s.model_name},
          {"model_path", s.model_path},
          {"adapters", adapters},
          {"threads", s.threads},
          {"load", s.load},
          {"sequences", s.sequences},
          {"kv_bytes", s.kv_bytes},
          {"kept_bytes", s.kept_bytes},
          {"context_tokens", s.context_tokens},
          {"expected_tokens", s.expected_tokens},
          {"layout", static_cast<int>(s.layout)},
          {"reuse", s.reuse},
          {"exactness", static_cast<int>(s.exactness)},
          {"hash_logits", s.hash_logits},
          {"record_spans", s.record_spans},
          {"batch_tokens", s.batch_tokens},
          {"micro_batch_tokens", s.micro_batch_tokens}};
}

void Read(const Json& j, LlamaAdapter& a) {
  Read(j.at("name"), a.name);
  Read(j.at("path"), a.path);
  Read(j.at("scale"), a.scale);
}

SetupMessage SetupFrom(const Json& j) {
  SetupMessage message;
  LlamaSetup& s = message.setup;
  Read(j.at("version"), message.version);
  Read(j.at("takes_turns"), message.takes_turns);
  Read(j.at("model_name"), s.model_name);
  Read(j.at("model_path"), s.model_path);
  Read(j.at("adapters"), s.adapters);
  Read(j.at("threads"), s.threads);
  Read(j.at("load"), s.load);
  Read(j.at("sequences"), s.sequences);
  Read(j.at("kv_bytes"), s.kv_bytes);
  Read(j.at("kept_bytes"), s.kept_bytes);
  Read(j.at("context_tokens"), s.context_tokens);
  Read(j.at("expected_tokens"), s.expected_tokens);
  ReadEnum(j.at("layout"), s.layout, KvLayout::kSplit);
  Read(j.at("reuse"), s.reuse);
  ReadEnum(j.at("exactness"), s.exactness, Exactness::kRequired);
  Read(j.at("hash_logits"), s.hash_logits);
  Read(j.at("record_spans"), s.record_spans);
  Read(j.at("batch_tokens"), s.batch_tokens);
  Read(j.at("micro_batch_tokens"), s.micro_batch_tokens);
  return message;
}

Json ToJson(const EngineFault& f) {
  return {{"kind", "fault"}, {"code", static_cast<int>(f.code)}, {"message", f.message}};
}

EngineFault FaultFrom(const Json& j) {
  EngineFault f;
  ReadEnum(j.at("code"), f.code, ErrorCode::kUnsupported);
  Read(j.at("message"), f.message);
  return f;
}

Json ToJson(const KvMessage& m) {
  return {{"kind", "kv"},
          {"id", m.id},
          {"adapter", m.adapter},
          {"tokens", TokensToJson(m.tokens)},
          {"bytes", m.bytes}};
}

KvMessage KvFrom(const Json& j) {
  KvMessage m;
  Read(j.at("id"), m.id);
  Read(j.at("adapter"), m.adapter);
  ReadTokens(j.at("tokens"), m.tokens);
  Read(j.at("bytes"), m.bytes);
  return m;
}

Json ToJson(const LoadedMessage&) { return {{"kind", "loaded"}}; }

Json ToJson(EngineStatistics s) {
  Json values = Json::array();
  for (const int64_t* counter : Counters(s)) values.push_back(*counter);
  return {{"kind", "statistics"}, {"values", values}};
}

EngineStatistics StatisticsFrom(const Json& j) {
  EngineStatistics s;
  const std::vector<int64_t*> counters = Counters(s);
  for (size_t i = 0; i < counters.size(); ++i) Read(j.at("values").at(i), *counters[i]);
  return s;
}

Json ToJson(const EngineSpans& s) {
  Json spans = Json::array();
  for (const EngineSpan& span : s.spans) {
    spans.push_back({static_cast<int>(span.kind), span.start_us, span.end_us, span.tokens,
                     span.sequences, span.running, span.kv_tokens});
  }
  return {{"kind", "spans"}, {"spans", spans}, {"left_out", s.left_out}};
}

void Read(const Json& j, EngineSpan& span) {
  ReadEnum(j.at(0), span.kind, EngineSpan::Kind::kRestart);
  Read(j.at(1), span.start_us);
  Read(j.at(2), span.end_us);
  Read(j.at(3), span.tokens);
  Read(j.at(4), span.sequences);
  Read(j.at(5), span.running);
  Read(j.at(6), span.kv_tokens);
}

EngineSpans SpansFrom(const Json& j) {
  EngineSpans s;
  Read(j.at("spans"), s.spans);
  Read(j.at("left_out"), s.left_out);
  return s;
}

std::string Length(uint32_t length) {
  std::string text;
  for (int shift = 0; shift < 32; shift += 8) text += static_cast<char>((length >> shift) & 0xFFU);
  return text;
}

std::string Frame(const Json& message) {
  std::vector<uint8_t> body = Json::to_cbor(message);
  std::string frame = Length(static_cast<uint32_t>(body.size()));
  frame.append(body.begin(), body.end());
  return frame;
}

template <typename Decode>
auto Guarded(std::string_view body, Decode decode) {
  try {
    DepthCheck depth;
    Json::sax_parse(body, &depth, Json::input_format_t::cbor);
    if (depth.too_deep()) Refuse("a message is nested more than 8 levels deep");
    const Json message = Json::from_cbor(body.begin(), body.end());
    return decode(message, message.at("kind").get<std::string>());
  } catch (const Json::exception& e) {
    Refuse(std::string("a message that does not decode: ") + e.what());
  }
}

}  // namespace

std::string EncodeFrame(const ToEngine& message) {
  if (const auto* request = std::get_if<Request>(&message)) return Frame(ToJson(*request));
  if (const auto* cancel = std::get_if<CancelMessage>(&message))
    return Frame({{"kind", "cancel"}, {"id", cancel->id}});
  if (std::holds_alternative<CancelWaitingMessage>(message))
    return Frame({{"kind", "cancel_waiting"}});
  if (std::holds_alternative<GoOnMessage>(message)) return Frame({{"kind", "go_on"}});
  if (const auto* setup = std::get_if<SetupMessage>(&message)) return Frame(ToJson(*setup));
  if (const auto* load = std::get_if<LoadMessage>(&message))
    return Frame({{"kind", "load"}, {"load", load->load}});
  if (const auto* kv = std::get_if<KvMessage>(&message)) return Frame(ToJson(*kv));
  if (const auto* wanted = std::get_if<ExportMessage>(&message))
    return Frame({{"kind", "export"}, {"id", wanted->id}});
  const auto& release = std::get<ReleaseMessage>(message);
  return Frame({{"kind", "release"}, {"id", release.id}, {"consumers", release.consumers}});
}

std::string EncodeFrame(const FromEngine& message) {
  return std::visit([](const auto& value) { return Frame(ToJson(value)); }, message);
}

ToEngine DecodeToEngine(std::string_view body) {
  return Guarded(body, [](const Json& message, const std::string& kind) -> ToEngine {
    if (kind == "request") return RequestFrom(message);
    if (kind == "cancel") {
      CancelMessage cancel;
      Read(message.at("id"), cancel.id);
      return cancel;
    }
    if (kind == "cancel_waiting") return CancelWaitingMessage{};
    if (kind == "go_on") return GoOnMessage{};
    if (kind == "setup") return SetupFrom(message);
    if (kind == "release") {
      ReleaseMessage release;
      Read(message.at("id"), release.id);
      Read(message.at("consumers"), release.consumers);
      return release;
    }
    if (kind == "load") {
      LoadMessage load;
      Read(message.at("load"), load.load);
      return load;
    }
    if (kind == "kv") return KvFrom(message);
    if (kind == "export") {
      ExportMessage wanted;
      Read(message.at("id"), wanted.id);
      return wanted;
    }
    Refuse("an engine takes no '" + kind + "' message");
  });
}

FromEngine DecodeFromEngine(std::string_view body) {
  return Guarded(body, [](const Json& message, const std::string& kind) -> FromEngine {
    if (kind == "completion") return CompletionFrom(message);
    if (kind == "description") return DescriptionFrom(message);
    if (kind == "statistics") return StatisticsFrom(message);
    if (kind == "fault") return FaultFrom(message);
    if (kind == "loaded") return LoadedMessage{};
    if (kind == "kv") return KvFrom(message);
    if (kind == "spans") return SpansFrom(message);
    Refuse("an engine sends no '" + kind + "' message");
  });
}

std::vector<int64_t*> Counters(EngineStatistics& s) {
  return {&s.steps,      &s.decode_steps,    &s.decode_tokens, &s.prefill_tokens, &s.busy_us,
          &s.prefill_us, &s.decode_us,       &s.sampling_us,   &s.copy_us,        &s.forks,
          &s.copies,     &s.spills,          &s.restores,      &s.evictions,      &s.preemptions,
          &s.grammar_us, &s.adapter_changes, &s.restarts,      &s.loads,          &s.load_us,
          &s.migrations};
}

std::string EncodeSharedLength(size_t bytes) {
  return Length(kInSharedMemory | static_cast<uint32_t>(bytes));
}

void MarkAttachment(std::string& frame) {
  constexpr size_t kHighest = kLengthBytes - 1;
  constexpr int kShift = 8 * kHighest;
  frame[kHighest] =
      static_cast<char>(static_cast<uint8_t>(frame[kHighest]) | (kHasAttachment >> kShift));
}

bool FrameReader::Next(Frame& frame) {
  if (buffer_.size() - start_ < kLengthBytes) return false;
  uint32_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length |= static_cast<uint32_t>(static_cast<uint8_t>(buffer_[start_ + i])) << (8 * i);
  }
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
