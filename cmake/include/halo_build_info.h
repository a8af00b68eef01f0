#pragma once

#include <string_view>

// What this program was built from. The values are in a generated file
// (cmake/halo_build_info.cc.in).
namespace halo::build_info {

extern const std::string_view kVersion;        // "0.1.0"
extern const std::string_view kCommit;         // short commit id, "unknown" outside a repository
extern const std::string_view kLlamaVersion;   // "v0.5.0"
extern const std::string_view kDuckdbVersion;  // "1.4.4"
extern const std::string_view kBackends;       // "cpu" or "cpu,cuda"

}  // namespace halo::build_info
