// What templates do with values: truth, order, texts, elements; and what they learn of the text in
// holes while they do it.
#include <algorithm>
#include <cstring>

#include "model/jinja_evaluator.h"

namespace halo {

namespace {

constexpr int kMaxValueDepth = 200;  // lists in lists

// The number of bytes of the longest ends of `text` that overlap a search for `needle` from
// outside.
bool EndsWithPartOf(std::string_view text, std::string_view needle, bool is_bounded_by_hole) {
  for (size_t length = 1; length < needle.size() && length <= text.size(); ++length) {
    if (text.substr(text.size() - length) == needle.substr(0, length)) return true;
  }
  return is_bounded_by_hole && needle.find(text) != std::string_view::npos;
}

bool BeginsWithPartOf(std::string_view text, std::string_view needle, bool is_bounded_by_hole) {
  for (size_t length = 1; length < needle.size() && length <= text.size(); ++length) {
    if (text.substr(0, length) == needle.substr(needle.size() - length)) return true;
  }
  return is_bounded_by_hole && needle.find(text) != std::string_view::npos;
}

struct TextPart {
  std::string_view bytes;
  bool is_hole;
};

// Template text and data count alike here; neighbours of one kind are joined.
std::vector<TextPart> HoleParts(const MarkedText& text) {
  std::vector<TextPart> parts;
  text.ForEachPart([&](std::string_view bytes, Origin origin) {
    const bool is_hole = origin >= kFirstHole;
    if (!is_hole && !parts.empty() && !parts.back().is_hole) {
      parts.back().bytes = {parts.back().bytes.data(), parts.back().bytes.size() + bytes.size()};
    } else {
      parts.push_back({bytes, is_hole});
    }
  });
  return parts;
}

}  // namespace

// ---- What a template learns of the text in holes

void JinjaEvaluator::Acting(const MarkedText& text) {
  if (settings_.observations != nullptr && text.HasHole()) settings_.observations->acted = true;
}

void JinjaEvaluator::Searching(const MarkedText& text, const MarkedText& needle) {
  if (settings_.observations == nullptr) return;
  Acting(needle);
  if (!text.HasHole()) return;
  settings_.observations->needles.insert(needle.bytes());
  // What is beside a hole could complete a needle that the hole's text has only a part of.
  const std::vector<TextPart> parts = HoleParts(text);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!parts[i].is_hole) continue;
    const bool next_to_hole = i > 0 && parts[i - 1].is_hole;
    const bool hole_before = i > 1 && parts[i - 2].is_hole;
    const bool hole_after = i + 2 < parts.size() && parts[i + 2].is_hole;
    if (next_to_hole ||
        (i > 0 && EndsWithPartOf(parts[i - 1].bytes, needle.bytes(), hole_before)) ||
        (i + 1 < parts.size() && !parts[i + 1].is_hole &&
         BeginsWithPartOf(parts[i + 1].bytes, needle.bytes(), hole_after))) {
      settings_.observations->acted = true;
    }
  }
}

void JinjaEvaluator::Comparing(const MarkedText& text, const MarkedText& other) {
  if (settings_.observations == nullptr) return;
  const bool both = text.HasHole() && other.HasHole();
  if (both) settings_.observations->acted = true;
  if (both || !(text.HasHole() || other.HasHole())) return;
  const MarkedText& with_hole = text.HasHole() ? text : other;
  const std::string& constant = (text.HasHole() ? other : text).bytes();
  const std::vector<TextPart> parts = HoleParts(with_hole);
  for (const TextPart& part : parts) {
    // Text beside the hole that the constant does not have: never equal, whatever the hole says.
    if (!part.is_hole && constant.find(part.bytes) == std::string::npos) return;
  }
  if (parts.size() > 1) settings_.observations->acted = true;
  settings_.observations->equals.insert(constant);
}

// ---- Values

bool JinjaEvaluator::Truth(const JinjaValue& value) {
  switch (value.kind()) {
    case JinjaKind::kUndefined:
      RequireDefined(value);
      return false;
    case JinjaKind::kNone:
      return false;
    case JinjaKind::kBool:
      return value.boolean();
    case JinjaKind::kInt:
      return value.integer() != 0;
    case JinjaKind::kFloat:
      return value.number() != 0;
    case JinjaKind::kText:
      return !value.text().empty();
    case JinjaKind::kList:
      return !value.list().items.empty();
    case JinjaKind::kMap:
      return !value.map().entries.empty();
    case JinjaKind::kFunction:
      break;
  }
  return true;
}

