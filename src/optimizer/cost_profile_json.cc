#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/bounded_json.h"
#include "base/error.h"
#include "optimizer/cost_profile.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMostTextBytes = size_t{16} << 20;
constexpr size_t kMostModels = 1000;
constexpr size_t kMostPoints = 1000;
constexpr size_t kMostFaults = 20;
constexpr double kMostSeconds = 1e6;    // of one pass, one token, one load: twelve days
constexpr double kMostCount = 1 << 24;  // tokens or sequences of a point
constexpr double kMostBytes = 1e15;

/// Reads the members of one object and collects what is wrong with them.
class ObjectReader {
 public:
  ObjectReader(const Json& object, std::string place, std::vector<std::string>& faults)
      : object_(object), place_(std::move(place)), faults_(faults) {
    if (!object_.is_object()) Fault(place_ + ": expected an object");
  }
  /// Reports members that nobody has asked for.
  ~ObjectReader() {
    if (!object_.is_object()) return;
    for (const auto& [key, value] : object_.items()) {
      if (!known_.contains(key)) Fault(At(key) + ": unknown key");
    }
  }
  ObjectReader(const ObjectReader&) = delete;
  ObjectReader& operator=(const ObjectReader&) = delete;

  /// The member, or null and a fault.
  const Json* Get(const char* key) {
    known_.insert(key);
    if (!object_.is_object()) return nullptr;  // said already
    const auto found = object_.find(key);
    if (found != object_.end()) return &*found;
    Fault(At(key) + ": missing");
    return nullptr;
  }
  void Read(const char* key, std::string& to) {
    const Json* value = Get(key);
    if (value == nullptr) return;
    if (!value->is_string()) return Fault(At(key) + ": expected a text");
    to = value->get<std::string>();
  }
  void Read(const char* key, bool& to) {
    const Json* value = Get(key);
    if (value == nullptr) return;
    if (!value->is_boolean()) return Fault(At(key) + ": expected true or false");
    to = value->get<bool>();
  }
  void Read(const char* key, double& to, double most = kMostSeconds) {
    const Json* value = Get(key);
    if (value == nullptr) return;
    const double number = value->is_number() ? value->get<double>() : std::nan("");
    if (std::isfinite(number) && number >= 0.0 && number <= most) {
      to = number;
    } else {
      Fault(At(key) + ": expected a number from 0 to " + Json(most).dump());
    }
  }
  template <typename Integer>
  void ReadInteger(const char* key, Integer& to, double least, double most) {
    const Json* value = Get(key);
    if (value == nullptr) return;
    const double number = value->is_number_integer() ? value->get<double>() : std::nan("");
    if (number >= least && number <= most) {
      to = static_cast<Integer>(value->get<int64_t>());
    } else {
      Fault(At(key) + ": expected a whole number from " +
            std::to_string(static_cast<int64_t>(least)) + " to " +
            std::to_string(static_cast<int64_t>(most)));
    }
  }
  /// Calls read(element, place of it) for each element of a list with at least `least`.
  template <typename ReadOne>
  void ReadList(const char* key, size_t least, size_t most, const ReadOne& read) {
    const Json* list = Get(key);
    if (list == nullptr) return;
    if (!list->is_array() || list->size() < least || list->size() > most) {
      return Fault(At(key) + ": expected a list of " + std::to_string(least) + " to " +
                   std::to_string(most));
    }
    for (size_t i = 0; i < list->size(); ++i)
      read((*list)[i], At(key) + "[" + std::to_string(i) + "]");
  }
  void Fault(std::string text) {
    if (faults_.size() <= kMostFaults) faults_.push_back(std::move(text));
  }
  std::vector<std::string>& faults() { return faults_; }
  std::string At(const std::string& key) const { return place_.empty() ? key : place_ + "." + key; }

 private:
  const Json& object_;
  std::string place_;
  std::vector<std::string>& faults_;
  std::set<std::string> known_;
};

Json PrefillJson(const ModelProfile& model) {
  Json points = Json::array();
  for (const PrefillPoint& point : model.prefill) {
    points.push_back({{"prompts", point.prompts},
                      {"tokens", point.tokens},
                      {"base_s", point.base_s},
                      {"context_s", point.context_s}});
  }
  return points;
}

Json DecodeJson(const ModelProfile& model) {
  Json points = Json::array();
  for (const DecodePoint& point : model.decode) {
    points.push_back(
        {{"sequences", point.sequences}, {"base_s", point.base_s}, {"context_s", point.context_s}});
  }
  return points;
}

/// The costs that are one number of seconds each, by their keys.
struct SecondsField {
  const char* key;
  double ModelProfile::*member;
};
constexpr SecondsField kSecondsFields[] = {
    {"part_s", &ModelProfile::part_s},
    {"sampling_token_s", &ModelProfile::sampling_token_s},
    {"greedy_token_s", &ModelProfile::greedy_token_s},
    {"grammar_token_s", &ModelProfile::grammar_token_s},
    {"load_s", &ModelProfile::load_s},
    {"copy_s", &ModelProfile::copy_s},
    {"copy_token_s", &ModelProfile::copy_token_s},
    {"spill_s", &ModelProfile::spill_s},
    {"spill_token_s", &ModelProfile::spill_token_s},
    {"restore_s", &ModelProfile::restore_s},
    {"restore_token_s", &ModelProfile::restore_token_s},
    {"room_byte_s", &ModelProfile::room_byte_s},
};

struct PassesField {
  const char* key;
  int32_t PrefillPasses::*member;
};
constexpr PassesField kPassesFields[] = {
    {"batch_tokens", &PrefillPasses::batch_tokens},
    {"long_tokens", &PrefillPasses::long_tokens},
    {"long_together", &PrefillPasses::long_together},
    {"sequences", &PrefillPasses::sequences},
};

