#include <algorithm>
#include <limits>

#include "workflow/input_file.h"
#include "workflow/json_row.h"
#include "workflow/line_reader.h"
#include "workflow/row_scan.h"
#include "workflow/row_sources.h"

namespace halo {
namespace {

constexpr std::string_view kBlank = " \t\r";
constexpr int64_t kMaxJsonBytes = int64_t{1} << 30;

int64_t LimitOf(const RowOptions& options) {
  return options.limit < 0 ? std::numeric_limits<int64_t>::max() : options.limit;
}

/// One object a line: scanned once, then read again row by row.
class JsonLinesSource final : public RowSource {
 public:
  explicit JsonLinesSource(const RowOptions& options) : file_(options.spec) {
    RowScan scan(options.spec, options.required_columns);
    LineReader lines(file_.fd(), file_.path());
    while (scan.rows() < LimitOf(options)) {
      const auto line = lines.Next();
      if (!line) break;
      Scan(*line, scan);
    }
    scan.Finish();
    total_ = scan.rows();
    columns_ = scan.columns();
    file_.Rewind();
    reader_ = std::make_unique<LineReader>(file_.fd(), file_.path());
  }

  std::optional<Row> Next() override {
    if (next_ == 0) file_.CheckUnchanged();
    if (next_ >= total_) {
      file_.CheckUnchanged();
      return std::nullopt;
    }
    while (const auto line = reader_->Next()) {
      if (line->text.find_first_not_of(kBlank) == std::string_view::npos && !line->too_long)
        continue;
      JsonRow row = ParseJsonRow(line->text);
      if (line->too_long || !row.faults.empty()) file_.ReportChange();
      return MakeRow(next_++, std::move(row.values));
    }
    file_.ReportChange();
  }

  int64_t total() const override { return total_; }
  const std::vector<std::string>& columns() const override { return columns_; }

 private:
  static void Scan(const LineReader::Line& line, RowScan& scan) {
    if (line.too_long) {
      scan.AddFault(line.number, 0, "the line has more than 64 MiB");
      scan.SkipRow();
      return;
    }
    if (line.text.find_first_not_of(kBlank) == std::string_view::npos) return;
    const JsonRow row = ParseJsonRow(line.text);
    for (const JsonFault& fault : row.faults) {
      scan.AddFault(line.number, static_cast<int64_t>(fault.offset) + 1, fault.message);
    }
    if (row.faults.empty()) {
      scan.AddRow(line.number, static_cast<int32_t>(row.id_offset) + 1, row);
    } else {
      scan.SkipRow();
    }
  }

  InputFile file_;
  std::unique_ptr<LineReader> reader_;
  std::vector<std::string> columns_;
  int64_t total_ = 0;
  int64_t next_ = 0;
};

/// Turns byte offsets, asked for in ascending order, into lines and columns.
class LineCounter {
 public:
  explicit LineCounter(std::string_view text) : text_(text) {}
  struct Place {
    int64_t line;
    int64_t column;
  };
  Place At(size_t offset) {
    offset = std::min(offset, text_.size());
    if (offset < counted_) {  // a fault inside a row whose later parts were looked at
      const size_t start = offset == 0 ? 0 : text_.rfind('\n', offset - 1) + 1;
      const auto between = std::count(text_.begin() + static_cast<ptrdiff_t>(offset),
                                      text_.begin() + static_cast<ptrdiff_t>(counted_), '\n');
      return {line_ - between, static_cast<int64_t>(offset - start) + 1};
    }
    for (; counted_ < offset; ++counted_) {
      if (text_[counted_] != '\n') continue;
      ++line_;
      line_start_ = counted_ + 1;
    }
    return {line_, static_cast<int64_t>(offset - line_start_) + 1};
  }

 private:
  std::string_view text_;
  size_t counted_ = 0;
  size_t line_start_ = 0;
  int64_t line_ = 1;
};

/// One array of objects, held in memory.
class JsonArraySource final : public RowSource {
 public:
  explicit JsonArraySource(const RowOptions& options) {
    const std::string file_text = ReadAll(options.spec);
    std::string_view text = file_text;
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    RowScan scan(options.spec, options.required_columns);
    LineCounter counter(text);
    const int64_t limit = LimitOf(options);
    if (limit == 0) return;
    const auto fatal = ParseJsonRows(text, [&](JsonRow row) {
      const LineCounter::Place start = counter.At(row.offset);
      for (const JsonFault& fault : row.faults) {
        const LineCounter::Place place = counter.At(fault.offset);
        scan.AddFault(place.line, place.column, fault.message);
      }
      if (row.faults.empty()) {
        const LineCounter::Place id = counter.At(row.id_offset);
        scan.AddRow(start.line, id.line == start.line ? static_cast<int32_t>(id.column) : 0, row);
        rows_.push_back(std::move(row.values));
      } else {
        scan.SkipRow();
      }
      return scan.rows() < limit;
    });
    if (fatal) {
      const LineCounter::Place place = counter.At(fatal->offset);
      scan.AddFault(place.line, place.column, fatal->message);
    }
    scan.Finish();
    columns_ = scan.columns();
  }

  std::optional<Row> Next() override {
    if (next_ >= rows_.size()) return std::nullopt;
    const size_t index = next_++;
    return MakeRow(static_cast<int64_t>(index), std::move(rows_[index]));
  }
  int64_t total() const override { return static_cast<int64_t>(rows_.size()); }
  const std::vector<std::string>& columns() const override { return columns_; }

 private:
  static std::string ReadAll(const std::string& path) {
    InputFile file(path);
    if (file.size_bytes() > kMaxJsonBytes) {
      throw Error(ErrorCode::kRows, {{{path, 0, 0},
                                      "a .json file is held in memory and may have at most 1 GiB: "
                                      "write one row a line and call it .jsonl"}});
    }
    std::string text(static_cast<size_t>(file.size_bytes()), '\0');
    size_t got = 0;
    while (got < text.size()) {
      const size_t more = ReadSome(file.fd(), text.data() + got, text.size() - got, path);
      if (more == 0) break;
      got += more;
    }
    file.CheckUnchanged();
    text.resize(got);
    return text;
  }

  std::vector<nlohmann::ordered_json> rows_;
  std::vector<std::string> columns_;
  size_t next_ = 0;
};

}  // namespace

std::unique_ptr<RowSource> OpenJsonLines(const RowOptions& options) {
  return std::make_unique<JsonLinesSource>(options);
}

std::unique_ptr<RowSource> OpenJsonArray(const RowOptions& options) {
  return std::make_unique<JsonArraySource>(options);
}

}  // namespace halo
