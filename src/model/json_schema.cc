#include "model/json_schema.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>
#include <string_view>

#include "base/error.h"
#include "base/text.h"
#include "model/grammar.h"
#include "model/schema_overlap.h"
#include "model/schema_pattern.h"
#include "model/schema_reference.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;
using Names = std::vector<std::string>;

const Names kTypes = {"object", "array", "string", "integer", "number", "boolean", "null"};
/// Keywords that say something to people only.
const Names kAnnotations = {"title",    "description", "default",  "examples",
                            "$comment", "deprecated",  "readOnly", "writeOnly",
                            "$schema",  "$id",         "$defs",    "definitions"};
const std::map<std::string, Names> kKeywordsOf = {
    {"object", {"properties", "required", "additionalProperties"}},
    {"array", {"items", "prefixItems", "minItems", "maxItems"}},
    {"string", {"minLength", "maxLength", "pattern", "format"}},
    {"integer", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}},
    {"number", {"minimum", "maximum"}},
    {"boolean", {}},
    {"null", {}}};
const Names kCombinations = {"$ref", "anyOf", "oneOf", "allOf", "enum", "const", "type"};
/// Keywords of JSON Schema that no grammar is made of.
const Names kUnsupported = {"not",
                            "if",
                            "then",
                            "else",
                            "dependentRequired",
                            "dependentSchemas",
                            "dependencies",
                            "patternProperties",
                            "propertyNames",
                            "minProperties",
                            "maxProperties",
                            "contains",
                            "minContains",
                            "maxContains",
                            "uniqueItems",
                            "multipleOf",
                            "additionalItems",
                            "unevaluatedItems",
                            "unevaluatedProperties",
                            "contentEncoding",
                            "contentMediaType",
                            "contentSchema",
                            "$anchor",
                            "$dynamicRef",
                            "$dynamicAnchor",
                            "$recursiveRef",
                            "$recursiveAnchor",
                            "$vocabulary"};
const Names kFormats = {"date", "time", "date-time", "uuid"};

