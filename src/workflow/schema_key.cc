#include "workflow/schema_key.h"

#include <filesystem>
#include <fstream>
#include <optional>
#include <vector>

#include "base/text.h"
#include "workflow/prompt_check.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

class SchemaReader {
 public:
  SchemaReader(const YamlField& field, std::string_view text, DiagnosticList& diagnostics)
      : field_(field), text_(text), diagnostics_(diagnostics) {}

  std::shared_ptr<const OutputSchema> Read() {
    const YamlNode& value = *field_.value;
    if (value.kind == YamlNode::Kind::kMapping) {
      if (value.entries.size() == 1 && value.entries.front().first->text == "gbnf") {
        return OfGrammar(*value.entries.front().second);
      }
      const std::optional<Json> schema = ToJson(value);
      return schema ? OfSchema(*schema, &value) : nullptr;
    }
    const size_t first = value.text.find_first_not_of(" \t\r\n");
    if (!value.IsText() || first == std::string::npos) return Expected();
    if (value.text[first] == '{') return OfSchemaText(value.text, "");
    if (value.text.ends_with(".json") || value.text.ends_with(".gbnf")) return OfFile(value.text);
    return Expected();
  }

 private:
  using Result = std::shared_ptr<const OutputSchema>;

  void Fault(const YamlNode& node, const std::string& message) {
    diagnostics_.Add(node.line, node.column, field_.name + ": " + message);
  }

  Result Expected() {
    Fault(*field_.value,
          "expected a JSON Schema (a mapping, or its text), {gbnf: \"...\"}, or a file of the "
          "workflow's folder that ends in .json or .gbnf, got " +
              DescribeNode(*field_.value));
    return nullptr;
  }

  /// A scalar as JSON has it.
  std::optional<Json> ScalarToJson(const YamlNode& scalar) {
    switch (scalar.quoted ? PlainMeaning::kText : MeaningOf(scalar)) {
      case PlainMeaning::kBoolean:
        return Json(scalar.text == "true" || scalar.text == "True" || scalar.text == "TRUE");
      case PlainMeaning::kWhole:
      case PlainMeaning::kFraction: {
        Json number = Json::parse(scalar.text, nullptr, /*allow_exceptions=*/false);
        if (number.is_number()) return number;
        Fault(scalar, "'" + scalar.text + "': write this number as JSON does");
        return std::nullopt;
      }
      case PlainMeaning::kText:
        break;
    }
    return Json(scalar.text);
  }

  /// Nodes are nested less than kMaxYamlDepth deep.
  std::optional<Json> ToJson(const YamlNode& node) {
    switch (node.kind) {
      case YamlNode::Kind::kNull:
        return Json(nullptr);
      case YamlNode::Kind::kScalar:
        return ScalarToJson(node);
      case YamlNode::Kind::kSequence: {
        Json list = Json::array();
        for (const YamlNode::Pointer& item : node.items) {
          std::optional<Json> value = ToJson(*item);
          if (!value) return std::nullopt;
          list.push_back(std::move(*value));
        }
        return list;
      }
      case YamlNode::Kind::kMapping:
        break;
    }
    Json object = Json::object();
    for (const auto& [key, member] : node.entries) {
      if (!key->IsText()) return std::nullopt;  // reported with the keys of all mappings
      std::optional<Json> value = ToJson(*member);
      if (!value) return std::nullopt;
      object[key->text] = std::move(*value);
    }
    return object;
  }

  /// Where a JSON pointer leads in the file: the key if the last step is one.
  static const YamlNode& NodeAt(const YamlNode& root, const std::string& pointer) {
    const YamlNode* at = &root;
    const YamlNode* shown = &root;
    const Json::json_pointer parsed(pointer);
    std::vector<std::string> steps;
    for (Json::json_pointer rest = parsed; !rest.empty(); rest.pop_back()) {
      steps.insert(steps.begin(), rest.back());
    }
    for (const std::string& step : steps) {
      const YamlNode* next = nullptr;
      for (const auto& [key, value] : at->entries) {
        if (key->text != step) continue;
        next = value.get();
        shown = key.get();
        break;
      }
      if (at->kind == YamlNode::Kind::kSequence) {
        const auto index = static_cast<size_t>(std::strtoul(step.c_str(), nullptr, 10));
        if (index < at->items.size()) shown = next = at->items[index].get();
      }
      if (next == nullptr) break;
      at = next;
    }
    return *shown;
  }

