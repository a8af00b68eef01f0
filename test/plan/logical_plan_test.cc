#include "plan/logical_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace halo {
namespace {

using testing::HasSubstr;

constexpr const char* kVoting = R"(start_ops: [v1, v2, v3]
end_ops: [judge]
ops:
  v1: {model: m, prompt_layout: auto, temperature: 0}
  v2: {model: m, prompt_layout: auto, top_k: 5, min_p: 0.1}
  v3: {model: other, prompt_layout: auto, stop: [a, b], max_tokens: "{{ row.n }}"}
  judge: {model: m, input_ops: [v1, v2, v3], prompt_layout: auto}
)";

TEST(LogicalPlanTest, NodesStandInTopologicalOrderAndModelsAreDistinct) {
  const Workflow workflow = ParseWorkflow(kVoting, "voting.yaml");
  const LogicalPlan plan = MakeLogicalPlan(workflow);
  ASSERT_EQ(plan.nodes.size(), 4U);
  ASSERT_EQ(plan.models.size(), 2U);
  EXPECT_EQ(plan.models[0].name, "m");
  EXPECT_EQ(plan.models[1].name, "other");
  for (size_t i = 0; i < plan.nodes.size(); ++i)
    EXPECT_EQ(plan.nodes[i].op, static_cast<OperatorIndex>(i));
  EXPECT_EQ(plan.operator_of(3).id, "judge");
  EXPECT_EQ(plan.at(2).model, 1);
}

TEST(LogicalPlanTest, ModelsDifferByFormatToo) {
  const Workflow workflow = ParseWorkflow(
      "start_ops: [a, b, c]\nend_ops: [a, b, c]\nops:\n  a: {model: m}\n  b: {model: m, dtype: "
      "float16}\n  c: {model: m}\n",
      "f.yaml");
  const LogicalPlan plan = MakeLogicalPlan(workflow);
  EXPECT_EQ(plan.models.size(), 2U);
  EXPECT_EQ(plan.at(0).model, plan.at(2).model);
}

TEST(LogicalPlanTest, KvIsSharedWithinOneAdapter) {
  const Workflow workflow = ParseWorkflow(R"(start_ops: [a, b, c]
end_ops: [a, d, e]
ops:
  a: {model: m, prompt_layout: auto}
  b: {model: m, prompt_layout: auto, lora_config: {file: x}}
  c: {model: m, prompt_layout: auto, lora_config: {file: x, scale: 1.0}}
  d: {model: m, input_ops: [b]}
  e: {model: m, input_ops: [c], lora_config: {file: x}}
)",
                                          "f.yaml");
  const LogicalPlan plan = MakeLogicalPlan(workflow);
  ASSERT_EQ(plan.models.size(), 1U);
  ASSERT_EQ(plan.adapters.size(), 1U);
  const auto node = [&](const char* id) { return plan.at(*workflow.Find(id)); };
  EXPECT_EQ(node("a").adapter, kNoAdapter);
  EXPECT_EQ(node("b").adapter, node("c").adapter);
  // Alone on the model as it is: nothing to share with.
  EXPECT_EQ(node("a").layout, PromptLayout::kInstructionFirst);
  EXPECT_EQ(node("b").layout, PromptLayout::kContextFirst);
  EXPECT_EQ(node("c").kv_source, *workflow.Find("b"));
  // A conversation that goes on without the adapter has no KV to begin with.
  EXPECT_FALSE(workflow.at(*workflow.Find("b")).keep_cache);
  EXPECT_EQ(node("d").kv_source, -1);
  EXPECT_TRUE(workflow.at(*workflow.Find("c")).keep_cache);
  EXPECT_EQ(node("e").kv_source, *workflow.Find("c"));
  EXPECT_THAT(PrintLogicalPlan(plan), HasSubstr("LLM b  [m + x]"));
}

