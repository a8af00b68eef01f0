#define XXH_INLINE_ALL
#include <gtest/gtest.h>
#include <xxhash.h>

#include <set>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "base/text.h"

namespace halo {
namespace {

TEST(Philox, AgreesWithTheKnownAnswersOfTheRandom123Library) {
  EXPECT_EQ(Philox4x32(0, 0),
            (std::array<uint32_t, 4>{0x6627E8D5U, 0xE169C58DU, 0xBC57AC4CU, 0x9B00DBD8U}));
}

TEST(UniformDraw, LiesInTheUnitIntervalAndDependsOnKeyAndIndex) {
  double sum = 0.0;
  std::set<double> seen;
  for (uint64_t i = 0; i < 10000; ++i) {
    const double draw = UniformDraw(42, i);
    ASSERT_GE(draw, 0.0);
    ASSERT_LT(draw, 1.0);
    sum += draw;
    seen.insert(draw);
  }
  EXPECT_NEAR(sum / 10000.0, 0.5, 0.02);
  EXPECT_EQ(seen.size(), 10000U);
  EXPECT_NE(UniformDraw(42, 0), UniformDraw(43, 0));
}

// Histories and draws are kept by signatures: they may not change with the way they are computed.
TEST(Signature, IsTheHashOfItsFieldsBehindOneAnother) {
  for (size_t size = 0; size < 1500; size += size < 300 ? 1 : 37) {
    std::string text(size, 'a');
    for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 31);
    std::string bytes;
    const auto append = [&](auto value) {
      bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    };
    append(static_cast<uint64_t>(size));
    bytes += text;
    append(int64_t{-7});
    append(0.5);
    append(uint64_t{3});
    append(uint64_t{4});
    const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
    const Signature signature =
        SignatureBuilder().Add(text).Add(int64_t{-7}).Add(0.5).Add(Signature{3, 4}).Finish();
    ASSERT_EQ(signature, (Signature{hash.high64, hash.low64})) << size;
  }
}

TEST(Signature, FieldsDoNotRunIntoEachOther) {
  const Signature a = SignatureBuilder().Add("ab").Add("c").Finish();
  const Signature b = SignatureBuilder().Add("a").Add("bc").Finish();
  EXPECT_NE(a, b);
  EXPECT_EQ(a, SignatureBuilder().Add("ab").Add("c").Finish());
  EXPECT_EQ(a.ToHex().size(), 32U);
}

TEST(Utf8, FindsTheFirstIllFormedByte) {
  EXPECT_EQ(FindInvalidUtf8("plain"), std::string_view::npos);
  EXPECT_EQ(FindInvalidUtf8("caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80"), std::string_view::npos);
  EXPECT_EQ(FindInvalidUtf8("ab\xFF"), 2U);
  EXPECT_EQ(FindInvalidUtf8("\xC0\xAF"), 0U);          // overlong
  EXPECT_EQ(FindInvalidUtf8("x\xED\xA0\x80"), 1U);     // surrogate
  EXPECT_EQ(FindInvalidUtf8("\xF4\x90\x80\x80"), 0U);  // beyond U+10FFFF
  EXPECT_EQ(FindInvalidUtf8("a\xE2\x82"), 1U);
}

TEST(Utf8, CompleteLengthLeavesOutAnUnfinishedSequence) {
  EXPECT_EQ(CompleteUtf8Length("abc"), 3U);
  EXPECT_EQ(CompleteUtf8Length("ab\xE2\x82"), 2U);
  EXPECT_EQ(CompleteUtf8Length("ab\xE2\x82\xAC"), 5U);
  EXPECT_EQ(CompleteUtf8Length("\xF0\x9F\x98"), 0U);
  EXPECT_EQ(CompleteUtf8Length("a\xFF"), 2U);  // never to be completed: left for ReplaceInvalidUtf8
  EXPECT_EQ(CompleteUtf8Length(""), 0U);
}

TEST(Utf8, ReplacesIllFormedParts) {
  EXPECT_EQ(ReplaceInvalidUtf8("a\xFFz"), "a\xEF\xBF\xBDz");
  EXPECT_EQ(ReplaceInvalidUtf8("a\xE2\x82"), "a\xEF\xBF\xBD");
  EXPECT_EQ(ReplaceInvalidUtf8("fine \xC3\xA9"), "fine \xC3\xA9");
  EXPECT_EQ(FindInvalidUtf8(ReplaceInvalidUtf8("\xC3\x28\xA0\xE2\x28\xA1\xF0\x28\x8C\xBC")),
            std::string_view::npos);
}

TEST(DidYouMean, SuggestsOnlyWhatIsNear) {
  const std::vector<std::string> words = {"temperature", "max_tokens", "top_p"};
  EXPECT_EQ(DidYouMean("temperatur", words), " (did you mean 'temperature'?)");
  EXPECT_EQ(DidYouMean("max_token", words), " (did you mean 'max_tokens'?)");
  EXPECT_EQ(DidYouMean("tpo_p", words), " (did you mean 'top_p'?)");
  EXPECT_EQ(DidYouMean("banana", words), "");
}

TEST(Error, NamesEveryPlace) {
  const Error error(ErrorCode::kWorkflow,
                    {{{"a.yaml", 3, 7}, "first"}, {{"a.yaml", 9, 0}, "second"}, {{}, "third"}});
  EXPECT_STREQ(error.what(), "a.yaml:3:7: first\na.yaml:9: second\nthird");
}

TEST(VirtualClock, MovesOnlyForward) {
  VirtualClock clock;
  clock.AdvanceTo(5);
  EXPECT_EQ(clock.NowUs(), 5);
  EXPECT_DEATH(clock.AdvanceTo(4), "virtual time");
}

}  // namespace
}  // namespace halo
