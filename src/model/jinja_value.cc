#include "model/jinja_value.h"

#include <cmath>
#include <cstring>

namespace halo {

namespace {

constexpr size_t kIndexedMapEntries = 12;  // smaller maps are searched
constexpr int kMaxDepth = 200;

// Keys that Python takes for equal have one code: 1, 1.0 and true.
std::string KeyCode(const JinjaValue& key, int depth = 0) {
  if (depth > 10) throw JinjaFault{"template", "the key is nested too deeply"};
  switch (key.kind()) {
    case JinjaKind::kText:
      return "t" + key.bytes();
    case JinjaKind::kNone:
      return "0";
    case JinjaKind::kBool:
    case JinjaKind::kInt:
    case JinjaKind::kFloat: {
      double number = key.Is(JinjaKind::kBool) ? static_cast<double>(key.boolean()) : key.number();
      if (number == 0) number = 0;  // -0.0 too
      std::string code(1 + sizeof(number), 'n');
      std::memcpy(code.data() + 1, &number, sizeof(number));
      return code;
    }
    case JinjaKind::kList: {
      if (!key.list().is_tuple) break;
      std::string code = "(";
      for (const JinjaValue& item : key.list().items) {
        const std::string part = KeyCode(item, depth + 1);
        code += std::to_string(part.size()) + ":" + part;
      }
      return code;
    }
    case JinjaKind::kUndefined:
    case JinjaKind::kMap:
    case JinjaKind::kFunction:
      break;
  }
  throw JinjaFault{"template", std::string(key.KindName()) + " cannot be a key"};
}

bool HasCode(const JinjaValue& key, std::string_view code) {
  if (key.Is(JinjaKind::kText)) return code[0] == 't' && code.substr(1) == key.bytes();
  return code[0] != 't' && KeyCode(key) == code;
}

// A template can nest lists as deep as it has steps. Their destructors must not follow each other
// down the stack, so the outermost one takes apart what the inner ones hand over.
class Undertaker {
 public:
  void Take(const JinjaValue& value) {
    if (value.Is(JinjaKind::kList) || value.Is(JinjaKind::kMap)) objects_.push_back(value.object());
  }
  void Work() {
    if (is_working_) return;
    is_working_ = true;
    while (!objects_.empty()) {
      const std::shared_ptr<JinjaObject> object = std::move(objects_.back());
      objects_.pop_back();
    }
    is_working_ = false;
  }

