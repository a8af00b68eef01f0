#include "workflow/workflow.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "workflow_faults.h"

namespace halo {
namespace {

constexpr const char* kDiamond = R"(start_ops: [a]
end_ops: [d, b]
ops:
  d:
    model: m
    input_ops: [c, b]
  c:
    model: other
    input_ops: [a]
  b:
    model: m
    input_ops: [a]
  a:
    model: m
    prompt: "Look."
)";

std::vector<std::string> Ids(const Workflow& workflow) {
  std::vector<std::string> ids;
  for (const Operator& op : workflow.operators) ids.push_back(op.id);
  return ids;
}

TEST(WorkflowTest, OrdersTopologicallyWithTiesByPlaceInTheFile) {
  const Workflow workflow = ParseWorkflow(kDiamond, "dir/flow.yaml");
  EXPECT_EQ(Ids(workflow), (std::vector<std::string>{"a", "c", "b", "d"}));
  EXPECT_EQ(workflow.name, "flow");
  EXPECT_EQ(workflow.source_text, kDiamond);
  const Operator& d = workflow.operators[3];
  EXPECT_EQ(d.inputs, (std::vector<OperatorIndex>{1, 2}));  // c before b, as the file lists them
  EXPECT_EQ(d.depth, 2);
  EXPECT_TRUE(d.is_end);
  EXPECT_FALSE(d.is_start);
  EXPECT_EQ(d.location.line, 4);
  EXPECT_EQ(d.location.column, 3);
  EXPECT_EQ(workflow.operators[0].consumers, (std::vector<OperatorIndex>{1, 2}));
  ASSERT_EQ(workflow.outputs.size(), 2U);
  EXPECT_EQ(workflow.outputs[0].producers, (std::vector<OperatorIndex>{3}));
  EXPECT_EQ(workflow.outputs[1].producers, (std::vector<OperatorIndex>{2}));
  EXPECT_EQ(workflow.Find("b"), OperatorIndex{2});
  EXPECT_EQ(workflow.Find("e"), std::nullopt);
}

TEST(WorkflowTest, ResolvesDefaults) {
  const Workflow workflow = ParseWorkflow(kDiamond, "flow.yaml");
  const Operator& a = workflow.operators[0];
  EXPECT_DOUBLE_EQ(a.sampling.temperature, 0.7);
  EXPECT_DOUBLE_EQ(a.sampling.top_p, 0.9);
  EXPECT_EQ(a.sampling.top_k, 0);
  EXPECT_DOUBLE_EQ(a.sampling.min_p, 0);
  EXPECT_EQ(a.sampling.max_tokens.constant, 256);
  EXPECT_EQ(a.sampling.min_tokens.constant, 0);
  EXPECT_FALSE(a.sampling.seed);
  EXPECT_EQ(a.max_batch_size, 0);
  EXPECT_FALSE(a.max_model_len);
  EXPECT_TRUE(a.use_chat_template);
  EXPECT_EQ(a.model.dtype, "");
  EXPECT_EQ(a.instruction->source(), "Look.");
  EXPECT_EQ(a.history, History::kNone);
  EXPECT_EQ(a.prompt_layout, PromptLayout::kInstructionFirst);
  EXPECT_TRUE(a.keep_cache);                       // b uses the same model
  EXPECT_FALSE(workflow.operators[1].keep_cache);  // c's only consumer uses another
  EXPECT_TRUE(workflow.operators[2].keep_cache);
  EXPECT_FALSE(workflow.operators[3].keep_cache);  // no consumer
  EXPECT_EQ(workflow.operators[1].history, History::kContinue);
  EXPECT_EQ(workflow.operators[3].history, History::kOutputs);
  EXPECT_EQ(workflow.operators[3].instruction->source(), "");
}

TEST(WorkflowTest, ReadsEveryKey) {
  const Workflow workflow = ParseWorkflow(R"(name: "All keys"
dataset: rows/questions.jsonl
column: question
start_ops: [a]
end_ops: [b]
ops:
  a:
    model: org/name
    prompt: |
      Line one.
      {{ row.title }}
    output_ops: [b]
    temperature: 0
    top_p: 1
    top_k: 40
    min_p: 0.05
    max_tokens: "{{ row.length }}"
    min_tokens: 3
    stop: ["\n\n", END]
    seed: -5
    max_batch_size: 8
    dtype: float16
    quantization: Q8_0
    max_model_len: 4096
    use_chat_template: false
    keep_cache: true
    cache: 3600
    prompt_layout: context_first
  b:
    model: other
    prompt: "Use {{ a }} and {{ row.hint.text }}."
    history: transcript
    stop: done
    prompt_layout: auto
)",
                                          "flow.yaml");
  EXPECT_EQ(workflow.name, "All keys");
  EXPECT_EQ(workflow.dataset, "rows/questions.jsonl");
  const Operator& a = workflow.operators[0];
  EXPECT_EQ(a.model, (ModelRequest{"org/name", "float16", "Q8_0"}));
  EXPECT_EQ(a.sampling.temperature, 0);
  EXPECT_EQ(a.sampling.top_k, 40);
  EXPECT_DOUBLE_EQ(a.sampling.min_p, 0.05);
  ASSERT_TRUE(a.sampling.max_tokens.expression);
  EXPECT_EQ(a.sampling.min_tokens.constant, 3);
  EXPECT_EQ(a.sampling.stop, (std::vector<std::string>{"\n\n", "END"}));
  EXPECT_EQ(a.sampling.seed, -5);
  EXPECT_EQ(a.max_batch_size, 8);
  EXPECT_EQ(a.max_model_len, 4096);
  EXPECT_FALSE(a.use_chat_template);
  EXPECT_TRUE(a.keep_cache);
  EXPECT_EQ(a.cache.most_s, 3600.0);
  EXPECT_EQ(a.prompt_layout, PromptLayout::kContextFirst);
  const Operator& b = workflow.operators[1];
  EXPECT_EQ(b.inputs, std::vector<OperatorIndex>{0});  // from a's output_ops
  EXPECT_EQ(b.history, History::kTranscript);
  EXPECT_EQ(b.sampling.stop, std::vector<std::string>{"done"});
  EXPECT_EQ(b.prompt_layout, PromptLayout::kAuto);

