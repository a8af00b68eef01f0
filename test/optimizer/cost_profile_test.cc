#include "optimizer/cost_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;
using testing::Not;

/// Round numbers: a pass of n prompts of t tokens takes 1 + n * t / 100 seconds between points, and
/// n * t / 1e6 more for each token of context.
ModelProfile RoundProfile() {
  ModelProfile profile;
  profile.model = "m";
  profile.model_digest = "d1";
  for (const int32_t prompts : {1, 4, 16}) {
    for (const int32_t tokens : {1, 100, 500}) {
      const double all = prompts * tokens;
      profile.prefill.push_back({tokens, 1.0 + all / 100.0, all / 1e6, prompts});
    }
  }
  profile.decode = {{1, 0.1, 1e-5}, {4, 0.16, 4e-5}, {16, 0.4, 16e-5}};
  profile.weights_bytes = 1000;
  profile.kv_token_bytes = 10;
  profile.measured = true;
  return profile;
}

CostProfile OneModel() {
  CostProfile profile;
  profile.machine = "a machine";
  profile.threads = 2;
  profile.models = {RoundProfile()};
  return profile;
}

TEST(Estimate, AddsAndScalesWithItsInterval) {
  const Estimate sum = Estimate::Within(10.0, 0.1) + Estimate::Exactly(5.0);
  EXPECT_DOUBLE_EQ(sum.value, 15.0);
  EXPECT_DOUBLE_EQ(sum.low, 14.0);
  EXPECT_DOUBLE_EQ(sum.high, 16.0);
  const Estimate less = sum * -2.0;
  EXPECT_DOUBLE_EQ(less.value, -30.0);
  EXPECT_DOUBLE_EQ(less.low, -32.0);
  EXPECT_DOUBLE_EQ(less.high, -28.0);
}

TEST(PrefillSeconds, IsMeasuredAtPointsAndLinearBetweenThem) {
  const ModelProfile profile = RoundProfile();
  EXPECT_DOUBLE_EQ(PrefillSeconds(profile, 1, 100, 0), 2.0);
  EXPECT_DOUBLE_EQ(PrefillSeconds(profile, 1, 300, 0), 4.0);
  EXPECT_DOUBLE_EQ(PrefillSeconds(profile, 1, 300, 1000), 4.0 + 0.3);
  // Two prompts of 300 in one pass: a third of the way from one to four.
  EXPECT_DOUBLE_EQ(PrefillSeconds(profile, 2, 300, 0), 7.0);
  EXPECT_DOUBLE_EQ(PrefillSeconds(profile, 1, 1000, 0), 11.0);  // by the last slope
}

TEST(PrefillSeconds, LongPromptsGoByFewAndShortOnesTogether) {
  const ModelProfile profile = RoundProfile();
  // Two passes of four, not one of eight.
  EXPECT_DOUBLE_EQ(PrefillSeconds(profile, 8, 200, 0), 2.0 * (1.0 + 8.0));
  EXPECT_DOUBLE_EQ(PrefillSeconds(profile, 5, 200, 0), (1.0 + 8.0) + (1.0 + 2.0));
  EXPECT_DOUBLE_EQ(PrefillSeconds(profile, 8, 100, 0), 1.0 + 8.0);
  // At most 2,048 tokens: 20 of 100. Beyond what was measured in proportion to 16.
  EXPECT_DOUBLE_EQ(PrefillSeconds(profile, 40, 100, 0), 2.0 * 17.0 * 20.0 / 16.0);
  EXPECT_DOUBLE_EQ(PrefillSeconds(profile, 0.25, 100, 0), 0.5);
}

TEST(PrefillSeconds, PromptsLongerThanAPassAreCut) {
  ModelProfile profile = RoundProfile();
  profile.passes.batch_tokens = 500;
  const double first = 6.0, second = 6.0 + 500 * 500 / 1e6, third = 3.0 + 200 * 1000 / 1e6;
  EXPECT_NEAR(PrefillSeconds(profile, 1, 1200, 0), first + second + third, 1e-12);
  // Whole passes alone, the rests of 200 tokens two by two: a third of the way to four.
  const double two = 1.0 + 2.0 * 2.0 + 400 * 1000 / 1e6;
  EXPECT_NEAR(PrefillSeconds(profile, 3, 1200, 0), 3.0 * (first + second) + two + third, 1e-12);
  // Takes no longer to say for a prompt of any length.
  EXPECT_GT(PrefillSeconds(profile, 1, 1e12, 0), 1e12 / 100.0);
}

