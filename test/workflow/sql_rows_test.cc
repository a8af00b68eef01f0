// Rows of Parquet files and of SQL, and what neither may do.

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "sql/duck_database.h"
#include "workflow/rows.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

/// A folder of its own for every test, which is the current folder meanwhile.
class SqlRowsTest : public testing::Test {
 protected:
  SqlRowsTest() : before_(std::filesystem::current_path()) {
    std::string pattern = testing::TempDir() + "/sqlrowsXXXXXX";
    root_ = mkdtemp(pattern.data());
    folder_ = root_ + "/here";
    spool_ = root_ + "/spool";
    std::filesystem::create_directories(folder_);
    std::filesystem::create_directories(spool_);
    std::filesystem::current_path(folder_);
    Write("../outside.csv", "id,secret\n1,hidden\n");
  }
  ~SqlRowsTest() override {
    std::filesystem::current_path(before_);
    std::filesystem::remove_all(root_);
  }

  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }
  static std::string Contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  /// Writes what `select` gives, with a database of the test's own.
  static void MakeParquet(const std::string& path, const std::string& select,
                          const std::string& options = "") {
    DuckDatabase({}).Execute("COPY (" + select + ") TO " + QuoteSqlText(path) + " (FORMAT parquet" +
                             options + ")");
  }

  std::unique_ptr<RowSource> Open(const std::string& spec, std::vector<std::string> required = {},
                                  int64_t limit = -1) const {
    return OpenRows({spec, std::move(required), limit, spool_});
  }
  std::vector<Row> Read(const std::string& spec, int64_t limit = -1) const {
    const auto source = Open(spec, {}, limit);
    std::vector<Row> rows;
    while (auto row = source->Next()) rows.push_back(std::move(*row));
    EXPECT_EQ(source->total(), static_cast<int64_t>(rows.size()));
    for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i].index, static_cast<int64_t>(i));
    return rows;
  }
  /// The one value of the one row of a SELECT, as JSON text; through Parquet too it is the same.
  std::string Value(const std::string& expression, bool through_parquet = true) const {
    const std::string direct = Read("sql:SELECT " + expression + " AS v").at(0).values["v"].dump();
    if (through_parquet) {
      MakeParquet("value.parquet", "SELECT " + expression + " AS v");
      EXPECT_EQ(Read("value.parquet").at(0).values["v"].dump(), direct) << expression;
    }
    return direct;
  }
  /// The message of the Error(kRows) that opening ends in.
  std::string Fault(const std::string& spec, std::vector<std::string> required = {}) const {
    try {
      Open(spec, std::move(required));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kRows) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "nothing is wrong with " << spec;
    return "";
  }
  void ExpectFault(const std::string& spec, const std::string& part) const {
    const std::string fault = Fault(spec);
    EXPECT_NE(fault.find(part), std::string::npos) << spec << "\ngives: " << fault;
  }

  const std::filesystem::path before_;
  std::string root_, folder_, spool_;
};

