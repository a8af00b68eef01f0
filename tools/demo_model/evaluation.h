#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "demo_model/corpus.h"

namespace halo::demo {

/// An answer that says something wrong, and the user's turn that it answers.
struct WrongAnswer {
  std::string question, answer;
};

/// How a model file answers one kind of prompt.
struct SplitFigures {
  std::string split;
  int64_t prompts = 0;
  int64_t valid_json = 0;  ///< extractions that parse
  int64_t product = 0;     ///< extractions with the right product
  int64_t problem = 0;     ///< ... the right problem
  int64_t sentiment = 0;   ///< ... the right sentiment
  int64_t extraction = 0;  ///< all three right
  int64_t reply = 0;       ///< replies that name product and problem
  std::vector<WrongAnswer> failures;
};

/// Asks the model, through Halo's engine with greedy sampling, `prompts` extractions and as many
/// replies of each split but the training's. Throws Error(kModel).
std::vector<SplitFigures> EvaluateMessages(const std::string& model_path, uint64_t seed,
                                           uint64_t prompts, int32_t threads);

/// Greedy answers of the model to conversations without their last turn.
std::vector<std::string> Answer(const std::string& model_path,
                                const std::vector<std::vector<Turn>>& conversations,
                                int32_t max_tokens, int32_t threads);

}  // namespace halo::demo
