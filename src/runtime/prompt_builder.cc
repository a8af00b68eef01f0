#include "runtime/prompt_builder.h"

#include <algorithm>

#include "base/check.h"

namespace halo {
namespace {

using Spans = std::vector<PromptSpan>;

constexpr const char* kSeparator = "\n\n";

void Append(Spans& spans, Spans more) {
  for (PromptSpan& span : more) spans.push_back(std::move(span));
}

/// A list of one, which is not copied as an initializer list would be.
Spans One(PromptSpan span) {
  Spans spans;
  spans.push_back(std::move(span));
  return spans;
}

/// Parts of a message, those that are not empty, with blank lines between them.
Spans Join(std::vector<Spans> parts) {
  Spans joined;
  for (Spans& part : parts) {
    if (part.empty()) continue;
    if (!joined.empty()) joined.push_back(PromptSpan::Template(kSeparator));
    Append(joined, std::move(part));
  }
  return joined;
}

/// A value as prompts show it: text as is, everything else compact JSON (contract 3.2).
std::string ValueText(const nlohmann::ordered_json& value) {
  return value.is_string()
             ? value.get<std::string>()
             : value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

/// Strips white space at the edges of a slot's value, as the template would.
void TrimEdges(Spans& value, bool left, bool right) {
  constexpr const char* kSpace = " \t\n\r\f\v";
  if (left && !value.empty() && value.front().kind != PromptSpan::Kind::kTokens) {
    const size_t from = value.front().text.find_first_not_of(kSpace);
    value.front().text.erase(0, std::min(from, value.front().text.size()));
  }
  if (right && !value.empty() && value.back().kind != PromptSpan::Kind::kTokens) {
    const size_t last = value.back().text.find_last_not_of(kSpace);
    value.back().text.erase(last == std::string::npos ? 0 : last + 1);
  }
}

size_t CommonPrefix(const std::vector<TokenId>& a, const std::vector<TokenId>& b) {
  const size_t limit = std::min(a.size(), b.size());
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(limit), b.begin()).first -
      a.begin());
}

}  // namespace

struct PromptBuilder::Impl {
  const LogicalPlan& plan;
  const LogicalNode& node;
  const Operator& op;
  PromptModel model;
  std::string column;

  // Parts of the newest turn, each a slot of the skeleton.
  enum Slot : int32_t { kRowPrompt = 0, kInstruction = 1, kFirstBlock = 2 };
  int32_t slots = 0;
  ChatTemplate::Skeleton skeleton;  // of a first-turn prompt
  bool has_skeleton = false;
  bool has_instruction = false;
  Spans constant_instruction;        // when it reads nothing
  std::vector<bool> constant_slots;  // [slot] written into the skeleton

  bool keep_messages = false;  // a consumer takes this conversation up

  /// Tokens that prompts begin with whatever the row: found once by tokenizing, compared with each
  /// prompt.
  std::vector<TokenId> static_prefix;

  Impl(const LogicalPlan& p, OperatorIndex index, const PromptModel& m, std::string prompt_column)
      : plan(p),
        node(p.at(index)),
        op(p.operator_of(index)),
        model(m),
        column(std::move(prompt_column)) {
    for (const OperatorIndex consumer : op.consumers) {
      const History history = plan.operator_of(consumer).history;
      keep_messages =
          keep_messages || history == History::kContinue || history == History::kTranscript;
    }
    keep_messages = keep_messages || op.repair > 0;
  }

  bool uses_chat() const { return op.use_chat_template && model.chat != nullptr; }

  Spans RowPrompt(const nlohmann::ordered_json& row) const;
  Spans Instruction(const PromptInputs& inputs) const;
  Spans RenderTemplate(const Template& source, const PromptInputs& inputs) const;
  Spans Block(OperatorIndex parent, const Conversation* conversation) const;
  Spans InputBlocks(const PromptInputs& inputs) const;
  PromptSpan AnswerSpan(const Conversation& conversation) const;
  std::vector<ChatMessage> Messages(std::vector<Spans> contents) const;
  std::vector<Spans> Parts(const PromptInputs& inputs) const;
  std::vector<ChatMessage> Turns(std::vector<Spans> values) const;
  std::vector<ChatMessage> FirstTurn(Spans row_prompt, Spans instruction,
                                     std::vector<Spans> blocks) const;
  bool CanFill(const std::vector<Spans>& values) const;
  Spans FillSkeleton(std::vector<Spans> values) const;
  Spans RenderPlain(const std::vector<ChatMessage>& messages) const;
  void CompileSkeleton();
  void MeasureStaticPrefix();
  void Tokenize(const Spans& spans, Conversation& conversation) const;
  Conversation Continue(const Conversation& parent, Spans user) const;
  bool RendersLike(const Conversation& parent) const;
  const ChatTemplate* used_chat() const { return uses_chat() ? model.chat.get() : nullptr; }
  Spans Render(const std::vector<ChatMessage>& messages) const {
    return uses_chat() ? model.chat->Render(messages, true) : RenderPlain(messages);
  }
  bool SameVocabulary(const Conversation& parent) const {
    return model.vocabulary != nullptr && parent.vocabulary == model.vocabulary->id();
  }
};

