#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace halo {

/// The shape of a synthetic model of the llama or the qwen3 architecture.
struct SynthShape {
  std::string name;                    ///< named shape or "custom"
  std::string architecture = "llama";  ///< "llama" or "qwen3"
  int64_t layers = 0, width = 0, heads = 0, kv_heads = 0, head_width = 0, feed_forward = 0;
  int64_t context_tokens = 4096;
  double rope_frequency_base = 10000;
  double norm_epsilon = 1e-5;
  bool tied_embeddings = true;
  std::string vocabulary;  ///< a name for VocabularyFile: "gpt-2", "llama-bpe", "qwen2"
};

struct SynthOptions {
  SynthShape shape;
  std::string vocabulary_file;  ///< a GGUF file, of which the vocabulary is taken
  std::string chat_template;    ///< text; "" keeps the vocabulary's own or uses one that suits it
  std::string weight_type = "Q8_0";  ///< F16, Q8_0 or Q4_K
  uint64_t seed = 0;
  /// 0: an answer never ends by itself. Else at least 4: the end token's mean probability over
  /// contexts is one in so many, so that answers are that long on average (at temperature 1; see
  /// SynthesizeModel).
  double mean_output_tokens = 0;
  std::string output;  ///< path of the file to write
};

/// Shapes by name: tiny, 135m, llama-3.2-1b, llama-3.2-3b, llama-3.1-8b, qwen3-0.6b, qwen3-14b.
std::vector<SynthShape> NamedShapes();
/// Throws Error(kUsage) with a suggestion.
SynthShape ShapeByName(const std::string& name);

/// The vocabulary file meant by `name`: a path to a file, or a name such as "gpt-2" of a file
/// `ggml-vocab-NAME.gguf` in `vocabulary_folder`. Throws Error(kUsage) with a suggestion and what
/// there is.
std::string VocabularyFile(const std::string& name, const std::string& vocabulary_folder);

/// Writes a random-weight model, the same bytes for the same options whatever the number of
/// threads. The file appears by rename once it is whole; memory stays below about 100 MB for any
/// shape.
///
/// What comes out of it: logits are scaled so that the likeliest token has about half the
/// probability. Control tokens are never sampled but for the end token, and that only with
/// mean_output_tokens. Its logit spreads wider than the others': it is all but certain in one
/// context of so many and unlikely in the rest, which makes answers about as long at every
/// temperature, greedy ones and those cut by top-p included (a fixed probability of 1 / N a step
/// would never be the likeliest). The end token is the one that the chat template closes an answer
/// with (<|eot_id|>,
/// <|im_end|>, ...), and stands as end of sequence in the file; without such a token the
/// vocabulary's own.
///
/// With mean_output_tokens, models up to 256 M parameters are run once through llama.cpp on the CPU
/// to correct the end token's row, in steps of 1/256: there, other kernels than this machine's may
/// end in another step and other bytes.
///
/// Throws Error(kUsage) where the options do not fit together, Error(kModel) for the vocabulary,
/// Error(kIo).
void SynthesizeModel(const SynthOptions& options);

}  // namespace halo
