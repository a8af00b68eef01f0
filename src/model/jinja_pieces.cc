#include "model/jinja_pieces.h"

#include <algorithm>

namespace halo {
namespace {

bool IsText(const JinjaNode& node) {
  return node.op == JinjaOp::kConstant && node.constant.Is(JinjaKind::kText);
}

/// "title" of {{ row.title }} and {{ row["title"] }}; null: it is no column of the row.
const std::string* ColumnOf(const JinjaNode& node) {
  const bool by_name = node.op == JinjaOp::kAttribute;
  const bool by_text = node.op == JinjaOp::kIndex && IsText(node.kids[1]);
  if (!by_name && !by_text) return nullptr;
  const JinjaNode& base = node.kids[0];
  if (base.op != JinjaOp::kName || base.text != "row") return nullptr;
  return by_name ? &node.text : &node.kids[1].constant.bytes();
}

/// Writes nodes down so that equal forms compute the same from their names. A name that the
/// template sets itself counts as one that it reads: two forms are then told apart more often than
/// they have to be, never less.
class ValueWriter {
 public:
  void Block(const std::vector<JinjaNode>& nodes) {
    Number(nodes.size());
    for (const JinjaNode& node : nodes) Node(node);
  }

  void Node(const JinjaNode& node) {
    if (const std::string* column = ColumnOf(node)) return Name("row." + *column);
    if (node.op == JinjaOp::kName) return Name(node.text);
    // row.get("title") reads all of the row, not a column "get".
    const bool is_method = node.op == JinjaOp::kCall && node.kids[0].op == JinjaOp::kAttribute;
    if (is_method) return Method(node);
    if (node.op == JinjaOp::kOutput && IsText(node.kids[0]))
      piece_.text += node.kids[0].constant.bytes();
    Number(static_cast<size_t>(node.op));
    Number(node.flag ? 1 : 0);
    Text(node.text);
    Number(node.names.size());
    for (const std::string& name : node.names) Text(name);
    if (node.op == JinjaOp::kConstant) {
      Number(static_cast<size_t>(node.constant.kind()));
      Text(IsText(node) ? node.constant.bytes() : JinjaToJson(node.constant).dump());
    }
    Block(node.kids);
    Block(node.body);
    Block(node.other);
  }

  TemplatePiece Finish(bool is_name, std::string shown) {
    piece_.is_value = true;
    piece_.is_name = is_name;
    piece_.shown = std::move(shown);
    return std::move(piece_);
  }

 private:
  void Method(const JinjaNode& call) {
    piece_.form += "method ";
    Text(call.kids[0].text);
    Node(call.kids[0].kids[0]);
    Number(call.kids.size() - 1);
    for (size_t i = 1; i < call.kids.size(); ++i) Node(call.kids[i]);
  }

  void Number(size_t number) { piece_.form += std::to_string(number) + ","; }
  void Text(const std::string& text) {
    Number(text.size());
    piece_.form += text;
  }
  void Name(const std::string& name) {
    auto found = std::find(piece_.names.begin(), piece_.names.end(), name);
    if (found == piece_.names.end()) found = piece_.names.insert(found, name);
    piece_.form += "$" + std::to_string(found - piece_.names.begin()) + ",";
  }

  TemplatePiece piece_;
};

/// An expression as its author may have written it; what is longer than a chain of filters over a
/// path is left out.
std::string Shown(const JinjaNode& node) {
  constexpr const char* kLonger = "...";
  switch (node.op) {
    case JinjaOp::kName:
      return node.text;
    case JinjaOp::kAttribute:
      return Shown(node.kids[0]) + "." + node.text;
    case JinjaOp::kIndex:
      if (node.kids[1].op != JinjaOp::kConstant) return kLonger;
      return Shown(node.kids[0]) + "[" + JinjaToJson(node.kids[1].constant).dump() + "]";
    case JinjaOp::kFilter:
      return Shown(node.kids[0]) + " | " + node.text + (node.kids.size() > 1 ? "(...)" : "");
    default:
      return kLonger;
  }
}

bool IsName(const JinjaNode& node) {
  return node.op == JinjaOp::kName || ColumnOf(node) != nullptr;
}

}  // namespace

std::vector<TemplatePiece> PiecesOf(const JinjaProgram& program) {
  std::vector<TemplatePiece> pieces;
  const std::vector<JinjaNode>& body = program.body();
  for (size_t i = 0; i < body.size(); ++i) {
    const JinjaNode& node = body[i];
    ValueWriter value;
    if (node.op != JinjaOp::kOutput) {
      value.Block({body.begin() + static_cast<ptrdiff_t>(i), body.end()});
      pieces.push_back(value.Finish(false, "{% ... %}"));
      break;
    }
    const JinjaNode& printed = node.kids[0];
    if (!IsText(printed)) {
      value.Node(printed);
      pieces.push_back(value.Finish(IsName(printed), "{{ " + Shown(printed) + " }}"));
    } else if (!printed.constant.bytes().empty()) {
      TemplatePiece text;
      text.text = printed.constant.bytes();
      pieces.push_back(std::move(text));
    }
  }
  return pieces;
}

}  // namespace halo
