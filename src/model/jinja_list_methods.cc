// What templates may do with lists and mappings.
#include <algorithm>

#include "model/jinja_builtins.h"

namespace halo::jinja {
namespace {

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

constexpr JinjaBuiltin kMethods[] = {
    {"slice", kText | kList, SliceMethod},
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

}  // namespace

std::span<const JinjaBuiltin> ListMethods() { return kMethods; }

}  // namespace halo::jinja
