#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/span.h"

namespace halo {

/// A stretch of what a template prints: text that is the same whatever the values, or a value.
struct TemplatePiece {
  bool is_value = false;
  /// What is printed; of a value, the text constants among what it may print.
  std::string text;
  /// Of a value: how it comes about, apart from what names are called. Two values of equal form,
  /// whose `names` stand for equal things one by one, are equal.
  std::string form;
  std::vector<std::string> names;  ///< that it reads, in order: "title", "row.title", "row"
  bool is_name = false;            ///< it prints what its one name stands for, as it is
  std::string shown;               ///< for people: "{{ title | upper }}"

  friend bool operator==(const TemplatePiece&, const TemplatePiece&) = default;
};

/// A Jinja template written by a workflow's author, parsed by llama.cpp's Jinja and run by an
/// evaluator of our own under the limits of contract section 6 (1M steps, 16 MiB of output).
///
/// Values are marked as input, byte by byte: what comes out of a value is a data span, whatever the
/// filters do to it, never rendered again and never special. Texts print as they are, everything
/// else as compact JSON. A mapping's keys come before its methods (row.items is a column if there
/// is one). Blocks are trimmed as with trim_blocks and lstrip_blocks, and one newline at the end of
/// a template that is not constant is dropped, as Jinja does.
///
/// llama.cpp's own runtime was considered and rejected: tojson, join, split, format, string
/// indices and others lose the mark of input; it has no limits; x is divisibleby(0), circular
/// references and deep recursion end the process; and it copies all variables at each scope (86 us
/// for a chat template that takes 13 here).
class Template {
 public:
  /// Throws Error(kWorkflow) with `where` advanced to the line and column of the fault inside
  /// `source`; a `where` of column 0 stands for all of it and is not advanced.
  static Template Parse(std::string source, SourceLocation where);
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;
  ~Template();

  /// A dotted path that the template reads, as far as it is written out: "row.title" from {{
  /// row.title }} and
  /// {{ row["title"] }}; "row" where the rest is computed. Names the template sets itself and
  /// built-in names are left out. Known before anything runs.
  const std::set<std::string>& reads() const;
  /// True if the template has no expression or statement at all: it renders to its source.
  bool is_constant() const;
  const std::string& source() const;
  /// What it prints, piece by piece in this order. From the first statement on everything is one
  /// value, since what follows may depend on what the statement did.
  std::vector<TemplatePiece> Pieces() const;

  /// Renders with `values` (name -> JSON value; strings as text, everything else compact JSON when
  /// printed) and `answers` (name -> a span of tokens or data): an answer that is printed as it is
  /// comes out as that very span, so that a model's answer keeps its ids; what filters make of it
  /// is data. An undefined name or attribute, a limit or a fault of the template throws Failure
  /// (see base/error.h).
  std::vector<PromptSpan> Render(const std::map<std::string, nlohmann::ordered_json>& values,
                                 const std::map<std::string, PromptSpan>& answers = {}) const;
  /// Evaluates a template that is one expression ("{{ row.length }}") to a JSON value; throws
  /// Failure.
  nlohmann::ordered_json Evaluate(
      const std::map<std::string, nlohmann::ordered_json>& values) const;
  /// True if the value of the expression is true as Jinja has it: not none, false, 0 or empty.
  bool IsTrue(const std::map<std::string, nlohmann::ordered_json>& values) const;

 private:
  struct Impl;
  explicit Template(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace halo
