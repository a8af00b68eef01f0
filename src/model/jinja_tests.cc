// The tests of templates: what may stand after `is`.
#include <algorithm>

#include "base/text.h"
#include "model/jinja_builtins.h"

namespace halo::jinja {
namespace {

template <JinjaOp kOp>
bool CompareTest(JinjaEvaluator& run, const JinjaValue& value, const JinjaArguments& arguments) {
  const JinjaValue* other = arguments.Find("other", 0);
  if (other == nullptr) run.Fail("the test needs something to compare with");
  if (kOp == JinjaOp::kEqual) return run.Equal(value, *other);
  if (kOp == JinjaOp::kNotEqual) return !run.Equal(value, *other);
  const int order = run.Compare(value, *other);
  switch (kOp) {
    case JinjaOp::kLess:
      return order < 0;
    case JinjaOp::kLessEqual:
      return order <= 0;
    case JinjaOp::kGreater:
      return order > 0;
    default:
      return order >= 0;
  }
}

int64_t IntOf(JinjaEvaluator& run, const JinjaValue& value) {
  if (!value.Is(JinjaKind::kInt))
    run.Fail(std::string("the test needs an integer, not ") + value.KindName());
  return value.integer();
}

bool HasCase(JinjaEvaluator& run, const JinjaValue& value, char (*change)(char)) {
  if (!value.Is(JinjaKind::kText))
    run.Fail(std::string("the test needs a text, not ") + value.KindName());
  run.Acting(value.text());
  run.Step(value.bytes().size() / 64);
  return std::all_of(value.bytes().begin(), value.bytes().end(),
                     [&](char c) { return change(c) == c; });
}

using TestFunction = bool (*)(JinjaEvaluator& run, const JinjaValue& value,
                              const JinjaArguments& arguments);

template <JinjaKind... kKinds>
bool KindTest(JinjaEvaluator&, const JinjaValue& value, const JinjaArguments&) {
  return (value.Is(kKinds) || ...);
}

template <bool kWanted>
bool BoolTest(JinjaEvaluator&, const JinjaValue& value, const JinjaArguments&) {
  return value.Is(JinjaKind::kBool) && value.boolean() == kWanted;
}

bool DivisibleTest(JinjaEvaluator& run, const JinjaValue& value, const JinjaArguments& arguments) {
  const int64_t by = IntOf(run, Needed(run, arguments, "num", 0, JinjaKind::kInt));
  if (by == 0) run.Fail("division by zero");
  return by == -1 || IntOf(run, value) % by == 0;
}

const std::unordered_map<std::string, TestFunction>& Tests() {
  static const std::unordered_map<std::string, TestFunction> kTests = {
      {"boolean", KindTest<JinjaKind::kBool>},
      {"callable", KindTest<JinjaKind::kFunction>},
      {"defined", [](JinjaEvaluator&, const JinjaValue& v,
                     const JinjaArguments&) { return !v.Is(JinjaKind::kUndefined); }},
      {"undefined", KindTest<JinjaKind::kUndefined>},
      {"none", KindTest<JinjaKind::kNone>},
      {"string", KindTest<JinjaKind::kText>},
      {"integer", KindTest<JinjaKind::kInt>},
      {"float", KindTest<JinjaKind::kFloat>},
      {"number", KindTest<JinjaKind::kInt, JinjaKind::kFloat>},
      {"iterable", KindTest<JinjaKind::kList, JinjaKind::kText, JinjaKind::kUndefined>},
      {"sequence", KindTest<JinjaKind::kList, JinjaKind::kText, JinjaKind::kUndefined>},
      {"mapping", KindTest<JinjaKind::kMap>},
      {"true", BoolTest<true>},
      {"false", BoolTest<false>},
      {"odd", [](JinjaEvaluator& run, const JinjaValue& v,
                 const JinjaArguments&) { return IntOf(run, v) % 2 != 0; }},
      {"even", [](JinjaEvaluator& run, const JinjaValue& v,
                  const JinjaArguments&) { return IntOf(run, v) % 2 == 0; }},
      {"divisibleby", DivisibleTest},
      {"lower", [](JinjaEvaluator& run, const JinjaValue& v,
                   const JinjaArguments&) { return HasCase(run, v, LowerByte); }},
      {"upper", [](JinjaEvaluator& run, const JinjaValue& v,
                   const JinjaArguments&) { return HasCase(run, v, UpperByte); }},
      {"eq", CompareTest<JinjaOp::kEqual>},
      {"equalto", CompareTest<JinjaOp::kEqual>},
      {"ne", CompareTest<JinjaOp::kNotEqual>},
      {"lt", CompareTest<JinjaOp::kLess>},
      {"lessthan", CompareTest<JinjaOp::kLess>},
      {"le", CompareTest<JinjaOp::kLessEqual>},
      {"gt", CompareTest<JinjaOp::kGreater>},
      {"greaterthan", CompareTest<JinjaOp::kGreater>},
      {"ge", CompareTest<JinjaOp::kGreaterEqual>},
      {"in",
       [](JinjaEvaluator& run, const JinjaValue& v, const JinjaArguments& arguments) {
         return !arguments.positional.empty() && run.Contains(arguments.positional[0], v);
       }},
  };
  return kTests;
}

}  // namespace
}  // namespace halo::jinja

namespace halo {

std::vector<std::string> JinjaTestNames() {
  std::vector<std::string> names;
  for (const auto& [name, test] : jinja::Tests()) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

bool JinjaEvaluator::ApplyTest(const std::string& name, const JinjaValue& value,
                               const JinjaArguments& arguments) {
  const auto test = jinja::Tests().find(name);
  if (test == jinja::Tests().end())
    Fail("unknown test '" + name + "'" + DidYouMean(name, JinjaTestNames()));
  if (value.watch() != nullptr && name == "string") value.watch()->tested_as_text = true;
  if (name != "defined" && name != "undefined") RequireDefined(value);
  return test->second(*this, value, arguments);
}

}  // namespace halo
