#include "workflow/rows.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <thread>

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

/// A folder of its own for every test.
class RowsTest : public testing::Test {
 protected:
  RowsTest() {
    std::string pattern = testing::TempDir() + "/rowsXXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~RowsTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& text) const {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }

  static std::vector<Row> ReadAll(RowSource& source) {
    std::vector<Row> rows;
    while (auto row = source.Next()) rows.push_back(std::move(*row));
    return rows;
  }

  std::vector<Row> Read(const std::string& name, const std::string& text,
                        int64_t limit = -1) const {
    const auto source = OpenRows({Write(name, text), {}, limit, ""});
    std::vector<Row> rows = ReadAll(*source);
    EXPECT_EQ(source->total(), static_cast<int64_t>(rows.size()));
    return rows;
  }

  /// Expects "LINE:COL: part" for each, COL left out where it is not known.
  void ExpectFaults(const std::string& name, const std::string& text,
                    const std::vector<std::string>& expected,
                    const std::vector<std::string>& required = {}) const {
    const std::string path = Write(name, text);
    try {
      OpenRows({path, required, -1, ""});
      FAIL() << "no fault was found in: " << text.substr(0, 200);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kRows);
      ASSERT_EQ(error.diagnostics().size(), expected.size()) << error.what();
      for (size_t i = 0; i < expected.size(); ++i) {
        Diagnostic fault = error.diagnostics()[i];
        EXPECT_EQ(fault.location.file, path);
        fault.location.file = "@";
        EXPECT_TRUE(fault.ToString().starts_with("@:" + expected[i]))
            << fault.ToString() << "\nexpected " << expected[i];
      }
    }
  }

  std::string folder_;
};

TEST_F(RowsTest, JsonLines) {
  const std::vector<Row> rows =
      Read("r.jsonl",
           "\xEF\xBB\xBF{\"id\":\"a\",\"prompt\":\"x\"}\r\n\r\n  \n"
           "{\"prompt\":[\"p\",\"q\"],\"n\":{\"z\":1,\"a\":2.5}}\n{\"id\":7}");
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].id, "a");
  EXPECT_EQ(rows[0].index, 0);
  EXPECT_EQ(rows[1].id, 1);
  EXPECT_EQ(rows[1].values.dump(), R"({"prompt":["p","q"],"n":{"z":1,"a":2.5}})");
  EXPECT_EQ(rows[2].id, 7);
  EXPECT_FALSE(rows[2].failure);
}

TEST_F(RowsTest, WholeNumbersKeepAllTheirDigits) {
  const std::vector<Row> rows =
      Read("r.jsonl",
           "{\"a\":18446744073709551615,\"b\":-9223372036854775808}\n"
           "{\"a\":18446744073709551616,\"b\":[-123456789012345678901234567890],\"c\":1e30}\n");
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].values.dump(), R"({"a":18446744073709551615,"b":-9223372036854775808})");
  EXPECT_EQ(rows[1].values.dump(),
            R"({"a":"18446744073709551616","b":["-123456789012345678901234567890"],"c":1e+30})");
}

TEST_F(RowsTest, JsonLinesColumnsInOrderOfAppearance) {
  const auto source = OpenRows({Write("r.jsonl", "{\"b\":1}\n{\"a\":1,\"b\":2}\n"), {}, -1, ""});
  EXPECT_EQ(source->columns(), (std::vector<std::string>{"b", "a"}));
  EXPECT_EQ(source->total(), 2);
}

TEST_F(RowsTest, EmptyInputsAreZeroRows) {
  EXPECT_TRUE(Read("r.jsonl", "").empty());
  EXPECT_TRUE(Read("r.jsonl", "\n\n").empty());
  EXPECT_TRUE(Read("r.json", "[]").empty());
  EXPECT_TRUE(Read("r.csv", "").empty());
  EXPECT_TRUE(Read("r.csv", "id,prompt\n").empty());
  EXPECT_NO_THROW(OpenRows({Write("r.jsonl", ""), {"prompt"}, -1, ""}));
}

