#include "runtime/parquet_results.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "sql/duck_database.h"
#include "workflow/input_file.h"
#include "workflow/line_reader.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kColumnsBefore[] = {"id", "status"};
constexpr const char* kColumnsBehind[] = {"skipped",       "error_operator", "error_code",
                                          "error_message", "prompt_tokens",  "output_tokens"};

constexpr idx_t kChunkRows = 2048;
constexpr int64_t kGroupBytes = int64_t{64} << 20;
constexpr int64_t kMaxGroupRows = 122'880;

[[noreturn]] void Fail(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::kIo, {{{path, 0, 0}, what}});
}

/// The file that is written; closed with the scope.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path) : path_(path) {
    fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd_ < 0) Fail(path_, std::string("cannot create: ") + std::strerror(errno));
  }
  ~OutputFile() { close(fd_); }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  /// By its descriptor, so that nothing in a path means anything to DuckDB.
  std::string name() const { return "/proc/self/fd/" + std::to_string(fd_); }
  void Synchronize() const {
    if (fsync(fd_) != 0 && errno != EINVAL && errno != EROFS)
      Fail(path_, std::string("cannot synchronize: ") + std::strerror(errno));
  }

 private:
  const std::string path_;
  int fd_ = -1;
};

/// The lines as a table of DuckDB's.
class ResultTable {
 public:
  ResultTable(const std::string& path, const std::vector<std::string>& output_names)
      : file_(path), output_names_(output_names) {
    LineReader lines(file_.fd(), path);
    while (const auto line = lines.Next()) {
      const Json row = Parse(*line);
      whole_ids_ = whole_ids_ && row["id"].is_number_integer() &&
                   (!row["id"].is_number_unsigned() || row["id"].get<uint64_t>() <= INT64_MAX);
      ++rows_;
    }
    file_.Rewind();
    lines_ = std::make_unique<LineReader>(file_.fd(), path);
  }

  int64_t GroupRows() const {
    const int64_t bytes_a_row = rows_ == 0 ? 1 : std::max<int64_t>(1, file_.size_bytes() / rows_);
    return std::clamp<int64_t>(kGroupBytes / bytes_a_row, kChunkRows, kMaxGroupRows);
  }

  /// Makes `SELECT * FROM halo_results()` read this, once.
  void Register(duckdb_connection connection) {
    DuckHandle<duckdb_table_function, duckdb_destroy_table_function> function(
        duckdb_create_table_function());
    duckdb_table_function_set_name(function.get(), "halo_results");
    duckdb_table_function_set_extra_info(function.get(), this, nullptr);
    duckdb_table_function_set_bind(function.get(), [](duckdb_bind_info info) {
      static_cast<ResultTable*>(duckdb_bind_get_extra_info(info))->Bind(info);
    });
    duckdb_table_function_set_init(function.get(), [](duckdb_init_info) {});
    duckdb_table_function_set_function(
        function.get(), [](duckdb_function_info info, duckdb_data_chunk chunk) {
          try {  // nothing may be thrown through DuckDB's C interface
            static_cast<ResultTable*>(duckdb_function_get_extra_info(info))->Fill(chunk);
          } catch (const std::exception& fault) {
            duckdb_function_set_error(info, fault.what());
          }
        });
    if (duckdb_register_table_function(connection, function.get()) != DuckDBSuccess)
      Fail(file_.path(), "DuckDB does not take the rows");
  }

 private:
  Json Parse(const LineReader::Line& line) const {
    Json row = Json::parse(line.text, nullptr, false);
    if (line.too_long || !row.is_object() || !row.contains("id"))
      Fail(file_.path(), "line " + std::to_string(line.number) + " is no row of results");
    return row;
  }

  void Bind(duckdb_bind_info info) const {
    const DuckType text(duckdb_create_logical_type(DUCKDB_TYPE_VARCHAR));
    const DuckType number(duckdb_create_logical_type(DUCKDB_TYPE_BIGINT));
    const DuckType list(duckdb_create_list_type(text.get()));
    const auto add = [info](const std::string& name, const DuckType& type) {
      duckdb_bind_add_result_column(info, name.c_str(), type.get());
    };
    add("id", whole_ids_ ? number : text);
    add("status", text);
    for (const std::string& name : output_names_) add(name, text);
    add("skipped", list);
    for (const char* name : {"error_operator", "error_code", "error_message"}) add(name, text);
    for (const char* name : {"prompt_tokens", "output_tokens"}) add(name, number);
    duckdb_bind_set_cardinality(info, static_cast<idx_t>(rows_), true);
  }

