#include "model/model_names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "model/small_model.h"
#include "model/synth.h"
#include "support/test_models.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

class ModelNames : public ::testing::Test {
 protected:
  ModelNames() : folder_(test::FreshFolder("model_names")) {
    const std::string vocabulary = folder_ + "/vocabulary.gguf";
    test::WriteFile(vocabulary, test::SmallVocabulary());
    for (const char* type : {"F16", "Q8_0"}) {
      SynthOptions options;
      options.shape = {.name = "small",
                       .layers = 1,
                       .width = 32,
                       .heads = 2,
                       .kv_heads = 1,
                       .head_width = 16,
                       .feed_forward = 32,
                       .context_tokens = 64,
                       .vocabulary = ""};
      options.vocabulary_file = vocabulary;
      options.weight_type = type;
      options.output = folder_ + "/" + type + ".gguf";
      SynthesizeModel(options);
    }
    search_.models_folder = folder_ + "/models";
    search_.hugging_face_cache = folder_ + "/hub";
    fs::create_directories(search_.models_folder);
  }
  ~ModelNames() override { fs::remove_all(folder_); }

  std::string Put(const std::string& type, const std::string& path) const {
    const fs::path to = fs::path(folder_) / path;
    fs::create_directories(to.parent_path());
    fs::copy_file(fs::path(folder_) / (type + ".gguf"), to);
    return to.string();
  }

  std::string Path(const ModelRequest& request) const {
    return ResolveModels({request}, search_).at(0).path;
  }

  std::string Refusal(const std::vector<ModelRequest>& requests) const {
    try {
      ResolveModels(requests, search_);
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ErrorCode::kModel || error.code() == ErrorCode::kConfig);
      return error.what();
    }
    return "";
  }

  std::string folder_;
  ModelSearchPath search_;
};

TEST_F(ModelNames, LooksInTheOrderOfTheContract) {
  const std::string cached = Put("Q8_0", "hub/models--org--m/snapshots/abc/m.gguf");
  EXPECT_EQ(Path({"org/m", "", ""}), cached);
  const std::string in_folder = Put("Q8_0", "models/org/m.gguf");
  EXPECT_EQ(Path({"org/m", "", ""}), in_folder);
  const std::string listed = Put("Q8_0", "listed.gguf");
  search_.models_file = folder_ + "/models.yaml";
  test::WriteFile(search_.models_file, "org/m: listed.gguf\n");
  EXPECT_EQ(Path({"org/m", "", ""}), listed);
  search_.flags["org/m"] = folder_ + "/F16.gguf";
  EXPECT_EQ(Path({"org/m", "", ""}), folder_ + "/F16.gguf");
  EXPECT_EQ(ResolveModels({{"org/m", "", ""}}, search_).at(0).summary.weight_type, "F16");
}

TEST_F(ModelNames, FindsTheFormsOfAName) {
  const std::string plain = Put("Q8_0", "models/a.gguf");
  const std::string dash = Put("Q8_0", "models/b-Q8_0.gguf");
  const std::string dot = Put("F16", "models/org/c.f16.gguf");
  const std::string inside = Put("Q8_0", "models/org/d/anything.gguf");
  Put("Q8_0", "models/e-instruct.gguf");
  EXPECT_EQ(Path({"a", "", ""}), plain);
  EXPECT_EQ(Path({"b", "", ""}), dash);
  EXPECT_EQ(Path({"org/c", "", ""}), dot);
  EXPECT_EQ(Path({"org/d", "", ""}), inside);
  EXPECT_THAT(Refusal({{"e", "", ""}}), HasSubstr("'e' is not known"));
  EXPECT_THAT(ListModels(search_),
              ElementsAre(Pair("a", plain), Pair("b-Q8_0", dash), Pair("e-instruct", testing::_),
                          Pair("org/c.f16", dot), Pair("org/d/anything", inside)));
  for (const auto& [name, path] : ListModels(search_)) EXPECT_EQ(Path({name, "", ""}), path);
}