Spans PromptBuilder::Impl::RowPrompt(const nlohmann::ordered_json& row) const {
  const auto found = row.find(column);
  if (found == row.end())
    throw Failure{op.id, "missing_column", "the row has no column '" + column + "'", false};
  if (!found->is_array()) return One(PromptSpan::Data(ValueText(*found)));
  if (found->empty())
    throw Failure{op.id, "empty_prompt", "column '" + column + "' is an empty list", false};
  const size_t element = op.history == History::kContinue ? static_cast<size_t>(op.depth)
                                                          : RowPromptElement(op, found->size());
  return One(PromptSpan::Data(ValueText((*found)[std::min(element, found->size() - 1)])));
}

Spans PromptBuilder::Impl::RenderTemplate(const Template& source,
                                          const PromptInputs& inputs) const {
  if (source.is_constant()) return source.Render({});
  std::map<std::string, nlohmann::ordered_json> values = inputs.values;
  values.emplace("row", inputs.row);
  std::map<std::string, PromptSpan> answers;
  for (const auto& [name, conversation] : inputs.answers)
    answers.emplace(name, AnswerSpan(*conversation));
  return source.Render(values, answers);
}

Spans PromptBuilder::Impl::Instruction(const PromptInputs& inputs) const {
  if (op.instruction == nullptr) return {};
  if (op.instruction->is_constant()) return constant_instruction;
  return RenderTemplate(*op.instruction, inputs);
}

/// What a parent said: its ids where they mean the same here, else its text.
PromptSpan PromptBuilder::Impl::AnswerSpan(const Conversation& conversation) const {
  std::string shown =
      conversation.answer_value ? ValueText(*conversation.answer_value) : conversation.answer_text;
  const bool as_sampled = !conversation.answer_cut && shown == conversation.answer_text;
  if (!as_sampled || !SameVocabulary(conversation)) return PromptSpan::Data(std::move(shown));
  std::vector<TokenId> tokens = conversation.answer_tokens;
  if (conversation.answer_ended && !tokens.empty()) tokens.pop_back();
  if (tokens.empty()) return PromptSpan::Data(std::move(shown));
  return PromptSpan::Tokens(std::move(tokens), std::move(shown));
}

Spans PromptBuilder::Impl::Block(OperatorIndex parent, const Conversation* conversation) const {
  Spans block = One(PromptSpan::Template("### " + plan.operator_of(parent).id + "\n"));
  if (conversation == nullptr) {
    block.push_back(PromptSpan::Template("null"));
    return block;
  }
  if (op.history == History::kTranscript) {
    for (const ChatMessage& message : conversation->messages) {
      block.push_back(PromptSpan::Template(message.role + ":\n"));
      // Within another prompt a conversation is data, whoever wrote it.
      block.push_back(PromptSpan::Data(SpansText(message.content)));
      block.push_back(PromptSpan::Template(kSeparator));
    }
    block.push_back(PromptSpan::Template("assistant:\n"));
  }
  block.push_back(AnswerSpan(*conversation));
  return block;
}

/// A graph node's declared inputs, each under its name.
Spans PromptBuilder::Impl::InputBlocks(const PromptInputs& inputs) const {
  std::vector<Spans> blocks;
  for (const NameBinding& name : op.names) {
    if (!name.required) continue;
    Spans block = One(PromptSpan::Template("### " + name.name + "\n"));
    const auto answer = inputs.answers.find(name.name);
    block.push_back(answer != inputs.answers.end()
                        ? AnswerSpan(*answer->second)
                        : PromptSpan::Data(ValueText(inputs.values.at(name.name))));
    blocks.push_back(std::move(block));
  }
  return Join(std::move(blocks));
}

