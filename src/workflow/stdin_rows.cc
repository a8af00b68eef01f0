#include <utility>

#include "workflow/line_reader.h"
#include "workflow/row_scan.h"
#include "workflow/row_sources.h"
#include "workflow/row_spool.h"

namespace halo {
namespace {

/// JSONL on standard input. Nothing is known ahead, so a bad line is a failed row.
class StandardInputSource final : public RowSource {
 public:
  explicit StandardInputSource(const RowOptions& options)
      : rows_(options.required_columns, "line"),
        limit_(options.limit),
        spool_(options.spool_folder, "stdin"),
        lines_(options.standard_input_fd, "standard input",
               [this](std::string_view bytes) { spool_.Write(bytes); }) {}

  std::optional<Row> Next() override {
    while (!ahead_ && !ended_) Advance();
    return std::exchange(ahead_, std::nullopt);
  }
  bool Ready(int64_t wait_us) override {
    constexpr int kLinesAtOnce = 1000;  // blank ones give no row
    for (int i = 0; i < kLinesAtOnce && !ahead_ && !ended_ && lines_.Ready(i == 0 ? wait_us : 0);
         ++i)
      Advance();
    return ahead_ || ended_;
  }
  int64_t total() const override { return -1; }
  const std::vector<std::string>& columns() const override { return rows_.columns(); }

 private:
  /// One line: a row, the end, or a blank line, which is neither.
  void Advance() {
    if (limit_ >= 0 && next_ >= limit_) {
      ended_ = true;
      return;
    }
    const auto line = lines_.Next();
    if (!line) {
      ended_ = true;
    } else if (line->too_long) {
      ahead_ = rows_.Failed(next_++, line->number, "bad_row", "the line has more than 64 MiB");
    } else if (line->text.find_first_not_of(" \t\r") != std::string_view::npos) {
      ahead_ = rows_.Read(next_, line->number, line->text);
      ++next_;
    }
  }

  UnscannedRows rows_;
  const int64_t limit_;
  RowSpool spool_;
  LineReader lines_;
  int64_t next_ = 0;
  std::optional<Row> ahead_;
  bool ended_ = false;
};

}  // namespace

std::unique_ptr<RowSource> OpenStandardInput(const RowOptions& options) {
  return std::make_unique<StandardInputSource>(options);
}

}  // namespace halo
