#include "workflow/sql_reader.h"

#include "base/error.h"
#include "base/text.h"
#include "workflow/sql_select.h"

namespace halo {
namespace {

using DuckStatements = DuckHandle<duckdb_extracted_statements, duckdb_destroy_extracted>;
using DuckPending = DuckHandle<duckdb_pending_result, duckdb_destroy_pending>;

constexpr std::string_view kNotNamed =
    "sql: reads the files that the statement names where a table stands, such as FROM "
    "'rows.parquet' or FROM read_csv('rows.csv'), and no others";

std::string ReplaceAll(std::string text, const std::string& from, const std::string& to) {
  if (from.empty()) return text;
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
  return text;
}

std::string TrimEnd(std::string text) {
  text.erase(text.find_last_not_of(" \n") + 1);
  return text;
}

}  // namespace

SqlReader::SqlReader(std::string name, const DuckLimits& limits)
    : name_(std::move(name)), memory_bytes_(limits.memory_bytes), database_(limits) {}

std::unique_ptr<SqlReader> SqlReader::OpenParquet(int fd, const std::string& path) {
  std::unique_ptr<SqlReader> reader(new SqlReader(path, {}));
  reader->real_name_ = "/proc/self/fd/" + std::to_string(fd);
  reader->files_ = {path};
  reader->database_.Lock({reader->real_name_});
  reader->Start("SELECT * FROM read_parquet(" + QuoteSqlText(reader->real_name_) + ")");
  return reader;
}

std::unique_ptr<SqlReader> SqlReader::OpenQuery(const std::string& sql,
                                                const std::string& spill_folder) {
  DuckLimits limits;
  limits.spill_folder = spill_folder;
  std::unique_ptr<SqlReader> reader(new SqlReader("sql", limits));
  SelectFiles files = CheckSelect(reader->database_, sql);
  std::vector<std::string> readable = files.names;
  readable.insert(readable.end(), files.paths.begin(), files.paths.end());
  reader->database_.Lock(readable);
  reader->files_ = std::move(files.paths);
  reader->Start(sql);
  return reader;
}

std::unique_ptr<SqlReader> SqlReader::OpenArrow(ArrowArrayStream* table) {
  std::unique_ptr<SqlReader> reader(new SqlReader("table", {}));
  // Marked as deprecated since 1.4, and DuckDB's C interface has no other that reads lazily. What
  // it takes is the interface's own stream, under another name.
  constexpr const char* kName = "given_table";
  if (duckdb_arrow_scan(reader->database_.connection(), kName,
                        reinterpret_cast<duckdb_arrow_stream>(table)) != DuckDBSuccess)
    reader->Fail("it cannot be read through the Arrow C data interface", false);
  reader->database_.Lock({});
  reader->Start(std::string("SELECT * FROM ") + kName);
  return reader;
}

void SqlReader::Start(const std::string& sql) {
  DuckStatements statements;
  if (duckdb_extract_statements(database_.connection(), sql.c_str(), statements.out()) != 1)
    Fail("expected one SELECT", false);
  if (duckdb_prepare_extracted_statement(database_.connection(), statements.get(), 0,
                                         statement_.out()) != DuckDBSuccess) {
    Fail(WhyNot(duckdb_prepare_error(statement_.get())), false);
  }
  // Seen in the syntax tree already; asked of DuckDB once more.
  if (duckdb_prepared_statement_type(statement_.get()) != DUCKDB_STATEMENT_TYPE_SELECT)
    Fail("rows can come from a SELECT only", false);
  if (duckdb_nparams(statement_.get()) > 0)
    Fail("the statement has parameters ($1, ?), for which there are no values here", false);
  // The streaming calls are marked as deprecated since 1.0, and DuckDB has no others: without them
  // a result is held in memory as a whole.
  DuckPending pending;
  if (duckdb_pending_prepared_streaming(statement_.get(), pending.out()) != DuckDBSuccess)
    Fail(duckdb_pending_error(pending.get()), false);
  if (duckdb_execute_pending(pending.get(), result_.out()) != DuckDBSuccess) {
    Fail(WhyNot(duckdb_result_error(result_.out())),
         duckdb_result_error_type(result_.out()) == DUCKDB_ERROR_OUT_OF_MEMORY);
  }
  ReadColumns();
}

void SqlReader::ReadColumns() {
  const idx_t count = duckdb_column_count(result_.out());
  if (count > kMaxColumns) {
    Fail("there are " + std::to_string(count) + " columns, and rows may have at most " +
             std::to_string(kMaxColumns) + ": choose some, as in sql:SELECT id, prompt FROM ...",
         false);
  }
  std::vector<Diagnostic> faults;
  for (idx_t i = 0; i < count; ++i) {
    columns_.emplace_back(duckdb_column_name(result_.out(), i));
    const DuckType type(duckdb_column_logical_type(result_.out(), i));
    std::string fault;
    types_.push_back(ReadSqlType(type.get(), fault));
    const std::string shown = ReplaceInvalidUtf8(columns_.back());
    if (shown != columns_.back()) fault = "has a name that is not UTF-8";
    if (columns_.back().empty()) fault = "has no name";
    if (fault.empty()) continue;
    std::string message = "column " + std::to_string(i + 1) + ", '" + shown + "', " + fault;
    message += ": leave it out or convert it, as in sql:SELECT ... FROM ...";
    faults.push_back({{name_, 0, 0}, std::move(message)});
  }
  if (!faults.empty()) throw Error(ErrorCode::kRows, std::move(faults));
}

bool SqlReader::NextChunk() {
  vectors_.clear();
  chunk_ = std::make_unique<DuckChunk>(duckdb_fetch_chunk(*result_.out()));
  next_ = 0;
  chunk_rows_ = 0;
  if (chunk_->get() == nullptr) {
    const char* fault = duckdb_result_error(result_.out());
    if (fault != nullptr && *fault != '\0') {
      Fail("after row " + std::to_string(rows_) + ": " + fault,
           duckdb_result_error_type(result_.out()) == DUCKDB_ERROR_OUT_OF_MEMORY);
    }
    return false;
  }
  chunk_rows_ = duckdb_data_chunk_get_size(chunk_->get());
  for (size_t i = 0; i < types_.size(); ++i)
    vectors_.emplace_back(types_[i], duckdb_data_chunk_get_vector(chunk_->get(), i));
  return chunk_rows_ > 0;
}

std::optional<JsonRow> SqlReader::Next() {
  if (next_ >= chunk_rows_ && !NextChunk()) return std::nullopt;
  JsonRow row;
  row.values = nlohmann::ordered_json::object();
  // Behind ordered_map's operator[], which would compare with every column before.
  auto& entries = static_cast<nlohmann::ordered_json::object_t::Container&>(
      row.values.get_ref<nlohmann::ordered_json::object_t&>());
  entries.reserve(columns_.size());
  for (size_t i = 0; i < columns_.size(); ++i) {
    std::string fault;
    entries.emplace_back(columns_[i], SqlValue(vectors_[i], next_, fault));
    if (!fault.empty()) row.faults.push_back({0, "column '" + columns_[i] + "': " + fault});
  }
  ++next_;
  ++rows_;
  return row;
}

/// DuckDB's words for a file say neither what it was taken for nor that it is at fault.
std::string SqlReader::WhyNot(const std::string& error) const {
  return real_name_.empty() ? error : "it cannot be read as Parquet: " + error;
}

void SqlReader::Fail(std::string message, bool out_of_memory) const {
  constexpr size_t kShownBytes = 4000;
  if (!real_name_.empty()) {  // the statement is ours, and its place helps nobody
    message = ReplaceAll(message.substr(0, message.find("\n\nLINE ")), real_name_, name_);
  }
  if (message.starts_with("Permission Error"))
    message = TrimEnd(message) + "\n" + std::string(kNotNamed);
  if (out_of_memory) {
    message = message.substr(0, message.find('\n')) + ". Rows are read in at most " +
              std::to_string(memory_bytes_ >> 20) +
              " MiB: choose fewer columns, or write the file with smaller row groups";
  }
  if (message.size() > kShownBytes) {
    message.resize(CompleteUtf8Length(std::string_view(message).substr(0, kShownBytes)));
    message += "...";
  }
  throw Error(ErrorCode::kRows, {{{name_, 0, 0}, ReplaceInvalidUtf8(TrimEnd(message))}});
}

}  // namespace halo