std::vector<ChatMessage> PromptBuilder::Impl::FirstTurn(Spans row_prompt, Spans instruction,
                                                        std::vector<Spans> blocks) const {
  std::vector<ChatMessage> messages;
  std::vector<Spans> user = {std::move(row_prompt)};
  for (Spans& block : blocks) user.push_back(std::move(block));
  if (node.layout == PromptLayout::kContextFirst) {
    user.push_back(std::move(instruction));
  } else if (!instruction.empty()) {
    messages.push_back({"system", std::move(instruction)});
  }
  messages.push_back({"user", Join(std::move(user))});
  return messages;
}

Spans PromptBuilder::Impl::RenderPlain(const std::vector<ChatMessage>& messages) const {
  std::vector<Spans> parts;
  for (const ChatMessage& message : messages) {
    if (message.role == "assistant" && !parts.empty()) {
      // The model went on where its prompt ended.
      Append(parts.back(), message.content);
    } else {
      parts.push_back(message.content);
    }
  }
  return Join(std::move(parts));
}

std::vector<ChatMessage> PromptBuilder::Impl::Messages(std::vector<Spans> contents) const {
  std::vector<ChatMessage> messages;
  for (size_t i = 0; i < contents.size(); ++i)
    messages.push_back({op.messages[i].role, std::move(contents[i])});
  return messages;
}

/// The parts of the prompt, one a slot of the skeleton.
std::vector<Spans> PromptBuilder::Impl::Parts(const PromptInputs& inputs) const {
  std::vector<Spans> values;
  if (op.form == PromptForm::kMessages) {
    for (const MessageSpec& message : op.messages)
      values.push_back(RenderTemplate(*message.content, inputs));
    return values;
  }
  Spans instruction = Instruction(inputs);
  if (!HaveText(instruction)) instruction.clear();
  values.push_back(op.form == PromptForm::kBody     ? RenderTemplate(*op.body, inputs)
                   : op.form == PromptForm::kInputs ? InputBlocks(inputs)
                                                    : RowPrompt(inputs.row));
  values.push_back(std::move(instruction));
  for (size_t i = 0; i < inputs.parents.size(); ++i)
    values.push_back(Block(op.inputs[i], inputs.parents[i]));
  return values;
}

/// The conversation that parts (or slots in their place) make.
std::vector<ChatMessage> PromptBuilder::Impl::Turns(std::vector<Spans> values) const {
  if (op.form == PromptForm::kMessages) return Messages(std::move(values));
  std::vector<Spans> blocks(std::make_move_iterator(values.begin() + kFirstBlock),
                            std::make_move_iterator(values.end()));
  return FirstTurn(std::move(values[kRowPrompt]), std::move(values[kInstruction]),
                   std::move(blocks));
}

void PromptBuilder::Impl::CompileSkeleton() {
  has_instruction = op.instruction != nullptr && !op.instruction->source().empty();
  if (has_instruction && op.instruction->is_constant()) {
    constant_instruction = {PromptSpan::Template(op.instruction->source())};
  }
  if (op.history == History::kContinue) return;
  const bool takes_blocks = op.form == PromptForm::kRowPrompt;
  slots = op.form == PromptForm::kMessages
              ? static_cast<int32_t>(op.messages.size())
              : kFirstBlock + (takes_blocks ? static_cast<int32_t>(op.inputs.size()) : 0);
  std::vector<Spans> holes;
  for (int32_t slot = 0; slot < slots; ++slot) holes.push_back({PromptSpan::Slot(slot)});
  constant_slots.assign(holes.size(), false);
  for (size_t i = 0; i < op.messages.size(); ++i) {
    const Template& content = *op.messages[i].content;
    constant_slots[i] = content.is_constant();
    if (constant_slots[i]) holes[i] = content.Render({});
  }
  if (op.form != PromptForm::kMessages && (!has_instruction || !constant_instruction.empty())) {
    constant_slots[kInstruction] = true;
    holes[kInstruction] = constant_instruction;
  }
  const std::vector<ChatMessage> messages = Turns(std::move(holes));
  if (uses_chat()) {
    try {
      skeleton = model.chat->Compile(messages, true, slots);
    } catch (const Failure&) {
      // The template refuses this conversation with placeholders; rendering a real row will say
      // why.
      skeleton.usable = false;
    }
    has_skeleton = skeleton.usable;
  } else {
    skeleton.spans = RenderPlain(messages);
    skeleton.trim_left.assign(static_cast<size_t>(slots), false);
    skeleton.trim_right.assign(static_cast<size_t>(slots), false);
    has_skeleton = true;
  }
  MeasureStaticPrefix();
}