TEST_F(SqlRowsTest, ParquetKeepsOrderTypesAndIds) {
  MakeParquet("r.parquet",
              "SELECT 'r' || i AS id, 'Row ' || i AS prompt, i AS n FROM range(300000) t(i)");
  const std::vector<Row> rows = Read("r.parquet");
  ASSERT_EQ(rows.size(), 300'000U);
  for (size_t i = 0; i < rows.size(); i += 9'973) {
    EXPECT_EQ(rows[i].id, "r" + std::to_string(i));
    EXPECT_EQ(rows[i].values["n"], i);
  }
  EXPECT_EQ(Open("r.parquet")->columns(), (std::vector<std::string>{"id", "prompt", "n"}));

  MakeParquet("n.PARQUET", "SELECT 10 * i AS id FROM range(3) t(i)");
  EXPECT_EQ(Read("n.PARQUET").at(2).id.dump(), "20");
  MakeParquet("none.parquet", "SELECT 'x' AS prompt FROM range(2)");
  EXPECT_EQ(Read("none.parquet").at(1).id.dump(), "1");
}

TEST_F(SqlRowsTest, ZeroRowsHaveColumns) {
  MakeParquet("r.parquet", "SELECT 1 AS id, 'x' AS prompt WHERE false");
  EXPECT_TRUE(Read("r.parquet").empty());
  EXPECT_EQ(Open("r.parquet")->columns(), (std::vector<std::string>{"id", "prompt"}));
  EXPECT_TRUE(Read("sql:SELECT 1 AS id WHERE false").empty());
  EXPECT_NE(Fault("r.parquet", {"promt"}).find("did you mean 'prompt'"), std::string::npos);
}

TEST_F(SqlRowsTest, TheLimitTakesTheFirstRows) {
  MakeParquet("r.parquet", "SELECT i AS id FROM range(5000) t(i)");
  EXPECT_EQ(Read("r.parquet", 3).size(), 3U);
  EXPECT_EQ(Read("r.parquet", 0).size(), 0U);
  EXPECT_EQ(Read("sql:SELECT range AS id FROM range(1000000000000)", 3).back().id, 2);
  // What lies behind the limit is not computed (beyond what DuckDB computes ahead).
  const std::string late =
      "sql:SELECT CASE WHEN i = 999999 THEN error('late') ELSE i END AS v FROM range(3000000) "
      "t(i)";
  EXPECT_EQ(Read(late, 2).size(), 2U);
  ExpectFault(late, "sql: after row ");
  ExpectFault(late, ": Invalid Input Error: late");
}

TEST_F(SqlRowsTest, NumbersAreExact) {
  EXPECT_EQ(Value("true"), "true");
  EXPECT_EQ(Value("(-128)::TINYINT"), "-128");
  EXPECT_EQ(Value("(-9223372036854775807 - 1)::BIGINT"), "-9223372036854775808");
  EXPECT_EQ(Value("18446744073709551615::UBIGINT"), "18446744073709551615");
  EXPECT_EQ(Value("255::UTINYINT"), "255");
  // Parquet has no whole numbers of 128 bits: DuckDB writes floating point.
  EXPECT_EQ(Value("(SELECT sum(i) FROM range(4) t(i))", false), "6");
  EXPECT_EQ(Value("(-5)::HUGEINT", false), "-5");
  EXPECT_EQ(Value("18446744073709551616::HUGEINT", false), "\"18446744073709551616\"");
  EXPECT_EQ(Value("(-170141183460469231731687303715884105728)::HUGEINT", false),
            "\"-170141183460469231731687303715884105728\"");
  EXPECT_EQ(Value("340282366920938463463374607431768211455::UHUGEINT", false),
            "\"340282366920938463463374607431768211455\"");
  EXPECT_EQ(Value("12.50::DECIMAL(4,2)"), "\"12.50\"");
  EXPECT_EQ(Value("(-0.05)::DECIMAL(9,2)"), "\"-0.05\"");
  EXPECT_EQ(Value("7::DECIMAL(18,0)"), "\"7\"");
  EXPECT_EQ(Value("12345678901234567890123456789012345.678::DECIMAL(38,3)"),
            "\"12345678901234567890123456789012345.678\"");
  EXPECT_EQ(Value("0.1::FLOAT"), "0.1");
  EXPECT_EQ(Value("0.1::DOUBLE"), "0.1");
  EXPECT_EQ(Value("1e300::DOUBLE"), "1e+300");
  EXPECT_EQ(Value("'nan'::DOUBLE"), "\"nan\"");
  EXPECT_EQ(Value("'-inf'::FLOAT"), "\"-inf\"");
  EXPECT_EQ(Value("NULL"), "null");
}

TEST_F(SqlRowsTest, TextAndTimes) {
  EXPECT_EQ(Value("'ü \"quoted\" ' || chr(0) || 'behind'"), R"("ü \"quoted\" \u0000behind")");
  EXPECT_EQ(Value("'b'::ENUM('a', 'b')", false), "\"b\"");
  EXPECT_EQ(Value("'2fd4e1c6-7a2d-48fc-a4e2-0123456789ab'::UUID"),
            "\"2fd4e1c6-7a2d-48fc-a4e2-0123456789ab\"");
  EXPECT_EQ(Value("DATE '2026-01-31'"), "\"2026-01-31\"");
  EXPECT_EQ(Value("DATE '0044-03-15 (BC)'"), "\"-000043-03-15\"");
  EXPECT_EQ(Value("DATE '12026-01-31'"), "\"+012026-01-31\"");
  EXPECT_EQ(Value("'infinity'::DATE", false), "\"infinity\"");
  EXPECT_EQ(Value("'-infinity'::TIMESTAMP", false), "\"-infinity\"");
  EXPECT_EQ(Value("TIME '09:05:00.25'"), "\"09:05:00.25\"");
  EXPECT_EQ(Value("TIMETZ '09:05:00+05:30'", false), "\"09:05:00+05:30\"");
  EXPECT_EQ(Value("TIMESTAMP '1969-12-31 23:59:59.000001'"), "\"1969-12-31T23:59:59.000001\"");
  EXPECT_EQ(Value("TIMESTAMP_S '2026-01-31 12:00:00'", false), "\"2026-01-31T12:00:00\"");
  EXPECT_EQ(Value("TIMESTAMP_MS '2026-01-31 12:00:00.5'"), "\"2026-01-31T12:00:00.5\"");
  EXPECT_EQ(Value("TIMESTAMP_NS '2026-01-31 12:00:00.000000001'"),
            "\"2026-01-31T12:00:00.000000001\"");
  EXPECT_EQ(Value("TIMESTAMPTZ '2026-01-31 12:00:00+02'"), "\"2026-01-31T10:00:00Z\"");
  EXPECT_EQ(Value("TIMESTAMPTZ '2026-01-31 12:00:00'::VARCHAR"), "\"2026-01-31 12:00:00+00\"")
      << "the machine's time zone does not matter";
  EXPECT_EQ(Value("INTERVAL '14 months 3 days 3723.5 seconds'", false), "\"P1Y2M3DT1H2M3.5S\"");
  EXPECT_EQ(Value("INTERVAL '-0.5 seconds'", false), "\"PT-0.5S\"");
  EXPECT_EQ(Value("INTERVAL '0 days'", false), "\"PT0S\"");
}

TEST_F(SqlRowsTest, ListsStructsAndMaps) {
  EXPECT_EQ(Value("[1, NULL, 3]"), "[1,null,3]");
  EXPECT_EQ(Value("[['a'], [], NULL, ['b', 'c']]"), R"([["a"],[],null,["b","c"]])");
  EXPECT_EQ(Value("[1, 2]::INT[2]", false), "[1,2]");
  EXPECT_EQ(Value("{'city': 'Ulm', 'zip': {'code': 89073, 'old': NULL}}"),
            R"({"city":"Ulm","zip":{"code":89073,"old":null}})");
  EXPECT_EQ(Value("[{'d': DATE '2026-01-31', 'p': 1.10::DECIMAL(3,2)}]"),
            R"([{"d":"2026-01-31","p":"1.10"}])");
  EXPECT_EQ(Value("row(1, 'a')", false), R"([1,"a"])");
  EXPECT_EQ(Value("MAP {'a': 1, 'b': NULL}"), R"({"a":1,"b":null})");
  EXPECT_EQ(Value("MAP {1: 'x'}"), R"([{"key":1,"value":"x"}])");
  EXPECT_EQ(Value("'{\"a\": [1, 2.5]}'::JSON"), R"({"a":[1,2.5]})");
  EXPECT_EQ(Value("'[1, 2]'::JSON", false), "[1,2]");
  EXPECT_EQ(Value("'{\"a\":1,\"a\":2}'::JSON", false), R"("{\"a\":1,\"a\":2}")");
  // Values of one column in several rows and chunks: offsets, not only first entries.
  MakeParquet("r.parquet",
              "SELECT i AS id, [i, i + 1] AS l, {'n': i, 'l': range(i % 3)} AS s, "
              "[i, -i]::BIGINT[2] AS a FROM range(5000) t(i)");
  const std::vector<Row> rows = Read("r.parquet");
  EXPECT_EQ(rows[4999].values.dump(),
            R"({"id":4999,"l":[4999,5000],"s":{"n":4999,"l":[0]},"a":[4999,-4999]})");
}

TEST_F(SqlRowsTest, TypesWithoutAFormAreRefusedByColumn) {
  MakeParquet("r.parquet", "SELECT 1 AS id, 'x'::BLOB AS picture, [{'b': 'x'::BLOB}] AS nested");
  const std::string fault = Fault("r.parquet");
  EXPECT_NE(fault.find("r.parquet: column 2, 'picture', is BLOB"), std::string::npos) << fault;
  EXPECT_NE(fault.find("column 3, 'nested', is BLOB"), std::string::npos) << fault;
  EXPECT_EQ(Read("sql:SELECT id, decode(picture) AS p FROM 'r.parquet'").at(0).values["p"], "x");
  ExpectFault("sql:SELECT '101'::BIT AS b", "column 1, 'b', is BIT");
  // A struct whose field is named in bytes that are no UTF-8: written as ASCII, then changed.
  MakeParquet("names.parquet", "SELECT {'qqqq': 1} AS s");
  std::string bytes = Contents("names.parquet");
  for (size_t at = bytes.find("qqqq"); at != std::string::npos; at = bytes.find("qqqq", at))
    bytes.replace(at, 4, "\xFF\xFE\xFF\xFE");
  Write("names.parquet", bytes);
  EXPECT_THROW(Open("names.parquet"), Error);
  std::string nested = "1";
  for (int i = 0; i < 64; ++i) nested = "[" + nested + "]";
  ExpectFault("sql:SELECT " + nested + " AS v", "nested more than 64 levels deep");
}

TEST_F(SqlRowsTest, IdsAreChecked) {
  MakeParquet("r.parquet", "SELECT i % 4 AS id FROM range(6) t(i)");
  EXPECT_EQ(Fault("r.parquet"),
            "r.parquet:5: the id 0 is already that of the row 1\n"
            "r.parquet:6: the id 1 is already that of the row 2");
  ExpectFault("sql:SELECT NULL AS id", "sql:1: id: expected a string or a number, got null");
  ExpectFault("sql:SELECT [1] AS id", "got an array");
  ExpectFault("sql:SELECT 1 AS id, 2 AS id", "column 2, 'id', is there twice");
  ExpectFault("sql:SELECT unnest(['a', 'a']) AS id", "sql:2: the id \"a\"");
}

TEST_F(SqlRowsTest, MissingColumnsListWhatIsThere) {
  MakeParquet("r.parquet", "SELECT 1 AS id, 'x' AS text");
  for (const std::string spec : {"r.parquet", "sql:SELECT * FROM 'r.parquet'"}) {
    EXPECT_NE(
        Fault(spec, {"prompt"}).find("no row has the column 'prompt'; the columns are: id, text"),
        std::string::npos);
  }
}

TEST_F(SqlRowsTest, WhatIsNoParquetIsNamed) {
  Write("text.parquet", "id,prompt\n1,x and some more text\n");
  ExpectFault(
      "text.parquet",
      "text.parquet: it cannot be read as Parquet: Invalid Input Error: No magic bytes found");
  Write("empty.parquet", "");
  ExpectFault("empty.parquet", "File 'empty.parquet' too small to be a Parquet file");
  MakeParquet("r.parquet", "SELECT i AS id, md5(i::VARCHAR) AS prompt FROM range(20000) t(i)");
  const std::string whole = Contents("r.parquet");
  Write("cut.parquet", whole.substr(0, whole.size() / 2));
  ExpectFault("cut.parquet", "cut.parquet: ");
  ExpectFault("absent.parquet", "absent.parquet: cannot read the rows: No such file");
  // A page in the middle is broken: nothing has run yet when this is found.
  std::string broken = whole;
  for (size_t i = whole.size() / 3; i < whole.size() / 3 + 4000; ++i) broken[i] = '\xFF';
  Write("broken.parquet", broken);
  EXPECT_THROW(Open("broken.parquet"), Error);
}

TEST_F(SqlRowsTest, BytesAtRandomEndInRowsOrInAnError) {
  MakeParquet("r.parquet", "SELECT i AS id, [md5(i::VARCHAR)] AS prompt FROM range(500) t(i)");
  const std::string whole = Contents("r.parquet");
  uint64_t state = 12345;
  for (int round = 0; round < 100; ++round) {
    std::string bytes = whole;
    for (int change = 0; change < 4; ++change) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      bytes[(state >> 33) % bytes.size()] = static_cast<char>(state >> 20);
    }
    Write("mutated.parquet", bytes);
    try {
      EXPECT_LE(Read("mutated.parquet").size(), 1'000'000U);
    } catch (const Error& error) {
      EXPECT_FALSE(error.diagnostics().empty());
    }
  }
}

TEST_F(SqlRowsTest, ManyColumns) {
  std::string columns = "1 AS id";
  for (int i = 0; i < 10'000; ++i)
    columns += ", " + std::to_string(i) + " AS c" + std::to_string(i);
  MakeParquet("wide.parquet", "SELECT " + columns);
  const std::vector<Row> rows = Read("wide.parquet");
  EXPECT_EQ(rows.at(0).values.size(), 10'001U);
  EXPECT_EQ(rows.at(0).values.back(), 9'999);
  for (int i = 0; i < 7'000; ++i) columns += ", 1 AS d" + std::to_string(i);
  ExpectFault("sql:SELECT " + columns, "there are 17001 columns, and rows may have at most 16384");
}

TEST_F(SqlRowsTest, AParquetFileThatChangesAfterTheScanIsRefused) {
  MakeParquet("r.parquet", "SELECT i AS id FROM range(10) t(i)");
  const auto source = Open("r.parquet");
  MakeParquet("other.parquet", "SELECT i AS id FROM range(20) t(i)");
  Write("r.parquet", Contents("other.parquet"));
  try {
    source->Next();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_NE(std::string(error.what()).find("has changed since"), std::string::npos);
  }
}

TEST_F(SqlRowsTest, APathIsNoPattern) {
  MakeParquet("a.parquet", "SELECT 1 AS id");
  MakeParquet("pattern.parquet", "SELECT 2 AS id");
  std::filesystem::rename("pattern.parquet", "*.parquet");
  EXPECT_EQ(Read("*.parquet").at(0).id, 2);
  std::filesystem::create_directory("year=2024");
  MakeParquet("year=2024/it's.parquet", "SELECT 3 AS id");
  EXPECT_EQ(Read("year=2024/it's.parquet").at(0).values.dump(), R"({"id":3})");
}

TEST_F(SqlRowsTest, SqlReadsTheFilesThatItNames) {
  MakeParquet("a.parquet", "SELECT i AS id, 'row ' || i AS prompt FROM range(4) t(i)");
  Write("b.csv", "id,score\n1,2.5\n3,4.5\n");
  Write("c.json", "[{\"id\":2,\"tags\":[\"x\"]}]");
  Write("d.jsonl", "{\"id\":9,\"n\":{\"m\":true}}\n");
  std::filesystem::create_directory("parts");
  MakeParquet("parts/1.parquet", "SELECT 1 AS id");
  MakeParquet("parts/2.parquet", "SELECT 2 AS id");
  const auto dump = [&](const std::string& sql) {
    std::string text;
    for (const Row& row : Read("sql:" + sql)) text += row.values.dump();
    return text;
  };
  EXPECT_EQ(dump("WITH a AS (FROM 'a.parquet') SELECT id, score, prompt FROM a JOIN 'b.csv' USING "
                 "(id) ORDER BY id DESC; -- the end"),
            R"({"id":3,"score":4.5,"prompt":"row 3"}{"id":1,"score":2.5,"prompt":"row 1"})");
  EXPECT_EQ(dump("WITH \"a.b\" AS (SELECT 1 AS v) FROM \"a.b\""), R"({"v":1})");
  EXPECT_EQ(dump("SELECT * FROM read_json('c.json')"), R"({"id":2,"tags":["x"]})");
  EXPECT_EQ(dump("SELECT n.m AS v FROM 'd.jsonl'"), R"({"v":true})");
  EXPECT_EQ(dump("FROM Read_Parquet(['parts/1.parquet', 'parts/2.parquet'])"),
            R"({"id":1}{"id":2})");
  EXPECT_EQ(dump("SELECT id FROM 'parts/*.parquet' ORDER BY 1"), R"({"id":1}{"id":2})");
  EXPECT_EQ(dump("SELECT (SELECT max(id) FROM 'a.parquet') AS m"), R"({"m":3})");
  EXPECT_EQ(dump("SELECT * FROM '" + folder_ + "/parts/1.parquet'"), R"({"id":1})");
  EXPECT_EQ(dump("VALUES (1), (2)"), R"({"col0":1}{"col0":2})");
  const auto source = Open("sql:SELECT * FROM 'parts/*.parquet'");
  EXPECT_EQ(source->files(), (std::vector<std::string>{"parts/1.parquet", "parts/2.parquet"}));
}

TEST_F(SqlRowsTest, OurReadersAgreeWithDuckDbOnOrdinaryFiles) {
  Write("r.json",
        "[\n  {\"id\": \"a\", \"n\": 1, \"x\": -2.5, \"l\": [1, 2], \"s\": {\"b\": true}},\n"
        "  {\"id\": \"b\", \"n\": 2, \"x\": 1e10, \"l\": [], \"s\": {\"b\": null}}\n]\n");
  Write("r.jsonl", "{\"id\":1,\"t\":\"\\u00fc\"}\n\n{\"id\":2,\"t\":\"two\\nlines\"}\n");
  Write("r.csv", "id,t\nx,\"a, \"\"b\"\"\"\ny,\"two\nlines\"\n");
  for (const std::string file : {"r.json", "r.jsonl", "r.csv"}) {
    const std::vector<Row> ours = Read(file);
    const std::vector<Row> theirs = Read("sql:FROM '" + file + "'");
    ASSERT_EQ(ours.size(), theirs.size()) << file;
    for (size_t i = 0; i < ours.size(); ++i) EXPECT_EQ(ours[i].values, theirs[i].values) << file;
    EXPECT_EQ(Open(file)->columns(), Open("sql:FROM '" + file + "'")->columns());
  }
}

TEST_F(SqlRowsTest, AQueryIsRunOnce) {
  const auto source = Open("sql:SELECT i AS id, random() AS r FROM range(100) t(i)");
  const auto again = OpenRows({source->reread_spec(), {}, -1, spool_});
  EXPECT_TRUE(source->reread_spec().starts_with(spool_));
  while (auto row = source->Next()) EXPECT_EQ(again->Next()->values, row->values);
  EXPECT_FALSE(again->Next());
  EXPECT_NE(Open("sql:SELECT 1 AS id")->reread_spec(), source->reread_spec());
}

TEST_F(SqlRowsTest, WhatDoesNotFitInMemoryIsSpilled) {
  const auto source = Open(
      "sql:SELECT i AS id, repeat(md5(i::VARCHAR), 30) AS p FROM range(900000) t(i) ORDER BY "
      "p DESC",
      {}, 1000);
  EXPECT_EQ(source->total(), 1000);
  for (const auto& entry : std::filesystem::directory_iterator(spool_))
    EXPECT_NE(entry.path().string().find("sql.jsonl"), std::string::npos) << entry.path();
}

TEST_F(SqlRowsTest, MistakesInSqlHaveTheirPlace) {
  ExpectFault("sql:SELCT 1",
              "sql: Parser Error: syntax error at or near \"SELCT\"\n\n"
              "LINE 1: SELCT 1\n        ^");
  ExpectFault("sql:SELECT promt FROM (SELECT 1 AS prompt)", "Referenced column \"promt\"");
  ExpectFault("sql:SELECT 'x'::INT AS n", "Could not convert string 'x' to INT32");
  ExpectFault("sql:", "expected a SELECT behind sql:, got nothing");
  ExpectFault("sql: ;", "sql: ");
  ExpectFault("sql:SELECT $1", "sql: ");
  ExpectFault("sql:SELECT 1; SELECT 2", "expected one SELECT, got 2 statements");
  ExpectFault(std::string("sql:SELECT 1\0 AS v", 18), "NUL");
  ExpectFault("sql:SELECT * FROM 'absent.parquet'", "sql: there is no file 'absent.parquet'");
  ExpectFault("sql:SELECT * FROM read_csv('*.absent')", "sql: there is no file '*.absent'");
  ExpectFault("sql:SELECT * FROM absent", "Table with name absent does not exist");
  Write("bad.csv", "id,prompt\n1,\xFF\xFE\n");
  ExpectFault("sql:SELECT * FROM read_csv('bad.csv', header = true)", "sql: ");
}

class SqlRefusal : public SqlRowsTest, public testing::WithParamInterface<const char*> {};

/// Nothing outside is read, nothing at all is written, no setting changes.
TEST_P(SqlRefusal, DoesNothing) {
  MakeParquet("a.parquet", "SELECT 1 AS id");
  const std::string a = Contents("a.parquet");
  Write("names.csv", "name\n../outside.csv\n");
  std::string sql = GetParam();
  const std::string fault = Fault("sql:" + sql);
  EXPECT_EQ(fault.find("hidden"), std::string::npos) << fault;
  EXPECT_TRUE(fault.starts_with("sql: ")) << fault;
  EXPECT_EQ(Contents("a.parquet"), a);
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root_))
    if (entry.is_regular_file()) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"a.parquet", "names.csv", "outside.csv"}));
}

