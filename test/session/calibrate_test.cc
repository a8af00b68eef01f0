// From measurements to a profile, and profiles in their files.
#include "session/calibrate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "model/model_digest.h"
#include "session/machine.h"
#include "session/profile_store.h"

namespace halo {
namespace {

using testing::HasSubstr;

double PrefillLaw(double prompts, double tokens, double context) {
  return 1e-3 + prompts * tokens * (1e-4 + 1e-8 * context);
}
double DecodeLaw(double sequences, double context) {
  return 2e-3 + sequences * (3e-4 + 1e-7 * context);
}

/// A machine that follows two laws exactly.
Calibration LawfulCalibration() {
  Calibration measured;
  for (const auto& [n, t] : std::vector<std::pair<int, int>>{
           {16, 16}, {1, 512}, {1, 16}, {4, 16}, {4, 256}, {1, 128}, {16, 64}})
    measured.prefill.push_back({n, t, 0, 0, false, PrefillLaw(n, t, 0), 3});
  for (const auto& [n, t] : std::vector<std::pair<int, int>>{{1, 128}, {4, 256}, {16, 16}})
    measured.prefill.push_back({n, t, 800, 0, false, PrefillLaw(n, t, 800), 3});
  // Other lengths cost half a millisecond each.
  measured.prefill.push_back({4, 128, 0, 48, false, PrefillLaw(4, 128, 0) + 3 * 5e-4, 3});
  measured.prefill.push_back({8, 100, 0, 28, true, PrefillLaw(8, 100, 0) + 7 * 5e-4, 3});
  for (const int n : {16, 1, 4}) {
    for (const int context : {800, 50})
      measured.decode.push_back({n, 1, context, 0, false, DecodeLaw(n, context), 3});
  }
  measured.prefill.push_back({1, 200, 400, 0, true, PrefillLaw(1, 200, 400), 3});
  measured.decode.push_back({10, 1, 400, 0, true, DecodeLaw(10, 400), 3});
  for (const int tokens : {50, 400, 800}) {
    measured.copies.push_back({tokens, 1e-4 + 1e-6 * tokens});
    measured.spills.push_back({tokens, 2e-6 * tokens - 1e-5});  // the intercept is noise
    measured.restores.push_back({tokens, 3e-4 + 2e-7 * tokens});
  }
  measured.sampling_token_s = 1e-5;
  measured.load_s = 0.5;
  measured.weights_bytes = 1000;
  measured.kv_token_bytes = 64;
  measured.exact = true;
  return measured;
}

TEST(ProfileFrom, FindsTheLawsOfAMachine) {
  const ModelProfile profile = ProfileFrom(LawfulCalibration(), "m", "d");
  EXPECT_TRUE(profile.measured);
  EXPECT_TRUE(profile.exact);
  EXPECT_EQ(profile.model_digest, "d");
  for (const double context : {0.0, 100.0, 800.0, 2000.0}) {
    for (const double n : {1.0, 3.0, 10.0, 16.0, 40.0})
      EXPECT_NEAR(DecodeSeconds(profile, n, n, context), DecodeLaw(n, context), 1e-9);
    EXPECT_NEAR(PrefillSeconds(profile, 1, 300, context), PrefillLaw(1, 300, context), 1e-9);
    EXPECT_NEAR(PrefillSeconds(profile, 4, 200, context), PrefillLaw(4, 200, context), 1e-9);
    EXPECT_NEAR(PrefillSeconds(profile, 12, 40, context), PrefillLaw(12, 40, context), 1e-9);
  }
  // One token of each prompt costs what a decode step costs.
  EXPECT_NEAR(PrefillSeconds(profile, 16, 1, 300), DecodeLaw(16, 300), 1e-9);
  EXPECT_NEAR(profile.part_s, 5e-4, 1e-9);
  EXPECT_NEAR(profile.relative_error, 0.0, 1e-6);
  EXPECT_NEAR(profile.copy_s, 1e-4, 1e-12);
  EXPECT_NEAR(profile.copy_token_s, 1e-6, 1e-12);
  EXPECT_EQ(profile.spill_s, 0.0);
  EXPECT_NEAR(profile.restore_s + 500 * profile.restore_token_s, 3e-4 + 500 * 2e-7, 1e-9);
}

TEST(ProfileFrom, HeldOutPassesGiveTheErrorAndNothingElse) {
  Calibration measured = LawfulCalibration();
  const ModelProfile before = ProfileFrom(measured, "m", "d");
  for (std::vector<MeasuredPass>* passes : {&measured.prefill, &measured.decode}) {
    for (MeasuredPass& pass : *passes) {
      if (pass.held_out) pass.seconds *= 2.0;
    }
  }
  ModelProfile after = ProfileFrom(measured, "m", "d");
  EXPECT_NEAR(after.relative_error, 0.5, 1e-9);
  after.relative_error = before.relative_error;
  EXPECT_EQ(ToJson({"x", 1, {before}}), ToJson({"x", 1, {after}}));
}

TEST(ProfileFrom, NoiseNeverMakesCostsThatAreNone) {
  Calibration measured = LawfulCalibration();
  for (MeasuredPass& pass : measured.prefill) {
    if (pass.context > 0) pass.seconds *= 0.1;
  }
  for (MeasuredPass& pass : measured.decode) {
    if (pass.context == 800) pass.seconds *= 0.1;
  }
  measured.copies = {{100, 4e-4}, {1000, 3e-4}};
  const ModelProfile profile = ProfileFrom(measured, "m", "d");
  EXPECT_GT(profile.copy_token_s, 0.0);  // or copies of any length would be free
  // What is written can be read again: no cost is negative.
  EXPECT_NO_THROW(ReadCostProfile(ToJson({"x", 1, {profile}}), "p"));
  EXPECT_GE(DecodeSeconds(profile, 1, 1, 10'000), DecodeSeconds(profile, 1, 1, 0));
}

class ProfileStore : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "halo-profiles-" +
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    path_ = folder_ + "/deep/p.json";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static ModelProfile Model(const std::string& digest, double load_s) {
    ModelProfile model = ProfileFrom(LawfulCalibration(), "model " + digest, digest);
    model.load_s = load_s;
    return model;
  }
  void Write(const std::string& text) const { std::ofstream(path_) << text; }

  std::string folder_, path_;
};

TEST_F(ProfileStore, ModelsAreMergedByDigest) {
  CheckProfileFile(path_, "here");
  EXPECT_FALSE(std::filesystem::exists(path_));  // looked at only
  StoreModelProfile(path_, "here", 2, Model("a", 1.0));
  StoreModelProfile(path_, "here", 2, Model("b", 2.0));
  StoreModelProfile(path_, "here", 2, Model("a", 3.0));
  const LoadedProfile loaded = LoadProfileFor(path_, "here");
  EXPECT_EQ(loaded.why_not, "");
  ASSERT_TRUE(loaded.profile.has_value());
  EXPECT_EQ(loaded.profile->threads, 2);
  ASSERT_EQ(loaded.profile->models.size(), 2U);
  EXPECT_EQ(loaded.profile->Find("a")->load_s, 3.0);
  EXPECT_EQ(loaded.profile->Find("b")->load_s, 2.0);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_ + "/deep"), {}), 1);
}