void PromptBuilder::Impl::MeasureStaticPrefix() {
  if (!has_skeleton || model.vocabulary == nullptr) return;
  // What unlike fillings have in common does not depend on the row. One token less could still join
  // with the row's first letters, digits, signs or blanks.
  bool first = true;
  for (const char* text : {"A", "9", "\xC3\xA9", ".", " a", "\n\nb", "'s"}) {
    std::vector<Spans> values(static_cast<size_t>(slots), Spans{PromptSpan::Data(text)});
    const std::vector<TokenId> prompt =
        model.vocabulary->TokenizePrompt(FillSkeleton(std::move(values)));
    if (first) {
      static_prefix = prompt;
    } else {
      static_prefix.resize(CommonPrefix(static_prefix, prompt));
    }
    first = false;
  }
}

Spans PromptBuilder::Impl::FillSkeleton(std::vector<Spans> values) const {
  for (size_t slot = 0; slot < values.size(); ++slot) {
    TrimEdges(values[slot], skeleton.trim_left[slot], skeleton.trim_right[slot]);
  }
  return ChatTemplate::Fill(skeleton, std::move(values));
}

/// True if the skeleton says what rendering would; `values` are its slots.
bool PromptBuilder::Impl::CanFill(const std::vector<Spans>& values) const {
  // An instruction that this row leaves empty takes its message and its blank line away.
  const bool written =
      op.form != PromptForm::kMessages && constant_instruction.empty() && has_instruction;
  if (!has_skeleton || (written && !HaveText(values[kInstruction]))) return false;
  if (!uses_chat()) return true;
  for (size_t slot = 0; slot < values.size(); ++slot) {
    if (constant_slots[slot]) continue;  // seen at compile time
    const Spans& value = values[slot];
    const bool is_opaque = value.size() == 1 ? model.chat->IsOpaque(value.front().text)
                                             : model.chat->IsOpaque(SpansText(value));
    if (!is_opaque) return false;
  }
  return true;
}

void PromptBuilder::Impl::Tokenize(const Spans& spans, Conversation& conversation) const {
  conversation.chat = used_chat();
  if (model.vocabulary == nullptr) {
    conversation.prompt.text = SpansText(spans);
    return;
  }
  conversation.vocabulary = model.vocabulary->id();
  conversation.prompt.tokens = model.vocabulary->TokenizePrompt(spans);
  const size_t common = CommonPrefix(static_prefix, conversation.prompt.tokens);
  conversation.prompt.static_prefix_tokens =
      std::max(0, std::min(static_cast<int32_t>(common),
                           static_cast<int32_t>(conversation.prompt.tokens.size()) - 1));
}

/// True if this operator's template makes the parent's prompt of the parent's messages, be it
/// another model's.
bool PromptBuilder::Impl::RendersLike(const Conversation& parent) const {
  if (parent.chat == used_chat()) return true;
  const Spans rendered = Render(parent.messages);
  if (model.vocabulary == nullptr) return SpansText(rendered) == parent.prompt.text;
  return model.vocabulary->TokenizePrompt(rendered) == parent.prompt.tokens;
}

