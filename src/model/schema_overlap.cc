#include "model/schema_overlap.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "model/json_schema.h"
#include "model/schema_reference.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;
using Parts = std::vector<const Json*>;

constexpr int64_t kMaxPairs = 500'000;
constexpr int64_t kMaxWork = 2'000'000;
constexpr int32_t kMaxDepth = 200;

Parts PartsOf(const Json& list) {
  Parts parts;
  for (const Json& each : list) parts.push_back(&each);
  return parts;
}

/// The alternatives that a schema is made of; none if it is not.
Parts AlternativesOf(const Json& schema) {
  for (const char* key : {"anyOf", "oneOf"}) {
    if (schema.contains(key)) return PartsOf(schema[key]);
  }
  return {};
}

/// The values of a schema that lists them; none if it does not.
Parts ValuesOf(const Json& schema) {
  if (schema.contains("const")) return {&schema["const"]};
  return schema.contains("enum") ? PartsOf(schema["enum"]) : Parts{};
}

bool ShareAValue(const Parts& first, const Parts& second) {
  if (first.size() > second.size()) return ShareAValue(second, first);
  const auto less = [](const Json* a, const Json* b) { return *a < *b; };
  const std::set<const Json*, decltype(less)> values(first.begin(), first.end(), less);
  return std::any_of(second.begin(), second.end(),
                     [&](const Json* value) { return values.contains(value); });
}

std::set<std::string> TypesOf(const Json& schema) {
  if (schema.contains("allOf")) return {"object"};
  if (!schema.contains("type")) return {"object", "array", "string", "number", "boolean", "null"};
  const Json& type = schema["type"];
  if (type.is_string()) return {type.get<std::string>()};
  return type.get<std::set<std::string>>();
}

/// Integers are numbers, and a number may be whole.
bool Takes(const std::set<std::string>& types, const std::string& type) {
  if (type == "integer" || type == "number")
    return types.contains("integer") || types.contains("number");
  return types.contains(type);
}

/// True if two ranges of counts have one in common.
bool CountsMeet(const Json& first, const Json& second, const char* least, const char* most) {
  const auto bound = [](const Json& schema, const char* key, double none) {
    return schema.contains(key) ? schema[key].get<double>() : none;
  };
  return std::max(bound(first, least, 0), bound(second, least, 0)) <=
         std::min(bound(first, most, HUGE_VAL), bound(second, most, HUGE_VAL));
}

bool NumbersMayFit(const Json& made, const Json& into) {
  // Bounds of numbers are whole: where two ranges meet, they do so at an integer.
  return std::max(LowestInteger(made), LowestInteger(into)) <=
         std::min(HighestInteger(made), HighestInteger(into));
}

bool StringsMayFit(const Json& made, const Json& into) {
  // No text has two of the formats.
  const bool other_format =
      made.contains("format") && into.contains("format") && made["format"] != into["format"];
  return !other_format && CountsMeet(made, into, "minLength", "maxLength");
}

/// How many of the first items have schemas of their own.
size_t CountPrefixItems(const Json& schema) {
  for (const char* key : {"items", "prefixItems"}) {
    if (schema.contains(key) && schema[key].is_array()) return schema[key].size();
  }
  return 0;
}

/// The schema of an item, or null where any value may be.
const Json* ItemOf(const Json& schema, size_t index) {
  for (const char* key : {"items", "prefixItems"}) {
    if (!schema.contains(key)) continue;
    const Json& items = schema[key];
    if (!items.is_array()) return &items;
    return index < items.size() ? &items[index] : nullptr;
  }
  return nullptr;
}

/// What a schema says of an object's members.
struct Members {
  std::map<std::string, const Json*> properties;
  std::set<std::string> required;
  bool says_of_others = false;   ///< there is `additionalProperties`
  bool has_others = true;        ///< it is not false
  const Json* others = nullptr;  ///< their schema, if it has one
};

Members MembersOf(const Parts& parts) {
  Members members;
  for (const Json* part : parts) {
    if (part->contains("properties")) {
      for (const auto& [name, schema] : (*part)["properties"].items())
        members.properties.emplace(name, &schema);
    }
    if (part->contains("required")) {
      for (const Json& name : (*part)["required"]) members.required.insert(name);
    }
    if (!part->contains("additionalProperties")) continue;
    const Json& others = (*part)["additionalProperties"];
    members.says_of_others = true;
    members.has_others = others != Json(false);
    if (others.is_object()) members.others = &others;
  }
  return members;
}

}  // namespace

SchemaOverlap::SchemaOverlap(const Json& root)
    : root_(root), validator_(root), pairs_left_(kMaxPairs), work_left_(kMaxWork) {}

bool SchemaOverlap::MayShareAValue(const Json& first, const Json& second) {
  return MayFit(first, second, 0) || MayFit(second, first, 0);
}

