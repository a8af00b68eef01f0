#include "model/chat_template.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <cstdio>
#include <ctime>
#include <functional>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "model/jinja_evaluator.h"
#include "model/jinja_program.h"

namespace halo {

namespace {

constexpr std::string_view kBlanks = " \t\n\v\f\r";

constexpr const char* kChatMl =
    "{%- for message in messages -%}\n"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "{{- '<|im_start|>assistant\\n' -}}\n"
    "{%- endif -%}\n";

// llama.cpp trims every message for templates with this text (StepFun's).
constexpr std::string_view kTrimAllSign =
    "You have access to the following functions in JSONSchema format";

std::string_view Trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

// Stands for what a template must not look into: not blank, the same in upper and lower case, found
// in no template.
std::string Placeholder(size_t number) {
  return "\xEE\x80\x80" + std::to_string(number) + "\xEE\x80\x81";
}

struct Turn {
  std::string role;
  MarkedText content;
};

// Slots, token spans and probed answers, each an origin of its own.
struct Hole {
  PromptSpan span;
  std::string text;
};

class Conversation {
 public:
  explicit Conversation(std::string_view around_slots = {}) : around_slots_(around_slots) {}

  void Add(const ChatMessage& message) {
    Turn turn{message.role, {}};
    for (const PromptSpan& span : message.content) {
      switch (span.kind) {
        case PromptSpan::Kind::kTemplate:
          turn.content.Append(span.text, kFromTemplate);
          break;
        case PromptSpan::Kind::kData:
          turn.content.Append(span.text, kFromData);
          break;
        case PromptSpan::Kind::kTokens:
          AddHole(span, Placeholder(holes_.size()), &turn.content);
          break;
        case PromptSpan::Kind::kSlot:
          AddHole(span, around_slots_ + Placeholder(holes_.size()) + around_slots_, &turn.content);
          break;
      }
    }
    turns_.push_back(std::move(turn));
  }

  // An assistant's turn whose text is watched.
  Origin AddAnswer(const std::string& text) {
    Turn turn{"assistant", {}};
    AddHole(PromptSpan::Data(text), text, &turn.content);
    turns_.push_back(std::move(turn));
    return static_cast<Origin>(kFirstHole + holes_.size() - 1);
  }

  const std::vector<Turn>& turns() const { return turns_; }
  const std::vector<Hole>& holes() const { return holes_; }

 private:
  void AddHole(const PromptSpan& span, std::string text, MarkedText* content) {
    const auto origin = static_cast<Origin>(kFirstHole + holes_.size());
    content->Append(text, origin);
    holes_.push_back({span, std::move(text)});
  }

  std::string around_slots_;
  std::vector<Turn> turns_;
  std::vector<Hole> holes_;
};

void AppendSpan(PromptSpan span, std::vector<PromptSpan>* spans) {
  const bool joins =
      span.kind == PromptSpan::Kind::kTemplate || span.kind == PromptSpan::Kind::kData;
  if (joins && span.text.empty()) return;
  if (joins && !spans->empty() && spans->back().kind == span.kind) {
    spans->back().text += span.text;
  } else {
    spans->push_back(std::move(span));
  }
}

}  // namespace

struct ChatTemplate::Impl {
  JinjaProgram program;
  std::string bos_text;
  std::string eos_text;
  std::tm date = {};
  bool has_system_role = true;
  bool typed_content = false;  // a message's content is a list of parts
  bool trims_all = false;

  JinjaProgram::Constants constants;
  std::set<std::string, std::less<>> compared;  // constants.compared, trimmed
  size_t longest_compared = 0;
  std::bitset<65536> searched_starts;  // first two bytes of constants.searched
  std::unordered_map<uint32_t, std::vector<std::string>> searched;

