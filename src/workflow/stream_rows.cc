#include <poll.h>

#include <limits>
#include <utility>

#include "base/duration.h"
#include "base/error.h"
#include "sql/json_row.h"
#include "workflow/row_scan.h"
#include "workflow/row_sources.h"
#include "workflow/row_spool.h"
#include "workflow/row_stream_state.h"

namespace halo {
namespace {

constexpr int64_t kUsPerMs = 1000;

/// Rows that the program holds in memory. Those that come before the run are scanned, like a
/// file's; of others nothing is known ahead. Messages count rows from 1, as those about files do.
class StreamSource final : public RowSource {
 public:
  explicit StreamSource(const RowOptions& options)
      : stream_(options.stream),
        state_(stream_->state()),
        limit_(options.limit < 0 ? std::numeric_limits<int64_t>::max() : options.limit),
        takes_(options.takes_stream),
        unscanned_(options.required_columns, "row") {
    const std::lock_guard lock(state_.mutex);
    if (state_.arrival == RowStream::Arrival::kBefore) Scan(options);
    if (!options.spool_folder.empty())
      spool_ = std::make_unique<RowSpool>(options.spool_folder, "stdin");
  }

  std::optional<Row> Next() override {
    while (!Ready(std::numeric_limits<int64_t>::max())) {
    }
    return takes_ ? Take() : Look();
  }

  bool Ready(int64_t wait_us) override {
    if (IsThere()) return true;
    if (wait_us == 0) return false;
    pollfd changed{state_.changed.get(), POLLIN, 0};
    constexpr int64_t kMostUs = 1'000'000;
    poll(&changed, 1, static_cast<int>((std::min(kMostUs, wait_us) + kUsPerMs - 1) / kUsPerMs));
    return IsThere();
  }

  std::vector<int64_t> TakeCancelled() override {
    uint64_t count = 0;
    // First: whatever comes from here on is told of anew.
    (void)!read(state_.changed.get(), &count, sizeof count);
    const std::lock_guard lock(state_.mutex);
    return std::exchange(state_.cancelled, {});
  }
  int ready_descriptor() const override { return state_.changed.get(); }

  int64_t total() const override { return total_; }
  const std::vector<std::string>& columns() const override {
    return total_ >= 0 ? columns_ : unscanned_.columns();
  }

 private:
  bool IsThere() const {
    const std::lock_guard lock(state_.mutex);
    return !state_.rows.empty() || state_.is_closed || taken_ >= limit_;
  }

  /// Under the state's mutex.
  void Scan(const RowOptions& options) {
    if (!state_.is_closed)
      throw Error(ErrorCode::kUsage,
                  "a stream of rows that come before the run has to be closed when it begins");
    RowScan scan("rows", options.required_columns, "row");
    scan.Observe(options.on_scan);
    for (const auto& [index, waiting] : state_.rows) {
      if (scan.rows() >= limit_) break;
      const JsonRow row = ParseJsonRow(waiting.text);
      for (const JsonFault& fault : row.faults)
        scan.AddFault(index + 1, static_cast<int64_t>(fault.offset) + 1, fault.message);
      if (row.faults.empty()) {
        scan.AddRow(index + 1, static_cast<int32_t>(row.id_offset) + 1, row);
      } else {
        scan.SkipRow();
      }
    }
    scan.Finish();
    columns_ = scan.columns();
    total_ = scan.rows();
  }

  std::optional<Row> Look() {
    const std::lock_guard lock(state_.mutex);
    const auto found = state_.rows.lower_bound(looked_at_);
    if (found == state_.rows.end() || taken_ >= limit_) return std::nullopt;
    looked_at_ = found->first + 1;
    ++taken_;
    return MakeRow(found->first, ParseJsonRow(found->second.text).values);
  }

  std::optional<Row> Take() {
    int64_t index = 0;
    RowStream::State::WaitingRow waiting;
    {
      const std::lock_guard lock(state_.mutex);
      if (state_.rows.empty() || taken_ >= limit_) return std::nullopt;
      // Of rows that were scanned the rows in front are those with the lowest indices.
      while (total_ >= 0 && state_.order.begin()->second >= limit_) Drop();
      index = state_.order.begin()->second;
      waiting = std::move(state_.rows.at(index));
      Drop();
    }
    state_.room.notify_all();
    ++taken_;
    Row row = total_ >= 0 ? MakeRow(index, ParseJsonRow(waiting.text).values)
                          : unscanned_.Read(index, index + 1, waiting.text);
    row.priority = waiting.wishes.priority;
    row.timeout_us = MicrosecondsOf(waiting.wishes.timeout_s);
    if (waiting.is_cancelled)
      row.failure = Failure{"", "cancelled", "the row was cancelled", false};
    Keep(row, waiting.text);
    return row;
  }

  /// The next one is no longer there. Under the state's mutex.
  void Drop() {
    state_.rows.erase(state_.order.begin()->second);
    state_.order.erase(state_.order.begin());
  }

  /// Rows come by priority: one that is called by its index keeps that as its id.
  void Keep(const Row& row, const std::string& text) {
    if (spool_ == nullptr) return;
    if (row.failure || row.values.contains("id")) return spool_->Write(text + "\n");
    nlohmann::ordered_json kept{{"id", row.id}};
    kept.update(row.values);
    spool_->Write(kept.dump() + "\n");
  }

  const std::shared_ptr<RowStream> stream_;  // shared with those who add rows
  RowStream::State& state_;
  const int64_t limit_;
  const bool takes_;
  UnscannedRows unscanned_;
  std::unique_ptr<RowSpool> spool_;  // null: rows are not kept
  std::vector<std::string> columns_;
  int64_t total_ = -1;
  int64_t taken_ = 0;      // or looked at
  int64_t looked_at_ = 0;  // the next index
};

}  // namespace

std::unique_ptr<RowSource> OpenStream(const RowOptions& options) {
  return std::make_unique<StreamSource>(options);
}

}  // namespace halo
