#include "runtime/answer_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace halo {
namespace {

constexpr size_t kFirstPlaces = 1024;
/// Places of the table that are used before it grows or becomes a run.
constexpr double kMostLoad = 0.75;
constexpr size_t kBufferBytes = size_t{1} << 20;

template <typename Number>
void Append(std::string& bytes, Number number) {
  bytes.append(reinterpret_cast<const char*>(&number), sizeof number);
}

template <typename Number>
Number Take(const char*& at) {
  Number number;
  std::memcpy(&number, at, sizeof number);
  at += sizeof number;
  return number;
}

/// For this process alone, so in its own byte order.
std::string Encode(const Completion& completion) {
  constexpr size_t kNumbers = 64;  // no less than what the numbers take
  std::string bytes;
  bytes.reserve(kNumbers + completion.tokens.size() * sizeof(TokenId) + completion.text.size());
  Append(bytes, completion.finish);
  Append(bytes, completion.cut);
  Append(bytes, completion.prompt_tokens);
  Append(bytes, completion.output_tokens);
  Append(bytes, completion.logits_hash);
  Append(bytes, completion.tokens.size());
  bytes.append(reinterpret_cast<const char*>(completion.tokens.data()),
               completion.tokens.size() * sizeof(TokenId));
  bytes += completion.text;
  return bytes;
}

Completion Decode(const std::string& bytes) {
  Completion completion;
  const char* at = bytes.data();
  completion.finish = Take<FinishReason>(at);
  completion.cut = Take<bool>(at);
  completion.prompt_tokens = Take<int64_t>(at);
  completion.output_tokens = Take<int64_t>(at);
  completion.logits_hash = Take<uint64_t>(at);
  completion.tokens.resize(Take<size_t>(at));
  if (!completion.tokens.empty())  // memcpy takes no null pointer, even for nothing
    std::memcpy(completion.tokens.data(), at, completion.tokens.size() * sizeof(TokenId));
  at += completion.tokens.size() * sizeof(TokenId);
  completion.text.assign(at, static_cast<size_t>(bytes.data() + bytes.size() - at));
  return completion;
}

}  // namespace

/// A file without a name that grows at its end and is read anywhere. What was appended last is
/// still in memory.
class AnswerStore::File {
 public:
  /// Throws std::string, the reason, as all of its functions do.
  explicit File(const std::string& folder) {
    std::string path = folder + "/halo-answers-XXXXXX";
    fd_ = mkostemp(path.data(), O_CLOEXEC);
    if (fd_ < 0) throw std::string(std::strerror(errno));
    unlink(path.c_str());
  }
  ~File() { close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  uint64_t size() const { return written_ + buffer_.size(); }

  void Append(const char* bytes, size_t count) {
    buffer_.append(bytes, count);
    if (buffer_.size() >= kBufferBytes) Flush();
  }

  void Flush() {
    size_t done = 0;
    while (done < buffer_.size()) {
      const ssize_t put = pwrite(fd_, buffer_.data() + done, buffer_.size() - done,
                                 static_cast<off_t>(written_ + done));
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) throw std::string(std::strerror(errno));
      done += static_cast<size_t>(put);
    }
    written_ += done;
    buffer_.clear();
  }

  void Read(uint64_t offset, char* into, size_t count) const {
    if (offset >= written_) {
      std::memcpy(into, buffer_.data() + (offset - written_), count);
      return;
    }
    size_t done = 0;
    while (done < count) {
      const ssize_t got = pread(fd_, into + done, count - done, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) throw std::string(got < 0 ? std::strerror(errno) : "the file was cut");
      done += static_cast<size_t>(got);
    }
  }

 private:
  int fd_ = -1;
  uint64_t written_ = 0;
  std::string buffer_;  // appended, not written yet; an entry is never split between the two
};

AnswerStore::AnswerStore(Options options) : options_(std::move(options)) {
  static_assert(sizeof(Entry) == 32, "contract 2: 32 bytes a call");
}

AnswerStore::~AnswerStore() = default;

void AnswerStore::Fail(const std::string& why) {
  failure_ = "answers of earlier rows are forgotten: " + options_.folder + ": " + why;
  table_ = {};
  used_ = 0;
  runs_.clear();
  answers_.reset();
  index_.reset();
}

void AnswerStore::Put(const Signature& signature, const Completion& completion) {
  HALO_CHECK(!completion.failure, "a failure is no answer");
  const auto [place, is_new] = recent_.try_emplace(signature);
  if (!is_new) return;
  place->second = Encode(completion);
  recent_in_order_.push_back(signature);
  if (recent_in_order_.size() <= options_.recent) return;
  const auto oldest = recent_.find(recent_in_order_.front());
  if (!options_.folder.empty() && failure_.empty()) {
    try {
      Spill(oldest->first, oldest->second);
    } catch (const std::string& why) {
      Fail(why);
    }
  }
  recent_.erase(oldest);
  recent_in_order_.pop_front();
}

