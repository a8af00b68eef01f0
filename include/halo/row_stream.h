#pragma once

#include <cstdint>
#include <memory>
#include <string>

struct ArrowArrayStream;  // of the Arrow C data interface

namespace halo {

/// What a row is given with besides its values.
struct RowWishes {
  int32_t priority = 0;    ///< rows of higher priority are taken first, and so are their calls
  double timeout_s = 0.0;  ///< as RunOptions::row_timeout_s, for this row; 0: what that says
};

/// Rows in memory, as the input of a run in place of a file (RunOptions::Input::stream).
///
/// Any thread may add and cancel rows and close the stream. Where all rows come before the run
/// begins, it is like a file: they are checked first, every fault is in one Error(kRows), and the
/// plan knows their number and lengths. Where they come at any time, it is like standard input:
/// nothing is known ahead, a row that cannot be read is a failed row, and the run goes on until the
/// stream is closed and all rows have ended.
///
/// Rows are kept as text, one copy of each, until the run takes them: by priority, then in the
/// order in which they were added. One run takes the rows of a stream.
class RowStream {
 public:
  /// kBefore: the stream is closed when a run begins with it.
  enum class Arrival : uint8_t { kBefore, kAnyTime };

  /// Throws Error(kConfig) where the system gives no more descriptors.
  explicit RowStream(Arrival arrival);
  ~RowStream();
  RowStream(const RowStream&) = delete;
  RowStream& operator=(const RowStream&) = delete;

  /// Adds a row: a JSON object, as a line of a .jsonl file has it. Returns its index, which counts
  /// from 0, and is the row's id unless the object has an `id`. Throws Error(kUsage) after Close.
  int64_t Add(std::string row, const RowWishes& wishes = {});
  /// Adds every row of a table; values become what those of Parquet files do. The caller releases
  /// the stream, which is read to its end. Returns how many there were. Throws Error(kRows) for
  /// values that are none of JSON, Error(kUsage) as Add does.
  int64_t AddArrow(ArrowArrayStream* table);
  /// A row that has not ended fails with the code "cancelled"; one that has stays as it is.
  void Cancel(int64_t index);
  /// No more rows come.
  void Close();

  /// Rows that no run has taken yet.
  int64_t waiting() const;
  /// Waits until fewer than `rows` wait, `most_s` at most, so that whoever adds rows faster than
  /// they are run holds few of them in memory. True if fewer do.
  bool WaitBelow(int64_t rows, double most_s) const;

  struct State;
  /// For the library's own sources.
  State& state() const { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

}  // namespace halo
