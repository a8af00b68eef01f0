#include "halo/row_stream.h"

#include <sys/eventfd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "workflow/row_scan.h"
#include "workflow/row_stream_state.h"
#include "workflow/sql_reader.h"

namespace halo {

void RowStream::State::Tell() {
  const uint64_t one = 1;
  (void)!write(changed.get(), &one, sizeof one);  // a full counter tells as well
}

RowStream::RowStream(Arrival arrival) : state_(std::make_unique<State>(arrival)) {
  state_->changed = Descriptor(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!state_->changed)
    throw Error(ErrorCode::kConfig,
                std::string("cannot make a stream of rows: ") + std::strerror(errno));
}

RowStream::~RowStream() = default;

int64_t RowStream::Add(std::string row, const RowWishes& wishes) {
  State& state = *state_;
  const std::lock_guard lock(state.mutex);
  if (state.is_closed) throw Error(ErrorCode::kUsage, "the stream of rows is closed");
  const int64_t index = state.next_index++;
  const auto [place, added] =
      state.rows.emplace(index, State::WaitingRow{std::move(row), wishes, false});
  state.order.insert(State::PlaceOf(index, place->second));
  // Who takes rows looks again by itself while some are left.
  if (state.rows.size() == 1) state.Tell();
  return index;
}

int64_t RowStream::AddArrow(ArrowArrayStream* table) {
  const auto reader = SqlReader::OpenArrow(table);
  CheckColumns("table", 0, "", reader->columns(), {});
  int64_t rows = 0;
  while (const auto row = reader->Next()) {
    if (!row->faults.empty())
      throw Error(ErrorCode::kRows, "row " + std::to_string(rows + 1) +
                                        " of the table: " + row->faults.front().message);
    Add(row->values.dump());
    ++rows;
  }
  return rows;
}

void RowStream::Cancel(int64_t index) {
  State& state = *state_;
  const std::lock_guard lock(state.mutex);
  const auto found = state.rows.find(index);
  if (found == state.rows.end()) {
    state.cancelled.push_back(index);
  } else if (!found->second.is_cancelled) {
    // It goes first, since it costs nothing any more.
    state.order.erase(State::PlaceOf(index, found->second));
    found->second.is_cancelled = true;
    found->second.wishes.priority = std::numeric_limits<int32_t>::max();
    state.order.insert(State::PlaceOf(index, found->second));
  }
  state.Tell();
}

void RowStream::Close() {
  const std::lock_guard lock(state_->mutex);
  state_->is_closed = true;
  state_->Tell();
}

int64_t RowStream::waiting() const {
  const std::lock_guard lock(state_->mutex);
  return static_cast<int64_t>(state_->rows.size());
}

bool RowStream::WaitBelow(int64_t rows, double most_s) const {
  std::unique_lock lock(state_->mutex);
  return state_->room.wait_for(lock, std::chrono::duration<double>(most_s),
                               [&] { return static_cast<int64_t>(state_->rows.size()) < rows; });
}

}  // namespace halo
