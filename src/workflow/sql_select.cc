#include "workflow/sql_select.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "base/error.h"
#include "workflow/row_scan.h"

namespace halo {
namespace {

using Json = nlohmann::json;
using DuckStatements = DuckHandle<duckdb_extracted_statements, duckdb_destroy_extracted>;

/// Functions that read row files; the first argument names them.
constexpr std::string_view kReaders[] = {
    "read_parquet", "parquet_scan", "read_csv",       "read_csv_auto",
    "read_json",    "read_ndjson",  "read_json_auto", "read_ndjson_auto",
};
/// Functions that make rows from their arguments alone.
constexpr std::string_view kMakers[] = {"range",      "generate_series", "unnest",   "repeat",
                                        "repeat_row", "json_each",       "json_tree"};

[[noreturn]] void Refuse(const std::string& why) {
  throw Error(ErrorCode::kRows, {{{"sql", 0, 0}, why}});
}

template <size_t n>
bool Contains(const std::string_view (&list)[n], const std::string& name) {
  return std::find(std::begin(list), std::end(list), name) != std::end(list);
}

std::string TextOf(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

/// The text of a constant, or of each element of a list of constants.
void AddConstants(const Json& argument, std::vector<std::string>& names) {
  const std::string kind = TextOf(argument, "class");
  if (kind == "CONSTANT") {
    const auto value = argument.find("value");
    if (value != argument.end() && value->is_object() && value->contains("value") &&
        (*value)["value"].is_string()) {
      names.push_back((*value)["value"].get<std::string>());
    }
  } else if (kind == "FUNCTION" && TextOf(argument, "function_name") == "list_value") {
    for (const Json& element : argument.at("children")) AddConstants(element, names);
  }
}

void AddTableFunction(const Json& node, std::vector<std::string>& names) {
  const Json& function = node.at("function");
  const std::string name = TextOf(function, "function_name");
  if (Contains(kReaders, name)) {
    const Json& arguments = function.at("children");
    if (!arguments.empty()) AddConstants(arguments.front(), names);
  } else if (!Contains(kMakers, name)) {
    std::vector<std::string> readers(std::begin(kReaders), std::end(kReaders));
    std::vector<std::string> makers(std::begin(kMakers), std::end(kMakers));
    Refuse("the function " + name + "() may not stand for a table here. Files are read by " +
           ListNames(readers) + "; rows are made by " + ListNames(makers));
  }
}

/// What stands for tables in a statement, wherever it is.
struct Tables {
  std::vector<std::string> files;   ///< first arguments of functions that read files
  std::vector<std::string> tables;  ///< names behind FROM and JOIN: files, WITH, or nothing
  std::set<std::string> with;       ///< names that the statement itself defines
};

void AddTables(const Json& node, Tables& found) {
  if (node.is_object()) {
    const std::string type = TextOf(node, "type");
    if (type == "TABLE_FUNCTION") AddTableFunction(node, found.files);
    if (type == "BASE_TABLE" && TextOf(node, "schema_name").empty())
      found.tables.push_back(TextOf(node, "table_name"));
    const auto with = node.find("cte_map");
    if (with != node.end() && with->is_object()) {
      for (const Json& entry : with->value("map", Json::array()))
        found.with.insert(TextOf(entry, "key"));
    }
  }
  if (node.is_structured()) {
    for (const Json& child : node) AddTables(child, found);
  }
}

Json SyntaxTree(DuckDatabase& database, const std::string& sql) {
  DuckStatements statements;
  const idx_t count =
      duckdb_extract_statements(database.connection(), sql.c_str(), statements.out());
  if (count == 0) {
    const char* fault = duckdb_extract_statements_error(statements.get());
    Refuse(fault == nullptr ? "expected a SELECT behind sql:, got nothing" : fault);
  }
  if (count > 1) Refuse("expected one SELECT, got " + std::to_string(count) + " statements");
  const std::vector<std::string> texts =
      database.Texts("SELECT json_serialize_sql($1::VARCHAR)::VARCHAR", sql);
  Json tree = texts.empty() ? Json() : Json::parse(texts.front(), nullptr, false);
  if (!tree.is_object() || tree.value("error", true)) {
    const std::string why = tree.is_object() ? TextOf(tree, "error_message") : "";
    Refuse("rows can come from a SELECT only, which reads and changes nothing" +
           (why.empty() ? "" : " (" + why + ")"));
  }
  return tree;
}

}  // namespace

SelectFiles CheckSelect(DuckDatabase& database, const std::string& sql) {
  if (sql.find('\0') != std::string::npos) Refuse("the statement has a NUL byte");
  Tables tables;
  AddTables(SyntaxTree(database, sql), tables);
  SelectFiles files;
  const auto add = [&](const std::string& name, bool must_exist) {
    if (name.find("://") != std::string::npos)
      Refuse("'" + name + "' is not a file of this machine: fetch it first");
    const auto paths = database.Texts("SELECT file FROM glob($1::VARCHAR)", name);
    if (paths.empty() && must_exist) Refuse("there is no file '" + name + "'");
    files.names.push_back(name);
    files.paths.insert(files.paths.end(), paths.begin(), paths.end());
  };
  for (const std::string& name : tables.files) add(name, true);
  for (const std::string& name : tables.tables) {
    // A name without a dot may be a view such as duckdb_types; DuckDB says what it does not know.
    if (!tables.with.contains(name)) add(name, name.find('.') != std::string::npos);
  }
  return files;
}

}  // namespace halo
