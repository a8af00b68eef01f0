#include "demo_model/corpus.h"

#include "demo_model/customer_messages.h"
#include "demo_model/drawing.h"
#include "demo_model/questions.h"
#include "demo_model/reviews.h"

namespace halo::demo {

std::string_view SplitName(Split split) {
  switch (split) {
    case Split::kTraining:
      return "training";
    case Split::kHeldOutCombinations:
      return "held-out combinations";
    case Split::kUnseenProducts:
      return "unseen products";
    case Split::kUnseenProblems:
      return "unseen problems";
    case Split::kFreeWording:
      return "free wording";
  }
  return "";
}

Conversation MakeConversation(Split split, uint64_t seed, uint64_t index) {
  // Splits draw from streams of their own.
  RandomStream random(seed * 0x9E3779B97F4A7C15ULL + (index << 3) + static_cast<uint64_t>(split));
  const uint64_t share = random.Below(100);
  if (share < 58) return DrawMessageConversation(random, split);
  if (share < 66) return DrawMerge(random, split);
  if (share < 78) return DrawReviewConversation(random, split);
  if (share < 94) return DrawQuestionConversation(random, split);
  return DrawAdviceConversation(random, split);
}

}  // namespace halo::demo