  void ParseDate(const std::string& text);
  void FindAbilities();
  void IndexConstants();
  JinjaValue Messages(const Conversation& conversation) const;
  MarkedText Run(const Conversation& conversation, bool add_generation_prompt,
                 JinjaObservations* observations = nullptr) const;
  bool Attempt(const JinjaValue& messages, std::string* output) const;
  std::string Format(const char* format) const;
};

namespace {

[[noreturn]] void ThrowFailure(const std::string& message) {
  throw Failure{"", "chat_template", "the model's chat template: " + message, false};
}

// Every hole once and whole, else the template did to it what cannot be followed.
std::vector<PromptSpan> ToSpans(const MarkedText& text, const std::vector<Hole>& holes) {
  std::vector<PromptSpan> spans;
  std::vector<int> seen(holes.size(), 0);
  text.ForEachPart([&](std::string_view bytes, Origin origin) {
    if (origin < kFirstHole) {
      AppendSpan(origin == kFromTemplate ? PromptSpan::Template(std::string(bytes))
                                         : PromptSpan::Data(std::string(bytes)),
                 &spans);
      return;
    }
    const auto hole = static_cast<size_t>(origin - kFirstHole);
    if (bytes != holes[hole].text || ++seen[hole] > 1)
      ThrowFailure("it changes or repeats an answer it is given");
    AppendSpan(holes[hole].span, &spans);
  });
  if (std::count(seen.begin(), seen.end(), 0) > 0)
    ThrowFailure("it leaves out a part of a message");
  return spans;
}

JinjaValue TextPart(JinjaValue text) {
  JinjaValue part = JinjaValue::Map();
  part.map().Set("type", JinjaValue::Text("text"));
  part.map().Set("text", std::move(text));
  return part;
}

JinjaValue Message(const std::string& role, JinjaValue content) {
  JinjaValue message = JinjaValue::Map();
  message.map().Set("role", JinjaValue::Text(role));
  message.map().Set("content", std::move(content));
  return message;
}

}  // namespace

void ChatTemplate::Impl::ParseDate(const std::string& text) {
  int year = 0;
  int month = 0;
  int day = 0;
  char rest = 0;
  if (std::sscanf(text.c_str(), "%4d-%2d-%2d%c", &year, &month, &day, &rest) != 3) {
    throw Error(ErrorCode::kModel, "'" + text + "' is no date; write YYYY-MM-DD");
  }
  std::tm given = {};
  given.tm_year = year - 1900;
  given.tm_mon = month - 1;
  given.tm_mday = day;
  const std::time_t seconds = timegm(&given);
  gmtime_r(&seconds, &date);
}

std::string ChatTemplate::Impl::Format(const char* format) const {
  char buffer[64];
  return {buffer, std::strftime(buffer, sizeof(buffer), format, &date)};
}

// What llama.cpp finds out of a template by running it, with the same conversations.
void ChatTemplate::Impl::FindAbilities() {
  std::string output;
  const std::string marker = Placeholder(0);
  JinjaWatch content;
  JinjaValue text = JinjaValue::Text(marker, kFromData);
  text.object()->watch = &content;
  const bool runs = Attempt(JinjaValue::List({Message("user", text)}), &output);
  const bool takes_text =
      runs && !(content.used_as_list && output.find(marker) == std::string::npos);
  bool takes_list = content.used_as_list;
  if (content.tested_as_text) {
    JinjaWatch parts;
    const JinjaValue list = JinjaValue::List({});
    list.object()->watch = &parts;
    takes_list =
        (Attempt(JinjaValue::List({Message("user", list)}), &output) && parts.used_as_list) ||
        takes_list;
  }
  typed_content = takes_list && !takes_text;

  JinjaWatch system;
  const JinjaValue first = Message("system", JinjaValue::Text("System message", kFromData));
  first.map().watch = &system;
  first.map().watched_key = "content";
  const JinjaValue second = Message("user", JinjaValue::Text("User message", kFromData));
  Attempt(JinjaValue::List({first, second}), &output);
  has_system_role = system.read;
}

bool ChatTemplate::Impl::Attempt(const JinjaValue& messages, std::string* output) const {
  const auto lookup = [&](const std::string& name) -> std::optional<JinjaValue> {
    if (name == "messages") return messages;
    if (name == "tools") return JinjaValue::List({});
    if (name == "bos_token" || name == "eos_token") return JinjaValue::Text("");
    if (name == "add_generation_prompt") return JinjaValue::Bool(true);
    return std::nullopt;
  };
  JinjaSettings settings;
  settings.strict = false;
  settings.date = date;
  output->clear();
  try {
    *output = JinjaEvaluator(program, settings, lookup, {}).Render().bytes();
    return true;
  } catch (const JinjaFault&) {
    return false;
  }
}

void ChatTemplate::Impl::IndexConstants() {
  constants = program.FindConstants();
  for (const std::string& text : constants.compared) {
    const std::string_view trimmed = Trimmed(text);
    compared.emplace(trimmed);
    longest_compared = std::max(longest_compared, trimmed.size());
  }
  for (const std::string& text : constants.searched) {
    if (Trimmed(text).empty()) continue;
    const uint32_t start = static_cast<uint32_t>(static_cast<unsigned char>(text[0])) << 8 |
                           static_cast<unsigned char>(text[1]);
    searched_starts.set(start);
    searched[start].push_back(text);
  }
}

JinjaValue ChatTemplate::Impl::Messages(const Conversation& conversation) const {
  std::vector<JinjaValue> messages;
  MarkedText before;
  for (size_t i = 0; i < conversation.turns().size(); ++i) {
    const Turn& turn = conversation.turns()[i];
    MarkedText content = turn.content;
    if (trims_all) {
      const std::string_view trimmed = Trimmed(content.bytes());
      if (trimmed.size() < content.size()) {
        const size_t begin =
            trimmed.empty() ? 0 : static_cast<size_t>(trimmed.data() - content.bytes().data());
        content = content.Slice(begin, trimmed.size());
      }
    }
    if (i == 0 && turn.role == "system" && !has_system_role) {
      // As llama.cpp does: the next message gets it, and without a next one it is dropped.
      before = std::move(content);
      before.Append("\n", kFromTemplate);
      continue;
    }
    before.Append(content);
    JinjaValue text = JinjaValue::Text(std::move(before));
    before = MarkedText();
    messages.push_back(
        Message(turn.role, typed_content ? JinjaValue::List({TextPart(std::move(text))}) : text));
  }
  return JinjaValue::List(std::move(messages));
}

MarkedText ChatTemplate::Impl::Run(const Conversation& conversation, bool add_generation_prompt,
                                   JinjaObservations* observations) const {
  const auto lookup = [&](const std::string& name) -> std::optional<JinjaValue> {
    if (name == "messages") return Messages(conversation);
    if (name == "bos_token") return JinjaValue::Text(bos_text);
    if (name == "eos_token") return JinjaValue::Text(eos_text);
    if (name == "enable_thinking") return JinjaValue::Bool(true);
    if (name == "add_generation_prompt" && add_generation_prompt) return JinjaValue::Bool(true);
    if (name == "date_string") return JinjaValue::Text(Format("%d %b %Y"));
    if (name == "datetime") return JinjaValue::Text(Format("%b %d %Y"));
    return std::nullopt;
  };
  JinjaSettings settings;
  settings.strict = false;
  settings.date = date;
  settings.observations = observations;
  try {
    return JinjaEvaluator(program, settings, lookup, {}).Render();
  } catch (const JinjaFault& fault) {
    ThrowFailure(fault.message);
  }
}

ChatTemplate::ChatTemplate(std::string source, std::string bos_text, std::string eos_text,
                           std::string date)
    : impl_(std::make_unique<Impl>()) {
  impl_->bos_text = std::move(bos_text);
  impl_->eos_text = std::move(eos_text);
  impl_->ParseDate(date);
  if (source.empty()) source = kChatMl;
  impl_->trims_all = source.find(kTrimAllSign) != std::string::npos;
  try {
    impl_->program = JinjaProgram::Parse(std::move(source));
  } catch (const JinjaFault& fault) {
    throw Error(ErrorCode::kModel, "the model's chat template cannot be read: " + fault.message);
  }
  impl_->FindAbilities();
  impl_->IndexConstants();
}

ChatTemplate::~ChatTemplate() = default;

std::vector<PromptSpan> ChatTemplate::Render(const std::vector<ChatMessage>& messages,
                                             bool add_generation_prompt) const {
  Conversation conversation;
  for (const ChatMessage& message : messages) conversation.Add(message);
  return ToSpans(impl_->Run(conversation, add_generation_prompt), conversation.holes());
}

namespace {

// Notes in `skeleton` what happened to blanks put around each slot; false if it was neither "kept"
// nor "trimmed" or if anything else changed with them.
bool NoteTrimming(const MarkedText& plain, const MarkedText& padded,
                  const Conversation& conversation, bool is_first,
                  ChatTemplate::Skeleton* skeleton) {
  std::vector<std::pair<std::string, Origin>> plain_parts;
  std::vector<std::pair<std::string, Origin>> padded_parts;
  plain.ForEachPart(
      [&](std::string_view bytes, Origin origin) { plain_parts.emplace_back(bytes, origin); });
  padded.ForEachPart(
      [&](std::string_view bytes, Origin origin) { padded_parts.emplace_back(bytes, origin); });
  if (plain_parts.size() != padded_parts.size()) return false;
  for (size_t i = 0; i < plain_parts.size(); ++i) {
    const auto& [bytes, origin] = plain_parts[i];
    const std::string& other = padded_parts[i].first;
    if (origin != padded_parts[i].second) return false;
    const bool is_slot = origin >= kFirstHole &&
                         conversation.holes()[static_cast<size_t>(origin - kFirstHole)].span.kind ==
                             PromptSpan::Kind::kSlot;
    if (!is_slot) {
      if (bytes != other) return false;
      continue;
    }
    const size_t at = other.find(bytes);
    if (at == std::string::npos || at > 1 || other.size() - at - bytes.size() > 1) return false;
    const auto slot = static_cast<size_t>(
        conversation.holes()[static_cast<size_t>(origin - kFirstHole)].span.slot);
    const bool left = at == 0;
    const bool right = other.size() == at + bytes.size();
    if (!is_first && (skeleton->trim_left[slot] != left || skeleton->trim_right[slot] != right))
      return false;
    skeleton->trim_left[slot] = left;
    skeleton->trim_right[slot] = right;
  }
  return true;
}

}  // namespace

ChatTemplate::Skeleton ChatTemplate::Compile(const std::vector<ChatMessage>& messages,
                                             bool add_generation_prompt, int32_t slots) const {
  Skeleton skeleton;
  skeleton.trim_left.assign(static_cast<size_t>(slots), false);
  skeleton.trim_right.assign(static_cast<size_t>(slots), false);
  JinjaObservations seen;
  const auto render = [&](std::string_view around, Conversation* conversation) {
    *conversation = Conversation(around);
    for (const ChatMessage& message : messages) conversation->Add(message);
    return impl_->Run(*conversation, add_generation_prompt, &seen);
  };
  try {
    Conversation conversation;
    const MarkedText plain = render("", &conversation);
    skeleton.spans = ToSpans(plain, conversation.holes());
    std::vector<bool> used(static_cast<size_t>(slots), false);
    for (const PromptSpan& span : skeleton.spans) {
      if (span.kind != PromptSpan::Kind::kSlot) continue;
      if (used[static_cast<size_t>(span.slot)])
        return skeleton;  // one slot, two places: what is trimmed may differ
      used[static_cast<size_t>(span.slot)] = true;
    }
    for (size_t i = 0; i < kBlanks.size(); ++i) {
      const MarkedText padded = render(kBlanks.substr(i, 1), &conversation);
      if (!NoteTrimming(plain, padded, conversation, i == 0, &skeleton)) return skeleton;
    }
  } catch (const Failure&) {
    return skeleton;  // Render will say why
  }
  const JinjaProgram::Constants& known = impl_->constants;
  const auto is_known = [](const std::set<std::string>& found, const std::set<std::string>& in) {
    return std::includes(in.begin(), in.end(), found.begin(), found.end());
  };
  // IsOpaque answers for the template's constants only, and for no blank ones.
  const bool blank_needle =
      std::any_of(seen.needles.begin(), seen.needles.end(),
                  [](const std::string& needle) { return Trimmed(needle).empty(); });
  skeleton.usable = !seen.acted && !blank_needle && is_known(seen.needles, known.searched) &&
                    is_known(seen.equals, known.compared);
  return skeleton;
}

namespace {

// Appends a slot's value, less the blanks at its ends that the template would trim. Token spans
// stay whole.
void AppendValue(std::vector<PromptSpan> value, bool trim_left, bool trim_right,
                 std::vector<PromptSpan>* spans) {
  const auto is_text = [](const PromptSpan& span) {
    return span.kind != PromptSpan::Kind::kTokens;
  };
  size_t first = 0;
  size_t last = value.size();
  const auto blank = [](const PromptSpan& span) { return Trimmed(span.text).empty(); };
  while (trim_left && first < last && is_text(value[first]) && blank(value[first])) ++first;
  while (trim_right && last > first && is_text(value[last - 1]) && blank(value[last - 1])) --last;
  for (size_t i = first; i < last; ++i) {
    if (!is_text(value[i])) {
      spans->push_back(std::move(value[i]));
      continue;
    }
    std::string& text = value[i].text;
    if (trim_left && i == first) text.erase(0, text.find_first_not_of(kBlanks));
    if (trim_right && i + 1 == last) text.erase(text.find_last_not_of(kBlanks) + 1);
    AppendSpan(std::move(value[i]), spans);
  }
}

}  // namespace

std::vector<PromptSpan> ChatTemplate::Fill(const Skeleton& skeleton,
                                           std::vector<std::vector<PromptSpan>> values) {
  std::vector<PromptSpan> spans;
  spans.reserve(skeleton.spans.size() + values.size());
  for (const PromptSpan& span : skeleton.spans) {
    if (span.kind != PromptSpan::Kind::kSlot) {
      AppendSpan(span, &spans);
      continue;
    }
    const auto slot = static_cast<size_t>(span.slot);
    AppendValue(std::move(values.at(slot)), skeleton.trim_left[slot], skeleton.trim_right[slot],
                &spans);
  }
  return spans;
}

bool ChatTemplate::IsOpaque(std::string_view text) const {
  const std::string_view trimmed = Trimmed(text);
  if (trimmed.empty()) return false;
  if (trimmed.size() <= impl_->longest_compared &&
      impl_->compared.find(trimmed) != impl_->compared.end())
    return false;
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    const uint32_t start = static_cast<uint32_t>(static_cast<unsigned char>(text[i])) << 8 |
                           static_cast<unsigned char>(text[i + 1]);
    if (!impl_->searched_starts[start]) continue;
    for (const std::string& needle : impl_->searched.at(start)) {
      if (text.compare(i, needle.size(), needle) == 0) return false;
    }
  }
  return true;
}

