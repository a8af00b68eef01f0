#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/hash.h"
#include "plan/logical_plan.h"
#include "plan/node_signature.h"

namespace halo {

/// A stretch of a prompt: text that all prompts of the operator have, or a value that is not known
/// before there is a row, or an answer.
struct PromptPiece {
  bool is_value = false;
  /// Constant text; of a value, the constants among what a template may print there.
  std::string text;
  bool is_written = false;  ///< the author's text, not what a chat template or Halo puts between

  /// Of a value: two pieces with equal signatures are the same text wherever their rows are the
  /// same row. Rows of two sources are never the same.
  Signature value;
  std::string shown;                     ///< for people: "{{ title }}"
  std::set<std::string> columns;         ///< of the row, that it is made of
  bool whole_row = false;                ///< or of all of it
  std::vector<OperatorIndex> producers;  ///< whose answers it is made of
  /// Of what each of them says: less than 1 where the prompt has other fields of the same answer.
  double answer_share = 1.0;
  bool with_conversation = false;  ///< what led to the answers, too
  OperatorIndex answer_of = -1;    ///< it is what this operator says, all of it as it is
  std::string column;  ///< the one column whose value it is, as it is; "": anything else

  bool reads_row() const { return whole_row || !columns.empty(); }
  /// Known only once there is a row, or an answer for it.
  bool is_open() const { return is_value && (reads_row() || !producers.empty()); }
};

/// What the prompts of one operator are made of, from their beginning on.
struct TemplatedPrompt {
  /// The operator of the same model and adapter whose prompt, and then its answer, they go on from;
  /// -1: they begin by themselves.
  OperatorIndex continues = -1;
  std::vector<PromptPiece> pieces;
};

/// What a chat template puts around the contents of messages.
struct ChatFrame {
  std::vector<std::string> texts;           ///< [messages + 1] before each, and after the last
  std::vector<bool> trim_left, trim_right;  ///< [messages] white space is stripped there
};

/// What prompts are written with, beside the plan.
struct PromptSetting {
  int64_t source = 0;  ///< rows of equal numbers are the same rows
  /// Of the `ops` dialect; "": it has no name here, and is no column that a template reads.
  std::string prompt_column;
  bool list_prompts = false;  ///< its values are lists, of which operators take different elements
  /// What a model's chat template does with messages of these roles; null, or nothing returned: a
  /// mark for each message stands in its place.
  std::function<std::optional<ChatFrame>(ModelIndex, const std::vector<std::string>& roles)> frame;
};

/// True for the marks that stand for what an unknown chat template says.
bool IsFrameMark(char byte);

/// [operators] of inference; nothing of tools. `identities` are IdentifyOperators'. Pure but for
/// `frame`. As long as the templates are, for all operators together.
std::vector<std::optional<TemplatedPrompt>> TemplatePrompts(
    const LogicalPlan& plan, const std::vector<OperatorIdentity>& identities,
    const PromptSetting& setting);

/// The pieces up to `values` values and `bytes` bytes of text after the last of them, as EXPLAIN
/// prints them: "You are ..." + {{ title }}. What only a chat template says is left out.
std::string ShownPrompt(const std::vector<PromptPiece>& pieces, size_t values, size_t bytes);

}  // namespace halo
