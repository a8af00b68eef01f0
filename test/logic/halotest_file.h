#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"

namespace halo::test {

/// One line of a section, without its indentation.
struct TestLine {
  int32_t number = 0;  ///< in the file, from 1
  std::string text;
};

/// `operator(row) -> reply  latency_ms=N  finish=stop`
struct ScriptRule {
  int32_t line = 0;
  std::string operator_pattern;  ///< `*` stands for any text
  std::string row_pattern;
  std::string reply;  ///< {{operator}}, {{row}}, {{prompt}}, {{max_tokens}}; \n is a line break
  int64_t latency_us = 0;
  FinishReason finish = FinishReason::kEndToken;
  std::optional<Failure> failure;
  int64_t retry_after_us = 0;
  int32_t sample = -1;   ///< -1: any
  int32_t attempt = -1;  ///< -1: any
};

/// `name(argument) >= value`
struct EnsureRule {
  int32_t line = 0;
  std::string name;
  std::string argument;
  std::string comparison;  ///< =, >=, <=
  std::string value;
};

/// A prompt that a call must have had.
struct PromptRule {
  int32_t line = 0;
  std::string op;
  std::string row;
  std::string text;
};

/// A data-driven test of parser, plan and scheduler; test/logic/README.md says how one is written.
struct HalotestFile {
  std::string path;
  std::string name;            ///< the file's stem
  std::string workflow;        ///< YAML; its line 1 is the first line below the header
  std::vector<TestLine> rows;  ///< JSON, or "!code message": a line that could not be read
  std::vector<ScriptRule> script;
  std::map<std::string, std::string> options;  ///< a word without "=" is "true"
  std::vector<EnsureRule> ensure;
  std::vector<PromptRule> prompts;
  std::vector<TestLine> expect;
  bool has_expect = false;
  std::vector<TestLine> explain;
  std::vector<TestLine> error;  ///< regular expressions, one for each diagnostic
  bool same_as_naive = false;

  /// "path:line"
  std::string At(int32_t line) const { return path + ":" + std::to_string(line); }
};

/// Throws std::runtime_error("path:line: ...") where the file is not one.
HalotestFile ReadHalotest(const std::string& path);

/// Writes the file anew with other lines in its `expect` section (HALOTEST_UPDATE=1).
void ReplaceExpectations(const HalotestFile& file, const std::vector<std::string>& lines);

/// True if `text` matches `pattern`, in which `*` stands for any text.
bool MatchesWildcard(std::string_view pattern, std::string_view text);

}  // namespace halo::test