TEST(LogicalPlanTest, AutoLayoutIsContextFirstWhereTheRowsPromptIsShared) {
  const Workflow workflow = ParseWorkflow(kVoting, "voting.yaml");
  const LogicalPlan plan = MakeLogicalPlan(workflow);
  EXPECT_EQ(plan.at(0).layout, PromptLayout::kContextFirst);
  EXPECT_EQ(plan.at(1).layout, PromptLayout::kContextFirst);
  EXPECT_EQ(plan.at(2).layout, PromptLayout::kInstructionFirst);  // alone on its model
  EXPECT_EQ(plan.at(3).layout, PromptLayout::kContextFirst);
  // The first reader on a model makes the KV, the others begin with it.
  EXPECT_EQ(plan.at(0).kv_source, -1);
  EXPECT_EQ(plan.at(0).kv_consumers, 2);
  EXPECT_FALSE(plan.at(0).keep_answer);
  EXPECT_EQ(plan.at(1).kv_source, 0);
  EXPECT_EQ(plan.at(2).kv_source, -1);
  EXPECT_EQ(plan.at(3).kv_source, 0);
  EXPECT_FALSE(plan.at(3).kv_source_answer);
}

TEST(LogicalPlanTest, WrittenLayoutsStay) {
  const Workflow workflow = ParseWorkflow(
      "start_ops: [a, b]\nend_ops: [a, b]\nops:\n  a: {model: m, prompt: Say.}\n  b: {model: m, "
      "prompt_layout: context_first}\n",
      "f.yaml");
  const LogicalPlan plan = MakeLogicalPlan(workflow);
  EXPECT_EQ(plan.at(0).layout, PromptLayout::kInstructionFirst);
  EXPECT_EQ(plan.at(1).layout, PromptLayout::kContextFirst);
  EXPECT_EQ(plan.at(1).kv_source, -1);  // nobody else's prompt begins with the row's
}

TEST(LogicalPlanTest, ConversationsStartFromTheirParentsKv) {
  const Workflow workflow = ParseWorkflow(R"(start_ops: [a]
end_ops: [b, c, d, e]
ops:
  a: {model: m, prompt: Say.}
  b: {model: m, input_ops: [a]}
  c: {model: m, input_ops: [a]}
  d: {model: other, input_ops: [a]}
  e: {model: m, prompt: Judge., input_ops: [b], history: outputs}
)",
                                          "f.yaml");
  const LogicalPlan plan = MakeLogicalPlan(workflow);
  EXPECT_EQ(plan.at(0).kv_consumers, 2);
  EXPECT_TRUE(plan.at(0).keep_answer);
  EXPECT_EQ(plan.at(1).kv_source, 0);
  EXPECT_TRUE(plan.at(1).kv_source_answer);
  EXPECT_EQ(plan.at(2).kv_source, 0);
  EXPECT_EQ(plan.at(3).kv_source, -1);  // another model has no use for it
  EXPECT_EQ(plan.at(4).kv_source, -1);  // outputs begin a conversation of their own
  EXPECT_EQ(plan.at(1).kv_consumers, 0);
}

/// "operator<-source: what they share" of each operator that begins with another's KV.
std::string KvOf(const std::string& yaml) {
  const Workflow workflow = ParseWorkflow(yaml, "f.yaml");
  const LogicalPlan plan = MakeLogicalPlan(workflow);
  std::string all;
  for (const LogicalNode& node : plan.nodes) {
    if (node.kv_source < 0) continue;
    all += plan.operator_of(node.op).id + "<-" + plan.operator_of(node.kv_source).id + ": " +
           (node.kv_source_answer ? "answer" : node.kv_shared) + "; ";
  }
  return all;
}

std::string GraphOf(const std::string& nodes) {
  return "graph:\n  defaults: {model: m, temperature: 0}\n  nodes:\n"
         "    - {id: in, type: input, outputs: [text, note]}\n" +
         nodes;
}

