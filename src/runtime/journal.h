#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/hash.h"
#include "runtime/journal_record.h"

namespace halo {

/// Rows with consecutive indices that were written to a source's output.
struct WrittenRows {
  size_t source = 0;
  int64_t first = 0, count = 0;
  bool failed = false;  ///< all of them, or none
};

/// What a run has paid for, on the disk: an outcome of a call is *finished* when it is appended,
/// and *committed* when it survives a loss of power. The next part of the run finds it by the
/// call's key and does not make the call again.
///
///     Append --> queue (bounded) --> one transaction each 10 ms at most --> committed()
///      scheduler's thread         |  the journal's thread: SQLite, WAL, synchronous=FULL
///
/// A log, not a table with an index: keys are hashes, so an index on the disk would touch a page a
/// call (4 MB a transaction at 50,000 calls a second). They are read into memory when the journal
/// is opened, 24 bytes each. A key may come again; the last record counts.
///
/// If something cannot be written, nothing is committed from then on, and `failure` says why; what
/// was committed before stays.
class Journal {
 public:
  struct Options {
    std::string path;  ///< the database; made if it is not there
    std::string vfs;   ///< SQLite's name of what reads and writes files; "": the usual one
    int64_t gather_us = 10'000;             ///< how long a transaction waits for more records
    size_t most_waiting = size_t{1} << 18;  ///< records not yet committed; Append waits beyond
  };

  /// Throws Error(kIo) where there is none to be had, or what is there is no journal that this
  /// version can read.
  explicit Journal(Options options);
  /// Commits what was appended, if it can.
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  /// What earlier parts of the run committed under a key, and what this one appended is not among
  /// it. Throws Error(kIo).
  std::optional<JournalRecord> Find(const Signature& key);
  /// Records of earlier parts.
  int64_t earlier() const { return static_cast<int64_t>(index_.size()); }
  int64_t earlier_failed() const { return earlier_failed_; }  ///< of these: kFailed
  /// Attempts at calls whose end earlier parts committed, the tokens of their prompts and answers,
  /// and what they cost (TokenPrice's unit).
  int64_t earlier_calls() const { return earlier_calls_; }
  int64_t earlier_tokens() const { return earlier_tokens_; }
  int64_t earlier_cost() const { return earlier_cost_; }
  /// How long earlier parts took, microseconds, each up to its last second.
  int64_t earlier_us() const { return earlier_us_; }
  /// Rows that earlier parts wrote, in that order; a row may be there more than once.
  const std::vector<WrittenRows>& earlier_rows() const { return rows_; }

  /// Returns the number by which it is known when it is committed.
  int64_t Append(const JournalRecord& record);
  int64_t Append(const WrittenRows& rows);
  int64_t appended() const { return appended_; }  ///< the last number given
  int64_t committed() const { return committed_.load(std::memory_order_acquire); }
  /// How long this part has taken by now, microseconds. What a kill leaves of it is at most a
  /// second old.
  void SetElapsed(int64_t us) { elapsed_us_.store(us, std::memory_order_relaxed); }
  /// Returns when all that was appended is committed, `most_us` have passed, or it has failed.
  /// Nobody waits for more records meanwhile.
  void Wait(int64_t most_us);
  /// Readable when something was committed, or it has failed, since TakeReady was called last.
  int ready_descriptor() const { return ready_; }
  void TakeReady();
  /// Why nothing more is committed; "": it is.
  std::string failure() const;

 private:
  struct Database;
  struct Entry {
    Signature key;
    int64_t id = 0;  ///< of the record in the file
  };
  /// One of the two.
  struct Waiting {
    std::string key;  ///< 16 bytes; "": `body` is a range of rows
    std::string body;
  };
  int64_t Enqueue(Waiting waiting);
  void ReadWhatIsThere();
  void Take(const Signature& key, int64_t id, const std::optional<JournalRecord>& record);
  int64_t Locate(const Signature& key) const;
  void Work();
  bool ElapsedIsDue() const;
  void Commit(const std::vector<Waiting>& batch, bool with_elapsed);

  const Options options_;
  std::unique_ptr<Database> reader_;  // of the scheduler's thread
  std::unique_ptr<Database> writer_;  // of the journal's, once it runs
  std::vector<Entry> index_;          // sorted by key; of equal ones the last counts
  int64_t earlier_failed_ = 0, earlier_calls_ = 0, earlier_tokens_ = 0, earlier_cost_ = 0;
  int64_t earlier_us_ = 0, part_ = 1;
  std::vector<WrittenRows> rows_;
  int64_t appended_ = 0;  // of the scheduler's thread
  std::atomic<int64_t> committed_{0};
  std::atomic<int64_t> elapsed_us_{0};
  int64_t committed_us_ = 0;  // of it; of the journal's thread
  int ready_ = -1;            // an eventfd

  mutable std::mutex mutex_;
  std::condition_variable wake_;   // the journal's thread
  std::condition_variable moved_;  // who waits for it
  std::vector<Waiting> waiting_;   // guarded by mutex_, as all below
  bool hurry_ = false;
  bool closing_ = false;
  std::string failure_;
  std::thread thread_;
};

}  // namespace halo
