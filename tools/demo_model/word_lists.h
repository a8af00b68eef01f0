#pragma once

#include <string>
#include <string_view>

#include "base/random.h"
#include "demo_model/corpus.h"

namespace halo::demo {

/// A word of one to three syllables that no list has: to be copied, not known.
std::string MadeUpWord(RandomStream& random);

/// Whether a word is among those that training never has.
bool IsUnseenWord(std::string_view word);

/// "cordless drill", "velora kettle": nouns with no, one or two words before them. In training some
/// of the words are made up anew each time, so that they have to be copied and cannot be known.
std::string DrawProduct(RandomStream& random, Split split);

/// What is wrong with a product, as the rest of a sentence: "does not charge", "has a cracked lid".
std::string DrawProblem(RandomStream& random, Split split);

struct ProductAndProblem {
  std::string product, problem;
};

/// A pair that belongs to the split: one of 16 pairs is held out, by its hash, whatever the words.
ProductAndProblem DrawPair(RandomStream& random, Split split);
bool IsHeldOut(const ProductAndProblem& pair);

}  // namespace halo::demo
