#include "tool/function/local_function.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "base/text.h"
#include "model/template.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void Fail(const char* code, const std::string& message) {
  throw Failure{"", code, message, false};
}

/// Keys that a config has beyond those it may have.
void CheckKeys(const Json& config, const std::vector<std::string>& known,
               std::vector<std::string>& faults) {
  for (const auto& [key, value] : config.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end())
      faults.push_back("unknown key '" + key + "' in config" + DidYouMean(key, known));
  }
}

/// Text as it is, everything else compact JSON.
std::string TextOf(const Json& value) {
  return value.is_string() ? value.get<std::string>()
                           : value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

const Json& FirstInput(const FunctionCall& call) {
  if (call.inputs.empty()) Fail("no_input", call.function + " needs an input");
  return call.inputs.begin().value();
}

/// Every input; lists among them (and the rows of query results) count element by element.
std::vector<Json> Elements(const FunctionCall& call) {
  std::vector<Json> elements;
  for (const auto& [name, value] : call.inputs.items()) {
    const Json& list = value.is_object() && value.contains("rows") ? value["rows"] : value;
    if (list.is_array()) {
      elements.insert(elements.end(), list.begin(), list.end());
    } else {
      elements.push_back(list);
    }
  }
  return elements;
}

/// A number with all its digits: 0.d1d2d3... times ten to the exponent, the first and the last
/// digit not 0; none for zero. Identifiers of 64 bits and decimals do not fit a double.
struct ExactNumber {
  bool negative = false;
  std::string digits;
  int64_t exponent = 0;
};

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

/// Reads -12.50e3 in full; nothing if the text is anything else.
std::optional<ExactNumber> ReadNumber(std::string_view text) {
  ExactNumber number;
  number.negative = text.starts_with('-');
  if (number.negative) text.remove_prefix(1);
  bool has_digit = false, has_point = false;
  size_t i = 0;
  for (; i < text.size() && (IsDigit(text[i]) || (text[i] == '.' && !has_point)); ++i) {
    if (text[i] == '.') {
      has_point = true;
      continue;
    }
    has_digit = true;
    const bool leads = number.digits.empty() && text[i] == '0';
    if (!leads) number.digits += text[i];
    // One place to the left for each digit before the point, to the right for each zero behind it.
    if (!has_point && !leads) ++number.exponent;
    if (has_point && leads) --number.exponent;
  }
  if (!has_digit) return std::nullopt;
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    ++i;
    if (i + 1 < text.size() && text[i] == '+' && IsDigit(text[i + 1])) ++i;
    int32_t power = 0;
    const auto [end, fault] = std::from_chars(text.data() + i, text.data() + text.size(), power);
    if (fault != std::errc()) return std::nullopt;
    i = static_cast<size_t>(end - text.data());
    number.exponent += power;
  }
  if (i != text.size()) return std::nullopt;
  number.digits.erase(number.digits.find_last_not_of('0') + 1);
  if (number.digits.empty()) return ExactNumber{};
  return number;
}

/// The number that a value is, or that its text says in full.
std::optional<ExactNumber> NumberOf(const Json& value) {
  if (value.is_number()) return ReadNumber(value.dump());
  if (!value.is_string()) return std::nullopt;
  return ReadNumber(value.get_ref<const std::string&>());
}

bool Less(const ExactNumber& a, const ExactNumber& b) {
  if (a.negative != b.negative) return a.negative;
  const ExactNumber& x = a.negative ? b : a;
  const ExactNumber& y = a.negative ? a : b;
  if (x.digits.empty() || y.digits.empty()) return x.digits.empty() && !y.digits.empty();
  return std::tie(x.exponent, x.digits) < std::tie(y.exponent, y.digits);
}

/// As numbers where both are, else as texts; null first.
bool Less(const Json& a, const Json& b) {
  if (a.is_null() || b.is_null()) return a.is_null() && !b.is_null();
  const auto x = NumberOf(a), y = NumberOf(b);
  return x && y ? Less(*x, *y) : TextOf(a) < TextOf(b);
}

