#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/model_names.h"
#include "model/output_schema.h"
#include "model/template.h"
#include "workflow/tool_spec.h"

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

/// What a name stands for in the templates of one operator.
struct NameBinding {
  std::string name;
  std::string column;  ///< a column of the row; "": what one of `producers` said
  /// The first of them that was not skipped counts: iterations of a loop, the latest first. Empty
  /// without a column: nothing (none), as in a loop's first iteration.
  std::vector<OperatorIndex> producers;
  std::string field;      ///< of a structured output; "": all of it
  bool required = false;  ///< the instance is skipped if all producers were
  bool declared = false;  ///< in the node's `inputs`: needed, whether or not a template reads it
};

/// Where the user's turn of an operator's first-turn prompt comes from.
enum class PromptForm : uint8_t {
  kRowPrompt,  ///< `ops`: the row's prompt, then a block for each input (History says how)
  kBody,       ///< `graph`: the rendered `prompt`
  kInputs,     ///< `graph` without one: a labelled block for each declared input
  kMessages    ///< `graph`: a list of messages, each with a role
};

/// One of `messages`.
struct MessageSpec {
  std::string role;                         ///< "system", "user" or "assistant"
  std::shared_ptr<const Template> content;  ///< shared as RowNumber::expression
};

/// A condition with the names it reads: `when`, or a loop's `until` for one iteration.
struct Condition {
  /// shared as RowNumber::expression. Null: none.
  std::shared_ptr<const Template> expression;
  std::vector<NameBinding> names;
};

/// What a failure of an instance does to its row (contract 3.2).
enum class OnError : uint8_t { kFail, kNull, kSkip };

/// Attempts after the first one, for failures that may go away.
struct RetryPolicy {
  int32_t max = 0;
  double backoff_s = 1.0;  ///< before the first of them; doubles with each
};

/// What later runs may take of what an operator said (`cache`).
struct CachePolicy {
  bool off = false;              ///< nothing is kept, and nothing taken
  std::optional<double> most_s;  ///< only what was said in the last so many seconds; above 0
};

/// A LoRA adapter on top of an operator's model (`lora_config`).
struct LoraSpec {
  std::string file;    ///< as written: relative to the workflow's folder, or to that of the models
  double scale = 1.0;  ///< finite
  SourceLocation location;  ///< of the file's name; says nothing about the adapter

  friend bool operator==(const LoraSpec& a, const LoraSpec& b) {
    return a.file == b.file && a.scale == b.scale;
  }
};

/// What kind of call an operator makes.
enum class OperatorKind : uint8_t { kInference, kSql, kHttp, kFunction };

/// "llm", "sql", "http" or "function": what the summary and the dump of calls say.
const char* OperatorKindName(OperatorKind kind);

/// One call a row.
struct Operator {
  std::string id;
  SourceLocation location;
  OperatorKind kind = OperatorKind::kInference;
  /// shared for the same reason as RowNumber::expression. Of what is no inference; else null.
  std::shared_ptr<const ToolSpec> tool;
  ModelRequest model;
  std::optional<LoraSpec> lora;
  /// shared for the same reason as RowNumber::expression. May be an empty template.
  std::shared_ptr<const Template> instruction;
  PromptForm form = PromptForm::kRowPrompt;
  std::shared_ptr<const Template> body;  ///< of kBody; shared as `instruction`
  std::vector<MessageSpec> messages;     ///< of kMessages
  std::vector<NameBinding> names;        ///< what its templates may read besides `row`
  /// Operators that end before this one begins. kRowPrompt: in `input_ops` order.
  std::vector<OperatorIndex> inputs;
  std::vector<OperatorIndex> consumers;  ///< operators that list this one as an input, ascending
  Condition when;                        ///< false: the instance is skipped
  std::vector<Condition> over;           ///< `until` after each earlier iteration; true: skipped
  int32_t samples = 1;
  bool vote = false;  ///< the most frequent sample counts, ties to the lowest; else a list of all
  OnError on_error = OnError::kFail;
  RetryPolicy retry;
  CachePolicy cache;
  double timeout_s = 0.0;  ///< of one attempt; 0: none
  int32_t repair = 0;      ///< how often an answer that does not fit `schema` is asked for again
  SamplingSpec sampling;
  /// shared for the same reason. What answers must look like; null: any text.
  std::shared_ptr<const OutputSchema> schema;
  int32_t max_batch_size = 0;  ///< most calls of this operator in the engine at once; 0: unlimited
  std::optional<int32_t> max_model_len;  ///< tokens of prompt and answer together
  bool use_chat_template = true;
  bool keep_cache =
      false;  ///< resolved: a consumer has the same model and adapter, unless the file says
  History history = History::kNone;  ///< resolved from the number of parents, unless the file says
  PromptLayout prompt_layout = PromptLayout::kInstructionFirst;
  int32_t depth = 0;  ///< edges on the longest path from a start operator
  bool is_start = false;
  bool is_end = false;