bool JinjaEvaluator::Equal(const JinjaValue& a, const JinjaValue& b, int depth) {
  if (depth > kMaxValueDepth) Fail("a value is nested too deeply to be compared");
  Step();
  RequireDefined(a);
  RequireDefined(b);
  const auto is_numeric = [](const JinjaValue& value) {
    return value.IsNumber() || value.Is(JinjaKind::kBool);
  };
  if (is_numeric(a) && is_numeric(b)) {
    const bool exact = !a.Is(JinjaKind::kFloat) && !b.Is(JinjaKind::kFloat);
    return exact ? a.integer() == b.integer() : a.number() == b.number();
  }
  if (a.kind() != b.kind()) return false;
  if (a.Is(JinjaKind::kText)) {
    Comparing(a.text(), b.text());
    if (a.bytes().size() == b.bytes().size()) Step(a.bytes().size() / kBytesPerStep);
    return a.bytes() == b.bytes();
  }
  if (a.Is(JinjaKind::kList)) {
    const auto& left = a.list().items;
    const auto& right = b.list().items;
    return left.size() == right.size() && std::equal(left.begin(), left.end(), right.begin(),
                                                     [&](const JinjaValue& x, const JinjaValue& y) {
                                                       return Equal(x, y, depth + 1);
                                                     });
  }
  if (a.Is(JinjaKind::kMap)) {
    const JinjaMap& right = b.map();
    if (a.map().entries.size() != right.entries.size()) return false;
    return std::all_of(a.map().entries.begin(), a.map().entries.end(), [&](const auto& entry) {
      const JinjaValue* other = right.Find(entry.first);
      return other != nullptr && Equal(entry.second, *other, depth + 1);
    });
  }
  if (a.Is(JinjaKind::kFunction)) return a.object() == b.object();
  return true;  // none, undefined
}

int JinjaEvaluator::Compare(const JinjaValue& a, const JinjaValue& b) {
  Step();
  RequireDefined(a);
  RequireDefined(b);
  const auto rank = [&](const JinjaValue& value) {
    if (value.IsNumber() || value.Is(JinjaKind::kBool)) return 0;
    if (value.Is(JinjaKind::kText)) return 1;
    Fail(std::string(value.KindName()) + " has no order");
  };
  const int rank_a = rank(a);
  const int rank_b = rank(b);
  if (rank_a != rank_b) return rank_a - rank_b;
  if (rank_a == 1) {
    Acting(a.text());
    Acting(b.text());
    Step(std::min(a.bytes().size(), b.bytes().size()) / kBytesPerStep);
    return a.bytes().compare(b.bytes());
  }
  if (!a.Is(JinjaKind::kFloat) && !b.Is(JinjaKind::kFloat)) {
    return a.integer() < b.integer() ? -1 : a.integer() > b.integer() ? 1 : 0;
  }
  // What is no number comes last, so that sorting has an order.
  if (std::isnan(a.number()) || std::isnan(b.number()))
    return (std::isnan(a.number()) ? 1 : 0) - (std::isnan(b.number()) ? 1 : 0);
  return a.number() < b.number() ? -1 : a.number() > b.number() ? 1 : 0;
}

bool JinjaEvaluator::Contains(const JinjaValue& container, const JinjaValue& item) {
  RequireDefined(container);
  RequireDefined(item);
  switch (container.kind()) {
    case JinjaKind::kUndefined:
      return false;
    case JinjaKind::kList: {
      const auto& items = container.list().items;
      return std::any_of(items.begin(), items.end(),
                         [&](const JinjaValue& other) { return Equal(item, other); });
    }
    case JinjaKind::kText:
      if (!item.Is(JinjaKind::kText))
        Fail(std::string("'in' a text needs a text, not ") + item.KindName());
      Searching(container.text(), item.text());
      Step((container.text().size() + item.text().size()) / kBytesPerStep);
      return memmem(container.bytes().data(), container.bytes().size(), item.bytes().data(),
                    item.bytes().size()) != nullptr;
    case JinjaKind::kMap:
      UseAsKey(item);
      return container.map().Find(item) != nullptr;
    default:
      Fail(std::string("'in' needs a list, a text or a mapping, not ") + container.KindName());
  }
}