bool IsIn(const Names& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string Quoted(const Names& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

std::string TypeOf(const Json& value) {
  if (value.is_number_integer()) return "integer";
  if (value.is_number()) return "number";
  return value.is_object()    ? "object"
         : value.is_array()   ? "array"
         : value.is_string()  ? "string"
         : value.is_boolean() ? "boolean"
                              : "null";
}

/// Walks a schema as it will be converted.
class SchemaChecker {
 public:
  explicit SchemaChecker(const Json& root) : root_(root) {}

  std::vector<SchemaFault> Check() {
    constexpr int32_t kMaxFaults = 50;
    if (root_.is_object() && LevelsOf(root_) > kMaxSchemaDepth) {
      Fault("", "the schema is nested more than 100 deep");
    } else if (root_.dump(-1, ' ', false, Json::error_handler_t::replace).size() >
               kMaxSchemaBytes) {
      Fault("", "the schema has more than 1 MiB");
    } else {
      CheckNode(root_, "", 0);
      for (const char* key : {"$defs", "definitions"}) {
        if (root_.is_object() && root_.contains(key) && !root_[key].is_object()) {
          Fault(std::string("/") + key, "expected an object of schemas");
        }
      }
      if (faults_.empty()) CheckThatOneFits();
    }
    if (faults_.size() > kMaxFaults) faults_.resize(kMaxFaults);
    return std::move(faults_);
  }

 private:
  void Fault(const std::string& pointer, std::string message) {
    faults_.push_back({pointer, std::move(message)});
  }

  /// Without recursion, since nothing is known of the value yet.
  static int32_t LevelsOf(const Json& value) {
    int32_t levels = 0;
    std::vector<const Json*> row = {&value};
    while (!row.empty() && levels <= kMaxSchemaDepth) {
      ++levels;
      std::vector<const Json*> below;
      for (const Json* each : row) {
        if (each->is_structured()) {
          for (const Json& child : *each) below.push_back(&child);
        }
      }
      row = std::move(below);
    }
    return levels;
  }

  void CheckNode(const Json& node, const std::string& pointer, int32_t depth) {
    constexpr size_t kMaxPointerBytes = 4096;
    if (++nodes_ == kMaxSchemaNodes) Fault(pointer, "the schema has more than 5000 parts");
    if (depth > kMaxSchemaDepth || pointer.size() > kMaxPointerBytes) {
      Fault(pointer, "this is nested too deep");
      return;
    }
    if (nodes_ >= kMaxSchemaNodes) return;
    if (!node.is_object()) {
      Fault(pointer, "expected a schema (an object), got " + TypeOf(node));
      return;
    }
    if (!CheckNames(node, pointer)) return;
    if (node.contains("$ref")) {
      Only(node, pointer, {"$ref"}, "beside $ref");
      return CheckReference(node["$ref"], pointer + "/$ref", depth);
    }
    for (const char* key : {"anyOf", "oneOf", "allOf"}) {
      if (!node.contains(key)) continue;
      Only(node, pointer, {key}, std::string("beside ") + key + ": put it into each of them");
      return CheckAlternatives(node[key], pointer + "/" + key, key, depth);
    }
    CheckTyped(node, pointer, depth);
  }

  /// False if there are keywords that nothing is known of.
  bool CheckNames(const Json& node, const std::string& pointer) {
    const size_t before = faults_.size();
    for (const auto& [key, value] : node.items()) {
      bool known = IsIn(kAnnotations, key) || IsIn(kCombinations, key);
      Names candidates = kCombinations;
      candidates.insert(candidates.end(), kAnnotations.begin(), kAnnotations.end());
      for (const auto& [type, keywords] : kKeywordsOf) {
        known = known || IsIn(keywords, key);
        candidates.insert(candidates.end(), keywords.begin(), keywords.end());
      }
      if (known) continue;
      const std::string place = pointer + "/" + EscapePointer(key);
      if (IsIn(kUnsupported, key)) {
        Fault(place, "'" + key + "' is not supported: no grammar is made of it");
      } else {
        Fault(place, "unknown keyword '" + key + "'" + DidYouMean(key, candidates));
      }
    }
    return faults_.size() == before;
  }

  void Only(const Json& node, const std::string& pointer, const Names& allowed,
            const std::string& where) {
    for (const auto& [key, value] : node.items()) {
      if (IsIn(allowed, key) || IsIn(kAnnotations, key)) continue;
      Fault(pointer + "/" + EscapePointer(key), "'" + key + "' has no effect " + where);
    }
  }

  void CheckReference(const Json& value, const std::string& pointer, int32_t depth) {
    if (!value.is_string()) return Fault(pointer, "expected text such as '#/$defs/name'");
    const std::string reference = value.get<std::string>();
    constexpr size_t kMaxReferenceBytes = 512;
    if (!reference.starts_with("#/") || reference.size() > kMaxReferenceBytes ||
        reference.find_first_of("~%") != std::string::npos) {
      return Fault(pointer, "'" + reference.substr(0, kMaxReferenceBytes) +
                                "' is not supported: expected a place in this schema, such as "
                                "'#/$defs/name', without '~' and '%'");
    }
    const Json* target = FindReference(root_, reference);
    if (target == nullptr) {
      return Fault(pointer, "there is no '" + reference + "' in this schema");
    }
    if (!references_.insert(reference).second) return;
    if (references_.size() > kMaxSchemaReferences) {
      if (references_.size() == kMaxSchemaReferences + 1) {
        Fault(pointer, "more than 256 different references");
      }
      return;
    }
    CheckNode(*target, reference.substr(1), depth + 1);
  }

  void CheckAlternatives(const Json& list, const std::string& pointer, const std::string& key,
                         int32_t depth) {
    if (!list.is_array() || list.empty()) {
      return Fault(pointer, "expected a list of schemas, not empty");
    }
    for (size_t i = 0; i < list.size(); ++i) {
      CheckNode(list[i], pointer + "/" + std::to_string(i), depth + 1);
    }
    if (list.size() == 1 || !faults_.empty()) return;
    if (key == "oneOf") one_of_.emplace_back(pointer, &list);
    if (key == "allOf") CheckJoined(list, pointer);
  }

  void CheckThatOneFits() {
    if (one_of_.empty()) return;
    SchemaOverlap overlap(root_);
    for (const auto& [pointer, list] : one_of_) {
      for (size_t i = 1; i < list->size(); ++i) {
        for (size_t k = 0; k < i; ++k) {
          if (!overlap.MayShareAValue((*list)[k], (*list)[i])) continue;
          Fault(pointer + "/" + std::to_string(i),
                "a value may fit this and number " + std::to_string(k) +
                    " of oneOf, and must fit one: use anyOf, or let them differ in the type or in "
                    "a required property with a 'const'");
          break;
        }
      }
    }
  }

  void CheckJoined(const Json& list, const std::string& pointer) {
    std::set<std::string> names;
    for (size_t i = 0; i < list.size(); ++i) {
      const std::string place = pointer + "/" + std::to_string(i);
      const Json* part = &list[i];
      for (size_t hops = 0; part != nullptr && part->contains("$ref"); ++hops) {
        part = hops > kMaxSchemaReferences
                   ? nullptr
                   : FindReference(root_, (*part)["$ref"].get<std::string>());
      }
      if (part == nullptr || !part->contains("properties") ||
          part->contains("additionalProperties")) {
        Fault(place,
              "allOf joins objects with 'properties' and without 'additionalProperties' "
              "only");
        continue;
      }
      for (const auto& [name, property] : (*part)["properties"].items()) {
        if (!names.insert(name).second) {
          Fault(place, "the property '" + name + "' is in more than one part of allOf");
        }
      }
    }
  }

  void CheckTyped(const Json& node, const std::string& pointer, int32_t depth) {
    Names types;
    if (node.contains("type")) {
      types = ReadTypes(node["type"], pointer + "/type");
      if (types.empty()) return;
    }
    for (const char* key : {"const", "enum"}) {
      if (!node.contains(key)) continue;
      Only(node, pointer, {key, "type"}, std::string("beside ") + key);
      return CheckValues(node, key, types, pointer);
    }
    if (types.empty()) types = GuessTypes(node);
    Names allowed = {"type"};
    for (const std::string& type : types) {
      const Names& keywords = kKeywordsOf.at(type);
      allowed.insert(allowed.end(), keywords.begin(), keywords.end());
    }
    for (const auto& [key, value] : node.items()) {
      if (IsIn(allowed, key) || IsIn(kAnnotations, key)) continue;
      Fault(
          pointer + "/" + EscapePointer(key),
          "'" + key + "' has no effect here" +
              (types.empty() ? ": say which type it belongs to" : " (type " + Quoted(types) + ")"));
    }
    for (const std::string& type : types) {
      if (type == "object") CheckObject(node, pointer, depth);
      if (type == "array") CheckArray(node, pointer, depth);
      if (type == "string") CheckString(node, pointer);
      if (type == "integer") CheckInteger(node, pointer);
      if (type == "number") CheckNumber(node, pointer);
    }
  }

  Names ReadTypes(const Json& type, const std::string& pointer) {
    Names types;
    const Json list = type.is_array() ? type : Json::array({type});
    for (const Json& each : list) {
      const bool known = each.is_string() && IsIn(kTypes, each.get<std::string>());
      if (!known || IsIn(types, each.get<std::string>())) {
        Fault(pointer, "expected one of " + Quoted(kTypes) + ", or a list of different ones" +
                           (each.is_string() ? DidYouMean(each.get<std::string>(), kTypes) : ""));
        return {};
      }
      types.push_back(each.get<std::string>());
    }
    if (types.empty()) Fault(pointer, "expected at least one type");
    return types;
  }

  /// The type that a schema without one is about, as the conversion sees it.
  static Names GuessTypes(const Json& node) {
    for (const char* type : {"object", "array", "string"}) {
      for (const std::string& keyword : kKeywordsOf.at(type)) {
        if (keyword != "required" && keyword != "minItems" && keyword != "maxItems" &&
            node.contains(keyword))
          return {type};
      }
    }
    return {};
  }

  void CheckValues(const Json& node, const std::string& key, const Names& types,
                   const std::string& pointer) {
    const Json values = key == "enum" ? node["enum"] : Json::array({node["const"]});
    const std::string place = pointer + "/" + key;
    if (!values.is_array() || values.empty()) {
      return Fault(place, "expected a list of values, not empty");
    }
    if (values.size() > kMaxEnumValues) return Fault(place, "more than 50000 values");
    for (size_t i = 0; i < values.size() && !types.empty(); ++i) {
      const std::string type = TypeOf(values[i]);
      const bool fits = IsIn(types, type) || (type == "integer" && IsIn(types, "number"));
      if (fits) continue;
      Fault(key == "enum" ? place + "/" + std::to_string(i) : place,
            "this is of type " + type + ", and type says " + Quoted(types));
    }
  }

  void CheckObject(const Json& node, const std::string& pointer, int32_t depth) {
    const Json none = Json::object();
    const bool has_properties = node.contains("properties");
    const Json& properties = has_properties ? node["properties"] : none;
    if (!properties.is_object()) {
      return Fault(pointer + "/properties", "expected an object of schemas");
    }
    if (properties.size() > kMaxProperties) {
      return Fault(pointer + "/properties", "more than 1000 properties in one object");
    }
    const bool open =
        node.contains("additionalProperties") && node["additionalProperties"] != false;
    for (const auto& [name, property] : properties.items()) {
      const std::string place = pointer + "/properties/" + EscapePointer(name);
      constexpr size_t kMaxNameBytes = 128;
      if (name.size() > kMaxNameBytes) {
        Fault(place, "the name of a property has at most 128 bytes");
        continue;
      }
      if (name == "*") {
        // llama.cpp's conversion keeps the names beside the known ones under this one.
        Fault(place, "a property named '*' is not supported: give it another name");
      }
      if (open && (name.empty() || name.find_first_of("\"\\]^") != std::string::npos)) {
        Fault(place, "beside additionalProperties a name is not empty and without \" \\ ] ^");
      }
      CheckNode(property, place, depth + 1);
    }
    const size_t required = CheckRequired(node, properties, pointer);
    if (properties.size() - std::min(required, properties.size()) > kMaxOptionalProperties) {
      Fault(pointer + "/properties",
            "more than 100 optional properties in one object: list them in 'required'");
    }
    if (!node.contains("additionalProperties")) return;
    const Json& additional = node["additionalProperties"];
    if (!additional.is_boolean())
      CheckNode(additional, pointer + "/additionalProperties", depth + 1);
  }

  /// How many there are.
  size_t CheckRequired(const Json& node, const Json& properties, const std::string& pointer) {
    if (!node.contains("required")) return 0;
    const Json& required = node["required"];
    if (!required.is_array()) {
      Fault(pointer + "/required", "expected a list of names");
      return 0;
    }
    Names known;
    for (const auto& [name, property] : properties.items()) known.push_back(name);
    std::set<std::string> names;
    for (size_t i = 0; i < required.size(); ++i) {
      const std::string place = pointer + "/required/" + std::to_string(i);
      if (!required[i].is_string()) {
        Fault(place, "expected the name of a property");
        continue;
      }
      const std::string name = required[i].get<std::string>();
      if (!properties.contains(name)) {
        Fault(place, "'" + name + "' is not in 'properties'" + DidYouMean(name, known));
      }
      names.insert(name);
    }
    return names.size();
  }

  void CheckArray(const Json& node, const std::string& pointer, int32_t depth) {
    if (node.contains("items") && node.contains("prefixItems")) {
      return Fault(pointer + "/prefixItems", "'prefixItems' beside 'items' is not supported");
    }
    for (const char* key : {"items", "prefixItems"}) {
      if (!node.contains(key)) continue;
      const std::string place = pointer + "/" + key;
      if (node[key].is_array()) {
        for (size_t i = 0; i < node[key].size(); ++i) {
          CheckNode(node[key][i], place + "/" + std::to_string(i), depth + 1);
        }
        for (const char* count : {"minItems", "maxItems"}) {
          if (node.contains(count)) {
            Fault(pointer + "/" + count, std::string("'") + count +
                                             "' has no effect beside a list of items: there are "
                                             "exactly as many");
          }
        }
      } else if (std::string(key) == "prefixItems") {
        Fault(place, "expected a list of schemas");
      } else {
        CheckNode(node[key], place, depth + 1);
      }
    }
    CheckCounts(node, pointer, "minItems", "maxItems");
  }

  void CheckCounts(const Json& node, const std::string& pointer, const std::string& least,
                   const std::string& most) {
    for (const std::string& key : {least, most}) {
      if (!node.contains(key)) continue;
      const Json& value = node[key];
      const bool fits = value.is_number_integer() && value >= 0 && value <= kMaxSchemaCount;
      if (!fits) {
        return Fault(pointer + "/" + key, "expected a whole number from 0 to 1000000");
      }
    }
    if (node.contains(least) && node.contains(most) && node[least] > node[most]) {
      Fault(pointer + "/" + least, "'" + least + "' is more than '" + most + "'");
    }
  }

  void CheckString(const Json& node, const std::string& pointer) {
    CheckCounts(node, pointer, "minLength", "maxLength");
    const bool has_length = node.contains("minLength") || node.contains("maxLength");
    if (node.contains("format")) {
      const Json& format = node["format"];
      if (!format.is_string() || !IsIn(kFormats, format.get<std::string>())) {
        Fault(pointer + "/format",
              "expected one of " + Quoted(kFormats) + "; of other formats no grammar is made");
      }
      if (has_length || node.contains("pattern")) {
        Fault(pointer + "/format", "'format' beside a pattern or a length is not supported");
      }
    }
    if (!node.contains("pattern")) return;
    const std::string place = pointer + "/pattern";
    if (has_length) {
      Fault(place,
            "'pattern' beside minLength or maxLength is not supported: say the length in "
            "the pattern, as in ^[a-z]{2,8}$");
    }
    if (!node["pattern"].is_string()) return Fault(place, "expected a regular expression");
    CheckPattern(node["pattern"].get<std::string>(), place);
  }

  void CheckPattern(const std::string& pattern, const std::string& pointer) {
    const PatternGrammar grammar = PatternToGrammar(pattern);
    if (!grammar.fault.empty()) {
      return Fault(pointer, "the pattern cannot be kept to: " + grammar.fault);
    }
    try {
      Grammar::Compile("root ::= " + grammar.expression, "pattern");
      PatternMatcher{pattern};
    } catch (const Error& error) {
      Fault(pointer, "the pattern cannot be kept to: " + error.diagnostics().front().message);
    } catch (const std::exception& error) {
      Fault(pointer, std::string("the pattern cannot be checked: ") + error.what());
    }
  }

  void CheckInteger(const Json& node, const std::string& pointer) {
    for (const char* key : {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}) {
      if (!node.contains(key)) continue;
      const Json& value = node[key];
      const bool fits =
          value.is_number() && value <= kMaxSchemaInteger && value >= -kMaxSchemaInteger;
      if (!fits) {
        return Fault(pointer + "/" + key, "expected a number of at most 15 digits");
      }
    }
    for (const auto& [closed, open] :
         {std::pair<std::string, std::string>{"minimum", "exclusiveMinimum"},
          {"maximum", "exclusiveMaximum"}}) {
      if (node.contains(closed) && node.contains(open)) {
        Fault(pointer + "/" + open, "'" + open + "' beside '" + closed + "': keep one");
      }
    }
    if (LowestInteger(node) > HighestInteger(node)) {
      Fault(pointer, "no integer is between the bounds");
    }
  }

  void CheckNumber(const Json& node, const std::string& pointer) {
    for (const char* key : {"minimum", "maximum"}) {
      if (!node.contains(key)) continue;
      const Json& value = node[key];
      const bool whole =
          value.is_number() && std::trunc(value.get<double>()) == value.get<double>();
      if (!whole || value > kMaxSchemaInteger || value < -kMaxSchemaInteger) {
        return Fault(pointer + "/" + key, "expected a whole number of at most 15 digits");
      }
    }
    if (LowestInteger(node) > HighestInteger(node)) {
      Fault(pointer, "no number is between the bounds");
    }
  }

  const Json& root_;
  std::vector<SchemaFault> faults_;
  std::set<std::string> references_;
  std::vector<std::pair<std::string, const Json*>> one_of_;  // pointers and lists
  int32_t nodes_ = 0;
};

}  // namespace

double LowestInteger(const Json& schema) {
  if (schema.contains("minimum")) return std::ceil(schema["minimum"].get<double>());
  if (schema.contains("exclusiveMinimum"))
    return std::floor(schema["exclusiveMinimum"].get<double>()) + 1;
  return -HUGE_VAL;
}

double HighestInteger(const Json& schema) {
  if (schema.contains("maximum")) return std::floor(schema["maximum"].get<double>());
  if (schema.contains("exclusiveMaximum"))
    return std::ceil(schema["exclusiveMaximum"].get<double>()) - 1;
  return HUGE_VAL;
}

std::vector<SchemaFault> CheckJsonSchema(const Json& schema) {
  return SchemaChecker(schema).Check();
}

}  // namespace halo
