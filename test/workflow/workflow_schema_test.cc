#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "workflow/graph_keys.h"
#include "workflow/operator_keys.h"
#include "workflow/tool_keys.h"

namespace halo {
namespace {

std::vector<std::string> KeysOf(const nlohmann::json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

std::vector<std::string> Sorted(std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  return names;
}

TEST(WorkflowSchemaTest, ThePublishedSchemaHasExactlyTheKeysThatAreRead) {
  std::ifstream file(std::string(HALO_SOURCE_DIR) + "/docs/workflow.schema.json");
  const nlohmann::json kinds = nlohmann::json::parse(file)["$defs"];
  const auto keys = [&](const char* kind) { return KeysOf(kinds[kind]["properties"]); };
  EXPECT_EQ(keys("ops_workflow"), Sorted(WorkflowKeyNames()));
  EXPECT_EQ(keys("operator"), Sorted(OperatorKeyNames()));
  EXPECT_EQ(keys("graph"), Sorted(GraphKeyNames()));
  EXPECT_EQ(keys("inference_node"), Sorted(InferenceNodeKeyNames()));
  EXPECT_EQ(keys("http_node"), Sorted(ToolNodeKeyNames(OperatorKind::kHttp)));
  EXPECT_EQ(keys("processor_node"), Sorted(ToolNodeKeyNames(OperatorKind::kFunction)));
  EXPECT_EQ(keys("query_node"), Sorted(ToolNodeKeyNames(OperatorKind::kSql)));
}

TEST(WorkflowSchemaTest, DefaultsAreThoseOfTheCode) {
  std::ifstream file(std::string(HALO_SOURCE_DIR) + "/docs/workflow.schema.json");
  const nlohmann::json keys = nlohmann::json::parse(file)["$defs"]["operator"]["properties"];
  const SamplingSpec sampling;
  EXPECT_EQ(keys["temperature"]["default"], sampling.temperature);
  EXPECT_EQ(keys["top_p"]["default"], sampling.top_p);
  EXPECT_EQ(keys["top_k"]["default"], sampling.top_k);
  EXPECT_EQ(keys["min_p"]["default"], sampling.min_p);
  EXPECT_EQ(keys["max_tokens"]["default"], sampling.max_tokens.constant);
  EXPECT_EQ(keys["min_tokens"]["default"], sampling.min_tokens.constant);
  EXPECT_EQ(keys["lora_config"]["properties"]["scale"]["default"], LoraSpec{}.scale);
  EXPECT_EQ(keys["use_chat_template"]["default"], Operator{}.use_chat_template);
}

}  // namespace
}  // namespace halo