  bool is_inference() const { return kind == OperatorKind::kInference; }
  /// An instance may be skipped by what it asks itself: `when`, or a loop that is over.
  bool is_conditional() const { return when.expression != nullptr || !over.empty(); }
  /// KV can be shared with `other`: they compute the same from the same tokens.
  bool SharesKvWith(const Operator& other) const {
    return is_inference() && other.is_inference() && model == other.model && lora == other.lora;
  }
};

/// One of `connections`: a database that queries name.
struct ConnectionSpec {
  std::string name;
  /// duckdb:PATH, duckdb::memory:, postgres://...; secrets are written as in SecretText.
  std::string url;
  std::vector<std::pair<std::string, std::string>> files;  ///< table -> CSV, JSON or Parquet file
  SourceLocation location;
};

/// An entry of `allow_hosts` that says what the host takes.
struct HostLimitSpec {
  std::string host;
  int32_t concurrency = 0;           ///< requests at once; 0: the default
  double requests_per_second = 0.0;  ///< 0: no limit
};

/// A validated workflow: operators in topological order (ties by their order in the file).
struct Workflow {
  std::string path;
  std::string name;  ///< `name`, else the file's stem
  std::string description;
  std::string dataset;  ///< local path relative to the file, "" if not given
  std::string column;   ///< "" if not given
  std::vector<Operator> operators;
  std::vector<NameBinding> outputs;         ///< of a row: those of end operators in `end_ops` order
  std::vector<NameBinding> all_outputs;     ///< with --all-outputs: those of every operator
  std::vector<std::string> columns;         ///< that rows must have for the inputs of a graph
  std::vector<ConnectionSpec> connections;  ///< in file order
  std::vector<std::string>
      allow_hosts;  ///< that HTTP calls may reach: "host", "host:port", "*.host"
  std::vector<HostLimitSpec> host_limits;
  bool is_graph = false;             ///< written in the `graph` dialect
  std::vector<std::string> notices;  ///< what a person should know, and is no error
  std::string source_text;           ///< the file, for fingerprints

  const Operator& at(OperatorIndex index) const { return operators[static_cast<size_t>(index)]; }
  std::optional<OperatorIndex> Find(const std::string& operator_id) const;
};

/// Reads and validates a workflow file. Throws Error(kWorkflow) with every fault found, in file
/// order. `host_functions`: names of functions that the embedding program has besides Halo's own.
Workflow LoadWorkflow(const std::string& path, const std::set<std::string>& host_functions = {});
/// The same for a text; `path` is what the faults name.
Workflow ParseWorkflow(const std::string& text, const std::string& path,
                       const std::set<std::string>& host_functions = {});

/// The columns that every row must have, sorted: the prompt column (`ops`) or the outputs of input
/// nodes (`graph`), and those that templates read.
std::vector<std::string> RequiredColumns(const Workflow& workflow,
                                         const std::string& prompt_column);
/// The column of the rows that is the prompt: `flag` (may be ""), else the workflow's `column`,
/// else "prompt".
std::string ResolveColumn(const Workflow& workflow, const std::string& flag);

}  // namespace halo
