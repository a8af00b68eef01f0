#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "tool/census.h"
#include "tool/tool_backend.h"

namespace halo::test {

/// A mailbox, and what has come into it.
class BackendRig {
 public:
  SteadyClock clock;
  ToolMailbox mailbox;

  ToolCallId NextId() { return ++last_id_; }

  /// The completion of a call. A minute is for ever; however many others end in it.
  ToolCompletion Wait(ToolCallId id) {
    constexpr int64_t kMostUs = 60'000'000;
    const int64_t end_us = clock.NowUs() + kMostUs;
    while (!done_.contains(id)) {
      const int64_t left_us = end_us - clock.NowUs();
      if (left_us <= 0) {
        ADD_FAILURE() << "call " << id << " does not end";
        ToolCompletion none;
        none.failure = Failure{"", "test_never_ended", "", false};
        return none;
      }
      Take(left_us);
    }
    return done_.extract(id).mapped();
  }

  /// Calls in the order in which they ended, so far.
  const std::vector<ToolCallId>& ended() {
    Take(0);
    return ended_;
  }

  bool IsDone(ToolCallId id) {
    Take(0);
    return done_.contains(id);
  }

  /// Takes what has come. A call ends once, also after it was waited for.
  void Take(int64_t most_us) {
    for (ToolCompletion& completion : mailbox.Take(most_us)) {
      const ToolCallId id = completion.id;
      EXPECT_TRUE(seen_.insert(id).second) << "call " << id << " ends twice";
      ended_.push_back(id);
      done_.emplace(id, std::move(completion));
    }
  }

 private:
  ToolCallId last_id_ = 0;
  std::map<ToolCallId, ToolCompletion> done_;
  std::set<ToolCallId> seen_;
  std::vector<ToolCallId> ended_;
};

/// "" or the code of a completion's failure.
inline std::string CodeOf(const ToolCompletion& completion) {
  return completion.failure ? completion.failure->code : "";
}

inline std::string MessageOf(const ToolCompletion& completion) {
  return completion.failure ? completion.failure->message : "";
}

}  // namespace halo::test
