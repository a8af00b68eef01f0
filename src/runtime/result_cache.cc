#include "runtime/result_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "base/check.h"
#include "base/descriptor.h"
#include "base/error.h"
#include "runtime/sqlite_file.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

/// "HalC" in ASCII: what the file is.
constexpr int kApplicationId = 0x48616C43;
/// Of the table and what is in it. Keys have the version of what answers are made by in them, so
/// this is for the layout alone.
constexpr int kFormat = 1;
constexpr int kWriterBusyMs = 5'000;
constexpr int kReaderBusyMs = 100;  // the scheduler waits, and a miss costs a call
constexpr int kPages = 4096;        // of 4 KiB, that each connection remembers
constexpr size_t kSumBytes = 8;
constexpr int64_t kShareOfOne = 16;  // an answer is at most this part of a cache

constexpr const char* kTable =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE answers(id INTEGER PRIMARY KEY, key INTEGER NOT NULL UNIQUE,"
    " rest INTEGER NOT NULL, tool INTEGER NOT NULL, made INTEGER NOT NULL, used INTEGER NOT NULL,"
    " question BLOB NOT NULL, record BLOB NOT NULL) STRICT;"
    "CREATE INDEX by_use ON answers(used);";

/// The 64 bits that answers are found by; the others are compared.
int64_t IndexedKey(const Signature& key) { return static_cast<int64_t>(key.low); }
int64_t RestOfKey(const Signature& key) { return static_cast<int64_t>(key.high); }

std::string SumOf(const Signature& key, std::string_view bytes) {
  const uint64_t sum = SignatureBuilder().Add(key).Add(bytes).Finish().low;
  std::string text(kSumBytes, '\0');
  std::memcpy(text.data(), &sum, kSumBytes);
  return text;
}

/// Nothing if it is not what was written under the key.
std::optional<JournalRecord> Checked(const Signature& key, std::string_view bytes) {
  if (bytes.size() < kSumBytes) return std::nullopt;
  const std::string_view record = bytes.substr(0, bytes.size() - kSumBytes);
  if (bytes.substr(record.size()) != SumOf(key, record)) return std::nullopt;
  return DecodeRecord(record);
}

std::string EncodeQuestion(const CacheQuestion& question) {
  std::string bytes(sizeof question.parts + sizeof question.asker, '\0');
  std::memcpy(bytes.data(), question.parts.data(), sizeof question.parts);
  std::memcpy(bytes.data() + sizeof question.parts, &question.asker, sizeof question.asker);
  return bytes;
}

void DecodeQuestion(std::string_view bytes, CacheQuestion& question) {
  if (bytes.size() != sizeof question.parts + sizeof question.asker) return;  // damaged: no parts
  std::memcpy(question.parts.data(), bytes.data(), sizeof question.parts);
  std::memcpy(&question.asker, bytes.data() + sizeof question.parts, sizeof question.asker);
}

int64_t MachineTime() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::pair<uint64_t, uint64_t> FileAt(const std::string& path) {
  struct stat facts {};
  if (stat(path.c_str(), &facts) != 0) return {};
  return {facts.st_dev, facts.st_ino};
}

/// Held while a cache is opened, or put out of the way: of two processes that find it damaged one
/// makes the new one.
Descriptor LockOf(const std::string& folder) {
  constexpr mode_t kOwner = 0600;
  const std::string path = folder + "/lock";
  Descriptor lock(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, kOwner));
  if (!lock || flock(lock.get(), LOCK_EX) != 0)
    throw Error(ErrorCode::kIo, path + ": cannot be locked: " + std::strerror(errno));
  return lock;
}

}  // namespace

const char* QuestionPartName(QuestionPart part) {
  switch (part) {
    case QuestionPart::kModel:
      return "model";
    case QuestionPart::kBuild:
      return "build";
    case QuestionPart::kPrompt:
      return "prompt";
    case QuestionPart::kLimits:
      return "limits";
    case QuestionPart::kSchema:
      return "schema";
    case QuestionPart::kSampling:
      return "sampling";
    case QuestionPart::kDraws:
      return "draws";
  }
  return "?";
}

struct ResultCache::Database : SqliteFile {
  sqlite3_stmt *begin = nullptr, *end = nullptr, *find = nullptr;      // of the reader
  sqlite3_stmt *insert = nullptr, *touch = nullptr, *evict = nullptr;  // of the writer

