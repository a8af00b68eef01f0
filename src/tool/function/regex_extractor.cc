// The regex_param_extractor: fields of a text by patterns (after the seed's processor of that name,
// halo_v2 section 1.8).
//
//     regex:             {field: pattern | {pattern, flags} | [patterns]}   flags: "i"
//     defaults:          {field: value}
//     allow_multi:       [fields]      a list of all that the patterns find, instead of the first
//     uppercase_fields:  [fields]
//     enums:             {field: [values]}   exact, else but for blanks and case, else by a prefix
//     date_fields:       [fields]      1995/3/5 becomes 1995-03-05; what is no such date stays
//     numeric_fields:    [fields]      007 and .5 become 7 and 0.5; what is no number stays text
//     normalize:         {strip_quotes: true}
//
// A pattern with one group gives the group, without one the whole match, with several the first,
// except for a field whose name ends in 2: its first group goes to the field without the 2 unless
// that was found already, the second one to itself.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>
#include <optional>

#include "base/text.h"
#include "tool/function/local_function.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

/// Steps and memory of a call: a pattern that a hostile text blows up fails the call instead of
/// holding the run. PCRE's own limit counts anew for each place of the text at which a match may
/// begin, so steps are counted by callouts: one for each item of the pattern that is tried, and one
/// more for every kCharsOfStep characters that an item runs over.
constexpr int64_t kMostSteps = 5'000'000;
constexpr int64_t kCharsOfStep = 16;
constexpr uint32_t kMostHeapKib = 16 * 1024;

/// The steps of one call, over all patterns and matches.
struct StepCount {
  int64_t left = kMostSteps;
  PCRE2_SIZE place = 0;  // of the last callout
};

int CountStep(pcre2_callout_block* block, void* data) {
  auto& count = *static_cast<StepCount*>(data);
  const PCRE2_SIZE place = block->current_position;
  const PCRE2_SIZE moved = place > count.place ? place - count.place : count.place - place;
  const bool begins = (block->callout_flags & PCRE2_CALLOUT_STARTMATCH) != 0;
  count.left -= 1 + (begins ? 0 : static_cast<int64_t>(moved) / kCharsOfStep);
  count.place = place;
  return count.left >= 0 ? 0 : PCRE2_ERROR_CALLOUT;
}

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeMatch {
  void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
};
struct FreeContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

/// One pattern of a config.
struct Pattern {
  std::string text;
  bool ignore_case = false;
};

/// Reads "pattern" or {pattern|regex, flags}; nothing if it is neither.
std::optional<Pattern> ReadPattern(const Json& value) {
  if (value.is_string()) return Pattern{value.get<std::string>(), false};
  if (!value.is_object()) return std::nullopt;
  const char* key = value.contains("pattern") ? "pattern" : "regex";
  if (!value.contains(key) || !value[key].is_string()) return std::nullopt;
  const Json flags = value.value("flags", Json(""));
  if (!flags.is_string()) return std::nullopt;
  if (value.size() != size_t{1} + (value.contains("flags") ? 1 : 0)) return std::nullopt;
  const std::string& letters = flags.get_ref<const std::string&>();
  if (letters.find_first_not_of("iI") != std::string::npos) return std::nullopt;
  return Pattern{value[key].get<std::string>(), !letters.empty()};
}

std::vector<Json> PatternsOf(const Json& value) {
  return value.is_array() ? value.get<std::vector<Json>>() : std::vector<Json>{value};
}

std::string ErrorText(int code) {
  char message[256] = {};
  pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof message);
  return message;
}

class Regex {
 public:
  /// `fault` says what is wrong with the pattern, if anything is.
  Regex(const Pattern& pattern, std::string& fault) {
    int code = 0;
    PCRE2_SIZE offset = 0;
    const uint32_t options =
        PCRE2_UTF | PCRE2_AUTO_CALLOUT | (pattern.ignore_case ? PCRE2_CASELESS : 0U);
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.text.data()),
                              pattern.text.size(), options, &code, &offset, nullptr));
    if (code_ != nullptr) return;
    fault = ErrorText(code) + " at character " + std::to_string(offset + 1);
  }

  /// Groups of the first match from `start` on, [0] the whole; nothing if there is none. Moves
  /// `start` behind the match. `text` is UTF-8. Throws Failure where the limits are reached.
  std::optional<std::vector<std::optional<std::string>>> Find(const std::string& text,
                                                              size_t& start,
                                                              StepCount& steps) const {
    const std::unique_ptr<pcre2_match_data, FreeMatch> match(
        pcre2_match_data_create_from_pattern(code_.get(), nullptr));
    const std::unique_ptr<pcre2_match_context, FreeContext> context(
        pcre2_match_context_create(nullptr));
    pcre2_set_match_limit(context.get(), static_cast<uint32_t>(kMostSteps));
    pcre2_set_heap_limit(context.get(), kMostHeapKib);
    pcre2_set_callout(context.get(), CountStep, &steps);
    const int count =
        pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), start,
                    PCRE2_NO_UTF_CHECK, match.get(), context.get());
    if (count == PCRE2_ERROR_NOMATCH) return std::nullopt;
    if (count < 0) {
      const bool limit = count == PCRE2_ERROR_CALLOUT || count == PCRE2_ERROR_MATCHLIMIT ||
                         count == PCRE2_ERROR_HEAPLIMIT || count == PCRE2_ERROR_DEPTHLIMIT ||
                         count == PCRE2_ERROR_NOMEMORY;
      if (!limit) throw Failure{"", "regex_error", ErrorText(count), false};
      throw Failure{"", "regex_limit",
                    "a pattern needs more steps or memory for this text than a function may take: "
                    "make it simpler",
                    false};
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match.get());
    std::vector<std::optional<std::string>> groups;
    for (uint32_t i = 0; i < pcre2_get_ovector_count(match.get()); ++i) {
      const bool is_set = static_cast<int>(i) < count && ends[2 * i] != PCRE2_UNSET;
      groups.push_back(is_set
                           ? std::optional(text.substr(ends[2 * i], ends[2 * i + 1] - ends[2 * i]))
                           : std::nullopt);
    }
    start = std::max(ends[1], start + 1);
    while (start < text.size() && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) ++start;
    return groups;
  }

 private:
  std::unique_ptr<pcre2_code, FreeCode> code_;
};

