// logic_test [--update]: each test/logic/*.halotest is one test, Logic.<stem>. --update (or
// HALOTEST_UPDATE=1) rewrites the `expect` sections with what the runs gave; review the difference.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "logic/halotest_run.h"

namespace {

class LogicTest final : public testing::Test {
 public:
  LogicTest(std::string path, bool update) : path_(std::move(path)), update_(update) {}
  void TestBody() override {
    try {
      halo::test::RunHalotest(halo::test::ReadHalotest(path_), update_);
    } catch (const std::exception& fault) {
      FAIL() << path_ << ": " << fault.what();
    }
  }

 private:
  std::string path_;
  bool update_;
};

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const char* asked = std::getenv("HALOTEST_UPDATE");
  bool update = asked != nullptr && std::strcmp(asked, "1") == 0;
  for (int i = 1; i < argc; ++i) update = update || std::strcmp(argv[i], "--update") == 0;

  std::vector<std::filesystem::path> paths;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(HALO_SOURCE_DIR "/test/logic")) {
    if (entry.path().extension() == ".halotest") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  for (const std::filesystem::path& path : paths) {
    testing::RegisterTest(
        "Logic", path.stem().c_str(), nullptr, nullptr, __FILE__, __LINE__,
        [text = path.string(), update]() -> testing::Test* { return new LogicTest(text, update); });
  }
  return RUN_ALL_TESTS();
}