// ---- json_pick

std::vector<std::string> CheckPick(const Json& config) {
  std::vector<std::string> faults;
  CheckKeys(config, {"path", "paths"}, faults);
  const bool one = config.contains("path"), many = config.contains("paths");
  if (one == many) faults.emplace_back("config needs path, or paths (a mapping of names to paths)");
  if (one && !config["path"].is_string()) faults.emplace_back("path: expected a text");
  if (many && !config["paths"].is_object()) faults.emplace_back("paths: expected a mapping");
  if (many && config["paths"].is_object()) {
    for (const auto& [name, path] : config["paths"].items()) {
      if (!path.is_string()) faults.push_back("paths." + name + ": expected a text");
    }
  }
  return faults;
}

/// A text that is JSON is picked from as such: answers of models are texts.
Json AsStructure(const Json& value) {
  if (!value.is_string()) return value;
  const std::optional<Json> parsed = ReadJson(value.get_ref<const std::string&>());
  return parsed && parsed->is_structured() ? *parsed : value;
}

Json RunPick(const FunctionCall& call) {
  const Json value = AsStructure(FirstInput(call));
  const auto pick = [&](const std::string& path) -> Json {
    const Json* found = FindPath(value, path);
    if (found == nullptr) Fail("missing_value", "there is nothing at '" + path + "'");
    return *found;
  };
  if (call.config.contains("path")) return pick(call.config["path"].get<std::string>());
  Json picked = Json::object();
  for (const auto& [name, path] : call.config["paths"].items())
    picked[name] = pick(path.get<std::string>());
  return picked;
}

// ---- template

std::vector<std::string> CheckTemplate(const Json& config) {
  std::vector<std::string> faults;
  CheckKeys(config, {"template"}, faults);
  if (!config.contains("template") || !config["template"].is_string()) {
    faults.emplace_back("config needs template: a text");
    return faults;
  }
  try {
    Template::Parse(config["template"].get<std::string>(), {"template", 1, 1});
  } catch (const Error& error) {
    for (const Diagnostic& fault : error.diagnostics()) faults.push_back(fault.message);
  }
  return faults;
}

Json RunTemplate(const FunctionCall& call) {
  const Template source =
      Template::Parse(call.config["template"].get<std::string>(), {"template", 1, 1});
  std::map<std::string, Json> values;
  for (const auto& [name, value] : call.inputs.items()) values.emplace(name, value);
  return SpansText(source.Render(values));
}

// ---- join, concat

std::vector<std::string> CheckJoin(const Json& config) {
  std::vector<std::string> faults;
  CheckKeys(config, {"separator"}, faults);
  if (config.contains("separator") && !config["separator"].is_string())
    faults.emplace_back("separator: expected a text");
  return faults;
}

std::vector<std::string> CheckNothing(const Json& config) {
  std::vector<std::string> faults;
  CheckKeys(config, {}, faults);
  return faults;
}

std::string Joined(const FunctionCall& call, const std::string& separator) {
  std::string text;
  bool first = true;
  for (const Json& element : Elements(call)) {
    if (!first) text += separator;
    first = false;
    text += TextOf(element);
  }
  return text;
}

Json RunJoin(const FunctionCall& call) {
  return Joined(call, call.config.value("separator", std::string("\n")));
}

Json RunConcat(const FunctionCall& call) { return Joined(call, ""); }

// ---- top_k

std::vector<std::string> CheckTopK(const Json& config) {
  std::vector<std::string> faults;
  CheckKeys(config, {"k", "by", "least"}, faults);
  const bool has_k = config.contains("k") && config["k"].is_number_integer() &&
                     config["k"].get<int64_t>() >= 1 && config["k"].get<int64_t>() <= 1'000'000;
  if (!has_k) faults.emplace_back("config needs k: a whole number of at least 1");
  if (config.contains("by") && !config["by"].is_string())
    faults.emplace_back("by: expected a path into the elements");
  if (config.contains("least") && !config["least"].is_boolean())
    faults.emplace_back("least: expected true or false");
  return faults;
}

