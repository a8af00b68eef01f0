#include "model/jinja_program.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace halo {

namespace {

// Follows the order in which a template runs, so that a name counts as read only before the
// template sets it.
class ReadFinder {
 public:
  explicit ReadFinder(const std::set<std::string>& builtins) : own_(builtins) {}

  void Block(const std::vector<JinjaNode>& block) {
    for (const JinjaNode& node : block) Visit(node);
  }

  std::set<std::string> reads;

 private:
  void Visit(const JinjaNode& node) {
    switch (node.op) {
      case JinjaOp::kName:
        if (own_.count(node.text) == 0) reads.insert(node.text);
        break;
      case JinjaOp::kAttribute:
      case JinjaOp::kIndex:
        Path(node);
        break;
      case JinjaOp::kCall:
        Call(node);
        break;
      case JinjaOp::kIf: {
        Visit(node.kids[0]);
        const std::set<std::string> before = own_;
        Block(node.body);
        const std::set<std::string> after_body = std::exchange(own_, before);
        Block(node.other);
        KeepCommon(after_body);
        break;
      }
      case JinjaOp::kFor: {
        Visit(node.kids[0]);
        const std::set<std::string> before = own_;
        own_.insert(node.names.begin(), node.names.end());
        own_.insert("loop");
        Visit(node.kids[1]);
        Block(node.body);
        own_ = before;
        Block(node.other);
        break;
      }
      case JinjaOp::kSet:
        for (const JinjaNode& kid : node.kids) Visit(kid);
        Block(node.body);
        own_.insert(node.names.begin(), node.names.end());
        break;
      case JinjaOp::kMacro:
      case JinjaOp::kCallBlock: {
        if (node.op == JinjaOp::kMacro) own_.insert(node.text);
        for (const JinjaNode& kid : node.kids) Visit(kid);
        const std::set<std::string> before = own_;
        for (const JinjaNode& parameter : node.other) {
          for (const JinjaNode& kid : parameter.kids) Visit(kid);
          own_.insert(parameter.text);
        }
        own_.insert("caller");
        Block(node.body);
        own_ = before;
        break;
      }
      default:
        for (const JinjaNode& kid : node.kids) Visit(kid);
        Block(node.body);
        Block(node.other);
        break;
    }
  }

  void KeepCommon(const std::set<std::string>& other) {
    std::set<std::string> common;
    std::set_intersection(own_.begin(), own_.end(), other.begin(), other.end(),
                          std::inserter(common, common.end()));
    own_ = std::move(common);
  }

  // a.b["c"] as far as it is written out; what is computed is looked through for reads of its own.
  void Path(const JinjaNode& node) {
    std::vector<const JinjaNode*> chain;  // outermost first
    const JinjaNode* base = &node;
    while (base->op == JinjaOp::kAttribute || base->op == JinjaOp::kIndex) {
      chain.push_back(base);
      base = &base->kids[0];
    }
    for (const JinjaNode* step : chain) {
      if (step->op == JinjaOp::kIndex) Visit(step->kids[1]);
    }
    if (base->op != JinjaOp::kName) return Visit(*base);
    if (own_.count(base->text) > 0) return;
    std::string path = base->text;
    for (auto step = chain.rbegin(); step != chain.rend(); ++step) {
      const bool by_name = (*step)->op == JinjaOp::kAttribute;
      const bool by_text = !by_name && (*step)->kids[1].op == JinjaOp::kConstant &&
                           (*step)->kids[1].constant.Is(JinjaKind::kText);
      if (!by_name && !by_text) break;
      path += "." + (by_name ? (*step)->text : (*step)->kids[1].constant.bytes());
    }
    reads.insert(path);
  }

  // x.upper() reads x.
  void Call(const JinjaNode& node) {
    const JinjaNode& callee = node.kids[0];
    Visit(callee.op == JinjaOp::kAttribute ? callee.kids[0] : callee);
    for (size_t i = 1; i < node.kids.size(); ++i) Visit(node.kids[i]);
  }

  std::set<std::string> own_;
};

// Finds text constants and tells those that are only printed, only compared as a whole or only keys
// from those that may be searched for.
class ConstantFinder {
 public:
  void Block(const std::vector<JinjaNode>& block) {
    for (const JinjaNode& node : block) {
      if (node.op == JinjaOp::kOutput) {
        Printed(node.kids[0]);
      } else {
        Visit(node);
      }
    }
  }

  JinjaProgram::Constants constants;

 private:
  static bool IsText(const JinjaNode& node) {
    return node.op == JinjaOp::kConstant && node.constant.Is(JinjaKind::kText);
  }

  void Compared(const JinjaNode& node) {
    if (IsText(node)) {
      constants.compared.insert(node.constant.bytes());
    } else {
      Visit(node);
    }
  }

  void Printed(const JinjaNode& node) {
    if (node.op == JinjaOp::kAdd || node.op == JinjaOp::kJoin) {
      for (const JinjaNode& kid : node.kids) Printed(kid);
    } else if (node.op == JinjaOp::kEither) {
      Visit(node.kids[0]);
      Printed(node.kids[1]);
      Printed(node.kids[2]);
    } else {
      Compared(node);
    }
  }

  void Visit(const JinjaNode& node) {
    switch (node.op) {
      case JinjaOp::kConstant:
        if (!IsText(node)) return;
        constants.compared.insert(node.constant.bytes());
        if (node.constant.bytes().size() >= 2) constants.searched.insert(node.constant.bytes());
        return;
      case JinjaOp::kEqual:
      case JinjaOp::kNotEqual:
        for (const JinjaNode& kid : node.kids) Compared(kid);
        return;
      case JinjaOp::kIndex:
        Visit(node.kids[0]);
        Compared(node.kids[1]);
        return;
      case JinjaOp::kIn:
        Visit(node.kids[0]);
        if (node.kids[1].op == JinjaOp::kList || node.kids[1].op == JinjaOp::kTuple) {
          for (const JinjaNode& item : node.kids[1].kids) Compared(item);
        } else {
          Visit(node.kids[1]);
        }
        return;
      case JinjaOp::kCall:
        if (node.kids[0].op == JinjaOp::kName && node.kids[0].text == "raise_exception") return;
        break;
      default:
        break;
    }
    for (const JinjaNode& kid : node.kids) Visit(kid);
    Block(node.body);
    Block(node.other);
  }
};

}  // namespace

std::set<std::string> JinjaProgram::FindReads(const std::set<std::string>& builtins) const {
  ReadFinder finder(builtins);
  finder.Block(body_);
  return std::move(finder.reads);
}

JinjaProgram::Constants JinjaProgram::FindConstants() const {
  ConstantFinder finder;
  finder.Block(body_);
  return std::move(finder.constants);
}

}  // namespace halo
