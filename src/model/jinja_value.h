#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/marked_text.h"

namespace halo {

struct JinjaNode;
struct JinjaBuiltin;
struct JinjaScope;
class JinjaValue;

/// A fault while a template is parsed or run; caught where the template is used and told as Error
/// or Failure.
struct JinjaFault {
  std::string code;  ///< "template", "undefined" or "template_limit"
  std::string message;
  size_t position = std::string::npos;  ///< byte in the source, npos where not known
};

enum class JinjaKind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kText,
  kList,
  kMap,
  kFunction
};

/// Notes what a template does with a value whose treatment is of interest (see ChatTemplate).
struct JinjaWatch {
  bool read = false;          ///< taken out of its map
  bool used_as_list = false;  ///< indexed by a number, iterated or filtered by attribute
  bool tested_as_text = false;
};

/// What a value that is not a scalar refers to. Shared by all copies of the value, as in Python.
struct JinjaObject {
  virtual ~JinjaObject() = default;
  JinjaWatch* watch = nullptr;
};

/// One value of a running template. Numbers, too, know whether they came from data.
class JinjaValue {
 public:
  JinjaValue() = default;
  static JinjaValue None(Origin origin = kFromTemplate) {
    return JinjaValue(JinjaKind::kNone, origin);
  }
  static JinjaValue Bool(bool value, Origin origin = kFromTemplate);
  static JinjaValue Int(int64_t value, Origin origin = kFromTemplate);
  static JinjaValue Float(double value, Origin origin = kFromTemplate);
  static JinjaValue Text(MarkedText text);
  static JinjaValue Text(std::string text, Origin origin = kFromTemplate) {
    return Text(MarkedText(std::move(text), origin));
  }
  static JinjaValue List(std::vector<JinjaValue> items, bool is_tuple = false);
  static JinjaValue Map();
  /// `name` is what was looked for, `available` the names there are.
  static JinjaValue Undefined(std::string name, std::vector<std::string> available = {});
  static JinjaValue Object(JinjaKind kind, std::shared_ptr<JinjaObject> object);

  JinjaKind kind() const { return kind_; }
  bool Is(JinjaKind kind) const { return kind_ == kind; }
  bool IsNumber() const { return Is(JinjaKind::kInt) || Is(JinjaKind::kFloat); }
  Origin origin() const { return origin_; }  ///< of a scalar

  bool boolean() const { return integer_ != 0; }
  int64_t integer() const { return integer_; }
  double number() const { return Is(JinjaKind::kFloat) ? number_ : static_cast<double>(integer_); }
  const MarkedText& text() const;
  const std::string& bytes() const { return text().bytes(); }
  struct JinjaList& list() const;
  struct JinjaMap& map() const;
  struct JinjaFunction& function() const;
  const struct JinjaMissing* missing() const;
  const std::shared_ptr<JinjaObject>& object() const { return object_; }
  JinjaWatch* watch() const { return object_ ? object_->watch : nullptr; }

  /// The kind in words, for messages.
  const char* KindName() const;

 private:
  JinjaValue(JinjaKind kind, Origin origin) : kind_(kind), origin_(origin) {}

  JinjaKind kind_ = JinjaKind::kUndefined;
  Origin origin_ = kFromTemplate;
  union {
    int64_t integer_ = 0;
    double number_;
  };
  std::shared_ptr<JinjaObject> object_;
};

struct JinjaText final : JinjaObject {
  MarkedText value;
};

struct JinjaList final : JinjaObject {
  ~JinjaList() override;
  std::vector<JinjaValue> items;
  bool is_tuple = false;
};

/// Keeps the order of insertion, as Python's dict does.
struct JinjaMap final : JinjaObject {
  ~JinjaMap() override;
  std::vector<std::pair<JinjaValue, JinjaValue>> entries;
  bool has_methods = true;  ///< false for the loop variable
  std::string watched_key;  ///< reading this key sets watch->read

  const JinjaValue* Find(std::string_view key) const;
  const JinjaValue* Find(const JinjaValue& key) const;
  void Set(const JinjaValue& key, JinjaValue value);
  void Set(std::string_view key, JinjaValue value) {
    Set(JinjaValue::Text(std::string(key)), std::move(value));
  }

 private:
  size_t Position(std::string_view code) const;
  std::unordered_map<std::string, size_t>
      index_;  // code of a key -> entry; only built for large maps
};

struct JinjaFunction final : JinjaObject {
  std::string name;
  const JinjaBuiltin* builtin = nullptr;
  const JinjaNode* body = nullptr;    ///< a macro or the block of a call statement
  std::shared_ptr<JinjaScope> scope;  ///< where a call statement's block runs
  bool is_bound = false;
  JinjaValue self;  ///< what a method was taken from
};

struct JinjaMissing final : JinjaObject {
  std::string name;
  std::vector<std::string> available;
};

/// Arguments of a call. Values by position come first.
struct JinjaArguments {
  std::vector<JinjaValue> positional;
  std::vector<std::pair<std::string, JinjaValue>> named;

  /// By name, else by position, else undefined. Positions of methods and filters count from 0
  /// without the operand.
  const JinjaValue* Find(std::string_view name, size_t position) const;
};

/// JSON to a value whose texts, keys and numbers are marked with `origin`. Throws JinjaFault where
/// it is too deep.
JinjaValue JinjaFromJson(const nlohmann::ordered_json& json, Origin origin);
/// The way back; undefined, functions and loops of references are faults.
nlohmann::ordered_json JinjaToJson(const JinjaValue& value);

}  // namespace halo