TEST_F(ModelNames, ChoosesByDtypeAndQuantization) {
  const std::string exact = Put("F16", "models/m-F16.gguf");
  const std::string packed = Put("Q8_0", "models/m-Q8_0.gguf");
  EXPECT_EQ(Path({"m", "", ""}), exact);
  EXPECT_EQ(Path({"m", "auto", ""}), exact);
  EXPECT_EQ(Path({"m", "float16", ""}), exact);
  EXPECT_EQ(Path({"m", "", "q8_0"}), packed);
  EXPECT_EQ(Path({"m", "bfloat16", "Q8_0"}), packed);
  EXPECT_THAT(Refusal({{"m", "bfloat16", ""}}),
              AllOf(HasSubstr("no file has dtype bfloat16"), HasSubstr("F16 (" + exact),
                    HasSubstr("Q8_0 (" + packed)));
  EXPECT_THAT(Refusal({{"m", "", "q4_k_m"}}), HasSubstr("no file has quantization q4_k_m"));
  EXPECT_THAT(Refusal({{"m", "bfloat61", ""}}), HasSubstr("did you mean 'bfloat16'"));
  const auto both = ResolveModels({{"m", "", "q8_0"}, {"m", "", ""}}, search_);
  EXPECT_EQ(both.at(0).path, packed);
  EXPECT_EQ(both.at(1).path, exact);
}

TEST_F(ModelNames, TheOnlyFileServesWithoutAWish) {
  const std::string only = Put("Q8_0", "models/m.gguf");
  EXPECT_EQ(Path({"m", "", ""}), only);
  EXPECT_THAT(Refusal({{"m", "float16", ""}}), HasSubstr("there is Q8_0"));
}

TEST_F(ModelNames, NeverLeavesTheFolder) {
  const std::string secret = Put("Q8_0", "secret.gguf");
  fs::create_symlink(secret, search_.models_folder + "/link.gguf");
  fs::create_directory_symlink(folder_, search_.models_folder + "/up");
  EXPECT_THAT(Refusal({{"link", "", ""}}),
              AllOf(HasSubstr("not known"), HasSubstr("leads outside its folder")));
  for (const char* name :
       {"../secret", "up/secret", "./../secret", "a/../../secret", "", "/etc/passwd", ".."}) {
    EXPECT_THAT(Refusal({{name, "", ""}}), HasSubstr("not known")) << name;
  }
  EXPECT_TRUE(ListModels(search_).empty());
  // A link that stays inside is as good as the file.
  Put("Q8_0", "models/real.gguf");
  fs::create_symlink("real.gguf", search_.models_folder + "/alias.gguf");
  EXPECT_EQ(Path({"alias", "", ""}), search_.models_folder + "/alias.gguf");
}

TEST_F(ModelNames, ReadsTheHuggingFaceCache) {
  const std::string blob = Put("Q8_0", "hub/models--org--m/blobs/0123");
  const fs::path repository = fs::path(blob).parent_path().parent_path();
  for (const char* revision : {"aaa", "bbb"}) {
    fs::create_directories(repository / "snapshots" / revision);
    fs::create_symlink("../../blobs/0123", repository / "snapshots" / revision / "m-Q8_0.gguf");
  }
  EXPECT_EQ(Path({"org/m", "", ""}), (repository / "snapshots/aaa/m-Q8_0.gguf").string());
  fs::create_directories(repository / "refs");
  test::WriteFile((repository / "refs/main").string(), "bbb\n");
  EXPECT_EQ(Path({"org/m", "", ""}), (repository / "snapshots/bbb/m-Q8_0.gguf").string());
  EXPECT_THAT(ListModels(search_),
              ElementsAre(Pair("org/m", (repository / "snapshots/bbb/m-Q8_0.gguf").string())));
}