Conversation PromptBuilder::Impl::Continue(const Conversation& parent, Spans user) const {
  Conversation child;
  child.chat = used_chat();
  ChatMessage next{"user", std::move(user)};
  bool extends =
      !parent.answer_cut &&
      (model.vocabulary == nullptr ? parent.prompt.tokens.empty() : SameVocabulary(parent)) &&
      RendersLike(parent);
  Spans suffix;
  if (extends && uses_chat()) {
    ChatTemplate::Continuation continuation =
        model.chat->Continue(parent.messages, parent.answer_text, next);
    extends = continuation.exact;
    suffix = std::move(continuation.suffix);
  } else if (extends) {
    suffix = Join({Spans{PromptSpan::Template("")}, next.content});
  }
  if (!extends || keep_messages) {
    child.messages = parent.messages;
    child.messages.push_back({"assistant", {PromptSpan::Data(parent.answer_text)}});
    child.messages.push_back(std::move(next));
  }
  if (!extends) {
    Tokenize(Render(child.messages), child);
    return child;
  }
  if (model.vocabulary == nullptr) {
    child.prompt.text = parent.prompt.text + parent.answer_text + SpansText(suffix);
    return child;
  }
  child.vocabulary = parent.vocabulary;
  child.prompt.tokens = parent.prompt.tokens;
  child.prompt.static_prefix_tokens = 0;
  std::vector<TokenId> answer = parent.answer_tokens;
  std::vector<TokenId> added = model.vocabulary->TokenizePart(suffix);
  // The end token once: the template writes its own after the answer.
  if (parent.answer_ended && !answer.empty() && uses_chat()) {
    const bool template_ends_turn =
        !added.empty() && model.vocabulary->IsEndOfGeneration(added.front());
    if (template_ends_turn) answer.pop_back();
  } else if (parent.answer_ended && !answer.empty()) {
    answer.pop_back();
  }
  child.prompt.tokens.insert(child.prompt.tokens.end(), answer.begin(), answer.end());
  child.prompt.tokens.insert(child.prompt.tokens.end(), added.begin(), added.end());
  return child;
}

PromptBuilder::PromptBuilder(const LogicalPlan& plan, OperatorIndex op, const PromptModel& model,
                             std::string prompt_column)
    : impl_(std::make_unique<Impl>(plan, op, model, std::move(prompt_column))) {
  impl_->CompileSkeleton();
}

PromptBuilder::~PromptBuilder() = default;
PromptBuilder::PromptBuilder(PromptBuilder&&) noexcept = default;

bool PromptBuilder::needs_messages() const {
  return impl_->op.history == History::kContinue || impl_->op.history == History::kTranscript;
}

Conversation PromptBuilder::Build(const PromptInputs& inputs) const {
  const Impl& impl = *impl_;
  if (impl.op.history == History::kContinue) {
    const Conversation* parent = inputs.parents.front();
    HALO_CHECK(parent != nullptr, "an operator that may have no answer has no continuation");
    const auto prompt = inputs.row.find(impl.column);
    const bool next_element = prompt != inputs.row.end() && prompt->is_array();
    Spans user =
        Join({next_element ? impl.RowPrompt(inputs.row) : Spans{}, impl.Instruction(inputs)});
    return impl.Continue(*parent, std::move(user));
  }
  std::vector<Spans> values = impl.Parts(inputs);
  Conversation conversation;
  const bool can_fill = impl.CanFill(values);
  if (!can_fill || impl.keep_messages) conversation.messages = impl.Turns(values);
  const Spans spans =
      can_fill ? impl.FillSkeleton(std::move(values)) : impl.Render(conversation.messages);
  impl.Tokenize(spans, conversation);
  return conversation;
}

Conversation PromptBuilder::Repair(const Conversation& refused, const std::string& fault) const {
  // The validator's words quote the answer, so they are data.
  Spans turn = One(PromptSpan::Data(fault));
  turn.push_back(PromptSpan::Template("\nAnswer again, with nothing but a corrected answer."));
  return impl_->Continue(refused, std::move(turn));
}

int32_t PromptBuilder::RowLimit(const RowNumber& number, const nlohmann::ordered_json& row,
                                const char* key) const {
  if (number.expression == nullptr) return number.constant;
  constexpr int64_t kMost = 1'000'000;
  const nlohmann::ordered_json value = number.expression->Evaluate({{"row", row}});
  double amount = -1.0;
  if (value.is_number()) amount = value.get<double>();
  if (value.is_string()) {
    const std::string text = value.get<std::string>();
    char* end = nullptr;
    amount = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0') amount = -1.0;
  }
  // Not a number compares as false; only what is in range may become an integer.
  const bool in_range = amount >= 0.0 && amount <= static_cast<double>(kMost);
  if (!in_range || amount != static_cast<double>(static_cast<int64_t>(amount))) {
    constexpr size_t kShown = 100;
    std::string shown = value.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace);
    if (shown.size() > kShown) shown = shown.substr(0, kShown) + "...";
    throw Failure{impl_->op.id, "bad_value",
                  std::string(key) + ": expected a whole number from 0 to 1000000, got " + shown,
                  false};
  }
  return static_cast<int32_t>(amount);
}

}  // namespace halo
