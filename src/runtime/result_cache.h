#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "runtime/journal_record.h"

namespace halo {

/// What a question is made of, so that it can be said why there is no answer to it.
enum class QuestionPart : uint8_t {
  kModel,     ///< its file and adapter; of a tool: the database or the program
  kBuild,     ///< what rounding depends on
  kPrompt,    ///< of a tool: what is asked
  kLimits,    ///< most and least tokens, stop strings
  kSchema,    ///< what answers must look like
  kSampling,  ///< temperature and what is cut off
  kDraws      ///< of drawn answers: run seed, operator, row, sample
};
inline constexpr size_t kQuestionParts = 7;

/// "model", "build", "prompt", "limits", "schema", "sampling" or "draws".
const char* QuestionPartName(QuestionPart part);

/// A question as the cache keeps it beside its answer: hashes, from which nothing can be read.
struct CacheQuestion {
  Signature key;  ///< of everything that the answer depends on
  std::array<uint32_t, kQuestionParts> parts{};
  uint32_t asker = 0;    ///< of operator and row, whatever they ask
  bool is_tool = false;  ///< not a model

  uint32_t& at(QuestionPart part) { return parts[static_cast<size_t>(part)]; }
  uint32_t at(QuestionPart part) const { return parts[static_cast<size_t>(part)]; }
};

/// What is in a cache.
struct CacheContents {
  int64_t answers = 0;                ///< of models
  int64_t results = 0;                ///< of tools
  int64_t bytes = 0;                  ///< of the file, as far as it is in use
  int64_t first_us = 0, last_us = 0;  ///< when the oldest and the newest was made; 0: there is none
};

/// Answers that runs leave for later ones: outcomes of calls by a hash of everything that they
/// depend on, as the journal codes them. Failures are not among them. One file (SQLite, WAL) for
/// all runs of a user, at once too; it holds at most so many bytes, of which the least recently
/// used go first.
///
///     Find <-- file            in the caller's thread, one read transaction a turn
///     Put  --> queue (bounded) --> one transaction each 50 ms  in a thread of the cache's own
///
/// Losing it costs time and nothing else, so it is not synchronized with each transaction, what
/// does not fit the queue is not kept, and what goes wrong ends the keeping (`failure` says why)
/// and never a run. A file that is damaged, or no cache at all, is renamed out of the way; each
/// answer has a checksum, and one that is damaged is none.
///
/// A table in the order of insertion with an index of 64-bit keys, not a table ordered by key:
/// keys are hashes, and in their order what is evicted together would lie on all pages and free
/// none.
class ResultCache {
 public:
  struct Options {
    std::string folder;                      ///< made with its parents, for its owner alone
    int64_t most_bytes = int64_t{1} << 30;   ///< of the file, but for a few MB of its log
    std::string vfs;                         ///< as Journal::Options
    std::function<int64_t()> now_us;         ///< since 1970; null: the machine's clock
    int64_t gather_us = 50'000;              ///< how long a transaction waits for more
    size_t most_waiting = size_t{1} << 16;   ///< answers not yet written; more are not kept
    int64_t touch_after_us = 3'600'000'000;  ///< a use is written down once in so long
  };

  /// Throws Error(kIo) where there is none to be had.
  explicit ResultCache(Options options);
  /// Writes what was put.
  ~ResultCache();
  ResultCache(const ResultCache&) = delete;
  ResultCache& operator=(const ResultCache&) = delete;

  /// The outcome under a key. `most_age_s`: it was at most so old when this cache was opened, so
  /// that all rows of a run see the same; nothing: however old.
  std::optional<JournalRecord> Find(const Signature& key, std::optional<double> most_age_s);
  /// Ends the read transaction that Find began: others may tidy up, and what they have written
  /// since is seen.
  void EndTurn();
  /// `record` is an answer or a value.
  void Put(const CacheQuestion& question, const JournalRecord& record);
  /// Returns when what was put is written, or it cannot be.
  void Flush();

  /// Each question that has an answer, in no order. Throws Error(kIo).
  void ForEach(const std::function<void(const CacheQuestion&)>& take);
  /// Throws Error(kIo).
  CacheContents Contents();
  /// Forgets everything. Throws Error(kIo).
  void Clear();

  /// What a person should know about how it was found; "": nothing.
  const std::string& notice() const { return notice_; }
  /// Why no more is kept; "": it is.
  std::string failure() const;
  int64_t kept() const { return kept_.load(); }          ///< answers written by this one
  int64_t left_out() const { return left_out_.load(); }  ///< that did not fit the queue or the file

 private:
  struct Database;
  /// An answer; or, without a record, a use of what is there.
  struct Waiting {
    CacheQuestion question;
    std::string record;
  };
  void Open();
  void OpenFile();
  void SetAside(const std::string& why);
  std::optional<JournalRecord> Look(const Signature& key, std::optional<double> most_age_s);
  void Enqueue(Waiting waiting);
  void Work();
  void Write(const std::vector<Waiting>& batch);
  void MakeRoom();
  int64_t UsedBytes();
  void Fail(const Database& where, const std::string& why);
  std::string path() const { return options_.folder + "/answers.db"; }

  const Options options_;
  const int64_t opened_us_;
  std::string notice_;
  std::pair<uint64_t, uint64_t> file_;  // device and number of the file that is open
  std::unique_ptr<Database> reader_;    // of the caller's thread; null: it is not read any more
  std::unique_ptr<Database> writer_;    // of the cache's, once it runs
  bool is_empty_ = false;               // when it was opened
  bool in_turn_ = false;                // the reader has a transaction
  std::atomic<int64_t> kept_{0}, left_out_{0};

  mutable std::mutex mutex_;
  std::condition_variable wake_;   // the cache's thread
  std::condition_variable moved_;  // who waits for it
  std::vector<Waiting> waiting_;   // guarded by mutex_, as all below
  bool writing_ = false;
  bool hurry_ = false;
  bool closing_ = false;
  bool is_damaged_ = false;
  std::string failure_;
  std::thread thread_;
};

/// Forgets what is in the cache in `folder`, also where the file is damaged; nothing if there is
/// none. Returns how many bytes there were. Throws Error(kIo).
int64_t ClearCache(const std::string& folder);

}  // namespace halo
