#include "bench/workflow_graph.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace halo::bench {
namespace {

using Ids = std::vector<std::string>;

TEST(WorkflowGraph, ReadsInputsFromEitherSide) {
  const std::string path =
      testing::TempDir() + "workflow_graph_test-" + std::to_string(getpid()) + ".yaml";
  std::ofstream(path) << "start_ops: [a, b]\nend_ops: [c]\nops:\n  a: {model: m, output_ops: [c]}\n"
                         "  b: {model: m}\n  c: {model: m, input_ops: [a, b]}\n";
  const WorkflowGraph graph = ReadWorkflowGraph(path);
  EXPECT_EQ(graph.at("a"), Ids{});
  EXPECT_EQ(graph.at("c"), (Ids{"a", "b"}));
  EXPECT_EQ(TopologicalOrder(graph), (Ids{"a", "b", "c"}));
}

TEST(WorkflowGraph, ReadsEveryShippedWorkflow) {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(HALO_SOURCE_DIR) + "/workflows")) {
    if (entry.path().extension() != ".yaml") continue;
    EXPECT_FALSE(ReadWorkflowGraph(entry.path().string()).empty()) << entry.path();
    ++files;
  }
  EXPECT_GE(files, 15);
}

TEST(WorkflowGraph, LevelsMeanThatEachWaitsForAllBefore) {
  const WorkflowGraph graph = GraphFromLevels("a,b/c/d");
  EXPECT_EQ(graph.at("c"), (Ids{"a", "b"}));
  EXPECT_EQ(graph.at("d"), Ids{"c"});
  EXPECT_THROW(GraphFromLevels("a/a"), std::runtime_error);
}

TEST(WorkflowGraph, CyclesAndUnknownIdsAreErrors) {
  EXPECT_THROW(TopologicalOrder({{"a", {"b"}}, {"b", {"a"}}}), std::runtime_error);
  EXPECT_THROW(TopologicalOrder({{"a", {"nobody"}}}), std::runtime_error);
}

}  // namespace
}  // namespace halo::bench
