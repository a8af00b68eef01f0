#pragma once

#include <optional>
#include <string>

namespace halo {

/// All bytes of a file; nothing if it cannot be opened.
std::optional<std::string> ReadFileText(const std::string& path);

}  // namespace halo
