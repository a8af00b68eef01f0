#include "workflow/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cstring>
#include <istream>
#include <map>
#include <streambuf>
#include <unordered_set>

#include "base/text.h"

namespace halo {
namespace {

constexpr int32_t kMaxOpenBrackets = 10'000;

/// Reads a text in place: std::istringstream would copy it.
class TextBuffer : public std::streambuf {
 public:
  explicit TextBuffer(std::string_view text) {
    char* begin = const_cast<char*>(text.data());  // the get area is never written to
    setg(begin, begin, begin + text.size());
  }
};

[[noreturn]] void Refuse(const DiagnosticList& diagnostics, int32_t line, int32_t column,
                         std::string message) {
  throw Error(ErrorCode::kWorkflow, {{{diagnostics.file(), line, column}, std::move(message)}});
}

[[noreturn]] void RefuseAtOffset(const DiagnosticList& diagnostics, std::string_view text,
                                 size_t offset, std::string message) {
  const std::string_view before = text.substr(0, offset);
  const size_t line_start = before.rfind('\n') + 1;  // npos + 1 is 0
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  Refuse(diagnostics, static_cast<int32_t>(line), static_cast<int32_t>(offset - line_start + 1),
         std::move(message));
}

/// Builds the tree from events, counting nodes and levels as they come.
class TreeBuilder final : public YAML::EventHandler {
 public:
  explicit TreeBuilder(const DiagnosticList& diagnostics) : diagnostics_(diagnostics) {}

  YamlNode::Pointer root() const { return root_; }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0) {
      Refuse(diagnostics_, mark.line + 1, mark.column + 1,
             "expected one YAML document, found a second one: put each workflow in its own file");
    }
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Attach(MakeNode(mark, YamlNode::Kind::kNull, ""), anchor);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    auto node = MakeNode(mark, YamlNode::Kind::kScalar, tag);
    node->text = value;
    node->quoted = tag != "?";
    Attach(std::move(node), anchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value /*style*/) override {
    Open(MakeNode(mark, YamlNode::Kind::kSequence, tag), anchor);
  }
  void OnSequenceEnd() override { Close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value /*style*/) override {
    Open(MakeNode(mark, YamlNode::Kind::kMapping, tag), anchor);
  }
  void OnMapEnd() override { Close(); }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) {
      Refuse(diagnostics_, mark.line + 1, mark.column + 1,
             "this alias stands inside what it names: its expansion would never end");
    }
    CheckBounds(*found->second, mark);
    AttachPointer(found->second);
  }

 private:
  /// A collection being read.
  struct Frame {
    std::shared_ptr<YamlNode> node;
    YAML::anchor_t anchor;
    YamlNode::Pointer key;  ///< of a mapping, when the next node is its value
  };

  std::shared_ptr<YamlNode> MakeNode(const YAML::Mark& mark, YamlNode::Kind kind,
                                     const std::string& tag) const {
    // yaml-cpp gives "?" and "!" to plain and quoted nodes without a tag.
    if (!tag.empty() && tag != "?" && tag != "!" && tag != "tag:yaml.org,2002:str") {
      Refuse(diagnostics_, mark.line + 1, mark.column + 1,
             "YAML tags are not used in workflows: take '" + tag + "' away");
    }
    auto node = std::make_shared<YamlNode>();
    node->kind = kind;
    node->line = mark.line + 1;
    node->column = mark.column + 1;
    node->offset = static_cast<size_t>(mark.pos);
    return node;
  }

  /// Refuses what adding `node` here would bring over a bound.
  void CheckBounds(const YamlNode& node, const YAML::Mark& mark) {
    nodes_ += node.size;
    if (nodes_ > kMaxYamlNodes) {
      Refuse(diagnostics_, mark.line + 1, mark.column + 1,
             "more than 100000 YAML nodes with aliases expanded: split the workflow");
    }
    if (static_cast<int32_t>(stack_.size()) + node.height > kMaxYamlDepth) {
      Refuse(diagnostics_, mark.line + 1, mark.column + 1,
             "nested more than " + std::to_string(kMaxYamlDepth) + " levels deep");
    }
  }

  static YAML::Mark MarkOf(const YamlNode& node) {
    YAML::Mark mark;
    mark.line = node.line - 1;
    mark.column = node.column - 1;
    return mark;
  }

  void Open(std::shared_ptr<YamlNode> node, YAML::anchor_t anchor) {
    CheckBounds(*node, MarkOf(*node));
    stack_.push_back({std::move(node), anchor, nullptr});
  }

  void Close() {
    Frame frame = std::move(stack_.back());
    stack_.pop_back();
    if (frame.anchor != YAML::NullAnchor) anchors_[frame.anchor] = frame.node;
    AttachPointer(std::move(frame.node));
  }

  void Attach(std::shared_ptr<YamlNode> node, YAML::anchor_t anchor) {
    CheckBounds(*node, MarkOf(*node));
    if (anchor != YAML::NullAnchor) anchors_[anchor] = node;
    AttachPointer(std::move(node));
  }

  void AttachPointer(YamlNode::Pointer node) {
    if (stack_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& parent = stack_.back();
    parent.node->size += node->size;
    parent.node->height = std::max(parent.node->height, node->height + 1);
    if (parent.node->kind == YamlNode::Kind::kSequence) {
      parent.node->items.push_back(std::move(node));
    } else if (!parent.key) {
      parent.key = std::move(node);
    } else {
      parent.node->entries.emplace_back(std::move(parent.key), std::move(node));
      parent.key = nullptr;
    }
  }

  const DiagnosticList& diagnostics_;
  std::vector<Frame> stack_;
  std::map<YAML::anchor_t, YamlNode::Pointer> anchors_;
  YamlNode::Pointer root_;
  int64_t nodes_ = 0;
  int32_t documents_ = 0;
};

