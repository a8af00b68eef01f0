#include "runtime/result_sink.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <thread>

#include "workflow/rows.h"

namespace halo {
namespace {

class ResultSinkTest : public testing::Test {
 protected:
  ResultSinkTest() {
    std::string pattern = testing::TempDir() + "/sinkXXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~ResultSinkTest() override { std::filesystem::remove_all(folder_); }

  static std::string Contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  static RowResult GoodRow() {
    RowResult row;
    row.id = "a";
    row.outputs = {{"z", "text, \"quoted\"\nline"}, {"b", nlohmann::ordered_json{{"k", 1}}}};
    row.prompt_tokens = 12;
    row.output_tokens = 3;
    return row;
  }

  static RowResult FailedRow() {
    RowResult row;
    row.index = 1;
    row.id = 7;
    row.outputs = {{"z", nullptr}};
    row.skipped = {"b"};
    row.failure = Failure{"z", "prompt_too_long", "5 tokens too many", false};
    return row;
  }

  std::string folder_;
};

TEST_F(ResultSinkTest, JsonLinesAppearByRename) {
  const std::string path = folder_ + "/out.jsonl";
  const auto sink = OpenResultSink(path, {"z", "b"}, 1);
  sink->Write(GoodRow());
  sink->Write(FailedRow());
  sink->Flush();
  EXPECT_FALSE(std::filesystem::exists(path));
  const std::string expected =
      R"({"id":"a","status":"ok","outputs":{"z":"text, \"quoted\"\nline","b":{"k":1}},"error":null,)"
      R"("usage":{"prompt_tokens":12,"output_tokens":3}})"
      "\n"
      R"({"id":7,"status":"failed","outputs":{"z":null},"skipped":["b"],"error":{"operator":"z",)"
      R"("code":"prompt_too_long","message":"5 tokens too many"},)"
      R"("usage":{"prompt_tokens":0,"output_tokens":0}})"
      "\n";
  EXPECT_EQ(Contents(path + ".part"), expected);
  sink->Finish();
  sink->Finish();
  EXPECT_EQ(Contents(path), expected);
  EXPECT_FALSE(std::filesystem::exists(path + ".part"));
}

TEST_F(ResultSinkTest, WithoutFinishOnlyThePartIsLeft) {
  const std::string path = folder_ + "/out.jsonl";
  std::ofstream(path) << "old\n";
  OpenResultSink(path, {}, 1)->Write(GoodRow());
  EXPECT_EQ(Contents(path), "old\n");
  EXPECT_TRUE(Contents(path + ".part").starts_with("{\"id\":\"a\""));
}

TEST_F(ResultSinkTest, OneAtATimeWritesAFile) {
  for (const std::string name : {"out.jsonl", "out.parquet"}) {
    const std::string path = folder_ + "/" + name;
    auto first = OpenResultSink(path, {"z", "b"}, 1);
    first->Write(GoodRow());
    first->Flush();
    const std::string part = Contents(path + ".part");
    try {
      OpenResultSink(path, {"z", "b"}, 1);
      ADD_FAILURE() << name << " has two writers";
    } catch (const Error& error) {
      EXPECT_EQ(
          std::string(error.what()),
          path + ".part: another run writes to this file: wait for it, or give another place");
    }
    EXPECT_EQ(Contents(path + ".part"), part);
    first->Finish();
    EXPECT_TRUE(std::filesystem::exists(path));
    OpenResultSink(path, {"z", "b"}, 1)->Write(GoodRow());  // and is not finished
    OpenResultSink(path, {"z", "b"}, 1)->Finish();
  }
}

TEST_F(ResultSinkTest, CsvIsQuoted) {
  const std::string path = folder_ + "/out.csv";
  const auto sink = OpenResultSink(path, {"b", "z", "a,b"}, 1);
  sink->Write(GoodRow());
  sink->Write(FailedRow());
  sink->Finish();
  EXPECT_EQ(Contents(path),
            "id,status,b,z,\"a,b\",error_operator,error_code,error_message,prompt_tokens,"
            "output_tokens\n"
            "a,ok,\"{\"\"k\"\":1}\",\"text, \"\"quoted\"\"\nline\",,,,,12,3\n"
            "7,failed,,,,z,prompt_too_long,5 tokens too many,0,0\n");
}

TEST_F(ResultSinkTest, TextThatIsNotUtf8IsRepaired) {
  RowResult row = GoodRow();
  row.outputs = {{"z", "\xC3("}};
  for (const std::string ending : {".jsonl", ".csv"}) {
    const std::string path = folder_ + "/out" + ending;
    const auto sink = OpenResultSink(path, {"z"}, 1);
    sink->Write(row);
    sink->Finish();
    EXPECT_NE(Contents(path).find("\xEF\xBF\xBD("), std::string::npos);
  }
}

std::vector<nlohmann::ordered_json> ReadParquet(const std::string& path) {
  const auto source = OpenRows({path, {}, -1, ""});
  std::vector<nlohmann::ordered_json> rows;
  while (auto row = source->Next()) rows.push_back(std::move(row->values));
  return rows;
}

TEST_F(ResultSinkTest, ParquetIsMadeOfTheLinesAtTheEnd) {
  const std::string path = folder_ + "/out.parquet";
  const auto sink = OpenResultSink(path, {"z", "b", "a,\"b"}, 1);
  sink->Write(GoodRow());
  sink->Write(FailedRow());
  sink->Flush();
  EXPECT_TRUE(Contents(path + ".part").starts_with("{\"id\":\"a\",\"status\":\"ok\""))
      << "can be read";
  EXPECT_FALSE(std::filesystem::exists(path));
  sink->Finish();
  sink->Finish();
  const auto rows = ReadParquet(path);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].dump(),
            R"({"id":"a","status":"ok","z":"text, \"quoted\"\nline","b":"{\"k\":1}","a,\"b":null,)"
            R"("skipped":[],"error_operator":null,"error_code":null,"error_message":null,)"
            R"("prompt_tokens":12,"output_tokens":3})");
  EXPECT_EQ(rows[1].dump(),
            R"({"id":"7","status":"failed","z":null,"b":null,"a,\"b":null,"skipped":["b"],)"
            R"("error_operator":"z","error_code":"prompt_too_long",)"
            R"("error_message":"5 tokens too many","prompt_tokens":0,"output_tokens":0})");
  for (const auto& entry : std::filesystem::directory_iterator(folder_))
    EXPECT_EQ(entry.path().filename(), "out.parquet");
}

