#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "sql/json_row.h"
#include "workflow/rows.h"

namespace halo {

/// The row ids seen so far, each with the line where it was, in 16 bytes an id (at most 32 a row
/// with the table's free room): 80 bits of a hash and 48 of a line number. Two of a million ids are
/// taken for equal by mistake with a probability of 4e-13.
class IdTable {
 public:
  /// Adds an id; returns the line of the equal one that is there already, if there is one.
  std::optional<int64_t> Insert(const Signature& id, int64_t line);

 private:
  struct Slot {
    uint64_t high = 0;
    uint64_t low_and_line = 0;  ///< 0: free, since lines count from 1
  };
  size_t Place(const Slot& wanted) const;
  void Grow();

  std::vector<Slot> slots_;
  size_t used_ = 0;
};

/// The id of a row for IdTable: 1 and "1" differ.
Signature IdSignature(const nlohmann::ordered_json& id);

/// The row's `id` field, else its index.
Row MakeRow(int64_t index, nlohmann::ordered_json values);

/// What is wrong with the `id` field of a row, or "".
std::string RowIdFault(const JsonRow& row);

/// "a, b, c", at most 20 names of at most 60 bytes.
std::string ListNames(const std::vector<std::string>& names);

/// Checks the column names of a source in which every row has all of them, before any row is read:
/// none is there twice, all that are required are there. `line`: of the header, 0 without one.
/// `header`: " of the header" or "". Throws Error(kRows) with everything that is wrong.
void CheckColumns(const std::string& file, int64_t line, const std::string& header,
                  const std::vector<std::string>& columns,
                  const std::vector<std::string>& required_columns);

/// Names in order of first appearance.
class ColumnList {
 public:
  void Add(const std::string& name) {
    if (seen_.insert(name).second) names_.push_back(name);
  }
  const std::vector<std::string>& names() const { return names_; }

 private:
  std::unordered_set<std::string> seen_;
  std::vector<std::string> names_;
};

/// Checks rows as a file is scanned: ids, required columns; collects columns and what is wrong.
class RowScan {
 public:
  /// `row_at`: what stands before the number that places a row: "row" where there are no lines.
  RowScan(std::string file, std::vector<std::string> required_columns,
          std::string row_at = "row at line");

  /// `observer` (may be null) sees the values of every row that is taken from now on.
  void Observe(std::function<void(const nlohmann::ordered_json&)> observer) {
    observer_ = std::move(observer);
  }

  /// Takes a row that begins in `line`; `id_column` (from 1) is the place of the `id` key, 0 if it
  /// is not known.
  void AddRow(int64_t line, int32_t id_column, const JsonRow& row);
  /// Something wrong with a row; the row is not added as well.
  void AddFault(int64_t line, int64_t column, std::string message);
  /// Counts a row that could not be read, so that later rows keep their index.
  void SkipRow() { ++rows_; }

  /// Throws Error(kRows) with what is wrong: at most 100 diagnostics in file order, then a count.
  void Finish();

  int64_t rows() const { return rows_; }
  bool has_faults() const { return faults_ > 0; }
  const std::vector<std::string>& columns() const { return columns_.names(); }

 private:
  struct RequiredColumn {
    std::string name;
    bool seen = false;
    std::vector<Diagnostic> missing;  ///< the first of them
    int64_t missing_count = 0;
  };
  void AddMissingColumns();

  std::string file_;
  std::string row_at_;
  std::function<void(const nlohmann::ordered_json&)> observer_;
  std::vector<RequiredColumn> required_;
  ColumnList columns_;
  IdTable ids_;
  std::vector<Diagnostic> diagnostics_;
  int64_t faults_ = 0;
  int64_t rows_ = 0;
};

/// Rows whose texts come one by one, with nothing known ahead: what cannot be read becomes a failed
/// row with the id "WHERE:NUMBER".
class UnscannedRows {
 public:
  /// `where`: what a number counts, "line" or "row".
  UnscannedRows(std::vector<std::string> required_columns, std::string where)
      : required_(std::move(required_columns)), where_(std::move(where)) {}

  /// The row of a text, the `number`th.
  Row Read(int64_t index, int64_t number, std::string_view text);
  Row Failed(int64_t index, int64_t number, const char* code, const std::string& message) const;
  const std::vector<std::string>& columns() const { return columns_.names(); }

 private:
  const std::vector<std::string> required_;
  const std::string where_;
  ColumnList columns_;
  IdTable ids_;
};

}  // namespace halo
