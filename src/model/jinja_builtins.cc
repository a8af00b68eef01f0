// The filters, methods, tests and functions that templates may use: those of llama.cpp's engine and
// a few more of Jinja's. All keep the origin of every byte, charge for what they make, and note
// what depends on a hole's text.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "base/text.h"
#include "model/jinja_evaluator.h"

namespace halo {

namespace {

constexpr std::string_view kBlanks = " \t\n\v\f\r";

constexpr uint32_t Kind(JinjaKind kind) { return 1U << static_cast<uint32_t>(kind); }
constexpr uint32_t kText = Kind(JinjaKind::kText);
constexpr uint32_t kList = Kind(JinjaKind::kList);
constexpr uint32_t kMap = Kind(JinjaKind::kMap);
constexpr uint32_t kNumber = Kind(JinjaKind::kInt) | Kind(JinjaKind::kFloat);
constexpr uint32_t kBool = Kind(JinjaKind::kBool);
constexpr uint32_t kNone = Kind(JinjaKind::kNone);
constexpr uint32_t kUndefined = Kind(JinjaKind::kUndefined);
constexpr uint32_t kScalar = kNumber | kBool;

char LowerByte(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
char UpperByte(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }

// Linear in both lengths, unlike std::string::find.
size_t FindFrom(const std::string& text, const std::string& part, size_t begin) {
  if (begin > text.size()) return std::string::npos;
  const void* found = memmem(text.data() + begin, text.size() - begin, part.data(), part.size());
  return found == nullptr ? std::string::npos
                          : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

// ---- Arguments

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

// The attribute of an item that filters such as sort and map are given by name or number.
JinjaValue ItemAttribute(JinjaEvaluator& run, const JinjaValue& item, const JinjaValue& attribute) {
  const bool has =
      item.Is(JinjaKind::kMap) || (item.Is(JinjaKind::kList) && attribute.Is(JinjaKind::kInt));
  if (!has) return run.strict() ? run.Index(item, attribute) : JinjaValue();
  if (item.Is(JinjaKind::kList)) return run.Index(item, attribute);
  const JinjaValue* value = item.map().Find(attribute);
  return value != nullptr ? *value : run.strict() ? run.Index(item, attribute) : JinjaValue();
}

const JinjaValue* AttributeArgument(const JinjaArguments& arguments, size_t position) {
  const JinjaValue* attribute = arguments.Find("attribute", position);
  return attribute == nullptr || attribute->Is(JinjaKind::kUndefined) ? nullptr : attribute;
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

JinjaValue Default(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  const JinjaValue* given = arguments.Find("default_value", 0);
  const JinjaValue otherwise = given == nullptr ? JinjaValue::Text("") : *given;
  const bool missing = self.Is(JinjaKind::kUndefined) || self.Is(JinjaKind::kNone);
  return missing || (Flag(run, arguments, "boolean", 1) && !run.Truth(self)) ? otherwise : self;
}

// ---- Lists

JinjaValue First(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments&) {
  if (self.list().items.empty() && !run.strict()) return JinjaValue();
  return run.Index(self, JinjaValue::Int(0));
}

JinjaValue Last(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments&) {
  if (self.list().items.empty() && !run.strict()) return JinjaValue();
  return run.Index(self, JinjaValue::Int(-1));
}

JinjaValue Length(JinjaEvaluator&, const JinjaValue& self, const JinjaArguments&) {
  return JinjaValue::Int(static_cast<int64_t>(
      self.Is(JinjaKind::kList) ? self.list().items.size() : self.map().entries.size()));
}

JinjaValue CopyList(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments&) {
  run.Step(self.list().items.size());
  return JinjaValue::List(self.list().items);
}

JinjaValue Reverse(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments&) {
  run.Step(self.list().items.size());
  return JinjaValue::List({self.list().items.rbegin(), self.list().items.rend()},
                          self.list().is_tuple);
}

JinjaValue SliceMethod(JinjaEvaluator& run, const JinjaValue& self,
                       const JinjaArguments& arguments) {
  return run.Slice(self, arguments.Find("start", 0), arguments.Find("stop", 1),
                   arguments.Find("step", 2));
}

JinjaValue Join(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  const JinjaValue* delimiter = arguments.Find("d", 0);
  const JinjaValue* attribute = AttributeArgument(arguments, 1);
  MarkedText between;
  if (delimiter != nullptr && !delimiter->Is(JinjaKind::kUndefined))
    between = run.TextOf(*delimiter);
  MarkedText text;
  bool is_first = true;
  for (const JinjaValue& item : self.list().items) {
    run.Step();
    if (!is_first) run.Append(between, &text);
    is_first = false;
    run.Append(run.TextOf(attribute == nullptr ? item : ItemAttribute(run, item, *attribute)),
               &text);
  }
  return run.NewText(std::move(text));
}

JinjaValue Append(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  const JinjaValue* item = arguments.Find("item", 0);
  if (item == nullptr) run.Fail("append() needs an item");
  if (self.list().is_tuple) run.Fail("a tuple cannot be changed");
  run.Mutating(self.object());
  self.list().items.push_back(*item);
  return run.strict() ? JinjaValue::Text("") : self;
}

JinjaValue Pop(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  auto& items = self.list().items;
  int64_t at = IntArgument(run, arguments, "index", 0, -1);
  if (at < 0) at += static_cast<int64_t>(items.size());
  if (self.list().is_tuple || at < 0 || at >= static_cast<int64_t>(items.size()))
    run.Fail("pop() finds no such item");
  run.Step(items.size() - static_cast<size_t>(at));
  JinjaValue item = items[static_cast<size_t>(at)];
  items.erase(items.begin() + at);
  return item;
}

JinjaValue Sort(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  const bool reverse = Flag(run, arguments, "reverse", 0);
  const JinjaValue* attribute = AttributeArgument(arguments, 2);
  std::vector<std::pair<JinjaValue, JinjaValue>> keyed;
  for (const JinjaValue& item : self.list().items) {
    run.Step();
    keyed.emplace_back(attribute == nullptr ? item : ItemAttribute(run, item, *attribute), item);
  }
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    const int order = run.Compare(a.first, b.first);
    return reverse ? order > 0 : order < 0;
  });
  std::vector<JinjaValue> items;
  for (auto& [key, item] : keyed) items.push_back(std::move(item));
  return JinjaValue::List(std::move(items), self.list().is_tuple);
}

template <int kSign>
JinjaValue Extreme(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  const JinjaValue* attribute = AttributeArgument(arguments, 1);
  if (self.list().items.empty()) return run.strict() ? First(run, self, arguments) : JinjaValue();
  const auto key = [&](const JinjaValue& item) {
    return attribute == nullptr ? item : ItemAttribute(run, item, *attribute);
  };
  JinjaValue best = self.list().items[0];
  for (const JinjaValue& item : self.list().items) {
    if (run.Compare(key(item), key(best)) * kSign > 0) best = item;
  }
  return best;
}

JinjaValue Sum(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  const JinjaValue* attribute = AttributeArgument(arguments, 0);
  int64_t whole = 0;
  double total = 0;
  bool is_whole = true;
  Origin origin = kFromTemplate;
  for (const JinjaValue& item : self.list().items) {
    run.Step();
    const JinjaValue number = attribute == nullptr ? item : ItemAttribute(run, item, *attribute);
    if (!number.IsNumber()) run.Fail(std::string("sum needs numbers, not ") + number.KindName());
    is_whole = is_whole && number.Is(JinjaKind::kInt) &&
               !__builtin_add_overflow(whole, number.integer(), &whole);
    total += number.number();
    origin = std::max(origin, number.origin());
  }
  return is_whole ? JinjaValue::Int(whole, origin) : JinjaValue::Float(total, origin);
}

JinjaValue Unique(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments&) {
  std::vector<JinjaValue> kept;
  for (const JinjaValue& item : self.list().items) {
    if (std::none_of(kept.begin(), kept.end(),
                     [&](const JinjaValue& other) { return run.Equal(item, other); })) {
      kept.push_back(item);
    }
  }
  return JinjaValue::List(std::move(kept));
}

// The arguments behind the first `used` ones.
JinjaArguments Rest(const JinjaArguments& arguments, size_t used) {
  JinjaArguments rest;
  const size_t skip = std::min(used, arguments.positional.size());
  rest.positional.assign(arguments.positional.begin() + static_cast<std::ptrdiff_t>(skip),
                         arguments.positional.end());
  return rest;
}

JinjaValue MapItems(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  const JinjaValue* attribute = arguments.Find("attribute", SIZE_MAX);
  const JinjaValue* otherwise = arguments.Find("default", SIZE_MAX);
  std::vector<JinjaValue> items;
  for (const JinjaValue& item : self.list().items) {
    run.Step();
    if (attribute == nullptr) {
      items.push_back(run.ApplyFilter(Needed(run, arguments, "filter", 0, JinjaKind::kText).bytes(),
                                      item, Rest(arguments, 1)));
      continue;
    }
    const JinjaValue* found = item.Is(JinjaKind::kMap) ? item.map().Find(*attribute) : nullptr;
    items.push_back(found != nullptr       ? *found
                    : otherwise != nullptr ? *otherwise
                                           : ItemAttribute(run, item, *attribute));
  }
  return JinjaValue::List(std::move(items), self.list().is_tuple);
}

template <bool kByAttribute, bool kReject>
JinjaValue Select(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  const size_t used = kByAttribute ? 1 : 0;
  const bool has_test = arguments.positional.size() > used;
  std::vector<JinjaValue> kept;
  for (const JinjaValue& item : self.list().items) {
    run.Step();
    JinjaValue value = item;
    if (kByAttribute) {
      const JinjaValue& attribute = Needed(run, arguments, "attribute", 0, JinjaKind::kText);
      const JinjaValue* found = item.Is(JinjaKind::kMap) ? item.map().Find(attribute) : nullptr;
      value = found != nullptr ? *found : JinjaValue();
      if (found == nullptr && !has_test) value = JinjaValue::Bool(false);
    }
    const bool passes =
        has_test ? run.ApplyTest(Needed(run, arguments, "test", used, JinjaKind::kText).bytes(),
                                 value, Rest(arguments, used + 1))
                 : run.Truth(value);
    if (passes != kReject) kept.push_back(item);
  }
  return JinjaValue::List(std::move(kept));
}

// ---- Mappings

JinjaValue Get(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  const JinjaValue* key = arguments.Find("key", 0);
  if (key == nullptr) run.Fail("get() needs a key");
  run.UseAsKey(*key);
  const JinjaValue* value = self.map().Find(*key);
  const JinjaValue* otherwise = arguments.Find("default", 1);
  return value != nullptr ? *value : otherwise != nullptr ? *otherwise : JinjaValue::None();
}

enum class Side { kKeys, kValues, kBoth };

template <Side kSide>
JinjaValue Entries(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments&) {
  std::vector<JinjaValue> items;
  run.Step(self.map().entries.size());
  if (self.watch() != nullptr) self.watch()->read = true;
  for (const auto& [key, value] : self.map().entries) {
    items.push_back(kSide == Side::kKeys     ? key
                    : kSide == Side::kValues ? value
                                             : JinjaValue::List({key, value}, /*is_tuple=*/true));
  }
  return JinjaValue::List(std::move(items));
}

JinjaValue DictSort(JinjaEvaluator& run, const JinjaValue& self, const JinjaArguments& arguments) {
  const std::string* by = TextArgument(run, arguments, "by", 1);
  JinjaArguments how;
  how.named.emplace_back("attribute", JinjaValue::Int(by != nullptr && *by == "value" ? 1 : 0));
  how.named.emplace_back("reverse", JinjaValue::Bool(Flag(run, arguments, "reverse", 2)));
  return Sort(run, Entries<Side::kBoth>(run, self, arguments), how);
}

// ---- JSON

struct JsonStyle {
  int64_t indent = -1;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};

class JsonWriter {
 public:
  JsonWriter(JinjaEvaluator& run, const JsonStyle& style, Origin structure, MarkedText* out)
      : run_(run), style_(style), structure_(structure), out_(out) {}

  void Write(const JinjaValue& value, int depth) {
    run_.Step();
    if (depth > 200) run_.Fail("a value is nested too deeply");
    switch (value.kind()) {
      case JinjaKind::kBool:
        out_->Append(value.boolean() ? "true" : "false", value.origin());
        break;
      case JinjaKind::kInt:
        out_->Append(std::to_string(value.integer()), value.origin());
        break;
      case JinjaKind::kFloat:
        out_->Append(Number(value.number()), value.origin());
        break;
      case JinjaKind::kText:
        Quoted(value.text());
        break;
      case JinjaKind::kList:
        Items("[", "]", value.list().items.size(), depth,
              [&](size_t i) { Write(value.list().items[i], depth + 1); });
        break;
      case JinjaKind::kMap:
        Map(value, depth);
        break;
      case JinjaKind::kUndefined:
        if (run_.strict()) run_.Truth(value);  // tells what is undefined
        [[fallthrough]];
      default:
        out_->Append("null", value.Is(JinjaKind::kNone) ? value.origin() : structure_);
        break;
    }
  }

 private:
  // Strict mode: the shortest digits that read back the same. Else as llama.cpp prints it.
  std::string Number(double number) const {
    if (!std::isfinite(number)) return "null";
    if (run_.strict()) return nlohmann::json(number).dump();
    std::string text = std::to_string(number);
    text.erase(text.find_last_not_of('0') + 1);
    return text.back() == '.' ? text + "0" : text;
  }

  void Quoted(const MarkedText& text) {
    run_.Acting(text);
    run_.Step(text.size() / 64);
    out_->Append("\"", structure_);
    text.ForEachPart([&](std::string_view bytes, Origin origin) {
      size_t done = 0;
      for (size_t i = 0; i < bytes.size(); ++i) {
        const std::string escape = Escape(bytes[i]);
        if (escape.empty()) continue;
        out_->Append(bytes.substr(done, i - done), origin);
        out_->Append(escape, origin);
        done = i + 1;
      }
      out_->Append(bytes.substr(done), origin);
    });
    out_->Append("\"", structure_);
  }

  static std::string Escape(char c) {
    static constexpr std::string_view kPlain = "\"\\\b\f\n\r\t";
    static constexpr std::string_view kLetters = "\"\\bfnrt";
    if (static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\') return "";
    const size_t at = kPlain.find(c);
    if (at != std::string_view::npos) return {'\\', kLetters[at]};
    static constexpr std::string_view kDigits = "0123456789abcdef";
    const auto byte = static_cast<unsigned char>(c);
    return {'\\', 'u', '0', '0', kDigits[byte >> 4], kDigits[byte & 15]};
  }

  template <typename WriteItem>
  void Items(const char* open, const char* close, size_t count, int depth, WriteItem write_item) {
    out_->Append(open, structure_);
    for (size_t i = 0; i < count; ++i) {
      run_.Step((style_.item_separator.size() + style_.key_separator.size()) / 64);
      if (i > 0) out_->Append(style_.item_separator, structure_);
      NewLine(depth + 1);
      write_item(i);
    }
    if (count > 0) NewLine(depth);
    out_->Append(close, structure_);
  }

  void NewLine(int depth) {
    if (style_.indent < 0) return;
    run_.Step(static_cast<size_t>(style_.indent * depth) / 64);
    out_->Append("\n" + std::string(static_cast<size_t>(style_.indent * depth), ' '), structure_);
  }

  void Map(const JinjaValue& value, int depth) {
    if (value.watch() != nullptr) value.watch()->read = true;
    std::vector<const std::pair<JinjaValue, JinjaValue>*> entries;
    for (const auto& entry : value.map().entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
        return run_.Compare(a->first, b->first) < 0;
      });
    }
    Items("{", "}", entries.size(), depth, [&](size_t i) {
      const JinjaValue& key = entries[i]->first;
      Quoted(key.Is(JinjaKind::kText) ? key.text() : run_.TextOf(key));
      out_->Append(style_.key_separator, structure_);
      Write(entries[i]->second, depth + 1);
    });
  }

  JinjaEvaluator& run_;
  const JsonStyle& style_;
  const Origin structure_;
  MarkedText* out_;
};

JinjaValue ToJsonText(JinjaEvaluator& run, const JinjaValue& self,
                      const JinjaArguments& arguments) {
  JsonStyle style;
  style.indent = IntArgument(run, arguments, "indent", run.strict() ? 0 : 1, -1);
  if (style.indent > 16) run.Fail("JSON is indented by 16 spaces at most");
  style.sort_keys = Flag(run, arguments, "sort_keys", 3);
  if (Flag(run, arguments, "ensure_ascii", run.strict() ? 4 : 0))
    run.Fail("ensure_ascii is not supported");
  if (style.indent >= 0) style.item_separator = ",";
  if (run.strict() && style.indent < 0) {
    style.item_separator = ",";
    style.key_separator = ":";
  }
  const JinjaValue* separators = arguments.Find("separators", 2);
  if (separators != nullptr && separators->Is(JinjaKind::kList) &&
      separators->list().items.size() == 2) {
    style.item_separator = run.TextOf(separators->list().items[0]).bytes();
    style.key_separator = run.TextOf(separators->list().items[1]).bytes();
  }
  MarkedText text;
  JsonWriter(run, style, run.strict() ? kFromData : kFromTemplate, &text).Write(self, 0);
  return run.NewText(std::move(text));
}

// ---- Functions

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

JinjaValue JsonFunction(JinjaEvaluator& run, const JinjaValue&, const JinjaArguments& arguments) {
  if (arguments.positional.empty()) run.Fail("tojson() needs a value");
  JinjaArguments rest = Rest(arguments, 1);
  rest.named = arguments.named;
  return ToJsonText(run, arguments.positional[0], rest);
}

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
    {"slice", kText | kList, SliceMethod},
    {"int", kText | kScalar, ToInt},
    {"float", kText | kScalar, ToFloat},
    {"abs", kNumber, Abs},
    {"round", kNumber, Round},
    {"string", kText | kScalar | kList | kMap | kNone, ToText},
    {"safe", kText | kScalar | kNone, ToText},
    {"tojson", kText | kScalar | kList | kMap | kNone, ToJsonText},
    {"default", kText | kScalar | kList | kNone | kUndefined, Default},
    {"first", kList, First},
    {"last", kList, Last},
    {"length", kList | kMap, Length},
    {"list", kList, CopyList},
    {"reverse", kList, Reverse},
    {"join", kList, Join},
    {"append", kList, Append},
    {"pop", kList, Pop},
    {"sort", kList, Sort},
    {"min", kList, Extreme<-1>},
    {"max", kList, Extreme<1>},
    {"sum", kList, Sum},
    {"unique", kList, Unique},
    {"map", kList, MapItems},
    {"select", kList, Select<false, false>},
    {"reject", kList, Select<false, true>},
    {"selectattr", kList, Select<true, false>},
    {"rejectattr", kList, Select<true, true>},
    {"get", kMap, Get},
    {"keys", kMap, Entries<Side::kKeys>},
    {"values", kMap, Entries<Side::kValues>},
    {"items", kMap, Entries<Side::kBoth>},
    {"dictsort", kMap, DictSort},
};

constexpr JinjaBuiltin kFunctions[] = {
    {"raise_exception", 0, RaiseException},
    {"namespace", 0, Namespace},
    {"strftime_now", 0, StrftimeNow},
    {"range", 0, Range},
    {"tojson", 0, JsonFunction},
};

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

const JinjaBuiltin* FindJinjaMethod(std::string_view name, JinjaKind kind) {
  static const auto kIndex = [] {
    std::unordered_multimap<std::string_view, const JinjaBuiltin*> index;
    for (const JinjaBuiltin& method : kMethods) index.emplace(method.name, &method);
    return index;
  }();
  const auto [begin, end] = kIndex.equal_range(name);
  const auto found = std::find_if(
      begin, end, [&](const auto& entry) { return (entry.second->kinds & Kind(kind)) != 0; });
  return found == end ? nullptr : found->second;
}

const JinjaBuiltin* FindJinjaFunction(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(kFunctions), std::end(kFunctions),
                   [&](const JinjaBuiltin& function) { return function.name == name; });
  return found == std::end(kFunctions) ? nullptr : found;
}