TEST_F(ProfileStore, AnotherMachinesProfileIsNotUsedAndNotOverwritten) {
  CheckProfileFile(path_, "there");
  StoreModelProfile(path_, "there", 2, Model("a", 1.0));
  const LoadedProfile loaded = LoadProfileFor(path_, "here");
  EXPECT_FALSE(loaded.profile.has_value());
  EXPECT_THAT(loaded.why_not,
              HasSubstr("another machine or by another build (there), this is here"));
  EXPECT_THAT(loaded.why_not, HasSubstr("halo calibrate"));
  EXPECT_THROW(CheckProfileFile(path_, "here"), Error);
  EXPECT_THROW(StoreModelProfile(path_, "here", 2, Model("b", 1.0)), Error);
  EXPECT_NE(LoadProfileFor(path_, "there").profile->Find("a"), nullptr);
}

TEST_F(ProfileStore, WhatIsNoProfileIsNotUsedAndNotOverwritten) {
  EXPECT_THAT(LoadProfileFor(path_, "here").why_not, HasSubstr("no cost profile at " + path_));
  CheckProfileFile(path_, "here");
  Write("{\"version\": 1}");
  EXPECT_THAT(LoadProfileFor(path_, "here").why_not, HasSubstr("models: missing"));
  EXPECT_THROW(CheckProfileFile(path_, "here"), Error);
  EXPECT_THAT(LoadProfileFor(folder_, "here").why_not, HasSubstr("is a file, and this is none"));
}

TEST(MachineFingerprint, NamesWhatRatesDependOn) {
  const std::string two = MachineFingerprint(2);
  EXPECT_THAT(two, HasSubstr(" cores, "));
  EXPECT_THAT(two, HasSubstr(" 2 threads, halo "));
  EXPECT_THAT(two, HasSubstr("llama.cpp v"));
  EXPECT_EQ(two, MachineFingerprint(2));
  EXPECT_NE(two, MachineFingerprint(1));
  EXPECT_NE(ProfileFileName(two), ProfileFileName(MachineFingerprint(1)));
  EXPECT_THAT(ProfileFileName(two), testing::MatchesRegex("[0-9a-f]+\\.json"));
}

TEST(ModelFileDigest, TellsFilesApartByLengthHeadAndTail) {
  const std::string path = testing::TempDir() + "halo-digest";
  const auto digest = [&](const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
    return ModelFileDigest(path);
  };
  const std::string bytes(3 << 20, 'x');
  std::string head = bytes, tail = bytes;
  head[5] = 'y';
  tail[bytes.size() - 5] = 'y';
  const std::string whole = digest(bytes);
  EXPECT_EQ(whole.size(), 32U);
  EXPECT_EQ(digest(bytes), whole);
  EXPECT_NE(digest(head), whole);
  EXPECT_NE(digest(tail), whole);
  EXPECT_NE(digest(bytes + "x"), whole);
  EXPECT_NE(digest("x"), digest(""));
  std::filesystem::remove(path);
  EXPECT_THROW(ModelFileDigest(path), Error);
}

}  // namespace
}  // namespace halo