/// By what an element is ordered. Numbers stand before texts: as texts "10" < "5a" < "9", so that
/// there would be no order otherwise.
struct SortKey {
  bool is_there = false;
  std::optional<ExactNumber> number;
  std::string text;

  bool operator<(const SortKey& other) const {
    if (number && other.number) return Less(*number, *other.number);
    if (number || other.number) return number.has_value();
    return text < other.text;
  }
};

SortKey KeyOf(const Json& element, const std::string& path) {
  const Json* found = FindPath(element, path);
  if (found == nullptr || found->is_null()) return {};
  return {true, NumberOf(*found), TextOf(*found)};
}

/// Elements without the key come last, equal ones keep their order.
Json RunTopK(const FunctionCall& call) {
  const std::string by = call.config.value("by", std::string());
  const bool least = call.config.value("least", false);
  std::vector<std::pair<SortKey, Json>> elements;
  for (Json& element : Elements(call)) {
    SortKey key = KeyOf(element, by);
    elements.emplace_back(std::move(key), std::move(element));
  }
  std::stable_sort(elements.begin(), elements.end(), [&](const auto& a, const auto& b) {
    const SortKey &x = a.first, &y = b.first;
    if (!x.is_there || !y.is_there) return x.is_there && !y.is_there;
    return least ? x < y : y < x;
  });
  elements.resize(std::min(elements.size(), call.config["k"].get<size_t>()));
  Json top = Json::array();
  for (auto& [key, element] : elements) top.push_back(std::move(element));
  return top;
}

// ---- majority_vote

std::vector<std::string> CheckVote(const Json& config) {
  std::vector<std::string> faults;
  CheckKeys(config, {"with_counts"}, faults);
  if (config.contains("with_counts") && !config["with_counts"].is_boolean())
    faults.emplace_back("with_counts: expected true or false");
  return faults;
}

Json RunVote(const FunctionCall& call) {
  struct Candidate {
    Json value;
    int64_t votes = 0;
  };
  std::vector<Candidate> candidates;  // in order of appearance
  std::map<std::string, size_t> places;
  int64_t total = 0;
  for (const Json& element : Elements(call)) {
    if (element.is_null()) continue;
    std::string ballot = TextOf(element);
    ballot.erase(0, std::min(ballot.find_first_not_of(" \t\r\n"), ballot.size()));
    ballot.erase(ballot.find_last_not_of(" \t\r\n") + 1);
    const auto [place, is_new] = places.emplace(ballot, candidates.size());
    if (is_new) candidates.push_back({element.is_string() ? Json(ballot) : element, 0});
    ++candidates[place->second].votes;
    ++total;
  }
  if (candidates.empty()) Fail("no_input", "majority_vote got no votes");
  const auto best =
      std::max_element(candidates.begin(), candidates.end(),
                       [](const Candidate& a, const Candidate& b) { return a.votes < b.votes; });
  if (!call.config.value("with_counts", false)) return best->value;
  return {{"winner", best->value}, {"votes", best->votes}, {"voters", total}};
}

// ---- compare

const std::vector<std::string> kComparisons = {"==", "!=", "<", "<=", ">", ">="};

std::vector<std::string> CheckCompare(const Json& config) {
  std::vector<std::string> faults;
  CheckKeys(config, {"op", "value"}, faults);
  const bool has_op = config.contains("op") && config["op"].is_string() &&
                      std::find(kComparisons.begin(), kComparisons.end(),
                                config["op"].get<std::string>()) != kComparisons.end();
  if (!has_op) faults.emplace_back("config needs op: one of ==, !=, <, <=, > and >=");
  return faults;
}

