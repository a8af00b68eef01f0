#include "plan/templated_prompt.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/text.h"

namespace halo {
namespace {

using Pieces = std::vector<PromptPiece>;

struct Message {
  std::string role;
  Pieces content;
};

constexpr const char* kSeparator = "\n\n";
// Control characters, which no author writes: a byte for each role.
constexpr char kFirstMark = '\x01', kLastMark = '\x04';

std::string FrameMark(const std::string& role) {
  if (role == "system") return "\x01";
  if (role == "user") return "\x02";
  if (role == "assistant") return "\x03";
  return "\x04" + role;
}

PromptPiece TextPiece(std::string text, bool is_written) {
  PromptPiece piece;
  piece.text = std::move(text);
  piece.is_written = is_written;
  return piece;
}

void Append(Pieces& pieces, Pieces more) {
  for (PromptPiece& piece : more) pieces.push_back(std::move(piece));
}

/// Parts of a message with blank lines between them.
Pieces Join(std::vector<Pieces> parts) {
  Pieces joined;
  for (Pieces& part : parts) {
    if (part.empty()) continue;
    if (!joined.empty()) joined.push_back(TextPiece(kSeparator, false));
    Append(joined, std::move(part));
  }
  return joined;
}

void TrimEdges(Pieces& pieces, bool left, bool right) {
  constexpr const char* kSpace = " \t\n\r\f\v";
  if (left && !pieces.empty() && !pieces.front().is_value) {
    std::string& text = pieces.front().text;
    text.erase(0, std::min(text.find_first_not_of(kSpace), text.size()));
  }
  if (right && !pieces.empty() && !pieces.back().is_value) {
    std::string& text = pieces.back().text;
    const size_t last = text.find_last_not_of(kSpace);
    text.erase(last == std::string::npos ? 0 : last + 1);
  }
}

/// Writes the prompt of one operator as the runtime's PromptBuilder does, with values in place.
class PromptWriter {
 public:
  PromptWriter(const LogicalPlan& plan, const std::vector<OperatorIdentity>& identities,
               const PromptSetting& setting, const LogicalNode& node)
      : plan_(plan),
        identities_(identities),
        setting_(setting),
        node_(node),
        op_(plan.operator_of(node.op)) {}

  TemplatedPrompt Write() {
    TemplatedPrompt prompt;
    if (op_.history == History::kContinue) {
      const LogicalNode& parent = plan_.at(op_.inputs.front());
      const bool same = parent.model == node_.model && parent.adapter == node_.adapter;
      if (same) prompt.continues = parent.op;
      prompt.pieces = Continuation(same);
    } else {
      prompt.pieces = Framed(Messages());
    }
    ShareAnswers(prompt.pieces);
    return prompt;
  }

 private:
  bool HasInstruction() const {
    return op_.instruction != nullptr && !op_.instruction->source().empty();
  }

  std::vector<Message> Messages() {
    std::vector<Message> messages;
    if (op_.form == PromptForm::kMessages) {
      for (const MessageSpec& message : op_.messages)
        messages.push_back({message.role, Rendered(message.content.get())});
      return messages;
    }
    std::vector<Pieces> user;
    if (op_.form == PromptForm::kBody) user.push_back(Rendered(op_.body.get()));
    if (op_.form == PromptForm::kInputs) user.push_back(InputBlocks());
    if (op_.form == PromptForm::kRowPrompt) {
      user.push_back({RowPrompt()});
      for (const OperatorIndex input : op_.inputs) user.push_back(ParentBlock(input));
    }
    if (HasInstruction() && node_.layout == PromptLayout::kInstructionFirst)
      messages.push_back({"system", Rendered(op_.instruction.get())});
    if (HasInstruction() && node_.layout == PromptLayout::kContextFirst)
      user.push_back(Rendered(op_.instruction.get()));
    messages.push_back({"user", Join(std::move(user))});
    return messages;
  }

