// The functions of templates, and how filters and methods are found: those of llama.cpp's engine
// and a few more of Jinja's.
#include "model/jinja_builtins.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "base/text.h"

namespace halo::jinja {

const std::string* TextArgument(JinjaEvaluator& run, const JinjaArguments& arguments,
                                std::string_view name, size_t position) {
  const JinjaValue* value = arguments.Find(name, position);
  if (value == nullptr || value->Is(JinjaKind::kNone) || value->Is(JinjaKind::kUndefined))
    return nullptr;
  if (!value->Is(JinjaKind::kText))
    run.Fail("'" + std::string(name) + "' is a text, not " + value->KindName());
  run.Acting(value->text());
  return &value->bytes();
}

const JinjaValue& Needed(JinjaEvaluator& run, const JinjaArguments& arguments,
                         std::string_view name, size_t position, JinjaKind kind) {
  const JinjaValue* value = arguments.Find(name, position);
  if (value == nullptr) run.Fail("the argument '" + std::string(name) + "' is missing");
  if (!value->Is(kind))
    run.Fail("the argument '" + std::string(name) + "' cannot be " + value->KindName());
  return *value;
}

bool Flag(JinjaEvaluator& run, const JinjaArguments& arguments, std::string_view name,
          size_t position) {
  const JinjaValue* value = arguments.Find(name, position);
  return value != nullptr && run.Truth(*value);
}

int64_t IntArgument(JinjaEvaluator& run, const JinjaArguments& arguments, std::string_view name,
                    size_t position, int64_t otherwise) {
  const JinjaValue* value = arguments.Find(name, position);
  if (value == nullptr || value->Is(JinjaKind::kNone) || value->Is(JinjaKind::kUndefined))
    return otherwise;
  if (!value->Is(JinjaKind::kInt))
    run.Fail("'" + std::string(name) + "' is an integer, not " + value->KindName());
  return value->integer();
}

JinjaArguments Rest(const JinjaArguments& arguments, size_t used) {
  JinjaArguments rest;
  const size_t skip = std::min(used, arguments.positional.size());
  rest.positional.assign(arguments.positional.begin() + static_cast<std::ptrdiff_t>(skip),
                         arguments.positional.end());
  return rest;
}

namespace {

JinjaValue RaiseException(JinjaEvaluator& run, const JinjaValue&, const JinjaArguments& arguments) {
  const JinjaValue* message = arguments.Find("message", 0);
  run.Fail(message == nullptr ? "the template refuses" : run.TextOf(*message).bytes());
}

JinjaValue Namespace(JinjaEvaluator&, const JinjaValue&, const JinjaArguments& arguments) {
  JinjaValue map = JinjaValue::Map();
  for (const auto& [name, value] : arguments.named) map.map().Set(std::string_view(name), value);
  return map;
}

JinjaValue StrftimeNow(JinjaEvaluator& run, const JinjaValue&, const JinjaArguments& arguments) {
  if (run.strict())
    run.Fail("strftime_now is for chat templates; a workflow's prompts do not depend on the date");
  const JinjaValue& format = Needed(run, arguments, "format", 0, JinjaKind::kText);
  run.Acting(format.text());
  char buffer[256];
  const size_t length =
      format.bytes().size() > 64
          ? 0
          : std::strftime(buffer, sizeof(buffer), format.bytes().c_str(), &run.date());
  if (length == 0) run.Fail("strftime_now cannot format the date so");
  return JinjaValue::Text(std::string(buffer, length), format.text().Blend());
}

JinjaValue Range(JinjaEvaluator& run, const JinjaValue&, const JinjaArguments& arguments) {
  const size_t count = arguments.positional.size();
  if (count == 0 || count > 3) run.Fail("range() takes one to three integers");
  const int64_t start = count == 1 ? 0 : IntArgument(run, arguments, "start", 0, 0);
  const int64_t stop = IntArgument(run, arguments, "stop", count == 1 ? 0 : 1, 0);
  const int64_t step = IntArgument(run, arguments, "step", 2, 1);
  if (step == 0) run.Fail("range() takes a step other than 0");
  std::vector<JinjaValue> items;
  int64_t at = start;
  while (step > 0 ? at < stop : at > stop) {
    run.Step();
    items.push_back(JinjaValue::Int(at));
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return JinjaValue::List(std::move(items));
}

constexpr JinjaBuiltin kFunctions[] = {
    {"raise_exception", 0, RaiseException},
    {"namespace", 0, Namespace},
    {"strftime_now", 0, StrftimeNow},
    {"range", 0, Range},
    {"tojson", 0, JsonFunction},
};

std::array<std::span<const JinjaBuiltin>, 3> AllMethods() {
  return {TextMethods(), ListMethods(), JsonMethods()};
}

// What llama.cpp's filters make of an undefined value or none; null: there is no such filter.
std::optional<JinjaValue> EmptyResult(const std::string& name, bool is_undefined) {
  static const std::set<std::string> kTexts = {"capitalize", "join",  "lower", "replace",  "safe",
                                               "string",     "strip", "title", "truncate", "upper"};
  static const std::set<std::string> kLists = {"items",      "list",    "map",    "reject",
                                               "rejectattr", "reverse", "select", "selectattr",
                                               "sort",       "unique"};
  static const std::set<std::string> kNumbers = {"length", "sum", "wordcount"};
  static const std::set<std::string> kNothing = {"first", "last", "max", "min"};
  if (kLists.count(name) > 0) return JinjaValue::List({});
  if (!is_undefined) return std::nullopt;
  if (kTexts.count(name) > 0) return JinjaValue::Text("");
  if (kNumbers.count(name) > 0) return JinjaValue::Int(0);
  if (kNothing.count(name) > 0) return JinjaValue();
  return std::nullopt;
}

std::string FilterName(const std::string& name) {
  if (name == "count") return "length";
  if (name == "d") return "default";
  if (name == "trim") return "strip";
  return name;
}

bool TakesText(const std::string& name) {
  static const std::set<std::string> kNames = {"capitalize", "lower", "replace",  "strip",
                                               "title",      "upper", "wordcount"};
  return kNames.count(name) > 0;
}

}  // namespace
}  // namespace halo::jinja

namespace halo {

const JinjaBuiltin* FindJinjaMethod(std::string_view name, JinjaKind kind) {
  static const auto kIndex = [] {
    std::unordered_multimap<std::string_view, const JinjaBuiltin*> index;
    for (const auto methods : jinja::AllMethods()) {
      for (const JinjaBuiltin& method : methods) index.emplace(method.name, &method);
    }
    return index;
  }();
  const auto [begin, end] = kIndex.equal_range(name);
  const auto found = std::find_if(begin, end, [&](const auto& entry) {
    return (entry.second->kinds & jinja::Kind(kind)) != 0;
  });
  return found == end ? nullptr : found->second;
}

const JinjaBuiltin* FindJinjaFunction(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(jinja::kFunctions), std::end(jinja::kFunctions),
                   [&](const JinjaBuiltin& function) { return function.name == name; });
  return found == std::end(jinja::kFunctions) ? nullptr : found;
}

std::vector<std::string> JinjaFilterNames() {
  std::set<std::string> names = {"count", "d", "trim"};
  for (const auto methods : jinja::AllMethods()) {
    for (const JinjaBuiltin& method : methods) names.emplace(method.name);
  }
  return {names.begin(), names.end()};
}

std::set<std::string> JinjaFunctionNames() {
  std::set<std::string> names;
  for (const JinjaBuiltin& function : jinja::kFunctions) names.emplace(function.name);
  return names;
}

JinjaValue JinjaEvaluator::ApplyFilter(const std::string& given_name, JinjaValue operand,
                                       const JinjaArguments& arguments) {
  const std::string name = jinja::FilterName(given_name);
  if (operand.watch() != nullptr && name == "selectattr") operand.watch()->used_as_list = true;
  if (name != "default") RequireDefined(operand);
  if (jinja::TakesText(name) && !operand.Is(JinjaKind::kText) &&
      !operand.Is(JinjaKind::kUndefined)) {
    operand = JinjaValue::Text(TextOf(operand));
  }
  const JinjaBuiltin* filter = FindJinjaMethod(name, operand.kind());
  if (filter != nullptr) return filter->run(*this, operand, arguments);
  // A mapping has no method of that name, but anything may have a default.
  if (name == "default") return jinja::Default(*this, operand, arguments);
  if (!strict() && (operand.Is(JinjaKind::kUndefined) || operand.Is(JinjaKind::kNone))) {
    if (auto empty = jinja::EmptyResult(name, operand.Is(JinjaKind::kUndefined))) return *empty;
  }
  const std::vector<std::string> names = JinjaFilterNames();
  const bool is_known = std::find(names.begin(), names.end(), given_name) != names.end();
  Fail(is_known ? "the filter '" + given_name + "' cannot be applied to " + operand.KindName()
                : "unknown filter '" + given_name + "'" + DidYouMean(given_name, names));
}

}  // namespace halo