TEST_F(RowsTest, MalformedJsonLinesAreAllNamed) {
  ExpectFaults(
      "r.jsonl",
      "{\"prompt\": \"ok\"}\n"
      "{\"prompt\": }\n"
      "[1]\n"
      "\n"
      "{\"a\": 1, \"b\\\"\": 2, \"b\\\"\": 3}\n"
      "\"text\"\n"
      "{\"prompt\": \"\xC3\x28\"}\n"
      "{\"id\": null}\n"
      "{\"id\": [1]}\n"
      "{\"id\": 123456789012345678901234567890}\n"
      "{\"a\": 1} x\n"
      "{\"a\": 1e999}\n"
      "{\"a\": \"\\ud800\"}\n",
      {"2:12: not valid JSON: syntax error", "3:1: expected a row as an object, got an array",
       "5:20: the key 'b\"' is given twice", "6:1: expected a row as an object, got string",
       "7:13: not UTF-8", "8:2: id: expected a string or a number, got null",
       "9:2: id: expected a string or a number, got an array",
       "10:2: id: a whole number of more than 64 bits", "11:10: not valid JSON",
       "12:11: not valid JSON: number overflow", "13:14: not valid JSON"});
}

TEST_F(RowsTest, DepthAndLineLengthAreBounded) {
  const std::string open(63, '[');
  const std::string close(63, ']');
  EXPECT_EQ(Read("r.jsonl", "{\"a\":" + open + close + "}\n").size(), 1U);
  ExpectFaults("r.jsonl", "{\"a\":[" + open + close + "]}\n",
               {"1:69: nested more than 64 levels deep"});
  ExpectFaults("r.jsonl", "{\"a\":" + std::string(1 << 20, '[') + "\n", {"1:69: nested more"});
  ExpectFaults("r.jsonl", "{\"a\":1}\n" + std::string((64 << 20) + 2, 'x') + "\n{\"b\":\n",
               {"2: the line has more than 64 MiB", "3:6: not valid JSON"});
}

