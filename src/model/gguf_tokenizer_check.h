#pragma once

#include <cstdint>

#include "model/gguf_reader.h"

namespace halo {

/// Checks the keys tokenizer.* and returns the number of tokens; 0 if the file has no vocabulary.
/// Refuses what llama.cpp would abort on while it loads the vocabulary or later tokenizes any text:
/// lists of unequal length, two tokens of one text, a kind of tokenizer that is not known to be
/// safe here, special tokens outside the vocabulary. Throws Error(kModel).
int64_t CheckTokenizer(const GgufFile& file);

}  // namespace halo