TEST_F(ResultSinkTest, ParquetIdsAreNumbersWhereAllAre) {
  const std::string path = folder_ + "/it's 100%.parquet";
  const auto write = [&](const std::vector<nlohmann::ordered_json>& ids) {
    const auto sink = OpenResultSink(path, {"z"}, 1);
    for (const auto& id : ids) {
      RowResult row = GoodRow();
      row.id = id;
      sink->Write(row);
    }
    sink->Finish();
    std::string text;
    for (const auto& row : ReadParquet(path)) text += row["id"].dump() + " ";
    return text;
  };
  EXPECT_EQ(write({1, -5, INT64_MAX}), "1 -5 9223372036854775807 ");
  EXPECT_EQ(write({1, "1x"}), "\"1\" \"1x\" ");
  EXPECT_EQ(write({1, 1.5}), "\"1\" \"1.5\" ");
  EXPECT_EQ(write({UINT64_MAX}), "\"18446744073709551615\" ");
  EXPECT_EQ(write({}), "");
}

TEST_F(ResultSinkTest, ParquetKeepsOrderAndTextOverManyRowGroups) {
  const std::string path = folder_ + "/out.parquet";
  const auto sink = OpenResultSink(path, {"z"}, 1);
  constexpr int kRows = 20'000;
  const std::string filling(8'000, 'x');  // so that a row group holds some 8,000 rows
  for (int i = 0; i < kRows; ++i) {
    RowResult row;
    row.id = i;
    row.outputs = {{"z", std::to_string(i) + std::string("\0\xC3(", 3) + filling}};
    for (int k = 0; k < i % 4; ++k) row.skipped.push_back("s" + std::to_string(i + k));
    sink->Write(row);
  }
  sink->Finish();
  const auto rows = ReadParquet(path);
  ASSERT_EQ(rows.size(), size_t{kRows});
  for (int i = 0; i < kRows; i += 777) {
    const auto& row = rows[static_cast<size_t>(i)];
    EXPECT_EQ(row["id"], i);
    EXPECT_EQ(row["z"], std::to_string(i) + std::string("\0\xEF\xBF\xBD(", 5) + filling);
    EXPECT_EQ(row["skipped"].size(), static_cast<size_t>(i % 4));
    if (i % 4 == 3) {
      EXPECT_EQ(row["skipped"][2], "s" + std::to_string(i + 2));
    }
  }
}

TEST_F(ResultSinkTest, AParquetThatCannotBeWrittenLeavesTheRows) {
  const std::string path = folder_ + "/out.parquet";
  std::filesystem::create_symlink("/dev/full", path + ".part.parquet");
  const auto sink = OpenResultSink(path, {"z"}, 1);
  sink->Write(GoodRow());
  try {
    sink->Finish();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_NE(std::string(error.what()).find("all rows are kept in " + path + ".part"),
              std::string::npos)
        << error.what();
  }
  EXPECT_TRUE(Contents(path + ".part").starts_with("{\"id\":\"a\""));
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(ResultSinkTest, OutputsMayNotHaveTheNamesOfOtherColumns) {
  const auto open = [&](const std::vector<std::string>& names) {
    try {
      OpenResultSink(folder_ + "/out.parquet", names, 1);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      return std::string(error.what());
    }
    return std::string("fine");
  };
  EXPECT_EQ(open({"reply", "verdict"}), "fine");
  for (const std::string name : {"id", "Status", "error_code", "skipped"})
    EXPECT_NE(open({name}).find("the output '" + name + "' has the name"), std::string::npos);
  EXPECT_NE(open({"a", "A"}).find("the output 'A'"), std::string::npos);
}

TEST_F(ResultSinkTest, FaultsOfWritingNameTheFile) {
  const int full = open("/dev/full", O_WRONLY);
  ASSERT_GE(full, 0);
  const auto sink = OpenResultSink("-", {}, full);
  sink->Write(GoodRow());
  try {
    sink->Finish();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_STREQ(error.what(), "standard output: cannot write: No space left on device");
  }
  close(full);
}

TEST_F(ResultSinkTest, AFullDeviceUnderAFileIsReported) {
  const std::string path = folder_ + "/out.jsonl";
  std::filesystem::create_symlink("/dev/full", path + ".part");
  const auto sink = OpenResultSink(path, {}, 1);
  sink->Write(GoodRow());
  EXPECT_THROW(sink->Finish(), Error);
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(ResultSinkTest, AStreamIsWrittenWhole) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  fcntl(ends[1], F_SETFL, O_NONBLOCK);  // short writes and EAGAIN
  std::string received;
  std::thread reader([&] {
    std::array<char, 4096> buffer{};
    for (ssize_t got = 0; (got = read(ends[0], buffer.data(), buffer.size())) > 0;) {
      received.append(buffer.data(), static_cast<size_t>(got));
    }
  });
  const auto sink = OpenResultSink("-", {}, ends[1]);
  const std::string line = GoodRow().ToJson().dump() + "\n";
  for (int i = 0; i < 20'000; ++i) sink->Write(GoodRow());
  sink->Finish();
  close(ends[1]);
  reader.join();
  close(ends[0]);
  EXPECT_EQ(received.size(), 20'000 * line.size());
  EXPECT_TRUE(received.ends_with(line));
}

TEST_F(ResultSinkTest, SpecsThatAreRefused) {
  const auto message_of = [](const std::string& spec) -> std::string {
    try {
      OpenResultSink(spec, {}, 1);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  std::filesystem::create_directory(folder_ + "/out.csv");
  EXPECT_NE(message_of(folder_ + "/out.csv").find("this is a folder"), std::string::npos);
  EXPECT_NE(message_of(folder_ + "/absent/out.csv").find("does not exist: create it"),
            std::string::npos);
  EXPECT_NE(message_of("out.txt").find("expected a file that ends in .jsonl, .csv or .parquet"),
            std::string::npos);
}

}  // namespace
}  // namespace halo