MarkedText JinjaEvaluator::TextOf(const JinjaValue& value, int depth) {
  if (depth > kMaxValueDepth) Fail("a value is nested too deeply");
  if (value.Is(JinjaKind::kText)) return value.text();
  RequireDefined(value);
  if (value.Is(JinjaKind::kFunction)) Fail("a function is not a text; is it to be called?");
  if (settings_.strict || value.IsNumber()) return JinjaJsonText(*this, value, kFromData);
  // As Python prints them.
  switch (value.kind()) {
    case JinjaKind::kNone:
      return MarkedText("None", kFromTemplate);
    case JinjaKind::kBool:
      return MarkedText(value.boolean() ? "True" : "False", value.origin());
    case JinjaKind::kList:
    case JinjaKind::kMap:
      break;
    default:
      return MarkedText();
  }
  MarkedText text;
  const auto add = [&](const JinjaValue& item) {
    Step();
    const bool quoted = item.Is(JinjaKind::kText) && item.bytes().find('\'') == std::string::npos;
    if (item.Is(JinjaKind::kText)) Acting(item.text());
    if (quoted) text.Append("'", kFromTemplate);
    Append(item.Is(JinjaKind::kText) && !quoted ? JinjaJsonText(*this, item, kFromTemplate)
                                                : TextOf(item, depth + 1),
           &text);
    if (quoted) text.Append("'", kFromTemplate);
  };
  const bool is_list = value.Is(JinjaKind::kList);
  const bool is_tuple = is_list && value.list().is_tuple;
  text.Append(is_tuple ? "(" : is_list ? "[" : "{", kFromTemplate);
  size_t count = 0;
  if (is_list) {
    for (const JinjaValue& item : value.list().items) {
      if (count++ > 0) text.Append(", ", kFromTemplate);
      add(item);
    }
  } else {
    for (const auto& [key, item] : value.map().entries) {
      if (count++ > 0) text.Append(", ", kFromTemplate);
      add(key);
      text.Append(": ", kFromTemplate);
      add(item);
    }
  }
  text.Append(is_tuple ? (count == 1 ? ",)" : ")") : is_list ? "]" : "}", kFromTemplate);
  return text;
}

void JinjaEvaluator::Print(const JinjaValue& value, MarkedText* out, int depth) {
  if (value.Is(JinjaKind::kText)) return Append(value.text(), out);
  if (settings_.strict) return Append(TextOf(value), out);
  // llama.cpp prints the items of lists one after another and nothing for what is no text or
  // number.
  if (value.IsNumber() || value.Is(JinjaKind::kBool)) return Append(TextOf(value), out);
  if (!value.Is(JinjaKind::kList)) return;
  if (depth > kMaxValueDepth) Fail("a value is nested too deeply");
  Step(value.list().items.size());
  for (const JinjaValue& item : value.list().items) Print(item, out, depth + 1);
}

JinjaValue JinjaEvaluator::Attribute(const JinjaValue& object, const std::string& name,
                                     bool for_call) {
  RequireDefined(object);
  if (object.Is(JinjaKind::kFunction)) Fail("a function has no attribute '" + name + "'");
  const bool is_map = object.Is(JinjaKind::kMap);
  const auto method = [&]() -> std::optional<JinjaValue> {
    if (is_map && !object.map().has_methods) return std::nullopt;
    const JinjaBuiltin* builtin = FindJinjaMethod(name, object.kind());
    if (builtin == nullptr) return std::nullopt;
    auto function = std::make_shared<JinjaFunction>();
    function->name = name;
    function->builtin = builtin;
    function->is_bound = true;
    function->self = object;
    return JinjaValue::Object(JinjaKind::kFunction, std::move(function));
  };
  if (!settings_.strict) {
    // llama.cpp gives methods precedence, as Python does.
    if (auto found = method()) return *found;
    const JinjaValue* value = is_map ? object.map().Find(std::string_view(name)) : nullptr;
    return value != nullptr ? *value : JinjaValue();
  }
  const JinjaValue* value = is_map ? object.map().Find(std::string_view(name)) : nullptr;
  if (for_call && (value == nullptr || !value->Is(JinjaKind::kFunction))) {
    if (auto found = method()) return *found;
  }
  return value != nullptr ? *value : Missing(name, is_map ? &object.map() : nullptr);
}

