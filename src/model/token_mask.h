#pragma once

#include <cstdint>
#include <vector>

#include "model/span.h"

namespace halo {

/// A set of tokens of a vocabulary: a list where they are few, so that a draw looks at those alone,
/// else a bit for each id. Equal sets are kept in the same way.
struct TokenMask {
  bool is_dense = false;
  std::vector<TokenId> tokens;  ///< ascending; of a sparse mask
  std::vector<uint64_t> bits;   ///< [vocabulary / 64, rounded up]; of a dense one
  int32_t count = 0;

  bool Contains(TokenId token) const;
  int64_t bytes() const {
    return static_cast<int64_t>(tokens.size() * sizeof(TokenId) + bits.size() * sizeof(uint64_t));
  }
};

}  // namespace halo
