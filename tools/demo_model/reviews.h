#pragma once

#include "base/random.h"
#include "demo_model/corpus.h"

namespace halo::demo {

/// A product review and what it says.
struct Review {
  std::string text;
  std::string product;
  std::string used;    ///< "three weeks"; "" where the review does not say
  int64_t months = 0;  ///< the same in months, rounded; 0 with `used` empty
  std::vector<std::string> praised, criticized;
  std::string buys_again;  ///< "yes", "no" or "" for not stated
};

Review DrawReview(RandomStream& random, Split split);

/// The three calls of review_extraction: facts line by line, a check of them against the review,
/// the record as JSON. In some conversations the list has a fault, which the check finds.
Conversation DrawReviewConversation(RandomStream& random, Split split);

/// The record: one line of JSON.
std::string RecordAnswer(const Review& review);

}  // namespace halo::demo
