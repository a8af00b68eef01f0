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

/// The longest row prompt of the first rows, by bytes.
std::string LongestRowPrompt(RowOptions options, const std::string& column) {
  options.limit = options.limit < 0 ? kRowsLookedAt : std::min(options.limit, kRowsLookedAt);
  const std::unique_ptr<RowSource> rows = OpenRows(options);
  std::string longest;
  while (std::optional<Row> row = rows->Next()) {
    const auto found = row->values.find(column);
    if (found == row->values.end()) continue;
    std::string text;
    if (found->is_array()) {
      for (const auto& element : *found)
        text += element.is_string() ? element.get<std::string>() : element.dump();
    } else {
      text = found->is_string() ? found->get<std::string>() : found->dump();
    }
    if (text.size() > longest.size()) longest = std::move(text);
  }
  return longest;
}

}  // namespace

int64_t EstimateLongestRequest(const LogicalPlan& plan, const RowOptions& rows,
                               const std::string& column, const Vocabulary& vocabulary) {
  const int64_t row_tokens = CountTokens(vocabulary, LongestRowPrompt(rows, column));
  std::vector<int64_t> conversation(plan.nodes.size(), 0);  // prompt and answer, [operators]
  int64_t longest = 0;
  for (const LogicalNode& node : plan.nodes) {
    const Operator& op = plan.operator_of(node.op);
    int64_t tokens = kMarkupTokens;
    if (op.instruction != nullptr) tokens += CountTokens(vocabulary, op.instruction->source());
    if (op.history != History::kContinue) tokens += row_tokens;
    for (const OperatorIndex input : op.inputs) {
      const bool whole = op.history == History::kContinue || op.history == History::kTranscript;
      tokens += whole ? conversation[static_cast<size_t>(input)]
                      : plan.operator_of(input).sampling.max_tokens.constant + kMarkupTokens / 4;
    }
    tokens += op.sampling.max_tokens.constant;
    conversation[static_cast<size_t>(node.op)] = tokens;
    longest = std::max(longest, tokens);
  }
  return longest;
}

}  // namespace halo
