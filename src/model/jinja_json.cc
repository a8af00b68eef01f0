// JSON of values, as templates print it and `tojson` makes it.
#include <algorithm>
#include <cmath>

#include "model/jinja_builtins.h"

namespace halo::jinja {
namespace {

struct JsonStyle {
  int64_t indent = -1;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};

class JsonWriter {
 public:
  JsonWriter(JinjaEvaluator& run, const JsonStyle& style, Origin structure, MarkedText* out)
      : run_(run), style_(style), structure_(structure), out_(out) {}

  void Write(const JinjaValue& value, int depth) {
    run_.Step();
    if (depth > 200) run_.Fail("a value is nested too deeply");
    switch (value.kind()) {
      case JinjaKind::kBool:
        out_->Append(value.boolean() ? "true" : "false", value.origin());
        break;
      case JinjaKind::kInt:
        out_->Append(std::to_string(value.integer()), value.origin());
        break;
      case JinjaKind::kFloat:
        out_->Append(Number(value.number()), value.origin());
        break;
      case JinjaKind::kText:
        Quoted(value.text());
        break;
      case JinjaKind::kList:
        Items("[", "]", value.list().items.size(), depth,
              [&](size_t i) { Write(value.list().items[i], depth + 1); });
        break;
      case JinjaKind::kMap:
        Map(value, depth);
        break;
      case JinjaKind::kUndefined:
        if (run_.strict()) run_.Truth(value);  // tells what is undefined
        [[fallthrough]];
      default:
        out_->Append("null", value.Is(JinjaKind::kNone) ? value.origin() : structure_);
        break;
    }
  }

 private:
  // Strict mode: the shortest digits that read back the same. Else as llama.cpp prints it.
  std::string Number(double number) const {
    if (!std::isfinite(number)) return "null";
    if (run_.strict()) return nlohmann::json(number).dump();
    std::string text = std::to_string(number);
    text.erase(text.find_last_not_of('0') + 1);
    return text.back() == '.' ? text + "0" : text;
  }

  void Quoted(const MarkedText& text) {
    run_.Acting(text);
    run_.Step(text.size() / 64);
    out_->Append("\"", structure_);
    text.ForEachPart([&](std::string_view bytes, Origin origin) {
      size_t done = 0;
      for (size_t i = 0; i < bytes.size(); ++i) {
        const std::string escape = Escape(bytes[i]);
        if (escape.empty()) continue;
        out_->Append(bytes.substr(done, i - done), origin);
        out_->Append(escape, origin);
        done = i + 1;
      }
      out_->Append(bytes.substr(done), origin);
    });
    out_->Append("\"", structure_);
  }

  static std::string Escape(char c) {
    static constexpr std::string_view kPlain = "\"\\\b\f\n\r\t";
    static constexpr std::string_view kLetters = "\"\\bfnrt";
    if (static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\') return "";
    const size_t at = kPlain.find(c);
    if (at != std::string_view::npos) return {'\\', kLetters[at]};
    static constexpr std::string_view kDigits = "0123456789abcdef";
    const auto byte = static_cast<unsigned char>(c);
    return {'\\', 'u', '0', '0', kDigits[byte >> 4], kDigits[byte & 15]};
  }

  template <typename WriteItem>
  void Items(const char* open, const char* close, size_t count, int depth, WriteItem write_item) {
    out_->Append(open, structure_);
    for (size_t i = 0; i < count; ++i) {
      run_.Step((style_.item_separator.size() + style_.key_separator.size()) / 64);
      if (i > 0) out_->Append(style_.item_separator, structure_);
      NewLine(depth + 1);
      write_item(i);
    }
    if (count > 0) NewLine(depth);
    out_->Append(close, structure_);
  }

  void NewLine(int depth) {
    if (style_.indent < 0) return;
    run_.Step(static_cast<size_t>(style_.indent * depth) / 64);
    out_->Append("\n" + std::string(static_cast<size_t>(style_.indent * depth), ' '), structure_);
  }

  void Map(const JinjaValue& value, int depth) {
    if (value.watch() != nullptr) value.watch()->read = true;
    std::vector<const std::pair<JinjaValue, JinjaValue>*> entries;
    for (const auto& entry : value.map().entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
        return run_.Compare(a->first, b->first) < 0;
      });
    }
    Items("{", "}", entries.size(), depth, [&](size_t i) {
      const JinjaValue& key = entries[i]->first;
      Quoted(key.Is(JinjaKind::kText) ? key.text() : run_.TextOf(key));
      out_->Append(style_.key_separator, structure_);
      Write(entries[i]->second, depth + 1);
    });
  }

  JinjaEvaluator& run_;
  const JsonStyle& style_;
  const Origin structure_;
  MarkedText* out_;
};

JinjaValue ToJsonText(JinjaEvaluator& run, const JinjaValue& self,
                      const JinjaArguments& arguments) {
  JsonStyle style;
  style.indent = IntArgument(run, arguments, "indent", run.strict() ? 0 : 1, -1);
  if (style.indent > 16) run.Fail("JSON is indented by 16 spaces at most");
  style.sort_keys = Flag(run, arguments, "sort_keys", 3);
  if (Flag(run, arguments, "ensure_ascii", run.strict() ? 4 : 0))
    run.Fail("ensure_ascii is not supported");
  if (style.indent >= 0) style.item_separator = ",";
  if (run.strict() && style.indent < 0) {
    style.item_separator = ",";
    style.key_separator = ":";
  }
  const JinjaValue* separators = arguments.Find("separators", 2);
  if (separators != nullptr && separators->Is(JinjaKind::kList) &&
      separators->list().items.size() == 2) {
    style.item_separator = run.TextOf(separators->list().items[0]).bytes();
    style.key_separator = run.TextOf(separators->list().items[1]).bytes();
  }
  MarkedText text;
  JsonWriter(run, style, run.strict() ? kFromData : kFromTemplate, &text).Write(self, 0);
  return run.NewText(std::move(text));
}

constexpr JinjaBuiltin kMethods[] = {
    {"tojson", kText | kScalar | kList | kMap | kNone, ToJsonText},
};

}  // namespace

std::span<const JinjaBuiltin> JsonMethods() { return kMethods; }

JinjaValue JsonFunction(JinjaEvaluator& run, const JinjaValue&, const JinjaArguments& arguments) {
  if (arguments.positional.empty()) run.Fail("tojson() needs a value");
  JinjaArguments rest = Rest(arguments, 1);
  rest.named = arguments.named;
  return ToJsonText(run, arguments.positional[0], rest);
}

}  // namespace halo::jinja

namespace halo {

MarkedText JinjaJsonText(JinjaEvaluator& run, const JinjaValue& value, Origin structure) {
  jinja::JsonStyle style;
  if (run.strict()) {
    style.item_separator = ",";
    style.key_separator = ":";
  }
  MarkedText text;
  jinja::JsonWriter(run, style, structure, &text).Write(value, 0);
  return text;
}

}  // namespace halo
