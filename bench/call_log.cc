#include "bench/call_log.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace halo::bench {
namespace {

Call CallFrom(const nlohmann::json& line) {
  if (!line.contains("prompt")) {
    throw std::runtime_error(
        "the call has no token ids (was it made with an engine that takes text?)");
  }
  Call call;
  call.source = line.value("source", int64_t{0});
  call.row = line.at("row").get<std::string>();
  call.op = line.at("operator").get<std::string>();
  call.model = line.at("model").get<std::string>();
  call.merged = line.at("merged").get<bool>();
  line.at("prompt").get_to(call.prompt);
  line.at("output").get_to(call.output);
  call.finish = line.at("finish").get<std::string>();
  call.max_tokens = line.value("max_tokens", int64_t{0});
  call.temperature = line.value("temperature", 0.0);
  call.top_p = line.value("top_p", 1.0);
  return call;
}

}  // namespace

std::vector<Call> ReadCallLog(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  std::vector<Call> calls;
  std::string text;
  for (int64_t number = 1; std::getline(file, text); ++number) {
    if (text.empty()) continue;
    try {
      calls.push_back(CallFrom(nlohmann::json::parse(text)));
    } catch (const std::exception& error) {
      throw std::runtime_error(path + ":" + std::to_string(number) + ": " + error.what());
    }
  }
  if (file.bad()) throw std::runtime_error(path + ": could not be read to its end");
  return calls;
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