  /// `places`: where the schema is written as YAML; else faults carry their pointer. `file`: where
  /// it is a file of its own.
  Result OfSchema(const Json& schema, const YamlNode* places, const std::string& file = "") {
    std::vector<SchemaFault> faults;
    Result made = OutputSchema::OfJsonSchema(schema, faults);
    for (const SchemaFault& fault : faults) {
      if (places != nullptr) {
        Fault(NodeAt(*places, fault.pointer), fault.message);
      } else if (file.empty()) {
        Fault(*field_.value, "#" + fault.pointer + ": " + fault.message);
      } else {
        diagnostics_.Add({{file, 0, 0}, "#" + fault.pointer + ": " + fault.message});
      }
    }
    return made;
  }

  Result OfSchemaText(const std::string& json, const std::string& file) {
    const auto refuse = [&](const std::string& why) -> Result {
      if (file.empty()) {
        Fault(*field_.value, why);
      } else {
        diagnostics_.Add({{file, 0, 0}, why});
      }
      return nullptr;
    };
    if (json.size() > kMaxSchemaBytes) return refuse("a JSON Schema has at most 1 MiB");
    // Nesting is looked at before anything recurses over it.
    const auto shallow = [](int depth, Json::parse_event_t, Json&) {
      if (depth > kMaxSchemaDepth) throw std::length_error("it is nested more than 100 deep");
      return true;
    };
    try {
      return OfSchema(Json::parse(json, shallow), nullptr, file);
    } catch (const std::exception& error) {
      return refuse(std::string("this is no JSON Schema: ") + error.what());
    }
  }

  Result OfGrammar(const YamlNode& scalar) {
    if (!scalar.IsText()) {
      Fault(scalar, "gbnf: expected the text of a grammar, got " + DescribeNode(scalar));
      return nullptr;
    }
    try {
      return OutputSchema::OfGrammar(scalar.text, diagnostics_.file());
    } catch (const Error& error) {
      for (const Diagnostic& fault : error.diagnostics()) {
        const SourceLocation place = LocationInScalar(scalar, text_, fault.location);
        diagnostics_.Add(place.line, place.column, field_.name + ": " + fault.message);
      }
      return nullptr;
    }
  }

  Result OfFile(const std::string& name) {
    namespace fs = std::filesystem;
    std::error_code failed;
    const fs::path parent = fs::path(diagnostics_.file()).parent_path();
    const fs::path folder = fs::weakly_canonical(parent.empty() ? "." : parent, failed);
    const fs::path path = fs::weakly_canonical(folder / name, failed);
    const fs::path inside = path.lexically_relative(folder);
    if (failed || inside.empty() || *inside.begin() == ".." || fs::path(name).is_absolute()) {
      Fault(*field_.value, "'" + name + "' is not in the workflow's folder");
      return nullptr;
    }
    const std::string shown = (parent / name).string();
    if (!fs::is_regular_file(path, failed)) {
      Fault(*field_.value, "there is no file '" + shown + "'");
      return nullptr;
    }
    std::string content;
    std::ifstream stream(path, std::ios::binary);
    constexpr size_t kPart = 1 << 16;
    while (stream && content.size() <= kMaxGrammarBytes) {
      std::string part(kPart, '\0');
      stream.read(part.data(), static_cast<std::streamsize>(part.size()));
      content.append(part, 0, static_cast<size_t>(stream.gcount()));
    }
    if (stream.bad() || (!stream.eof() && stream.fail())) {
      Fault(*field_.value, "'" + shown + "' cannot be read");
      return nullptr;
    }
    if (name.ends_with(".json")) return OfSchemaText(content, shown);
    try {
      return OutputSchema::OfGrammar(content, shown);
    } catch (const Error& error) {
      for (const Diagnostic& fault : error.diagnostics()) diagnostics_.Add(fault);
      return nullptr;
    }
  }

  const YamlField& field_;
  std::string_view text_;
  DiagnosticList& diagnostics_;
};

}  // namespace

std::shared_ptr<const OutputSchema> ReadSchema(const YamlField& field, std::string_view text,
                                               DiagnosticList& diagnostics) {
  return SchemaReader(field, text, diagnostics).Read();
}

}  // namespace halo
