#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace halo {

/// Something wrong in a CSV text. Line and column (in bytes) count from 1.
struct CsvFault {
  int64_t line = 0;
  int64_t column = 0;
  std::string message;
};

struct CsvRecord {
  int64_t line = 0;  ///< where it begins
  std::vector<std::string> fields;
  std::optional<CsvFault> fault;  ///< with a fault, `fields` may be anything
};

/// Records of a CSV file as RFC 4180 has them: commas, fields in double quotes where they hold
/// commas, quotes or lines, quotes doubled inside; lines end with LF or CRLF; UTF-8, a byte order
/// mark is left out; empty lines are skipped. Memory is bounded by the longest allowed record.
///
/// DuckDB's reader was tried first, with store_rejects and strict_mode (1.4.4): behind a quote that
/// is never closed the rows vanish without an entry among the rejects, a carriage return alone ends
/// the query without naming a line, and the blank in `4, "z"` is dropped. Every malformed line must
/// be named and nothing may be lost, so this reader is our own.
class CsvReader {
 public:
  static constexpr size_t kMaxRecordBytes = size_t{64} << 20;
  static constexpr size_t kMaxFields = 16'384;

  /// Reads `fd`, which the caller keeps open; `path` is what errors name.
  CsvReader(int fd, std::string path);

  /// Reads the next record into `record`; false at the end. After a fault it goes on with the next
  /// line. Throws Error(kIo).
  bool Next(CsvRecord& record);

 private:
  static constexpr int kEnd = -1;

  int Peek();
  int Take();
  bool TakeLineEnd();
  void ReadField(CsvRecord& record);
  void ReadQuoted(CsvRecord& record, std::string& field);
  void Fail(CsvRecord& record, int64_t line, int64_t column, std::string message);
  void SkipLine();

  int fd_;
  std::string path_;
  std::string buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  int64_t line_ = 1;
  int64_t column_ = 1;
  size_t record_bytes_ = 0;
  bool at_end_ = false;
};

}  // namespace halo