TEST_F(RowsTest, AnObjectWithManyKeysIsReadInLinearTime) {
  std::string line = "{\"id\":1";
  for (int i = 0; i < 200'000; ++i) line += ",\"k" + std::to_string(i) + "\":1";
  EXPECT_EQ(Read("r.jsonl", line + "}\n")[0].values.size(), 200'001U);
  ExpectFaults("r.jsonl", line + ",\"k77\":1}\n", {"1:2288899: the key 'k77' is given twice"});
}

TEST_F(RowsTest, DuplicateIdsNameBothLines) {
  ExpectFaults("r.jsonl",
               "{\"id\":\"a\"}\n\n{\"p\":1, \"id\":\"a\"}\n{\"id\":\"1\"}\n{\"id\":1}\n{\"p\":2}\n",
               {"3:9: the id \"a\" is already that of the row at line 1"});
  ExpectFaults("r.jsonl", "{\"id\":1}\n{\"p\":1}\n",
               {"2:1: this row has no id and is called by its index, 1, which is already the id of "
                "the row at line 1"});
  ExpectFaults("r.json", "[{\"id\":1},\n {\"id\":2},\n {\"id\":1}]",
               {"3:3: the id 1 is already that of the row at line 1"});
  ExpectFaults("r.csv", "id,p\n1,\"a\nb\"\n\n2,x\n1,y\n",
               {"6: the id \"1\" is already that of the row at line 2"});
}

TEST_F(RowsTest, MissingColumnsListWhatIsThere) {
  ExpectFaults("r.jsonl", "{\"id\":1,\"promt\":\"x\"}\n{\"id\":2,\"promt\":\"y\"}\n",
               {"1:1: no row has the column 'prompt' (did you mean 'promt'?); the columns are: id, "
                "promt"},
               {"prompt"});
  ExpectFaults("r.jsonl", "{\"prompt\":\"x\"}\n{\"title\":\"y\",\"b\":1}\n{}\n",
               {"2:1: row at line 2 has no column 'prompt'; it has: title, b",
                "3:1: row at line 3 has no column 'prompt'; it has: nothing"},
               {"prompt"});
  ExpectFaults("r.csv", "id,text\n1,x\n",
               {"1: no row has the column 'prompt'; the columns are: id, text"}, {"prompt"});
}

TEST_F(RowsTest, AtMostAHundredFaultsThenACount) {
  std::string text;
  for (int i = 0; i < 250; ++i) text += "{\n";
  const std::string path = Write("r.jsonl", text);
  try {
    OpenRows({path, {}, -1, ""});
    FAIL();
  } catch (const Error& error) {
    ASSERT_EQ(error.diagnostics().size(), 101U);
    EXPECT_EQ(error.diagnostics()[99].location.line, 100);
    EXPECT_EQ(error.diagnostics()[100].message, "and 150 more faults");
  }
}

TEST_F(RowsTest, OnlyTheRowsUpToTheLimitNeedToBeValid) {
  EXPECT_EQ(Read("r.jsonl", "{\"a\":1}\n\n{\"a\":2}\nbroken\n", 2).size(), 2U);
  EXPECT_EQ(Read("r.json", "[{\"a\":1},{\"a\":2},3, broken", 2).size(), 2U);
  EXPECT_EQ(Read("r.csv", "a,b\n1,2\n3,4\n5\n", 2).size(), 2U);
  EXPECT_TRUE(Read("r.jsonl", "broken\n", 0).empty());
  EXPECT_TRUE(Read("r.json", "broken\n", 0).empty());
  EXPECT_EQ(Read("r.jsonl", "{\"a\":1}\n", 5).size(), 1U);
}

TEST_F(RowsTest, JsonArrays) {
  const std::vector<Row> rows =
      Read("r.json", "\xEF\xBB\xBF[\n  {\"id\": \"a\", \"list\": [1, {\"b\": []}]},\n  {}\n]\n");
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].values.dump(), R"({"id":"a","list":[1,{"b":[]}]})");
  EXPECT_EQ(rows[1].id, 1);
  ExpectFaults("r.json", "[{\"a\":1},\n 5, [2],\n {\"b\":1,\n\"b\":2},\n {\"id\":true}]",
               {"2:2: expected a row as an object, got number",
                "2:5: expected a row as an object, got an array", "4:1: the key 'b' is given twice",
                "5:3: id: expected a string"});
  ExpectFaults("r.json", "{\"a\":1}", {"1:1: expected an array of objects"});
  ExpectFaults("r.json", "[{\"a\":1}\n {\"a\":2}]", {"2:2: not valid JSON"});
  ExpectFaults("r.json", "", {"1:1: not valid JSON"});
  // What is broken in one row does not hide the next; what is broken between rows ends the reading.
  ExpectFaults(
      "r.json",
      "[{\"a\": },\n {\"b\": \"x\ny\"},\n{\"c\": \"}]\\\"\", \"d\": tru},\n\"x\",,{\"e\":1}]",
      {"1:8: not valid JSON", "2:10: not valid JSON", "4:23: not valid JSON",
       "5:1: expected a row as an object", "5:5: not valid JSON: expected a row"});
  ExpectFaults("r.json", "[{\"a\":1},]", {"1:10: not valid JSON: expected a row"});
  ExpectFaults("r.json", "[{\"a\":1}", {"1:9: not valid JSON: expected a comma or the end"});
  ExpectFaults("r.json", "[{\"a\":1}] x", {"1:11: not valid JSON: expected nothing behind"});
  ExpectFaults("r.json", "[", {"1:2: not valid JSON: expected a row"});
  ExpectFaults("r.json", "[{\"a\":[1}",
               {"1:9: not valid JSON", "1:10: not valid JSON: expected a comma"});
  ExpectFaults("r.json", "[" + std::string(1 << 20, '['),
               {"1:66: nested more than 64", "1:1048578: not valid JSON: expected a comma"});
  ExpectFaults("r.json", "[{\"a\":\"" + std::string((64 << 20) + 1, 'x') + "\"}]",
               {"1:2: the row that begins here has more than 64 MiB"});
}

TEST_F(RowsTest, JsonArraysAreReadElementByElement) {
  std::string text = " [ ";
  std::string lines;
  for (int i = 0; i < 30'000; ++i) {
    const std::string row = R"({"id":)" + std::to_string(i) + R"(,"p":"]}\\\"{[,","l":[{"x":[]}]})";
    text += (i > 0 ? ",\r\n" : "") + row;
    lines += row + "\n";
  }
  const std::vector<Row> array = Read("r.json", text + "\n]\n");
  const std::vector<Row> flat = Read("r.jsonl", lines);
  ASSERT_EQ(array.size(), flat.size());
  for (size_t i = 0; i < array.size(); ++i) EXPECT_EQ(array[i].values, flat[i].values);
}

TEST_F(RowsTest, Csv) {
  const std::vector<Row> rows = Read(
      "r.csv",
      "\xEF\xBB\xBFid,prompt,note\r\n1,\"a, \"\"b\"\"\r\nnext line\",\r\n\r\n2,x y,\"\"\r\n,ü, z");
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].id, "1");
  EXPECT_EQ(rows[0].values.dump(), R"({"id":"1","prompt":"a, \"b\"\r\nnext line","note":""})");
  EXPECT_EQ(rows[1].values.dump(), R"({"id":"2","prompt":"x y","note":""})");
  EXPECT_EQ(rows[2].values.dump(), R"({"id":"","prompt":"ü","note":" z"})");
  EXPECT_EQ(Read("R.CSV", "only\na\n\nb\n").size(), 2U);
}

