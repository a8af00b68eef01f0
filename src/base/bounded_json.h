#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace halo {

/// Levels of arrays and objects in a file that Halo wrote for itself and a person may hand in.
inline constexpr int kMaxFileDepth = 64;

/// A JSON text of at most kMaxFileDepth levels: values are copied, compared and printed level by
/// level on the stack, so that a text of brackets alone would end the process. Otherwise a
/// discarded value, and what is wrong in `fault`.
nlohmann::ordered_json ParseBoundedJson(const std::string& text, std::string& fault);

}  // namespace halo
