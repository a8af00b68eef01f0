// What templates may do with texts and numbers. Every byte keeps its origin; what is made is
// charged for; what depends on a hole's text is noted.
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "model/jinja_builtins.h"

namespace halo::jinja {
namespace {

constexpr std::string_view kBlanks = " \t\n\v\f\r";
// Linear in both lengths, unlike std::string::find.
size_t FindFrom(const std::string& text, const std::string& part, size_t begin) {
  if (begin > text.size()) return std::string::npos;
  const void* found = memmem(text.data() + begin, text.size() - begin, part.data(), part.size());
  return found == nullptr ? std::string::npos
                          : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

// ---- Texts

template <char (*Change)(char)>
JinjaValue ChangeCase(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments&) {
  run.Acting(self.text());
  MarkedText text = self.text();
  text.Transform([](std::string* bytes) {
    std::transform(bytes->begin(), bytes->end(), bytes->begin(), Change);
  });
  return run.NewText(std::move(text));
}

template <bool kEveryWord>
JinjaValue Capitalize(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments&) {
  run.Acting(self.text());
  MarkedText text = self.text();
  text.Transform([](std::string* bytes) {
    bool is_first = true;
    for (char& c : *bytes) {
      const bool is_blank = kBlanks.find(c) != std::string_view::npos;
      c = is_first && !is_blank ? UpperByte(c) : LowerByte(c);
      is_first = kEveryWord ? is_blank : false;
    }
  });
  return run.NewText(std::move(text));
}

template <bool kLeft, bool kRight>
JinjaValue Strip(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  const std::string* chars = TextArgument(run, arguments, "chars", 0);
  const std::string_view stripped = chars == nullptr ? kBlanks : std::string_view(*chars);
  if (stripped.find_first_not_of(kBlanks) != std::string_view::npos) run.Acting(self.text());
  std::array<bool, 256> is_stripped = {};
  for (const char c : stripped) is_stripped[static_cast<unsigned char>(c)] = true;
  const std::string& bytes = self.bytes();
  size_t begin = 0;
  size_t end = bytes.size();
  while (kLeft && begin < end && is_stripped[static_cast<unsigned char>(bytes[begin])]) ++begin;
  while (kRight && end > begin && is_stripped[static_cast<unsigned char>(bytes[end - 1])]) --end;
  run.Step((stripped.size() + begin + bytes.size() - end) / 64);
  if (begin == 0 && end == bytes.size()) return self;
  return run.NewText(self.text().Slice(begin, end - begin));
}

JinjaValue TextLength(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments&) {
  run.Acting(self.text());
  const std::string& bytes = self.bytes();
  run.Step(bytes.size() / 64);
  const auto characters = std::count_if(bytes.begin(), bytes.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  });
  return JinjaValue::Int(run.strict() ? characters : static_cast<int64_t>(bytes.size()),
                         self.text().Blend());
}

JinjaValue WordCount(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments&) {
  run.Acting(self.text());
  int64_t words = 0;
  bool in_word = false;
  for (const char c : self.bytes()) {
    const bool is_blank = kBlanks.find(c) != std::string_view::npos;
    words += !is_blank && !in_word ? 1 : 0;
    in_word = !is_blank;
  }
  run.Step(self.bytes().size() / 64);
  return JinjaValue::Int(words, self.text().Blend());
}

template <bool kAtEnd>
JinjaValue HasEnd(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  const JinjaValue& part =
      Needed(run, arguments, kAtEnd ? "suffix" : "prefix", 0, JinjaKind::kText);
  run.Searching(self.text(), part.text());
  run.Step(part.bytes().size() / 64);
  const std::string& bytes = self.bytes();
  const std::string& end = part.bytes();
  if (end.size() > bytes.size()) return JinjaValue::Bool(false);
  return JinjaValue::Bool(bytes.compare(kAtEnd ? bytes.size() - end.size() : 0, end.size(), end) ==
                          0);
}

template <bool kFromRight>
JinjaValue Split(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  const JinjaValue blank = JinjaValue::Text(" ");
  const JinjaValue* given = arguments.Find("sep", 0);
  const JinjaValue& separator =
      given == nullptr ? blank : Needed(run, arguments, "sep", 0, JinjaKind::kText);
  if (separator.bytes().empty()) run.Fail("a text cannot be split at the empty text");
  run.Searching(self.text(), separator.text());
  const int64_t limit = IntArgument(run, arguments, "maxsplit", 1, -1);
  // From the right is from the left of the mirrored text.
  std::string bytes = self.bytes();
  std::string part = separator.bytes();
  if (kFromRight) std::reverse(bytes.begin(), bytes.end());
  if (kFromRight) std::reverse(part.begin(), part.end());
  std::vector<JinjaValue> parts;
  const auto add = [&](size_t begin, size_t length) {
    run.Step();
    parts.push_back(
        run.NewText(self.text().Slice(kFromRight ? bytes.size() - begin - length : begin, length)));
  };
  run.Step((bytes.size() + part.size()) / 64);
  size_t begin = 0;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t at = FindFrom(bytes, part, begin);
    if (at == std::string::npos) break;
    add(begin, at - begin);
    begin = at + part.size();
  }
  add(begin, bytes.size() - begin);
  if (kFromRight) std::reverse(parts.begin(), parts.end());
  return JinjaValue::List(std::move(parts));
}

JinjaValue Replace(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  const JinjaValue& old = Needed(run, arguments, "old", 0, JinjaKind::kText);
  const JinjaValue& fresh = Needed(run, arguments, "new", 1, JinjaKind::kText);
  int64_t left = IntArgument(run, arguments, "count", 2, -1);
  run.Searching(self.text(), old.text());
  if (old.bytes().empty()) run.Fail("the empty text cannot be replaced");
  const std::string& bytes = self.bytes();
  MarkedText text;
  size_t begin = 0;
  run.Step((bytes.size() + old.bytes().size()) / 64);
  for (size_t at = FindFrom(bytes, old.bytes(), 0); at != std::string::npos && left != 0;
       at = FindFrom(bytes, old.bytes(), begin)) {
    run.Step(1 + fresh.bytes().size() / 64);
    text.AppendSlice(self.text(), begin, at - begin);
    text.Append(fresh.text());
    begin = at + old.bytes().size();
    --left;
  }
  text.AppendSlice(self.text(), begin, bytes.size());
  return run.NewText(std::move(text));
}

JinjaValue Format(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  run.Acting(self.text());
  const std::string& bytes = self.bytes();
  MarkedText text;
  size_t begin = 0;
  size_t next = 0;
  for (size_t at = bytes.find('{'); at != std::string::npos; at = bytes.find('{', begin)) {
    run.Step();
    if (at + 1 >= bytes.size() || bytes[at + 1] != '}') run.Fail("format() knows '{}' only");
    if (next >= arguments.positional.size()) run.Fail("format() has more '{}' than arguments");
    text.AppendSlice(self.text(), begin, at - begin);
    run.Append(run.TextOf(arguments.positional[next++]), &text);
    begin = at + 2;
  }
  text.AppendSlice(self.text(), begin, bytes.size());
  return run.NewText(std::move(text));
}

JinjaValue Indent(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  run.Acting(self.text());
  const JinjaValue* width = arguments.Find("width", 0);
  const bool first = Flag(run, arguments, "first", 1);
  const bool blank = Flag(run, arguments, "blank", 2);
  MarkedText indent("    ", kFromTemplate);
  if (width != nullptr && width->Is(JinjaKind::kText)) indent = width->text();
  if (width != nullptr && width->Is(JinjaKind::kInt)) {
    if (width->integer() < 0 || width->integer() > 1000)
      run.Fail("a text is indented by 0 to 1000 spaces");
    indent = MarkedText(std::string(static_cast<size_t>(width->integer()), ' '), width->origin());
  }
  const std::string& bytes = self.bytes();
  MarkedText text;
  for (size_t begin = 0; begin < bytes.size();) {
    run.Step(1 + indent.size() / 64);
    const size_t newline = bytes.find('\n', begin);
    const size_t end = newline == std::string::npos ? bytes.size() : newline;
    if (begin == 0 ? first : (end > begin || blank)) text.Append(indent);
    text.AppendSlice(self.text(), begin, end + 1 - begin);
    begin = end + 1;
    if (begin == bytes.size() && newline != std::string::npos && blank) text.Append(indent);
  }
  return run.NewText(std::move(text));
}

// ---- Numbers

JinjaValue ToInt(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  if (self.Is(JinjaKind::kInt)) return self;
  if (self.Is(JinjaKind::kBool)) return JinjaValue::Int(self.boolean() ? 1 : 0, self.origin());
  const JinjaValue* otherwise = arguments.Find("default", 0);
  const JinjaValue fallback = otherwise != nullptr ? *otherwise : JinjaValue::Int(0);
  double number = 0;
  if (self.Is(JinjaKind::kFloat)) {
    number = self.number();
  } else {
    run.Acting(self.text());
    run.Step(self.bytes().size() / 64);
    const int64_t base = IntArgument(run, arguments, "base", 1, 10);
    if (base != 0 && (base < 2 || base > 36)) run.Fail("a base is 0 or from 2 to 36");
    char* end = nullptr;
    errno = 0;
    const int64_t parsed = std::strtoll(self.bytes().c_str(), &end, static_cast<int>(base));
    if (end == self.bytes().c_str() || errno != 0) return fallback;
    return JinjaValue::Int(parsed, self.text().Blend());
  }
  if (!(std::abs(number) < 9.2e18)) return fallback;
  return JinjaValue::Int(static_cast<int64_t>(number), self.origin());
}

JinjaValue ToFloat(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  if (self.IsNumber()) return JinjaValue::Float(self.number(), self.origin());
  if (self.Is(JinjaKind::kBool)) return JinjaValue::Float(self.boolean() ? 1 : 0, self.origin());
  run.Acting(self.text());
  run.Step(self.bytes().size() / 64);
  char* end = nullptr;
  const double parsed = std::strtod(self.bytes().c_str(), &end);
  if (end != self.bytes().c_str()) return JinjaValue::Float(parsed, self.text().Blend());
  const JinjaValue* otherwise = arguments.Find("default", 0);
  return otherwise != nullptr ? *otherwise : JinjaValue::Float(0);
}

JinjaValue Abs(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments&) {
  if (self.Is(JinjaKind::kFloat)) return JinjaValue::Float(std::abs(self.number()), self.origin());
  if (self.integer() == INT64_MIN) run.Fail("the number is too large");
  return JinjaValue::Int(std::abs(self.integer()), self.origin());
}

JinjaValue Round(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  const int64_t digits = IntArgument(run, arguments, "precision", 0, 0);
  if (digits < 0 || digits > 15) run.Fail("a number is rounded to 0 to 15 digits");
  const double scale = std::pow(10.0, static_cast<double>(digits));
  return JinjaValue::Float(std::round(self.number() * scale) / scale, self.origin());
}

// ---- Any value

JinjaValue ToText(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments&) {
  return self.Is(JinjaKind::kText) ? self : run.NewText(run.TextOf(self));
}

}  // namespace

