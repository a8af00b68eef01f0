#include "runtime/journal_record.h"

#include "base/check.h"

namespace halo {
namespace {

constexpr size_t kKeyBytes = 16;
/// Bits of the second byte.
constexpr uint8_t kCut = 1, kHasText = 2, kRetriable = 4, kUnpaid = 8, kHasCost = 16;

void AppendNumber(std::string& bytes, uint64_t number) {
  constexpr uint64_t kLow = 0x7F, kMore = 0x80;
  for (; number > kLow; number >>= 7) bytes += static_cast<char>((number & kLow) | kMore);
  bytes += static_cast<char>(number);
}

void AppendText(std::string& bytes, std::string_view text) {
  AppendNumber(bytes, text.size());
  bytes += text;
}

/// Reads what a writer wrote; once something is not there, nothing is.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  uint64_t Number() {
    uint64_t number = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = Byte();
      number |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if ((byte & 0x80) == 0) return number;
    }
    good_ = false;
    return 0;
  }
  uint8_t Byte() {
    good_ = good_ && !rest_.empty();
    if (!good_) return 0;
    const auto byte = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return byte;
  }
  std::string Text() {
    const uint64_t size = Number();
    good_ = good_ && size <= rest_.size();
    if (!good_) return "";
    std::string text(rest_.substr(0, size));
    rest_.remove_prefix(size);
    return text;
  }
  /// How many follow, of which each takes a byte at least.
  uint64_t Count() {
    const uint64_t count = Number();
    good_ = good_ && count <= rest_.size();
    return good_ ? count : 0;
  }
  bool at_end() const { return good_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool good_ = true;
};

}  // namespace

std::string EncodeRecord(const JournalRecord& record) {
  std::string bytes;
  bytes.reserve(16 + record.tokens.size() * 3 + (record.text ? record.text->size() : 0));
  const bool retriable = record.failure && record.failure->retriable;
  bytes += static_cast<char>(record.ending);
  bytes += static_cast<char>((record.cut ? kCut : 0) | (record.text ? kHasText : 0) |
                             (retriable ? kRetriable : 0) | (record.unpaid ? kUnpaid : 0) |
                             (record.cost != 0 ? kHasCost : 0));
  bytes += static_cast<char>(record.finish);
  AppendNumber(bytes, static_cast<uint64_t>(record.prompt_tokens));
  AppendNumber(bytes, static_cast<uint64_t>(record.output_tokens));
  AppendNumber(bytes, record.tokens.size());
  for (const TokenId token : record.tokens) AppendNumber(bytes, static_cast<uint32_t>(token));
  if (record.text) AppendText(bytes, *record.text);
  HALO_CHECK(record.failure.has_value() == (record.ending == JournalRecord::Ending::kFailed),
             "what failed says why, and nothing else does");
  if (record.failure) {
    AppendText(bytes, record.failure->operator_id);
    AppendText(bytes, record.failure->code);
    AppendText(bytes, record.failure->message);
  }
  if (record.cost != 0) AppendNumber(bytes, static_cast<uint64_t>(record.cost));
  return bytes;
}

std::optional<JournalRecord> DecodeRecord(std::string_view bytes) {
  Reader reader(bytes);
  JournalRecord record;
  const uint8_t ending = reader.Byte(), flags = reader.Byte(), finish = reader.Byte();
  if (ending > static_cast<uint8_t>(JournalRecord::Ending::kSpent) ||
      finish > static_cast<uint8_t>(FinishReason::kFailed))
    return std::nullopt;
  record.ending = static_cast<JournalRecord::Ending>(ending);
  record.finish = static_cast<FinishReason>(finish);
  record.cut = (flags & kCut) != 0;
  record.unpaid = (flags & kUnpaid) != 0;
  record.prompt_tokens = static_cast<int64_t>(reader.Number());
  record.output_tokens = static_cast<int64_t>(reader.Number());
  record.tokens.resize(reader.Count());
  for (TokenId& token : record.tokens) token = static_cast<TokenId>(reader.Number());
  if ((flags & kHasText) != 0) record.text = reader.Text();
  if (record.ending == JournalRecord::Ending::kFailed) {
    record.failure.emplace();
    record.failure->operator_id = reader.Text();
    record.failure->code = reader.Text();
    record.failure->message = reader.Text();
    record.failure->retriable = (flags & kRetriable) != 0;
  }
  if ((flags & kHasCost) != 0) record.cost = static_cast<int64_t>(reader.Number());
  if (!reader.at_end()) return std::nullopt;
  return record;
}

std::string EncodeKey(const Signature& key) {
  std::string bytes;
  for (const uint64_t word : {key.high, key.low}) {
    for (int shift = 56; shift >= 0; shift -= 8) bytes += static_cast<char>(word >> shift);
  }
  return bytes;
}

Signature DecodeKey(std::string_view bytes) {
  HALO_CHECK(bytes.size() == kKeyBytes, "keys are 128 bits");
  Signature key;
  for (size_t i = 0; i < kKeyBytes; ++i) {
    uint64_t& word = i < kKeyBytes / 2 ? key.high : key.low;
    word = word << 8 | static_cast<uint8_t>(bytes[i]);
  }
  return key;
}

}  // namespace halo
