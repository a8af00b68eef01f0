#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "engine/engine.h"

namespace halo {

/// How a call of a run ended, as the journal keeps it.
struct JournalRecord {
  /// Numbers are those of the file: none changes its meaning.
  enum class Ending : uint8_t {
    kAnswer = 0,     ///< a model's
    kValue = 1,      ///< a tool's
    kFailed = 2,     ///< for good: its attempts are used up, or another would fail alike
    kBegun = 3,      ///< a write is about to be given to its tool; another record says how it ended
    kWithdrawn = 4,  ///< it was not given to its tool after all
    kSpent = 5       ///< of an attempt that came to nothing: what it cost. No outcome.
  };
  Signature key;  ///< of everything that the outcome depends on
  Ending ending = Ending::kAnswer;
  FinishReason finish = FinishReason::kFailed;  ///< of an answer
  bool cut = false;                             ///< Completion::cut
  std::vector<TokenId> tokens;                  ///< of an answer
  /// Of an answer: its text where `tokens` do not say it, else nothing. Of a value: compact JSON.
  std::optional<std::string> text;
  int64_t prompt_tokens = 0, output_tokens = 0;  ///< of a model's call, failed ones too
  std::optional<Failure> failure;                ///< of what failed
  bool unpaid = false;  ///< no call was made for it: it is another one's, or the cache's
  int64_t cost = 0;     ///< of its last attempt, in TokenPrice's unit

  friend bool operator==(const JournalRecord&, const JournalRecord&) = default;
};

/// Everything but the key, whole numbers in as few bytes as they need (LEB128).
std::string EncodeRecord(const JournalRecord& record);
/// Nothing if `bytes` are not what EncodeRecord makes. The key is left empty.
std::optional<JournalRecord> DecodeRecord(std::string_view bytes);

/// 16 bytes, the same on every machine.
std::string EncodeKey(const Signature& key);
/// `bytes` has 16.
Signature DecodeKey(std::string_view bytes);

}  // namespace halo
