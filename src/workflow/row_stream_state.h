#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/descriptor.h"
#include "halo/row_stream.h"

namespace halo {

/// What the threads that add rows share with the one that takes them.
struct RowStream::State {
  struct WaitingRow {
    std::string text;
    RowWishes wishes;
    bool is_cancelled = false;
  };
  /// Next first: by priority, then by index.
  using Place = std::pair<int64_t, int64_t>;
  static Place PlaceOf(int64_t index, const WaitingRow& row) {
    return {-int64_t{row.wishes.priority}, index};
  }

  explicit State(Arrival a) : arrival(a) {}

  const Arrival arrival;
  mutable std::mutex mutex;
  mutable std::condition_variable room;  // rows were taken
  Descriptor changed;                    // eventfd: not 0 since somebody added, cancelled or closed
  // Under mutex:
  std::map<int64_t, WaitingRow> rows;  // by index
  std::set<Place> order;               // of `rows`
  std::vector<int64_t> cancelled;      // that were taken before
  int64_t next_index = 0;
  bool is_closed = false;

  /// Whoever waits at `changed` goes on.
  void Tell();
};

}  // namespace halo
