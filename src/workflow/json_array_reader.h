#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "sql/json_row.h"

namespace halo {

/// Elements of the one JSON array that a file holds, one at a time, in memory bounded by the
/// longest allowed element. An element is cut out by its brackets and quotes and read by
/// ParseJsonRow, so that rows of .json and .jsonl obey the same rules, and so that an element which
/// is broken inside its brackets does not hide the faults of later ones.
///
/// DuckDB's reader is not used: it guesses types from the first rows (a text like 2026-01-31
/// becomes a date), gives every row the columns of all, turns whole numbers above 64 bits into
/// floating point, takes the last of two equal keys, and stops at the first fault.
class JsonArrayReader {
 public:
  static constexpr size_t kMaxElementBytes = size_t{64} << 20;

  struct Place {
    int64_t line = 1;    ///< from 1
    int64_t column = 1;  ///< in bytes, from 1
  };
  struct Element {
    Place start;
    std::string text;
    std::optional<std::string> fault;  ///< at `start`; nothing can be read behind it
  };

  /// Reads `fd`, which the caller keeps open; `path` is what errors name.
  JsonArrayReader(int fd, std::string path);

  /// The next element, or nothing at the end of the file. Throws Error(kIo).
  std::optional<Element> Next();
  /// Where byte `offset` of an element is.
  static Place PlaceIn(const Element& element, size_t offset);

 private:
  static constexpr int kEnd = -1;
  enum class State : uint8_t { kBeforeArray, kFirst, kBehindElement, kDone };

  int Peek();
  void Take();
  int PeekBehindBlanks();
  Element Fault(std::string message);
  Element ReadElement();
  void ReadText(std::string& text);

  const int fd_;
  const std::string path_;
  std::string buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  bool at_end_ = false;
  Place place_;
  State state_ = State::kBeforeArray;
};

}  // namespace halo
