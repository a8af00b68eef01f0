#include <limits>

#include "sql/json_row.h"
#include "workflow/input_file.h"
#include "workflow/json_array_reader.h"
#include "workflow/line_reader.h"
#include "workflow/row_scan.h"
#include "workflow/row_sources.h"

namespace halo {
namespace {

constexpr std::string_view kBlank = " \t\r";

int64_t LimitOf(const RowOptions& options) {
  return options.limit < 0 ? std::numeric_limits<int64_t>::max() : options.limit;
}

/// One object a line: scanned once, then read again row by row.
class JsonLinesSource final : public RowSource {
 public:
  explicit JsonLinesSource(const RowOptions& options) : file_(options.spec) {
    RowScan scan(options.spec, options.required_columns);
    scan.Observe(options.on_scan);
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
    if (next_ == 0 || next_ >= total_) file_.CheckUnchanged();
    if (next_ >= total_) return std::nullopt;
    return MakeRow(next_++, NextJsonLine(*reader_, file_));
  }

  int64_t total() const override { return total_; }
  const std::vector<std::string>& columns() const override { return columns_; }
  std::string reread_spec() const override { return file_.path(); }

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

/// One array of objects: scanned once, then read again row by row.
class JsonArraySource final : public RowSource {
 public:
  explicit JsonArraySource(const RowOptions& options) : file_(options.spec) {
    RowScan scan(options.spec, options.required_columns);
    scan.Observe(options.on_scan);
    JsonArrayReader elements(file_.fd(), file_.path());
    while (scan.rows() < LimitOf(options)) {
      const auto element = elements.Next();
      if (!element) break;
      Scan(*element, scan);
    }
    scan.Finish();
    total_ = scan.rows();
    columns_ = scan.columns();
    file_.Rewind();
    reader_ = std::make_unique<JsonArrayReader>(file_.fd(), file_.path());
  }

  std::optional<Row> Next() override {
    if (next_ == 0 || next_ >= total_) file_.CheckUnchanged();
    if (next_ >= total_) return std::nullopt;
    const auto element = reader_->Next();
    if (!element || element->fault) file_.ReportChange();
    JsonRow row = ParseJsonRow(element->text);
    if (!row.faults.empty()) file_.ReportChange();
    return MakeRow(next_++, std::move(row.values));
  }

  int64_t total() const override { return total_; }
  const std::vector<std::string>& columns() const override { return columns_; }
  std::string reread_spec() const override { return file_.path(); }

 private:
  static void Scan(const JsonArrayReader::Element& element, RowScan& scan) {
    if (element.fault) {
      scan.AddFault(element.start.line, element.start.column, *element.fault);
      scan.SkipRow();
      return;
    }
    const JsonRow row = ParseJsonRow(element.text);
    for (const JsonFault& fault : row.faults) {
      const auto place = JsonArrayReader::PlaceIn(element, fault.offset);
      scan.AddFault(place.line, place.column, fault.message);
    }
    if (row.faults.empty()) {
      const auto id = JsonArrayReader::PlaceIn(element, row.id_offset);
      const bool same_line = id.line == element.start.line;
      scan.AddRow(element.start.line, same_line ? static_cast<int32_t>(id.column) : 0, row);
    } else {
      scan.SkipRow();
    }
  }

  InputFile file_;
  std::unique_ptr<JsonArrayReader> reader_;
  std::vector<std::string> columns_;
  int64_t total_ = 0;
  int64_t next_ = 0;
};

}  // namespace

nlohmann::ordered_json NextJsonLine(LineReader& lines, const InputFile& file) {
  while (const auto line = lines.Next()) {
    if (line->text.find_first_not_of(kBlank) == std::string_view::npos && !line->too_long) continue;
    JsonRow row = ParseJsonRow(line->text);
    if (line->too_long || !row.faults.empty()) break;
    return std::move(row.values);
  }
  file.ReportChange();
}

std::unique_ptr<RowSource> OpenJsonLines(const RowOptions& options) {
  return std::make_unique<JsonLinesSource>(options);
}

std::unique_ptr<RowSource> OpenJsonArray(const RowOptions& options) {
  return std::make_unique<JsonArraySource>(options);
}

}  // namespace halo
