#include "model/jinja_evaluator.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/text.h"

namespace halo {

namespace {

constexpr int kMaxDepth = 1000;      // frames of expressions, blocks and macros
constexpr int kMaxValueDepth = 200;  // lists in lists
constexpr size_t kBytesPerStep = 64;
constexpr size_t kNamesInMessage = 20;

std::string Joined(const std::vector<std::string>& names) {
  if (names.empty()) return "there are no names here";
  std::string text = "there are: ";
  for (size_t i = 0; i < names.size() && i < kNamesInMessage; ++i)
    text += (i > 0 ? ", " : "") + names[i];
  return text + (names.size() > kNamesInMessage ? ", ..." : "");
}

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

class JinjaEvaluator::Deeper {
 public:
  explicit Deeper(JinjaEvaluator* run) : run_(run) {
    if (++run_->depth_ > kMaxDepth) {
      --run_->depth_;
      throw JinjaFault{"template_limit", "the template calls itself too deeply",
                       run_->current_->position};
    }
  }
  ~Deeper() { --run_->depth_; }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;

 private:
  JinjaEvaluator* run_;
};

JinjaEvaluator::JinjaEvaluator(const JinjaProgram& program, const JinjaSettings& settings,
                               Lookup lookup, std::vector<std::string> names)
    : program_(program),
      settings_(settings),
      lookup_(std::move(lookup)),
      names_(std::move(names)) {}

JinjaEvaluator::~JinjaEvaluator() {
  for (const std::shared_ptr<JinjaObject>& object : mutated_) {
    if (auto* list = dynamic_cast<JinjaList*>(object.get())) list->items.clear();
    if (auto* map = dynamic_cast<JinjaMap*>(object.get())) map->entries.clear();
    if (auto* function = dynamic_cast<JinjaFunction*>(object.get())) function->scope.reset();
  }
}

MarkedText JinjaEvaluator::Render() {
  MarkedText out;
  Run(program_.body(), std::make_shared<JinjaScope>(), &out);
  return out;
}

JinjaValue JinjaEvaluator::Evaluate() {
  const JinjaNode* only = nullptr;
  for (const JinjaNode& node : program_.body()) {
    const bool blank =
        node.op == JinjaOp::kOutput && node.kids[0].op == JinjaOp::kConstant &&
        node.kids[0].constant.Is(JinjaKind::kText) &&
        node.kids[0].constant.bytes().find_first_not_of(" \t\r\n") == std::string::npos;
    if (blank) continue;
    if (only != nullptr || node.op != JinjaOp::kOutput) return JinjaValue::Text(Render());
    only = &node;
  }
  if (only == nullptr) return JinjaValue::Text("");
  JinjaValue value = Eval(only->kids[0], std::make_shared<JinjaScope>());
  RequireDefined(value);
  return value;
}

void JinjaEvaluator::Step(size_t count) {
  steps_ += count;
  if (steps_ > settings_.max_steps) {
    throw JinjaFault{
        "template_limit",
        "the template ran for more than " + std::to_string(settings_.max_steps) + " steps",
        current_ == nullptr ? std::string::npos : current_->position};
  }
}

void JinjaEvaluator::Fail(const std::string& message) const {
  throw JinjaFault{"template", message,
                   current_ == nullptr ? std::string::npos : current_->position};
}

void JinjaEvaluator::RequireDefined(const JinjaValue& value) const {
  if (!settings_.strict || !value.Is(JinjaKind::kUndefined)) return;
  const JinjaMissing* missing = value.missing();
  std::string message = "'" + (missing == nullptr ? "" : missing->name) + "' is undefined";
  if (missing != nullptr) {
    message += DidYouMean(missing->name, missing->available) + "; " + Joined(missing->available);
  }
  throw JinjaFault{"undefined", message,
                   current_ == nullptr ? std::string::npos : current_->position};
}

JinjaValue JinjaEvaluator::Missing(const std::string& name, const JinjaMap* map) const {
  if (!settings_.strict) return JinjaValue();
  std::vector<std::string> available;
  if (map == nullptr) return JinjaValue::Undefined(name);
  for (const auto& [key, value] : map->entries) {
    if (available.size() > kNamesInMessage) break;
    if (key.Is(JinjaKind::kText)) available.push_back(key.bytes());
  }
  return JinjaValue::Undefined(name, std::move(available));
}

void JinjaEvaluator::Append(const MarkedText& text, MarkedText* out) {
  Step(text.size() / kBytesPerStep);
  if (out->size() + text.size() > settings_.max_bytes) {
    throw JinjaFault{
        "template_limit",
        "the template printed more than " + std::to_string(settings_.max_bytes) + " bytes",
        current_->position};
  }
  out->Append(text);
}

JinjaValue JinjaEvaluator::NewText(MarkedText text) {
  Step(text.size() / kBytesPerStep);
  if (text.size() > settings_.max_bytes) {
    throw JinjaFault{
        "template_limit",
        "the template made a text of more than " + std::to_string(settings_.max_bytes) + " bytes",
        current_->position};
  }
  return JinjaValue::Text(std::move(text));
}

void JinjaEvaluator::UseAsKey(const JinjaValue& key) {
  if (!key.Is(JinjaKind::kText)) return;
  Acting(key.text());
  Step(key.bytes().size() / kBytesPerStep);
}

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

// ---- Expressions

JinjaValue JinjaEvaluator::Eval(const JinjaNode& node, const Scope& scope) {
  const Deeper deeper(this);
  current_ = &node;
  Step();
  switch (node.op) {
    case JinjaOp::kConstant:
      return node.constant;
    case JinjaOp::kName:
      return EvalName(node, scope);
    case JinjaOp::kAttribute: {
      const JinjaValue object = Eval(node.kids[0], scope);
      current_ = object.Is(JinjaKind::kUndefined) ? &node.kids[0] : &node;
      return Attribute(object, node.text, false);
    }
    case JinjaOp::kIndex: {
      const JinjaValue object = Eval(node.kids[0], scope);
      const JinjaValue key = Eval(node.kids[1], scope);
      current_ = &node;
      return Index(object, key);
    }
    case JinjaOp::kSlice:
      return EvalSlice(node, scope);
    case JinjaOp::kCall:
      return EvalCall(node, scope);
    case JinjaOp::kFilter:
      return EvalFilter(node, Eval(node.kids[0], scope), scope);
    case JinjaOp::kTest: {
      const JinjaValue value = Eval(node.kids[0], scope);
      const JinjaArguments arguments = Arguments(node, scope);
      current_ = &node;
      return JinjaValue::Bool(ApplyTest(node.text, value, arguments) != node.flag);
    }
    case JinjaOp::kAnd:
    case JinjaOp::kOr: {
      JinjaValue left = Eval(node.kids[0], scope);
      return Truth(left) == (node.op == JinjaOp::kAnd) ? Eval(node.kids[1], scope) : left;
    }
    case JinjaOp::kEither:
      return Eval(Truth(Eval(node.kids[0], scope)) ? node.kids[1] : node.kids[2], scope);
    case JinjaOp::kNot:
      return JinjaValue::Bool(!Truth(Eval(node.kids[0], scope)));
    case JinjaOp::kNegative:
    case JinjaOp::kPositive:
      return EvalUnary(node, scope);
    case JinjaOp::kList:
    case JinjaOp::kTuple:
      return JinjaValue::List(EvalItems(node, scope), node.op == JinjaOp::kTuple);
    case JinjaOp::kMap:
      return EvalMap(node, scope);
    case JinjaOp::kBlank:
      return settings_.strict ? JinjaValue::Text("") : JinjaValue();
    default:
      return EvalOperator(node, scope);
  }
}

JinjaValue JinjaEvaluator::EvalName(const JinjaNode& node, const Scope& scope) {
  for (const JinjaScope* at = scope.get(); at != nullptr; at = at->parent.get()) {
    for (const auto& [name, value] : at->names) {
      if (name == node.text) return value;
    }
  }
  auto known = outside_.find(node.text);
  if (known == outside_.end()) known = outside_.emplace(node.text, lookup_(node.text)).first;
  if (known->second.has_value()) return *known->second;
  if (const JinjaBuiltin* builtin = FindJinjaFunction(node.text)) {
    auto function = std::make_shared<JinjaFunction>();
    function->name = node.text;
    function->builtin = builtin;
    return JinjaValue::Object(JinjaKind::kFunction, std::move(function));
  }
  return settings_.strict ? JinjaValue::Undefined(node.text, names_) : JinjaValue();
}

JinjaValue JinjaEvaluator::EvalSlice(const JinjaNode& node, const Scope& scope) {
  const JinjaValue object = Eval(node.kids[0], scope);
  JinjaValue bounds[3];
  const JinjaValue* given[3] = {nullptr, nullptr, nullptr};
  for (size_t i = 0; i < 3; ++i) {
    if (node.kids[i + 1].op == JinjaOp::kBlank) continue;
    bounds[i] = Eval(node.kids[i + 1], scope);
    given[i] = &bounds[i];
  }
  current_ = &node;
  return Slice(object, given[0], given[1], given[2]);
}

JinjaValue JinjaEvaluator::EvalUnary(const JinjaNode& node, const Scope& scope) {
  const JinjaValue value = Eval(node.kids[0], scope);
  current_ = &node;
  RequireDefined(value);
  if (!value.IsNumber()) Fail(std::string("a sign needs a number, not ") + value.KindName());
  if (node.op == JinjaOp::kPositive) return value;
  if (value.Is(JinjaKind::kFloat)) return JinjaValue::Float(-value.number(), value.origin());
  if (value.integer() == INT64_MIN) Fail("the number is too large");
  return JinjaValue::Int(-value.integer(), value.origin());
}

std::vector<JinjaValue> JinjaEvaluator::EvalItems(const JinjaNode& node, const Scope& scope) {
  std::vector<JinjaValue> items;
  items.reserve(node.kids.size());
  for (const JinjaNode& kid : node.kids) items.push_back(Eval(kid, scope));
  return items;
}

JinjaValue JinjaEvaluator::EvalMap(const JinjaNode& node, const Scope& scope) {
  JinjaValue map = JinjaValue::Map();
  for (size_t i = 0; i + 1 < node.kids.size(); i += 2) {
    const JinjaValue key = Eval(node.kids[i], scope);
    UseAsKey(key);
    map.map().Set(key, Eval(node.kids[i + 1], scope));
  }
  return map;
}

JinjaValue JinjaEvaluator::EvalOperator(const JinjaNode& node, const Scope& scope) {
  const JinjaValue a = Eval(node.kids[0], scope);
  const JinjaValue b = Eval(node.kids[1], scope);
  current_ = &node;
  switch (node.op) {
    case JinjaOp::kEqual:
      return JinjaValue::Bool(Equal(a, b));
    case JinjaOp::kNotEqual:
      return JinjaValue::Bool(!Equal(a, b));
    case JinjaOp::kIn:
      return JinjaValue::Bool(Contains(b, a) != node.flag);
    case JinjaOp::kLess:
    case JinjaOp::kLessEqual:
    case JinjaOp::kGreater:
    case JinjaOp::kGreaterEqual:
      return JinjaValue::Bool(Less(node.op, a, b));
    default:
      return Arithmetic(node, a, b);
  }
}

bool JinjaEvaluator::Less(JinjaOp op, const JinjaValue& a, const JinjaValue& b) {
  const bool both_numbers = !a.Is(JinjaKind::kText) && !b.Is(JinjaKind::kText);
  const bool both_texts = a.Is(JinjaKind::kText) && b.Is(JinjaKind::kText);
  RequireDefined(a);
  RequireDefined(b);
  if (!both_numbers && !both_texts)
    Fail(std::string(a.KindName()) + " and " + b.KindName() + " have no order");
  if (both_numbers && (a.IsNumber() && std::isnan(a.number()))) return false;
  if (both_numbers && (b.IsNumber() && std::isnan(b.number()))) return false;
  const int order = Compare(a, b);
  if (op == JinjaOp::kLess) return order < 0;
  if (op == JinjaOp::kLessEqual) return order <= 0;
  return op == JinjaOp::kGreater ? order > 0 : order >= 0;
}

JinjaValue JinjaEvaluator::Repeat(const JinjaValue& text, const JinjaValue& times) {
  const int64_t count = std::max<int64_t>(times.integer(), 0);
  if (!text.text().empty() &&
      static_cast<uint64_t>(count) > settings_.max_bytes / text.text().size()) {
    throw JinjaFault{"template_limit", "the repeated text is too long", current_->position};
  }
  MarkedText repeated;
  for (int64_t i = 0; i < (text.text().empty() ? 0 : count); ++i) {
    Step();
    repeated.Append(text.text());
  }
  return NewText(std::move(repeated));
}

JinjaValue JinjaEvaluator::Arithmetic(const JinjaNode& node, const JinjaValue& a,
                                      const JinjaValue& b) {
  RequireDefined(a);
  RequireDefined(b);
  const bool texts = a.Is(JinjaKind::kText) || b.Is(JinjaKind::kText);
  if (node.op == JinjaOp::kJoin || (node.op == JinjaOp::kAdd && texts)) {
    const auto part = [&](const JinjaValue& value) {
      // llama.cpp joins none as nothing; in strict mode only ~ takes what is no text.
      if (!strict() && (value.Is(JinjaKind::kNone) || value.Is(JinjaKind::kUndefined)))
        return MarkedText();
      if (strict() && node.op == JinjaOp::kAdd && !value.Is(JinjaKind::kText)) {
        Fail(std::string("'+' cannot add ") + value.KindName() + " to a text; '~' joins them");
      }
      return TextOf(value);
    };
    MarkedText joined = part(a);
    joined.Append(part(b));
    return NewText(std::move(joined));
  }
  if (node.op == JinjaOp::kAdd && a.Is(JinjaKind::kList) && b.Is(JinjaKind::kList)) {
    std::vector<JinjaValue> items = a.list().items;
    items.insert(items.end(), b.list().items.begin(), b.list().items.end());
    Step(items.size());
    return JinjaValue::List(std::move(items));
  }
  if (node.op == JinjaOp::kMultiply && a.Is(JinjaKind::kText) && b.Is(JinjaKind::kInt))
    return Repeat(a, b);
  if (node.op == JinjaOp::kMultiply && a.Is(JinjaKind::kInt) && b.Is(JinjaKind::kText))
    return Repeat(b, a);
  const auto is_number = [](const JinjaValue& value) {
    return value.IsNumber() || value.Is(JinjaKind::kBool);
  };
  if (!is_number(a) || !is_number(b)) {
    Fail(std::string("the operator cannot be applied to ") + a.KindName() + " and " + b.KindName());
  }
  const Origin origin = std::max(a.origin(), b.origin());
  const auto value_of = [](const JinjaValue& value) {
    return value.Is(JinjaKind::kFloat) ? value.number() : static_cast<double>(value.integer());
  };
  const double x = value_of(a);
  const double y = value_of(b);
  if ((node.op == JinjaOp::kDivide || node.op == JinjaOp::kRemainder) && y == 0)
    Fail("division by zero");
  if (node.op == JinjaOp::kDivide) return JinjaValue::Float(x / y, origin);
  if (!a.Is(JinjaKind::kFloat) && !b.Is(JinjaKind::kFloat)) {
    const int64_t i = a.integer();
    const int64_t j = b.integer();
    int64_t result = 0;
    if (node.op == JinjaOp::kRemainder) {
      result = j == -1 ? 0 : i % j;
      if (result != 0 && (result < 0) != (j < 0))
        result += j;  // the sign of the divisor, as in Python
      return JinjaValue::Int(result, origin);
    }
    const bool overflow = node.op == JinjaOp::kAdd        ? __builtin_add_overflow(i, j, &result)
                          : node.op == JinjaOp::kSubtract ? __builtin_sub_overflow(i, j, &result)
                                                          : __builtin_mul_overflow(i, j, &result);
    if (overflow) Fail("the number is too large");
    return JinjaValue::Int(result, origin);
  }
  if (node.op == JinjaOp::kRemainder) return JinjaValue::Float(x - y * std::floor(x / y), origin);
  return JinjaValue::Float(node.op == JinjaOp::kAdd        ? x + y
                           : node.op == JinjaOp::kSubtract ? x - y
                                                           : x * y,
                           origin);
}

JinjaArguments JinjaEvaluator::Arguments(const JinjaNode& node, const Scope& scope) {
  JinjaArguments arguments;
  for (size_t i = 1; i < node.kids.size(); ++i) {
    const JinjaNode& kid = node.kids[i];
    if (kid.op == JinjaOp::kNamed) {
      arguments.named.emplace_back(kid.text, Eval(kid.kids[0], scope));
    } else {
      arguments.positional.push_back(Eval(kid, scope));
    }
  }
  return arguments;
}

JinjaValue JinjaEvaluator::EvalCall(const JinjaNode& node, const Scope& scope) {
  const JinjaNode& target = node.kids[0];
  JinjaValue callee;
  if (target.op == JinjaOp::kAttribute) {
    const JinjaValue object = Eval(target.kids[0], scope);
    current_ = object.Is(JinjaKind::kUndefined) ? &target.kids[0] : &target;
    callee = Attribute(object, target.text, true);
  } else {
    callee = Eval(target, scope);
  }
  const JinjaArguments arguments = Arguments(node, scope);
  current_ = &node;
  return Call(callee, arguments, scope);
}

JinjaValue JinjaEvaluator::Call(const JinjaValue& callee, const JinjaArguments& arguments,
                                const Scope& scope) {
  RequireDefined(callee);
  if (!callee.Is(JinjaKind::kFunction)) Fail(std::string(callee.KindName()) + " cannot be called");
  const JinjaFunction& function = callee.function();
  if (function.body != nullptr)
    return CallBody(*function.body, arguments, function.scope ? function.scope : scope);
  return function.builtin->run(*this, function.self, arguments);
}

JinjaValue JinjaEvaluator::CallBody(const JinjaNode& body, const JinjaArguments& arguments,
                                    const Scope& parent) {
  const Deeper deeper(this);
  const Scope scope = std::make_shared<JinjaScope>();
  scope->parent = parent;
  for (size_t i = 0; i < body.other.size(); ++i) {
    const JinjaNode& parameter = body.other[i];
    const JinjaValue* given = arguments.Find(parameter.text, i);
    JinjaValue value;
    if (given != nullptr) {
      value = *given;
    } else if (parameter.op == JinjaOp::kNamed) {
      value = Eval(parameter.kids[0], scope);
    } else if (strict()) {
      value = JinjaValue::Undefined(parameter.text);
    }
    scope->names.emplace_back(parameter.text, std::move(value));
  }
  MarkedText printed;
  Run(body.body, scope, &printed);
  return JinjaValue::Text(std::move(printed));
}

JinjaValue JinjaEvaluator::EvalFilter(const JinjaNode& node, JinjaValue operand,
                                      const Scope& scope) {
  const JinjaArguments arguments = Arguments(node, scope);
  current_ = &node;
  return ApplyFilter(node.text, std::move(operand), arguments);
}

// ---- Statements

namespace {

void Assign(JinjaScope* scope, std::string_view name, JinjaValue value) {
  for (auto& [known, old] : scope->names) {
    if (known == name) {
      old = std::move(value);
      return;
    }
  }
  scope->names.emplace_back(name, std::move(value));
}

}  // namespace

JinjaEvaluator::Flow JinjaEvaluator::Run(const std::vector<JinjaNode>& block, const Scope& scope,
                                         MarkedText* out) {
  const Deeper deeper(this);
  for (const JinjaNode& node : block) {
    const Flow flow = RunNode(node, scope, out);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

JinjaEvaluator::Flow JinjaEvaluator::RunNode(const JinjaNode& node, const Scope& scope,
                                             MarkedText* out) {
  current_ = &node;
  Step();
  switch (node.op) {
    case JinjaOp::kIf:
      return Run(Truth(Eval(node.kids[0], scope)) ? node.body : node.other, scope, out);
    case JinjaOp::kFor:
      RunLoop(node, scope, out);
      break;
    case JinjaOp::kSet:
      RunSet(node, scope);
      break;
    case JinjaOp::kMacro: {
      auto function = std::make_shared<JinjaFunction>();
      function->name = node.text;
      function->body = &node;
      Assign(scope.get(), node.text, JinjaValue::Object(JinjaKind::kFunction, std::move(function)));
      break;
    }
    case JinjaOp::kCallBlock:
      RunCallBlock(node, scope, out);
      break;
    case JinjaOp::kFilterBlock: {
      MarkedText body;
      const Flow flow = Run(node.body, scope, &body);
      Print(EvalFilter(node.kids[0], JinjaValue::Text(std::move(body)), scope), out);
      return flow;
    }
    case JinjaOp::kBreak:
      return Flow::kBreak;
    case JinjaOp::kContinue:
      return Flow::kContinue;
    default: {
      const JinjaValue value = Eval(node.kids[0], scope);
      current_ = &node;
      Print(value, out);
      break;
    }
  }
  return Flow::kNext;
}

void JinjaEvaluator::Unpack(const JinjaNode& node, const JinjaValue& value, JinjaScope* scope) {
  if (!node.flag) return Assign(scope, node.names[0], value);
  if (!value.Is(JinjaKind::kList) || value.list().items.size() != node.names.size()) {
    Fail("there are " + std::to_string(node.names.size()) + " names to set from " +
         value.KindName() +
         (value.Is(JinjaKind::kList) ? " of " + std::to_string(value.list().items.size()) : ""));
  }
  const std::vector<JinjaValue> items = value.list().items;
  for (size_t i = 0; i < items.size(); ++i) Assign(scope, node.names[i], items[i]);
}

void JinjaEvaluator::RunSet(const JinjaNode& node, const Scope& scope) {
  JinjaValue value;
  if (node.kids[0].op != JinjaOp::kBlank) {
    value = Eval(node.kids[0], scope);
  } else {
    MarkedText body;
    Run(node.body, scope, &body);
    value = JinjaValue::Text(std::move(body));
  }
  if (node.text.empty()) return Unpack(node, value, scope.get());
  const JinjaValue object = Eval(node.kids[1], scope);
  current_ = &node;
  RequireDefined(object);
  if (!object.Is(JinjaKind::kMap))
    Fail(std::string("an attribute of ") + object.KindName() + " cannot be set");
  Mutating(object.object());
  object.map().Set(std::string_view(node.text), std::move(value));
}

void JinjaEvaluator::RunCallBlock(const JinjaNode& node, const Scope& scope, MarkedText* out) {
  auto caller = std::make_shared<JinjaFunction>();
  caller->name = "caller";
  caller->body = &node;
  caller->scope = scope;
  Mutating(caller);
  const JinjaValue callee = Eval(node.kids[0].kids[0], scope);
  const JinjaArguments arguments = Arguments(node.kids[0], scope);
  const Scope inner = std::make_shared<JinjaScope>();
  inner->parent = scope;
  inner->names.emplace_back("caller", JinjaValue::Object(JinjaKind::kFunction, caller));
  current_ = &node;
  Print(Call(callee, arguments, inner), out);
}

std::vector<JinjaValue> JinjaEvaluator::LoopItems(const JinjaNode& node, const Scope& scope) {
  const JinjaValue iterable = Eval(node.kids[0], scope);
  current_ = &node;
  RequireDefined(iterable);
  if (iterable.watch() != nullptr) iterable.watch()->used_as_list = true;
  std::vector<JinjaValue> items;
  if (iterable.Is(JinjaKind::kList)) {
    items = iterable.list().items;
  } else if (iterable.Is(JinjaKind::kMap)) {
    for (const auto& [key, value] : iterable.map().entries) {
      items.push_back(node.flag ? JinjaValue::List({key, value}, /*is_tuple=*/true) : key);
    }
  } else if (!iterable.Is(JinjaKind::kUndefined)) {
    if (iterable.Is(JinjaKind::kText)) Acting(iterable.text());
    Fail(std::string("a loop needs a list or a mapping, not ") + iterable.KindName());
  }
  Step(items.size());
  if (node.kids[1].op == JinjaOp::kBlank) return items;
  std::vector<JinjaValue> kept;
  const Scope inner = std::make_shared<JinjaScope>();
  inner->parent = scope;
  for (JinjaValue& item : items) {
    Unpack(node, item, inner.get());
    if (Truth(Eval(node.kids[1], inner))) kept.push_back(std::move(item));
  }
  return kept;
}

void JinjaEvaluator::RunLoop(const JinjaNode& node, const Scope& outer, MarkedText* out) {
  const std::vector<JinjaValue> items = LoopItems(node, outer);
  if (items.empty()) {
    Run(node.other, outer, out);
    return;
  }
  const Scope scope = std::make_shared<JinjaScope>();
  scope->parent = outer;
  const auto size = static_cast<int64_t>(items.size());
  const JinjaValue loop = JinjaValue::Map();
  loop.map().has_methods = false;
  auto& facts = loop.map().entries;
  for (const char* name : {"index", "index0", "first", "last", "length", "revindex", "revindex0",
                           "previtem", "nextitem"}) {
    facts.emplace_back(JinjaValue::Text(name), JinjaValue());
  }
  const JinjaValue none_there = Missing("the item before or after", nullptr);
  for (int64_t i = 0; i < size; ++i) {
    const auto at = static_cast<size_t>(i);
    facts[0].second = JinjaValue::Int(i + 1);
    facts[1].second = JinjaValue::Int(i);
    facts[2].second = JinjaValue::Bool(i == 0);
    facts[3].second = JinjaValue::Bool(i + 1 == size);
    facts[4].second = JinjaValue::Int(size);
    facts[5].second = JinjaValue::Int(size - i);
    facts[6].second = JinjaValue::Int(size - i - 1);
    facts[7].second = i > 0 ? items[at - 1] : none_there;
    facts[8].second = i + 1 < size ? items[at + 1] : none_there;
    Assign(scope.get(), "loop", loop);
    current_ = &node;
    Unpack(node, items[at], scope.get());
    if (Run(node.body, scope, out) == Flow::kBreak) break;
  }
}

}  // namespace halo