INSTANTIATE_TEST_SUITE_P(
    Statements, SqlRefusal,
    testing::Values("COPY (SELECT 1) TO 'n.parquet'", "COPY (FROM 'a.parquet') TO 'a.parquet'",
                    "COPY 'a.parquet' TO 'b.csv'", "ATTACH 'n.db'", "ATTACH 'a.parquet' AS x",
                    "INSTALL httpfs", "LOAD httpfs", "LOAD 'a.parquet'", "SET threads = 4",
                    "SET enable_external_access = true", "RESET lock_configuration",
                    "PRAGMA threads = 4", "PRAGMA enable_profiling",
                    "CREATE TABLE t AS FROM 'a.parquet'", "DROP VIEW duckdb_logs",
                    "EXPORT DATABASE 'n'", "IMPORT DATABASE 'n'", "CALL range(3)",
                    "EXPLAIN SELECT 1", "CREATE SECRET (TYPE s3)", "PREPARE p AS SELECT 1",
                    "USE memory", "BEGIN", "SELECT 1; COPY (SELECT 1) TO 'n.csv'", "CHECKPOINT",
                    "VACUUM", "SELECT 1 INTO t", "SELECT 1) TO 'n.csv' --"));

INSTANTIATE_TEST_SUITE_P(
    Selects, SqlRefusal,
    testing::Values(
        "SELECT * FROM read_text('../outside.csv')", "SELECT * FROM read_blob('a.parquet')",
        "SELECT * FROM glob('/*')", "SELECT * FROM read_csv('../out' || 'side.csv')",
        "SELECT * FROM read_csv(getvariable('x'))",
        "SELECT * FROM read_csv((SELECT name FROM 'names.csv'))",
        "SELECT * FROM 'names.csv' n, read_csv(n.name)",
        "SELECT * FROM query('FROM read_csv(''../outside.csv'')')",
        "SELECT * FROM query_table('../outside.csv')",
        "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('FROM ''../outside.csv'''))",
        "SELECT * FROM enable_logging('QueryLog', storage = 'file', storage_path = 'logs')",
        "SELECT * FROM main.enable_logging('QueryLog')", "SELECT * FROM checkpoint()",
        "SELECT * FROM sql_auto_complete('FROM ''/')", "SELECT * FROM sniff_csv('names.csv')",
        "SELECT * FROM 'https://example.invalid/a.parquet'",
        "SELECT * FROM read_parquet('s3://bucket/a.parquet')",
        "SELECT * FROM read_csv(['names.csv', 'http://example.invalid/a.csv'])",
        "SELECT * FROM 'file:///etc/hostname'", "SELECT getenv('HOME')",
        "WITH x AS (SELECT * FROM read_text('../outside.csv')) SELECT 1",
        "SELECT 1 WHERE EXISTS (FROM read_text('../outside.csv'))"));

}  // namespace
}  // namespace halo
