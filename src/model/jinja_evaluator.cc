#include "model/jinja_evaluator.h"

#include <algorithm>
#include <cmath>

#include "base/text.h"

namespace halo {

namespace {

constexpr int kMaxDepth = 1000;  // frames of expressions, blocks and macros
constexpr size_t kNamesInMessage = 20;

std::string Joined(const std::vector<std::string>& names) {
  if (names.empty()) return "there are no names here";
  std::string text = "there are: ";
  for (size_t i = 0; i < names.size() && i < kNamesInMessage; ++i)
    text += (i > 0 ? ", " : "") + names[i];
  return text + (names.size() > kNamesInMessage ? ", ..." : "");
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