  Database(const std::string& path, const std::string& vfs, int busy_ms)
      : SqliteFile(path, vfs, "the cache of answers", busy_ms) {}
  void PrepareToRead() {
    Run("PRAGMA cache_size=" + std::to_string(kPages));
    begin = Prepare("BEGIN");
    end = Prepare("COMMIT");
    find = Prepare("SELECT rest, made, used, record FROM answers WHERE key = ?");
  }
  void PrepareToWrite() {
    Run("PRAGMA cache_size=" + std::to_string(kPages));
    insert = Prepare(
        "INSERT INTO answers(key, rest, tool, made, used, question, record)"
        " VALUES(?1, ?2, ?3, ?4, ?4, ?5, ?6) ON CONFLICT(key) DO UPDATE SET rest = excluded.rest,"
        " tool = excluded.tool, made = excluded.made, used = excluded.used,"
        " question = excluded.question, record = excluded.record");
    touch = Prepare("UPDATE answers SET used = ?2 WHERE key = ?1");
    evict = Prepare(
        "DELETE FROM answers WHERE id IN (SELECT id FROM answers ORDER BY used, id LIMIT 1000)");
  }
  /// What is not the writer's to mend.
  bool is_damaged() const {
    return code() == SQLITE_CORRUPT || code() == SQLITE_NOTADB || code() == SQLITE_ERROR;
  }
};

ResultCache::ResultCache(Options options)
    : options_([&] {
        if (!options.now_us) options.now_us = MachineTime;
        return std::move(options);
      }()),
      opened_us_(options_.now_us()) {
  Open();
  thread_ = std::thread([this] { Work(); });
}

ResultCache::~ResultCache() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  wake_.notify_one();
  thread_.join();
  reader_.reset();
  writer_.reset();
  if (!is_damaged_) return;
  try {
    const Descriptor lock = LockOf(options_.folder);
    // Another process may have done it.
    if (FileAt(path()) == file_) SetAside(failure_);
  } catch (const Error&) {
    // The next one to open it finds the same.
  }
}

void ResultCache::Open() {
  std::error_code fault;
  const fs::path folder(options_.folder);
  const bool is_new = fs::create_directories(folder, fault);
  if (is_new) fs::permissions(folder, fs::perms::owner_all, fault);
  if (fault || !fs::is_directory(folder, fault))
    throw Error(ErrorCode::kIo, options_.folder + ": cannot make this folder for answers" +
                                    (fault ? ": " + fault.message() : ""));
  const Descriptor lock = LockOf(options_.folder);
  try {
    OpenFile();
  } catch (const Error& error) {
    const bool is_damaged = writer_ != nullptr && writer_->is_damaged();
    reader_.reset();
    writer_.reset();
    if (!is_damaged) throw;
    SetAside(error.what());
    OpenFile();
  }
  file_ = FileAt(path());
}

/// Throws Error(kIo); where the file is damaged or another program's the writer says so.
void ResultCache::OpenFile() {
  // It has answers in it, which are its owner's alone. A file that is there is left to SQLite: to
  // close it here would take back the locks that this process has on it.
  constexpr mode_t kOwner = 0600;
  Descriptor(open(path().c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, kOwner)).Close();
  writer_ = std::make_unique<Database>(path(), options_.vfs, kWriterBusyMs);
  writer_->Run("PRAGMA journal_mode=WAL");
  writer_->Run("PRAGMA synchronous=NORMAL");
  const int64_t format = writer_->Number("PRAGMA user_version");
  const int64_t id = writer_->Number("PRAGMA application_id");
  if (format == 0 && id == 0 && writer_->Number("SELECT count(*) FROM sqlite_schema") == 0) {
    writer_->Run(kTable + fmt::format("PRAGMA application_id={}; PRAGMA user_version={}; COMMIT;",
                                      kApplicationId, kFormat));
  } else if (id == kApplicationId && format > kFormat) {
    throw Error(ErrorCode::kIo, path() + ": a newer version of Halo has written it");
  }
  // Another program's file has no such table.
  writer_->PrepareToWrite();
  is_empty_ = writer_->Number("SELECT 1 FROM answers LIMIT 1") == 0;
  reader_ = std::make_unique<Database>(path(), options_.vfs, kReaderBusyMs);
  reader_->PrepareToRead();
}