std::optional<Completion> AnswerStore::Find(const Signature& signature) const {
  if (const auto found = recent_.find(signature); found != recent_.end())
    return Decode(found->second);
  if (spilled_ == 0 || !failure_.empty()) return std::nullopt;
  try {
    const std::optional<Entry> entry = Locate(signature);
    if (!entry) return std::nullopt;
    std::string bytes(entry->length, '\0');
    answers_->Read(entry->offset, bytes.data(), bytes.size());
    return Decode(bytes);
  } catch (const std::string&) {
    // What cannot be read back is computed again: the answer is the same, and the next Put that
    // meets the disk says what is wrong with it.
    return std::nullopt;
  }
}

void AnswerStore::Spill(const Signature& signature, const std::string& bytes) {
  if (answers_ == nullptr) answers_ = std::make_unique<File>(options_.folder);
  if (Locate(signature)) return;  // asked again while it was on disk
  const Entry entry{signature, answers_->size(), bytes.size()};
  answers_->Append(bytes.data(), bytes.size());
  ++spilled_;
  const size_t most_places = std::max(kFirstPlaces, options_.index_bytes / sizeof(Entry));
  if (table_.empty()) table_.resize(kFirstPlaces);
  if (static_cast<double>(used_ + 1) > kMostLoad * static_cast<double>(table_.size())) {
    if (table_.size() * 2 > most_places) {
      WriteRun();
    } else {
      std::vector<Entry> old(table_.size() * 2);
      old.swap(table_);
      used_ = 0;
      for (const Entry& each : old) {
        if (each.length > 0) Insert(each);
      }
    }
  }
  Insert(entry);
}

void AnswerStore::Insert(const Entry& entry) {
  const size_t mask = table_.size() - 1;
  size_t place = entry.signature.low & mask;
  while (table_[place].length > 0) place = (place + 1) & mask;
  table_[place] = entry;
  ++used_;
}

/// The table becomes a sorted run on disk, and begins anew.
void AnswerStore::WriteRun() {
  if (index_ == nullptr) index_ = std::make_unique<File>(options_.folder);
  std::vector<Entry> sorted;
  sorted.reserve(used_);
  for (const Entry& entry : table_) {
    if (entry.length > 0) sorted.push_back(entry);
  }
  std::sort(sorted.begin(), sorted.end(),
            [](const Entry& a, const Entry& b) { return a.signature < b.signature; });
  const Run run{index_->size() / sizeof(Entry), sorted.size()};
  index_->Append(reinterpret_cast<const char*>(sorted.data()), sorted.size() * sizeof(Entry));
  index_->Flush();
  runs_.push_back(run);
  std::fill(table_.begin(), table_.end(), Entry{});
  used_ = 0;
}

std::optional<AnswerStore::Entry> AnswerStore::Locate(const Signature& signature) const {
  if (!table_.empty()) {
    const size_t mask = table_.size() - 1;
    for (size_t place = signature.low & mask; table_[place].length > 0;
         place = (place + 1) & mask) {
      if (table_[place].signature == signature) return table_[place];
    }
  }
  for (const Run& run : runs_) {
    if (std::optional<Entry> entry = LocateIn(run, signature)) return entry;
  }
  return std::nullopt;
}

/// Interpolation search: the high halves of signatures are uniform, so the first guess is off by
/// about the square root of the run's length, and each page that is read halves what is left at
/// least.
std::optional<AnswerStore::Entry> AnswerStore::LocateIn(const Run& run,
                                                        const Signature& signature) const {
  constexpr uint64_t kPage = 4096 / sizeof(Entry);
  uint64_t low = 0, high = run.count;  // the entry is in [low, high)
  uint64_t low_key = 0, high_key = UINT64_MAX;
  std::array<Entry, kPage> page;
  while (low < high) {
    const double share = high_key == low_key ? 0.5
                                             : static_cast<double>(signature.high - low_key) /
                                                   static_cast<double>(high_key - low_key);
    const auto guess = low + static_cast<uint64_t>(share * static_cast<double>(high - low));
    const uint64_t begin = std::max(low, std::min(guess, high - 1) / kPage * kPage);
    const uint64_t count = std::min(kPage - begin % kPage, high - begin);
    index_->Read((run.first + begin) * sizeof(Entry), reinterpret_cast<char*>(page.data()),
                 count * sizeof(Entry));
    const auto end = page.begin() + static_cast<ptrdiff_t>(count);
    if (signature < page.front().signature) {
      high = begin;
      high_key = page.front().signature.high;
    } else if (std::prev(end)->signature < signature) {
      low = begin + count;
      low_key = std::prev(end)->signature.high;
    } else {
      const auto found =
          std::lower_bound(page.begin(), end, signature,
                           [](const Entry& e, const Signature& s) { return e.signature < s; });
      if (found != end && found->signature == signature) return *found;
      return std::nullopt;
    }
  }
  return std::nullopt;
}

}  // namespace halo
