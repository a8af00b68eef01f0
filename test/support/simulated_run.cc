#include "support/simulated_run.h"

#include <gtest/gtest.h>

namespace halo::test {

Row MakeTestRow(int64_t index, Json values) {
  Row row;
  row.index = index;
  row.id = values.contains("id") ? values["id"] : Json(index);
  row.values = std::move(values);
  return row;
}

ListFeed::ListFeed(std::vector<Row> rows) : rows_(std::move(rows)) {}

ListFeed ListFeed::Of(const std::vector<Json>& values) {
  std::vector<Row> rows;
  for (const Json& value : values)
    rows.push_back(MakeTestRow(static_cast<int64_t>(rows.size()), value));
  return ListFeed(std::move(rows));
}

RowFeed::Pull ListFeed::Next(Row& row) {
  if (next_ == rows_.size()) return Pull::kClosed;
  row = rows_[next_++];
  return Pull::kRow;
}

std::string JoinRows(const std::vector<Json>& rows) {
  std::string text;
  for (const Json& row : rows) text += row.dump() + "\n";
  return text;
}

void ExpectAccounting(const RunReport& report, int64_t rows_total) {
  const RunCounts& counts = report.counts;
  EXPECT_EQ(rows_total < 0 ? counts.rows_opened : rows_total,
            counts.rows_ok + counts.rows_failed + report.rows_unfinished);
  EXPECT_EQ(counts.calls_running, 0);
  for (const OperatorCounts& op : report.operators) {
    SCOPED_TRACE("operator " + op.id);
    EXPECT_EQ(op.logical, op.merged + op.distinct);
    EXPECT_EQ(op.distinct, op.executed + op.cached + op.skipped + op.unfinished);
    EXPECT_EQ(op.prompt_tokens, op.reused_tokens + op.prefilled_tokens);
    EXPECT_LE(op.failed, op.logical);
    for (const int64_t count :
         {op.merged, op.distinct, op.executed, op.failed, op.unfinished, op.calls}) {
      EXPECT_GE(count, 0);
    }
  }
}

SimulatedRig::SimulatedRig(const std::string& yaml, const std::string& name,
                           SimulatedEngineOptions options, bool all_outputs)
    : workflow(ParseWorkflow(yaml, name)), plan(MakeLogicalPlan(workflow, all_outputs)) {
  timeline = std::make_shared<SimulatedTimeline>();
  options.timeline = timeline;
  for (const ModelRequest& model : plan.models) {
    options.model_name = model.name;
    engines.push_back(std::make_unique<SimulatedEngine>(options, clock));
  }
}

PhysicalPlan SimulatedRig::Optimize(const std::vector<Row>& rows, const std::string& column,
                                    const std::set<std::string>& rules_off) {
  RowStatistics statistics(ColumnSetsOf(plan, column));
  for (const Row& row : rows) statistics.Add(row.values);
  std::vector<OptimizerSource> sources(1);
  sources[0].plan = &plan;
  sources[0].prompt_column = column;
  sources[0].rows = &statistics;
  for (const ModelRequest& model : plan.models) {
    ModelFacts facts;
    facts.name = facts.digest = model.name;
    constexpr int64_t kWeightsBytes = 1 << 20, kKvTokenBytes = 1 << 10;
    facts.profile = DefaultProfile(model.name, kWeightsBytes, kKvTokenBytes);
    sources[0].models.push_back(std::move(facts));
  }
  OptimizerOptions options;
  options.rules_off = rules_off;
  options.worker_memory_bytes = int64_t{1} << 40;
  options.planner = "list";
  return halo::Optimize(sources, nullptr, options);
}

RunSource SimulatedRig::Source(RowFeed& rows, ResultSink& sink,
                               std::shared_ptr<const ChatTemplate> chat) {
  RunSource source;
  source.plan = &plan;
  source.rows = &rows;
  source.sink = &sink;
  for (const auto& engine : engines) {
    const Signature content = SignatureBuilder().Add(engine->Describe().model).Finish();
    source.models.push_back({engine.get(), PromptModel{nullptr, chat}, content});
  }
  for (const LogicalAdapter& adapter : plan.adapters) {
    source.adapters.push_back(adapter.lora.file + ":" + std::to_string(adapter.lora.scale));
    source.adapter_contents.push_back(SignatureBuilder().Add(source.adapters.back()).Finish());
  }
  source.prompt_column = ResolveColumn(workflow, "");
  return source;
}

}  // namespace halo::test
