#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "base/hash.h"
#include "tools/workload_files.h"
#include "workload/datasets.h"
#include "workload/duck_sink.h"
#include "workload/mock_api.h"
#include "workload/query_client.h"
#include "workload/rows.h"
#include "workload/wikitext.h"

namespace halo::workload {
namespace {

using Json = nlohmann::ordered_json;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr double kScale = 0.01;

/// A hash of all that a generator says.
class HashSink final : public TableSink {
 public:
  void Begin(const Table& table) override {
    table_ = table;
    builder_.Add(std::string_view(table.name));
  }
  void Append(const std::vector<Cell>& row) override {
    for (size_t i = 0; i < row.size(); ++i) {
      const bool is_null = std::holds_alternative<std::monostate>(row[i]);
      builder_.Add(is_null ? std::string("\\N") : CellText(row[i], table_.columns[i].type));
    }
  }
  void End() override {}
  Signature Finish() const { return builder_.Finish(); }

 private:
  Table table_{};
  SignatureBuilder builder_;
};

using Generate = void (*)(const DataOptions&, TableSink&);

Signature HashOf(Generate generate, DataOptions options) {
  HashSink sink;
  generate(options, sink);
  return sink.Finish();
}

/// The three databases, made once.
class WorkloadTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ =
        std::filesystem::path(testing::TempDir()) / ("halo-workload-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    const std::pair<const char*, Generate> sets[] = {
        {"imdb", GenerateImdb}, {"wiki", GenerateWiki}, {"tpch", GenerateTpch}};
    for (const auto& [name, generate] : sets) {
      DuckSink sink(File(name));
      generate({kScale, 0}, sink);
      sink.Keep();
    }
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(folder_); }

  static std::string File(const std::string& name) {
    return (folder_ / (name + ".duckdb")).string();
  }

  static std::vector<Json> Ask(const std::string& database, const std::string& sql,
                               const std::vector<std::string>& parameters = {}) {
    return OpenQueryClient(File(database), 1)->Query(sql, parameters);
  }
  /// The one value of a query.
  static Json Value(const std::string& database, const std::string& sql) {
    const std::vector<Json> rows = Ask(database, sql);
    EXPECT_EQ(rows.size(), 1U) << sql;
    return rows.empty() ? Json() : rows[0].begin().value();
  }

  static std::filesystem::path folder_;
};
std::filesystem::path WorkloadTest::folder_;

// ---- The generators

TEST(WorkloadGenerators, SameSeedSameRowsOtherSeedOthers) {
  for (const Generate generate : {GenerateImdb, GenerateWiki, GenerateTpch}) {
    const Signature first = HashOf(generate, {0.001, 7});
    EXPECT_EQ(first, HashOf(generate, {0.001, 7}));
    EXPECT_NE(first, HashOf(generate, {0.001, 8}));
    EXPECT_NE(first, HashOf(generate, {0.002, 7}));
  }
}

TEST(WorkloadGenerators, AScaleOutOfBoundsIsSaid) {
  HashSink sink;
  for (const double scale : {0.0, -1.0, 1e9, std::nan("")}) {
    EXPECT_THROW(GenerateTpch({scale, 0}, sink), Error);
    EXPECT_THROW(GenerateWiki({scale, 0}, sink), Error);
  }
}

TEST_F(WorkloadTest, AnUnfinishedDatabaseLeavesNothing) {
  const std::string file = File("unfinished");
  { DuckSink sink(file); }
  EXPECT_FALSE(std::filesystem::exists(file));
  EXPECT_FALSE(std::filesystem::exists(file + ".part"));
  EXPECT_THROW(DuckSink("/nowhere/at/all.duckdb"), Error);
}