std::vector<std::string> JinjaFilterNames() {
  std::set<std::string> names = {"count", "d", "trim"};
  for (const JinjaBuiltin& method : kMethods) names.emplace(method.name);
  return {names.begin(), names.end()};
}

std::vector<std::string> JinjaTestNames() {
  std::vector<std::string> names;
  for (const auto& [name, test] : Tests()) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

std::set<std::string> JinjaFunctionNames() {
  std::set<std::string> names;
  for (const JinjaBuiltin& function : kFunctions) names.emplace(function.name);
  return names;
}

MarkedText JinjaJsonText(JinjaEvaluator& run, const JinjaValue& value, Origin structure) {
  JsonStyle style;
  if (run.strict()) {
    style.item_separator = ",";
    style.key_separator = ":";
  }
  MarkedText text;
  JsonWriter(run, style, structure, &text).Write(value, 0);
  return text;
}

JinjaValue JinjaEvaluator::ApplyFilter(const std::string& given_name, JinjaValue operand,
                                       const JinjaArguments& arguments) {
  const std::string name = FilterName(given_name);
  if (operand.watch() != nullptr && name == "selectattr") operand.watch()->used_as_list = true;
  if (name != "default") RequireDefined(operand);
  if (TakesText(name) && !operand.Is(JinjaKind::kText) && !operand.Is(JinjaKind::kUndefined)) {
    operand = JinjaValue::Text(TextOf(operand));
  }
  const JinjaBuiltin* filter = FindJinjaMethod(name, operand.kind());
  if (filter != nullptr) return filter->run(*this, operand, arguments);
  // A mapping has no method of that name, but anything may have a default.
  if (name == "default") return Default(*this, operand, arguments);
  if (!strict() && (operand.Is(JinjaKind::kUndefined) || operand.Is(JinjaKind::kNone))) {
    if (auto empty = EmptyResult(name, operand.Is(JinjaKind::kUndefined))) return *empty;
  }
  const std::vector<std::string> names = JinjaFilterNames();
  const bool is_known = std::find(names.begin(), names.end(), given_name) != names.end();
  Fail(is_known ? "the filter '" + given_name + "' cannot be applied to " + operand.KindName()
                : "unknown filter '" + given_name + "'" + DidYouMean(given_name, names));
}

bool JinjaEvaluator::ApplyTest(const std::string& name, const JinjaValue& value,
                               const JinjaArguments& arguments) {
  const auto test = Tests().find(name);
  if (test == Tests().end())
    Fail("unknown test '" + name + "'" + DidYouMean(name, JinjaTestNames()));
  if (value.watch() != nullptr && name == "string") value.watch()->tested_as_text = true;
  if (name != "defined" && name != "undefined") RequireDefined(value);
  return test->second(*this, value, arguments);
}

}  // namespace halo
