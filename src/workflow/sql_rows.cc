#include <limits>

#include "base/error.h"
#include "workflow/input_file.h"
#include "workflow/line_reader.h"
#include "workflow/row_scan.h"
#include "workflow/row_sources.h"
#include "workflow/row_spool.h"
#include "workflow/sql_reader.h"

namespace halo {
namespace {

int64_t LimitOf(const RowOptions& options) {
  return options.limit < 0 ? std::numeric_limits<int64_t>::max() : options.limit;
}

/// Reads all rows that the limit allows into the scan; `take` gets those without a fault.
template <typename Take>
void ScanRows(SqlReader& reader, int64_t limit, RowScan& scan, const Take& take) {
  while (scan.rows() < limit) {
    std::optional<JsonRow> row = reader.Next();
    if (!row) break;
    const int64_t number = scan.rows() + 1;
    for (const JsonFault& fault : row->faults) scan.AddFault(number, 0, fault.message);
    if (row->faults.empty()) {
      scan.AddRow(number, 0, *row);
      take(number, *row);
    } else {
      scan.SkipRow();
    }
  }
}

/// A Parquet file: every value of every row is read once to see that it can be, then again.
class ParquetSource final : public RowSource {
 public:
  explicit ParquetSource(const RowOptions& options) : file_(options.spec) {
    const auto reader = SqlReader::OpenParquet(file_.fd(), file_.path());
    columns_ = reader->columns();
    CheckColumns(file_.path(), 0, "", columns_, options.required_columns);
    RowScan scan(file_.path(), {}, "row");
    scan.Observe(options.on_scan);
    ScanRows(*reader, LimitOf(options), scan, [](int64_t, const JsonRow&) {});
    scan.Finish();
    total_ = scan.rows();
  }

  std::optional<Row> Next() override {
    if (next_ == 0 || next_ >= total_) file_.CheckUnchanged();
    if (next_ >= total_) {
      reader_.reset();
      return std::nullopt;
    }
    if (next_ == 0) reader_ = Reopen();
    std::optional<JsonRow> row = NextOf(*reader_);
    if (!row || !row->faults.empty()) file_.ReportChange();
    return MakeRow(next_++, std::move(row->values));
  }

  int64_t total() const override { return total_; }
  const std::vector<std::string>& columns() const override { return columns_; }
  std::string reread_spec() const override { return file_.path(); }

 private:
  /// A fault now is none of the file that was scanned, if that is still the same.
  template <typename Read>
  auto AfterScan(const Read& read) const {
    try {
      return read();
    } catch (const Error& error) {
      file_.CheckUnchanged();
      throw Error(ErrorCode::kIo, error.diagnostics());
    }
  }
  std::unique_ptr<SqlReader> Reopen() const {
    return AfterScan([&] { return SqlReader::OpenParquet(file_.fd(), file_.path()); });
  }
  std::optional<JsonRow> NextOf(SqlReader& reader) const {
    return AfterScan([&] { return reader.Next(); });
  }

  InputFile file_;
  std::unique_ptr<SqlReader> reader_;
  std::vector<std::string> columns_;
  int64_t total_ = 0;
  int64_t next_ = 0;
};

/// The rows of a query, which is run once: another run could give other rows, or the same in
/// another order. They are kept in a file of JSON lines, which the run reads.
class SqlSource final : public RowSource {
 public:
  explicit SqlSource(const RowOptions& options) {
    Keep(options);
    file_ = std::make_unique<InputFile>(kept_path_);
    lines_ = std::make_unique<LineReader>(file_->fd(), file_->path());
  }

  std::optional<Row> Next() override {
    if (next_ == 0 || next_ >= total_) file_->CheckUnchanged();
    if (next_ >= total_) return std::nullopt;
    return MakeRow(next_++, NextJsonLine(*lines_, *file_));
  }

  int64_t total() const override { return total_; }
  const std::vector<std::string>& columns() const override { return columns_; }
  std::string reread_spec() const override { return kept_path_; }
  std::vector<std::string> files() const override { return files_; }

 private:
  void Keep(const RowOptions& options) {
    const auto reader =
        SqlReader::OpenQuery(options.spec.substr(std::string("sql:").size()), options.spool_folder);
    columns_ = reader->columns();
    files_ = reader->files();
    CheckColumns("sql", 0, "", columns_, options.required_columns);
    RowSpool kept(options.spool_folder, "sql");
    kept_path_ = kept.path();
    RowScan scan("sql", {}, "row");
    scan.Observe(options.on_scan);
    std::string buffer;
    ScanRows(*reader, LimitOf(options), scan, [&](int64_t number, const JsonRow& row) {
      const size_t before = buffer.size();
      buffer += row.values.dump() + '\n';
      if (buffer.size() - before > LineReader::kMaxLineBytes)
        scan.AddFault(number, 0, "the row has more than 64 MiB as JSON");
      constexpr size_t kBufferBytes = size_t{1} << 18;
      if (buffer.size() < kBufferBytes) return;
      kept.Write(buffer);
      buffer.clear();
    });
    kept.Write(buffer);
    scan.Finish();
    total_ = scan.rows();
  }

  std::string kept_path_;
  std::unique_ptr<InputFile> file_;
  std::unique_ptr<LineReader> lines_;
  std::vector<std::string> columns_;
  std::vector<std::string> files_;
  int64_t total_ = 0;
  int64_t next_ = 0;
};

}  // namespace

std::unique_ptr<RowSource> OpenParquet(const RowOptions& options) {
  return std::make_unique<ParquetSource>(options);
}

std::unique_ptr<RowSource> OpenSql(const RowOptions& options) {
  return std::make_unique<SqlSource>(options);
}

}  // namespace halo
