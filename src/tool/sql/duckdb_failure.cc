#include "tool/sql/duckdb_failure.h"

#include <utility>

#include "base/text.h"

namespace halo {

Failure DuckFailure(const char* code, std::string message) {
  return {"", code, std::move(message), false};
}

std::string DuckMessage(const char* message) {
  std::string text = ReplaceInvalidUtf8(message == nullptr ? "no message" : message);
  text = text.substr(0, text.find("\n\nLINE "));
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

}  // namespace halo
