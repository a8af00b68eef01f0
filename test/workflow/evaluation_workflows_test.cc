// The six evaluation workloads have the shapes that they are known by, and their tools wait for
// what their parameters read and for nothing else.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "workflow/workflow.h"

namespace halo {
namespace {

struct Shape {
  const char* file;
  std::map<std::string, int> models;  ///< calls of each
  int sql, http, functions;
  int levels;         ///< calls of models on the longest path
  std::string after;  ///< what every tool waits for; "": nothing
};

const std::vector<Shape>& Shapes() {
  static const auto models = [](int gpt, int small, int large) {
    return std::map<std::string, int>{
        {"openai/gpt-oss-20b", gpt}, {"Qwen/Qwen3-14B", small}, {"Qwen/Qwen3-32B", large}};
  };
  static const std::vector<Shape> shapes = {
      {"w1_imdb_diamond", models(4, 2, 2), 7, 2, 0, 6, "keyword_planner"},
      {"w2_imdb_triplechain", models(3, 4, 3), 2, 1, 0, 5, "keyword_planner"},
      {"w3_finewiki_longchain", models(4, 3, 2), 4, 2, 0, 4, ""},
      {"w4_finewiki_bridge", models(3, 4, 2), 2, 1, 0, 6, ""},
      {"w5_tpch_trident", models(3, 2, 2), 7, 2, 1, 5, "rule_param_extractor"},
      {"w6_tpch_fanout", models(2, 1, 6), 10, 2, 1, 3, "rule_param_extractor"}};
  return shapes;
}

Workflow Load(const Shape& shape) {
  return LoadWorkflow(std::string(HALO_SOURCE_DIR) + "/workflows/" + shape.file + ".yaml");
}

std::set<std::string> InputsOf(const Workflow& workflow, const Operator& op) {
  std::set<std::string> ids;
  for (const OperatorIndex input : op.inputs) ids.insert(workflow.at(input).id);
  return ids;
}

/// The inference operators among an operator's inputs.
std::set<std::string> ModelInputsOf(const Workflow& workflow, const std::string& id) {
  std::set<std::string> ids;
  for (const OperatorIndex input : workflow.at(*workflow.Find(id)).inputs) {
    if (workflow.at(input).kind == OperatorKind::kInference) ids.insert(workflow.at(input).id);
  }
  return ids;
}

TEST(EvaluationWorkflows, CountsOfOperatorsAndModels) {
  for (const Shape& shape : Shapes()) {
    const Workflow workflow = Load(shape);
    std::map<std::string, int> models;
    std::map<OperatorKind, int> kinds;
    for (const Operator& op : workflow.operators) {
      ++kinds[op.kind];
      if (op.kind == OperatorKind::kInference) ++models[op.model.name];
    }
    EXPECT_EQ(models, shape.models) << shape.file;
    EXPECT_EQ(kinds[OperatorKind::kSql], shape.sql) << shape.file;
    EXPECT_EQ(kinds[OperatorKind::kHttp], shape.http) << shape.file;
    EXPECT_EQ(kinds[OperatorKind::kFunction], shape.functions) << shape.file;
  }
}

TEST(EvaluationWorkflows, LevelsOfModelsOnTheLongestPath) {
  for (const Shape& shape : Shapes()) {
    const Workflow workflow = Load(shape);
    std::vector<int> levels;
    for (const Operator& op : workflow.operators) {
      int level = 0;
      for (const OperatorIndex input : op.inputs)
        level = std::max(level, levels[static_cast<size_t>(input)]);
      levels.push_back(level + (op.kind == OperatorKind::kInference ? 1 : 0));
    }
    EXPECT_EQ(*std::max_element(levels.begin(), levels.end()), shape.levels) << shape.file;
  }
}

TEST(EvaluationWorkflows, ToolsStartAsEarlyAsTheirParametersAreKnown) {
  for (const Shape& shape : Shapes()) {
    const Workflow workflow = Load(shape);
    for (const Operator& op : workflow.operators) {
      if (op.kind == OperatorKind::kInference) continue;
      std::set<std::string> expected;
      if (!shape.after.empty() && op.id != shape.after) expected.insert(shape.after);
      EXPECT_EQ(InputsOf(workflow, op), expected) << shape.file << " " << op.id;
    }
  }
}

TEST(EvaluationWorkflows, OneAnswerARow) {
  for (const Shape& shape : Shapes()) {
    const Workflow workflow = Load(shape);
    ASSERT_EQ(workflow.outputs.size(), 1U) << shape.file;
    EXPECT_EQ(workflow.outputs[0].name, "final_answer");
    for (const Operator& op : workflow.operators) {
      if (op.kind != OperatorKind::kInference) continue;
      EXPECT_NE(op.schema, nullptr) << op.id;
      EXPECT_EQ(op.sampling.temperature, 0) << op.id;
    }
  }
}

TEST(EvaluationWorkflows, ChainsMeetWhereTheyShould) {
  using Ids = std::set<std::string>;
  const Workflow w1 = Load(Shapes()[0]);
  EXPECT_EQ(ModelInputsOf(w1, "hub_movie_person_openai20b"),
            (Ids{"keyword_planner", "entry_movie_qwen14b", "entry_person_openai20b"}));
  EXPECT_EQ(ModelInputsOf(w1, "hub_full_context_qwen14b"),
            (Ids{"keyword_planner", "hub_movie_person_openai20b", "entry_akas_qwen32b"}));
  EXPECT_EQ(ModelInputsOf(w1, "imdb_final_answer"),
            (Ids{"keyword_planner", "hub_full_context_qwen14b", "tail_focus_qwen32b"}));
  const Workflow w2 = Load(Shapes()[1]);
  EXPECT_EQ(ModelInputsOf(w2, "final_answer_qwen14b"),
            (Ids{"keyword_planner", "small_sanity_check_qwen32b", "movie_final_notes_qwen32b",
                 "people_final_notes_openai20b", "crew_final_notes_qwen14b"}));
  const Workflow w3 = Load(Shapes()[2]);
  EXPECT_EQ(ModelInputsOf(w3, "final_answer_summarizer"),
            (Ids{"global_topic_expander", "timeline_refiner_2", "category_drilldown",
                 "outbound_link_view", "inbound_link_view", "narrow_focus_rewriter"}));
  EXPECT_EQ(ModelInputsOf(w3, "inbound_link_view"),
            (Ids{"outbound_link_view", "global_topic_expander"}));
  const Workflow w4 = Load(Shapes()[3]);
  EXPECT_EQ(ModelInputsOf(w4, "fw_light_sampler_s0"),
            (Ids{"fw_global_pass_a2", "fw_category_bridge_b2", "fw_language_bridge_c2"}));
  EXPECT_EQ(ModelInputsOf(w4, "fw_language_bridge_c1"), (Ids{"fw_global_pass_a0"}));
  const Workflow w5 = Load(Shapes()[4]);
  EXPECT_EQ(ModelInputsOf(w5, "hub_full_context_qwen14b"),
            (Ids{"hub_ops_openai20b", "entry_q2_q9_supply"}));
  const Workflow w6 = Load(Shapes()[5]);
  const Ids first = {"stage1_econ_rollup_q5", "stage1_seg_ship_q3", "stage1_disc_band_q1",
                     "stage1_hypothesis_q0a", "stage1_altangle_q0b"};
  for (const char* id : {"stage2_econ_rollup_q5", "stage2_disc_band_q1", "stage2_narrative_q0a"})
    EXPECT_EQ(ModelInputsOf(w6, id), first) << id;
}

}  // namespace
}  // namespace halo