Json ModelJson(const ModelProfile& model) {
  Json passes = Json::object();
  for (const PassesField& field : kPassesFields) passes[field.key] = model.passes.*field.member;
  Json json = {{"model", model.model},
               {"model_digest", model.model_digest},
               {"measured", model.measured},
               {"exact", model.exact},
               {"weights_bytes", model.weights_bytes},
               {"kv_token_bytes", model.kv_token_bytes},
               {"passes", passes},
               {"prefill", PrefillJson(model)},
               {"decode", DecodeJson(model)}};
  for (const SecondsField& field : kSecondsFields) json[field.key] = model.*field.member;
  json["relative_error"] = model.relative_error;
  return json;
}

void ReadPoints(ObjectReader& reader, ModelProfile& model) {
  reader.ReadList("prefill", 1, kMostPoints, [&](const Json& json, const std::string& place) {
    PrefillPoint point;
    ObjectReader one(json, place, reader.faults());
    one.ReadInteger("prompts", point.prompts, 1, kMostCount);
    one.ReadInteger("tokens", point.tokens, 1, kMostCount);
    one.Read("base_s", point.base_s);
    one.Read("context_s", point.context_s);
    const auto key = [](const PrefillPoint& p) { return std::pair(p.prompts, p.tokens); };
    if (!model.prefill.empty() && key(model.prefill.back()) >= key(point))
      one.Fault(place + ": points must ascend by prompts, then tokens");
    model.prefill.push_back(point);
  });
  reader.ReadList("decode", 1, kMostPoints, [&](const Json& json, const std::string& place) {
    DecodePoint point;
    ObjectReader one(json, place, reader.faults());
    one.ReadInteger("sequences", point.sequences, 1, kMostCount);
    one.Read("base_s", point.base_s);
    one.Read("context_s", point.context_s);
    if (!model.decode.empty() && model.decode.back().sequences >= point.sequences)
      one.Fault(place + ": points must ascend by sequences");
    model.decode.push_back(point);
  });
}

ModelProfile ReadModel(const Json& json, const std::string& place,
                       std::vector<std::string>& faults) {
  ModelProfile model;
  ObjectReader reader(json, place, faults);
  reader.Read("model", model.model);
  reader.Read("model_digest", model.model_digest);
  reader.Read("measured", model.measured);
  reader.Read("exact", model.exact);
  reader.ReadInteger("weights_bytes", model.weights_bytes, 0, kMostBytes);
  reader.ReadInteger("kv_token_bytes", model.kv_token_bytes, 0, kMostBytes);
  if (const Json* passes = reader.Get("passes"); passes != nullptr) {
    ObjectReader one(*passes, reader.At("passes"), faults);
    for (const PassesField& field : kPassesFields)
      one.ReadInteger(field.key, model.passes.*field.member, 1, kMostCount);
  }
  ReadPoints(reader, model);
  for (const SecondsField& field : kSecondsFields) reader.Read(field.key, model.*field.member);
  reader.Read("relative_error", model.relative_error, 1e3);
  return model;
}

[[noreturn]] void Refuse(const std::string& path, const std::vector<std::string>& faults) {
  std::vector<Diagnostic> diagnostics;
  for (size_t i = 0; i < faults.size() && i < kMostFaults; ++i)
    diagnostics.push_back({{path, 0, 0}, faults[i]});
  if (faults.size() > kMostFaults) diagnostics.push_back({{path, 0, 0}, "and more"});
  diagnostics.push_back({{path, 0, 0},
                         "no cost profile that can be used; remove the file, or "
                         "measure again with halo calibrate"});
  throw Error(ErrorCode::kConfig, std::move(diagnostics));
}

}  // namespace

std::string ToJson(const CostProfile& profile) {
  Json models = Json::array();
  for (const ModelProfile& model : profile.models) models.push_back(ModelJson(model));
  const Json json = {{"version", CostProfile::kVersion},
                     {"machine", profile.machine},
                     {"threads", profile.threads},
                     {"models", models}};
  // A model's name may be any bytes.
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

CostProfile ReadCostProfile(const std::string& text, const std::string& path) {
  if (text.size() > kMostTextBytes) Refuse(path, {"larger than 16 MiB"});
  std::string fault;
  const Json json = ParseBoundedJson(text, fault);
  if (!fault.empty()) Refuse(path, {fault});
  std::vector<std::string> faults;
  CostProfile profile;
  {
    int32_t version = 0;
    if (json.is_object() && json.contains("version")) {
      const Json& given = json["version"];
      if (!given.is_number_integer() || given != CostProfile::kVersion) {
        Refuse(path, {"version " + given.dump(-1, ' ', true, Json::error_handler_t::replace) +
                      ", and this program reads version " + std::to_string(CostProfile::kVersion)});
      }
    }
    ObjectReader reader(json, "", faults);
    reader.ReadInteger("version", version, CostProfile::kVersion, CostProfile::kVersion);
    reader.Read("machine", profile.machine);
    reader.ReadInteger("threads", profile.threads, 1, kMostCount);
    std::set<std::string> digests;
    reader.ReadList("models", 0, kMostModels, [&](const Json& one, const std::string& place) {
      profile.models.push_back(ReadModel(one, place, faults));
      if (!digests.insert(profile.models.back().model_digest).second)
        reader.Fault(place + ": a second entry for the same model_digest");
    });
  }
  if (!faults.empty()) Refuse(path, faults);
  return profile;
}

}  // namespace halo
