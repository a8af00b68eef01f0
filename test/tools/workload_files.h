#pragma once

#include <yaml-cpp/yaml.h>

#include <map>
#include <string>
#include <vector>

namespace halo::workload {

/// One of the shipped workflows w1 to w6, as its YAML says it: read without Halo's parser, so that
/// this test does not believe it.
struct WorkloadFile {
  std::string name;  ///< "w1"
  YAML::Node graph;
};
std::vector<WorkloadFile> ShippedWorkloads();

/// A query of a workflow.
struct WorkloadQuery {
  std::string workload, name;
  std::string sql;                                      ///< DuckDB's text, parameters $1, $2, ...
  std::string postgres;                                 ///< PostgreSQL's, likewise
  std::vector<std::string> parameters;                  ///< [number - 1] names
  std::map<std::string, std::string> templates, types;  ///< by parameter
};
std::vector<WorkloadQuery> QueriesOf(const WorkloadFile& file);

/// What the rule of W5 and W6 makes of a request, by the patterns and defaults of its `config`.
std::map<std::string, std::string> ExtractParameters(const WorkloadFile& file,
                                                     const std::string& request);

/// Bytes of the longest answer that a schema admits, white space between its parts included. Each
/// is a token at most.
size_t LongestAnswer(const YAML::Node& schema);

}  // namespace halo::workload
