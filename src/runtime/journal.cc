#include "runtime/journal.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "runtime/sqlite_file.h"

namespace halo {
namespace {

/// "Halo" in ASCII: what the file is.
constexpr int kApplicationId = 0x48616C6F;
/// Of the tables and the records in them. A newer version reads all older ones.
/// 2: records say what attempts cost, and which were none. 3: how long each part took.
constexpr int kFormat = 3;
constexpr int kBusyMs = 10'000;  // another process looks at the run
constexpr int64_t kMappedBytes = int64_t{1} << 32;
constexpr std::chrono::microseconds kElapsedEvery = std::chrono::seconds(1);

constexpr const char* kTables =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE calls(id INTEGER PRIMARY KEY, key BLOB NOT NULL, record BLOB NOT NULL) STRICT;"
    "CREATE TABLE rows(id INTEGER PRIMARY KEY, source INTEGER NOT NULL, first INTEGER NOT NULL,"
    " count INTEGER NOT NULL, failed INTEGER NOT NULL) STRICT;";
constexpr const char* kPartsTable =
    "CREATE TABLE parts(id INTEGER PRIMARY KEY, elapsed_us INTEGER NOT NULL) STRICT;";

std::string EncodeRows(const WrittenRows& rows) {
  std::string bytes(sizeof rows, '\0');  // within this process only
  std::memcpy(bytes.data(), &rows, sizeof rows);
  return bytes;
}

WrittenRows DecodeRows(const std::string& bytes) {
  WrittenRows rows;
  std::memcpy(&rows, bytes.data(), sizeof rows);
  return rows;
}

}  // namespace

struct Journal::Database : SqliteFile {
  sqlite3_stmt* statement = nullptr;       // of the reader: one record; of the writer: into `calls`
  sqlite3_stmt* rows_statement = nullptr;  // of the writer: into `rows`
  sqlite3_stmt* part_statement = nullptr;  // of the writer: into `parts`

  explicit Database(const Options& options)
      : SqliteFile(options.path, options.vfs, "the journal", kBusyMs) {}
};

Journal::Journal(Options options) : options_(std::move(options)) {
  writer_ = std::make_unique<Database>(options_);
  try {
    writer_->Run("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;");
    const int64_t format = writer_->Number("PRAGMA user_version");
    const int64_t tables = writer_->Number("SELECT count(*) FROM sqlite_schema");
    const std::string version = "PRAGMA user_version=" + std::to_string(kFormat) + ";";
    if (format == 0 && tables == 0) {
      writer_->Run((std::string(kTables) + kPartsTable + "PRAGMA application_id=" +
                    std::to_string(kApplicationId) + ";" + version + "COMMIT;")
                       .c_str());
    } else if (writer_->Number("PRAGMA application_id") != kApplicationId) {
      throw Error(ErrorCode::kIo, "the journal: the file is another program's");
    } else if (format > kFormat) {
      throw Error(ErrorCode::kIo, "the journal: a newer version of Halo has written it");
    } else if (format < kFormat) {
      // Older versions must not take what is added for damage.
      writer_->Run(("BEGIN IMMEDIATE;" + std::string(kPartsTable) + version + "COMMIT;").c_str());
    }
    writer_->statement = writer_->Prepare("INSERT INTO calls(key, record) VALUES(?, ?)");
    writer_->rows_statement =
        writer_->Prepare("INSERT INTO rows(source, first, count, failed) VALUES(?, ?, ?, ?)");
    writer_->part_statement =
        writer_->Prepare("INSERT OR REPLACE INTO parts(id, elapsed_us) VALUES(?, ?)");
    reader_ = std::make_unique<Database>(options_);
    reader_->Run(("PRAGMA mmap_size=" + std::to_string(kMappedBytes)).c_str());
    ReadWhatIsThere();
    reader_->statement = reader_->Prepare("SELECT record FROM calls WHERE id = ?");
  } catch (const Error& error) {
    throw Error(ErrorCode::kIo, {{{options_.path, 0, 0}, error.what()}});
  }
  ready_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (ready_ < 0) throw Error(ErrorCode::kIo, std::string("eventfd: ") + std::strerror(errno));
  thread_ = std::thread([this] { Work(); });
}

Journal::~Journal() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  wake_.notify_one();
  thread_.join();
  close(ready_);
  reader_.reset();  // the last one to close tidies the files up
  writer_.reset();
}