/// What references lead to; null if they lead in a circle, so that no value fits.
const Json* SchemaOverlap::Resolve(const Json& schema) const {
  const Json* at = &schema;
  for (size_t hops = 0; hops <= 2 * kMaxSchemaReferences; ++hops) {
    if (at->contains("$ref")) {
      at = FindReference(root_, (*at)["$ref"].get<std::string>());
    } else if (at->contains("allOf") && (*at)["allOf"].size() == 1) {
      at = &(*at)["allOf"].front();
    } else {
      return at;
    }
  }
  return nullptr;
}

/// True if a value that the grammar of `made` allows may pass the validator under `into`.
bool SchemaOverlap::MayFit(const Json& made, const Json& into, int32_t depth) {
  if (--pairs_left_ <= 0 || depth > kMaxDepth) return true;
  const Json* from = Resolve(made);
  const Json* to = Resolve(into);
  if (from == nullptr || to == nullptr) return false;
  if (const Parts parts = AlternativesOf(*from); !parts.empty()) {
    return std::any_of(parts.begin(), parts.end(),
                       [&](const Json* part) { return MayFit(*part, *to, depth + 1); });
  }
  if (const Parts parts = AlternativesOf(*to); !parts.empty()) {
    return std::any_of(parts.begin(), parts.end(),
                       [&](const Json* part) { return MayFit(*from, *part, depth + 1); });
  }
  const Parts from_values = ValuesOf(*from), to_values = ValuesOf(*to);
  if (!from_values.empty() && !to_values.empty()) {
    work_left_ -= std::ssize(from_values) + std::ssize(to_values);
    return work_left_ <= 0 || ShareAValue(from_values, to_values);
  }
  if (!from_values.empty()) return AnyValueFits(*from, *to);
  if (!to_values.empty()) return AnyValueFits(*to, *from);
  const std::set<std::string> types = TypesOf(*from), taken = TypesOf(*to);
  return std::any_of(types.begin(), types.end(), [&](const std::string& type) {
    return Takes(taken, type) && MayFitOfType(*from, *to, type, depth);
  });
}

bool SchemaOverlap::MayFitOfType(const Json& made, const Json& into, const std::string& type,
                                 int32_t depth) {
  if (type == "integer" || type == "number") return NumbersMayFit(made, into);
  if (type == "string") return StringsMayFit(made, into);
  if (type == "array") return ArraysMayFit(made, into, depth);
  if (type == "object") return ObjectsMayFit(made, into, depth);
  return true;
}

bool SchemaOverlap::AnyValueFits(const Json& finite, const Json& other) {
  const Parts values = ValuesOf(finite);
  return std::any_of(values.begin(), values.end(), [&](const Json* value) {
    return validator_.Fits(*value, other, work_left_) || work_left_ <= 0;
  });
}

bool SchemaOverlap::ArraysMayFit(const Json& made, const Json& into, int32_t depth) {
  // The grammar writes all items of a prefix and no more.
  Json counts = Json::object();
  for (const char* key : {"minItems", "maxItems"}) {
    if (made.contains(key)) counts[key] = made[key];
  }
  const size_t prefix = CountPrefixItems(made);
  if (prefix > 0) counts = {{"minItems", prefix}, {"maxItems", prefix}};
  if (!CountsMeet(counts, into, "minItems", "maxItems")) return false;
  const size_t there =
      std::max(counts.value("minItems", size_t{0}), into.value("minItems", size_t{0}));
  // Beyond the prefixes all items are alike.
  const size_t different = std::max(prefix, CountPrefixItems(into)) + 1;
  for (size_t i = 0; i < std::min(there, different); ++i) {
    const Json* from = ItemOf(made, i);
    const Json* to = ItemOf(into, i);
    if (from != nullptr && to != nullptr && !MayFit(*from, *to, depth + 1)) return false;
  }
  return true;
}

bool SchemaOverlap::ObjectsMayFit(const Json& made, const Json& into, int32_t depth) {
  const auto members_of = [this](const Json& schema) {
    if (!schema.contains("allOf")) return MembersOf({&schema});
    Parts parts;
    for (const Json& part : schema["allOf"]) parts.push_back(Resolve(part));
    return MembersOf(parts);
  };
  const Members from = members_of(made), to = members_of(into);
  // To the standard an object may have more members, to the grammar one with properties may not.
  const bool from_has_others = from.has_others && (from.says_of_others || from.properties.empty());
  std::set<std::string> there = from.required;
  there.insert(to.required.begin(), to.required.end());
  for (const std::string& name : there) {
    const auto from_known = from.properties.find(name), to_known = to.properties.find(name);
    const bool known = from_known != from.properties.end(),
               wanted = to_known != to.properties.end();
    if (!known && !from_has_others) return false;
    if (!wanted && !to.has_others) return false;
    const Json* from_schema = known ? from_known->second : from.others;
    const Json* to_schema = wanted ? to_known->second : to.others;
    if (from_schema == nullptr || to_schema == nullptr) continue;  // any value
    if (!MayFit(*from_schema, *to_schema, depth + 1)) return false;
  }
  return true;
}

}  // namespace halo