  EXPECT_EQ(ResolveColumn(workflow, ""), "question");
  EXPECT_EQ(ResolveColumn(workflow, "text"), "text");
  EXPECT_EQ(ResolveColumn(ParseWorkflow(kDiamond, "f"), ""), "prompt");
  EXPECT_EQ(RequiredColumns(workflow, "question"),
            (std::vector<std::string>{"hint", "length", "question", "title"}));
}

TEST(WorkflowTest, AliasesWithinTheBoundStandForWhatTheyName) {
  const Workflow workflow = ParseWorkflow(R"(start_ops: [a]
end_ops: [b]
ops:
  a:
    model: &model org/name
    stop: &stop [x, y]
  b:
    model: *model
    stop: *stop
    input_ops: [a]
)",
                                          "flow.yaml");
  EXPECT_EQ(workflow.operators[1].model.name, "org/name");
  EXPECT_EQ(workflow.operators[1].sampling.stop, (std::vector<std::string>{"x", "y"}));
}

TEST(WorkflowTest, ByteOrderMarkAndCarriageReturnsAreTolerated) {
  const Workflow workflow = ParseWorkflow(
      "\xEF\xBB\xBFstart_ops: [a]\r\nend_ops: [a]\r\nops:\r\n  a:\r\n    model: m\r\n"
      "    prompt: \"Hi {{ row.x }}\"\r\n",
      "flow.yaml");
  EXPECT_EQ(workflow.operators[0].model.name, "m");
}

TEST(WorkflowTest, EveryShippedWorkflowParses) {
  const std::filesystem::path folder = std::filesystem::path(HALO_SOURCE_DIR) / "workflows";
  const std::map<std::string, size_t> sizes = {{"seed_example.yaml", 2},
                                               {"multi_turn.yaml", 3},
                                               {"adversarial_3step.yaml", 3},
                                               {"adversarial_4step_two_models.yaml", 4},
                                               {"voting_4way.yaml", 5},
                                               {"voting_4way_two_models.yaml", 5},
                                               {"voting_5way_three_models.yaml", 6},
                                               {"review_extraction_3step.yaml", 3},
                                               {"customer_messages.yaml", 6},
                                               {"w1_imdb_diamond.yaml", 17},
                                               {"w2_imdb_triplechain.yaml", 13},
                                               {"w3_finewiki_longchain.yaml", 15},
                                               {"w4_finewiki_bridge.yaml", 12},
                                               {"w5_tpch_trident.yaml", 17},
                                               {"w6_tpch_fanout.yaml", 22}};
  for (const auto& [name, size] : sizes) {
    const Workflow workflow = LoadWorkflow((folder / name).string());
    EXPECT_EQ(workflow.operators.size(), size) << name;
    EXPECT_EQ(RequiredColumns(workflow, ResolveColumn(workflow, "")),
              std::vector<std::string>{workflow.is_graph ? "user_query" : "prompt"})
        << name;
  }
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".yaml") ++files;
  }
  EXPECT_EQ(files, sizes.size());
}

