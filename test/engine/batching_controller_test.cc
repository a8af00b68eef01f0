// The controller on machines that are formulas: knees at different places, noise, changes of speed.
#include "engine/llama/batching_controller.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "base/random.h"

namespace halo {
namespace {

/// Microseconds of a pass, by its sequences (decode) or tokens (prefill).
using Cost = std::function<double(double)>;

/// A batch with a knee: `fixed` is paid once a pass, `square` for each pair of sequences, as where
/// the cells of all are scanned for each.
Cost Knee(double best) {
  return [best](double n) { return 1000.0 + 50.0 * n + 1000.0 / (best * best) * n * n; };
}

Cost Line(double fixed, double each) {
  return [=](double n) { return fixed + each * n; };
}

double Unit(const Cost& cost, int32_t n) { return cost(n) / n; }

/// The least cost of a unit over 1 .. most.
double LeastUnit(const Cost& cost, int32_t most) {
  double least = Unit(cost, 1);
  for (int32_t n = 2; n <= most; ++n) least = std::min(least, Unit(cost, n));
  return least;
}

/// What most of the next passes are; the others are trials.
int32_t MostFrequent(const std::map<int32_t, int32_t>& counts) {
  return std::max_element(counts.begin(), counts.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

struct Machine {
  Cost decode = Line(1000, 50);
  Cost prefill = Line(4000, 60);
  bool noisy = false;
  double speed = 1.0;

  /// Every reading off by up to a tenth, every seventh four times too long.
  int64_t Us(double us) {
    us /= speed;
    if (noisy) us *= (0.95 + 0.1 * random.Uniform()) * (++readings % 7 == 0 ? 4.0 : 1.0);
    return std::llround(us);
  }

  /// Decode passes with more work than may run; what most of them are.
  int32_t Decode(BatchingController& controller, int32_t passes) {
    std::map<int32_t, int32_t> counts;
    for (int32_t i = 0; i < passes; ++i) {
      const int32_t sequences = controller.DecodeSequences(controller.RunningSequences());
      ++counts[sequences];
      controller.DecodeTook(sequences, false, Us(decode(sequences)));
    }
    return MostFrequent(counts);
  }

  /// Prefill passes while nothing decodes; what most of them are.
  int32_t Prefill(BatchingController& controller, int32_t passes) {
    std::map<int32_t, int32_t> counts;
    for (int32_t i = 0; i < passes; ++i) {
      const int32_t tokens = controller.PrefillTokens(1 << 20, 0);
      ++counts[tokens];
      controller.PrefillTook(tokens, 0, Us(prefill(tokens)));
    }
    return MostFrequent(counts);
  }

  RandomStream random{7};
  int64_t readings = 0;
};

class Knees : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Machine, Knees, testing::Bool(),
                         [](const auto& c) { return c.param ? "Noisy" : "Still"; });

TEST_P(Knees, TheKneeOfDecodeIsFoundWithinAFewHundredSteps) {
  for (const double best : {4.0, 7.0, 12.0, 20.0, 33.0, 50.0, 100.0}) {
    BatchingController controller({.sequences = 64});
    Machine machine{.decode = Knee(best), .noisy = GetParam()};
    machine.Decode(controller, 300);
    const int32_t chosen = machine.Decode(controller, 100);
    EXPECT_LE(Unit(machine.decode, chosen), 1.03 * LeastUnit(machine.decode, 64))
        << "best " << best << ", chosen " << chosen;
  }
}

TEST_P(Knees, TheKneeOfPrefillIsFoundWithinAFewHundredSteps) {
  for (const double best : {512.0, 700.0, 1024.0, 1500.0, 2048.0}) {
    const Cost prefill = [best](double tokens) {
      return 20000.0 + 60.0 * tokens + 20000.0 / (best * best) * tokens * tokens;
    };
    BatchingController controller({.sequences = 64});
    Machine machine{.prefill = prefill, .noisy = GetParam()};
    machine.Prefill(controller, 300);
    double least = Unit(prefill, 512);
    for (int32_t tokens = 512; tokens <= 2048; ++tokens)
      least = std::min(least, Unit(prefill, tokens));
    const int32_t chosen = machine.Prefill(controller, 100);
    EXPECT_LE(Unit(prefill, chosen), 1.05 * least) << "best " << best << ", chosen " << chosen;
  }
}

TEST_P(Knees, WhereMoreNeverCostsAllRun) {
  BatchingController controller({.sequences = 64});
  Machine machine{.noisy = GetParam()};
  machine.Decode(controller, 300);
  EXPECT_LE(Unit(machine.decode, machine.Decode(controller, 100)), 1.03 * Unit(machine.decode, 64));
}

TEST_P(Knees, AMachineThatBecomesSlowerIsNotTakenForABadChoice) {
  const Cost decode = Knee(20);
  BatchingController controller({.sequences = 64});
  Machine machine{.decode = decode, .noisy = GetParam()};
  machine.Decode(controller, 400);
  for (const double speed : {0.3, 1.0, 0.5, 2.0}) {
    machine.speed = speed;
    for (int32_t i = 0; i < 5; ++i)
      EXPECT_LE(Unit(decode, machine.Decode(controller, 60)), 1.05 * LeastUnit(decode, 64));
  }
}

TEST_P(Knees, AKneeThatMovesIsFoundAgain) {
  BatchingController controller({.sequences = 64});
  Machine machine{.decode = Knee(8), .noisy = GetParam()};
  machine.Decode(controller, 400);
  machine.decode = Knee(40);
  machine.Decode(controller, 2000);
  EXPECT_LE(Unit(machine.decode, machine.Decode(controller, 100)),
            1.03 * LeastUnit(machine.decode, 64));
}

TEST(BatchingController, TrialsCostLittle) {
  BatchingController controller({.sequences = 64});
  const Cost decode = Line(1000, 50);
  double spent = 0.0, best = 0.0;
  for (int32_t i = 0; i < 1000; ++i) {
    const int32_t sequences = controller.DecodeSequences(64);
    spent += decode(sequences);
    best += sequences * Unit(decode, 64);
    controller.DecodeTook(sequences, false, std::llround(decode(sequences)));
  }
  EXPECT_LE(spent, 1.02 * best);
}

TEST(BatchingController, PromptsNeverStallDecodingForLong) {
  const double decode_us = 1000.0, token_us = 100.0;
  BatchingController controller({.sequences = 64});
  int32_t passes = 0;
  for (; !controller.IsDecodeDue(1); ++passes) {
    const int32_t tokens = controller.PrefillTokens(1 << 20, 1);
    controller.PrefillTook(tokens, 1, std::llround(token_us * tokens));
  }
  EXPECT_EQ(passes, BatchingController::kMostFirstPasses);
  for (int32_t turn = 0; turn < 200; ++turn) {
    controller.DecodeTook(1, false, std::llround(decode_us));
    double stalled_us = 0.0;
    while (!controller.IsDecodeDue(1)) {
      const int32_t tokens = controller.PrefillTokens(1 << 20, 1);
      stalled_us += token_us * tokens;
      controller.PrefillTook(tokens, 1, std::llround(token_us * tokens));
    }
    const double bound_us = BatchingController::kMostStallPasses * decode_us;
    EXPECT_GE(stalled_us, bound_us) << "a decode pass of one sequence is worth little";
    EXPECT_LE(stalled_us, bound_us + 512 * token_us);
  }
  EXPECT_FALSE(controller.IsDecodeDue(0)) << "nothing waits";
}

TEST(BatchingController, RefillsAreLargerWhereAnswersAreShortAndPrefillPassesAreDear) {
  const auto refill = [](double prefill_fixed, double decode_fixed, int64_t answer) {
    BatchingController controller({.sequences = 64});
    Machine machine{.decode = Line(decode_fixed, 50), .prefill = Line(prefill_fixed, 60)};
    machine.Prefill(controller, 100);
    machine.Decode(controller, 100);
    controller.AnswerEnded(answer);
    return controller.RefillSequences();
  };
  // n sqrt(2 p / (d m)).
  EXPECT_EQ(refill(1000, 1000, 512), 4);
  EXPECT_EQ(refill(4000, 1000, 512), 8);
  EXPECT_EQ(refill(1000, 1000, 128), 8);
  EXPECT_EQ(refill(1000, 1000, 2), 16) << "a quarter of what runs at most";
  EXPECT_EQ(refill(1000, 100000, 4096), 1);
  EXPECT_EQ(BatchingController({.sequences = 64}).RefillSequences(), 1)
      << "before an answer has ended";
  EXPECT_EQ(BatchingController({.sequences = 1}).RefillSequences(), 1);
}

TEST(BatchingController, WhatIsFixedStaysFixed) {
  BatchingController controller({.sequences = 64,
                                 .fixed_pass_tokens = 300,
                                 .fixed_running_sequences = 9,
                                 .fixed_refill_sequences = 3});
  Machine machine{.decode = Knee(4)};
  for (int32_t i = 0; i < 50; ++i) {
    machine.Prefill(controller, 4);
    machine.Decode(controller, 4);
    controller.AnswerEnded(100);
    EXPECT_EQ(controller.PrefillTokens(1 << 20, 0), 300);
    EXPECT_EQ(controller.PrefillTokens(200, 0), 200);
    EXPECT_EQ(controller.RunningSequences(), 9);
    EXPECT_EQ(controller.DecodeSequences(9), 9);
    EXPECT_EQ(controller.RefillSequences(), 3);
  }
}

TEST(BatchingController, DraftsAreAsLongAsTheyPay) {
  BatchingController controller({.sequences = 8});
  EXPECT_EQ(controller.DraftTokens(1.0, 8), 0) << "nothing was measured";
  controller.PrefillTook(1000, 0, 10'000);  // 10 us a token
  controller.DecodeTook(4, false, 160);     // 40 us a token
  EXPECT_EQ(controller.DraftTokens(1.0, 8), 8);
  EXPECT_EQ(controller.DraftTokens(0.6, 8), 2);  // 0.36 x 40 > 10 > 0.216 x 40
  EXPECT_EQ(controller.DraftTokens(0.2, 8), 0);
  EXPECT_EQ(controller.DraftTokens(0.0, 8), 0);
  // What drafts cost is not what a token of a step costs.
  controller.DecodeTook(4, true, 1'000'000);
  EXPECT_EQ(controller.DraftTokens(0.6, 8), 2);
  BatchingController fixed({.sequences = 8, .fixed_draft_tokens = 3});
  EXPECT_EQ(fixed.DraftTokens(0.0, 8), 3);
  EXPECT_EQ(fixed.DraftTokens(0.0, 2), 2);
}

TEST(BatchingController, SmallRoomsAndCoarseClocksAreTaken) {
  BatchingController controller({.sequences = 1, .batch_tokens = 64, .micro_batch_tokens = 512});
  for (int32_t i = 0; i < 300; ++i) {
    EXPECT_EQ(controller.DecodeSequences(1), 1);
    controller.DecodeTook(1, false, 0);
    const int32_t tokens = controller.PrefillTokens(1000, 1);
    EXPECT_EQ(tokens, 64);
    controller.PrefillTook(tokens, 1, 0);
    EXPECT_EQ(controller.PrefillTokens(3, 1), 3);
  }
  EXPECT_EQ(controller.RunningSequences(), 1);
}

TEST(BatchingController, TooLittleWorkDecidesNothing) {
  BatchingController controller({.sequences = 64});
  for (int32_t i = 0; i < 1000; ++i) {
    const int32_t sequences = controller.DecodeSequences(1);
    EXPECT_EQ(sequences, 1);
    controller.DecodeTook(sequences, false, 1000);
  }
  EXPECT_EQ(controller.RunningSequences(), 64);
}

}  // namespace
}  // namespace halo
