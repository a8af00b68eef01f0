#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "model/jinja_value.h"

namespace halo {

enum class JinjaOp : uint8_t {
  // Statements. `body` and `other` are blocks.
  kOutput,  ///< prints kids[0]
  kIf,      ///< kids[0], body, other
  kFor,     ///< names (flag: unpacked) in kids[0], kept if kids[1] (kBlank: all); body; other if
            ///< nothing was left
  kSet,  ///< names (flag: unpacked) or text, an attribute of kids[1]; to kids[0] (kBlank: what body
         ///< prints)
  kMacro,        ///< text(other...), body
  kCallBlock,    ///< kids[0] is the call; caller(other...) prints body
  kFilterBlock,  ///< kids[0] is a kFilter of kBlank; body
  kBreak,
  kContinue,
  // Expressions
  kConstant,   ///< constant
  kName,       ///< text
  kAttribute,  ///< kids[0].text
  kIndex,      ///< kids[0][kids[1]]
  kSlice,      ///< kids[0][kids[1]:kids[2]:kids[3]], kBlank where left out
  kCall,       ///< kids[0](kids[1]...)
  kFilter,     ///< kids[0] | text(kids[1]...)
  kTest,       ///< kids[0] is text(kids[1]...), negated by flag
  kNamed,      ///< text = kids[0], an argument or a parameter with a default
  kNot,
  kNegative,
  kPositive,
  kAnd,
  kOr,
  kIn,  ///< negated by flag
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kRemainder,
  kJoin,    ///< ~
  kEither,  ///< kids[1] if kids[0] else kids[2] (kBlank: undefined)
  kList,
  kTuple,
  kMap,  ///< kids: key, value, key, value...
  kBlank
};

/// One node of a parsed template: llama.cpp's syntax tree in a form that is quick to run and to
/// look through.
struct JinjaNode {
  JinjaOp op = JinjaOp::kBlank;
  bool flag = false;
  size_t position = 0;  ///< byte in the source
  std::string text;
  std::vector<std::string> names;
  JinjaValue constant;
  std::vector<JinjaNode> kids;
  std::vector<JinjaNode> body;
  std::vector<JinjaNode> other;
};

/// A template after parsing. Lexer and parser are llama.cpp's; how deep and how large a source may
/// be is checked before they see it, since both recurse.
class JinjaProgram {
 public:
  static constexpr size_t kMaxSourceBytes = size_t{1} << 20;

  /// Throws JinjaFault with the position of the fault.
  static JinjaProgram Parse(std::string source);

  const std::string& source() const { return source_; }  ///< line ends made \n
  const std::vector<JinjaNode>& body() const { return body_; }
  /// True if there is nothing but text.
  bool is_constant() const { return is_constant_; }

  /// Dotted paths of the names that the template does not set itself, as far as they are written
  /// out. `builtins` are names that every template has.
  std::set<std::string> FindReads(const std::set<std::string>& builtins) const;

  /// The texts that a template can compare values with.
  struct Constants {
    std::set<std::string> compared;  ///< every text constant
    std::set<std::string>
        searched;  ///< those of two bytes and more that may be searched for in a value
  };
  Constants FindConstants() const;

 private:
  std::string source_;
  std::vector<JinjaNode> body_;
  bool is_constant_ = false;
};

}  // namespace halo
