#include "workflow/operator_keys.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "base/text.h"
#include "workflow/prompt_check.h"
#include "workflow/schema_key.h"

namespace halo {
namespace {

constexpr int64_t kMaxInt32 = std::numeric_limits<int32_t>::max();
constexpr int64_t kMaxTokens = 1'000'000;
constexpr size_t kMaxStopStrings = 16;
constexpr size_t kMaxIdBytes = 128;
constexpr size_t kMaxOperators = 10'000;

ReferenceList ReadReferences(KeyContext& context, const YamlField& field) {
  const auto texts = context.reader.TextList(field, "the id of an operator");
  ReferenceList references;
  references.node = field.key;
  references.complete = texts && texts->size() == field.value->items.size();
  if (!texts) return references;
  std::set<std::string_view> seen;
  for (const YamlNode* node : *texts) {
    if (!seen.insert(node->text).second) {
      context.reader.diagnostics().Add(node->line, node->column,
                                       field.name + ": '" + node->text + "' is listed twice");
      continue;
    }
    references.value.push_back({node->text, node});
  }
  return references;
}

/// `start_ops` and `end_ops`: not empty.
ReferenceList ReadEnds(KeyContext& context, const YamlField& field) {
  if (field.value->kind == YamlNode::Kind::kSequence && field.value->items.empty()) {
    context.reader.Fault(field, "expected at least one operator, got an empty list");
  }
  return ReadReferences(context, field);
}

/// `max_tokens` and `min_tokens`: a whole number or an expression over the row.
void ReadRowNumber(KeyContext& context, const YamlField& field, WholeRange range, RowNumber& number,
                   OperatorDraft& draft) {
  const YamlNode& value = *field.value;
  const std::string expected = "a whole number from " + std::to_string(range.low) + " to " +
                               std::to_string(range.high) +
                               " or an expression such as \"{{ row.length }}\"";
  if (value.kind == YamlNode::Kind::kMapping &&
      context.text.substr(value.offset).starts_with("{{")) {
    context.reader.Fault(field, "put quotes around the expression: \"{{ row.length }}\"");
    return;
  }
  if (value.IsText() && MeaningOf(value) == PlainMeaning::kWhole) {
    if (const auto whole = context.reader.Whole(field, range)) {
      number.constant = static_cast<int32_t>(*whole);
    }
    return;
  }
  const size_t first = value.text.find_first_not_of(" \t\r\n");
  const size_t last = value.text.find_last_not_of(" \t\r\n");
  const bool is_expression = value.IsText() && first != std::string::npos && last >= first + 3 &&
                             std::string_view(value.text).substr(first).starts_with("{{") &&
                             std::string_view(value.text).substr(0, last + 1).ends_with("}}");
  if (!is_expression) {
    context.reader.Mismatch(field, expected);
    return;
  }
  number.expression =
      ParseTemplateScalar(value, context.text, field.name, context.reader.diagnostics());
  if (number.expression) draft.templates.push_back({number.expression, &value, true});
}

template <double SamplingSpec::*kMember>
void ReadFraction(KeyContext& context, const YamlField& field, OperatorDraft& draft, double low,
                  bool low_included, double high, const char* expected) {
  const auto number = context.reader.Number(field, expected);
  if (!number) return;
  if (*number < low || (*number == low && !low_included) || *number > high) {
    context.reader.Mismatch(field, expected);
    return;
  }
  draft.op.sampling.*kMember = *number;
}

void ReadStop(KeyContext& context, const YamlField& field, OperatorDraft& draft) {
  std::vector<std::string>& stop = draft.op.sampling.stop;
  if (field.value->kind == YamlNode::Kind::kSequence) {
    const auto texts = context.reader.TextList(field, "text");
    if (!texts) return;
    for (const YamlNode* node : *texts) {
      const bool is_new = std::find(stop.begin(), stop.end(), node->text) == stop.end();
      if (!node->text.empty() && is_new) {
        stop.push_back(node->text);
        continue;
      }
      context.reader.diagnostics().Add(
          node->line, node->column,
          is_new ? "stop: expected text that is not empty" : "stop: listed twice");
    }
  } else if (const auto text = context.reader.Text(field)) {
    if (text->empty()) {
      context.reader.Fault(field, "expected text that is not empty");
    } else {
      stop.push_back(*text);
    }
  }
  if (stop.size() > kMaxStopStrings) {
    context.reader.Fault(field, "expected at most 16 texts, got " + std::to_string(stop.size()));
  }
}

void ReadPrompt(KeyContext& context, const YamlField& field, OperatorDraft& draft) {
  if (!context.reader.Text(field)) return;
  draft.op.instruction =
      ParseTemplateScalar(*field.value, context.text, field.name, context.reader.diagnostics());
  if (draft.op.instruction) draft.templates.push_back({draft.op.instruction, field.value, false});
}

void ReadDtype(KeyContext& context, const YamlField& field, OperatorDraft& draft) {
  static const std::vector<std::string> kNames = {"bfloat16", "float16", "float32"};
  if (const auto name = context.reader.Choice(field, kNames)) draft.op.model.dtype = *name;
}

void ReadHistory(KeyContext& context, const YamlField& field, OperatorDraft& draft) {
  const auto word = context.reader.Choice(field, {"continue", "outputs", "transcript"});
  if (!word) return;
  const History history = *word == "continue"  ? History::kContinue
                          : *word == "outputs" ? History::kOutputs
                                               : History::kTranscript;
  draft.history = Written<History>{history, field.value};
}

void ReadLayout(KeyContext& context, const YamlField& field, OperatorDraft& draft) {
  const auto word = context.reader.Choice(field, {"instruction_first", "context_first", "auto"});
  if (!word) return;
  const PromptLayout layout = *word == "instruction_first" ? PromptLayout::kInstructionFirst
                              : *word == "context_first"   ? PromptLayout::kContextFirst
                                                           : PromptLayout::kAuto;
  draft.prompt_layout = Written<PromptLayout>{layout, field.key};
}

void ReadSchemaKey(KeyContext& context, const YamlField& field, OperatorDraft& draft) {
  draft.op.schema = ReadSchema(field, context.text, context.reader.diagnostics());
  draft.schema = field.key;
}

void ReadLora(KeyContext& context, const YamlField& field, OperatorDraft& draft) {
  if (field.value->kind != YamlNode::Kind::kMapping) {
    context.reader.Mismatch(field, "a mapping with file and scale");
    return;
  }
  static constexpr KeySpec<LoraSpec> kKeys[] = {
      {"file",
       [](KeyContext& c, const YamlField& f, LoraSpec& lora) {
         const auto file = c.reader.Word(f);
         if (!file) return;
         lora.file = *file;
         lora.location = {c.reader.diagnostics().file(), f.value->line, f.value->column};
       }},
      {"scale",
       [](KeyContext& c, const YamlField& f, LoraSpec& lora) {
         constexpr double kMost = 1e6;
         const char* expected = "a number from -1000000 to 1000000 (1 is as trained)";
         const auto number = c.reader.Number(f, expected);
         if (number && !(std::abs(*number) <= kMost)) return c.reader.Mismatch(f, expected);
         if (number) lora.scale = *number;
       }},
  };
  LoraSpec lora;
  const auto given = ReadMapping<LoraSpec>(context, *field.value, kKeys, "in lora_config", lora);
  if (!given.contains("file")) {
    context.reader.Fault(field, "expected file: the adapter's GGUF file");
    return;
  }
  draft.op.lora = std::move(lora);
}

void ReadRetry(KeyContext& context, const YamlField& field, OperatorDraft& draft) {
  if (field.value->kind != YamlNode::Kind::kMapping) {
    context.reader.Mismatch(field, "a mapping with max and backoff_s");
    return;
  }
  static constexpr KeySpec<RetryPolicy> kKeys[] = {
      {"max",
       [](KeyContext& c, const YamlField& f, RetryPolicy& retry) {
         if (const auto n = c.reader.Whole(f, {0, 100})) retry.max = static_cast<int32_t>(*n);
       }},
      {"backoff_s",
       [](KeyContext& c, const YamlField& f, RetryPolicy& retry) {
         constexpr double kMostS = 3600.0;
         const char* expected = "a number of seconds from 0 to 3600";
         const auto number = c.reader.Number(f, expected);
         if (number && (*number < 0 || *number > kMostS)) c.reader.Mismatch(f, expected);
         if (number) retry.backoff_s = *number;
       }},
  };
  ReadMapping<RetryPolicy>(context, *field.value, kKeys, "in retry", draft.op.retry);
}

void ReadOnError(KeyContext& context, const YamlField& field, OperatorDraft& draft) {
  // `on_error: null` is YAML's null, and means the word.
  if (field.value->kind == YamlNode::Kind::kNull) {
    draft.op.on_error = OnError::kNull;
    return;
  }
  const auto word = context.reader.Choice(field, {"fail", "null", "skip"});
  if (!word) return;
  draft.op.on_error = *word == "fail"   ? OnError::kFail
                      : *word == "null" ? OnError::kNull
                                        : OnError::kSkip;
}

void ReadWhen(KeyContext& context, const YamlField& field, OperatorDraft& draft) {
  draft.op.when.expression = ReadCondition(context, field);
  if (draft.op.when.expression)
    draft.templates.push_back({draft.op.when.expression, field.value, false});
}

void ReadTimeout(KeyContext& context, const YamlField& field, OperatorDraft& draft) {
  const char* expected = "a number of seconds above 0";
  const auto number = context.reader.Number(field, expected);
  if (!number) return;
  if (*number <= 0) return context.reader.Mismatch(field, expected);
  draft.op.timeout_s = *number;
}

/// A call of a model changes nothing outside.
void CheckEffect(KeyContext& context, const YamlField& field, OperatorDraft& /*draft*/) {
  const auto word = context.reader.Choice(field, {"pure", "read", "write"});
  if (word && *word != "pure") {
    context.reader.Fault(field, "a call of a language model is pure: take effect out");
  }
}

constexpr double kNoLimit = std::numeric_limits<double>::max();

/// Every key of an operator. To add one: a line here, and one in docs/workflow.schema.json.
constexpr KeySpec<OperatorDraft> kOperatorKeys[] = {
    {"model",
     [](KeyContext& c, const YamlField& f, OperatorDraft& d) {
       if (const auto name = c.reader.Word(f)) d.op.model.name = *name;
     }},
    {"prompt", ReadPrompt},
    {"input_ops", [](KeyContext& c, const YamlField& f,
                     OperatorDraft& d) { d.input_ops = ReadReferences(c, f); }},
    {"output_ops", [](KeyContext& c, const YamlField& f,
                      OperatorDraft& d) { d.output_ops = ReadReferences(c, f); }},
    {"temperature",
     [](KeyContext& c, const YamlField& f, OperatorDraft& d) {
       ReadFraction<&SamplingSpec::temperature>(c, f, d, 0, true, kNoLimit,
                                                "a number of at least 0 (0 is greedy)");
     }},
    {"top_p",
     [](KeyContext& c, const YamlField& f, OperatorDraft& d) {
       ReadFraction<&SamplingSpec::top_p>(c, f, d, 0, false, 1,
                                          "a number above 0 and up to 1 (1 is off)");
     }},
    {"top_k",
     [](KeyContext& c, const YamlField& f, OperatorDraft& d) {
       if (const auto n = c.reader.Whole(f, {0, kMaxInt32})) {
         d.op.sampling.top_k = static_cast<int32_t>(*n);
       }
     }},
    {"min_p",
     [](KeyContext& c, const YamlField& f, OperatorDraft& d) {
       ReadFraction<&SamplingSpec::min_p>(c, f, d, 0, true, 1, "a number from 0 to 1 (0 is off)");
     }},
    {"max_tokens",
     [](KeyContext& c, const YamlField& f, OperatorDraft& d) {
       ReadRowNumber(c, f, {1, kMaxTokens}, d.op.sampling.max_tokens, d);
     }},
    {"min_tokens",
     [](KeyContext& c, const YamlField& f, OperatorDraft& d) {
       d.min_tokens = f.value;
       ReadRowNumber(c, f, {0, kMaxTokens}, d.op.sampling.min_tokens, d);
     }},
    {"stop", ReadStop},
    {"seed",
     [](KeyContext& c, const YamlField& f, OperatorDraft& d) {
       d.op.sampling.seed = c.reader.Whole(f, {INT64_MIN, INT64_MAX});
     }},
    {"max_batch_size",
     [](KeyContext& c, const YamlField& f, OperatorDraft& d) {
       if (const auto n = c.reader.Whole(f, {1, kMaxInt32})) {
         d.op.max_batch_size = static_cast<int32_t>(*n);
       }
     }},
    {"dtype", ReadDtype},
    {"quantization",
     [](KeyContext& c, const YamlField& f, OperatorDraft& d) {
       if (const auto name = c.reader.Word(f)) d.op.model.quantization = *name;
     }},
    {"max_model_len",
     [](KeyContext& c, const YamlField& f, OperatorDraft& d) {
       if (const auto n = c.reader.Whole(f, {1, kMaxInt32})) {
         d.op.max_model_len = static_cast<int32_t>(*n);
       }
     }},
    {"use_chat_template",
     [](KeyContext& c, const YamlField& f, OperatorDraft& d) {
       if (const auto on = c.reader.Boolean(f)) d.op.use_chat_template = *on;
     }},
    {"keep_cache", [](KeyContext& c, const YamlField& f,
                      OperatorDraft& d) { d.keep_cache = c.reader.Boolean(f); }},
    {"history", ReadHistory},
    {"prompt_layout", ReadLayout},
    {"schema", ReadSchemaKey},
    {"samples",
     [](KeyContext& c, const YamlField& f, OperatorDraft& d) {
       constexpr int64_t kMostSamples = 1000;
       if (const auto n = c.reader.Whole(f, {1, kMostSamples})) {
         d.op.samples = static_cast<int32_t>(*n);
       }
     }},
    {"vote",
     [](KeyContext& c, const YamlField& f, OperatorDraft& d) {
       d.vote = f.key;
       if (const auto on = c.reader.Boolean(f)) d.op.vote = *on;
     }},
    {"when", ReadWhen},
    {"lora_config", ReadLora},
    {"timeout_s", ReadTimeout},
    {"retry", ReadRetry},
    {"repair",
     [](KeyContext& c, const YamlField& f, OperatorDraft& d) {
       d.repair = f.key;
       if (const auto n = c.reader.Whole(f, {0, 10})) d.op.repair = static_cast<int32_t>(*n);
     }},
    {"on_error", ReadOnError},
    {"cache", [](KeyContext& c, const YamlField& f,
                 OperatorDraft& d) { ReadCachePolicy(c, f, d.op.cache); }},
    {"effect", CheckEffect},
    {"idempotent", [](KeyContext& c, const YamlField& f, OperatorDraft&) { c.reader.Boolean(f); }},
};

void ReadOperators(KeyContext& context, const YamlField& field, WorkflowDraft& workflow) {
  if (field.value->kind != YamlNode::Kind::kMapping || field.value->entries.empty()) {
    context.reader.Fault(
        field, "expected a mapping of operator ids to operators, got " +
                   (field.value->kind == YamlNode::Kind::kMapping ? std::string("an empty one")
                                                                  : DescribeNode(*field.value)));
    return;
  }
  if (field.value->entries.size() > kMaxOperators) {
    context.reader.Fault(field, "more than 10000 operators");
    return;
  }
  DiagnosticList& diagnostics = context.reader.diagnostics();
  std::set<std::string_view> seen;
  for (const auto& [key, value] : field.value->entries) {
    const bool merge_key = key->text == "<<" && !key->quoted;
    if (!key->IsText() || merge_key || !seen.insert(key->text).second) continue;
    const std::string fault = OperatorIdFault(key->text);
    if (!fault.empty()) diagnostics.Add(key->line, key->column, fault);
    OperatorDraft draft;
    draft.key = key.get();
    draft.op.id = key->text;
    draft.op.location = {diagnostics.file(), key->line, key->column};
    if (value->kind != YamlNode::Kind::kMapping) {
      context.reader.Mismatch({"operator '" + key->text + "'", key.get(), value.get()},
                              "a mapping with model and prompt");
    } else {
      const auto given =
          ReadMapping<OperatorDraft>(context, *value, kOperatorKeys, "in an operator", draft);
      if (!given.contains("model")) {
        diagnostics.Add(key->line, key->column,
                        "operator '" + key->text + "' has no model: add 'model: NAME'");
      }
    }
    workflow.operators.push_back(std::move(draft));
  }
}

void ReadWorkflowName(KeyContext& context, const YamlField& field, WorkflowDraft& draft) {
  draft.name = ReadWorkflowNameText(context, field);
}

/// Every key of a file in this dialect.

constexpr KeySpec<WorkflowDraft> kWorkflowKeys[] = {
    {"start_ops",
     [](KeyContext& c, const YamlField& f, WorkflowDraft& d) { d.start_ops = ReadEnds(c, f); }},
    {"end_ops",
     [](KeyContext& c, const YamlField& f, WorkflowDraft& d) { d.end_ops = ReadEnds(c, f); }},
    {"ops", ReadOperators},
    {"dataset", [](KeyContext& c, const YamlField& f,
                   WorkflowDraft& d) { d.dataset = c.reader.Word(f).value_or(""); }},
    {"name", ReadWorkflowName},
    {"column", [](KeyContext& c, const YamlField& f,
                  WorkflowDraft& d) { d.column = c.reader.Word(f).value_or(""); }},
};

}  // namespace

WorkflowDraft ReadOpsFile(const YamlNode& root, std::string_view text,
                          DiagnosticList& diagnostics) {
  ValueReader reader(diagnostics);
  KeyContext context{reader, text};
  WorkflowDraft workflow;
  const auto given =
      ReadMapping<WorkflowDraft>(context, root, kWorkflowKeys, "at the top of the file", workflow);
  for (const char* required : {"start_ops", "end_ops", "ops"}) {
    if (!given.contains(required)) {
      diagnostics.Add(root.line, root.column, "the key '" + std::string(required) + "' is missing");
    }
  }
  return workflow;
}

std::string OperatorIdFault(const std::string& id) {
  const auto is_letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  };
  const auto is_inner = [&](char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || c == '.' || c == '-';
  };
  if (id.size() > kMaxIdBytes) return "an operator id has at most 128 characters";
  if (id.empty() || !is_letter(id[0]) || !std::all_of(id.begin(), id.end(), is_inner)) {
    return "'" + id +
           "' cannot name an operator: expected a letter or '_', then letters, digits, "
           "'_', '.' or '-'";
  }
  if (id == "row") return "'row' cannot name an operator: templates read the row's columns by it";
  return "";
}