TEST(LogicalPlanTest, PromptsThatGoOnWithTheSameValueShareItsKv) {
  EXPECT_EQ(KvOf(GraphOf(R"(    - {id: a, prompt: "Of {{ text }}: who?", outputs: [x]}
    - {id: b, prompt: "Of {{ text }}: why?", outputs: [y]}
    - {id: c, inputs: [x], prompt: "Of {{ text }}: {{ x }} {{ note }}?", outputs: [z]}
    - {id: d, inputs: [x], prompt: "Of {{ text }}: {{ x }} and so on.", outputs: [u]}
)")),
            "b<-a: \"Of\" + {{ text }} + \": wh\"; c<-a: \"Of\" + {{ text }} + \":\"; "
            "d<-c: \"Of\" + {{ text }} + \":\" + {{ x }}; ");
}

TEST(LogicalPlanTest, PromptsThatPartBeforeAValueShareNothingOfARow) {
  // Another column, another filter, another model, another adapter; text alone.
  EXPECT_EQ(KvOf(GraphOf(R"(    - {id: a, prompt: "Of {{ text }}.", outputs: [x]}
    - {id: b, prompt: "Of {{ note }}.", outputs: [y]}
    - {id: c, prompt: "Of {{ text | upper }}.", outputs: [z]}
    - {id: d, model: other, prompt: "Of {{ text }}.", outputs: [u]}
    - {id: e, lora_config: {file: x}, prompt: "Of {{ text }}.", outputs: [v]}
    - {id: f, lora_config: {file: x, scale: 0.5}, prompt: "Of {{ text }}.", outputs: [w]}
    - {id: g, prompt: "Of course.", outputs: [t]}
)")),
            "");
}

TEST(LogicalPlanTest, AConversationWrittenOutHasToBeginLikeItsParent) {
  const std::string parent =
      R"(    - {id: a, system_prompt: "Say.", prompt: "{{ text }}", outputs: [x]}
)";
  const auto child = [](const std::string& system) {
    return "    - id: b\n      inputs: [x]\n      outputs: [y]\n      messages:\n"
           "        - {role: system, content: \"" +
           system +
           "\"}\n        - {role: user, content: \"{{ text }}\"}\n"
           "        - {role: assistant, content: \"{{ x }}\"}\n"
           "        - {role: user, content: More.}\n";
  };
  EXPECT_EQ(KvOf(GraphOf(parent + child("Say."))), "b<-a: answer; ");
  EXPECT_EQ(KvOf(GraphOf(parent + child("Sing."))), "");
}

TEST(LogicalPlanTest, IterationsOfALoopShareWhatDoesNotChange) {
  EXPECT_EQ(KvOf(R"(graph:
  defaults: {model: m, temperature: 0}
  nodes:
    - {id: in, type: input, outputs: [topic]}
    - {id: write, prompt: "Write on {{ topic }}{% if notes %} with {{ notes }}{% endif %}.", outputs: [draft]}
    - {id: review, prompt: "Review {{ draft }}.", inputs: [draft], outputs: [notes]}
    - {id: done, prompt: "Print {{ draft }}.", inputs: [draft], outputs: [page]}
  loops:
    - {nodes: [write, review], max_iterations: 3, until: "notes == 'fine'"}
)"),
            "write__iter1<-write: \"Write on\" + {{ topic }}; "
            "write__iter2<-write: \"Write on\" + {{ topic }}; ");
}

TEST(LogicalPlanTest, WhatIsNotRunMakesNoKv) {
  const Workflow workflow =
      ParseWorkflow(GraphOf(R"(    - {id: a, prompt: "Of {{ text }}: who?", outputs: [x]}
    - {id: b, prompt: "Of {{ text }}: why?", outputs: [y]}
    - {id: c, prompt: "Of {{ text }}: when?", outputs: [z]}
)"),
                    "f.yaml");
  LogicalPlan plan = MakeLogicalPlan(workflow);
  EXPECT_EQ(plan.at(0).kv_consumers, 2);
  plan.nodes[0].needed = false;
  plan.nodes[0].removed = true;
  LinkKvSources(plan);
  EXPECT_EQ(plan.at(0).kv_consumers, 0);
  EXPECT_EQ(plan.at(1).kv_source, -1);
  EXPECT_EQ(plan.at(2).kv_source, 1);
  VerifyLogicalPlan(plan);
}

TEST(LogicalPlanTest, KeepCacheFalseKeepsNothing) {
  const Workflow workflow = ParseWorkflow(
      "start_ops: [a]\nend_ops: [b]\nops:\n  a: {model: m, keep_cache: false}\n  b: {model: m, "
      "input_ops: [a]}\n",
      "f.yaml");
  const LogicalPlan plan = MakeLogicalPlan(workflow);
  EXPECT_EQ(plan.at(0).kv_consumers, 0);
  EXPECT_EQ(plan.at(1).kv_source, -1);
}

TEST(LogicalPlanTest, ReadersOfDifferentElementsShareNoPrefix) {
  // With a list-valued row prompt an operator further down reads another element; whether a row's
  // prompt is a list is known only then, so equal depth is what makes the text the same for
  // certain.
  const Workflow workflow = ParseWorkflow(R"(start_ops: [a, b]
end_ops: [c]
ops:
  a: {model: m, prompt_layout: context_first}
  b: {model: m, prompt_layout: context_first}
  c: {model: m, prompt_layout: context_first, input_ops: [a, b]}
)",
                                          "f.yaml");
  const LogicalPlan plan = MakeLogicalPlan(workflow);
  EXPECT_EQ(plan.at(1).kv_source, 0);
  EXPECT_EQ(plan.at(2).kv_source, 0);  // a hint: right for prompts that are texts
}

