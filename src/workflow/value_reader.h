#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "workflow/yaml_tree.h"

namespace halo {

/// One `key: value` of a mapping.
struct YamlField {
  std::string name;
  const YamlNode* key = nullptr;
  const YamlNode* value = nullptr;
};

/// The whole numbers that a key takes, both ends included.
struct WholeRange {
  int64_t low;
  int64_t high;
};

/// What a scalar without quotes means (YAML 1.2 core schema: `yes` and `off` are text).
enum class PlainMeaning : uint8_t { kText, kBoolean, kWhole, kFraction };
PlainMeaning MeaningOf(const YamlNode& scalar);

/// A node as JSON: scalars without quotes mean what the core schema says, as far as JSON can say
/// it.
nlohmann::ordered_json JsonOfYaml(const YamlNode& node);

/// A node as an error names it: "'hot'", "the number 3", "a list".
std::string DescribeNode(const YamlNode& node);

/// Reads values of one type each. What does not fit is added to the diagnostics, with what was
/// expected, and gives nothing.
class ValueReader {
 public:
  explicit ValueReader(DiagnosticList& diagnostics) : diagnostics_(diagnostics) {}

  std::optional<std::string> Text(const YamlField& field);
  /// Text that is not empty.
  std::optional<std::string> Word(const YamlField& field);
  std::optional<bool> Boolean(const YamlField& field);
  /// A finite number; `expected` describes it, with the range that the caller checks.
  std::optional<double> Number(const YamlField& field, const char* expected);
  std::optional<int64_t> Whole(const YamlField& field, WholeRange range);
  std::optional<std::string> Choice(const YamlField& field,
                                    const std::vector<std::string>& choices);
  /// A list of texts; `what` names one item ("the id of an operator").
  std::optional<std::vector<const YamlNode*>> TextList(const YamlField& field, const char* what);

  /// "NAME: expected EXPECTED, got ..." at the value (at the key when there is no value).
  void Mismatch(const YamlField& field, std::string_view expected);
  /// "NAME: MESSAGE" at the value.
  void Fault(const YamlField& field, std::string_view message);
  DiagnosticList& diagnostics() { return diagnostics_; }

 private:
  DiagnosticList& diagnostics_;
};

}  // namespace halo
