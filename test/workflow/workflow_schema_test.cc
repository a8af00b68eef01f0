#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "workflow/operator_keys.h"

namespace halo {
namespace {

std::vector<std::string> KeysOf(const nlohmann::json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

TEST(WorkflowSchemaTest, ThePublishedSchemaHasExactlyTheKeysThatAreRead) {
  std::ifstream file(std::string(HALO_SOURCE_DIR) + "/docs/workflow.schema.json");
  const nlohmann::json schema = nlohmann::json::parse(file);
  std::vector<std::string> top = WorkflowKeyNames();
  std::vector<std::string> inner = OperatorKeyNames();
  std::sort(top.begin(), top.end());
  std::sort(inner.begin(), inner.end());
  EXPECT_EQ(KeysOf(schema["properties"]), top);
  EXPECT_EQ(KeysOf(schema["$defs"]["operator"]["properties"]), inner);
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
  EXPECT_EQ(keys["use_chat_template"]["default"], Operator{}.use_chat_template);
}

}  // namespace
}  // namespace halo