void CheckOperatorKeys(const OperatorDraft& draft, DiagnosticList& diagnostics) {
  if (draft.vote != nullptr && draft.op.vote && draft.op.samples == 1) {
    diagnostics.Add(draft.vote->line, draft.vote->column,
                    "vote: there is one sample to choose from: add samples: 3, or take vote out");
  }
  if (draft.schema != nullptr && !draft.op.sampling.stop.empty()) {
    diagnostics.Add(draft.schema->line, draft.schema->column,
                    "schema beside stop: the schema says where an answer ends, take stop out");
  }
  if (draft.op.repair > 0 && draft.op.schema == nullptr && draft.schema == nullptr) {
    diagnostics.Add(draft.repair->line, draft.repair->column,
                    "repair: there is no schema that an answer could fail: add one, or take repair "
                    "out");
  }
  const SamplingSpec& sampling = draft.op.sampling;
  if (!draft.min_tokens || sampling.max_tokens.expression || sampling.min_tokens.expression) return;
  if (sampling.min_tokens.constant <= sampling.max_tokens.constant) return;
  diagnostics.Add(draft.min_tokens->line, draft.min_tokens->column,
                  "min_tokens: " + std::to_string(sampling.min_tokens.constant) +
                      " is more than max_tokens, " + std::to_string(sampling.max_tokens.constant));
}