TEST(PrefillSeconds, NothingCostsNothingAndMoreNeverCostsLess) {
  const ModelProfile profile = RoundProfile();
  EXPECT_EQ(PrefillSeconds(profile, 0, 100, 0), 0.0);
  EXPECT_EQ(PrefillSeconds(profile, 10, 0, 0), 0.0);
  EXPECT_EQ(PrefillSeconds(ModelProfile{}, 10, 10, 0), 0.0);
  ModelProfile crossing = profile;
  crossing.prefill = {{100, 2.0, 0.0, 1}, {200, 1.5, 0.0, 1}};  // measured in a noisy moment
  EXPECT_DOUBLE_EQ(PrefillSeconds(crossing, 1, 2000, 0), 1.5);
}

TEST(PrefillSeconds, PromptsThatComeOneByOneCostMore) {
  ModelProfile profile = RoundProfile();
  EXPECT_DOUBLE_EQ(PrefillSeconds(profile, 16, 100, 0, {1.0, 0.0}), 16 * 2.0);
  EXPECT_DOUBLE_EQ(PrefillSeconds(profile, 16, 100, 0, {2.5, 0.0}), 16 / 2.5 * 3.5);
  // No more than the engine takes together, and than there are.
  EXPECT_DOUBLE_EQ(PrefillSeconds(profile, 16, 200, 0, {8.0, 0.0}), 4 * (1.0 + 8.0));
  EXPECT_DOUBLE_EQ(PrefillSeconds(profile, 2, 100, 0, {8.0, 0.0}), 3.0);
}

TEST(PrefillSeconds, PromptsOfDifferentLengthsAreComputedInParts) {
  ModelProfile profile = RoundProfile();
  profile.part_s = 0.5;
  EXPECT_DOUBLE_EQ(PrefillSeconds(profile, 4, 200, 0), 9.0);
  EXPECT_NEAR(PrefillSeconds(profile, 4, 200, 0, {0.0, 1e9}), 9.0 + 3 * 0.5, 1e-6);  // all differ
  // Two of two lengths: as often alike as not.
  EXPECT_NEAR(PrefillSeconds(profile, 2, 100, 0, {0.0, 1.0}), 3.0 + 0.5 * 0.5, 1e-9);
  EXPECT_DOUBLE_EQ(PrefillSeconds(profile, 1, 200, 0, {0.0, 50.0}), 3.0);
}

TEST(PromptsOfPass, IsOneWhereAnswersEndRarelyAndAllWhereTheyEndAtOnce) {
  EXPECT_NEAR(PromptsOfPass(1, 1e9), 1.0, 1e-6);
  EXPECT_NEAR(PromptsOfPass(32, 32), 1.0 / (1.0 - std::exp(-1.0)), 1e-9);
  EXPECT_NEAR(PromptsOfPass(64, 1), 64.0, 1e-9);
  EXPECT_EQ(PromptsOfPass(0, 0), 1.0);
}

TEST(DecodeSeconds, StepsAreLinearInSequencesAndContext) {
  const ModelProfile profile = RoundProfile();
  EXPECT_DOUBLE_EQ(DecodeSeconds(profile, 1, 1, 0), 0.1);
  EXPECT_DOUBLE_EQ(DecodeSeconds(profile, 80, 4, 100), 20 * (0.16 + 4e-3));
  EXPECT_DOUBLE_EQ(DecodeSeconds(profile, 10, 10, 0), 0.28);
  EXPECT_DOUBLE_EQ(DecodeSeconds(profile, 32, 32, 0), 0.4 + 16 * 0.02);
  EXPECT_DOUBLE_EQ(DecodeSeconds(profile, 7, 0.5, 0), 0.7);  // a step has one sequence at least
  EXPECT_EQ(DecodeSeconds(profile, 0, 4, 100), 0.0);
}

