#include "model/grammar_states.h"

#include <algorithm>

#include "base/error.h"
#include "base/hash.h"

namespace halo {
namespace {

using Node = Grammar::Node;

/// What an entry of a hash table takes beside its value.
constexpr int64_t kTableEntryBytes = 48;

[[noreturn]] void FailLimit(const char* what) {
  throw Failure{"", "grammar_limit", std::string("the grammar ") + what, false};
}

}  // namespace

size_t GrammarStates::FrameHasher::operator()(const FrameKey& key) const {
  return Hash64({reinterpret_cast<const char*>(&key), sizeof(key)});
}

GrammarStates::GrammarStates(std::shared_ptr<const Grammar> grammar)
    : grammar_(std::move(grammar)),
      classes_(grammar_->classes()),
      class_count_(static_cast<size_t>(grammar_->class_count())) {}

void GrammarStates::Clear() {
  states_.clear();
  next_.clear();
  states_by_hash_.clear();
  frames_.clear();
  frame_numbers_.clear();
  bytes_ = 0;
}

GrammarStates::StateId GrammarStates::start() {
  if (states_.empty()) {
    // State 0 is the start, always.
    Visit(grammar_->start(), kNoFrame);
    Close();
  }
  return 0;
}

GrammarStates::StateId GrammarStates::StepAll(StateId state, std::string_view text) {
  for (const char c : text) {
    if (state == kRefused) break;
    state = Step(state, static_cast<uint8_t>(c));
  }
  return state;
}

int32_t GrammarStates::Push(int32_t parent, Grammar::NodeId node, int32_t count) {
  const auto [place, added] =
      frame_numbers_.emplace(FrameKey{parent, node, count}, static_cast<int32_t>(frames_.size()));
  if (added) {
    const int32_t depth = parent == kNoFrame ? 1 : frames_[static_cast<size_t>(parent)].depth + 1;
    if (depth > kMaxStackFrames) {
      frame_numbers_.erase(place);
      FailLimit("nests deeper than 10000 rules in this answer");
    }
    frames_.push_back({parent, node, count, depth});
    bytes_ += static_cast<int64_t>(sizeof(Frame) + sizeof(FrameKey)) + kTableEntryBytes;
  }
  return place->second;
}

void GrammarStates::Visit(Grammar::NodeId node, int32_t frame) {
  const uint64_t key =
      static_cast<uint64_t>(static_cast<uint32_t>(node)) << 32 | static_cast<uint32_t>(frame);
  if (visited_.insert(key).second) open_.push_back({node, frame});
}

void GrammarStates::EndBody(int32_t frame) {
  if (frame == kNoFrame) {
    made_.can_end = true;
    return;
  }
  const Frame top = frames_[static_cast<size_t>(frame)];
  if (top.count == 0) return Visit(top.node, top.parent);
  const Node& repeat = grammar_->node(top.node);
  if (top.count >= repeat.least) Visit(repeat.next, top.parent);
  if (top.count < repeat.most) Visit(repeat.body, Push(top.parent, top.node, top.count + 1));
}

void GrammarStates::Expand(Configuration at) {
  const Node& node = grammar_->node(at.node);
  switch (node.kind) {
    case Node::Kind::kEnd:
      return EndBody(at.frame);
    case Node::Kind::kBytes:
      made_.configurations.push_back(at);
      return;
    case Node::Kind::kSplit:
      for (int32_t i = 0; i < node.count; ++i) Visit(grammar_->target(node.first + i), at.frame);
      return;
    case Node::Kind::kCall:
      // A rule that another ends with needs no way back.
      return Visit(grammar_->rule_start(node.rule),
                   node.next == Grammar::kEnd ? at.frame : Push(at.frame, node.next, 0));
    case Node::Kind::kRepeat:
      if (node.least == 0) Visit(node.next, at.frame);
      return Visit(node.body, Push(at.frame, at.node, 1));
  }
}

/// Makes a state of what was visited.
GrammarStates::StateId GrammarStates::Close() {
  try {
    while (!open_.empty()) {
      const Configuration at = open_.back();
      open_.pop_back();
      if (--work_left_ < 0) {
        FailLimit("takes too much work for one token: it has very many readings of this answer");
      }
      if (visited_.size() > kMaxReadings) {
        FailLimit("has more than 10000 readings of this answer: make it less ambiguous");
      }
      if (bytes_ > kMaxBytes) FailLimit("needs more than 256 MiB for its readings");
      Expand(at);
    }
  } catch (const Failure&) {
    open_.clear();
    visited_.clear();
    made_ = {};
    throw;
  }
  visited_.clear();
  return Intern(std::exchange(made_, {}));
}

GrammarStates::StateId GrammarStates::Intern(State state) {
  if (state.configurations.empty() && !state.can_end) return kRefused;
  std::sort(state.configurations.begin(), state.configurations.end());
  state.configurations.erase(std::unique(state.configurations.begin(), state.configurations.end()),
                             state.configurations.end());
  const std::string_view content(reinterpret_cast<const char*>(state.configurations.data()),
                                 state.configurations.size() * sizeof(Configuration));
  const uint64_t hash = Hash64(content) ^ (state.can_end ? 1U : 0U);
  const auto [first, last] = states_by_hash_.equal_range(hash);
  for (auto it = first; it != last; ++it) {
    const State& known = At(it->second);
    if (known.can_end == state.can_end && known.configurations == state.configurations)
      return it->second;
  }
  const auto id = static_cast<StateId>(states_.size());
  bytes_ += static_cast<int64_t>(content.size() + sizeof(State) + class_count_ * sizeof(int32_t)) +
            kTableEntryBytes;
  states_.push_back(std::move(state));
  next_.resize(next_.size() + class_count_, kUnknown);
  states_by_hash_.emplace(hash, id);
  return id;
}

GrammarStates::StateId GrammarStates::FindStep(StateId state, int32_t byte_class) {
  const uint8_t byte = grammar_->byte_of(byte_class);
  for (const Configuration& at : At(state).configurations) {
    const Node& node = grammar_->node(at.node);
    for (int32_t i = 0; i < node.count; ++i) {
      const Grammar::Edge& edge = grammar_->edge(node.first + i);
      if (edge.low <= byte && byte <= edge.high) Visit(edge.target, at.frame);
    }
  }
  const StateId next = Close();
  next_[static_cast<size_t>(state) * class_count_ + static_cast<size_t>(byte_class)] = next;
  return next;
}

/// The frame with counts that `longest` bytes cannot bring to a bound replaced by one for all such
/// counts. Every turn takes at least a byte.
int32_t GrammarStates::Canonical(int32_t frame, int32_t longest) {
  // From the bottom of the stack up, without recursion.
  std::vector<int32_t> path;
  for (int32_t at = frame; at != kNoFrame; at = frames_[static_cast<size_t>(at)].parent)
    path.push_back(at);
  int32_t made = kNoFrame;
  for (auto at = path.rbegin(); at != path.rend(); ++at) {
    const Frame old = frames_[static_cast<size_t>(*at)];
    int32_t count = old.count;
    if (count > 0) {
      const Node& repeat = grammar_->node(old.node);
      const int32_t enough = std::max(repeat.least, 1);
      if (count > enough && repeat.most - count > longest) {
        count = enough;
      } else if (repeat.least - count > longest) {
        count = 1;
      }
    }
    made = Push(made, old.node, count);
  }
  work_left_ -= static_cast<int64_t>(path.size());
  return made;
}

GrammarStates::StateId GrammarStates::WithoutDistantCounts(StateId state, int32_t longest) {
  State same;
  same.can_end = At(state).can_end;
  const std::vector<Configuration> configurations = At(state).configurations;
  std::unordered_map<int32_t, int32_t> canonical;
  for (const Configuration& at : configurations) {
    const auto [place, added] = canonical.emplace(at.frame, 0);
    if (added) place->second = Canonical(at.frame, longest);
    same.configurations.push_back({at.node, place->second});
  }
  if (same.configurations == configurations) return state;
  return Intern(std::move(same));
}

}  // namespace halo