std::string ReadWorkflowNameText(KeyContext& context, const YamlField& field) {
  std::string name = context.reader.Word(field).value_or("");
  const bool plain = std::none_of(name.begin(), name.end(), [](char c) {
    return c == '/' || static_cast<unsigned char>(c) < ' ';
  });
  if (!plain || name.starts_with('.')) {
    context.reader.Fault(field,
                         "a workflow's name has no '/', no control character and no '.' in front");
  }
  return name;
}

void ReadCachePolicy(KeyContext& context, const YamlField& field, CachePolicy& policy) {
  const char* expected = "auto, off or a number of seconds";
  const YamlNode& value = *field.value;
  if (value.IsText() && value.text == "auto") return;
  if (value.IsText() && value.text == "off") {
    policy.off = true;
    return;
  }
  const auto seconds = context.reader.Number(field, expected);
  if (!seconds) return;
  if (*seconds < 0) return context.reader.Mismatch(field, expected);
  policy.off = *seconds == 0;
  if (!policy.off) policy.most_s = *seconds;
}

std::shared_ptr<const Template> ReadCondition(KeyContext& context, const YamlField& field) {
  if (!context.reader.Word(field)) return nullptr;
  return ParseConditionScalar(*field.value, context.text, field.name, context.reader.diagnostics());
}

std::span<const KeySpec<OperatorDraft>> OperatorKeys() { return kOperatorKeys; }

std::vector<std::string> WorkflowKeyNames() {
  return NamesOf(std::span<const KeySpec<WorkflowDraft>>(kWorkflowKeys));
}

std::vector<std::string> OperatorKeyNames() {
  return NamesOf(std::span<const KeySpec<OperatorDraft>>(kOperatorKeys));
}

}  // namespace halo
