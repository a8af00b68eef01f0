#include "workflow/yaml_tree.h"

#include <gtest/gtest.h>

#include "workflow_faults.h"

namespace halo {
namespace {

std::string Repeat(const std::string& text, size_t count) {
  std::string all;
  all.reserve(text.size() * count);
  for (size_t i = 0; i < count; ++i) all += text;
  return all;
}

TEST(YamlTreeTest, DuplicateKeysAreFoundAtEveryLevel) {
  ExpectFaults("name: x\nname: y\n" + OneOperator({}),
               {{2, 1, "the key 'name' is already given in line 1"}});
  ExpectFaults(OneOperator({"top_k: 1", "\"top_k\": 2"}), {{7, 5, "already given in line 6"}});
  ExpectFaults(OneOperator({"retry: {max: 1, max: 2}"}),
               {{6, 21, "the key 'max' is already given"}});
  ExpectFaults("start_ops: [a]\nend_ops: [a]\nops:\n  a: {model: m}\n  a: {model: n}\n",
               {{5, 3, "the key 'a' is already given in line 4"}});
}

TEST(YamlTreeTest, MergeKeysTagsAndSecondDocumentsAreRefused) {
  ExpectFaults("start_ops: [a]\nend_ops: [a]\nops:\n  a: &a {model: m}\n  b: {<<: *a}\n",
               {{5, 3, "has no model"},
                {5, 3, "'b' has no inputs"},
                {5, 3, "nothing reads"},
                {5, 7, "merge keys ('<<') are not supported"}});
  ExpectFaults(OneOperator({"prompt: !secret x"}), {{6, 13, "YAML tags are not used"}});
  ParseWorkflow(OneOperator({"prompt: !!str 5"}), "f");
  ExpectFaults(OneOperator({}) + "---\nname: x\n", {{6, 1, "found a second one"}});
  ExpectFaults(OneOperator({"prompt: 'x' y"}), {{6, 17, ""}});
}

TEST(YamlTreeTest, SyntaxErrorsHaveAPlace) {
  ExpectFaults("ops:\n\ta: b\n", {{2, 3, "indented with a tab"}});
  ExpectFaults("ops: [a\n", {{2, 1, "not valid YAML"}});
  ExpectFaults("a: b: c\n", {{1, 5, "not valid YAML: illegal map value"}});
}

TEST(YamlTreeTest, EncodingIsChecked) {
  ExpectFaults("name: ok\nops: \"\xC3\x28\"\n", {{2, 7, "not UTF-8"}});
  ExpectFaults("\xFF\xFEn\0a\0", {{1, 1, "not UTF-8"}});
  ExpectFaults("name: \x01\n", {{1, 7, "control character"}});
  ExpectFaults(std::string("name: a\n\0", 9), {{2, 1, "control character (byte value 0)"}});
}

TEST(YamlTreeTest, AliasBombsAreRefused) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 30; ++i) {
    const std::string last = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int j = 0; j < 10; ++j) bomb += last + (j < 9 ? ", " : "]\n");
  }
  ExpectFaults(bomb, {{5, 45, "more than 100000 YAML nodes with aliases expanded"}});
  ExpectFaults("ops: &a [*a]\n", {{1, 10, "inside what it names"}});
  std::string deep = "a0: &a0 [[[[[[[[[[x]]]]]]]]]]\n";
  for (int i = 1; i < 9; ++i) {
    deep += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [[[[[[[[[*a" +
            std::to_string(i - 1) + "]]]]]]]]]\n";
  }
  ExpectFaults(deep, {{7, 18, "nested more than 64 levels deep"}});
}

TEST(YamlTreeTest, HostileNestingAndSizeAreRefused) {
  // Each in far less than the test's time limit: nothing recurses or reads on after the fault.
  ExpectFaults(Repeat("[", 100) + Repeat("]", 100), {{1, 65, "nested more than 64 levels"}});
  ExpectFaults(Repeat("[", 16 << 20), {{1, 10001, "nested more than 64 levels"}});
  ExpectFaults(Repeat("{a: ", 4 << 20), {{1, 40001 - 4 + 4, "nested more than 64 levels"}});
  ExpectFaults(Repeat("- ", 8 << 20), {{1, 129, "nested more than 64 levels"}});
  ExpectFaults(Repeat("- a\n", 200'000), {{100'000, 3, "more than 100000 YAML nodes"}});
  ExpectFaults(std::string((16 << 20) + 1, ' '), {{0, 0, "at most 16777216 (16 MiB)"}});
  ExpectFaults(Repeat("---\n", 4 << 20), {{2, 1, "found a second one"}});
}

TEST(YamlTreeTest, ADeepButAllowedFileIsRead) {
  DiagnosticList diagnostics("f");
  const std::string text = Repeat("[", 64) + Repeat("]", 64);
  EXPECT_EQ(ParseYaml(text, diagnostics)->height, 64);
  EXPECT_TRUE(diagnostics.empty());
}

}  // namespace
}  // namespace halo
