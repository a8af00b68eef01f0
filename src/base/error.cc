#include "base/error.h"

#include <utility>

namespace halo {

std::string Diagnostic::ToString() const {
  if (location.file.empty()) return message;
  std::string text = location.file;
  if (location.line > 0) {
    text += ":" + std::to_string(location.line);
    if (location.column > 0) text += ":" + std::to_string(location.column);
  }
  return text + ": " + message;
}

Error::Error(ErrorCode code, std::string message)
    : Error(code, std::vector<Diagnostic>{Diagnostic{{}, std::move(message)}}) {}

Error::Error(ErrorCode code, std::vector<Diagnostic> diagnostics)
    : code_(code), diagnostics_(std::move(diagnostics)) {
  for (const Diagnostic& diagnostic : diagnostics_) {
    if (!text_.empty()) text_ += '\n';
    text_ += diagnostic.ToString();
  }
}

}  // namespace halo
