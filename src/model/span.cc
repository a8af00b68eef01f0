#include "model/span.h"

#include <algorithm>

namespace halo {

bool HaveText(const std::vector<PromptSpan>& spans) {
  return std::any_of(spans.begin(), spans.end(), [](const PromptSpan& span) {
    return span.kind != PromptSpan::Kind::kSlot && !span.text.empty();
  });
}

std::string SpansText(const std::vector<PromptSpan>& spans) {
  size_t bytes = 0;
  for (const PromptSpan& span : spans) bytes += span.text.size();
  std::string text;
  text.reserve(bytes);
  for (const PromptSpan& span : spans) {
    if (span.kind != PromptSpan::Kind::kSlot) text += span.text;
  }
  return text;
}

}  // namespace halo
