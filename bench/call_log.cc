#include "bench/call_log.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

namespace halo::bench {
namespace {

/// Rows without an id have their number.
template <typename AnyCall>
void ReadWhose(const nlohmann::json& line, AnyCall& call) {
  call.source = line.value("source", int64_t{0});
  const nlohmann::json& row = line.at("row");
  call.row = row.is_string() ? row.get<std::string>() : row.dump();
  call.op = line.at("operator").get<std::string>();
  call.merged = line.at("merged").get<bool>();
}

ToolCall ToolCallFrom(const nlohmann::json& line, std::string kind) {
  if (kind != "http" && kind != "sql" && kind != "function")
    throw std::runtime_error("unknown kind '" + kind + "'");
  ToolCall call;
  ReadWhose(line, call);
  call.kind = std::move(kind);
  call.target = line.at("target").get<std::string>();
  call.request = line.at("request").get<std::string>();
  call.may_share = line.at("may_share").get<bool>();
  call.failed = line.at("finish") == "failed";
  if (call.merged) return call;
  call.drawn = line.at("drawn").get<bool>();
  call.latency_s = line.at("latency_s").get<double>();
  if (line.contains("cpu_s")) call.cpu_s = line.at("cpu_s").get<double>();
  return call;
}

Call CallFrom(const nlohmann::json& line) {
  if (!line.contains("prompt")) {
    throw std::runtime_error(
        "the call has no token ids (was it made with an engine that takes text?)");
  }
  Call call;
  ReadWhose(line, call);
  call.model = line.at("model").get<std::string>();
  line.at("prompt").get_to(call.prompt);
  line.at("output").get_to(call.output);
  call.finish = line.at("finish").get<std::string>();
  call.max_tokens = line.value("max_tokens", int64_t{0});
  call.temperature = line.value("temperature", 0.0);
  call.top_p = line.value("top_p", 1.0);
  return call;
}

}  // namespace

CallLog ReadCallLog(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  CallLog log;
  std::string text;
  for (int64_t number = 1; std::getline(file, text); ++number) {
    if (text.empty()) continue;
    try {
      const nlohmann::json line = nlohmann::json::parse(text);
      std::string kind = line.value("kind", std::string("llm"));
      if (kind == "llm") {
        log.llm.push_back(CallFrom(line));
      } else {
        log.tools.push_back(ToolCallFrom(line, std::move(kind)));
      }
    } catch (const std::exception& error) {
      throw std::runtime_error(path + ":" + std::to_string(number) + ": " + error.what());
    }
  }
  if (file.bad()) throw std::runtime_error(path + ": could not be read to its end");
  return log;
}

std::vector<std::string> ModelsOf(const std::vector<Call>& calls) {
  std::vector<std::string> models;
  for (const Call& call : calls) {
    if (std::find(models.begin(), models.end(), call.model) == models.end()) {
      models.push_back(call.model);
    }
  }
  return models;
}

}  // namespace halo::bench
