#include "optimizer/operator_history.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/bounded_json.h"
#include "base/error.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

struct Field {
  const char* name;
  double OperatorRecord::*value;
  bool may_lack = false;  ///< files of earlier versions of Halo have it not
};
constexpr Field kFields[] = {{"instances", &OperatorRecord::instances},
                             {"calls", &OperatorRecord::calls},
                             {"prompt_tokens", &OperatorRecord::prompt_tokens},
                             {"reused_tokens", &OperatorRecord::reused_tokens},
                             {"output_tokens", &OperatorRecord::output_tokens},
                             {"output_tokens_squared", &OperatorRecord::output_tokens_squared},
                             {"latency_s", &OperatorRecord::latency_s},
                             {"engine_s", &OperatorRecord::engine_s, true},
                             {"profile_s", &OperatorRecord::profile_s, true}};

std::string KeyOf(const Signature& operation, const std::string& model_digest) {
  return fmt::format("{:016x}{:016x} {}", operation.high, operation.low, model_digest);
}

[[noreturn]] void Refuse(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::kConfig, path + ": is no history of runs: " + what +
                                      "; delete the file, runs will write a new one");
}

OperatorRecord ReadRecord(const Json& said, const std::string& path) {
  if (!said.is_object()) Refuse(path, "a record is no object");
  OperatorRecord record;
  for (const Field& field : kFields) {
    const auto found = said.find(field.name);
    if (found == said.end() && field.may_lack) continue;
    if (found == said.end() || !found->is_number())
      Refuse(path, std::string("a record has no number '") + field.name + "'");
    const double value = found->get<double>();
    // Sums of these must stay finite, or the next text could not be read.
    constexpr double kMostCount = 1e18;
    if (!std::isfinite(value) || value < 0.0 || value > kMostCount)
      Refuse(path, std::string("'") + field.name + "' is no count");
    record.*field.value = value;
  }
  const auto profile = said.find("profile");
  if (profile == said.end()) return record;
  if (!profile->is_string()) Refuse(path, "'profile' is no text");
  record.profile = profile->get<std::string>();
  return record;
}

}  // namespace

Signature ModelPaceSignature() { return SignatureBuilder().Add("pace of a model").Finish(); }

const OperatorRecord* OperatorHistory::Find(const Signature& operation,
                                            const std::string& model_digest) const {
  const auto found = records_.find(KeyOf(operation, model_digest));
  return found == records_.end() || found->second.calls <= 0.0 ? nullptr : &found->second;
}

void OperatorHistory::Add(const Signature& operation, const std::string& model_digest,
                          const OperatorRecord& of_run) {
  const std::string key = KeyOf(operation, model_digest);
  if (!records_.contains(key) && records_.size() >= kMostRecords) return;
  OperatorRecord& record = records_[key];
  // Seconds beside those of another profile say nothing about this one.
  if (!of_run.profile.empty() && record.profile != of_run.profile) {
    record.engine_s = record.profile_s = 0.0;
    record.profile = of_run.profile;
  }
  for (const Field& field : kFields)
    record.*field.value = record.*field.value * kMemory + of_run.*field.value;
}

void OperatorHistory::ForgetPacesOfModels() {
  for (auto& [key, record] : records_) {
    if (key.ends_with(' ')) continue;  // no model's digest: a tool
    record.engine_s = record.profile_s = 0.0;
    record.profile.clear();
  }
}

std::string OperatorHistory::ToJson() const {
  Json operators = Json::object();
  for (const auto& [key, record] : records_) {
    Json said = Json::object();
    for (const Field& field : kFields) said[field.name] = record.*field.value;
    if (!record.profile.empty()) said["profile"] = record.profile;
    operators[key] = std::move(said);
  }
  return Json{{"version", kVersion}, {"operators", std::move(operators)}}.dump(1) + "\n";
}

OperatorHistory OperatorHistory::Read(const std::string& text, const std::string& path) {
  std::string fault;
  const Json said = ParseBoundedJson(text, fault);
  if (!fault.empty()) Refuse(path, fault);
  if (!said.is_object()) Refuse(path, "it is no JSON object");
  if (said.value("version", Json()) != Json(kVersion))
    Refuse(path, fmt::format("its version is not {}", kVersion));
  const auto operators = said.find("operators");
  if (operators == said.end() || !operators->is_object()) Refuse(path, "it has no 'operators'");
  OperatorHistory history;
  for (const auto& [key, record] : operators->items()) {
    if (history.records_.size() >= kMostRecords) break;
    history.records_.emplace(key, ReadRecord(record, path));
  }
  return history;
}

}  // namespace halo