ChatTemplate::Continuation ChatTemplate::Continue(const std::vector<ChatMessage>& messages,
                                                  const std::string& answer_text,
                                                  const ChatMessage& next_user) const {
  Conversation parent;
  Conversation whole;
  for (const ChatMessage& message : messages) {
    parent.Add(message);
    whole.Add(message);
  }
  const std::string answer = answer_text.empty() ? Placeholder(parent.holes().size()) : answer_text;
  const Origin answer_origin = whole.AddAnswer(answer);
  whole.Add(next_user);
  const MarkedText prompt = impl_->Run(parent, true);
  const MarkedText rendered = impl_->Run(whole, true);

  // Where the answer's bytes went: exactly one part, or the template took it apart.
  size_t position = 0;
  size_t begin = 0;
  size_t parts = 0;
  std::string_view kept;
  rendered.ForEachPart([&](std::string_view bytes, Origin origin) {
    if (origin == answer_origin) {
      begin = position;
      kept = bytes;
      ++parts;
    }
    position += bytes.size();
  });
  Continuation continuation;
  const std::string_view before = std::string_view(rendered.bytes()).substr(0, begin);
  if (parts != 1 || Trimmed(kept) != Trimmed(answer)) return continuation;
  if (before.substr(0, prompt.size()) != prompt.bytes()) return continuation;
  // Blanks that stand before the answer now must be what is left of those it began with.
  std::string lead(before.substr(prompt.size()));
  lead += kept.substr(0, kept.find_first_not_of(kBlanks));
  const std::string_view original =
      std::string_view(answer).substr(0, answer.find_first_not_of(kBlanks));
  if (lead.size() > original.size() || original.substr(original.size() - lead.size()) != lead)
    return continuation;

  const MarkedText tail = rendered.Slice(begin + kept.size(), rendered.size());
  tail.ForEachPart([&](std::string_view bytes, Origin origin) {
    if (origin < kFirstHole) {
      AppendSpan(origin == kFromTemplate ? PromptSpan::Template(std::string(bytes))
                                         : PromptSpan::Data(std::string(bytes)),
                 &continuation.suffix);
      return;
    }
    const Hole& hole = whole.holes()[static_cast<size_t>(origin - kFirstHole)];
    if (bytes != hole.text) ThrowFailure("it changes an answer it is given");
    AppendSpan(hole.span, &continuation.suffix);
  });
  continuation.exact = true;
  return continuation;
}

}  // namespace halo
