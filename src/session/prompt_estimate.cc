#include "session/prompt_estimate.h"

#include <algorithm>
#include <vector>

namespace halo {
namespace {

constexpr int64_t kRowsLookedAt = 1000;
/// Chat templates and block headings.
constexpr int64_t kMarkupTokens = 64;

int64_t CountTokens(const Vocabulary& vocabulary, const std::string& text) {
  return static_cast<int64_t>(vocabulary.TokenizePart({PromptSpan::Data(text)}).size());
}

/// The longest text that the columns of one of the first rows give, by bytes.
std::string LongestRowText(RowOptions options, const std::vector<std::string>& columns) {
  options.limit = options.limit < 0 ? kRowsLookedAt : std::min(options.limit, kRowsLookedAt);
  const std::unique_ptr<RowSource> rows = OpenRows(options);
  std::string longest;
  while (std::optional<Row> row = rows->Next()) {
    std::string text;
    for (const std::string& column : columns) {
      const auto found = row->values.find(column);
      if (found == row->values.end()) continue;
      const auto elements = found->is_array() ? *found : nlohmann::ordered_json::array({*found});
      for (const auto& element : elements)
        text += element.is_string() ? element.get<std::string>() : element.dump();
    }
    if (text.size() > longest.size()) longest = std::move(text);
  }
  return longest;
}

/// Tokens of what the workflow's author wrote into an operator's prompt.
int64_t WrittenTokens(const Operator& op, const Vocabulary& vocabulary) {
  int64_t tokens = kMarkupTokens;
  if (op.instruction != nullptr) tokens += CountTokens(vocabulary, op.instruction->source());
  if (op.body != nullptr) tokens += CountTokens(vocabulary, op.body->source());
  for (const MessageSpec& message : op.messages)
    tokens += CountTokens(vocabulary, message.content->source()) + kMarkupTokens / 4;
  return tokens;
}

/// What the answer of an input adds to a prompt. A tool's result is cut to a limit that few reach;
/// one above the usual says that nothing is to be cut, not how long results are.
int64_t AnswerTokens(const Operator& input) {
  constexpr int64_t kShareOfLimit = 2;
  const int64_t tokens =
      input.is_inference()
          ? int64_t{input.sampling.max_tokens.constant}
          : std::min(input.tool->prompt.tokens, PromptLimits{}.tokens) / kShareOfLimit;
  return tokens + kMarkupTokens / 4;
}

}  // namespace

int64_t EstimateLongestRequest(const LogicalPlan& plan, const RowOptions& rows,
                               const std::string& column, const Vocabulary& vocabulary) {
  const int64_t row_tokens = CountTokens(
      vocabulary,
      LongestRowText(rows, plan.workflow->is_graph ? plan.workflow->columns : std::vector{column}));
  std::vector<int64_t> conversation(plan.nodes.size(), 0);  // prompt and answer, [operators]
  int64_t longest = 0;
  for (const LogicalNode& node : plan.nodes) {
    const Operator& op = plan.operator_of(node.op);
    if (!op.is_inference()) continue;
    int64_t tokens = WrittenTokens(op, vocabulary);
    if (op.history != History::kContinue) tokens += row_tokens;
    for (const OperatorIndex input : op.inputs) {
      const bool whole = op.history == History::kContinue || op.history == History::kTranscript;
      tokens +=
          whole ? conversation[static_cast<size_t>(input)] : AnswerTokens(plan.operator_of(input));
    }
    tokens += op.sampling.max_tokens.constant;
    conversation[static_cast<size_t>(node.op)] = tokens;
    longest = std::max(longest, tokens);
  }
  return longest;
}

}  // namespace halo