void Journal::ReadWhatIsThere() {
  index_.reserve(static_cast<size_t>(reader_->Number("SELECT count(*) FROM calls")));
  constexpr int kKeyBytes = 16;
  const auto read = [&](const char* sql, auto take) {
    sqlite3_stmt* statement = reader_->Prepare(sql);
    while (reader_->Step(statement)) take(statement);
  };
  read("SELECT id, key, record FROM calls ORDER BY id", [&](sqlite3_stmt* row) {
    // Another length is damage: the call is made anew.
    if (sqlite3_column_bytes(row, 1) != kKeyBytes) return;
    Take(DecodeKey(BlobOf(row, 1)), sqlite3_column_int64(row, 0), DecodeRecord(BlobOf(row, 2)));
  });
  std::sort(index_.begin(), index_.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.key, a.id) < std::pair(b.key, b.id);
  });
  read("SELECT source, first, count, failed FROM rows ORDER BY id", [&](sqlite3_stmt* row) {
    rows_.push_back({static_cast<size_t>(sqlite3_column_int64(row, 0)),
                     sqlite3_column_int64(row, 1), sqlite3_column_int64(row, 2),
                     sqlite3_column_int(row, 3) != 0});
  });
  read("SELECT id, elapsed_us FROM parts ORDER BY id", [&](sqlite3_stmt* row) {
    part_ = sqlite3_column_int64(row, 0) + 1;
    earlier_us_ += sqlite3_column_int64(row, 1);
  });
}

/// A record of an earlier part; nothing: it is damaged, and its call is made anew.
void Journal::Take(const Signature& key, int64_t id, const std::optional<JournalRecord>& record) {
  using Ending = JournalRecord::Ending;
  // Its call has another end, or none.
  if (!record || record->ending != Ending::kSpent) index_.push_back({key, id});
  if (!record) return;
  earlier_failed_ += record->ending == Ending::kFailed ? 1 : 0;
  const bool is_end = record->ending != Ending::kBegun && record->ending != Ending::kWithdrawn;
  if (!is_end || record->unpaid) return;
  ++earlier_calls_;
  earlier_tokens_ += record->prompt_tokens + record->output_tokens;
  earlier_cost_ += record->cost;
}

/// The id of the last record under a key; 0: there is none.
int64_t Journal::Locate(const Signature& key) const {
  // Keys are uniform: where one lies is known to within a few hundred of a million.
  const size_t size = index_.size();
  using Wide = unsigned __int128;
  size_t low = static_cast<size_t>(Wide{key.high} * size >> 64);
  size_t high = low;
  for (size_t step = 64; low > 0 && !(index_[low - 1].key < key); step *= 2)
    low -= std::min(low, step);
  for (size_t step = 64; high < size && !(key < index_[high].key); step *= 2)
    high += std::min(size - high, step);
  const auto begin = index_.begin();
  const auto after =
      std::upper_bound(begin + static_cast<ptrdiff_t>(low), begin + static_cast<ptrdiff_t>(high),
                       key, [](const Signature& k, const Entry& e) { return k < e.key; });
  return after == begin || std::prev(after)->key != key ? 0 : std::prev(after)->id;
}

std::optional<JournalRecord> Journal::Find(const Signature& key) {
  const int64_t id = Locate(key);
  if (id == 0) return std::nullopt;
  sqlite3_stmt* statement = reader_->statement;
  sqlite3_bind_int64(statement, 1, id);
  std::optional<JournalRecord> record;
  if (reader_->Step(statement)) record = DecodeRecord(BlobOf(statement, 0));
  sqlite3_reset(statement);
  if (record) record->key = key;
  return record;
}

int64_t Journal::Append(const JournalRecord& record) {
  return Enqueue({EncodeKey(record.key), EncodeRecord(record)});
}

