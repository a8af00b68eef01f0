#include "workflow/diagnostics.h"

#include <algorithm>
#include <tuple>

namespace halo {
namespace {

auto Position(const Diagnostic& diagnostic) {
  return std::make_tuple(diagnostic.location.line, diagnostic.location.column);
}

bool Same(const Diagnostic& a, const Diagnostic& b) {
  return Position(a) == Position(b) && a.message == b.message;
}

}  // namespace

void DiagnosticList::Add(int32_t line, int32_t column, std::string message) {
  diagnostics_.push_back({{file_, line, column}, std::move(message)});
}

void DiagnosticList::ThrowIfAny(ErrorCode code) {
  if (diagnostics_.empty()) return;
  std::stable_sort(
      diagnostics_.begin(), diagnostics_.end(),
      [](const Diagnostic& a, const Diagnostic& b) { return Position(a) < Position(b); });
  // The same text can be read twice: an alias stands for all of what it names.
  diagnostics_.erase(std::unique(diagnostics_.begin(), diagnostics_.end(), Same),
                     diagnostics_.end());
  throw Error(code, std::move(diagnostics_));
}

}  // namespace halo
