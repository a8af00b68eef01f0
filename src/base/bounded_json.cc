#include "base/bounded_json.h"

namespace halo {

using Json = nlohmann::ordered_json;

Json ParseBoundedJson(const std::string& text, std::string& fault) {
  bool too_deep = false;
  const auto keep = [&too_deep](int depth, Json::parse_event_t event, const Json&) {
    const bool opens =
        event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start;
    too_deep = too_deep || (opens && depth >= kMaxFileDepth);
    return !too_deep;  // what is beyond is read, and not kept
  };
  try {
    Json json = Json::parse(text, keep);
    if (!too_deep) return json;
    fault = "nested more than " + std::to_string(kMaxFileDepth) + " levels deep";
  } catch (const Json::exception& error) {
    fault = std::string("not JSON: ") + error.what();
  }
  return Json(Json::value_t::discarded);
}

}  // namespace halo