int64_t Journal::Append(const WrittenRows& rows) { return Enqueue({"", EncodeRows(rows)}); }

int64_t Journal::Enqueue(Waiting waiting) {
  std::unique_lock lock(mutex_);
  moved_.wait(lock,
              [this] { return waiting_.size() < options_.most_waiting || !failure_.empty(); });
  waiting_.push_back(std::move(waiting));
  const bool wakes = waiting_.size() == 1 || waiting_.size() == options_.most_waiting;
  lock.unlock();
  if (wakes) wake_.notify_one();
  return ++appended_;
}

void Journal::Wait(int64_t most_us) {
  std::unique_lock lock(mutex_);
  hurry_ = true;
  wake_.notify_one();
  moved_.wait_for(lock, std::chrono::microseconds(most_us),
                  [this] { return committed() >= appended_ || !failure_.empty(); });
}

void Journal::TakeReady() {
  uint64_t count = 0;
  // Nothing there is no fault: whoever asks may be early.
  if (read(ready_, &count, sizeof count) < 0) HALO_CHECK(errno == EAGAIN, "an eventfd can be read");
}

std::string Journal::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

/// The journal's thread.
void Journal::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait_for(lock, kElapsedEvery, [this] { return !waiting_.empty() || closing_; });
    if (waiting_.empty() && !ElapsedIsDue()) {
      if (closing_) return;
      continue;
    }
    if (!waiting_.empty())
      wake_.wait_for(lock, std::chrono::microseconds(options_.gather_us), [this] {
        return hurry_ || closing_ || waiting_.size() >= options_.most_waiting;
      });
    hurry_ = false;
    std::vector<Waiting> batch = std::exchange(waiting_, {});
    std::string failure = failure_;
    const bool with_elapsed = ElapsedIsDue();
    lock.unlock();
    if (failure.empty()) {
      try {
        Commit(batch, with_elapsed);
        committed_.fetch_add(static_cast<int64_t>(batch.size()), std::memory_order_release);
      } catch (const Error& error) {
        failure = options_.path + ": " + error.what();
      }
    }
    const uint64_t one = 1;
    HALO_CHECK(write(ready_, &one, sizeof one) == sizeof one, "an eventfd takes a count");
    lock.lock();
    failure_ = failure;
    moved_.notify_all();
  }
}

/// Of the journal's thread, under the lock.
bool Journal::ElapsedIsDue() const {
  const int64_t more = elapsed_us_.load(std::memory_order_relaxed) - committed_us_;
  return failure_.empty() && more > 0 && (closing_ || more >= kElapsedEvery.count());
}

void Journal::Commit(const std::vector<Waiting>& batch, bool with_elapsed) {
  Database& db = *writer_;
  const int64_t elapsed_us = elapsed_us_.load(std::memory_order_relaxed);
  db.Run("BEGIN IMMEDIATE");
  try {
    for (const Waiting& each : batch) {
      const bool is_call = !each.key.empty();
      sqlite3_stmt* statement = is_call ? db.statement : db.rows_statement;
      if (is_call) {
        sqlite3_bind_blob64(statement, 1, each.key.data(), each.key.size(), SQLITE_STATIC);
        sqlite3_bind_blob64(statement, 2, each.body.data(), each.body.size(), SQLITE_STATIC);
      } else {
        const WrittenRows rows = DecodeRows(each.body);
        sqlite3_bind_int64(statement, 1, static_cast<int64_t>(rows.source));
        sqlite3_bind_int64(statement, 2, rows.first);
        sqlite3_bind_int64(statement, 3, rows.count);
        sqlite3_bind_int(statement, 4, rows.failed ? 1 : 0);
      }
      db.Execute(statement);
    }
    if (with_elapsed) {
      sqlite3_bind_int64(db.part_statement, 1, part_);
      sqlite3_bind_int64(db.part_statement, 2, elapsed_us);
      db.Execute(db.part_statement);
    }
    db.Run("COMMIT");
    if (with_elapsed) committed_us_ = elapsed_us;
  } catch (const Error&) {
    db.RollBack();  // nothing of this batch is taken for committed
    throw;
  }
}

}  // namespace halo
