#include "session/tool_setup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "sql/duck_database.h"
#include "support/test_models.h"

namespace halo::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

/// Workflows in folders of their own.
class ToolSetupTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = FreshFolder(std::string("setup_") +
                          testing::UnitTest::GetInstance()->current_test_info()->name());
    for (const char* each : {"/one", "/two"}) std::filesystem::create_directory(folder_ + each);
    options_.environment = [this](const std::string& name) -> std::optional<std::string> {
      const auto found = environment_.find(name);
      return found == environment_.end() ? std::nullopt : std::optional(found->second);
    };
  }

  void Write(const std::string& path, const std::string& text) {
    std::ofstream(folder_ + "/" + path, std::ios::binary) << text;
  }

  /// A graph in `path` of the folder, with these lines before its nodes and this tool.
  Workflow Flow(const std::string& path, const std::string& top, const std::string& tool) {
    return ParseWorkflow(
        "graph:\n  " + top +
            "\n  nodes:\n    - {id: in, type: input, outputs: [a]}\n    - {id: tool, " + tool +
            "}\n",
        folder_ + "/" + path);
  }

  /// What is wrong; "" if they can be opened.
  std::string Faults(const std::vector<Workflow>& workflows) {
    std::vector<const Workflow*> pointers;
    for (const Workflow& workflow : workflows) pointers.push_back(&workflow);
    try {
      tools_ = OpenTools(pointers, options_, "", clock_);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  std::string folder_;
  std::map<std::string, std::string> environment_;
  RunOptions options_;
  SteadyClock clock_;
  RunTools tools_;
};

constexpr const char* kQuery = "type: db_query, sql: \"SELECT * FROM t\"";

TEST_F(ToolSetupTest, AConnectionOfOneWorkflowIsNotAnothers) {
  Write("one/a.csv", "x\n1\n");
  Write("two/a.csv", "x\n2\n");
  const std::string files = "connections: {shop: {files: {t: a.csv}}}";
  EXPECT_THAT(Faults({Flow("one/f.yaml", files, kQuery), Flow("two/f.yaml", files, kQuery)}),
              AllOf(HasSubstr("connection 'shop'"), HasSubstr("two/f.yaml:2")));
  EXPECT_THAT(Faults({Flow("one/f.yaml", files, kQuery),
                      Flow("one/g.yaml", "connections: {shop: \"duckdb::memory:\"}",
                           "type: db_query, sql: SELECT 1")}),
              HasSubstr("connection 'shop'"));
  // In one folder and written alike it is one database; under other names they are two.
  EXPECT_EQ(Faults({Flow("one/f.yaml", files, kQuery), Flow("one/g.yaml", files, kQuery)}), "");
  EXPECT_EQ(Faults({Flow("one/f.yaml", files, kQuery),
                    Flow("two/f.yaml", "connections: {other: {files: {t: a.csv}}}", kQuery)}),
            "");
  // --connect says it for all of them.
  options_.connections["shop"] = "duckdb::memory:";
  EXPECT_EQ(Faults({Flow("one/f.yaml", files, kQuery), Flow("one/g.yaml", files, kQuery)}), "");
}

TEST_F(ToolSetupTest, ASecretOfOneWorkflowIsNotAnothers) {
  Write("one/key", "first\n");
  Write("two/key", "second\n");
  const std::string top = "allow_hosts: [example.org]";
  const std::string get = "type: http, url: \"http://example.org/\", headers: {A: \"${file:key}\"}";
  EXPECT_EQ(Faults({Flow("one/f.yaml", top, get), Flow("one/g.yaml", top, get)}), "");
  EXPECT_EQ(tools_.setup.secrets.at("file:key"), "first");
  const std::string faults = Faults({Flow("one/f.yaml", top, get), Flow("two/f.yaml", top, get)});
  EXPECT_THAT(faults, AllOf(HasSubstr("${file:key}"), HasSubstr("two/f.yaml")));
  EXPECT_THAT(faults, AllOf(Not(HasSubstr("first")), Not(HasSubstr("second"))));
}

TEST_F(ToolSetupTest, SecretsThatAreMissingAreNamed) {
  const auto get = [&](const std::string& secret) {
    return Faults(
        {Flow("one/f.yaml", "allow_hosts: [example.org]",
              "type: http, url: \"http://example.org/\", headers: {A: \"" + secret + "\"}")});
  };
  EXPECT_THAT(get("${env:NOT_THERE}"), HasSubstr("NOT_THERE"));
  EXPECT_THAT(get("${file:none}"), HasSubstr("'none'"));
  EXPECT_THAT(get("${file:../two/key}"), HasSubstr("outside the workflow's folder"));
  EXPECT_THAT(get("${file:/etc/hostname}"), HasSubstr("outside the workflow's folder"));
  environment_["THERE"] = "x";
  EXPECT_EQ(get("${env:THERE}"), "");
}

TEST_F(ToolSetupTest, AConnectionFromASecretIsOfAKnownKind) {
  const auto query = [&] {
    return Faults({Flow("one/f.yaml", "connections: {shop: \"${env:URL}\"}",
                        "type: db_query, sql: SELECT 1")});
  };
  const std::string missing = query();
  EXPECT_THAT(missing, HasSubstr("no variable URL"));
  EXPECT_THAT(missing, Not(HasSubstr("--allow net")));
  environment_["URL"] = "mysql://user:hunter2@host/";
  const std::string unknown = query();
  EXPECT_THAT(unknown, HasSubstr("neither duckdb:PATH nor postgres://"));
  EXPECT_THAT(unknown, Not(HasSubstr("hunter2")));
  environment_["URL"] = "duckdb::memory:";
  EXPECT_EQ(query(), "");
}

TEST_F(ToolSetupTest, WhatReachesOutNeedsPermission) {
  EXPECT_THAT(
      Faults({Flow("one/f.yaml", "connections: {shop: {files: {t: ../two/a.csv}}}", kQuery)}),
      HasSubstr("--allow files"));
  EXPECT_THAT(Faults({Flow("one/f.yaml", "connections: {shop: \"duckdb:/tmp/x.duckdb\"}", kQuery)}),
              HasSubstr("--allow files"));
  EXPECT_THAT(Faults({Flow("one/f.yaml", "allow_hosts: [example.com]",
                           "type: http, url: \"http://example.org/\"")}),
              HasSubstr("allow_hosts"));
  const std::string exec =
      "type: processor, processor: exec, inputs: [a], config: {command: [cat]}";
  EXPECT_THAT(Faults({Flow("one/f.yaml", "name: x", exec)}), HasSubstr("--allow exec"));
  options_.allow.insert("exec");
  EXPECT_EQ(Faults({Flow("one/f.yaml", "name: x", exec), Flow("one/g.yaml", "name: x", exec)}), "");
  EXPECT_THAT(Faults({Flow("one/f.yaml", "name: x", exec), Flow("two/f.yaml", "name: x", exec)}),
              HasSubstr("another folder"));
}

TEST_F(ToolSetupTest, StatementsAreCheckedBeforeARun) {
  const std::string memory = "connections: {shop: \"duckdb::memory:\"}";
  EXPECT_THAT(Faults({Flow("one/f.yaml", memory, kQuery)}),
              AllOf(HasSubstr("f.yaml:5"), HasSubstr("'tool'")));
  EXPECT_THAT(
      Faults({Flow("one/f.yaml", memory, "type: db_query, sql: \"SELECT * FROM read_text('x')\"")}),
      HasSubstr("read_text"));
  EXPECT_THAT(
      Faults({Flow("one/f.yaml", memory,
                   "type: db_query, effect: write, sql: \"EXPLAIN ANALYZE COPY t TO 'x'\"")}),
      HasSubstr("EXPLAIN ANALYZE"));
  EXPECT_THAT(Faults({Flow("one/f.yaml", memory, "type: db_query, sql: {postgres: SELECT 1}")}),
              HasSubstr("add sql.duckdb"));
}

TEST_F(ToolSetupTest, DatabasesSayWhatReadsCost) {
  const std::string path = folder_ + "/one/shop.duckdb";
  DuckDatabase({}, {path, false})
      .Execute(
          "CREATE TABLE small AS SELECT range AS id FROM range(10); CREATE TABLE large AS "
          "SELECT range AS id FROM range(50000)");
  const auto flow = [&](const std::string& sql, const std::string& url = "shop.duckdb") {
    return Flow("one/f.yaml", "connections: {shop: \"duckdb:" + url + "\"}",
                "type: db_query, parameters: {a: \"{{ a }}\"}, sql: \"" + sql + "\"");
  };
  const std::vector<Workflow> workflows = {
      flow("SELECT * FROM small WHERE id = :a"), flow("SELECT * FROM large WHERE id = :a"),
      flow("SELECT random(), :a"), flow("SELECT * FROM large WHERE id = :a")};
  const auto units = [](const DatabaseCosts& costs) {
    std::vector<double> each;
    for (const auto& workflow : costs.operators) {
      EXPECT_EQ(workflow.size(), 1U);
      each.push_back(workflow.at(0) ? workflow.at(0)->units : -1.0);
    }
    return each;
  };
  ASSERT_EQ(Faults(workflows), "");
  const std::vector<double> of_run = units(tools_.costs);
  ASSERT_EQ(of_run.size(), 4U);
  EXPECT_GE(of_run[0], 10.0);
  EXPECT_GT(of_run[1], 100.0 * of_run[0]);
  EXPECT_EQ(of_run[2], -1.0);
  EXPECT_EQ(of_run[3], of_run[1]);
  tools_ = {};

  std::vector<const Workflow*> pointers;
  for (const Workflow& workflow : workflows) pointers.push_back(&workflow);
  const DatabaseCosts asked = AskDatabases(pointers, options_);
  EXPECT_EQ(units(asked), of_run);
  EXPECT_THAT(asked.unasked, IsEmpty());

  // One that is not there is not made, and no error.
  const Workflow later = flow("SELECT 1, :a", "later.duckdb");
  const DatabaseCosts none = AskDatabases({&later}, options_);
  EXPECT_EQ(units(none), std::vector<double>{-1.0});
  EXPECT_THAT(none.unasked, ElementsAre(HasSubstr("connection 'shop': there is no file")));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/one/later.duckdb"));
}

}  // namespace
}  // namespace halo::test