/// Whoever has it open goes on with the renamed file.
void ResultCache::SetAside(const std::string& why) {
  std::error_code fault;
  const std::string aside = path() + ".damaged";
  for (const char* end : {"", "-wal", "-shm"}) {
    fs::remove(aside + end, fault);
    fs::rename(path() + end, aside + end, fault);
  }
  if (fs::exists(path(), fault))
    throw Error(ErrorCode::kIo, path() + ": cannot be renamed; it is no cache of answers: " + why);
  notice_ =
      fmt::format("the answers of earlier runs cannot be read, and are now in {}: {}", aside, why);
}

std::optional<JournalRecord> ResultCache::Find(const Signature& key,
                                               std::optional<double> most_age_s) {
  if (reader_ == nullptr || is_empty_) return std::nullopt;
  try {
    return Look(key, most_age_s);
  } catch (const Error& error) {
    if (reader_->code() == SQLITE_BUSY) return std::nullopt;  // somebody tidies up
    Fail(*reader_, error.what());
    reader_.reset();
    return std::nullopt;
  }
}

std::optional<JournalRecord> ResultCache::Look(const Signature& key,
                                               std::optional<double> most_age_s) {
  if (!in_turn_) reader_->Execute(reader_->begin);
  in_turn_ = true;
  sqlite3_stmt* find = reader_->find;
  sqlite3_bind_int64(find, 1, IndexedKey(key));
  if (!reader_->Step(find)) return std::nullopt;
  const bool is_it = sqlite3_column_int64(find, 0) == RestOfKey(key);
  const int64_t made_us = sqlite3_column_int64(find, 1);
  const int64_t used_us = sqlite3_column_int64(find, 2);
  constexpr double kUsPerS = 1e6;
  // What this run has asked itself has no age, and is not taken: it would depend on who came first.
  const bool is_young =
      !most_age_s ||
      (made_us < opened_us_ && static_cast<double>(opened_us_ - made_us) <= *most_age_s * kUsPerS);
  std::optional<JournalRecord> record;
  if (is_it && is_young) record = Checked(key, BlobOf(find, 3));
  sqlite3_reset(find);
  if (!record) return std::nullopt;
  record->key = key;
  if (opened_us_ - used_us > options_.touch_after_us) {
    CacheQuestion question;
    question.key = key;
    Enqueue({question, ""});
  }
  return record;
}

void ResultCache::EndTurn() {
  if (!in_turn_) return;
  in_turn_ = false;
  if (reader_ == nullptr) return;
  try {
    reader_->Execute(reader_->end);
  } catch (const Error& error) {
    Fail(*reader_, error.what());
    reader_.reset();
  }
}

void ResultCache::Put(const CacheQuestion& question, const JournalRecord& record) {
  HALO_CHECK(!record.failure, "errors are never cached");
  std::string bytes = EncodeRecord(record);
  bytes += SumOf(question.key, bytes);
  if (static_cast<int64_t>(bytes.size()) > options_.most_bytes / kShareOfOne) {
    ++left_out_;
    return;
  }
  Enqueue({question, std::move(bytes)});
}

void ResultCache::Enqueue(Waiting waiting) {
  std::unique_lock lock(mutex_);
  if (!failure_.empty()) return;
  if (waiting_.size() >= options_.most_waiting) {
    ++left_out_;
    return;
  }
  waiting_.push_back(std::move(waiting));
  const bool wakes = waiting_.size() == 1;
  lock.unlock();
  if (wakes) wake_.notify_one();
}

void ResultCache::Flush() {
  std::unique_lock lock(mutex_);
  hurry_ = true;
  wake_.notify_one();
  moved_.wait(lock, [this] { return (waiting_.empty() && !writing_) || !failure_.empty(); });
  hurry_ = false;
}

std::string ResultCache::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

void ResultCache::Fail(const Database& where, const std::string& why) {
  const std::lock_guard lock(mutex_);
  is_damaged_ = is_damaged_ || where.is_damaged();
  if (failure_.empty()) failure_ = "no more answers are kept for later runs: " + why;
}

/// The cache's thread.
void ResultCache::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return !waiting_.empty() || closing_; });
    if (waiting_.empty()) return;
    wake_.wait_for(lock, std::chrono::microseconds(options_.gather_us),
                   [this] { return hurry_ || closing_; });
    const std::vector<Waiting> batch = std::exchange(waiting_, {});
    const bool works = failure_.empty();
    writing_ = true;
    lock.unlock();
    if (works) {
      try {
        Write(batch);
        MakeRoom();
      } catch (const Error& error) {
        // Another process has had the file for seconds: these are not kept, later ones may be.
        if (writer_->code() == SQLITE_BUSY) {
          left_out_ += static_cast<int64_t>(batch.size());
        } else {
          Fail(*writer_, error.what());
        }
      }
    }
    lock.lock();
    writing_ = false;
    moved_.notify_all();
  }
}