void CheckText(std::string_view text, const DiagnosticList& diagnostics) {
  if (text.size() > kMaxYamlBytes) {
    Refuse(diagnostics, 0, 0,
           "the file has " + std::to_string(text.size()) + " bytes; a workflow has at most " +
               std::to_string(kMaxYamlBytes) + " (16 MiB)");
  }
  const size_t bad = FindInvalidUtf8(text);
  if (bad != std::string_view::npos) {
    RefuseAtOffset(diagnostics, text, bad,
                   "not UTF-8: save the file in that encoding (byte " + std::to_string(bad) + ")");
  }
  int32_t open = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x20 && byte != '\n' && byte != '\r' && byte != '\t') {
      RefuseAtOffset(
          diagnostics, text, i,
          "a control character (byte value " + std::to_string(byte) + ") is not allowed in YAML");
    }
    if (byte == '[' || byte == '{') ++open;
    if ((byte == ']' || byte == '}') && open > 0) --open;
    if (open > kMaxOpenBrackets) {
      RefuseAtOffset(diagnostics, text, i,
                     "nested more than " + std::to_string(kMaxYamlDepth) +
                         " levels deep: 10000 brackets were never closed");
    }
  }
}

/// Duplicate keys, merge keys and keys that are not text, in every mapping once.
void CheckKeys(const YamlNode& node, std::unordered_set<const YamlNode*>& seen,
               DiagnosticList& diagnostics) {
  if (!seen.insert(&node).second) return;
  for (const YamlNode::Pointer& item : node.items) CheckKeys(*item, seen, diagnostics);
  std::map<std::string_view, int32_t> lines;
  for (const auto& [key, value] : node.entries) {
    CheckKeys(*value, seen, diagnostics);
    if (!key->IsText()) {
      diagnostics.Add(key->line, key->column,
                      "expected a word as key (text that begins with '{{' needs quotes around it)");
    } else if (key->text == "<<" && !key->quoted) {
      diagnostics.Add(key->line, key->column,
                      "merge keys ('<<') are not supported: write the keys out");
    } else if (const auto [first, added] = lines.emplace(key->text, key->line); !added) {
      diagnostics.Add(key->line, key->column,
                      "the key '" + key->text + "' is already given in line " +
                          std::to_string(first->second) + ": keep one of them");
    }
  }
}

std::string DescribeSyntaxError(const YAML::ParserException& fault, std::string_view text) {
  std::string message = "not valid YAML: " + fault.msg;
  size_t start = 0;
  for (int line = 0; line < fault.mark.line && start != std::string_view::npos; ++line) {
    start = text.find('\n', start);
    if (start != std::string_view::npos) ++start;
  }
  if (start == std::string_view::npos) return message;
  const std::string_view line = text.substr(start, text.find('\n', start) - start);
  const size_t indent = line.find_first_not_of(" \t");
  if (line.substr(0, indent).find('\t') != std::string_view::npos) {
    message += " (this line is indented with a tab; YAML wants spaces)";
  }
  return message;
}

}  // namespace

YamlNode::Pointer ParseYaml(std::string_view text, DiagnosticList& diagnostics) {
  CheckText(text, diagnostics);
  TreeBuilder builder(diagnostics);
  try {
    TextBuffer buffer(text);
    std::istream stream(&buffer);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::ParserException& fault) {
    Refuse(diagnostics, fault.mark.line + 1, fault.mark.column + 1,
           DescribeSyntaxError(fault, text));
  }
  const YamlNode::Pointer root = builder.root();
  if (!root) Refuse(diagnostics, 1, 1, "the file is empty");
  std::unordered_set<const YamlNode*> seen;
  CheckKeys(*root, seen, diagnostics);
  return root;
}

}  // namespace halo
