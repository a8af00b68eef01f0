#include "workflow/tool_value_keys.h"

#include "workflow/prompt_check.h"

namespace halo {
namespace {

constexpr std::string_view kSecretOpen = "${";
constexpr const char* kSecretForm = "${env:NAME} or ${file:PATH} behind each ${";

/// "${env:NAME}" and "${file:PATH}" at `at`: its inner part, or nothing.
std::optional<std::string> SecretAt(std::string_view text, size_t at) {
  const size_t close = text.find('}', at);
  if (close == std::string_view::npos) return std::nullopt;
  const std::string_view inner =
      text.substr(at + kSecretOpen.size(), close - at - kSecretOpen.size());
  for (const std::string_view kind : {"env:", "file:"}) {
    if (inner.starts_with(kind) && inner.size() > kind.size()) return std::string(inner);
  }
  return std::nullopt;
}

}  // namespace

bool RefuseSecrets(KeyContext& c, const std::string& name, const YamlNode& value) {
  bool refused = false;
  for (const YamlNode::Pointer& item : value.items) refused |= RefuseSecrets(c, name, *item);
  for (const auto& [key, inner] : value.entries) refused |= RefuseSecrets(c, name, *inner);
  const bool has_secret = value.text.find("${env:") != std::string::npos ||
                          value.text.find("${file:") != std::string::npos;
  if (!value.IsText() || !has_secret) return refused;
  c.reader.diagnostics().Add(
      value.line, value.column,
      name + ": secrets (${env:NAME}, ${file:PATH}) may stand in headers and connections only");
  return true;
}

ValueTemplate ReadValueTemplate(KeyContext& c, const std::string& name, const YamlNode& value,
                                ToolDraft& tool) {
  ValueTemplate read;
  if (value.kind == YamlNode::Kind::kSequence) {
    read.kind = ValueTemplate::Kind::kList;
    for (const YamlNode::Pointer& item : value.items)
      read.items.push_back(ReadValueTemplate(c, name, *item, tool));
  } else if (value.kind == YamlNode::Kind::kMapping) {
    read.kind = ValueTemplate::Kind::kMapping;
    for (const auto& [key, inner] : value.entries)
      read.fields.push_back({key->text, ReadValueTemplate(c, name, *inner, tool)});
  } else if (value.IsText()) {
    const PlainMeaning meaning = MeaningOf(value);
    if (RefuseSecrets(c, name, value)) {
      return read;
    } else if (meaning != PlainMeaning::kText) {
      read.constant = JsonOfYaml(value);
    } else if (auto parsed = ParseTemplateScalar(value, c.text, name, c.reader.diagnostics())) {
      if (parsed->is_constant()) {
        read.constant = parsed->source();
      } else {
        read.kind = ValueTemplate::Kind::kTemplate;
        read.text = parsed;
        tool.parameters.push_back({std::move(parsed), &value, false});
      }
    }
  }
  return read;
}

ValueTemplate ReadMappingTemplate(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  if (f.value->kind != YamlNode::Kind::kMapping) {
    c.reader.Mismatch(f, "a mapping");
    return {};
  }
  return ReadValueTemplate(c, f.name, *f.value, tool);
}

ValueTemplate ReadDurationTemplate(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  const char* expected = "a number of at least 0, or a template";
  if (f.value->IsText() && MeaningOf(*f.value) == PlainMeaning::kText) {
    ValueTemplate written = ReadValueTemplate(c, f.name, *f.value, tool);
    if (written.constant.is_string()) c.reader.Mismatch(f, expected);
    return written;
  }
  const auto number = c.reader.Number(f, expected);
  ValueTemplate read;
  if (!number) return read;
  if (*number < 0) c.reader.Mismatch(f, expected);
  read.constant = *number;
  return read;
}

SecretText ReadSecretText(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  SecretText read;
  if (!c.reader.Text(f)) return read;
  const std::string& text = f.value->text;
  size_t begin = 0;
  const auto add_text = [&](size_t end) {
    if (end == begin) return;
    // Faults in a piece are shown at the whole: its place in the file is not known.
    YamlNode piece = *f.value;
    piece.text = text.substr(begin, end - begin);
    auto parsed = ParseTemplateScalar(begin == 0 && end == text.size() ? *f.value : piece, c.text,
                                      f.name, c.reader.diagnostics());
    if (!parsed) return;
    tool.parameters.push_back({parsed, f.value, false});
    read.pieces.push_back({std::move(parsed), ""});
  };
  for (size_t at = text.find(kSecretOpen); at != std::string::npos;
       at = text.find(kSecretOpen, at + 1)) {
    const auto secret = SecretAt(text, at);
    if (!secret) {
      // It would be sent as it stands.
      c.reader.Mismatch(f, kSecretForm);
      return read;
    }
    add_text(at);
    read.pieces.push_back({nullptr, *secret});
    begin = at + kSecretOpen.size() + secret->size() + 1;
  }
  add_text(text.size());
  return read;
}

std::vector<std::string> ReadSecrets(KeyContext& c, const YamlField& f) {
  std::vector<std::string> secrets;
  const std::string& text = f.value->text;
  for (size_t at = text.find(kSecretOpen); at != std::string::npos;
       at = text.find(kSecretOpen, at + 1)) {
    if (const auto secret = SecretAt(text, at)) {
      secrets.push_back(*secret);
    } else {
      c.reader.Mismatch(f, kSecretForm);
      return secrets;
    }
  }
  return secrets;
}

}  // namespace halo
