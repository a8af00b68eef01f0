#include <utility>

#include "sql/json_row.h"
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
      : required_(options.required_columns),
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
  const std::vector<std::string>& columns() const override { return columns_.names(); }

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
      ahead_ = Failed(line->number, "bad_row", "the line has more than 64 MiB");
    } else if (line->text.find_first_not_of(" \t\r") != std::string_view::npos) {
      ahead_ = Read(*line);
    }
  }

  Row Read(const LineReader::Line& line) {
    JsonRow parsed = ParseJsonRow(line.text);
    if (!parsed.faults.empty()) {
      const JsonFault& fault = parsed.faults.front();
      return Failed(line.number, "bad_row",
                    "column " + std::to_string(fault.offset + 1) + ": " + fault.message);
    }
    const std::string id_fault = RowIdFault(parsed);
    if (!id_fault.empty()) return Failed(line.number, "bad_row", id_fault);
    for (const auto& [key, value] : parsed.values.items()) columns_.Add(key);
    for (const std::string& column : required_) {
      if (parsed.values.contains(column)) continue;
      std::vector<std::string> keys;
      for (const auto& [key, value] : parsed.values.items()) keys.push_back(key);
      return Failed(line.number, "bad_row",
                    "the row has no column '" + column + "'; it has: " + ListNames(keys));
    }
    Row row = MakeRow(next_, std::move(parsed.values));
    if (const auto earlier = ids_.Insert(IdSignature(row.id), line.number)) {
      return Failed(line.number, "duplicate_id",
                    "its id is already that of line " + std::to_string(*earlier));
    }
    ++next_;
    return row;
  }

  Row Failed(int64_t line, const char* code, std::string message) {
    Row row;
    row.index = next_++;
    row.id = "line:" + std::to_string(line);
    row.values = nlohmann::ordered_json::object();
    row.failure =
        Failure{"", code, "line " + std::to_string(line) + ": " + std::move(message), false};
    return row;
  }

  const std::vector<std::string> required_;
  const int64_t limit_;
  RowSpool spool_;
  LineReader lines_;
  ColumnList columns_;
  IdTable ids_;
  int64_t next_ = 0;
  std::optional<Row> ahead_;
  bool ended_ = false;
};

}  // namespace

std::unique_ptr<RowSource> OpenStandardInput(const RowOptions& options) {
  return std::make_unique<StandardInputSource>(options);
}

}  // namespace halo