TEST_F(RowsTest, MalformedCsvIsAllNamed) {
  ExpectFaults("r.csv",
               "id,prompt\n"
               "1\n"
               "2,a,b\n"
               "3,\"un\"closed\n"
               "4,a\"b\n"
               "5,b\xFF\n"
               "6,\"two\nlines\",x\n"
               "7,a\rb\n"
               "8,ok\n"
               "9,\"last",
               {"2:1: expected 2 fields, as in the header, got 1",
                "3:1: expected 2 fields, as in the header, got 3",
                "4:7: expected a comma or the end of the line after the closing quote",
                "5:4: a quote inside a field without quotes", "6:3: not UTF-8",
                "7:1: expected 2 fields, as in the header, got 3",
                "9:4: a carriage return without a line feed", "11:3: this quote is never closed"});
  ExpectFaults(
      "r.csv", "id,,id\n1,2,3\n",
      {"1: column 2 of the header has no name", "1: column 3 of the header, 'id', is there"});
  ExpectFaults("r.csv", "\"id\n", {"1:1: this quote is never closed"});
  ExpectFaults("r.csv", "a\n" + std::string(20'000, ',') + "\nb\n",
               {"2:16385: the row has more than 16384 fields"});
}

TEST_F(RowsTest, LongCsvFieldsCrossReadBuffers) {
  const std::string field(700'001, 'x');
  std::string text = "id,p\n";
  for (int i = 0; i < 5; ++i) text += std::to_string(i) + ",\"" + field + "\"\"\"\r\n";
  const std::vector<Row> rows = Read("r.csv", text);
  ASSERT_EQ(rows.size(), 5U);
  for (const Row& row : rows) EXPECT_EQ(row.values["p"], field + "\"");
}

TEST_F(RowsTest, AFileThatChangesAfterTheScanIsRefused) {
  for (const std::string name : {"r.jsonl", "r.csv", "r.json"}) {
    const bool csv = name == "r.csv";
    const bool array = name == "r.json";
    const std::string path = Write(name, csv     ? "a\n1\n2\n"
                                         : array ? "[{\"a\":1}]"
                                                 : "{\"a\":1}\n{\"a\":2}\n");
    const auto source = OpenRows({path, {}, -1, ""});
    std::ofstream(path, std::ios::app) << (csv ? "3\n" : "{\"a\":3}\n");
    try {
      source->Next();
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kIo);
      EXPECT_NE(std::string(error.what()).find("has changed since it was checked"),
                std::string::npos);
    }
  }
  const std::string path = Write("r.jsonl", "{\"a\":1}\n{\"a\":2}\n");
  const auto source = OpenRows({path, {}, -1, ""});
  EXPECT_TRUE(source->Next());
  std::filesystem::resize_file(path, 8);
  EXPECT_TRUE(source->Next());  // is in the read buffer
  EXPECT_THROW(source->Next(), Error);
}

TEST_F(RowsTest, SpecsThatAreNotRows) {
  const auto code_of = [](const std::string& spec) {
    try {
      OpenRows({spec, {}, -1, ""});
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(spec.starts_with("/dev") ? "regular" : "."),
                std::string::npos);
      return error.code();
    }
    return ErrorCode::kConfig;
  };
  EXPECT_EQ(code_of("absent.parquet"), ErrorCode::kRows);
  EXPECT_EQ(code_of("rows.txt"), ErrorCode::kUsage);
  EXPECT_EQ(code_of(folder_ + "/absent.jsonl"), ErrorCode::kRows);
  std::filesystem::create_directory(folder_ + "/folder.jsonl");
  EXPECT_EQ(code_of(folder_ + "/folder.jsonl"), ErrorCode::kRows);
}

