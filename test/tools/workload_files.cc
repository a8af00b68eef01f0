#include "tools/workload_files.h"

#include <algorithm>
#include <filesystem>
#include <regex>
#include <stdexcept>

namespace halo::workload {
namespace {

bool IsWordByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/// The text with `:name` as $1, $2, ...; what stands in quotes is left as it is.
std::string Number(const std::string& sql, std::vector<std::string>& names) {
  std::string numbered;
  bool quoted = false;
  for (size_t i = 0; i < sql.size(); ++i) {
    quoted = quoted != (sql[i] == '\'');
    const bool starts = !quoted && sql[i] == ':' && i + 1 < sql.size() && IsWordByte(sql[i + 1]) &&
                        (i == 0 || sql[i - 1] != ':');
    if (!starts) {
      numbered += sql[i];
      continue;
    }
    size_t end = i + 1;
    while (end < sql.size() && IsWordByte(sql[end])) ++end;
    const std::string name = sql.substr(i + 1, end - i - 1);
    auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) found = names.insert(names.end(), name);
    numbered += "$" + std::to_string(found - names.begin() + 1);
    i = end - 1;
  }
  return numbered;
}

std::map<std::string, std::string> Texts(const YAML::Node& mapping) {
  std::map<std::string, std::string> texts;
  for (const auto& entry : mapping)
    texts[entry.first.as<std::string>()] = entry.second.as<std::string>();
  return texts;
}

std::string FirstMatch(const YAML::Node& pattern, const std::string& text) {
  auto flags = std::regex::ECMAScript;
  if (pattern["flags"] && pattern["flags"].as<std::string>() == "i") flags |= std::regex::icase;
  std::smatch match;
  const std::regex expression(pattern["pattern"].as<std::string>(), flags);
  return std::regex_search(text, match, expression) ? match[1].str() : "";
}

constexpr size_t kGap = 22;  // the white space that grammars of JSON admit at one place

}  // namespace

std::vector<WorkloadFile> ShippedWorkloads() {
  std::vector<WorkloadFile> files;
  const std::filesystem::path folder = std::filesystem::path(HALO_SOURCE_DIR) / "workflows";
  for (const char* name : {"w1_imdb_diamond", "w2_imdb_triplechain", "w3_finewiki_longchain",
                           "w4_finewiki_bridge", "w5_tpch_trident", "w6_tpch_fanout"}) {
    const YAML::Node file = YAML::LoadFile((folder / (std::string(name) + ".yaml")).string());
    files.push_back({std::string(name).substr(0, 2), file["graph"]});
  }
  return files;
}

std::vector<WorkloadQuery> QueriesOf(const WorkloadFile& file) {
  std::vector<WorkloadQuery> queries;
  for (const YAML::Node& node : file.graph["nodes"]) {
    for (const YAML::Node& query : node["db_queries"]) {
      WorkloadQuery read;
      read.workload = file.name;
      read.name = query["name"].as<std::string>();
      const YAML::Node sql = query["sql"];
      const bool one = sql.IsScalar();
      read.sql = Number((one ? sql : sql["duckdb"]).as<std::string>(), read.parameters);
      read.postgres = Number((one ? sql : sql["postgres"]).as<std::string>(), read.parameters);
      read.templates = Texts(query["parameters"]);
      read.types = Texts(query["param_types"]);
      queries.push_back(std::move(read));
    }
  }
  return queries;
}

std::map<std::string, std::string> ExtractParameters(const WorkloadFile& file,
                                                     const std::string& request) {
  for (const YAML::Node& node : file.graph["nodes"]) {
    if (!node["processor"]) continue;
    const YAML::Node config = node["config"];
    std::map<std::string, std::string> values = Texts(config["defaults"]);
    for (const auto& field : config["regex"]) {
      const std::string name = field.first.as<std::string>();
      std::string value;
      if (field.second.IsMap()) value = FirstMatch(field.second, request);
      for (size_t i = 0; field.second.IsSequence() && value.empty() && i < field.second.size(); ++i)
        value = FirstMatch(field.second[i], request);
      if (!value.empty()) values[name] = value;
    }
    return values;
  }
  throw std::runtime_error(file.name + " has no rule");
}

size_t LongestAnswer(const YAML::Node& schema) {
  if (schema["enum"]) {
    size_t longest = 0;
    for (const YAML::Node& word : schema["enum"])
      longest = std::max(longest, word.as<std::string>().size() + 2);
    return longest;
  }
  const std::string type = schema["type"].as<std::string>();
  if (type == "integer") return schema["maximum"].as<std::string>().size();
  if (type == "array") {
    const size_t most = schema["maxItems"].as<size_t>();
    return 2 + 2 * kGap + most * LongestAnswer(schema["items"]) + (most - 1) * (1 + kGap);
  }
  if (type == "object") {
    size_t size = 2 + 2 * kGap;
    for (const auto& property : schema["properties"]) {
      size +=
          property.first.as<std::string>().size() + 3 + 2 * kGap + LongestAnswer(property.second);
    }
    return size + (schema["properties"].size() - 1) * (1 + kGap);
  }
  // A text is one class of ASCII characters, none of which needs an escape, so many times.
  static const std::regex bounded(R"(\^\[[^\]"\\]+\]\{1,(\d+)\}\$)");
  const std::string pattern = schema["pattern"].as<std::string>();
  std::smatch match;
  if (!std::regex_match(pattern, match, bounded))
    throw std::runtime_error("a text without a bound: " + pattern);
  return std::stoul(match[1].str()) + 2;
}

}  // namespace halo::workload
