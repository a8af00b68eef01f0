#include "session/call_dump.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

namespace halo {
namespace {

const char* FinishName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEndToken:
      return "end";
    case FinishReason::kStopString:
      return "stop";
    case FinishReason::kMaxTokens:
      return "length";
    case FinishReason::kFailed:
      return "failed";
  }
  return "?";
}

constexpr double kSecondsPerUs = 1e-6;

}  // namespace

CallDump::CallDump(const std::string& path, int64_t start_us)
    : path_(path), start_us_(start_us), file_(std::fopen(path.c_str(), "wb")) {
  if (file_ == nullptr) throw Error(ErrorCode::kIo, path + ": cannot be written (--dump-prompts)");
}

CallDump::~CallDump() {
  if (file_ != nullptr) std::fclose(static_cast<FILE*>(file_));
}

void CallDump::Write(const CallRecord& call) {
  nlohmann::ordered_json line = {{"kind", OperatorKindName(call.op.kind)},
                                 {"source", call.source},
                                 {"row", call.row.id},
                                 {"operator", call.op.id},
                                 {"model", call.op.model.name},
                                 {"merged", call.merged}};
  if (call.op.lora)
    line["adapter"] = {{"file", call.op.lora->file}, {"scale", call.op.lora->scale}};
  if (call.prompt.text.empty()) {
    line["prompt"] = call.prompt.tokens;
  } else {
    line["prompt_text"] = call.prompt.text;
  }
  line["output"] = call.completion.tokens;
  line["finish"] = FinishName(call.completion.finish);
  line["max_tokens"] = call.request.sampling.max_tokens;
  line["temperature"] = call.request.sampling.temperature;
  line["top_p"] = call.request.sampling.top_p;
  if (call.completion.logits_hash != 0) {
    // As text: many JSON readers round integers of 64 bits.
    line["logits_hash"] = fmt::format("{:016x}", call.completion.logits_hash);
  }
  if (!call.merged && call.completion.started_us > 0) {
    line["started_s"] = SecondsOfRun(call.completion.started_us);
    line["finished_s"] = SecondsOfRun(call.completion.finished_us);
  }
  WriteLine(line);
}

void CallDump::Write(const ToolCallRecord& call) {
  const size_t behind_kind = call.target.find(' ') + 1;
  nlohmann::ordered_json line = {{"kind", OperatorKindName(call.op.kind)},
                                 {"source", call.source},
                                 {"row", call.row.id},
                                 {"operator", call.op.id},
                                 {"merged", call.merged},
                                 {"target", call.target.substr(behind_kind)},
                                 {"request", fmt::format("{:016x}", call.request.low)},
                                 {"may_share", call.may_share},
                                 {"finish", call.completion.failure ? "failed" : "end"}};
  if (!call.merged) {
    const auto* http = std::get_if<HttpCall>(&call.call.what);
    const bool is_drawn = http != nullptr && http->latency_mode != HttpLatencyMode::kLive;
    const double busy_s = static_cast<double>(call.busy_us) * kSecondsPerUs;
    line["latency_s"] = is_drawn ? static_cast<double>(http->latency_us) * kSecondsPerUs : busy_s;
    line["drawn"] = is_drawn;
    line["busy_s"] = busy_s;
    if (call.completion.cpu_us)
      line["cpu_s"] = static_cast<double>(*call.completion.cpu_us) * kSecondsPerUs;
    if (call.completion.started_us > 0) {
      line["started_s"] = SecondsOfRun(call.completion.started_us);
      line["finished_s"] = SecondsOfRun(call.completion.finished_us);
    }
  }
  WriteLine(line);
}

double CallDump::SecondsOfRun(int64_t time_us) const {
  return static_cast<double>(time_us - start_us_) * kSecondsPerUs;
}

void CallDump::WriteLine(const nlohmann::ordered_json& line) {
  std::string text = line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  text += '\n';
  std::fwrite(text.data(), 1, text.size(), static_cast<FILE*>(file_));
}

void CallDump::Finish() {
  FILE* file = static_cast<FILE*>(file_);
  const bool bad = std::ferror(file) != 0;
  file_ = nullptr;
  if (std::fclose(file) != 0 || bad)
    throw Error(ErrorCode::kIo, path_ + ": could not be written completely");
}

}  // namespace halo
