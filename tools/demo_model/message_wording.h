#pragma once

#include <string>

#include "base/random.h"
#include "demo_model/corpus.h"
#include "demo_model/word_lists.h"

namespace halo::demo {

/// One or two sentences in which a customer says what is wrong with a product. They are composed of
/// parts, so that a sentence is hardly ever seen twice and where product and problem stand has to
/// be understood; those of Split::kFreeWording share no frame with the others.
std::string DrawReport(RandomStream& random, Split split, const ProductAndProblem& pair);

}  // namespace halo::demo
