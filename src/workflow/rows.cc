#include "workflow/rows.h"

#include <algorithm>
#include <cctype>

#include "workflow/row_scan.h"
#include "workflow/row_sources.h"

namespace halo {
namespace {

bool EndsWith(const std::string& text, std::string_view ending) {
  if (text.size() < ending.size()) return false;
  return std::equal(ending.rbegin(), ending.rend(), text.rbegin(), [](char want, char have) {
    return want == static_cast<char>(std::tolower(static_cast<unsigned char>(have)));
  });
}

class MemorySource final : public RowSource {
 public:
  explicit MemorySource(std::vector<nlohmann::ordered_json> values) : values_(std::move(values)) {
    RowScan scan("rows", {});
    for (const nlohmann::ordered_json& value : values_) {
      const int64_t line = scan.rows() + 1;
      if (!value.is_object()) {
        scan.AddFault(line, 0,
                      std::string("expected a row as an object, got ") + value.type_name());
        scan.SkipRow();
        continue;
      }
      JsonRow row;
      row.values = value;
      scan.AddRow(line, 0, row);
    }
    scan.Finish();
    columns_ = scan.columns();
  }

  std::optional<Row> Next() override {
    if (next_ >= values_.size()) return std::nullopt;
    const size_t index = next_++;
    return MakeRow(static_cast<int64_t>(index), std::move(values_[index]));
  }
  int64_t total() const override { return static_cast<int64_t>(values_.size()); }
  const std::vector<std::string>& columns() const override { return columns_; }

 private:
  std::vector<nlohmann::ordered_json> values_;
  std::vector<std::string> columns_;
  size_t next_ = 0;
};

}  // namespace

std::unique_ptr<RowSource> OpenRows(const RowOptions& options) {
  const std::string& spec = options.spec;
  if (options.stream != nullptr) return OpenStream(options);
  if (spec == "-") return OpenStandardInput(options);
  if (spec.starts_with("sql:")) return OpenSql(options);
  if (EndsWith(spec, ".jsonl")) return OpenJsonLines(options);
  if (EndsWith(spec, ".json")) return OpenJsonArray(options);
  if (EndsWith(spec, ".csv")) return OpenCsv(options);
  if (EndsWith(spec, ".parquet")) return OpenParquet(options);
  throw Error(ErrorCode::kUsage,
              {{{spec, 0, 0},
                "unknown kind of rows: expected a file that ends in .jsonl, .json, .csv or "
                ".parquet, 'sql:SELECT ...', or '-' for JSONL on standard input"}});
}

std::unique_ptr<RowSource> RowsFromValues(std::vector<nlohmann::ordered_json> values) {
  return std::make_unique<MemorySource>(std::move(values));
}

}  // namespace halo
