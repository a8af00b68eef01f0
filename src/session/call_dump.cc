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

}  // namespace

CallDump::CallDump(const std::string& path) : path_(path), file_(std::fopen(path.c_str(), "wb")) {
  if (file_ == nullptr) throw Error(ErrorCode::kIo, path + ": cannot be written (--dump-prompts)");
}

CallDump::~CallDump() {
  if (file_ != nullptr) std::fclose(static_cast<FILE*>(file_));
}

void CallDump::Write(const CallRecord& call) {
  nlohmann::ordered_json line = {{"source", call.source},
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
