#include "model/span.h"

namespace halo {

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
