// Every message that can be made comes out of encoding and decoding as it went in.

#include <fuzzer/FuzzedDataProvider.h>

#include <cmath>

#include "engine/wire.h"
#include "fuzz/property.h"

namespace {

using halo::fuzz::Require;

std::string AnyText(FuzzedDataProvider& from) { return from.ConsumeRandomLengthString(40); }

// No NaN: it equals nothing, and no request has one.
float AnyFloat(FuzzedDataProvider& from) {
  const float value = from.ConsumeFloatingPoint<float>();
  return std::isnan(value) ? 0.0F : value;
}

template <typename Number>
Number Any(FuzzedDataProvider& from) {
  return from.ConsumeIntegral<Number>();
}

std::vector<halo::TokenId> AnyTokens(FuzzedDataProvider& from) {
  std::vector<halo::TokenId> tokens(from.ConsumeIntegralInRange<size_t>(0, 20));
  for (halo::TokenId& token : tokens) token = Any<halo::TokenId>(from);
  return tokens;
}

halo::SamplingParameters AnySampling(FuzzedDataProvider& from) {
  halo::SamplingParameters sampling;
  sampling.temperature = AnyFloat(from);
  sampling.top_p = AnyFloat(from);
  sampling.top_k = Any<int32_t>(from);
  sampling.min_p = AnyFloat(from);
  sampling.max_tokens = Any<int32_t>(from);
  sampling.min_tokens = Any<int32_t>(from);
  sampling.stop.resize(from.ConsumeIntegralInRange<size_t>(0, 4));
  for (std::string& stop : sampling.stop) stop = AnyText(from);
  sampling.draw_key = Any<uint64_t>(from);
  return sampling;
}

halo::Request AnyRequest(FuzzedDataProvider& from) {
  halo::Request request;
  request.id = Any<halo::RequestId>(from);
  request.prompt_tokens = AnyTokens(from);
  request.prompt_text = AnyText(from);
  request.sampling = AnySampling(from);
  request.static_prefix_tokens = Any<int32_t>(from);
  request.consumes = Any<halo::RequestId>(from);
  request.keep = {Any<int32_t>(from), from.ConsumeBool(), from.ConsumeBool()};
  request.priority = Any<int32_t>(from);
  request.order = Any<int64_t>(from);
  request.urgent = from.ConsumeBool();
  request.deadline_us = Any<int64_t>(from);
  request.script_operator = AnyText(from);
  request.script_row = AnyText(from);
  request.row_index = Any<int64_t>(from);
  request.adapter = AnyText(from);
  request.grammar = AnyText(from);
  request.script_sample = Any<int32_t>(from);
  request.script_attempt = Any<int32_t>(from);
  return request;
}

halo::Completion AnyCompletion(FuzzedDataProvider& from) {
  halo::Completion completion;
  completion.id = Any<halo::RequestId>(from);
  completion.finish = static_cast<halo::FinishReason>(from.ConsumeIntegralInRange(0, 3));
  if (from.ConsumeBool()) {
    completion.failure =
        halo::Failure{AnyText(from), AnyText(from), AnyText(from), from.ConsumeBool()};
  }
  completion.tokens = AnyTokens(from);
  completion.text = AnyText(from);
  completion.cut = from.ConsumeBool();
  for (int64_t* number :
       {&completion.prompt_tokens, &completion.reused_tokens, &completion.prefilled_tokens,
        &completion.recomputed_tokens, &completion.output_tokens, &completion.started_us,
        &completion.finished_us, &completion.engine_us}) {
    *number = Any<int64_t>(from);
  }
  completion.logits_hash = Any<uint64_t>(from);
  return completion;
}

halo::EngineDescription AnyDescription(FuzzedDataProvider& from) {
  halo::EngineDescription description;
  description.name = AnyText(from);
  description.model = AnyText(from);
  description.vocabulary = {Any<uint64_t>(from), Any<uint64_t>(from)};
  description.context_tokens = Any<int32_t>(from);
  description.sequences = Any<int32_t>(from);
  description.kv_bytes_per_token = Any<int64_t>(from);
  description.kv_tokens = Any<int64_t>(from);
  description.has_token_ids = from.ConsumeBool();
  description.has_kv = from.ConsumeBool();
  description.exact = from.ConsumeBool();
  return description;
}

halo::EngineStatistics AnyStatistics(FuzzedDataProvider& from) {
  halo::EngineStatistics statistics;
  for (int64_t* number :
       {&statistics.steps,          &statistics.decode_steps,    &statistics.decode_tokens,
        &statistics.prefill_tokens, &statistics.busy_us,         &statistics.prefill_us,
        &statistics.decode_us,      &statistics.sampling_us,     &statistics.copy_us,
        &statistics.forks,          &statistics.copies,          &statistics.spills,
        &statistics.restores,       &statistics.evictions,       &statistics.preemptions,
        &statistics.grammar_us,     &statistics.adapter_changes, &statistics.restarts,
        &statistics.loads,          &statistics.load_us,         &statistics.migrations,
        &statistics.draft_tokens,   &statistics.accepted_tokens, &statistics.keeps,
        &statistics.disk_writes,    &statistics.disk_reads,      &statistics.disk_faults}) {
    *number = Any<int64_t>(from);
  }
  return statistics;
}

halo::SetupMessage AnySetup(FuzzedDataProvider& from) {
  halo::SetupMessage message;
  message.version = AnyText(from);
  message.worker = from.ConsumeIntegral<int32_t>();
  message.workers = from.ConsumeIntegral<int32_t>();
  message.lanes = from.ConsumeIntegral<int32_t>();
  halo::LlamaSetup& setup = message.setup;
  setup.model_name = AnyText(from);
  setup.model_path = AnyText(from);
  setup.adapters.resize(from.ConsumeIntegralInRange<size_t>(0, 3));
  for (halo::LlamaAdapter& adapter : setup.adapters)
    adapter = {AnyText(from), AnyText(from), static_cast<double>(AnyFloat(from))};
  for (int32_t* number : {&setup.threads, &setup.sequences, &setup.context_tokens,
                          &setup.expected_tokens, &setup.batch_tokens, &setup.micro_batch_tokens,
                          &setup.running_sequences, &setup.refill_sequences, &setup.draft_tokens}) {
    *number = Any<int32_t>(from);
  }
  setup.devices.resize(from.ConsumeIntegralInRange<size_t>(0, 3));
  for (int32_t& device : setup.devices) device = Any<int32_t>(from);
  setup.kv_bytes = Any<int64_t>(from);
  setup.kept_bytes = Any<int64_t>(from);
  setup.kept_folder = AnyText(from);
  setup.kept_disk_bytes = Any<int64_t>(from);
  setup.layout = static_cast<halo::KvLayout>(from.ConsumeIntegralInRange(0, 2));
  setup.exactness = static_cast<halo::Exactness>(from.ConsumeIntegralInRange(0, 3));
  setup.reuse = from.ConsumeBool();
  setup.prompt_lookup = from.ConsumeBool();
  setup.load = from.ConsumeBool();
  setup.hash_logits = from.ConsumeBool();
  setup.record_spans = from.ConsumeBool();
  return message;
}

halo::KvMessage AnyKv(FuzzedDataProvider& from) {
  return {Any<halo::RequestId>(from), AnyText(from), AnyTokens(from), Any<int64_t>(from)};
}

halo::ToEngine AnyToEngine(FuzzedDataProvider& from) {
  switch (from.ConsumeIntegralInRange(0, 8)) {
    case 0:
      return AnyRequest(from);
    case 7:
      return halo::ExportMessage{Any<halo::RequestId>(from)};
    case 8:
      return AnyKv(from);
    case 6:
      return halo::LoadMessage{from.ConsumeBool()};
    case 4:
      return halo::GoOnMessage{};
    case 5:
      return AnySetup(from);
    case 1:
      return halo::CancelMessage{Any<halo::RequestId>(from)};
    case 2:
      return halo::CancelWaitingMessage{};
    default:
      return halo::ReleaseMessage{Any<halo::RequestId>(from), Any<int32_t>(from)};
  }
}

halo::EngineSpans AnySpans(FuzzedDataProvider& from) {
  halo::EngineSpans spans;
  spans.spans.resize(from.ConsumeIntegralInRange<size_t>(0, 4));
  for (halo::EngineSpan& span : spans.spans) {
    span.kind = static_cast<halo::EngineSpan::Kind>(from.ConsumeIntegralInRange(0, 7));
    for (int64_t* number : {&span.start_us, &span.end_us, &span.tokens, &span.kv_tokens})
      *number = Any<int64_t>(from);
    for (int32_t* number : {&span.sequences, &span.running}) *number = Any<int32_t>(from);
  }
  spans.left_out = Any<int64_t>(from);
  return spans;
}

halo::FromEngine AnyFromEngine(FuzzedDataProvider& from) {
  switch (from.ConsumeIntegralInRange(0, 6)) {
    case 6:
      return AnySpans(from);
    case 0:
      return AnyCompletion(from);
    case 5:
      return AnyKv(from);
    case 4:
      return halo::LoadedMessage{};
    case 3:
      return halo::EngineFault{static_cast<halo::ErrorCode>(from.ConsumeIntegralInRange(0, 6)),
                               AnyText(from)};
    case 1:
      return AnyDescription(from);
    default:
      return AnyStatistics(from);
  }
}

// Fed in two pieces, as a pipe may give it.
template <typename Message, typename Decode>
void CheckJourney(const Message& message, size_t cut, Decode decode) {
  const std::string frame = halo::EncodeFrame(message);
  cut = std::min(cut, frame.size());
  halo::FrameReader reader;
  halo::FrameReader::Frame read;
  reader.Append(frame.data(), cut);
  const bool early = reader.Next(read);
  Require(early == (cut == frame.size()), "a frame is given out when it is whole");
  reader.Append(frame.data() + cut, frame.size() - cut);
  if (!early) Require(reader.Next(read), "a whole frame is given out");
  Require(decode(read.body) == message, "decoding gives what was encoded");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  FuzzedDataProvider from(data, size);
  const auto cut = from.ConsumeIntegral<uint16_t>();
  if (from.ConsumeBool()) {
    CheckJourney(AnyToEngine(from), cut, halo::DecodeToEngine);
  } else {
    CheckJourney(AnyFromEngine(from), cut, halo::DecodeFromEngine);
  }
  return 0;
}
