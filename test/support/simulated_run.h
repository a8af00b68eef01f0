#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "engine/simulated/simulated_engine.h"
#include "optimizer/optimizer.h"
#include "plan/logical_plan.h"
#include "runtime/executor.h"

namespace halo::test {

using Json = nlohmann::ordered_json;

/// A row as the readers of rows make it: its id is the field `id`, else the index.
Row MakeTestRow(int64_t index, Json values);

/// Rows in memory, then closed.
class ListFeed final : public RowFeed {
 public:
  explicit ListFeed(std::vector<Row> rows);
  static ListFeed Of(const std::vector<Json>& values);
  Pull Next(Row& row) override;
  size_t taken() const { return next_; }

 private:
  std::vector<Row> rows_;
  size_t next_ = 0;
};

/// Keeps what is written.
class ListSink final : public ResultSink {
 public:
  void Write(const RowResult& row) override { rows.push_back(row.ToJson()); }
  void Finish() override { finished = true; }
  void Flush() override { ++flushes; }

  std::vector<Json> rows;
  bool finished = false;
  int flushes = 0;
};

/// Rows as lines, so that a difference is seen where it is.
std::string JoinRows(const std::vector<Json>& rows);

/// The identities of contract 2 over a whole run: rows total = ok + failed + unfinished, logical =
/// merged + distinct, distinct = executed + cached + skipped + unfinished, prompt = reused +
/// prefilled. `rows_total` -1: as many as were opened.
void ExpectAccounting(const RunReport& report, int64_t rows_total = -1);

/// A workflow with its plan and a simulated engine for each of its models, all on one virtual
/// clock.
class SimulatedRig {
 public:
  SimulatedRig(const std::string& yaml, const std::string& name, SimulatedEngineOptions options,
               bool all_outputs = false);
  SimulatedRig(const SimulatedRig&) = delete;
  SimulatedRig& operator=(const SimulatedRig&) = delete;

  /// Plans the run as a session does, all but `rules_off`; rewrites `plan`.
  PhysicalPlan Optimize(const std::vector<Row>& rows, const std::string& column,
                        const std::set<std::string>& rules_off);

  RunSource Source(RowFeed& rows, ResultSink& sink,
                   std::shared_ptr<const ChatTemplate> chat = nullptr);

  VirtualClock clock;
  Workflow workflow;
  LogicalPlan plan;
  std::shared_ptr<SimulatedTimeline> timeline;
  std::vector<std::unique_ptr<SimulatedEngine>> engines;  ///< [plan.models]
};

}  // namespace halo::test