  void Fill(duckdb_data_chunk chunk) {
    idx_t count = 0;
    while (count < kChunkRows && count < duckdb_vector_size()) {
      const auto line = lines_->Next();
      if (!line) break;
      Put(chunk, count++, Parse(*line));
    }
    duckdb_data_chunk_set_size(chunk, count);
  }

  void Put(duckdb_data_chunk chunk, idx_t at, const Json& row) const {
    idx_t column = 0;
    const auto next = [&] { return duckdb_data_chunk_get_vector(chunk, column++); };
    if (whole_ids_) {
      PutNumber(next(), at, row["id"]);
    } else {
      PutText(next(), at, row["id"]);
    }
    PutText(next(), at, row.at("status"));
    const Json& outputs = row.at("outputs");
    for (const std::string& name : output_names_) {
      const auto output = outputs.find(name);
      PutText(next(), at, output == outputs.end() ? Json() : *output);
    }
    PutTexts(next(), at, row.value("skipped", Json::array()));
    const Json& error = row.at("error");
    for (const char* key : {"operator", "code", "message"})
      PutText(next(), at, error.is_null() ? Json() : error.at(key));
    for (const char* key : {"prompt_tokens", "output_tokens"})
      PutNumber(next(), at, row.at("usage").at(key));
  }

  static void PutNumber(duckdb_vector vector, idx_t at, const Json& value) {
    static_cast<int64_t*>(duckdb_vector_get_data(vector))[at] = value.get<int64_t>();
  }

  static void PutText(duckdb_vector vector, idx_t at, const Json& value) {
    if (value.is_null()) {
      duckdb_vector_ensure_validity_writable(vector);
      duckdb_validity_set_row_invalid(duckdb_vector_get_validity(vector), at);
      return;
    }
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    duckdb_vector_assign_string_element_len(vector, at, text.data(), text.size());
  }

  static void PutTexts(duckdb_vector vector, idx_t at, const Json& values) {
    const idx_t first = duckdb_list_vector_get_size(vector);
    duckdb_list_vector_reserve(vector, first + values.size());
    duckdb_list_vector_set_size(vector, first + values.size());
    const duckdb_vector texts = duckdb_list_vector_get_child(vector);
    for (size_t i = 0; i < values.size(); ++i) PutText(texts, first + i, values[i]);
    static_cast<duckdb_list_entry*>(duckdb_vector_get_data(vector))[at] = {first, values.size()};
  }

  InputFile file_;
  const std::vector<std::string>& output_names_;
  std::unique_ptr<LineReader> lines_;
  int64_t rows_ = 0;
  bool whole_ids_ = true;
};

}  // namespace

void CheckParquetColumns(const std::string& path, const std::vector<std::string>& output_names) {
  std::set<std::string> taken(std::begin(kColumnsBefore), std::end(kColumnsBefore));
  taken.insert(std::begin(kColumnsBehind), std::end(kColumnsBehind));
  for (const std::string& name : output_names) {
    std::string lower = name;
    for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (taken.insert(lower).second) continue;
    throw Error(ErrorCode::kUsage,
                {{{path, 0, 0},
                  "the output '" + name +
                      "' has the name of another column (upper and lower case are one in Parquet): "
                      "rename the operator, or write .jsonl"}});
  }
}

void WriteParquetResults(const std::string& lines_path,
                         const std::vector<std::string>& output_names,
                         const std::string& parquet_path) {
  const OutputFile output(parquet_path);
  ResultTable table(lines_path, output_names);
  try {
    DuckDatabase database({});
    table.Register(database.connection());
    database.Lock({output.name()});
    database.Execute("COPY (SELECT * FROM halo_results()) TO " + QuoteSqlText(output.name()) +
                     " (FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false, ROW_GROUP_SIZE " +
                     std::to_string(table.GroupRows()) + ")");
  } catch (const Error& error) {
    Fail(parquet_path, std::string("cannot write the rows as Parquet: ") + error.what());
  }
  output.Synchronize();
}

}  // namespace halo
