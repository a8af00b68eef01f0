#include "base/file_text.h"

#include <fstream>
#include <sstream>

namespace halo {

std::optional<std::string> ReadFileText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace halo
