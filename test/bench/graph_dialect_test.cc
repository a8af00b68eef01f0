#include "bench/graph_dialect.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>

namespace halo::bench {
namespace {

using Ids = std::vector<std::string>;

WorkflowGraph Read(const std::string& yaml) { return ReadGraphDialect(YAML::Load(yaml)); }

TEST(GraphDialect, NodesWaitForWhoGivesTheirInputsAndForEdges) {
  const WorkflowGraph graph = Read(R"(
nodes:
  - {id: in, type: input, outputs: [q]}
  - {id: a, inputs: [q], outputs: [x, y]}
  - {id: b, inputs: [q]}
  - {id: c, inputs: [y, b]}
  - {id: d, prompt: "{{ x }}", inputs: [there]}
edges:
  - {from: in, to: a}
  - {from: a, to: b}
  - {from: a, to: d, mapping: {there: x}}
)");
  EXPECT_EQ(graph.size(), 4U);
  EXPECT_EQ(graph.at("a"), Ids{});
  EXPECT_EQ(graph.at("b"), Ids{"a"});
  EXPECT_EQ(graph.at("c"), (Ids{"a", "b"}));
  EXPECT_EQ(graph.at("d"), Ids{"a"});
}

TEST(GraphDialect, EmbeddedToolsWaitForWhatTheyReadAndTheirNodeForThem) {
  const WorkflowGraph graph = Read(R"(
nodes:
  - {id: in, type: input, outputs: [q]}
  - {id: plan, inputs: [q], outputs: [word]}
  - {id: other, inputs: [q]}
  - {id: rule, type: processor, processor: join, inputs: [q], outputs: [parts]}
  - {id: page, type: http, url: "http://h/{{ word }}", params: {p: "{{ parts.first }}"}}
  - id: say
    inputs: [other]
    outputs: [said]
    db_queries:
      - {name: found, sql: "SELECT :w AS other", parameters: {w: "{{ word | upper }}"}, result_mappings: {first: "0.w"}}
      - {name: free, sql: "SELECT 1", when: "parts == 'other'"}
    tool_calls:
      - {name: sent, url: "http://h/s", json: {t: ["{{ said }}", "other"]}, post_llm: true}
  - {id: last, inputs: [first, sent]}
)");
  EXPECT_EQ(graph.at("page"), (Ids{"plan", "rule"}));
  EXPECT_EQ(graph.at("say__pre__found"), Ids{"plan"});
  EXPECT_EQ(graph.at("say__pre__free"), Ids{"rule"});
  EXPECT_EQ(graph.at("say"), (Ids{"other", "say__pre__found", "say__pre__free"}));
  EXPECT_EQ(graph.at("say__post__sent"), Ids{"say"});
  EXPECT_EQ(graph.at("last"), (Ids{"say__post__sent", "say__pre__found"}));
}

TEST(GraphDialect, WordsAreThoseThatMayBeNames) {
  EXPECT_EQ(WordsOf("a {{ b.c | join('d') }} {% if e[\"f\"] %}{{ g }}", false),
            (std::set<std::string>{"b", "join", "if", "e", "g"}));
  EXPECT_EQ(WordsOf("a.b == 'c{{ d }}'", true), std::set<std::string>{"a"});
  EXPECT_EQ(WordsOf("{{ open", false), std::set<std::string>{});
}

TEST(GraphDialect, LoopsAndWhatIsNoGraphAreErrors) {
  EXPECT_THROW(Read("{nodes: [{id: a}], loops: [{nodes: [a], max_iterations: 2}]}"),
               std::runtime_error);
  EXPECT_THROW(Read("{name: x}"), std::runtime_error);
}

/// Halo's own plans, as its tests keep them: every operator is found, and tools wait alike.
TEST(GraphDialect, AgreesWithThePlansOfTheWorkloads) {
  const std::string root = HALO_SOURCE_DIR;
  const std::regex is_operator(R"( *\d+  (LLM|SQL|HTTP|FN) (\S+) .*)"),
      is_start(R"( +starts  (.*))");
  int tools = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root + "/test/cli/golden")) {
    const std::string name = entry.path().stem().string();
    if (!name.starts_with("explain_w")) continue;
    const std::string file = root + "/workflows/" + name.substr(std::string("explain_").size());
    const WorkflowGraph graph = ReadWorkflowGraph(file + ".yaml");
    std::ifstream plan(entry.path());
    size_t operators = 0;
    std::string id;
    std::smatch match;
    for (std::string line; std::getline(plan, line);) {
      if (std::regex_match(line, match, is_operator)) {
        id = match[2];
        ++operators;
        EXPECT_TRUE(graph.contains(id)) << name << ": " << id;
      } else if (std::regex_match(line, match, is_start)) {
        const std::string start = match[1];
        const std::string after = "after ";
        const Ids expected = start.starts_with(after) ? Ids{start.substr(after.size())} : Ids{};
        EXPECT_EQ(graph.at(id), expected) << name << ": " << id;
        ++tools;
      }
    }
    EXPECT_EQ(operators, graph.size()) << name;
  }
  EXPECT_EQ(tools, 44) << "every tool of the six workloads";
}

}  // namespace
}  // namespace halo::bench