  /// With what the chat template puts around messages, or with what stands between them without
  /// one.
  Pieces Framed(std::vector<Message> messages) const {
    if (!op_.use_chat_template) return Plain(std::move(messages));
    const ChatFrame frame = FrameOf(messages);
    Pieces pieces;
    for (size_t i = 0; i < messages.size(); ++i) {
      pieces.push_back(TextPiece(frame.texts[i], false));
      TrimEdges(messages[i].content, frame.trim_left[i], frame.trim_right[i]);
      Append(pieces, std::move(messages[i].content));
    }
    pieces.push_back(TextPiece(frame.texts.back(), false));
    return pieces;
  }

  ChatFrame FrameOf(const std::vector<Message>& messages) const {
    std::vector<std::string> roles;
    for (const Message& message : messages) roles.push_back(message.role);
    if (setting_.frame) {
      std::optional<ChatFrame> known = setting_.frame(node_.model, roles);
      const bool fits = known && known->texts.size() == roles.size() + 1 &&
                        known->trim_left.size() == roles.size() &&
                        known->trim_right.size() == roles.size();
      if (fits) return *std::move(known);
    }
    ChatFrame marks;
    for (const std::string& role : roles) marks.texts.push_back(FrameMark(role));
    marks.texts.push_back(FrameMark("assistant"));
    marks.trim_left.assign(roles.size(), false);
    marks.trim_right = marks.trim_left;
    return marks;
  }

  static Pieces Plain(std::vector<Message> messages) {
    std::vector<Pieces> parts;
    for (Message& message : messages) {
      if (message.role == "assistant" && !parts.empty()) {
        // The model went on where its prompt ended.
        Append(parts.back(), std::move(message.content));
      } else {
        parts.push_back(std::move(message.content));
      }
    }
    return Join(std::move(parts));
  }

  /// What comes after the parent's prompt: its answer, and the next turn. `same`: computed by the
  /// same model; otherwise all of the conversation comes first.
  Pieces Continuation(bool same) {
    const OperatorIndex parent = op_.inputs.front();
    Pieces pieces = {same ? AnswerPiece(parent) : ConversationPiece(parent)};
    pieces.push_back(TextPiece(
        op_.use_chat_template ? FrameMark("assistant") + FrameMark("user") : kSeparator, false));
    if (op_.form == PromptForm::kRowPrompt && setting_.list_prompts) {
      pieces.push_back(RowPrompt());
      pieces.push_back(TextPiece(kSeparator, false));
    }
    if (HasInstruction()) Append(pieces, Rendered(op_.instruction.get()));
    return pieces;
  }

  PromptPiece RowPrompt() const {
    PromptPiece piece;
    piece.is_value = true;
    piece.columns = {setting_.prompt_column};
    piece.column = setting_.list_prompts ? "" : setting_.prompt_column;
    piece.shown =
        setting_.prompt_column.empty() ? "row prompt" : "{{ " + setting_.prompt_column + " }}";
    // Which element of a list it gets; where it is a text, all get that.
    piece.value =
        setting_.list_prompts
            ? Key("element").Add(ColumnKey(setting_.prompt_column)).Add(int64_t{op_.depth}).Finish()
            : PrintedKey(ColumnKey(setting_.prompt_column));
    return piece;
  }

  /// A parent's answer under its name.
  Pieces ParentBlock(OperatorIndex parent) const {
    Pieces block = {TextPiece("### " + plan_.operator_of(parent).id + "\n", false)};
    block.push_back(op_.history == History::kTranscript ? ConversationPiece(parent)
                                                        : AnswerPiece(parent));
    return block;
  }

  PromptPiece ConversationPiece(OperatorIndex parent) const {
    PromptPiece piece = AnswerPiece(parent);
    piece.value = Key("conversation")
                      .Add(int64_t{op_.history == History::kTranscript})
                      .Add(piece.value)
                      .Finish();
    piece.with_conversation = true;
    piece.answer_of = -1;
    return piece;
  }

