#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/template.h"

namespace halo {

struct ValueField;

/// A value as a workflow writes it: a constant, a template, or a list or mapping of such. A
/// template that is one expression ("{{ plan.year }}") gives that expression's value with its type;
/// any other gives text.
struct ValueTemplate {
  enum class Kind : uint8_t { kConstant, kTemplate, kList, kMapping };

  Kind kind = Kind::kConstant;
  nlohmann::ordered_json constant;
  /// shared: a Template is immutable, and workflows are copied as values.
  std::shared_ptr<const Template> text;
  std::vector<ValueTemplate> items;  ///< of a list
  std::vector<ValueField> fields;    ///< of a mapping, in file order

  /// True if it says nothing at all: the null constant.
  bool is_null() const { return kind == Kind::kConstant && constant.is_null(); }
  /// Throws Failure where a template reads what is not there.
  nlohmann::ordered_json Evaluate(
      const std::map<std::string, nlohmann::ordered_json>& values) const;
  void ForEachTemplate(const std::function<void(const Template&)>& visit) const;
};

/// One `name: value` of a mapping.
struct ValueField {
  std::string name;
  ValueTemplate value;
};

}  // namespace halo