JinjaValue JinjaEvaluator::Index(const JinjaValue& object, const JinjaValue& key) {
  RequireDefined(object);
  RequireDefined(key);
  if (key.Is(JinjaKind::kUndefined)) return JinjaValue();
  UseAsKey(key);
  if (object.Is(JinjaKind::kMap)) {
    const JinjaValue* value = object.map().Find(key);
    if (value != nullptr) return *value;
    if (!settings_.strict && key.Is(JinjaKind::kText)) return Attribute(object, key.bytes(), false);
    return Missing(key.Is(JinjaKind::kText) ? key.bytes() : TextOf(key).bytes(), &object.map());
  }
  if (key.Is(JinjaKind::kText) && !settings_.strict) return Attribute(object, key.bytes(), false);
  if (!key.Is(JinjaKind::kInt)) {
    if (object.Is(JinjaKind::kUndefined)) return JinjaValue();
    if (settings_.strict && key.Is(JinjaKind::kText)) return Missing(key.bytes(), nullptr);
    Fail(std::string(key.KindName()) + " is no index of " + object.KindName());
  }
  if (object.watch() != nullptr) object.watch()->used_as_list = true;
  if (object.Is(JinjaKind::kList)) {
    const JinjaList& list = object.list();
    const auto size = static_cast<int64_t>(list.items.size());
    const int64_t at = key.integer() < 0 ? key.integer() + size : key.integer();
    if (at >= 0 && at < size) return list.items[static_cast<size_t>(at)];
    return Missing("[" + std::to_string(key.integer()) + "]", nullptr);
  }
  if (object.Is(JinjaKind::kText)) {
    const JinjaValue end = JinjaValue::Int(key.integer() + 1);
    JinjaValue one = Slice(object, &key, key.integer() == -1 ? nullptr : &end, nullptr);
    return one.text().empty() ? Missing("[" + std::to_string(key.integer()) + "]", nullptr) : one;
  }
  if (object.Is(JinjaKind::kUndefined)) return JinjaValue();
  if (settings_.strict) return Missing("[" + std::to_string(key.integer()) + "]", nullptr);
  Fail(std::string(object.KindName()) + " has no index");
}

JinjaValue JinjaEvaluator::Slice(const JinjaValue& object, const JinjaValue* start,
                                 const JinjaValue* stop, const JinjaValue* step) {
  RequireDefined(object);
  if (!object.Is(JinjaKind::kList) && !object.Is(JinjaKind::kText)) {
    Fail(std::string(object.KindName()) + " cannot be sliced");
  }
  std::vector<size_t> starts;  // where the characters of a text begin
  if (object.Is(JinjaKind::kText)) {
    Acting(object.text());
    const std::string& bytes = object.bytes();
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (!settings_.strict || (static_cast<unsigned char>(bytes[i]) & 0xC0) != 0x80)
        starts.push_back(i);
    }
    starts.push_back(bytes.size());
    Step(bytes.size() / kBytesPerStep);
  }
  const int64_t size = static_cast<int64_t>(object.Is(JinjaKind::kList) ? object.list().items.size()
                                                                        : starts.size() - 1);
  const auto number = [&](const JinjaValue* value, int64_t otherwise, int64_t low, int64_t high) {
    if (value == nullptr || value->Is(JinjaKind::kNone)) return otherwise;
    RequireDefined(*value);
    if (!value->Is(JinjaKind::kInt)) Fail(std::string(value->KindName()) + " is no index");
    const int64_t at = value->integer();
    return std::clamp(at < 0 ? std::max(at, -size - 1) + size : at, low, high);
  };
  const int64_t by = step == nullptr || step->Is(JinjaKind::kNone) ? 1
                     : step->Is(JinjaKind::kInt)                   ? step->integer()
                                                                   : 0;
  if (by == 0) Fail("a slice's step is a number other than 0");
  const int64_t first = by > 0 ? number(start, 0, 0, size) : number(start, size - 1, -1, size - 1);
  const int64_t last = by > 0 ? number(stop, size, 0, size) : number(stop, -1, -1, size - 1);
  MarkedText text;
  std::vector<JinjaValue> items;
  for (int64_t i = first; by > 0 ? i < last : i > last;) {
    Step();
    const auto at = static_cast<size_t>(i);
    if (object.Is(JinjaKind::kList)) {
      items.push_back(object.list().items[at]);
    } else if (by == 1) {
      text.AppendSlice(object.text(), starts[at], starts[static_cast<size_t>(last)] - starts[at]);
      break;
    } else {
      text.AppendSlice(object.text(), starts[at], starts[at + 1] - starts[at]);
    }
    if (by > size || by < -size) break;
    i += by;
  }
  if (object.Is(JinjaKind::kText)) return NewText(std::move(text));
  return JinjaValue::List(std::move(items), object.list().is_tuple);
}

}  // namespace halo
