#include "engine/wire.h"

#include <nlohmann/json.hpp>

namespace halo {
namespace {

using Json = nlohmann::json;

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
  j.at("temperature").get_to(s.temperature);
  j.at("top_p").get_to(s.top_p);
  j.at("top_k").get_to(s.top_k);
  j.at("min_p").get_to(s.min_p);
  j.at("max_tokens").get_to(s.max_tokens);
  j.at("min_tokens").get_to(s.min_tokens);
  j.at("stop").get_to(s.stop);
  j.at("draw_key").get_to(s.draw_key);
  return s;
}

Json ToJson(const Request& r) {
  return {{"kind", "request"},
          {"id", r.id},
          {"prompt_tokens", r.prompt_tokens},
          {"prompt_text", Json::binary({r.prompt_text.begin(), r.prompt_text.end()})},
          {"sampling", ToJson(r.sampling)},
          {"static_prefix_tokens", r.static_prefix_tokens},
          {"consumes", r.consumes},
          {"keep_consumers", r.keep.consumers},
          {"keep_answer", r.keep.answer},
          {"priority", r.priority},
          {"order", r.order},
          {"deadline_us", r.deadline_us},
          {"script_operator", r.script_operator},
          {"script_row", r.script_row},
          {"script_sample", r.script_sample},
          {"script_attempt", r.script_attempt}};
}

std::string TextFrom(const Json& j) {
  const auto& bytes = j.get_binary();
  return {bytes.begin(), bytes.end()};
}

Request RequestFrom(const Json& j) {
  Request r;
  j.at("id").get_to(r.id);
  j.at("prompt_tokens").get_to(r.prompt_tokens);
  r.prompt_text = TextFrom(j.at("prompt_text"));
  r.sampling = SamplingFrom(j.at("sampling"));
  j.at("static_prefix_tokens").get_to(r.static_prefix_tokens);
  j.at("consumes").get_to(r.consumes);
  j.at("keep_consumers").get_to(r.keep.consumers);
  j.at("keep_answer").get_to(r.keep.answer);
  j.at("priority").get_to(r.priority);
  j.at("order").get_to(r.order);
  j.at("deadline_us").get_to(r.deadline_us);
  j.at("script_operator").get_to(r.script_operator);
  j.at("script_row").get_to(r.script_row);
  j.at("script_sample").get_to(r.script_sample);
  j.at("script_attempt").get_to(r.script_attempt);
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
          {"times", {c.started_us, c.finished_us}},
          {"logits_hash", c.logits_hash}};
}

Completion CompletionFrom(const Json& j) {
  Completion c;
  j.at("id").get_to(c.id);
  const int finish = j.at("finish").get<int>();
  if (finish < 0 || finish > static_cast<int>(FinishReason::kFailed)) {
    throw Error(ErrorCode::kIo,
                "engine connection: unknown finish reason " + std::to_string(finish));
  }
  c.finish = static_cast<FinishReason>(finish);
  if (!j.at("failure").is_null()) c.failure = FailureFrom(j.at("failure"));
  j.at("tokens").get_to(c.tokens);
  j.at("text").get_to(c.text);
  j.at("cut").get_to(c.cut);
  const Json& counts = j.at("counts");
  counts.at(0).get_to(c.prompt_tokens);
  counts.at(1).get_to(c.reused_tokens);
  counts.at(2).get_to(c.prefilled_tokens);
  counts.at(3).get_to(c.recomputed_tokens);
  counts.at(4).get_to(c.output_tokens);
  j.at("times").at(0).get_to(c.started_us);
  j.at("times").at(1).get_to(c.finished_us);
  j.at("logits_hash").get_to(c.logits_hash);
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
  j.at("name").get_to(d.name);
  j.at("model").get_to(d.model);
  j.at("vocabulary").at(0).get_to(d.vocabulary.high);
  j.at("vocabulary").at(1).get_to(d.vocabulary.low);
  j.at("context_tokens").get_to(d.context_tokens);
  j.at("sequences").get_to(d.sequences);
  j.at("kv_bytes_per_token").get_to(d.kv_bytes_per_token);
  j.at("kv_tokens").get_to(d.kv_tokens);
  j.at("has_token_ids").get_to(d.has_token_ids);
  j.at("has_kv").get_to(d.has_kv);
  j.at("exact").get_to(d.exact);
  return d;
}

/// The counters in the order in which they cross.
std::vector<int64_t*> Counters(EngineStatistics& s) {
  return {&s.steps,      &s.decode_steps, &s.decode_tokens, &s.prefill_tokens, &s.busy_us,
          &s.prefill_us, &s.decode_us,    &s.sampling_us,   &s.copy_us,        &s.forks,
          &s.copies,     &s.spills,       &s.restores,      &s.evictions,      &s.preemptions};
}

Json ToJson(EngineStatistics s) {
  Json values = Json::array();
  for (const int64_t* counter : Counters(s)) values.push_back(*counter);
  return {{"kind", "statistics"}, {"values", values}};
}

EngineStatistics StatisticsFrom(const Json& j) {
  EngineStatistics s;
  const std::vector<int64_t*> counters = Counters(s);
  for (size_t i = 0; i < counters.size(); ++i) *counters[i] = j.at("values").at(i).get<int64_t>();
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
    const Json message = Json::from_cbor(body);
    return decode(message, message.at("kind").get<std::string>());
  } catch (const Json::exception& e) {
    throw Error(ErrorCode::kIo,
                std::string("engine connection: a message that does not decode: ") + e.what());
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
    if (kind == "cancel") return CancelMessage{message.at("id").get<RequestId>()};
    if (kind == "cancel_waiting") return CancelWaitingMessage{};
    if (kind == "release") {
      return ReleaseMessage{message.at("id").get<RequestId>(),
                            message.at("consumers").get<int32_t>()};
    }
    throw Error(ErrorCode::kIo, "engine connection: an engine takes no '" + kind + "' message");
  });
}

FromEngine DecodeFromEngine(const std::string& body) {
  return Guarded(body, [](const Json& message, const std::string& kind) -> FromEngine {
    if (kind == "completion") return CompletionFrom(message);
    if (kind == "description") return DescriptionFrom(message);
    if (kind == "statistics") return StatisticsFrom(message);
    throw Error(ErrorCode::kIo, "engine connection: an engine sends no '" + kind + "' message");
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
    throw Error(ErrorCode::kIo, "engine connection: a message of " + std::to_string(size) +
                                    " bytes; at most " + std::to_string(kFrameLimit) +
                                    " are taken");
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