TEST_F(RowsTest, StandardInputComesThroughAPipeAndIsSpooled) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  const std::string text =
      "{\"id\":\"a\",\"prompt\":\"x\"}\r\n\nbroken\n{\"id\":\"a\",\"prompt\":\"y\"}\n"
      "{\"prompt\":\"z\"}\n{\"id\":{},\"prompt\":\"z\"}\n{\"id\":9}\n{\"prompt\":\"last\"}";
  std::thread writer([&] {
    for (const char c : text) {  // in the smallest parts
      ASSERT_EQ(write(ends[1], &c, 1), 1);
    }
    close(ends[1]);
  });
  const auto source = OpenRows({"-", {"prompt"}, -1, folder_, ends[0]});
  EXPECT_EQ(source->total(), -1);
  const std::vector<Row> rows = ReadAll(*source);
  writer.join();
  close(ends[0]);
  ASSERT_EQ(rows.size(), 7U);
  EXPECT_EQ(rows[0].id, "a");
  EXPECT_EQ(rows[1].id, "line:3");
  EXPECT_EQ(rows[1].failure->code, "bad_row");
  EXPECT_NE(rows[1].failure->message.find("line 3: column 1: not valid JSON"), std::string::npos);
  EXPECT_EQ(rows[2].id, "line:4");
  EXPECT_EQ(rows[2].failure->code, "duplicate_id");
  EXPECT_NE(rows[2].failure->message.find("line 1"), std::string::npos);
  EXPECT_EQ(rows[3].id, 3);
  EXPECT_EQ(rows[4].failure->code, "bad_row");
  EXPECT_NE(rows[5].failure->message.find("has no column 'prompt'; it has: id"), std::string::npos);
  EXPECT_EQ(rows[6].values["prompt"], "last");
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i].index, static_cast<int64_t>(i));
  EXPECT_EQ(source->columns(), (std::vector<std::string>{"id", "prompt"}));
  std::ifstream spool(folder_ + "/stdin.jsonl", std::ios::binary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(spool), {}), text);
}

TEST_F(RowsTest, StandardInputIsReadyWhenARowIsWholeOrNoMoreCanCome) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  const auto say = [&](const std::string& text) {
    ASSERT_EQ(write(ends[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  };
  const auto source = OpenRows({"-", {}, -1, folder_, ends[0]});
  EXPECT_FALSE(source->Ready(0));
  say("{\"prompt\": \"a");
  EXPECT_FALSE(source->Ready(1000)) << "half a line";
  say("\"}\n \n");
  EXPECT_TRUE(source->Ready(0));
  EXPECT_EQ(source->Next()->values["prompt"], "a");
  EXPECT_FALSE(source->Ready(0)) << "a blank line is no row";
  say("{\"prompt\": \"b\"}");
  EXPECT_FALSE(source->Ready(0));
  close(ends[1]);
  EXPECT_TRUE(source->Ready(0));
  EXPECT_EQ(source->Next()->values["prompt"], "b");
  EXPECT_TRUE(source->Ready(0));
  EXPECT_FALSE(source->Next().has_value());
  close(ends[0]);
}

TEST_F(RowsTest, StandardInputGivesARowBeforeTheNextOneIsWritten) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  const auto source = OpenRows({"-", {}, 2, folder_, ends[0]});
  for (const std::string line : {"{\"a\":1}\n", "{\"a\":2}\n"}) {
    ASSERT_EQ(write(ends[1], line.data(), line.size()), static_cast<ssize_t>(line.size()));
    ASSERT_TRUE(source->Next());
  }
  EXPECT_FALSE(source->Next());  // the limit: does not wait for more
  close(ends[0]);
  close(ends[1]);
  EXPECT_THROW(OpenRows({"-", {}, -1, folder_ + "/absent", 0}), Error);
}

TEST_F(RowsTest, RowsFromMemory) {
  const auto source = RowsFromValues({Json{{"id", "a"}}, Json{{"prompt", "x"}}});
  EXPECT_EQ(source->total(), 2);
  EXPECT_EQ(source->Next()->id, "a");
  EXPECT_EQ(source->Next()->id, 1);
  EXPECT_FALSE(source->Next());
  EXPECT_THROW(RowsFromValues({Json(3)}), Error);
  EXPECT_THROW(RowsFromValues({Json{{"id", "a"}}, Json{{"id", "a"}}}), Error);
}

TEST_F(RowsTest, ShippedRowsCanBeRead) {
  const std::string folder = std::string(HALO_SOURCE_DIR) + "/workflows/rows/";
  for (const std::string name :
       {"questions.jsonl", "reviews.jsonl", "conversations.jsonl", "customer_messages.jsonl"}) {
    const auto source = OpenRows({folder + name, {"id", "prompt"}, -1, ""});
    EXPECT_EQ(source->total(), 64) << name;
    while (auto row = source->Next()) {
      EXPECT_EQ(row->values["prompt"].is_array(), name == "conversations.jsonl");
    }
  }
}

}  // namespace
}  // namespace halo
