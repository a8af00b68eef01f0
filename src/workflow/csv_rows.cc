#include <limits>

#include "workflow/csv_record.h"
#include "workflow/input_file.h"
#include "workflow/row_scan.h"
#include "workflow/row_sources.h"

namespace halo {
namespace {

/// A CSV file with a header: scanned once, then read again row by row. Every value is a string.
class CsvSource final : public RowSource {
 public:
  explicit CsvSource(const RowOptions& options) : file_(options.spec) {
    CsvReader reader(file_.fd(), file_.path());
    CsvRecord record;
    if (!reader.Next(record)) return;  // an empty file has no rows
    CheckHeader(record, options);
    columns_ = std::move(record.fields);
    // Every row has all columns of the header, so the scan need not look for missing ones.
    RowScan scan(file_.path(), {});
    scan.Observe(options.on_scan);
    const int64_t limit = options.limit < 0 ? std::numeric_limits<int64_t>::max() : options.limit;
    while (scan.rows() < limit && reader.Next(record)) ScanRecord(record, scan);
    scan.Finish();
    total_ = scan.rows();
    file_.Rewind();
    reader_ = std::make_unique<CsvReader>(file_.fd(), file_.path());
    reader_->Next(record);
  }

  std::optional<Row> Next() override {
    if (next_ == 0 || next_ >= total_) file_.CheckUnchanged();
    if (next_ >= total_) return std::nullopt;
    CsvRecord record;
    if (!reader_->Next(record) || record.fault || record.fields.size() != columns_.size()) {
      file_.ReportChange();
    }
    return MakeRow(next_++, Values(record));
  }

  int64_t total() const override { return total_; }
  const std::vector<std::string>& columns() const override { return columns_; }
  std::string reread_spec() const override { return file_.path(); }

 private:
  /// Nothing can be read without a sound header, so its faults are thrown at once.
  void CheckHeader(const CsvRecord& header, const RowOptions& options) const {
    if (header.fault) {
      throw Error(ErrorCode::kRows, {{{file_.path(), static_cast<int32_t>(header.fault->line),
                                       static_cast<int32_t>(header.fault->column)},
                                      header.fault->message}});
    }
    CheckColumns(file_.path(), header.line, " of the header", header.fields,
                 options.required_columns);
  }

  void ScanRecord(const CsvRecord& record, RowScan& scan) const {
    if (record.fault) {
      scan.AddFault(record.fault->line, record.fault->column, record.fault->message);
      scan.SkipRow();
    } else if (record.fields.size() != columns_.size()) {
      scan.AddFault(record.line, 1,
                    "expected " + std::to_string(columns_.size()) +
                        " fields, as in the header, got " + std::to_string(record.fields.size()));
      scan.SkipRow();
    } else {
      JsonRow row;
      row.values = Values(record);
      scan.AddRow(record.line, 0, row);
    }
  }

  nlohmann::ordered_json Values(const CsvRecord& record) const {
    nlohmann::ordered_json values = nlohmann::ordered_json::object();
    // Behind ordered_map's operator[], which would compare with every column before.
    auto& entries = static_cast<nlohmann::ordered_json::object_t::Container&>(
        values.get_ref<nlohmann::ordered_json::object_t&>());
    for (size_t i = 0; i < columns_.size(); ++i)
      entries.emplace_back(columns_[i], record.fields[i]);
    return values;
  }

  InputFile file_;
  std::unique_ptr<CsvReader> reader_;
  std::vector<std::string> columns_;
  int64_t total_ = 0;
  int64_t next_ = 0;
};

}  // namespace

std::unique_ptr<RowSource> OpenCsv(const RowOptions& options) {
  return std::make_unique<CsvSource>(options);
}

}  // namespace halo