JinjaValue Default(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  const JinjaValue* given = arguments.Find("default_value", 0);
  const JinjaValue otherwise = given == nullptr ? JinjaValue::Text("") : *given;
  const bool missing = self.Is(JinjaKind::kUndefined) || self.Is(JinjaKind::kNone);
  return missing || (Flag(run, arguments, "boolean", 1) && !run.Truth(self)) ? otherwise : self;
}

namespace {

constexpr JinjaBuiltin kMethods[] = {
    {"upper", kText, ChangeCase<UpperByte>},
    {"lower", kText, ChangeCase<LowerByte>},
    {"title", kText, Capitalize<true>},
    {"capitalize", kText, Capitalize<false>},
    {"strip", kText, Strip<true, true>},
    {"lstrip", kText, Strip<true, false>},
    {"rstrip", kText, Strip<false, true>},
    {"length", kText, TextLength},
    {"wordcount", kText, WordCount},
    {"startswith", kText, HasEnd<false>},
    {"endswith", kText, HasEnd<true>},
    {"split", kText, Split<false>},
    {"rsplit", kText, Split<true>},
    {"replace", kText, Replace},
    {"format", kText, Format},
    {"indent", kText, Indent},
    {"int", kText | kScalar, ToInt},
    {"float", kText | kScalar, ToFloat},
    {"abs", kNumber, Abs},
    {"round", kNumber, Round},
    {"string", kText | kScalar | kList | kMap | kNone, ToText},
    {"safe", kText | kScalar | kNone, ToText},
    {"default", kText | kScalar | kList | kNone | kUndefined, Default},
};

}  // namespace

std::span<const JinjaBuiltin> TextMethods() { return kMethods; }

}  // namespace halo::jinja