TEST(DefaultProfile, IsOrderedAsMachinesAre) {
  const int64_t gigabyte = 1'000'000'000;
  const ModelProfile small = DefaultProfile("s", gigabyte / 10, 20'000);
  const ModelProfile large = DefaultProfile("l", 8 * gigabyte, 130'000);
  EXPECT_FALSE(small.measured);
  EXPECT_GT(small.relative_error, 0.5);
  EXPECT_LE(small.relative_error, 1.0);
  // A decode step reads the weights, a prefill shares that: batches pay, and contexts cost.
  EXPECT_LT(DecodeSeconds(small, 64, 64, 100), 0.7 * DecodeSeconds(small, 64, 1, 100));
  EXPECT_GT(DecodeSeconds(small, 64, 8, 2000), DecodeSeconds(small, 64, 8, 100));
  EXPECT_GT(PrefillSeconds(large, 10, 300, 0), 20 * PrefillSeconds(small, 10, 300, 0));
  EXPECT_GT(PrefillSeconds(small, 1, 300, 1000), PrefillSeconds(small, 1, 300, 0));
  EXPECT_GT(large.load_s, 8.0);
  // Whatever the file says of itself.
  EXPECT_GT(DecodeSeconds(DefaultProfile("z", 0, 0), 1, 1, 0), 0.0);
}

TEST(CostProfileJson, EveryNumberComesBackAsItWas) {
  CostProfile profile = OneModel();
  profile.models.push_back(DefaultProfile("other \"one\"", 145'485'440, 23'040));
  profile.models[1].model_digest = "d2";
  profile.models[0].prefill[1].base_s = 0.1 + 0.2;
  profile.models[0].exact = true;
  profile.models[0].relative_error = 1.0 / 3.0;
  const std::string text = ToJson(profile);
  const CostProfile read = ReadCostProfile(text, "p.json");
  EXPECT_EQ(ToJson(read), text);
  EXPECT_EQ(read.machine, "a machine");
  EXPECT_EQ(read.threads, 2);
  ASSERT_EQ(read.models.size(), 2U);
  EXPECT_EQ(read.models[0].prefill[1].base_s, 0.1 + 0.2);
  EXPECT_EQ(read.models[0].relative_error, 1.0 / 3.0);
  EXPECT_TRUE(read.models[0].measured);
  EXPECT_EQ(read.models[1].model, "other \"one\"");
  EXPECT_EQ(read.models[1].kv_token_bytes, 23'040);
  EXPECT_EQ(read.models[1].room_byte_s, profile.models[1].room_byte_s);
  EXPECT_EQ(read.Find("d2"), &read.models[1]);
  EXPECT_EQ(read.Find("d3"), nullptr);
}

/// What reading says of `text`; "" if it reads.
std::string FaultOf(const std::string& text) {
  try {
    ReadCostProfile(text, "p.json");
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kConfig);
    return error.what();
  }
}

/// The profile's JSON with one thing changed.
template <typename Change>
std::string Changed(const Change& change) {
  Json json = Json::parse(ToJson(OneModel()));
  change(json);
  return json.dump();
}

TEST(CostProfileJson, FilesThatAreNoProfileAreRefusedByName) {
  EXPECT_EQ(FaultOf(ToJson(OneModel())), "");
  for (const char* text : {"", "{", "[]", "null", "\xff\xfe", "{\"version\":1e999}", "7"})
    EXPECT_THAT(FaultOf(text), HasSubstr("p.json: ")) << text;
  EXPECT_THAT(FaultOf(std::string(100'000, '[')), HasSubstr("not JSON"));
  EXPECT_THAT(
      FaultOf("{\"version\": " + std::string(100'000, '[') + std::string(100'000, ']') + "}"),
      HasSubstr("nested more than 64 levels deep"));
  EXPECT_THAT(FaultOf(std::string(17 << 20, ' ')), HasSubstr("16 MiB"));
  // Of another version nothing else is said.
  const std::string newer = FaultOf(R"({"version": 2, "cores": []})");
  EXPECT_THAT(newer, HasSubstr("version 2, and this program reads version 1"));
  EXPECT_THAT(newer, Not(HasSubstr("cores")));
}

TEST(CostProfileJson, NumbersThatAreNoCostsAreRefusedWithTheirPlace) {
  const auto with_load = [](const Json& value) {
    return FaultOf(Changed([&](Json& j) { j["models"][0]["load_s"] = value; }));
  };
  for (const Json& value : {Json(-0.5), Json(1e7), Json("1"), Json(nullptr), Json(true)})
    EXPECT_THAT(with_load(value), HasSubstr("models[0].load_s: expected a number from 0 to"))
        << value;
  EXPECT_EQ(with_load(0), "");
  // JSON has no word for it, so writing makes null of it; a text of ours would not.
  EXPECT_THAT(with_load(std::nan("")), HasSubstr("models[0].load_s"));
  std::string nan = ToJson(OneModel());
  nan.replace(nan.find("\"load_s\": ") + 10, 3, "NaN");
  EXPECT_THAT(FaultOf(nan), HasSubstr("not JSON"));

  EXPECT_THAT(FaultOf(Changed([](Json& j) { j["models"][0]["weights_bytes"] = 1.5; })),
              HasSubstr("models[0].weights_bytes: expected a whole number"));
  EXPECT_THAT(FaultOf(Changed([](Json& j) { j["models"][0]["weights_bytes"] = UINT64_MAX; })),
              HasSubstr("models[0].weights_bytes"));
  EXPECT_THAT(FaultOf(Changed([](Json& j) { j["threads"] = 0; })), HasSubstr("threads"));
  EXPECT_THAT(FaultOf(Changed([](Json& j) { j["models"][0]["prefill"][2]["tokens"] = -7; })),
              HasSubstr("models[0].prefill[2].tokens"));
  EXPECT_THAT(FaultOf(Changed([](Json& j) { j["models"][0]["passes"]["batch_tokens"] = 0; })),
              HasSubstr("models[0].passes.batch_tokens"));
}

TEST(CostProfileJson, EveryFaultIsNamedAtOnce) {
  const std::string faults = FaultOf(Changed([](Json& j) {
    Json& model = j["models"][0];
    model.erase("copy_s");
    model["speed"] = 3;
    model["decode"][1]["base_s"] = -1;
    model["prefill"][1]["tokens"] = 1;
    j.erase("machine");
    j["models"].push_back("x");
  }));
  EXPECT_THAT(faults, HasSubstr("machine: missing"));
  EXPECT_THAT(faults, HasSubstr("models[0].copy_s: missing"));
  EXPECT_THAT(faults, HasSubstr("models[0].speed: unknown key"));
  EXPECT_THAT(faults, HasSubstr("models[0].decode[1].base_s"));
  EXPECT_THAT(faults, HasSubstr("models[0].prefill[1]: points must ascend"));
  EXPECT_THAT(faults, HasSubstr("models[1]: expected an object"));
  EXPECT_THAT(faults, HasSubstr("halo calibrate"));
}

TEST(CostProfileJson, ListsAreBounded) {
  EXPECT_THAT(FaultOf(Changed([](Json& j) { j["models"][0]["decode"] = Json::array(); })),
              HasSubstr("models[0].decode: expected a list of 1 to 1000"));
  EXPECT_THAT(FaultOf(Changed([](Json& j) {
                Json& points = j["models"][0]["decode"];
                for (int i = 0; i < 1001; ++i) {
                  points.push_back({{"sequences", 17 + i}, {"base_s", 1}, {"context_s", 0}});
                }
              })),
              HasSubstr("models[0].decode: expected a list of 1 to 1000"));
  EXPECT_THAT(FaultOf(Changed([](Json& j) {
                const Json model = j["models"][0];
                j["models"].push_back(model);
              })),
              HasSubstr("models[1]: a second entry for the same model_digest"));
  const std::string many = FaultOf(Changed([](Json& j) {
    for (int i = 0; i < 500; ++i) j["models"].push_back(Json(nullptr));
  }));
  EXPECT_THAT(many, HasSubstr("and more"));
  EXPECT_LT(many.size(), 10'000U);
}

}  // namespace
}  // namespace halo