TEST(LogicalPlanTest, PrintsEveryChoice) {
  const Workflow workflow = ParseWorkflow(kVoting, "dir/voting.yaml");
  const std::string text = PrintLogicalPlan(MakeLogicalPlan(workflow));
  EXPECT_THAT(text, HasSubstr("workflow voting: 4 operators, 2 models\n"));
  EXPECT_THAT(text, HasSubstr("  0  LLM v1  [m]\n"));
  EXPECT_THAT(text, HasSubstr("  3  LLM judge  [m]  -> output\n"));
  EXPECT_THAT(text, HasSubstr("sample  greedy, up to 256 tokens\n"));
  EXPECT_THAT(
      text,
      HasSubstr("sample  temperature 0.7, top_p 0.9, top_k 5, min_p 0.1, up to 256 tokens\n"));
  EXPECT_THAT(text, HasSubstr("up to {{ row.n }} tokens, 2 stop strings\n"));
  EXPECT_THAT(text, HasSubstr("reads   row prompt and answers of v1 v2 v3\n"));
  EXPECT_THAT(text, HasSubstr("keeps   KV for 2 operators\n"));
}

TEST(LogicalPlanTest, RowPromptElementsRepeatTheLast) {
  Operator op;
  op.depth = 2;
  EXPECT_EQ(RowPromptElement(op, 1), 0U);
  EXPECT_EQ(RowPromptElement(op, 2), 1U);
  EXPECT_EQ(RowPromptElement(op, 3), 2U);
  EXPECT_EQ(RowPromptElement(op, 9), 2U);
}

using LogicalPlanDeathTest = testing::Test;

TEST(LogicalPlanDeathTest, TheVerifierRefusesContradictions) {
  const Workflow workflow = ParseWorkflow(kVoting, "voting.yaml");
  const LogicalPlan good = MakeLogicalPlan(workflow);
  VerifyLogicalPlan(good);
  LogicalPlan plan = good;
  plan.nodes.pop_back();
  EXPECT_DEATH(VerifyLogicalPlan(plan), "one node for each operator");
  plan = good;
  plan.nodes[1].model = 2;
  EXPECT_DEATH(VerifyLogicalPlan(plan), "inference has a model");
  plan = good;
  plan.nodes[1].layout = PromptLayout::kAuto;
  EXPECT_DEATH(VerifyLogicalPlan(plan), "layouts are chosen");
  plan = good;
  plan.nodes[1].kv_source = 3;
  EXPECT_DEATH(VerifyLogicalPlan(plan), "KV is made before it is used");
  plan = good;
  plan.nodes[3].kv_source = 2;
  EXPECT_DEATH(VerifyLogicalPlan(plan), "KV belongs to one model");
  plan = good;
  ++plan.nodes[0].kv_consumers;
  EXPECT_DEATH(VerifyLogicalPlan(plan), "consumers are counted");
}

TEST(LogicalPlanTest, ToolsArePlannedWithoutAModel) {
  const Workflow workflow = ParseWorkflow(R"(graph:
  nodes:
    - {id: rows, type: input, outputs: [q]}
    - {id: page, type: http, url: "http://example.org/?q={{ q }}", outputs: [found]}
    - {id: say, model: m, inputs: [q, found]}
)",
                                          "flow.yaml");
  const LogicalPlan plan = MakeLogicalPlan(workflow);
  ASSERT_EQ(plan.nodes.size(), 2U);
  EXPECT_EQ(plan.nodes[0].model, kNoModel);
  EXPECT_EQ(plan.nodes[1].model, 0);
  const std::string text = PrintLogicalPlan(plan);
  EXPECT_THAT(text, HasSubstr("HTTP page  [http://example.org]"));
  EXPECT_THAT(text, HasSubstr("asks    GET /?q={{ q }}"));
  EXPECT_THAT(text, HasSubstr("starts  with its row"));
  EXPECT_THAT(text, HasSubstr("shares  made for each row"));
}

}  // namespace
}  // namespace halo
