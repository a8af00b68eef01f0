#pragma once

#include <cstddef>
#include <utility>

#include "engine/engine.h"

namespace halo {

/// Spans until their owner takes them; what is too much until then is counted and left out.
class SpanLog {
 public:
  static constexpr size_t kMostSpans = 65'536;

  void Add(const EngineSpan& span) {
    if (held_.spans.size() < kMostSpans) {
      held_.spans.push_back(span);
    } else {
      ++held_.left_out;
    }
  }
  void Add(const EngineSpans& more) {
    for (const EngineSpan& span : more.spans) Add(span);
    held_.left_out += more.left_out;
  }
  size_t size() const { return held_.spans.size(); }
  EngineSpans Take() { return std::exchange(held_, {}); }

 private:
  EngineSpans held_;
};

}  // namespace halo
