#include "workflow/csv_record.h"

#include "base/text.h"
#include "workflow/input_file.h"

namespace halo {
namespace {

constexpr size_t kReadBytes = size_t{1} << 18;

}  // namespace

CsvReader::CsvReader(int fd, std::string path)
    : fd_(fd), path_(std::move(path)), buffer_(kReadBytes, '\0') {
  // The mark's three bytes may come in several reads from a slow disk, never from a regular file.
  Peek();
  if (std::string_view(buffer_).substr(0, end_).starts_with("\xEF\xBB\xBF")) begin_ = 3;
}

int CsvReader::Peek() {
  if (begin_ == end_) {
    if (at_end_) return kEnd;
    begin_ = 0;
    end_ = ReadSome(fd_, buffer_.data(), kReadBytes, path_);
    at_end_ = end_ == 0;
    if (at_end_) return kEnd;
  }
  return static_cast<unsigned char>(buffer_[begin_]);
}

int CsvReader::Take() {
  const int byte = Peek();
  if (byte == kEnd) return kEnd;
  ++begin_;
  ++column_;
  ++record_bytes_;
  if (byte == '\n') {
    ++line_;
    column_ = 1;
  }
  return byte;
}

/// Takes "\n", "\r\n" or the end of the file, if one of them is next. A "\r" alone is left to the
/// caller as taken.
bool CsvReader::TakeLineEnd() {
  if (Peek() == kEnd) return true;
  if (Peek() == '\r') Take();
  if (Peek() == kEnd) return true;
  if (Peek() != '\n') return false;
  Take();
  return true;
}

void CsvReader::SkipLine() {
  for (int byte = Take(); byte != kEnd && byte != '\n'; byte = Take()) {
  }
}

/// The first fault of a record counts.
void CsvReader::Fail(CsvRecord& record, int64_t line, int64_t column, std::string message) {
  if (!record.fault) record.fault = CsvFault{line, column, std::move(message)};
}

void CsvReader::ReadQuoted(CsvRecord& record, std::string& field) {
  const int64_t open_line = line_;
  const int64_t open_column = column_;
  Take();
  while (true) {
    const int byte = Take();
    if (byte == kEnd) {
      Fail(record, open_line, open_column, "this quote is never closed");
      return;
    }
    if (record_bytes_ > kMaxRecordBytes) {
      Fail(record, open_line, open_column,
           "a row of more than 64 MiB begins here: is this quote closed?");
      return;
    }
    if (byte != '"') {
      field += static_cast<char>(byte);
    } else if (Peek() == '"') {
      field += static_cast<char>(Take());
    } else {
      break;
    }
  }
  const int next = Peek();
  if (next != ',' && next != '\r' && next != '\n' && next != kEnd) {
    Fail(record, line_, column_,
         "expected a comma or the end of the line after the closing quote (a quote inside a field "
         "is written twice)");
  }
}

void CsvReader::ReadField(CsvRecord& record) {
  const int64_t line = line_;
  const int64_t column = column_;
  std::string field;
  if (Peek() == '"') {
    ReadQuoted(record, field);
  } else {
    while (!record.fault) {
      const int byte = Peek();
      if (byte == ',' || byte == '\r' || byte == '\n' || byte == kEnd) break;
      if (byte == '"') {
        Fail(record, line_, column_,
             "a quote inside a field without quotes: put the whole field in quotes and write the "
             "inner quote twice");
      } else if (record_bytes_ > kMaxRecordBytes) {
        Fail(record, record.line, 1, "the row has more than 64 MiB");
      } else {
        field += static_cast<char>(Take());
      }
    }
  }
  if (!record.fault && FindInvalidUtf8(field) != std::string_view::npos) {
    Fail(record, line, column, "not UTF-8");
  }
  if (record.fields.size() >= kMaxFields) {
    Fail(record, line, column, "the row has more than 16384 fields");
    return;
  }
  record.fields.push_back(std::move(field));
}

bool CsvReader::Next(CsvRecord& record) {
  while (Peek() == '\n' || Peek() == '\r') {  // empty lines
    record = {line_, {}, std::nullopt};
    const int64_t column = column_;
    if (TakeLineEnd()) continue;
    Fail(record, record.line, column, "a carriage return without a line feed");
    SkipLine();
    return true;
  }
  if (Peek() == kEnd) return false;
  record = {line_, {}, std::nullopt};
  record_bytes_ = 0;
  while (true) {
    ReadField(record);
    if (!record.fault && Peek() == ',') {
      Take();
      continue;
    }
    const int64_t line = line_;
    const int64_t column = column_;
    if (!record.fault && !TakeLineEnd()) {
      Fail(record, line, column, "a carriage return without a line feed: put the field in quotes");
    }
    if (record.fault) SkipLine();
    return true;
  }
}

}  // namespace halo