TEST_F(WorkloadTest, TpchHasTheSpecifiedCardinalities) {
  const std::pair<const char*, int64_t> counts[] = {
      {"region", 5},       {"nation", 25},      {"supplier", 100}, {"part", 2'000},
      {"partsupp", 8'000}, {"customer", 1'500}, {"orders", 15'000}};
  for (const auto& [table, count] : counts)
    EXPECT_EQ(Value("tpch", std::string("SELECT count(*) FROM ") + table), count) << table;
  const int64_t lines = Value("tpch", "SELECT count(*) FROM lineitem");
  EXPECT_NEAR(static_cast<double>(lines), 60'000, 1'000);
  EXPECT_EQ(Value("tpch", "SELECT count(DISTINCT (ps_partkey, ps_suppkey)) FROM partsupp"), 8'000);
}

TEST_F(WorkloadTest, TpchForeignKeysHold) {
  const char* const orphans[] = {
      "nation WHERE n_regionkey NOT IN (SELECT r_regionkey FROM region)",
      "supplier WHERE s_nationkey NOT IN (SELECT n_nationkey FROM nation)",
      "customer WHERE c_nationkey NOT IN (SELECT n_nationkey FROM nation)",
      "partsupp WHERE ps_partkey NOT IN (SELECT p_partkey FROM part)",
      "partsupp WHERE ps_suppkey NOT IN (SELECT s_suppkey FROM supplier)",
      "orders WHERE o_custkey NOT IN (SELECT c_custkey FROM customer)",
      "lineitem WHERE l_orderkey NOT IN (SELECT o_orderkey FROM orders)",
      "lineitem WHERE (l_partkey, l_suppkey) NOT IN (SELECT (ps_partkey, ps_suppkey) FROM "
      "partsupp)"};
  for (const char* from : orphans)
    EXPECT_EQ(Value("tpch", std::string("SELECT count(*) FROM ") + from), 0) << from;
}

TEST_F(WorkloadTest, TpchValuesAreInTheirDomains) {
  const char* const broken[] = {
      "orders WHERE o_custkey % 3 = 0",
      "orders WHERE o_orderdate NOT BETWEEN DATE '1992-01-01' AND DATE '1998-08-02'",
      "orders WHERE (o_orderkey - 1) % 32 > 7",
      "lineitem WHERE l_quantity NOT BETWEEN 1 AND 50 OR l_discount NOT BETWEEN 0 AND 0.10",
      "lineitem WHERE l_tax NOT BETWEEN 0 AND 0.08 OR l_linenumber NOT BETWEEN 1 AND 7",
      "lineitem WHERE l_receiptdate <= l_shipdate",
      "lineitem WHERE (l_returnflag = 'N') <> (l_receiptdate > DATE '1995-06-17')",
      "lineitem WHERE (l_linestatus = 'O') <> (l_shipdate > DATE '1995-06-17')",
      "lineitem JOIN part ON p_partkey = l_partkey WHERE l_extendedprice <> l_quantity * "
      "p_retailprice",
      "part WHERE p_retailprice * 100 <> 90000 + (p_partkey // 10) % 20001 + 100 * (p_partkey % "
      "1000)",
      "part WHERE NOT regexp_full_match(p_brand, 'Brand#[1-5][1-5]') OR p_brand[7] <> p_mfgr[14]",
      "part WHERE p_size NOT BETWEEN 1 AND 50 OR len(string_split(p_name, ' ')) <> 5",
      "supplier WHERE s_acctbal NOT BETWEEN -999.99 AND 9999.99",
      "customer WHERE NOT regexp_full_match(c_phone, '[1-3][0-9]-[0-9]{3}-[0-9]{3}-[0-9]{4}')",
      "customer WHERE CAST(c_phone[1:2] AS INTEGER) <> c_nationkey + 10",
      "partsupp WHERE ps_supplycost NOT BETWEEN 1 AND 1000 OR ps_availqty NOT BETWEEN 1 AND 9999",
      "supplier WHERE length(s_comment) NOT BETWEEN 25 AND 101"};
  for (const char* from : broken)
    EXPECT_EQ(Value("tpch", std::string("SELECT count(*) FROM ") + from), 0) << from;
  const std::pair<const char*, int64_t> kinds[] = {
      {"l_shipmode", 7}, {"l_shipinstruct", 4}, {"l_returnflag", 3}, {"l_linestatus", 2}};
  for (const auto& [column, count] : kinds) {
    EXPECT_EQ(Value("tpch", fmt::format("SELECT count(DISTINCT {}) FROM lineitem", column)), count);
  }
  EXPECT_EQ(Value("tpch", "SELECT count(DISTINCT p_type) FROM part"), 150);
  EXPECT_EQ(Value("tpch", "SELECT count(DISTINCT p_container) FROM part"), 40);
  EXPECT_EQ(Value("tpch", "SELECT count(DISTINCT p_brand) FROM part"), 25);
}

TEST_F(WorkloadTest, TpchTotalsAndStatesOfOrdersAgreeWithTheirLines) {
  EXPECT_EQ(Value("tpch", R"(
      SELECT count(*) FROM orders JOIN (
        SELECT l_orderkey, round(sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)), 2) AS total,
               CASE WHEN min(l_linestatus) = max(l_linestatus) THEN min(l_linestatus) ELSE 'P' END AS state
        FROM lineitem GROUP BY l_orderkey) ON l_orderkey = o_orderkey
      WHERE abs(o_totalprice - total) > 0.01 OR o_orderstatus <> state)"),
            0);
  EXPECT_EQ(Value("tpch",
                  "SELECT count(*) FROM orders WHERE o_orderkey NOT IN "
                  "(SELECT l_orderkey FROM lineitem)"),
            0);
}

TEST_F(WorkloadTest, FilmsAreSkewed) {
  EXPECT_EQ(Value("imdb", "SELECT count(*) FROM title_basics"), 10'000);
  EXPECT_EQ(Value("imdb", "SELECT count(*) FROM name_basics"), 12'000);
  EXPECT_EQ(Value("imdb",
                  "SELECT count(*) FROM title_akas WHERE title_id NOT IN "
                  "(SELECT tconst FROM title_basics)"),
            0);
  EXPECT_EQ(Value("imdb", "SELECT count(*) FROM title_akas WHERE is_original_title"), 10'000);
  const double share = Value("imdb", R"(
      SELECT sum(num_votes) FILTER (WHERE place <= total / 100) / sum(num_votes) FROM (
        SELECT num_votes, row_number() OVER (ORDER BY num_votes DESC) AS place, count(*) OVER () AS total
        FROM title_ratings))");
  EXPECT_GT(share, 0.3) << "one film in a hundred has a third of all votes";
  const auto titles_with = [](const std::string& word) {
    return Ask("imdb", "SELECT tconst FROM title_basics WHERE primary_title ILIKE '%' || $1 || '%'",
               {word})
        .size();
  };
  const std::vector<std::string>& words = MovieKeywords();
  for (const std::string& word : words) EXPECT_GT(titles_with(word), 10U) << word;
  EXPECT_GT(titles_with(words.front()), 5 * titles_with(words.back()));
}

TEST_F(WorkloadTest, ArticlesHaveEightHundredCharactersLinksCategoriesAndLanguages) {
  EXPECT_EQ(Value("wiki", "SELECT count(*) FROM pages"), 2'000);
  const double mean = Value("wiki", "SELECT avg(length(wikitext)) FROM pages");
  EXPECT_NEAR(mean, 800, 40);
  EXPECT_GE(Value("wiki", "SELECT count(DISTINCT in_language) FROM pages").get<int64_t>(), 5);
  EXPECT_EQ(Value("wiki",
                  "SELECT count(*) FROM (SELECT title, in_language FROM pages "
                  "GROUP BY ALL HAVING count(*) > 1)"),
            0);
  EXPECT_EQ(Value("wiki", "SELECT count(*) FROM pages WHERE wikitext NOT LIKE '%[[Category:%'"), 0);
  const std::vector<std::string> titles = WikiTitles({kScale, 0}, 2'048);
  EXPECT_EQ(Value("wiki", "SELECT count(*) FROM pages WHERE in_language = 'en'"), titles.size());
  for (const size_t i : {size_t{0}, titles.size() / 2, titles.size() - 1}) {
    EXPECT_EQ(
        Ask("wiki", "SELECT title FROM pages WHERE in_language = 'en' AND title = $1", {titles[i]})
            .size(),
        1U)
        << titles[i];
  }
}

TEST(WikiLinks, CategoriesAndArticlesAndNothingElse) {
  const WikiLinks links = ReadWikiLinks(
      "[[File:Tor.jpg|thumb|[[Tor]] in 1850]] '''Tor''' lies on the [[River Tor|Tor]], see "
      "[[Tor#History]], [[ Dune: Part Two ]] and [[Tor]]. [[de:Tor]] [[Template:X]] [[#here]] "
      "[[Category:Towns in Tarnia]] [[Category:Towns in Tarnia|T]] [[unfinished");
  EXPECT_THAT(links.articles, ElementsAre("Tor", "River Tor", "Dune: Part Two"));
  EXPECT_THAT(links.categories, ElementsAre("Towns in Tarnia"));
}

// ---- The rows

TEST(WorkloadRows, TheDeclaredShareRepeatsAKey) {
  for (const char* workload : {"w1", "w2", "w3", "w4", "w5", "w6"}) {
    for (const double share : {0.4, 0.9}) {
      const std::vector<WorkloadRow> rows = MakeRows({workload, 64, share, 3, {kScale, 0}});
      std::set<std::string> keys, ids;
      for (const WorkloadRow& row : rows) {
        keys.insert(row.key);
        ids.insert(row.id);
        EXPECT_THAT(row.user_query, HasSubstr(row.key));
      }
      EXPECT_EQ(ids.size(), 64U);
      EXPECT_EQ(64 - keys.size(), static_cast<size_t>(std::llround(64 * share))) << workload;
    }
  }
}

TEST(WorkloadRows, TheSameSeedGivesTheSameRows) {
  const auto texts = [](uint64_t seed) {
    std::string all;
    for (const WorkloadRow& row : MakeRows({"w5", 20, 0.5, seed, {}})) all += RowJson(row).dump();
    return all;
  };
  EXPECT_EQ(texts(1), texts(1));
  EXPECT_NE(texts(1), texts(2));
}

TEST(WorkloadRows, TooFewKeysAreAnErrorThatSaysWhatToDo) {
  try {
    MakeRows({"w1", 1'000, 0.5, 0, {}});
    FAIL() << "there are not 500 keywords";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("raise --repeat-share to 0.960"));
  }
  EXPECT_EQ(MakeRows({"w1", 1'000, 0.96, 0, {}}).size(), 1'000U);
  EXPECT_THROW(MakeRows({"w7", 1, 0, 0, {}}), Error);
  EXPECT_THROW(MakeRows({"w1", 1, 2, 0, {}}), Error);
  EXPECT_TRUE(MakeRows({"w1", 0, 0.5, 0, {}}).empty());
}

TEST(WorkloadRows, ShippedRowsAreThoseOfTheTool) {
  for (const char* workload : {"w1", "w2", "w3", "w4", "w5", "w6"}) {
    std::ifstream file(fmt::format("{}/workflows/rows/{}.jsonl", HALO_SOURCE_DIR, workload));
    const std::string shipped{std::istreambuf_iterator<char>(file), {}};
    std::string made;
    for (const WorkloadRow& row : MakeRows({workload, 64, 0.5, 0, {kScale, 0}}))
      made += RowJson(row).dump() + "\n";
    EXPECT_EQ(shipped, made) << workload;
  }
}

// ---- The workflows

/// The value of a parameter for a row: its template is the keyword, the request, or a field of what
/// the rule makes of it.
std::string ParameterOf(const WorkloadFile& file, const std::string& text, const WorkloadRow& row) {
  if (text == "{{ search_keyword }}") return row.key;
  if (text == "{{ user_query }}") return row.user_query;
  const std::string prefix = "{{ tpch_params.", suffix = " }}";
  EXPECT_TRUE(text.starts_with(prefix) && text.ends_with(suffix)) << text;
  return ExtractParameters(file, row.user_query)
      .at(text.substr(prefix.size(), text.size() - prefix.size() - suffix.size()));
}

/// A value as SQL of the type that the workflow declares, such as CAST('1994' AS int).
std::string Literal(const std::string& value, const std::string& type) {
  std::string quoted;
  for (const char c : value) quoted += c == '\'' ? "''" : std::string(1, c);
  const std::string sql_type = type == "str" ? "text" : type == "numeric" ? "decimal(15, 2)" : type;
  return "CAST('" + quoted + "' AS " + sql_type + ")";
}

TEST_F(WorkloadTest, EveryQueryFindsRowsForMostKeys) {
  const std::map<std::string, size_t> expected = {{"w1", 7}, {"w2", 2}, {"w3", 4},
                                                  {"w4", 2}, {"w5", 7}, {"w6", 10}};
  for (const WorkloadFile& file : ShippedWorkloads()) {
    const std::string database = file.graph["connections"].begin()->first.as<std::string>();
    const auto client = OpenQueryClient(File(database), 1);
    const std::vector<WorkloadQuery> queries = QueriesOf(file);
    EXPECT_EQ(queries.size(), expected.at(file.name));
    const std::vector<WorkloadRow> rows = MakeRows({file.name, 40, 0, 0, {kScale, 0}});
    for (const WorkloadQuery& query : queries) {
      client->Query("PREPARE query AS " + query.sql, {});
      size_t found = 0;
      for (const WorkloadRow& row : rows) {
        std::vector<std::string> literals;
        for (const std::string& parameter : query.parameters) {
          literals.push_back(Literal(ParameterOf(file, query.templates.at(parameter), row),
                                     query.types.at(parameter)));
        }
        // EXECUTE binds values of the declared types, as Halo does.
        const std::string call = fmt::format("EXECUTE query({})", fmt::join(literals, ", "));
        const std::vector<Json> answer = client->Query(call, {});
        found += !answer.empty() && !answer[0].begin().value().is_null() ? 1 : 0;
      }
      EXPECT_GT(2 * found, rows.size()) << file.name << " " << query.name << ": " << found;
    }
  }
}

TEST(WorkloadFiles, TheRulesReadTheRowsAsTheyAreMeant) {
  for (const WorkloadFile& file : ShippedWorkloads()) {
    if (file.name != "w5" && file.name != "w6") continue;
    for (const WorkloadRow& row : MakeRows({file.name, 200, 0, 1, {}})) {
      // The fields of a row, "name=value with blanks name=value".
      std::map<std::string, std::string> meant;
      std::string name;
      std::istringstream words(row.user_query);
      for (std::string word; words >> word;) {
        const size_t equals = word.find('=');
        if (equals != std::string::npos) {
          name = word.substr(0, equals);
          meant[name] = word.substr(equals + 1);
        } else {
          meant[name] += " " + word;
        }
      }
      const std::map<std::string, std::string> read = ExtractParameters(file, row.user_query);
      for (const auto& [field, value] : meant) EXPECT_EQ(read.at(field), value) << row.user_query;
    }
  }
}

TEST(WorkloadFiles, RulesKnowPhrasesToo) {
  const WorkloadFile w5 = ShippedWorkloads()[4];
  const auto read = ExtractParameters(
      w5, "Building in Middle East, after 1995/04/01, brand#22 qty<30 discount=0.04 REG AIR ");
  EXPECT_EQ(read.at("segment"), "Building");
  EXPECT_EQ(read.at("region"), "Middle East");
  EXPECT_EQ(read.at("date"), "1995/04/01");
  EXPECT_EQ(read.at("brand"), "brand#22");
  EXPECT_EQ(read.at("qty"), "30");
  EXPECT_EQ(read.at("discount_lo"), "0.04");
  EXPECT_EQ(read.at("discount_hi"), "0.07");
  EXPECT_EQ(read.at("shipmode"), "REG AIR");
  EXPECT_EQ(read.at("year"), "1994") << "the year of a date is not the year";
}

TEST(WorkloadFiles, PlannersChooseAmongTheCorpusKeywords) {
  size_t planners = 0;
  for (const WorkloadFile& file : ShippedWorkloads()) {
    for (const YAML::Node& node : file.graph["nodes"]) {
      if (node["id"].as<std::string>() != "keyword_planner") continue;
      ++planners;
      EXPECT_EQ(
          node["schema"]["properties"]["search_keyword"]["enum"].as<std::vector<std::string>>(),
          MovieKeywords());
    }
  }
  EXPECT_EQ(planners, 2U);
}

TEST(WorkloadFiles, EveryAnswerFitsItsTokens) {
  for (const WorkloadFile& file : ShippedWorkloads()) {
    const auto most = file.graph["defaults"]["max_tokens"].as<size_t>();
    for (const YAML::Node& node : file.graph["nodes"]) {
      if (!node["model"]) continue;
      const size_t own = node["max_tokens"] ? node["max_tokens"].as<size_t>() : most;
      EXPECT_LE(LongestAnswer(node["schema"]) + 1, own) << file.name << " " << node["id"];
      EXPECT_EQ(node["schema"]["required"].as<std::vector<std::string>>(),
                node["outputs"].as<std::vector<std::string>>());
    }
  }
}

TEST(WorkloadFiles, TheSecondStageOfW6RepeatsTheFirst) {
  std::map<std::string, WorkloadQuery> first, second;
  for (const WorkloadQuery& query : QueriesOf(ShippedWorkloads()[5]))
    (query.name.starts_with("s1_") ? first : second)[query.name.substr(3)] = query;
  EXPECT_EQ(first.size(), 5U);
  ASSERT_EQ(second.size(), 5U);
  for (const auto& [name, query] : first) {
    EXPECT_EQ(query.sql, second.at(name).sql);
    EXPECT_EQ(query.templates, second.at(name).templates);
    EXPECT_EQ(query.types, second.at(name).types);
  }
}

// ---- The service

class MockApiTest : public WorkloadTest {
 protected:
  void Start(const MockApiOptions& options) {
    api_ = std::make_unique<MockApi>(options);
    thread_ = std::thread([this] { api_->Run(); });
    while (Get("/health").first != 200) std::this_thread::yield();
  }
  void StartAll() { Start({0, "duckdb:" + File("imdb"), File("wiki"), File("tpch"), 0, 0}); }
  void TearDown() override {
    if (api_) api_->Stop();
    if (thread_.joinable()) thread_.join();
  }

  /// Status and body; 0 if nothing is listening.
  std::pair<int, Json> Get(const std::string& path) {
    httplib::Client client("127.0.0.1", api_->port());
    const httplib::Result result = client.Get(path);
    if (!result) return {0, nullptr};
    return {result->status, Json::parse(result->body)};
  }

  std::unique_ptr<MockApi> api_;
  std::thread thread_;
};

TEST_F(MockApiTest, EveryEndpointAnswersFromTheData) {
  StartAll();
  const std::pair<const char*, std::vector<std::string>> endpoints[] = {
      {"/imdb/titles/search?keyword=War&limit=25",
       {"tconst", "primary_title", "original_title", "start_year", "title_type", "average_rating",
        "num_votes"}},
      {"/imdb/titles/recent?keyword=war&since=2000&limit=15",
       {"tconst", "primary_title", "start_year", "genres", "average_rating", "num_votes"}},
      {"/imdb/people/search?keyword=king&limit=40",
       {"nconst", "primary_name", "birth_year", "primary_profession", "known_for_titles"}},
      {"/finewiki/categories?topic=Castle&limit=30",
       {"category", "title", "url", "member_count", "member_pages"}},
      {"/finewiki/outbound-links?topic=Castle&limit=40",
       {"page_id", "title", "url", "link_count", "links"}},
      {"/tpch/reports/shipmode-priority?shipmode=MAIL&shipmode2=SHIP&year=1994",
       {"year", "shipmode", "line_count", "high_line_count", "low_line_count"}},
      {"/tpch/reports/promo-revenue?year=1995",
       {"year", "promo_revenue", "total_revenue", "promo_share_percent"}},
      {"/tpch/reports/segment-revenue?segment=BUILDING&year=1996",
       {"year", "segment", "revenue", "line_cnt", "high_line_cnt", "low_line_cnt"}}};
  for (const auto& [path, keys] : endpoints) {
    const auto [status, body] = Get(path);
    ASSERT_EQ(status, 200) << path << " " << body.dump();
    EXPECT_EQ(body["endpoint"], std::string(path).substr(0, std::string(path).find('?')));
    ASSERT_FALSE(body["rows"].empty()) << path;
    EXPECT_EQ(body["rowcount"], body["rows"].size());
    EXPECT_EQ(body.contains("report"), std::string(path).starts_with("/tpch")) << path;
    std::vector<std::string> names;
    for (const auto& [name, value] : body["rows"][0].items()) names.push_back(name);
    EXPECT_EQ(names, keys) << path;
  }
}

TEST_F(MockApiTest, AnswersAreRightAndInOrder) {
  StartAll();
  const Json films = Get("/imdb/titles/search?keyword=love&limit=5").second["rows"];
  ASSERT_EQ(films.size(), 5U);
  EXPECT_EQ(films[0]["num_votes"],
            Value("imdb",
                  "SELECT max(num_votes) FROM title_basics JOIN title_ratings USING (tconst) "
                  "WHERE title_type IN ('movie', 'tvMovie', 'tvSeries') AND "
                  "(primary_title ILIKE '%love%' OR original_title ILIKE '%love%')"));
  const Json report =
      Get("/tpch/reports/shipmode-priority?shipmode=AIR&shipmode2=AIR&year=1993").second["rows"];
  ASSERT_EQ(report.size(), 1U);
  EXPECT_EQ(report[0]["line_count"],
            Value("tpch",
                  "SELECT count(*) FROM lineitem WHERE l_shipmode = 'AIR' AND "
                  "l_commitdate < l_receiptdate AND l_shipdate < l_commitdate AND "
                  "year(l_receiptdate) = 1993"));
  const Json categories = Get("/finewiki/categories?topic=Castle&limit=100").second["rows"];
  for (size_t i = 1; i < categories.size(); ++i)
    EXPECT_GE(categories[i - 1]["member_count"], categories[i]["member_count"]);
  const Json pages = Get("/finewiki/outbound-links?topic=Castle&limit=7").second["rows"];
  EXPECT_EQ(pages.size(), 7U);
  for (const Json& page : pages) EXPECT_LE(page["links"].size(), 25U);
}

TEST_F(MockApiTest, WrongRequestsSaySo) {
  StartAll();
  const std::pair<const char*, const char*> wrong[] = {
      {"/imdb/titles/search", "'keyword' is missing"},
      {"/imdb/titles/search?keyword=war&limit=101", "from 1 to 100, got '101'"},
      {"/imdb/titles/search?keyword=war&limit=ten", "got 'ten'"},
      {"/imdb/titles/recent?keyword=war&since=soon", "got 'soon'"},
      {"/finewiki/categories?limit=3", "'topic' is missing"},
      {"/tpch/reports/promo-revenue?year=2020", "from 1992 to 1998"},
      {"/tpch/reports/segment-revenue?segment=NONE&year=1994", "unknown value 'NONE'"},
      {"/tpch/reports/shipmode-priority?shipmode=MAIL&year=1994", "'shipmode2' is missing"}};
  for (const auto& [path, message] : wrong) {
    const auto [status, body] = Get(path);
    EXPECT_EQ(status, 400) << path;
    EXPECT_THAT(body["error"].get<std::string>(), HasSubstr(message)) << path;
  }
  EXPECT_EQ(Get("/imdb/nothing").first, 404);
  EXPECT_THAT(Get("/imdb/nothing").second["error"].get<std::string>(), HasSubstr("/imdb/nothing"));
}

TEST_F(MockApiTest, ADataSetThatIsNotGivenIsUnavailable) {
  Start({0, "", "", File("tpch"), 0, 0});
  EXPECT_EQ(Get("/imdb/titles/search?keyword=war").first, 503);
  EXPECT_EQ(Get("/finewiki/categories?topic=x").first, 503);
  EXPECT_EQ(Get("/tpch/reports/promo-revenue?year=1994").first, 200);
  const Json health = Get("/health").second;
  EXPECT_EQ(health["datasets"]["imdb"], false);
  EXPECT_EQ(health["datasets"]["tpch"], true);
  EXPECT_THROW(MockApi({0, "duckdb:" + File("not_there"), "", "", 0, 0}), Error);
}

TEST_F(MockApiTest, AnswersThatAreHeldBackAreTheSame) {
  const std::string path = "/imdb/titles/search?keyword=moon&limit=2";
  StartAll();
  const auto at_once = Get(path);
  TearDown();
  Start({0, File("imdb"), "", "", 0.001, 5});
  EXPECT_EQ(Get(path), at_once);
}

TEST_F(MockApiTest, SixtyFourConnectionsAreServedSideBySideAndKept) {
  StartAll();
  constexpr int kClients = 64, kRequests = 5;
  std::atomic<int> open{0}, good{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kClients; ++i) {
    threads.emplace_back([&, i] {
      httplib::Client client("127.0.0.1", api_->port());
      client.set_keep_alive(true);
      for (int k = 0; k < kRequests; ++k) {
        const std::string& word = MovieKeywords()[static_cast<size_t>(i + k) % 40];
        const auto result = client.Get("/imdb/titles/search?limit=3&keyword=" + word);
        good += result && result->status == 200 ? 1 : 0;
        // No one goes on until every client holds a connection that has answered.
        if (k == 0) {
          ++open;
          while (open < kClients) std::this_thread::yield();
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, kClients * kRequests);
}

}  // namespace
}  // namespace halo::workload
