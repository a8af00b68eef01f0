#include "logic/halotest_file.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>

namespace halo::test {
namespace {

constexpr const char* kSections[] = {"workflow", "rows",   "script",  "options", "ensure",
                                     "prompts",  "expect", "explain", "error",   "expect_same_as"};

struct Section {
  std::string name;
  std::string argument;  // the rest of the header line
  int32_t line = 0;
  std::vector<TestLine> lines;
};

[[noreturn]] void Fail(const std::string& path, int32_t line, const std::string& message) {
  throw std::runtime_error(path + ":" + std::to_string(line) + ": " + message);
}

std::string Trim(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

std::string Unescape(std::string text) {
  for (size_t at = text.find("\\n"); at != std::string::npos; at = text.find("\\n", at))
    text.replace(at, 2, "\n");
  return text;
}

/// Takes the indentation of the section's first line off all of them; blank lines at its end go.
void Outdent(const std::string& path, Section& section) {
  while (!section.lines.empty() && Trim(section.lines.back().text).empty())
    section.lines.pop_back();
  size_t indent = std::string::npos;
  for (TestLine& line : section.lines) {
    const size_t first = line.text.find_first_not_of(' ');
    if (first == std::string::npos) {
      line.text.clear();
      continue;
    }
    if (indent == std::string::npos) indent = first;
    if (first < indent) Fail(path, line.number, "indented less than the first line of its section");
    line.text.erase(0, indent);
  }
}

std::vector<Section> ReadSections(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) Fail(path, 0, "cannot be read");
  std::vector<Section> sections;
  std::string text;
  for (int32_t number = 1; std::getline(file, text); ++number) {
    const bool inner = text.empty() || text[0] == ' ';
    if (inner) {
      if (!sections.empty())
        sections.back().lines.push_back({number, text});
      else if (!Trim(text).empty())
        Fail(path, number, "this line is in no section");
      continue;
    }
    if (text[0] == '#') continue;
    const std::string name = text.substr(0, text.find(' '));
    const bool known = std::any_of(std::begin(kSections), std::end(kSections),
                                   [&](const char* s) { return name == s; });
    if (!known) Fail(path, number, "there is no section '" + name + "'");
    sections.push_back({name, Trim(text.substr(name.size())), number, {}});
  }
  for (Section& section : sections) Outdent(path, section);
  return sections;
}

/// The words of a section that may stand in its header line or below.
std::vector<TestLine> Words(const Section& section) {
  std::vector<TestLine> words;
  std::vector<TestLine> lines = section.lines;
  lines.insert(lines.begin(), {section.line, section.argument});
  for (const TestLine& line : lines) {
    std::istringstream stream(line.text);
    for (std::string word; stream >> word;) words.push_back({line.number, word});
  }
  return words;
}

FinishReason FinishByName(const std::string& path, int32_t line, const std::string& name) {
  if (name == "end") return FinishReason::kEndToken;
  if (name == "stop") return FinishReason::kStopString;
  if (name == "length") return FinishReason::kMaxTokens;
  Fail(path, line, "finish=" + name + ": expected end, stop or length");
}

ScriptRule ParseScriptRule(const std::string& path, const TestLine& line) {
  static const std::regex kRule(R"(^([\w.*-]+)\(([^)]*)\)\s+-> ?(.*)$)");
  static const std::regex kSetting(
      R"(^(.*?)(?:^|\s{2,})(latency_ms|finish|sample|attempt|retriable|retry_after_ms)=(\S+)\s*$)");
  static const std::regex kFailure(R"(^!(\S+)\s*(.*)$)");
  std::smatch match;
  if (!std::regex_match(line.text, match, kRule))
    Fail(path, line.number, "expected 'operator(row) -> reply'");
  ScriptRule rule;
  rule.line = line.number;
  rule.operator_pattern = match[1];
  rule.row_pattern = match[2];
  std::string reply = match[3];
  bool retriable = false;
  while (std::regex_match(reply, match, kSetting)) {
    const std::string value = match[3];
    if (match[2] == "latency_ms") rule.latency_us = static_cast<int64_t>(std::stod(value) * 1000.0);
    if (match[2] == "finish") rule.finish = FinishByName(path, line.number, value);
    if (match[2] == "sample") rule.sample = std::stoi(value);
    if (match[2] == "attempt") rule.attempt = std::stoi(value);
    if (match[2] == "retriable") retriable = value == "yes";
    if (match[2] == "retry_after_ms")
      rule.retry_after_us = static_cast<int64_t>(std::stod(value) * 1000.0);
    reply = match[1].str();
  }
  reply = reply.substr(0, reply.find_last_not_of(' ') + 1);
  if (std::regex_match(reply, match, kFailure))
    rule.failure = Failure{"", match[1], match[2], retriable};
  rule.reply = Unescape(reply);
  return rule;
}

EnsureRule ParseEnsureRule(const std::string& path, const TestLine& word) {
  static const std::regex kRule(R"(^(\w+)(?:\(([\w.-]+)\))?(=|>=|<=)(\S+)$)");
  std::smatch match;
  if (!std::regex_match(word.text, match, kRule))
    Fail(path, word.number, "expected 'name(operator)=value': " + word.text);
  return {word.number, match[1], match[2], match[3], match[4]};
}

/// `op(row)` and, indented below it, the prompt.
std::vector<PromptRule> ParsePrompts(const std::string& path, const Section& section) {
  static const std::regex kHead(R"(^([\w.-]+)\(([^)]*)\)$)");
  std::vector<PromptRule> rules;
  for (const TestLine& line : section.lines) {
    std::smatch match;
    if (!line.text.empty() && line.text[0] != ' ') {
      if (!std::regex_match(line.text, match, kHead))
        Fail(path, line.number, "expected 'operator(row)'");
      rules.push_back({line.number, match[1], match[2], ""});
      continue;
    }
    if (rules.empty()) Fail(path, line.number, "a prompt stands below its 'operator(row)'");
    rules.back().text += (line.text.size() >= 2 ? line.text.substr(2) : "") + "\n";
  }
  return rules;
}

void Store(const Section& section, HalotestFile& file) {
  const std::string& name = section.name;
  if (name == "workflow") {
    for (const TestLine& line : section.lines) file.workflow += line.text + "\n";
  } else if (name == "script") {
    for (const TestLine& line : section.lines) {
      if (!line.text.empty() && line.text[0] != '#')
        file.script.push_back(ParseScriptRule(file.path, line));
    }
  } else if (name == "options") {
    for (const TestLine& word : Words(section)) {
      const size_t equals = word.text.find('=');
      file.options[word.text.substr(0, equals)] =
          equals == std::string::npos ? "true" : word.text.substr(equals + 1);
    }
  } else if (name == "ensure") {
    for (const TestLine& word : Words(section))
      file.ensure.push_back(ParseEnsureRule(file.path, word));
  } else if (name == "prompts") {
    file.prompts = ParsePrompts(file.path, section);
  } else if (name == "expect_same_as") {
    if (section.argument != "naive")
      Fail(file.path, section.line, "expected 'expect_same_as naive'");
    file.same_as_naive = true;
  } else {
    std::vector<TestLine>& lines = name == "rows"      ? file.rows
                                   : name == "expect"  ? file.expect
                                   : name == "explain" ? file.explain
                                                       : file.error;
    if (!section.argument.empty()) lines.push_back({section.line, section.argument});
    for (const TestLine& line : section.lines) {
      if (!Trim(line.text).empty()) lines.push_back(line);
    }
    if (name == "expect") file.has_expect = true;
  }
}

}  // namespace

HalotestFile ReadHalotest(const std::string& path) {
  HalotestFile file;
  file.path = path;
  file.name = std::filesystem::path(path).stem().string();
  std::set<std::string> seen;
  for (const Section& section : ReadSections(path)) {
    if (section.name != "ensure" && !seen.insert(section.name).second) {
      Fail(path, section.line, "a second section '" + section.name + "'");
    }
    Store(section, file);
  }
  if (file.workflow.empty()) Fail(path, 1, "there is no workflow");
  return file;
}

void ReplaceExpectations(const HalotestFile& file, const std::vector<std::string>& lines) {
  std::ifstream input(file.path, std::ios::binary);
  std::string result;
  bool inside = false;
  for (std::string line; std::getline(input, line);) {
    if (inside && (line.empty() || line[0] == ' ')) {
      if (!line.empty()) continue;
      inside = false;
    }
    if (!line.empty() && line[0] != ' ') inside = false;
    result += line + "\n";
    if (line != "expect") continue;
    inside = true;
    for (const std::string& row : lines) result += "  " + row + "\n";
  }
  input.close();
  std::ofstream(file.path, std::ios::binary) << result;
}

bool MatchesWildcard(std::string_view pattern, std::string_view text) {
  const size_t star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == text;
  if (text.substr(0, star) != pattern.substr(0, star)) return false;
  for (size_t skipped = star; skipped <= text.size(); ++skipped) {
    if (MatchesWildcard(pattern.substr(star + 1), text.substr(skipped))) return true;
  }
  return false;
}

}  // namespace halo::test