void ResultCache::Write(const std::vector<Waiting>& batch) {
  Database& db = *writer_;
  db.Run("BEGIN IMMEDIATE");
  int64_t kept = 0;
  try {
    const int64_t now_us = options_.now_us();
    for (const Waiting& each : batch) {
      const bool is_use = each.record.empty();
      sqlite3_stmt* statement = is_use ? db.touch : db.insert;
      sqlite3_bind_int64(statement, 1, IndexedKey(each.question.key));
      if (is_use) {
        sqlite3_bind_int64(statement, 2, now_us);
        db.Execute(statement);
        continue;
      }
      const std::string question = EncodeQuestion(each.question);
      sqlite3_bind_int64(statement, 2, RestOfKey(each.question.key));
      sqlite3_bind_int(statement, 3, each.question.is_tool ? 1 : 0);
      sqlite3_bind_int64(statement, 4, now_us);
      sqlite3_bind_blob64(statement, 5, question.data(), question.size(), SQLITE_STATIC);
      sqlite3_bind_blob64(statement, 6, each.record.data(), each.record.size(), SQLITE_STATIC);
      db.Execute(statement);
      ++kept;
    }
    db.Run("COMMIT");
  } catch (const Error&) {
    db.RollBack();
    throw;
  }
  kept_ += kept;
}

int64_t ResultCache::UsedBytes() {
  return (writer_->Number("PRAGMA page_count") - writer_->Number("PRAGMA freelist_count")) *
         writer_->Number("PRAGMA page_size");
}

/// A sixteenth more than is too much goes, so that it does not go answer by answer.
void ResultCache::MakeRoom() {
  if (UsedBytes() <= options_.most_bytes) return;
  const int64_t wanted = options_.most_bytes - options_.most_bytes / kShareOfOne;
  do {
    writer_->Execute(writer_->evict);
  } while (writer_->changed() > 0 && UsedBytes() > wanted);
}

void ResultCache::ForEach(const std::function<void(const CacheQuestion&)>& take) {
  Flush();
  EndTurn();
  if (reader_ == nullptr) throw Error(ErrorCode::kIo, failure());
  sqlite3_stmt* all = reader_->Prepare("SELECT key, rest, tool, question FROM answers");
  while (reader_->Step(all)) {
    CacheQuestion question;
    question.key.low = static_cast<uint64_t>(sqlite3_column_int64(all, 0));
    question.key.high = static_cast<uint64_t>(sqlite3_column_int64(all, 1));
    question.is_tool = sqlite3_column_int(all, 2) != 0;
    DecodeQuestion(BlobOf(all, 3), question);
    take(question);
  }
}

CacheContents ResultCache::Contents() {
  Flush();
  EndTurn();
  if (reader_ == nullptr) throw Error(ErrorCode::kIo, failure());
  CacheContents contents;
  sqlite3_stmt* all =
      reader_->Prepare("SELECT count(*), total(tool), min(made), max(made) FROM answers");
  reader_->Step(all);
  contents.results = sqlite3_column_int64(all, 1);
  contents.answers = sqlite3_column_int64(all, 0) - contents.results;
  contents.first_us = sqlite3_column_int64(all, 2);
  contents.last_us = sqlite3_column_int64(all, 3);
  sqlite3_reset(all);
  contents.bytes = UsedBytes();
  return contents;
}

void ResultCache::Clear() {
  Flush();
  EndTurn();
  writer_->Run("DELETE FROM answers");
  try {
    writer_->Run("VACUUM");
    writer_->Run("PRAGMA wal_checkpoint(TRUNCATE)");
  } catch (const Error&) {
    // Somebody else reads it: the room is used again, and given back another time.
    if (writer_->code() != SQLITE_BUSY) throw;
  }
}

int64_t ClearCache(const std::string& folder) {
  std::error_code ignored;
  if (!fs::exists(folder + "/answers.db", ignored)) return 0;
  ResultCache::Options options;
  options.folder = folder;
  ResultCache cache(options);
  const int64_t bytes = cache.Contents().bytes;
  cache.Clear();
  for (const char* end : {"", "-wal", "-shm"})
    fs::remove(folder + "/answers.db.damaged" + end, ignored);
  return bytes;
}

}  // namespace halo