 private:
  std::vector<std::shared_ptr<JinjaObject>> objects_;
  bool is_working_ = false;
};

thread_local Undertaker undertaker;

}  // namespace

JinjaList::~JinjaList() {
  for (const JinjaValue& item : items) undertaker.Take(item);
  items.clear();
  undertaker.Work();
}

JinjaMap::~JinjaMap() {
  for (const auto& [key, value] : entries) undertaker.Take(value);
  entries.clear();
  undertaker.Work();
}

JinjaValue JinjaValue::Bool(bool value, Origin origin) {
  JinjaValue result(JinjaKind::kBool, origin);
  result.integer_ = value ? 1 : 0;
  return result;
}

JinjaValue JinjaValue::Int(int64_t value, Origin origin) {
  JinjaValue result(JinjaKind::kInt, origin);
  result.integer_ = value;
  return result;
}

JinjaValue JinjaValue::Float(double value, Origin origin) {
  JinjaValue result(JinjaKind::kFloat, origin);
  result.number_ = value;
  return result;
}

JinjaValue JinjaValue::Object(JinjaKind kind, std::shared_ptr<JinjaObject> object) {
  JinjaValue result(kind, kFromTemplate);
  result.object_ = std::move(object);
  return result;
}

JinjaValue JinjaValue::Text(MarkedText text) {
  auto object = std::make_shared<JinjaText>();
  object->value = std::move(text);
  return Object(JinjaKind::kText, std::move(object));
}

JinjaValue JinjaValue::List(std::vector<JinjaValue> items, bool is_tuple) {
  auto object = std::make_shared<JinjaList>();
  object->items = std::move(items);
  object->is_tuple = is_tuple;
  return Object(JinjaKind::kList, std::move(object));
}

JinjaValue JinjaValue::Map() { return Object(JinjaKind::kMap, std::make_shared<JinjaMap>()); }

JinjaValue JinjaValue::Undefined(std::string name, std::vector<std::string> available) {
  auto object = std::make_shared<JinjaMissing>();
  object->name = std::move(name);
  object->available = std::move(available);
  return Object(JinjaKind::kUndefined, std::move(object));
}

const MarkedText& JinjaValue::text() const { return static_cast<const JinjaText&>(*object_).value; }
JinjaList& JinjaValue::list() const { return static_cast<JinjaList&>(*object_); }
JinjaMap& JinjaValue::map() const { return static_cast<JinjaMap&>(*object_); }
JinjaFunction& JinjaValue::function() const { return static_cast<JinjaFunction&>(*object_); }
const JinjaMissing* JinjaValue::missing() const {
  return static_cast<const JinjaMissing*>(object_.get());
}

const char* JinjaValue::KindName() const {
  switch (kind_) {
    case JinjaKind::kUndefined:
      return "an undefined value";
    case JinjaKind::kNone:
      return "none";
    case JinjaKind::kBool:
      return "a boolean";
    case JinjaKind::kInt:
      return "an integer";
    case JinjaKind::kFloat:
      return "a number";
    case JinjaKind::kText:
      return "a text";
    case JinjaKind::kList:
      return "a list";
    case JinjaKind::kMap:
      return "a mapping";
    case JinjaKind::kFunction:
      return "a function";
  }
  return "a value";
}

size_t JinjaMap::Position(std::string_view code) const {
  if (!index_.empty()) {
    const auto found = index_.find(std::string(code));
    return found == index_.end() ? entries.size() : found->second;
  }
  size_t i = 0;
  while (i < entries.size() && !HasCode(entries[i].first, code)) ++i;
  return i;
}

const JinjaValue* JinjaMap::Find(std::string_view key) const {
  if (watch != nullptr && key == watched_key) watch->read = true;
  if (index_.empty()) {
    for (const auto& [name, value] : entries) {
      if (name.Is(JinjaKind::kText) && name.bytes() == key) return &value;
    }
    return nullptr;
  }
  const size_t at = Position("t" + std::string(key));
  return at == entries.size() ? nullptr : &entries[at].second;
}

const JinjaValue* JinjaMap::Find(const JinjaValue& key) const {
  if (key.Is(JinjaKind::kText)) return Find(std::string_view(key.bytes()));
  const size_t at = Position(KeyCode(key));
  return at == entries.size() ? nullptr : &entries[at].second;
}

void JinjaMap::Set(const JinjaValue& key, JinjaValue value) {
  const std::string code = KeyCode(key);
  const size_t at = Position(code);
  if (at < entries.size()) {
    entries[at].second = std::move(value);
    return;
  }
  entries.emplace_back(key, std::move(value));
  if (!index_.empty()) {
    index_.emplace(code, at);
  } else if (entries.size() > kIndexedMapEntries) {
    for (size_t i = 0; i < entries.size(); ++i) index_.emplace(KeyCode(entries[i].first), i);
  }
}

const JinjaValue* JinjaArguments::Find(std::string_view name, size_t position) const {
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return position < positional.size() ? &positional[position] : nullptr;
}

namespace {

JinjaValue FromJson(const nlohmann::ordered_json& json, Origin origin, int depth) {
  if (depth > kMaxDepth) throw JinjaFault{"template_limit", "a value is nested too deeply"};
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::boolean:
      return JinjaValue::Bool(json.get<bool>(), origin);
    case nlohmann::ordered_json::value_t::number_integer:
      return JinjaValue::Int(json.get<int64_t>(), origin);
    case nlohmann::ordered_json::value_t::number_unsigned: {
      const uint64_t number = json.get<uint64_t>();
      // Beyond 63 bits only the digits are exact.
      if (number > static_cast<uint64_t>(INT64_MAX)) return JinjaValue::Text(json.dump(), origin);
      return JinjaValue::Int(static_cast<int64_t>(number), origin);
    }
    case nlohmann::ordered_json::value_t::number_float:
      return JinjaValue::Float(json.get<double>(), origin);
    case nlohmann::ordered_json::value_t::string:
      return JinjaValue::Text(json.get_ref<const std::string&>(), origin);
    case nlohmann::ordered_json::value_t::array: {
      std::vector<JinjaValue> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(FromJson(item, origin, depth + 1));
      return JinjaValue::List(std::move(items));
    }
    case nlohmann::ordered_json::value_t::object: {
      JinjaValue map = JinjaValue::Map();
      for (const auto& [key, item] : json.items()) {
        map.map().Set(JinjaValue::Text(key, origin), FromJson(item, origin, depth + 1));
      }
      return map;
    }
    case nlohmann::ordered_json::value_t::null:
    case nlohmann::ordered_json::value_t::binary:
    case nlohmann::ordered_json::value_t::discarded:
      break;
  }
  return JinjaValue::None(origin);
}

std::string KeyText(const JinjaValue& key) {
  return key.Is(JinjaKind::kText) ? key.bytes() : JinjaToJson(key).dump();
}

nlohmann::ordered_json ToJson(const JinjaValue& value, int depth) {
  if (depth > kMaxDepth) throw JinjaFault{"template_limit", "a value is nested too deeply"};
  switch (value.kind()) {
    case JinjaKind::kBool:
      return value.boolean();
    case JinjaKind::kInt:
      return value.integer();
    case JinjaKind::kFloat:
      return value.number();
    case JinjaKind::kText:
      return value.bytes();
    case JinjaKind::kList: {
      auto json = nlohmann::ordered_json::array();
      for (const JinjaValue& item : value.list().items) json.push_back(ToJson(item, depth + 1));
      return json;
    }
    case JinjaKind::kMap: {
      // Straight into the container: operator[] searches, which makes a large map quadratic.
      nlohmann::ordered_json::object_t object;
      for (const auto& [key, item] : value.map().entries) {
        object.Container::emplace_back(KeyText(key), ToJson(item, depth + 1));
      }
      return object;
    }
    case JinjaKind::kNone:
      return nullptr;
    case JinjaKind::kUndefined:
    case JinjaKind::kFunction:
      break;
  }
  throw JinjaFault{"template", std::string(value.KindName()) + " is not a value"};
}

}  // namespace

JinjaValue JinjaFromJson(const nlohmann::ordered_json& json, Origin origin) {
  return FromJson(json, origin, 0);
}

nlohmann::ordered_json JinjaToJson(const JinjaValue& value) { return ToJson(value, 0); }

}  // namespace halo
