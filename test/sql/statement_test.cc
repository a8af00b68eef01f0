// What ReadSqlStatement makes of a text: tables of cases, each for DuckDB (d), PostgreSQL (p) or
// both.

#include "sql/statement.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "sql/duck_database.h"
#include "sql/sql_functions.h"

namespace halo {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string Names(const std::vector<SqlName>& names) {
  std::string list;
  for (const SqlName& name : names) {
    list += (list.empty() ? "" : ",") + (name.schema.empty() ? "" : name.schema + ".") + name.name;
  }
  return list;
}

/// "read", "volatile" or "write", then what is not empty of f:functions r:relations w:written.
std::string Describe(const SqlStatement& statement) {
  std::string text = statement.writes ? "write" : statement.is_volatile ? "volatile" : "read";
  const std::pair<const char*, const std::vector<SqlName>*> lists[] = {
      {" f:", &statement.functions}, {" r:", &statement.relations}, {" w:", &statement.written}};
  for (const auto& [mark, names] : lists) {
    if (!names->empty()) text += mark + Names(*names);
  }
  return text;
}

struct Case {
  std::string dialects;
  std::string sql;
  std::string expected;
};

std::vector<SqlDialect> DialectsOf(const Case& one) {
  std::vector<SqlDialect> dialects;
  if (one.dialects.find('d') != std::string::npos) dialects.push_back(SqlDialect::kDuckDb);
  if (one.dialects.find('p') != std::string::npos) dialects.push_back(SqlDialect::kPostgres);
  return dialects;
}

SqlStatement ReadSound(const std::string& sql, SqlDialect dialect) {
  std::string fault;
  SqlStatement statement = ReadSqlStatement(sql, dialect, fault);
  EXPECT_EQ(fault, "") << sql.substr(0, 200);
  return statement;
}

void Expect(const std::vector<Case>& cases,
            const std::function<std::string(const SqlStatement&)>& show) {
  for (const Case& one : cases) {
    for (const SqlDialect dialect : DialectsOf(one)) {
      EXPECT_EQ(show(ReadSound(one.sql, dialect)), one.expected)
          << one.sql << (dialect == SqlDialect::kDuckDb ? " (DuckDB)" : " (PostgreSQL)");
    }
  }
}

TEST(SqlStatement, TellsReadsFromWrites) {
  Expect(
      {
          {"dp", "SELECT 1", "read"},
          {"dp", "  ( SELECT 1 )", "read"},
          {"dp", "((select 1))", "read"},
          {"dp", "VALUES (1), (2)", "read"},
          {"dp", "TABLE t", "read r:t"},
          {"dp", "WITH x AS (SELECT 1) SELECT * FROM x", "read"},
          {"d", "FROM t", "read r:t"},
          {"p", "FROM t", "write r:t"},
          {"d", "DESCRIBE t", "read r:t"},
          {"d", "SELECT * FROM (DESCRIBE t)", "read r:t"},
          {"d", "SUMMARIZE t", "volatile r:t"},
          {"d", "PIVOT t ON a USING sum(b)", "read f:sum r:t"},
          {"dp", "EXPLAIN SELECT * FROM t", "volatile r:t"},
          {"p", "EXPLAIN (COSTS off, VERBOSE) SELECT * FROM t", "volatile r:t"},
          {"p", "EXPLAIN VERBOSE SELECT * FROM t", "volatile r:t"},
          {"dp", "EXPLAIN ANALYZE SELECT * FROM t", "write r:t"},
          {"p", "EXPLAIN (ANALYZE false) SELECT * FROM t", "write r:t"},
          {"p", "EXPLAIN VERBOSE ANALYSE SELECT 1", "write"},
          {"dp", "EXPLAIN CREATE TABLE t (a INT)", "write f:t"},
          {"dp", "SHOW TABLES", "volatile"},
          {"dp", "INSERT INTO t VALUES (1)", "write w:t"},
          {"dp", "insert into s.t (a, b) select c, d from u, v", "write f:s.t r:u,v w:s.t"},
          {"d", "INSERT OR REPLACE INTO t SELECT * FROM u", "write r:u w:t"},
          {"dp", "UPDATE t SET a = 1 FROM u WHERE t.b = u.b", "write r:t,u w:t"},
          {"p", "UPDATE ONLY t SET a = 1", "write r:t w:t"},
          {"dp", "DELETE FROM t WHERE a = 1", "write r:t w:t"},
          {"dp", "DELETE FROM t USING u, v WHERE t.a = u.a", "write r:t,u,v w:t"},
          {"dp", "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE", "write r:t,u w:t"},
          {"dp",
           "MERGE INTO t USING (SELECT * FROM u) AS u ON true WHEN MATCHED THEN UPDATE SET a = 1 "
           "WHEN NOT MATCHED THEN INSERT (a) VALUES (2)",
           "write r:t,u w:t"},
          {"dp", "INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2", "write w:t"},
          {"dp", "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING RETURNING a", "write w:t"},
          {"dp", "TRUNCATE t", "write w:t"},
          {"p", "TRUNCATE TABLE ONLY a, b RESTART IDENTITY", "write r:a w:a,b"},
          {"p", "TRUNCATE a CASCADE", "write"},
          {"p", "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "write r:t w:t"},
          {"p", "WITH d AS MATERIALIZED (\nUPDATE t SET a = 1 RETURNING a) INSERT INTO u TABLE d",
           "write r:t w:t,u"},
          {"p", "WITH x AS (SELECT 1) (WITH y AS (INSERT INTO t VALUES (1)) SELECT 1)",
           "write w:t"},
          {"dp", "SELECT a INTO u FROM t", "write r:t"},
          {"dp", "SELECT * FROM t FOR UPDATE", "write r:t"},
          {"dp", "SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED", "write r:t"},
          {"dp", "SELECT * FROM t FOR KEY SHARE", "write r:t"},
          {"dp", "SELECT * FROM t FOR SHARE OF t", "write r:t"},
          {"dp", "SELECT 1into t", "write"},
          {"dp", "CALL f(1)", "write f:f"},
          {"p", "DO $$ BEGIN PERFORM 1; END $$", "write"},
          {"dp", "COPY t TO '/tmp/x'", "write"},
          {"d", "ATTACH 'a.db'", "write"},
          {"d", "INSTALL httpfs", "write"},
          {"d", "LOAD httpfs", "write"},
          {"dp", "SET work_mem = '1GB'", "write"},
          {"d", "PRAGMA database_list", "write"},
          {"p", "PREPARE p AS SELECT 1", "write"},
          {"p", "EXECUTE p", "write"},
          {"p", "LOCK TABLE t", "write r:t"},
          {"p", "NOTIFY n", "write"},
          {"p", "REFRESH MATERIALIZED VIEW v", "write"},
          {"dp", "CREATE TABLE x AS SELECT * FROM t", "write r:t,x"},
          {"dp", "DROP TABLE t", "write r:t"},
          {"p", "DECLARE c CURSOR FOR SELECT 1", "write"},
          {"dp", "SELECT nextval('s')", "write f:nextval"},
          {"dp", "SELECT setval('s', 1)", "write f:setval"},
          {"p", "SELECT pg_catalog.set_config('a', 'b', false)", "write f:pg_catalog.set_config"},
          {"p", "SELECT pg_advisory_lock(1)", "write f:pg_advisory_lock"},
          {"p", "SELECT lo_unlink(1)", "write f:lo_unlink"},
          {"dp", "INSERT INTO t VALUES (nextval('s'))", "write f:nextval w:t"},
          {"dp", "INSERT INTO t VALUES (setval('s', 1))", "write f:setval"},
      },
      Describe);
}

TEST(SqlStatement, DoesNotTakeNamesTextsAndCommentsForWords) {
  Expect(
      {
          {"dp", R"(SELECT "update" FROM "delete")", "read r:delete"},
          {"dp", "SELECT t.update, t.into FROM t", "read r:t"},
          {"dp", "SELECT 1 AS update", "read"},
          {"dp", "SELECT now, today, random FROM t", "read r:t"},
          {"dp", R"(SELECT "now" FROM t)", "read r:t"},
          {"dp", "SELECT 'INSERT INTO t'", "read"},
          {"dp", "SELECT 'it''s; now()'", "read"},
          {"dp", "SELECT $$ now() ' $$", "read"},
          {"dp", "SELECT $a$ $$ now() $b$ $a$", "read"},
          {"dp", R"(SELECT E'\' now() ')", "read"},
          {"dp", R"(SELECT E'\\', now())", "volatile f:now"},
          {"dp", R"(SELECT '\', now())", "volatile f:now"},
          {"dp", "SELECT 1 -- now()", "read"},
          {"dp", "SELECT 1 -- a\r, now()", "volatile f:now"},
          {"dp", "SELECT 1 /* now() /* random() */ now() */ + 2", "read"},
          {"dp", "SELECT 1 /* /* */ */ + now()", "volatile f:now"},
          {"dp", "SELECT 1 */* c */ random()", "volatile f:random"},
          {"dp", "SELECT E'a'\n'\\', now(), '", "read"},
          {"dp", "SELECT 'a'\n'\\', now()", "volatile f:now"},
          {"dp", "SELECT te'a\\', now()", "volatile f:now"},
          {"dp", "SELECT X'41', B'01', N'now()'", "read"},
          {"p", "SELECT U&'d\\0061t', U&\"x\" FROM t", "read r:t"},
          {"dp", "SELECT a$b$c, now() FROM t$b$", "volatile f:now r:t$b$"},
          {"dp", "SELECT trim(leading 'x' FROM a) FROM t", "read f:trim r:a,t"},
          {"dp", "SELECT substring(a FROM 1 FOR 2) FROM t", "read f:substring r:t"},
      },
      Describe);
}

TEST(SqlStatement, KnowsVolatileFunctions) {
  Expect(
      {
          {"dp", "SELECT now()", "volatile f:now"},
          {"dp", "SELECT NOW ( )", "volatile f:now"},
          {"dp", "SELECT pg_catalog.now()", "volatile f:pg_catalog.now"},
          {"dp", "SELECT pg_catalog . \"now\" ()", "volatile f:pg_catalog.now"},
          {"dp", R"(SELECT "random"())", "volatile f:random"},
          {"dp", "SELECT db.main.now()", "volatile f:main.now"},
          {"dp", "SELECT pg_catalog/**/./**/clock_timestamp(--\n)",
           "volatile f:pg_catalog.clock_timestamp"},
          {"dp", "SELECT gen_random_uuid()", "volatile f:gen_random_uuid"},
          {"dp", "SELECT uuid()", "volatile f:uuid"},
          {"dp", "SELECT today()", "volatile f:today"},
          {"dp", "SELECT current_setting('x')", "volatile f:current_setting"},
          {"dp", "SELECT txid_current()", "volatile f:txid_current"},
          {"p", "SELECT pg_sleep(1)", "volatile f:pg_sleep"},
          {"p", "SELECT * FROM dblink('a', 'b') AS t(a int)", "volatile f:dblink,t"},
          {"p", "SELECT lo_get(1)", "volatile f:lo_get"},
          {"p", "SELECT query_to_xml('SELECT now()', true, true, '')", "volatile f:query_to_xml"},
          {"p", "SELECT pg_typeof(a) FROM t", "read f:pg_typeof r:t"},
          {"dp", "SELECT age(a, b) FROM t", "read f:age r:t"},
          {"dp", "SELECT age(f(a, b)) FROM t", "volatile f:age,f r:t"},
          {"dp", "SELECT age(a) FROM t", "volatile f:age r:t"},
          {"dp", "SELECT CURRENT_DATE", "volatile"},
          {"dp", "SELECT current_time", "volatile"},
          {"dp", "SELECT Current_Timestamp(3)", "volatile f:current_timestamp"},
          {"dp", "SELECT localtime", "volatile"},
          {"dp", "SELECT localtimestamp", "volatile"},
          {"dp", "SELECT current_user", "volatile"},
          {"dp", "SELECT session_user", "volatile"},
          {"p", "SELECT user", "volatile"},
          {"d", "SELECT user FROM t", "read r:t"},
          {"dp", "SELECT t.current_date FROM t", "read r:t"},
          {"p", R"(SELECT "current_date" FROM t)", "read r:t"},
          {"d", R"(SELECT "current_date" FROM t)", "volatile r:t"},
          {"p", "SELECT 'now'::timestamptz", "volatile"},
          {"p", "SELECT * FROM t WHERE d > ' Yesterday '", "volatile r:t"},
          {"p", "SELECT date $$tomorrow$$", "volatile"},
          {"p", "SELECT 'tomorrow 10:00 Europe/Paris'", "volatile"},
          {"p", "SELECT 'nowhere', 'known', 'today (or not)'", "read"},
          {"d", "SELECT 'now'", "read"},
          {"dp", "SELECT * FROM t TABLESAMPLE SYSTEM (10)", "volatile f:system r:t"},
          {"d", "SELECT * FROM t USING SAMPLE 10", "volatile r:t"},
          {"d", "SELECT a.upper().now()", "volatile f:now,a.upper"},
          {"d", "SELECT * FROM duckdb_settings()", "volatile f:duckdb_settings"},
          {"d", "SELECT * FROM query('SELECT random()')", "volatile f:query"},
          {"d", "SELECT * FROM read_csv('a.csv')", "read f:read_csv"},
          {"dp", "SELECT count(*), coalesce(a, 1) FROM t WHERE a IN (1, 2) AND EXISTS (SELECT 1)",
           "read f:coalesce,count r:t"},
          {"dp", "SELECT sum(a) OVER (PARTITION BY b) FROM t", "read f:sum r:t"},
          {"p", "SELECT my.f(1), My.F(2), \"My\".\"F\"(3)", "read f:My.F,my.f"},
          {"d", "SELECT my.f(1), My.F(2), \"My\".\"F\"(3)", "read f:my.f"},
      },
      Describe);
}

TEST(SqlStatement, FindsWhatIsRead) {
  Expect(
      {
          {"dp", "SELECT * FROM a, b JOIN c ON b.x = f(c.x, c.y), s.d", "read f:f r:a,b,c,s.d"},
          {"dp", "SELECT * FROM a AS x (p, q), b y", "read f:x r:a,b"},
          {"dp", "SELECT * FROM (a CROSS JOIN b), (SELECT x, y FROM c) z, d", "read r:a,b,c,d"},
          {"dp", "SELECT (SELECT max(x) FROM a), y, z FROM b", "read f:max r:a,b"},
          {"dp", "SELECT * FROM a WHERE x IN (SELECT y FROM b), c", "read r:a,b"},
          {"dp", "SELECT * FROM a ORDER BY x, y", "read r:a"},
          {"dp", "SELECT x, y FROM a GROUP BY x, y HAVING f(x, y) > 1 LIMIT 3", "read f:f r:a"},
          {"p", "SELECT * FROM ONLY a, LATERAL (SELECT * FROM b) x, ROWS FROM (f(1), g(2)) y",
           "read f:f,g r:a,b"},
          {"dp", "SELECT * FROM f(1), a", "read f:f r:a"},
          {"dp", "SELECT * FROM f(1) WITH ORDINALITY AS t(a, b), c", "read f:f,t r:c"},
          {"dp", "SELECT x FROM a UNION SELECT y FROM b EXCEPT TABLE c", "read r:a,b,c"},
          {"dp", "SELECT * FROM a JOIN b USING (x, y) JOIN c USING (z)", "read r:a,b,c"},
          {"dp", "WITH x AS (SELECT * FROM a), y AS (SELECT * FROM x) SELECT * FROM x, y, b",
           "read r:a,b"},
          {"dp", "WITH t AS (SELECT * FROM t) SELECT * FROM t", "read r:t"},
          {"dp", "WITH RECURSIVE t AS (SELECT 1 UNION ALL SELECT * FROM t) SELECT * FROM t, u",
           "read r:u"},
          {"dp", "SELECT * FROM t, (WITH t AS (SELECT 1) SELECT * FROM t) x", "read r:t"},
          {"dp", "(WITH t AS (SELECT 1) SELECT * FROM t) UNION SELECT * FROM t", "read r:t"},
          {"dp", "WITH t (a, b) AS NOT MATERIALIZED (SELECT 1, 2) SELECT * FROM t, s.t",
           "read f:t r:s.t"},
          {"dp", "WITH a AS (SELECT 1) SELECT * FROM b WHERE x IN (SELECT * FROM a)", "read r:b"},
          {"p",
           "WITH RECURSIVE t AS (SELECT 1) SEARCH DEPTH FIRST BY a, b SET o SELECT * FROM b, t",
           "read r:b"},
          {"d", "WITH RECURSIVE t(a) USING KEY (a) AS (SELECT 1) FROM t, u", "read f:t r:u"},
          {"dp", "SELECT EXTRACT(YEAR FROM d) FROM t", "read f:extract r:d,t"},
          {"p", R"(SELECT * FROM "a.b"."C d")", "read r:a.b.C d"},
          {"d", R"(SELECT * FROM "a.b"."C d")", "read r:a.b.c d"},
          {"d", "FROM a.b.c", "read r:b.c"},
          {"d", "FROM x: t, u", "read r:t,u"},
          {"d", "FROM 'Data.csv'", "read r:Data.csv"},
          {"d", "SELECT x FROM t SELECT", "read r:t"},
          {"d", "FROM t SELECT a, b", "read r:t"},
          {"p", "SELECT * FROM set, update", "write r:set,update"},
          {"dp", "SELECT {'a': 1}", "read"},
          {"dp", "SELECT CAST(a AS decimal(10, 2)) FROM T", "read f:decimal r:t"},
      },
      Describe);
}

TEST(SqlStatement, LongNamesAreCutAsPostgresCutsThem) {
  const std::string name(70, 'n');
  EXPECT_EQ(ReadSound("SELECT * FROM " + name, SqlDialect::kPostgres).relations[0].name,
            std::string(63, 'n'));
  EXPECT_EQ(ReadSound("SELECT * FROM " + name, SqlDialect::kDuckDb).relations[0].name, name);
  // 62 bytes and one character of two.
  const std::string wide = std::string(62, 'n') + "é";
  EXPECT_EQ(ReadSound("SELECT * FROM \"" + wide + "\"", SqlDialect::kPostgres).relations[0].name,
            std::string(62, 'n'));
}

TEST(SqlStatement, NumbersParameters) {
  struct ParameterCase {
    std::string sql, text;
    std::vector<std::string> names;
  };
  const std::vector<ParameterCase> cases = {
      {"SELECT :a", "SELECT $1", {"a"}},
      {"SELECT :a, :b, :a", "SELECT $1, $2, $1", {"a", "b"}},
      {"SELECT :_x9, :Äb", "SELECT $1, $2", {"_x9", "Äb"}},
      {"SELECT :a::int", "SELECT $1::int", {"a"}},
      {"SELECT '1'::int, x::text", "SELECT '1'::int, x::text", {}},
      {"SELECT ':a', $$:b$$, \":c\" -- :d\n/* :e */",
       "SELECT ':a', $$:b$$, \":c\" -- :d\n/* :e */",
       {}},
      {"SELECT x[1:2], x[:a], x[a:b], x[1 :b]", "SELECT x[1:2], x[$1], x[a:b], x[1 :b]", {"a"}},
      {"SELECT x[f(:a):2], x[(:b)]", "SELECT x[f($1):2], x[($2)]", {"a", "b"}},
      {"SELECT {'a': 1, 'b': :b, 'c':c}", "SELECT {'a': 1, 'b': $1, 'c':c}", {"b"}},
      {"SELECT {'a' :a, b:b}", "SELECT {'a' :a, b:b}", {}},
      {"SELECT ARRAY[:a, :b]", "SELECT ARRAY[$1, $2]", {"a", "b"}},
      {"SELECT [CASE WHEN :a THEN :b END]", "SELECT [CASE WHEN $1 THEN $2 END]", {"a", "b"}},
      {"SELECT 1 LIMIT:n", "SELECT 1 LIMIT $1", {"n"}},
      {"SELECT a WHERE b=:b AND c IN(:c)", "SELECT a WHERE b=$1 AND c IN($2)", {"b", "c"}},
      {"SELECT f(a => :a, b := :b)", "SELECT f(a => $1, b := $2)", {"a", "b"}},
      {"SELECT list_transform(l, lambda x:x + :y)",
       "SELECT list_transform(l, lambda x:x + $1)",
       {"y"}},
      {"SELECT :a || :b", "SELECT $1 || $2", {"a", "b"}},
      {"SELECT now() AT TIME ZONE :zone", "SELECT now() AT TIME ZONE $1", {"zone"}},
  };
  for (const ParameterCase& one : cases) {
    for (const SqlDialect dialect : {SqlDialect::kDuckDb, SqlDialect::kPostgres}) {
      const SqlStatement statement = ReadSound(one.sql, dialect);
      EXPECT_EQ(statement.text, one.text);
      EXPECT_EQ(statement.parameters, one.names) << one.sql;
    }
  }
}

TEST(SqlStatement, NormalizesBlanksAndComments) {
  Expect(
      {
          {"dp", "  SELECT\n\t1  ;; ", "SELECT 1"},
          {"dp", "SELECT 1 -- one\n , 2", "SELECT 1 , 2"},
          {"dp", "SELECT/**/1/* x */+2", "SELECT 1 +2"},
          {"dp", "SELECT 'a  b',  \"c  d\", $$ e  f $$", "SELECT 'a  b', \"c  d\", $$ e  f $$"},
          {"dp", "SELECT 'a' -- c\n  'b'", "SELECT 'a'\n'b'"},
          {"dp", "SELECT 'a' /* c */ 'b'", "SELECT 'a' 'b'"},
          {"dp", "SELECT :b, :a", "SELECT $1, $2"},
          {"dp", "SELECT :y, :z", "SELECT $1, $2"},
          {"dp", "SELECT A, a", "SELECT A, a"},
          {"dp", "SELECT 1-/**/-1", "SELECT 1- -1"},
      },
      [](const SqlStatement& statement) { return statement.normalized; });
}

TEST(SqlStatement, SaysWhatIsWrong) {
  const std::vector<Case> cases = {
      {"dp", "", "there is no statement"},
      {"dp", " /* x */ ; -- y", "there is no statement"},
      {"dp", "SELECT 'a", "line 1, column 8: the quote ' is never closed"},
      {"dp", "SELECT E'a\\'", "the quote ' is never closed"},
      {"dp", "SELECT E'a\\", "the quote ' is never closed"},
      {"dp", "SELECT \"a", "the quote \" is never closed"},
      {"dp", "SELECT\n é, $tag$ $$", "line 2, column 5: the quote $tag$ is never closed"},
      {"dp", "SELECT /* /* */ 1", "the comment /* is never closed"},
      {"dp", "SELECT 1; DELETE FROM t", "line 1, column 9: a second statement follows"},
      {"dp", "SELECT ';'; SELECT 1;", "a second statement follows"},
      {"dp", "SELECT $1", "parameters are written as :name, not $1"},
      {"dp", "SELECT $name", "parameters are written as :name, not $name"},
      {"d", "SELECT ?", "parameters are written as :name, not ?"},
      {"dp", "SELECT $ 1", "a $ that begins neither"},
      {"dp", "SELECT :a$b", "a $ directly behind a parameter's name"},
      {"dp", std::string("SELECT 1\0, 2", 12), "line 1, column 9: a NUL byte"},
      {"dp", "SELECT '\xC3'", "line 1, column 9: not UTF-8"},
      {"dp", "SELECT\u00A01", "only looks like a blank"},
      {"dp", "SELECT\u200Bnow()", "only looks like a blank"},
      {"dp",
       "SELECT\x0B"
       "1",
       "the control character U+000B"},
      {"dp", R"(SELECT U&"n\006fw"())", "write its characters themselves"},
      {"dp", R"(SELECT U&"n!006fw" UESCAPE '!')", "write its characters themselves"},
      {"dp", "SELECT '" + std::string(1 << 20, 'x') + "'", "longer than 1 MiB"},
  };
  for (const Case& one : cases) {
    for (const SqlDialect dialect : DialectsOf(one)) {
      std::string fault;
      const SqlStatement statement = ReadSqlStatement(one.sql, dialect, fault);
      EXPECT_THAT(fault, HasSubstr(one.expected)) << one.sql.substr(0, 100);
      EXPECT_EQ(statement.text, "") << one.sql.substr(0, 100);
    }
  }
  // In PostgreSQL ? is an operator.
  EXPECT_EQ(Describe(ReadSound("SELECT a ? 'b' FROM t", SqlDialect::kPostgres)), "read r:t");
  // Blanks that only look like some are what they are within quotes.
  ReadSound("SELECT '\u00A0' AS \"\u00A0\"", SqlDialect::kDuckDb);
}

TEST(SqlStatement, DeepNestingIsQuick) {
  std::string sql = "SELECT ";
  for (int i = 0; i < 30'000; ++i) sql += "age((WITH a AS (SELECT 1) SELECT ";
  ReadSound(sql, SqlDialect::kPostgres);
  std::string names = "WITH a AS (SELECT 1)";
  for (int i = 0; i < 20'000; ++i) names += fmt::format(", a{} AS (SELECT * FROM a)", i);
  EXPECT_THAT(ReadSound(names + " SELECT * FROM a19999", SqlDialect::kDuckDb).relations, IsEmpty());
}

/// Every function that DuckDB itself does not call consistent is in our list.
TEST(SqlFunctions, CoverDuckDbsCatalogue) {
  DuckDatabase database(DuckLimits{});
  const std::vector<std::string> names = database.Texts(
      "SELECT DISTINCT function_name FROM duckdb_functions() "
      "WHERE stability IN ('VOLATILE', 'CONSISTENT_WITHIN_QUERY') AND $1 = '' ORDER BY ALL",
      "");
  EXPECT_GE(names.size(), 20U);
  for (const std::string& name : names) EXPECT_TRUE(IsVolatileFunction(name)) << name;
}

}  // namespace
}  // namespace halo
