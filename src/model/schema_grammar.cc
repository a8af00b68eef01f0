// JSON Schema to grammar: llama.cpp's conversion between two steps of ours. Before it, the schema
// is written so that the conversion sees all of it; after it, rules that admit too much are
// replaced.
#include <fmt/format.h>
#include <json-schema-to-grammar.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "model/grammar_text.h"
#include "model/json_schema.h"
#include "model/schema_pattern.h"
#include "model/schema_reference.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

/// A rule's body as llama.cpp writes it, and what stands in its place. test/model checks that each
/// is still found.
struct Replacement {
  std::string_view theirs;
  std::string_view ours;
};
constexpr Replacement kReplacements[] = {
    // Exponents of two digits: a parser refuses what no double holds.
    {R"(("-"? integral-part) ("." decimal-part)? ([eE] [-+]? integral-part)?)",
     R"(("-"? integral-part) ("." decimal-part)? ([eE] [-+]? [0-9]{1,2})?)"},
    // Escapes without halves of surrogate pairs.
    {R"([^"\\\x7F\x00-\x1F] | [\\] (["\\bfnrt] | "u" [0-9a-fA-F]{4}))",
     R"([^"\\\x7F\x00-\x1F] | [\\] (["\\bfnrt] | "u" ([0-9abcefABCEF] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2})))"},
    // Days that the month has; 29 February in years of which the last two digits are a multiple of
    // four, and not 00.
    {R"([0-9]{4} "-" ( "0" [1-9] | "1" [0-2] ) "-" ( "0" [1-9] | [1-2] [0-9] | "3" [0-1] ))",
     R"([0-9]{4} "-" (("0" [13578] | "1" [02]) "-" ("0" [1-9] | [12] [0-9] | "3" [01]) | ("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30") | "02-" ("0" [1-9] | "1" [0-9] | "2" [0-8])) | [0-9] [0-9] ("0" [48] | [2468] [048] | [13579] [26]) "-02-29")"}};

// Numbers between bounds. llama.cpp's own rules admit -19 under "maximum": -100.

constexpr const char* kFraction = R"(("." [0-9]{1,16})?)";
constexpr const char* kNoFraction = R"(("." "0"{1,16})?)";
/// What stands for no bound: more digits than a double holds.
constexpr int64_t kUnboundedInteger = 9'999'999'999'999'999;

/// Digits from `low` to `high`, which are of one length.
std::string DigitsBetween(const std::string& low, const std::string& high) {
  if (low.empty()) return "";
  const size_t rest = low.size() - 1;
  const std::string zeros(rest, '0'), nines(rest, '9');
  const auto digits = [&](char from, char to, const std::string& more) {
    return (from == to ? fmt::format("\"{}\"", from) : fmt::format("[{}-{}]", from, to)) +
           (more.empty() ? "" : " " + more);
  };
  const std::string any = rest == 0 ? "" : fmt::format("[0-9]{{{}}}", rest);
  char from = low[0];
  char to = high[0];
  if (from == to) return digits(from, to, DigitsBetween(low.substr(1), high.substr(1)));
  std::vector<std::string> ways;
  if (low.substr(1) != zeros) {
    ways.push_back(digits(from, from, DigitsBetween(low.substr(1), nines)));
    ++from;
  }
  std::string last;
  if (high.substr(1) != nines) {
    last = digits(to, to, DigitsBetween(zeros, high.substr(1)));
    --to;
  }
  if (from <= to) ways.push_back(digits(from, to, any));
  if (!last.empty()) ways.push_back(last);
  return fmt::format("({})", fmt::join(ways, " | "));
}

/// Whole numbers from `low` (at least 0) to `high`.
std::string WholeBetween(int64_t low, int64_t high) {
  std::vector<std::string> ways;
  for (int64_t first = 0, last = 9; first <= high; first = last + 1, last = 10 * last + 9) {
    if (last < low) continue;
    ways.push_back(
        DigitsBetween(std::to_string(std::max(first, low)), std::to_string(std::min(last, high))));
  }
  return fmt::format("({})", fmt::join(ways, " | "));
}

/// Numbers of which the sizes are from `low` (at least 0) to `high`, both whole.
std::string SizesBetween(int64_t low, int64_t high, bool with_fractions) {
  if (!with_fractions) return WholeBetween(low, high);
  std::string text = fmt::format("\"{}\" {}", high, kNoFraction);
  if (low < high) text += " | " + WholeBetween(low, high - 1) + " " + kFraction;
  return "(" + text + ")";
}

std::string NumbersBetween(const Json& schema, bool with_fractions) {
  const auto clamped = [](double bound) {
    constexpr auto kMost = static_cast<double>(kUnboundedInteger);
    return static_cast<int64_t>(std::clamp(bound, -kMost, kMost));
  };
  const int64_t low = clamped(LowestInteger(schema));
  const int64_t high = clamped(HighestInteger(schema));
  std::vector<std::string> ways;
  // A size of 0 with a sign is a number below 0 only with a fraction.
  const int64_t least = std::max<int64_t>(with_fractions ? 0 : 1, -high);
  if (low < 0) ways.push_back("\"-\" " + SizesBetween(least, -low, with_fractions));
  if (high >= 0) ways.push_back(SizesBetween(std::max<int64_t>(low, 0), high, with_fractions));
  return fmt::format("{}", fmt::join(ways, " | "));
}

/// Writes the schema anew: lists of types as alternatives, an allOf of one as that one, references
/// by number, patterns and bounds as constants that stand for rules of ours, annotations left out.
/// The root is a reference too: llama.cpp's rules are named after properties, and a root without a
/// name of its own would lose its rule to a property with an empty one.
class SchemaWriter {
 public:
  explicit SchemaWriter(const Json& root) : root_(root) {
    const std::string text = root.dump(-1, ' ', false, Json::error_handler_t::replace);
    // Letters alone, which stay as they are where names are made of the schema's.
    do {
      mark_ += "halo";
    } while (text.find(mark_) != std::string::npos);
  }

  Json Write() {
    Json schema = WriteReference("#");
    Json definitions = Json::object();
    // Targets refer to others, so there may be more after each.
    for (size_t i = 0; i < targets_.size(); ++i) {
      const Json target = WriteNode(*targets_[i]);
      definitions[MarkOf(i)] = target;
    }
    schema["$defs"] = definitions;
    return schema;
  }

  /// [number] the expression for which the constant MarkOf(number) stands.
  const std::vector<std::string>& rules() const { return rules_; }
  std::string MarkOf(size_t number) const { return mark_ + std::to_string(number) + "-"; }
  /// What every mark begins with and the schema does not have.
  const std::string& mark() const { return mark_; }

 private:
  Json Mark(std::string expression) {
    rules_.push_back(std::move(expression));
    return {{"const", MarkOf(rules_.size() - 1)}};
  }

  Json WriteReference(const std::string& reference) {
    const auto [place, added] = numbers_.emplace(reference, targets_.size());
    if (added) targets_.push_back(FindReference(root_, reference));
    return {{"$ref", "#/$defs/" + MarkOf(place->second)}};
  }

  Json WriteList(const Json& list) {
    Json written = Json::array();
    for (const Json& each : list) written.push_back(WriteNode(each));
    return written;
  }

  Json WriteNode(const Json& node) {
    if (node.contains("$ref")) return WriteReference(node["$ref"].get<std::string>());
    for (const char* key : {"anyOf", "oneOf"}) {
      if (node.contains(key)) return {{"anyOf", WriteList(node[key])}};
    }
    if (node.contains("allOf")) {
      if (node["allOf"].size() == 1) return WriteNode(node["allOf"].front());
      return {{"allOf", WriteList(node["allOf"])}};
    }
    for (const char* key : {"const", "enum"}) {
      if (node.contains(key)) return {{key, node[key]}};
    }
    if (node.contains("type") && node["type"].is_array()) {
      Json alternatives = Json::array();
      for (const Json& type : node["type"]) {
        Json one = node;
        one["type"] = type;
        alternatives.push_back(WriteTyped(one));
      }
      return {{"anyOf", alternatives}};
    }
    return WriteTyped(node);
  }

  Json WriteTyped(const Json& node) {
    const std::string type = node.contains("type") ? node["type"].get<std::string>() : "";
    const auto is = [&](const char* name) { return type.empty() || type == name; };
    if (is("string") && node.contains("pattern")) {
      return Mark(PatternToGrammar(node["pattern"].get<std::string>()).expression);
    }
    const bool bounded = std::isfinite(LowestInteger(node)) || std::isfinite(HighestInteger(node));
    if ((type == "integer" || type == "number") && bounded) {
      return Mark(NumbersBetween(node, type == "number"));
    }
    Json written = Json::object();
    if (!type.empty()) written["type"] = type;
    const auto copy = [&](const char* key) {
      if (node.contains(key)) written[key] = node[key];
    };
    if (is("object") && node.contains("properties")) {
      Json properties = Json::object();
      for (const auto& [name, property] : node["properties"].items())
        properties[name] = WriteNode(property);
      written["properties"] = properties;
      copy("required");
    }
    if (is("object") && node.contains("additionalProperties")) {
      const Json& additional = node["additionalProperties"];
      written["additionalProperties"] =
          additional.is_boolean() ? additional : WriteNode(additional);
    }
    if (is("array")) {
      for (const char* key : {"items", "prefixItems"}) {
        if (!node.contains(key)) continue;
        written[key] = node[key].is_array() ? WriteList(node[key]) : WriteNode(node[key]);
      }
      for (const char* key : {"minItems", "maxItems"}) copy(key);
    }
    if (is("string")) {
      for (const char* key : {"minLength", "maxLength", "format"}) copy(key);
    }
    return written;
  }

  const Json& root_;
  std::string mark_;
  std::vector<std::string> rules_;
  std::map<std::string, size_t> numbers_;
  std::vector<const Json*> targets_;
};

void ReplaceAll(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

/// One rule of the converted grammar as it should be.
std::string MendRule(const std::string& name, std::string body, const SchemaWriter& writer) {
  for (const Replacement& replacement : kReplacements) {
    if (body == replacement.theirs) return std::string(replacement.ours);
  }
  // Names beside the known ones: llama.cpp's rule lets a backslash be where names part.
  if (name.find("additional-k") != std::string::npos) {
    ReplaceAll(body, R"([^")", R"([^"\\\x7F\x00-\x1F)");
  }
  for (size_t i = writer.rules().size(); i > 0 && body.find(writer.mark()) != body.npos; --i) {
    ReplaceAll(body, "\"\\\"" + writer.MarkOf(i - 1) + "\\\"\"", "(" + writer.rules()[i - 1] + ")");
  }
  return body;
}

}  // namespace

const Json* FindReference(const Json& root, const std::string& reference) {
  const Json* at = &root;
  size_t begin = 2;  // behind "#/"
  while (begin <= reference.size()) {
    const size_t end = std::min(reference.find('/', begin), reference.size());
    const std::string step = reference.substr(begin, end - begin);
    const bool is_index = !step.empty() && step.size() < 7 &&
                          step.find_first_not_of("0123456789") == std::string::npos;
    if (at->is_object() && at->contains(step)) {
      at = &(*at)[step];
    } else if (at->is_array() && is_index && std::stoul(step) < at->size()) {
      at = &(*at)[std::stoul(step)];
    } else {
      return nullptr;
    }
    begin = end + 1;
  }
  return at;
}

std::string EscapePointer(const std::string& key) {
  std::string step = key;
  ReplaceAll(step, "~", "~0");
  ReplaceAll(step, "/", "~1");
  return step;
}

std::string JsonSchemaToGrammar(const Json& schema) {
  SchemaWriter writer(schema);
  std::string converted;
  try {
    converted = json_schema_to_grammar(common_json::parse(writer.Write().dump()), true);
  } catch (const std::exception& error) {
    throw Error(ErrorCode::kWorkflow,
                std::string("the schema cannot be made a grammar: ") + error.what());
  }
  std::string grammar;
  constexpr std::string_view kIs = " ::= ";
  size_t begin = 0;
  while (begin < converted.size()) {
    const size_t end = std::min(converted.find('\n', begin), converted.size());
    const std::string line = converted.substr(begin, end - begin);
    const size_t is = line.find(kIs);
    if (is == std::string::npos) {
      grammar += line + "\n";
    } else {
      const std::string name = line.substr(0, is);
      grammar.append(name).append(kIs);
      grammar += MendRule(name, line.substr(is + kIs.size()), writer) + "\n";
    }
    if (grammar.size() > kMaxGrammarBytes) {
      throw Error(ErrorCode::kWorkflow, "the schema's grammar would have more than 4 MiB");
    }
    begin = end + 1;
  }
  return grammar;
}

}  // namespace halo