TEST(WorkflowTest, ShippedShapesAreAsTheirCommentsSay) {
  const std::string folder = std::string(HALO_SOURCE_DIR) + "/workflows/";
  const Workflow turns = LoadWorkflow(folder + "multi_turn.yaml");
  EXPECT_EQ(turns.operators[2].history, History::kContinue);
  EXPECT_EQ(turns.operators[2].depth, 2);
  const Workflow voting = LoadWorkflow(folder + "voting_5way_three_models.yaml");
  EXPECT_EQ(voting.operators[5].inputs.size(), 5U);
  EXPECT_EQ(voting.operators[5].history, History::kOutputs);
  std::set<std::string> models;
  for (const Operator& op : voting.operators) models.insert(op.model.name);
  EXPECT_EQ(models.size(), 3U);
}

TEST(WorkflowTest, ToolsOfAGraphWaitForWhatTheirParametersRead) {
  const Workflow workflow = ParseWorkflow(R"(graph:
  connections: {facts: "duckdb:facts.db"}
  defaults: {model: m}
  nodes:
    - {id: rows, type: input, outputs: [query]}
    - {id: params, type: processor, processor: regex_param_extractor, inputs: [query], outputs: [found], config: {regex: {year: "[0-9]+"}}}
    - {id: plan, prompt: "{{ query }}", inputs: [query], outputs: [keyword]}
    - id: answer
      inputs: [query, keyword]
      outputs: [text]
      db_queries:
        - {name: facts, connection: facts, sql: "SELECT :y", parameters: {y: "{{ found.year }}"}, param_types: {y: int}, result_mappings: {first: 0.title}}
        - {name: log, connection: facts, sql: "SELECT :t", parameters: {t: "{{ text }}"}, post_llm: true}
      tool_calls:
        - {name: page, url: "http://example.org/", params: {q: "{{ query }}"}, latency_s: 3}
)",
                                          "flow.yaml");
  std::map<std::string, const Operator*> by_id;
  for (const Operator& op : workflow.operators) by_id[op.id] = &op;
  ASSERT_EQ(by_id.size(), 6U);
  const auto inputs = [&](const char* id) {
    std::set<std::string> ids;
    for (const OperatorIndex input : by_id.at(id)->inputs) ids.insert(workflow.at(input).id);
    return ids;
  };
  using Ids = std::set<std::string>;
  EXPECT_EQ(inputs("params"), Ids{});
  EXPECT_EQ(inputs("answer__pre__facts"), Ids{"params"}) << "not plan, which answer waits for";
  EXPECT_EQ(inputs("answer__pre__page"), Ids{});
  EXPECT_EQ(inputs("answer"), (Ids{"answer__pre__facts", "answer__pre__page", "plan"}));
  EXPECT_EQ(inputs("answer__post__log"), Ids{"answer"});
  EXPECT_EQ(by_id.at("answer__pre__facts")->kind, OperatorKind::kSql);
  EXPECT_EQ(by_id.at("params")->kind, OperatorKind::kFunction);
  // What the tools found is shown to the model under their names.
  std::vector<std::string> shown;
  for (const NameBinding& name : by_id.at("answer")->names) shown.push_back(name.name);
  EXPECT_EQ(shown, (std::vector<std::string>{"query", "keyword", "facts", "first", "page"}));
  std::vector<std::string> outputs;
  for (const NameBinding& output : workflow.outputs) outputs.push_back(output.name);
  EXPECT_EQ(outputs, (std::vector<std::string>{"text", "log"}));
}

TEST(WorkflowTest, FilesThatCannotBeRead) {
  EXPECT_THROW(LoadWorkflow("no/such/flow.yaml"), Error);
  EXPECT_THROW(LoadWorkflow("/dev/zero"), Error);
  EXPECT_THROW(LoadWorkflow("/"), Error);
  const std::string path = testing::TempDir() + "/large.yaml";
  std::ofstream(path) << std::string((16 << 20) + 1, '#');
  try {
    LoadWorkflow(path);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("16 MiB"), std::string::npos) << error.what();
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace halo