  /// A graph node's declared inputs, each under its name.
  Pieces InputBlocks() const {
    std::vector<Pieces> blocks;
    for (const NameBinding& name : op_.names) {
      if (!name.required) continue;
      PromptPiece value;
      value.is_value = true;
      value.shown = "{{ " + name.name + " }}";
      value.column = name.column;
      value.value = PrintedKey(BindingKey(name, value));
      blocks.push_back({TextPiece("### " + name.name + "\n", false), std::move(value)});
    }
    return Join(std::move(blocks));
  }

  PromptPiece AnswerPiece(OperatorIndex producer) const {
    PromptPiece piece;
    piece.is_value = true;
    piece.shown = "{{ " + plan_.operator_of(producer).id + " }}";
    piece.producers = {producer};
    piece.answer_of = producer;
    piece.value = PrintedKey(AnswerKey({producer}, ""));
    return piece;
  }

  Pieces Rendered(const Template* content) const {
    Pieces pieces;
    if (content == nullptr) return pieces;
    for (TemplatePiece& from : content->Pieces()) {
      PromptPiece piece = TextPiece(std::move(from.text), true);
      if (from.is_value) {
        piece.is_value = true;
        piece.shown = std::move(from.shown);
        // A name alone prints what it stands for, whoever else names it how.
        SignatureBuilder key = Key(from.is_name ? "printed" : "computed");
        if (!from.is_name) key.Add(from.form);
        for (const std::string& name : from.names) key.Add(NameKey(name, piece));
        if (from.is_name) NameAlone(from.names.front(), piece);
        piece.value = key.Finish();
      }
      pieces.push_back(std::move(piece));
    }
    return pieces;
  }

  /// Says what the value is where it is printed as it is.
  void NameAlone(const std::string& name, PromptPiece& piece) const {
    const bool is_column = piece.columns.size() == 1 && piece.producers.empty();
    if (is_column && !piece.whole_row) piece.column = *piece.columns.begin();
    for (const NameBinding& binding : op_.names) {
      if (binding.name == name && binding.producers.size() == 1 && binding.field.empty())
        piece.answer_of = binding.producers.front();
    }
  }

  static SignatureBuilder Key(const char* kind) {
    SignatureBuilder key;
    key.Add(std::string_view(kind));
    return key;
  }
  static Signature PrintedKey(const Signature& what) { return Key("printed").Add(what).Finish(); }
  Signature ColumnKey(const std::string& column) const {
    return Key("column").Add(setting_.source).Add(column).Finish();
  }

  /// What a name of a template stands for; adds what it reads to `piece`.
  Signature NameKey(const std::string& name, PromptPiece& piece) const {
    constexpr std::string_view kRow = "row.";
    for (const NameBinding& binding : op_.names) {
      if (binding.name == name) return BindingKey(binding, piece);
    }
    if (name == "row") {
      piece.whole_row = true;
      return Key("row").Add(setting_.source).Finish();
    }
    if (name.compare(0, kRow.size(), kRow) == 0) {
      piece.columns.insert(name.substr(kRow.size()));
      return ColumnKey(name.substr(kRow.size()));
    }
    return Key("name").Add(name).Finish();  // of a function, or one that the template sets
  }

  Signature BindingKey(const NameBinding& binding, PromptPiece& piece) const {
    if (!binding.column.empty()) {
      piece.columns.insert(binding.column);
      return ColumnKey(binding.column);
    }
    piece.producers.insert(piece.producers.end(), binding.producers.begin(),
                           binding.producers.end());
    return AnswerKey(binding.producers, binding.field);
  }

