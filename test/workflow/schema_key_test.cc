#include "workflow/schema_key.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "workflow_faults.h"

namespace halo {
namespace {

using ::testing::HasSubstr;

std::shared_ptr<const OutputSchema> SchemaOf(const std::string& text,
                                             const std::string& path = "flow.yaml") {
  return ParseWorkflow(text, path).operators.front().schema;
}

TEST(SchemaKey, AMappingIsAJsonSchema) {
  const auto schema = SchemaOf(OneOperator(
      {"schema:", "  type: object", "  properties:", "    n: {type: integer, minimum: -1}",
       "    s: {enum: [yes, 'no', 1.5, null, true]}", "  required: [n, s]"}));
  ASSERT_NE(schema, nullptr);
  EXPECT_TRUE(schema->is_json());
  nlohmann::ordered_json value;
  EXPECT_FALSE(schema->Check(R"({"n":-1,"s":"yes"})", false, value));
  EXPECT_FALSE(schema->Check(R"({"n":-1,"s":null})", false, value));
  EXPECT_FALSE(schema->Check(R"({"n":-1,"s":true})", false, value));
  EXPECT_TRUE(schema->Check(R"({"n":-1,"s":"true"})", false, value));
  EXPECT_TRUE(schema->Check(R"({"n":-2,"s":1.5})", false, value));
  EXPECT_EQ(SchemaOf(OneOperator({"temperature: 0"})), nullptr);
}

TEST(SchemaKey, FaultsStandWhereTheyAreWritten) {
  ExpectFaults(OneOperator({"schema:", "  type: object", "  properties:",
                            "    n: {type: integer, minimun: 1}", "    m: {type: text}"}),
               {{9, 28, "schema: unknown keyword 'minimun' (did you mean 'minimum'?)"},
                {10, 13, "schema: expected one of object, array"}});
  ExpectFaults(OneOperator({"schema: {uniqueItems: true}"}),
               {{6, 14, "'uniqueItems' is not supported"}});
  ExpectFaults(OneOperator({"schema: {type: integer, minimum: .5}"}),
               {{6, 38, "'.5': write this number as JSON does"}});
  ExpectFaults(OneOperator({"schema: '{\"type\": \"strin\"}'"}),
               {{6, 13, "#/type: expected one of"}});
  ExpectFaults(OneOperator({"schema: '{\"type\"'"}), {{6, 13, "this is no JSON Schema"}});
  ExpectFaults(OneOperator({"schema: 3"}), {{6, 13, "expected a JSON Schema (a mapping"}});
  ExpectFaults(OneOperator({"schema: [a]"}), {{6, 13, "expected a JSON Schema (a mapping"}});
  ExpectFaults(OneOperator({"schema: {type: string}", "stop: x"}), {{6, 5, "schema beside stop"}});
}

TEST(SchemaKey, GrammarsHaveTheirOwnPlaces) {
  EXPECT_FALSE(SchemaOf(OneOperator({"schema: {gbnf: 'root ::= \"a\"'}"}))->is_json());
  ExpectFaults(OneOperator({"schema: {gbnf: 'root ::= wrod'}"}),
               {{6, 30, "schema: there is no rule 'wrod'"}});
  ExpectFaults(OneOperator({"schema:", "  gbnf: |", "    root ::= word", "    word ::= [a-"}),
               {{9, 18, "schema: the class does not end"}});
  ExpectFaults(OneOperator({"schema: {gbnf: [1]}"}), {{6, 20, "gbnf: expected the text"}});
}

TEST(SchemaKey, FilesAreThoseOfTheWorkflowsFolder) {
  const std::filesystem::path folder = std::filesystem::path(HALO_BIN_DIR) / "schema_key_test";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder / "in" / "deeper");
  const auto write = [&](const std::string& name, const std::string& text) {
    std::ofstream(folder / name) << text;
  };
  write("outside.json", R"({"type": "string"})");
  write("in/answer.json", R"({"type": "integer"})");
  write("in/bad.json", R"({"type": "integr"})");
  write("in/deeper/words.gbnf", "root ::= \"a\"\n");
  write("in/bad.gbnf", "root ::= \"a\"\n  | b c\n");
  std::filesystem::create_symlink(folder / "outside.json", folder / "in" / "link.json");
  const std::string path = (folder / "in" / "flow.yaml").string();
  EXPECT_TRUE(SchemaOf(OneOperator({"schema: answer.json"}), path)->is_json());
  EXPECT_FALSE(SchemaOf(OneOperator({"schema: deeper/words.gbnf"}), path)->is_json());
  const auto fault_of = [&](const std::string& name) -> std::string {
    try {
      ParseWorkflow(OneOperator({"schema: " + name}), path);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const std::string absolute = (folder / "outside.json").string();
  for (const std::string& name :
       {std::string("../outside.json"), std::string("link.json"), absolute}) {
    EXPECT_THAT(fault_of(name), HasSubstr("is not in the workflow's folder")) << name;
  }
  EXPECT_THAT(fault_of("none.json"), HasSubstr("flow.yaml:6:13: schema: there is no file"));
  EXPECT_THAT(fault_of("deeper.gbnf"), HasSubstr("there is no file"));
  EXPECT_THAT(fault_of("bad.json"), HasSubstr("bad.json: #/type: expected one of"));
  EXPECT_THAT(fault_of("bad.gbnf"), HasSubstr("bad.gbnf:2:3: expected the name of a rule"));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace halo
