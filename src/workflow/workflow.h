#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/model_names.h"
#include "model/template.h"

namespace halo {

/// Position of an operator in Workflow::operators, which is in topological order.
using OperatorIndex = int32_t;

/// How an operator's prompt takes up what its parents said (contract 3.1).
enum class History : uint8_t { kNone, kContinue, kOutputs, kTranscript };

/// Order of the parts of a first-turn prompt (contract 3.1). kAuto is resolved by the logical plan.
enum class PromptLayout : uint8_t { kInstructionFirst, kContextFirst, kAuto };

/// A whole number that is written down or computed from the row ("{{ row.length }}").
struct RowNumber {
  int32_t constant = 0;
  /// shared: a Template is immutable, and workflows are copied as values.
  std::shared_ptr<const Template> expression;
};

/// Sampling parameters of one operator, with the dialect's defaults.
struct SamplingSpec {
  double temperature = 0.7;  ///< 0: greedy
  double top_p = 0.9;        ///< (0, 1]
  int32_t top_k = 0;         ///< 0: off
  double min_p = 0.0;        ///< [0, 1]; 0: off
  RowNumber max_tokens{256, nullptr};
  RowNumber min_tokens{0, nullptr};
  std::vector<std::string> stop;  ///< never empty strings; at most 16
  std::optional<int64_t> seed;    ///< replaces the run's seed in this operator's draws
};

/// One LLM call a row.
struct Operator {
  std::string id;
  SourceLocation location;
  ModelRequest model;
  /// shared for the same reason as RowNumber::expression. May be an empty template.
  std::shared_ptr<const Template> instruction;
  std::vector<OperatorIndex> inputs;     ///< in `input_ops` order
  std::vector<OperatorIndex> consumers;  ///< operators that list this one as an input, ascending
  SamplingSpec sampling;
  int32_t max_batch_size = 0;  ///< most calls of this operator in the engine at once; 0: unlimited
  std::optional<int32_t> max_model_len;  ///< tokens of prompt and answer together
  bool use_chat_template = true;
  bool keep_cache = false;  ///< resolved: a consumer uses the same model, unless the file says
  History history = History::kNone;  ///< resolved from the number of parents, unless the file says
  PromptLayout prompt_layout = PromptLayout::kInstructionFirst;
  int32_t depth = 0;  ///< edges on the longest path from a start operator
  bool is_start = false;
  bool is_end = false;
};

/// A validated workflow: operators in topological order (ties by their order in the file).
struct Workflow {
  std::string path;
  std::string name;  ///< `name`, else the file's stem
  std::string description;
  std::string dataset;  ///< local path relative to the file, "" if not given
  std::string column;   ///< "" if not given
  std::vector<Operator> operators;
  std::vector<OperatorIndex> end_operators;  ///< in `end_ops` order
  std::string source_text;                   ///< the file, for fingerprints

  const Operator& at(OperatorIndex index) const { return operators[static_cast<size_t>(index)]; }
  std::optional<OperatorIndex> Find(const std::string& operator_id) const;
};

/// Reads and validates a workflow file. Throws Error(kWorkflow) with every fault found, in file
/// order.
Workflow LoadWorkflow(const std::string& path);
/// The same for a text; `path` is what the faults name.
Workflow ParseWorkflow(const std::string& text, const std::string& path);

/// The columns that every row must have, sorted: the prompt column and those that templates read.
std::vector<std::string> RequiredColumns(const Workflow& workflow,
                                         const std::string& prompt_column);
/// The column of the rows that is the prompt: `flag` (may be ""), else the workflow's `column`,
/// else "prompt".
std::string ResolveColumn(const Workflow& workflow, const std::string& flag);

}  // namespace halo