/// `what` is how a fault names the list.
void CheckTextList(const Json& config, const std::string& key, const std::string& what,
                   std::vector<std::string>& faults) {
  if (!config.contains(key)) return;
  const Json& list = config[key];
  const bool fits = list.is_array() && std::all_of(list.begin(), list.end(), [](const Json& item) {
                      return item.is_string();
                    });
  if (!fits) faults.push_back(what);
}

void CheckPatterns(const Json& patterns, std::vector<std::string>& faults) {
  for (const auto& [field, written] : patterns.items()) {
    for (const Json& each : PatternsOf(written)) {
      const auto pattern = ReadPattern(each);
      std::string fault;
      if (pattern) {
        const Regex compiled(*pattern, fault);
      } else {
        fault = "expected a pattern, or {pattern: ..., flags: i}";
      }
      if (!fault.empty()) faults.push_back("regex." + field + ": " + fault);
    }
  }
}

bool Lists(const Json& config, const char* key, const std::string& field) {
  if (!config.contains(key)) return false;
  const Json& list = config[key];
  return std::find(list.begin(), list.end(), Json(field)) != list.end();
}

std::string Upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  return text;
}

std::string WithoutBlanks(std::string text) {
  std::erase_if(text, [](char c) { return c == ' ' || c == '\t'; });
  return text;
}

std::string WithoutQuotes(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\"'");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\"'") - first + 1);
}

/// The value of an enum that a text means; the text in upper case if it means none.
std::string Canonical(const std::string& text, const Json& values) {
  const std::string wanted = Upper(WithoutBlanks(text));
  const auto find = [&](auto matches) -> std::optional<std::string> {
    for (const Json& value : values) {
      const std::string known = value.get<std::string>();
      if (matches(known)) return known;
    }
    return std::nullopt;
  };
  auto found = find([&](const std::string& known) { return known == text; });
  if (!found)
    found = find([&](const std::string& known) { return Upper(WithoutBlanks(known)) == wanted; });
  if (!found && !wanted.empty()) {
    found = find([&](const std::string& known) {
      const std::string plain = Upper(WithoutBlanks(known));
      return !plain.empty() && (plain.starts_with(wanted) || wanted.starts_with(plain));
    });
  }
  return found.value_or(Upper(text));
}