  /// Of the first of `producers` that was not skipped.
  Signature AnswerKey(const std::vector<OperatorIndex>& producers, const std::string& field) const {
    SignatureBuilder key = Key("answer");
    key.Add(field).Add(static_cast<int64_t>(producers.size()));
    for (const OperatorIndex producer : producers) {
      const OperatorIdentity& identity = identities_[static_cast<size_t>(producer)];
      const bool depends = identity.varies || identity.reaches.reads_row();
      key.Add(depends ? setting_.source : int64_t{-1}).Add(identity.signature);
      // Two that draw are asked the same and answer differently.
      if (identity.varies) key.Add(int64_t{producer});
      const Operator& of = plan_.operator_of(producer);
      if (of.is_inference()) continue;
      const PromptLimits& shown = of.tool->prompt;
      key.Add(int64_t{shown.rows}).Add(int64_t{shown.chars}).Add(int64_t{shown.tokens});
    }
    return key.Finish();
  }

  /// Fields of one answer are parts of its text.
  static void ShareAnswers(Pieces& pieces) {
    std::map<std::vector<OperatorIndex>, std::set<Signature>> different;
    for (const PromptPiece& piece : pieces) {
      if (!piece.producers.empty()) different[piece.producers].insert(piece.value);
    }
    for (PromptPiece& piece : pieces) {
      if (piece.producers.empty()) continue;
      piece.answer_share = 1.0 / static_cast<double>(different[piece.producers].size());
    }
  }

  const LogicalPlan& plan_;
  const std::vector<OperatorIdentity>& identities_;
  const PromptSetting& setting_;
  const LogicalNode& node_;
  const Operator& op_;
};

/// A text's beginning, on one line.
std::string Quoted(const std::string& text) {
  constexpr size_t kMost = 40;
  std::string line;
  for (const char c : text) {
    const bool is_blank = c == ' ' || c == '\n' || c == '\t' || c == '\r';
    if (is_blank && (line.empty() || line.back() == ' ')) continue;
    line += is_blank ? ' ' : c;
  }
  while (line.ends_with(' ')) line.pop_back();
  if (line.empty()) return "";
  if (line.size() > kMost) {
    line.resize(CompleteUtf8Length(std::string_view(line).substr(0, kMost - 3)));
    line += "...";
  }
  return "\"" + line + "\"";
}

}  // namespace

bool IsFrameMark(char byte) { return byte >= kFirstMark && byte <= kLastMark; }

std::vector<std::optional<TemplatedPrompt>> TemplatePrompts(
    const LogicalPlan& plan, const std::vector<OperatorIdentity>& identities,
    const PromptSetting& setting) {
  std::vector<std::optional<TemplatedPrompt>> prompts;
  for (const LogicalNode& node : plan.nodes) {
    prompts.emplace_back();
    if (plan.operator_of(node.op).is_inference())
      prompts.back() = PromptWriter(plan, identities, setting, node).Write();
  }
  return prompts;
}

std::string ShownPrompt(const std::vector<PromptPiece>& pieces, size_t values, size_t bytes) {
  constexpr size_t kMostParts = 8;
  std::vector<std::string> parts;
  std::string written;  // since the last value
  const auto end_text = [&] {
    std::string quoted = Quoted(written);
    if (!quoted.empty()) parts.push_back(std::move(quoted));
    written.clear();
  };
  size_t seen = 0;
  for (const PromptPiece& piece : pieces) {
    if (piece.is_value) {
      if (seen == values) break;
      ++seen;
      end_text();
      parts.push_back(piece.shown);
      continue;
    }
    const size_t most = seen == values ? std::min(bytes, piece.text.size()) : piece.text.size();
    if (seen == values) bytes -= most;
    if (piece.is_written) written += piece.text.substr(0, most);
    if (seen == values && most < piece.text.size()) break;
  }
  end_text();
  if (parts.size() > kMostParts) {
    const size_t more = parts.size() - kMostParts + 1;
    parts.resize(kMostParts - 1);
    parts.push_back(fmt::format("{} more", more));
  }
  return fmt::format("{}", fmt::join(parts, " + "));
}

}  // namespace halo
