#pragma once

#include "base/random.h"
#include "demo_model/corpus.h"

namespace halo::demo {

/// Conversations about open questions, laid out as the shipped voting, debate and chain-of-thought
/// workflows ask them. What the model learns is the form: it takes a side at random, says so in a
/// line "Answer: ...", and counts the answers of others. It knows nothing about the world.
Conversation DrawQuestionConversation(RandomStream& random, Split split);

/// Three turns of advice, as the shipped multi_turn workflow asks for them.
Conversation DrawAdviceConversation(RandomStream& random, Split split);

}  // namespace halo::demo