Json RunCompare(const FunctionCall& call) {
  const Json& left = FirstInput(call);
  if (call.inputs.size() < 2 && !call.config.contains("value"))
    Fail("no_input", "compare needs a second input, or value in its config");
  const Json& right =
      call.inputs.size() < 2 ? call.config["value"] : std::next(call.inputs.begin()).value();
  const std::string op = call.config["op"].get<std::string>();
  const bool less = Less(left, right), greater = Less(right, left);
  if (op == "==") return !less && !greater;
  if (op == "!=") return less || greater;
  if (op == "<") return less;
  if (op == "<=") return !greater;
  return op == ">" ? greater : !less;
}

// ---- exec

/// A word of a command line: it ends at a NUL.
bool IsWord(const Json& word) {
  return word.is_string() && word.get_ref<const std::string&>().find('\0') == std::string::npos;
}

std::vector<std::string> CheckExec(const Json& config) {
  std::vector<std::string> faults;
  CheckKeys(config, {"command", "memory_mb", "most_bytes", "processes"}, faults);
  const bool has_command =
      config.contains("command") && config["command"].is_array() && !config["command"].empty() &&
      std::all_of(config["command"].begin(), config["command"].end(), IsWord) &&
      !config["command"][0].get_ref<const std::string&>().empty();
  if (!has_command)
    faults.emplace_back("config needs command: a list of texts, the program first (no shell)");
  constexpr std::pair<const char*, int64_t> kLimits[] = {
      {"memory_mb", int64_t{1} << 20}, {"most_bytes", int64_t{1} << 30}, {"processes", 256}};
  for (const auto& [key, most] : kLimits) {
    const bool fits = !config.contains(key) ||
                      (config[key].is_number_integer() && config[key].get<int64_t>() >= 1 &&
                       config[key].get<int64_t>() <= most);
    if (!fits) {
      faults.push_back(std::string(key) + ": expected a whole number from 1 to " +
                       std::to_string(most));
    }
  }
  return faults;
}

constexpr LocalFunction kFunctions[] = {
    {"regex_param_extractor", CheckRegexConfig, ExtractByRegex},
    {"json_pick", CheckPick, RunPick},
    {"template", CheckTemplate, RunTemplate},
    {"join", CheckJoin, RunJoin},
    {"concat", CheckNothing, RunConcat},
    {"top_k", CheckTopK, RunTopK},
    {"majority_vote", CheckVote, RunVote},
    {"compare", CheckCompare, RunCompare},
    {"exec", CheckExec, nullptr},
};

}  // namespace

const LocalFunction* FindLocalFunction(std::string_view name) {
  const auto found = std::find_if(std::begin(kFunctions), std::end(kFunctions),
                                  [&](const LocalFunction& f) { return f.name == name; });
  return found == std::end(kFunctions) ? nullptr : found;
}

std::vector<std::string> LocalFunctionNames() {
  std::vector<std::string> names;
  for (const LocalFunction& function : kFunctions) names.emplace_back(function.name);
  return names;
}

std::optional<Json> ReadJson(std::string_view text) {
  bool too_deep = false;
  Json value = Json::parse(
      text,
      [&](int depth, Json::parse_event_t, Json&) {
        too_deep = too_deep || depth > kMostJsonDepth;
        return !too_deep;
      },
      false);
  if (value.is_discarded() || too_deep) return std::nullopt;
  return value;
}

const Json* FindPath(const Json& value, std::string_view path) {
  const Json* at = &value;
  while (!path.empty()) {
    const size_t dot = std::min(path.find('.'), path.size());
    const std::string step(path.substr(0, dot));
    path.remove_prefix(std::min(dot + 1, path.size()));
    if (at->is_object()) {
      const auto found = at->find(step);
      if (found == at->end()) return nullptr;
      at = &*found;
    } else if (at->is_array()) {
      size_t index = 0;
      const auto [end, fault] = std::from_chars(step.data(), step.data() + step.size(), index);
      const bool is_index = fault == std::errc() && end == step.data() + step.size();
      if (!is_index || index >= at->size()) return nullptr;
      at = &(*at)[index];
    } else {
      return nullptr;
    }
  }
  return at;
}

}  // namespace halo
