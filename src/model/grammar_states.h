#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "model/grammar.h"

namespace halo {

/// Where a text stands in a grammar: a number for each distinct set of (place, stack), found while
/// texts are read and remembered with the transitions between them, so that reading a byte that was
/// read in the same state before is one look-up. Stacks share what they have in common.
///
/// Of one thread. Throws Failure("grammar_limit") where a grammar has too many readings of one text
/// (kMaxReadings), nests too deep, or takes more memory or work than it may; the object stays
/// usable.
class GrammarStates {
 public:
  using StateId = int32_t;
  static constexpr StateId kRefused = -1;
  static constexpr size_t kMaxReadings = 10'000;
  static constexpr int32_t kMaxStackFrames = 10'000;
  static constexpr int64_t kMaxBytes = int64_t{256} << 20;

  explicit GrammarStates(std::shared_ptr<const Grammar> grammar);

  StateId start();
  /// The state after one more byte, or kRefused.
  StateId Step(StateId state, uint8_t byte) {
    const int32_t known = next_[static_cast<size_t>(state) * class_count_ + classes_[byte]];
    return known != kUnknown ? known : FindStep(state, classes_[byte]);
  }
  /// The state after a text, or kRefused.
  StateId StepAll(StateId state, std::string_view text);
  /// True if the text may end here.
  bool CanEnd(StateId state) const { return At(state).can_end; }
  /// True if nothing may follow.
  bool MustEnd(StateId state) const { return At(state).configurations.empty(); }

  /// A state that takes the same texts of up to `longest` bytes: counts of bounded repetitions that
  /// such a text cannot bring to their bounds are made equal. So the states of `char{0,200}` are
  /// one for short tokens but near the end.
  StateId WithoutDistantCounts(StateId state, int32_t longest);

  /// Work (readings looked at) that is left until "grammar_limit"; given anew for each token.
  void AllowWork(int64_t readings) { work_left_ = readings; }
  /// Forgets everything; every StateId but start() is void.
  void Clear();
  int64_t bytes() const { return bytes_; }
  size_t size() const { return states_.size(); }
  const Grammar& grammar() const { return *grammar_; }

 private:
  static constexpr int32_t kUnknown = -2;
  static constexpr int32_t kNoFrame = -1;

  /// What follows the end of a rule (count 0: go on at `node`) or of the body of repetition `node`
  /// (count: how often it has begun).
  struct Frame {
    int32_t parent;
    Grammar::NodeId node;
    int32_t count;
    int32_t depth;
  };
  struct Configuration {
    Grammar::NodeId node;
    int32_t frame;
    friend auto operator<=>(const Configuration&, const Configuration&) = default;
  };
  struct State {
    std::vector<Configuration> configurations;  // at nodes that take a byte, ascending
    bool can_end = false;
  };
  struct FrameKey {
    int32_t parent, node, count;
    friend bool operator==(const FrameKey&, const FrameKey&) = default;
  };
  struct FrameHasher {
    size_t operator()(const FrameKey& key) const;
  };

  const State& At(StateId state) const { return states_[static_cast<size_t>(state)]; }
  StateId FindStep(StateId state, int32_t byte_class);
  int32_t Push(int32_t parent, Grammar::NodeId node, int32_t count);
  void Visit(Grammar::NodeId node, int32_t frame);
  void EndBody(int32_t frame);
  void Expand(Configuration at);
  StateId Close();
  StateId Intern(State state);
  int32_t Canonical(int32_t frame, int32_t longest);

  std::shared_ptr<const Grammar> grammar_;
  const uint8_t* classes_;  // [256], the grammar's
  size_t class_count_;
  std::vector<State> states_;
  std::vector<int32_t> next_;  // [states][classes]
  std::unordered_multimap<uint64_t, StateId> states_by_hash_;
  std::vector<Frame> frames_;
  std::unordered_map<FrameKey, int32_t, FrameHasher> frame_numbers_;
  int64_t bytes_ = 0;
  int64_t work_left_ = int64_t{1} << 40;

  // While a state is made:
  State made_;
  std::vector<Configuration> open_;
  std::unordered_set<uint64_t> visited_;
};

}  // namespace halo