/// All of `text` as digits, `fewest` to `most` of them.
std::optional<int> Digits(std::string_view text, size_t fewest, size_t most) {
  if (text.size() < fewest || text.size() > most) return std::nullopt;
  if (text.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
  int number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

/// 1995/3/5 and 1995-3-5 as 1995-03-05; anything else stays.
std::string IsoDate(const std::string& text) {
  const size_t first = text.find_first_of("/-");
  const size_t second = first == std::string::npos ? first : text.find_first_of("/-", first + 1);
  if (second == std::string::npos) return text;
  const auto year = Digits(std::string_view(text).substr(0, first), 4, 4);
  const auto month = Digits(std::string_view(text).substr(first + 1, second - first - 1), 1, 2);
  const auto day = Digits(std::string_view(text).substr(second + 1), 1, 2);
  if (!year || !month || !day || *month < 1 || *month > 12 || *day < 1) return text;
  constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const bool leap = (*year % 4 == 0 && *year % 100 != 0) || *year % 400 == 0;
  if (*day > kDays[*month - 1] + (*month == 2 && leap ? 1 : 0)) return text;
  const auto two = [](int number) { return (number < 10 ? "0" : "") + std::to_string(number); };
  return text.substr(0, first) + "-" + two(*month) + "-" + two(*day);
}

/// 42, 007, +3, -0.5, .25 and 1e3 as numbers; anything else, and what a number would lose digits
/// of, stays.
Json Number(const std::string& text) {
  const bool plus = text.size() > 1 && text[0] == '+' && text[1] != '-';
  const char* const begin = text.data() + (plus ? 1 : 0);
  const char* const last = text.data() + text.size();
  int64_t whole = 0;
  const auto [whole_end, whole_fault] = std::from_chars(begin, last, whole);
  if (whole_end == last) return whole_fault == std::errc() ? Json(whole) : Json(text);
  double number = 0;
  const auto [end, fault] = std::from_chars(begin, last, number);
  const bool fits = fault == std::errc() && end == last && std::isfinite(number);
  return fits ? Json(number) : Json(text);
}

class Extraction {
 public:
  Extraction(const Json& config, std::string text) : config_(config), text_(std::move(text)) {}

  Json Run() {
    if (config_.contains("defaults")) fields_ = config_["defaults"];
    for (const auto& [field, written] : config_["regex"].items()) ExtractField(field, written);
    for (const auto& [field, value] : found_.items()) fields_[field] = value;
    for (auto& [field, value] : fields_.items()) {
      if (value.is_string()) {
        value = Normalized(field, value.get<std::string>());
      } else if (value.is_array()) {
        for (Json& each : value) {
          if (each.is_string()) each = Normalized(field, each.get<std::string>());
        }
      }
    }
    return std::move(fields_);
  }

 private:
  void ExtractField(const std::string& field, const Json& written) {
    const bool all = Lists(config_, "allow_multi", field);
    Json list = Json::array();
    for (const Json& each : PatternsOf(written)) {
      std::string fault;
      const Regex regex(*ReadPattern(each), fault);
      size_t start = 0;
      while (const auto groups = regex.Find(text_, start, steps_)) {
        if (!all) return Take(field, *groups);
        const std::optional<std::string>& value = (*groups)[groups->size() > 1 ? 1 : 0];
        if (value) list.push_back(*value);
        if (start > text_.size()) break;
      }
    }
    if (!list.empty()) found_[field] = std::move(list);
  }

  void Take(const std::string& field, const std::vector<std::optional<std::string>>& groups) {
    if (groups.size() > 2 && field.ends_with('2')) {
      const std::string base = field.substr(0, field.size() - 1);
      if (groups[1] && !found_.contains(base)) found_[base] = *groups[1];
      if (groups[2]) found_[field] = *groups[2];
      return;
    }
    const std::optional<std::string>& value = groups.size() > 1 ? groups[1] : groups[0];
    if (value) found_[field] = *value;
  }

  Json Normalized(const std::string& field, std::string text) const {
    const Json normalize = config_.value("normalize", Json::object());
    if (normalize.value("strip_quotes", false)) text = WithoutQuotes(text);
    if (Lists(config_, "uppercase_fields", field)) text = Upper(text);
    if (config_.contains("enums") && config_["enums"].contains(field))
      text = Canonical(text, config_["enums"][field]);
    if (Lists(config_, "date_fields", field)) text = IsoDate(text);
    if (Lists(config_, "numeric_fields", field)) return Number(text);
    return text;
  }

  const Json& config_;
  const std::string text_;
  StepCount steps_;
  Json fields_ = Json::object();
  Json found_ = Json::object();
};

}  // namespace

std::vector<std::string> CheckRegexConfig(const Json& config) {
  std::vector<std::string> faults;
  const std::vector<std::string> known = {"regex",     "defaults",         "allow_multi",
                                          "enums",     "uppercase_fields", "date_fields",
                                          "normalize", "numeric_fields"};
  for (const auto& [key, value] : config.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end())
      faults.push_back("unknown key '" + key + "' in config" + DidYouMean(key, known));
  }
  if (!config.contains("regex") || !config["regex"].is_object()) {
    faults.emplace_back("config needs regex: a mapping of fields to patterns");
  } else {
    CheckPatterns(config["regex"], faults);
  }
  if (config.contains("defaults") && !config["defaults"].is_object())
    faults.emplace_back("defaults: expected a mapping of fields to values");
  for (const char* key : {"allow_multi", "uppercase_fields", "date_fields", "numeric_fields"})
    CheckTextList(config, key, std::string(key) + ": expected a list of fields", faults);
  if (config.contains("enums")) {
    if (!config["enums"].is_object()) {
      faults.emplace_back("enums: expected a mapping of fields to lists of values");
    } else {
      for (const auto& [field, values] : config["enums"].items())
        CheckTextList(config["enums"], field, "enums." + field + ": expected a list of values",
                      faults);
    }
  }
  const bool plain = !config.contains("normalize") ||
                     (config["normalize"].is_object() &&
                      config["normalize"].size() == config["normalize"].count("strip_quotes") &&
                      config["normalize"].value("strip_quotes", Json(false)).is_boolean());
  if (!plain) faults.emplace_back("normalize: expected {strip_quotes: true} or nothing");
  return faults;
}

Json ExtractByRegex(const FunctionCall& call) {
  if (call.inputs.empty())
    throw Failure{"", "no_input", "regex_param_extractor needs an input", false};
  const Json& input = call.inputs.begin().value();
  std::string text = input.is_string() ? ReplaceInvalidUtf8(input.get_ref<const std::string&>())
                                       : input.dump(-1, ' ', false, Json::error_handler_t::replace);
  return Extraction(call.config, std::move(text)).Run();
}

}  // namespace halo