TEST_F(ModelNames, ReadsAListOfFiles) {
  const std::string exact = Put("F16", "sub/x.gguf");
  const std::string packed = Put("Q8_0", "sub/y.gguf");
  search_.models_file = folder_ + "/models.yaml";
  test::WriteFile(search_.models_file, "models:\n  m: [sub/x.gguf, sub/y.gguf]\n");
  EXPECT_EQ(Path({"m", "", ""}), exact);
  EXPECT_EQ(Path({"m", "", "q8_0"}), packed);
  test::WriteFile(search_.models_file, "m: " + packed + "\nm: x\n");
  EXPECT_THAT(Refusal({{"m", "", ""}}), HasSubstr("models.yaml:2:1: model 'm' twice"));
  test::WriteFile(search_.models_file, "- m\n");
  EXPECT_THAT(Refusal({{"m", "", ""}}), HasSubstr("expected a mapping"));
  test::WriteFile(search_.models_file, "m: {fil: b}\n");
  EXPECT_THAT(Refusal({{"m", "", ""}}),
              HasSubstr("models.yaml:1:5: unknown key 'fil' of a model (did you mean 'file'?)"));
  test::WriteFile(search_.models_file, "m: {price: {prompt: 1}}\n");
  EXPECT_THAT(Refusal({{"m", "", ""}}), HasSubstr("models.yaml:1:4: a model has no file"));
  test::WriteFile(search_.models_file, "m: {file: x.gguf, price: {prompt: -1}}\n");
  EXPECT_THAT(Refusal({{"m", "", ""}}), HasSubstr("price: expected a number from 0"));
  test::WriteFile(search_.models_file, "m: {file: x.gguf, price: 3}\n");
  EXPECT_THAT(Refusal({{"m", "", ""}}), HasSubstr("price: expected {prompt: NUMBER"));
  test::WriteFile(search_.models_file, "m: [\n");
  EXPECT_THAT(Refusal({{"m", "", ""}}), HasSubstr("models.yaml:"));
  test::WriteFile(search_.models_file,
                  "m: {file: x.gguf, price: {prompt: 0.15, output: 0.6}}\nn: y.gguf\n");
  const auto prices = ReadModelPrices(search_.models_file);
  ASSERT_EQ(prices.size(), 1U);
  EXPECT_EQ(prices.at("m").prompt, 0.15);
  EXPECT_EQ(prices.at("m").output, 0.6);
  EXPECT_TRUE(ReadModelPrices("").empty());
  search_.models_file = folder_ + "/none.yaml";
  EXPECT_THAT(Refusal({{"m", "", ""}}), HasSubstr("none.yaml: cannot be read"));
}

TEST_F(ModelNames, OneErrorListsEverything) {
  Put("Q8_0", "models/org/known.gguf");
  search_.flags["broken"] = folder_ + "/missing.gguf";
  const std::string refusal = Refusal({{"org/knwon", "", ""},
                                       {"other", "", ""},
                                       {"other", "", "q8_0"},
                                       {"broken", "", ""},
                                       {"org/known", "", ""}});
  EXPECT_THAT(refusal,
              AllOf(HasSubstr("'org/knwon' is not known (did you mean 'org/known'?)"),
                    HasSubstr("'other' is not known"), HasSubstr("missing.gguf: cannot be opened"),
                    HasSubstr("looked in: --model flags"), HasSubstr(search_.models_folder),
                    HasSubstr("--model 'org/knwon=FILE.gguf'"), Not(HasSubstr("'org/known':"))));
  EXPECT_EQ(refusal.find("'other' is not known"), refusal.rfind("'other' is not known"));
}

TEST_F(ModelNames, ModelsThatCameWithHaloAreTheLastResort) {
  search_.shipped_folder = folder_ + "/shipped";
  const std::string shipped = Put("Q8_0", "shipped/halo-demo.q8_0.gguf");
  EXPECT_EQ(Path({"halo-demo", "", ""}), shipped);
  EXPECT_THAT(ListModels(search_), Contains(Pair("halo-demo.q8_0", shipped)));
  EXPECT_THAT(Refusal({{"other", "", ""}}), HasSubstr(search_.shipped_folder));
  const std::string cached = Put("F16", "hub/models--halo-demo/snapshots/abc/m.gguf");
  EXPECT_EQ(Path({"halo-demo", "", ""}), cached);
  search_.flags["halo-demo"] = folder_ + "/F16.gguf";
  EXPECT_EQ(Path({"halo-demo", "", ""}), folder_ + "/F16.gguf");
}

TEST_F(ModelNames, PassesOverABrokenFileIfAnotherFits) {
  const std::string good = Put("Q8_0", "models/m/good.gguf");
  test::WriteFile(search_.models_folder + "/m/bad.gguf", "GGUF");
  EXPECT_EQ(Path({"m", "", ""}), good);
  EXPECT_THAT(Refusal({{"m", "", "q4_0"}}),
              AllOf(HasSubstr("bad.gguf"), HasSubstr("there is Q8_0")));
}

TEST_F(ModelNames, RefusesAVocabularyAsAModel) {
  search_.flags["m"] = folder_ + "/vocabulary.gguf";
  EXPECT_THAT(Refusal({{"m", "", ""}}), HasSubstr("no weights"));
}

}  // namespace
}  // namespace halo
