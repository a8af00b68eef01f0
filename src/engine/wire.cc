#include "engine/wire.h"

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

template <typename Value>
void Read(const Json& j, std::vector<Value>& values) {
  if (!j.is_array()) Refuse(std::string("expected a list, found ") + j.type_name());
  values.resize(j.size());
  for (size_t i = 0; i < values.size(); ++i) Read(j[i], values[i]);
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
          {"prompt_tokens", r.prompt_tokens},
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
  Read(j.at("prompt_tokens"), r.prompt_tokens);
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
          {"tokens", c.tokens},
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
  int finish = 0;
  Read(j.at("finish"), finish);
  if (finish < 0 || finish > static_cast<int>(FinishReason::kFailed))
    Refuse("unknown finish reason " + std::to_string(finish));
  c.finish = static_cast<FinishReason>(finish);
  if (!j.at("failure").is_null()) c.failure = FailureFrom(j.at("failure"));
  Read(j.at("tokens"), c.tokens);
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

/// The counters in the order in which they cross.
std::vector<int64_t*> Counters(EngineStatistics& s) {
  return {&s.steps,      &s.decode_steps,   &s.decode_tokens, &s.prefill_tokens, &s.busy_us,
          &s.prefill_us, &s.decode_us,      &s.sampling_us,   &s.copy_us,        &s.forks,
          &s.copies,     &s.spills,         &s.restores,      &s.evictions,      &s.preemptions,
          &s.grammar_us, &s.adapter_changes};
}

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

std::string Frame(const Json& message) {
  std::vector<uint8_t> body = Json::to_cbor(message);
  const uint32_t size = static_cast<uint32_t>(body.size());
  std::string frame;
  for (int shift = 0; shift < 32; shift += 8) frame += static_cast<char>((size >> shift) & 0xFFU);
  frame.append(body.begin(), body.end());
  return frame;
}

template <typename Decode>
auto Guarded(const std::string& body, Decode decode) {
  try {
    DepthCheck depth;
    Json::sax_parse(body, &depth, Json::input_format_t::cbor);
    if (depth.too_deep()) Refuse("a message is nested more than 8 levels deep");
    const Json message = Json::from_cbor(body);
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
  const auto& release = std::get<ReleaseMessage>(message);
  return Frame({{"kind", "release"}, {"id", release.id}, {"consumers", release.consumers}});
}

std::string EncodeFrame(const FromEngine& message) {
  return std::visit([](const auto& value) { return Frame(ToJson(value)); }, message);
}

ToEngine DecodeToEngine(const std::string& body) {
  return Guarded(body, [](const Json& message, const std::string& kind) -> ToEngine {
    if (kind == "request") return RequestFrom(message);
    if (kind == "cancel") {
      CancelMessage cancel;
      Read(message.at("id"), cancel.id);
      return cancel;
    }
    if (kind == "cancel_waiting") return CancelWaitingMessage{};
    if (kind == "release") {
      ReleaseMessage release;
      Read(message.at("id"), release.id);
      Read(message.at("consumers"), release.consumers);
      return release;
    }
    Refuse("an engine takes no '" + kind + "' message");
  });
}

FromEngine DecodeFromEngine(const std::string& body) {
  return Guarded(body, [](const Json& message, const std::string& kind) -> FromEngine {
    if (kind == "completion") return CompletionFrom(message);
    if (kind == "description") return DescriptionFrom(message);
    if (kind == "statistics") return StatisticsFrom(message);
    Refuse("an engine sends no '" + kind + "' message");
  });
}

bool FrameReader::Next(std::string& body) {
  constexpr size_t kLengthBytes = 4;
  if (buffer_.size() - start_ < kLengthBytes) return false;
  uint32_t size = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    size |= static_cast<uint32_t>(static_cast<uint8_t>(buffer_[start_ + i])) << (8 * i);
  }
  if (size > kFrameLimit) {
    Refuse("a message of " + std::to_string(size) + " bytes; at most " +
           std::to_string(kFrameLimit) + " are taken");
  }
  if (buffer_.size() - start_ - kLengthBytes < size) return false;
  body = buffer_.substr(start_ + kLengthBytes, size);
  start_ += kLengthBytes + size;
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
