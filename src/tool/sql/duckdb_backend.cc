#include "tool/sql/duckdb_backend.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <unordered_map>

#include "base/error.h"
#include "base/text.h"
#include "sql/duck_database.h"
#include "sql/sql_lexer.h"
#include "sql/sql_values.h"
#include "tool/sql/duckdb_values.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;
using DuckPending = DuckHandle<duckdb_pending_result, duckdb_destroy_pending>;

/// Functions that make rows from their arguments alone: others that stand for tables read or write
/// something, or run text as a statement.
constexpr std::string_view kTableMakers[] = {"range",      "generate_series", "unnest",   "repeat",
                                             "repeat_row", "json_each",       "json_tree"};
constexpr std::chrono::milliseconds kBetweenInterrupts{5};
constexpr size_t kMostStatements = 256;  // prepared on one connection

Failure Fault(const char* code, std::string message) {
  return {"", code, std::move(message), false};
}

/// What DuckDB says, without its "LINE 1:" picture of the statement.
std::string FirstParagraph(const char* message) {
  std::string text = ReplaceInvalidUtf8(message == nullptr ? "no message" : message);
  text = text.substr(0, text.find("\n\nLINE "));
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

Failure Cancelled() { return Fault("cancelled", "the call was cancelled"); }

Failure Late() { return Fault("deadline", "the call took longer than its deadline allows"); }

bool MayRun(duckdb_statement_type type, bool writes) {
  if (type == DUCKDB_STATEMENT_TYPE_SELECT || type == DUCKDB_STATEMENT_TYPE_EXPLAIN) return true;
  return writes && (type == DUCKDB_STATEMENT_TYPE_INSERT || type == DUCKDB_STATEMENT_TYPE_UPDATE ||
                    type == DUCKDB_STATEMENT_TYPE_DELETE || type == DUCKDB_STATEMENT_TYPE_CREATE ||
                    type == DUCKDB_STATEMENT_TYPE_ALTER || type == DUCKDB_STATEMENT_TYPE_DROP);
}

std::string WhyItMayNot(bool writes) {
  return writes
             ? "this kind of statement is not allowed: a write may INSERT, UPDATE, DELETE, CREATE, "
               "ALTER or DROP"
             : "the statement does not only read: declare effect: write, if it is to write";
}

/// By its first word; PRAGMA, CALL and their like are not among them.
bool BeginsLikeAQuery(std::string_view normalized) {
  const size_t begin = normalized.find_first_not_of("( ");
  if (begin == std::string_view::npos) return false;
  std::string word;
  for (const char c : normalized.substr(begin)) {
    if ((c < 'a' || c > 'z') && (c < 'A' || c > 'Z')) break;
    word += static_cast<char>(c >= 'a' ? c - 'a' + 'A' : c);
  }
  static const std::set<std::string> kWords = {
      "SELECT",   "WITH",      "FROM",  "VALUES",  "TABLE",   "EXPLAIN", "SHOW",
      "DESCRIBE", "SUMMARIZE", "PIVOT", "UNPIVOT", "INSERT",  "UPDATE",  "DELETE",
      "MERGE",    "CREATE",    "ALTER", "DROP",    "TRUNCATE"};
  return kWords.contains(word);
}

/// A view or a macro of the user's own: what it says when it is used.
struct Definition {
  SqlName name;
  bool is_view = false;
  SqlStatement statement;
  bool is_readable = true;
};

/// What stands behind the AS of a CREATE VIEW; "" if there is none.
std::string BodyOfView(const std::string& text) {
  std::string fault;
  int depth = 0;
  for (const SqlToken& token : ReadSqlTokens(text, SqlDialect::kDuckDb, fault)) {
    depth += token.IsOperator("(") ? 1 : token.IsOperator(")") ? -1 : 0;
    if (depth == 0 && token.IsWord("as"))
      return text.substr(static_cast<size_t>(token.source.data() - text.data()) + 2);
  }
  return "";
}

std::vector<Definition> DefinitionsOf(DuckDatabase& database) {
  std::vector<Definition> definitions;
  const auto add = [&](const std::string& name, bool is_view, const std::string& body) {
    Definition definition{{"", LowerCaseAscii(name)}, is_view, {}, true};
    std::string fault;
    definition.statement = ReadSqlStatement(body, SqlDialect::kDuckDb, fault);
    definition.is_readable = fault.empty();
    definitions.push_back(std::move(definition));
  };
  for (const std::string& view : database.Texts(
           "SELECT DISTINCT view_name FROM duckdb_views() WHERE NOT internal AND NOT temporary AND "
           "$1 = ''",
           "")) {
    for (const std::string& text : database.Texts(
             "SELECT sql FROM duckdb_views() WHERE NOT internal AND view_name = $1", view))
      add(view, true, BodyOfView(text));
  }
  for (const std::string& macro : database.Texts(
           "SELECT DISTINCT function_name FROM duckdb_functions() WHERE NOT internal AND "
           "function_type IN ('macro', 'table_macro') AND $1 = ''",
           "")) {
    for (const std::string& text : database.Texts(
             "SELECT macro_definition FROM duckdb_functions() WHERE NOT internal AND function_type "
             "IN ('macro', 'table_macro') AND function_name = $1",
             macro))
      add(macro, false, "SELECT " + text);
  }
  return definitions;
}

bool HasName(const std::vector<SqlName>& names, const std::set<SqlName>& known) {
  return std::any_of(names.begin(), names.end(), [&](const SqlName& name) {
    return known.contains({"", name.name});
  });
}

/// Which statements may be prepared at all, by their words: a type tells neither PRAGMA, which
/// DuckDB turns into a SELECT, nor what EXPLAIN ANALYZE executes, and a function that stands for a
/// table may do anything.
class StatementRules {
 public:
  explicit StatementRules(DuckDatabase& database) {
    const std::vector<std::string> names = database.Texts(
        "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type IN "
        "('table', 'table_macro') AND $1 = ''",
        "");
    table_functions_.insert(names.begin(), names.end());
    for (const std::string_view name : kTableMakers) table_functions_.erase(std::string(name));
    FindRefusedViews(DefinitionsOf(database));
  }

  /// "" or why not.
  std::string WhyRefused(const std::string& text) const {
    std::string unreadable;  // DuckDB says better what is wrong with it
    const std::vector<SqlToken> tokens = ReadSqlTokens(text, SqlDialect::kDuckDb, unreadable);
    if (!tokens.empty() && tokens[0].IsWord("pragma"))
      return "PRAGMA is not allowed: select from the tables of information_schema instead";
    const bool executes =
        tokens.size() > 1 && tokens[0].IsWord("explain") &&
        (tokens[1].IsWord("analyze") || tokens[1].IsWord("analyse") || tokens[1].IsOperator("("));
    if (executes) return "EXPLAIN ANALYZE is not allowed: it executes what it explains";
    for (const SqlToken& token : tokens) {
      if (token.IsName() && refused_.contains({"", LowerCaseAscii(token.value)}))
        return "'" + token.value +
               "' may not be used: what it is defined by reads, writes or runs something else";
    }
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      if (!tokens[i].IsName() || !tokens[i + 1].IsOperator("(")) continue;
      if (!table_functions_.contains(LowerCaseAscii(tokens[i].value))) continue;
      return "the function " + tokens[i].value +
             "() may not be used: it reads, writes or runs something; declare files under the "
             "connection's `files`";
    }
    return "";
  }

 private:
  /// Views and macros that come to a function which is refused, through others too.
  void FindRefusedViews(const std::vector<Definition>& definitions) {
    std::set<SqlName> functions;
    for (const std::string& name : table_functions_) functions.insert({"", name});
    for (const Definition& each : definitions) {
      if (!each.is_view) functions.erase(each.name);  // a macro is judged by what it says
    }
    for (bool found = true; found;) {
      found = false;
      for (const Definition& each : definitions) {
        const bool refused = !each.is_readable || HasName(each.statement.functions, functions) ||
                             HasName(each.statement.functions, refused_) ||
                             HasName(each.statement.relations, refused_);
        if (refused && refused_.insert(each.name).second) found = true;
      }
    }
  }

  std::set<std::string> table_functions_;
  std::set<SqlName> refused_;
};

/// One of a database's connections: used by one thread at a time.
class Lane {
 public:
  Lane(DuckDatabase& database, const DuckDbConnection& spec, const StatementRules& rules)
      : connection_(database.Connect()), rules_(rules) {
    for (const auto& [table, file] : spec.files) {
      DuckDatabase::Execute(connection_->get(), "CREATE TEMP VIEW " + QuoteName(table) +
                                                    " AS SELECT * FROM " + QuoteSqlText(file));
    }
  }

  duckdb_connection get() const { return connection_->get(); }

  /// The prepared statement of a text. Throws Failure.
  duckdb_prepared_statement Prepare(const std::string& text) {
    if (const auto found = by_text_.find(text); found != by_text_.end()) {
      statements_.splice(statements_.begin(), statements_, found->second);
      return statements_.front().statement->get();
    }
    if (std::string why = rules_.WhyRefused(text); !why.empty())
      throw Fault("not_allowed", std::move(why));
    auto statement = std::make_unique<DuckStatement>();
    if (duckdb_prepare(get(), text.c_str(), statement->out()) != DuckDBSuccess)
      throw Fault("sql_error", FirstParagraph(duckdb_prepare_error(statement->get())));
    statements_.push_front({text, std::move(statement)});
    by_text_[text] = statements_.begin();
    if (statements_.size() > kMostStatements) {
      by_text_.erase(statements_.back().text);
      statements_.pop_back();
    }
    return statements_.front().statement->get();
  }

 private:
  struct Prepared {
    std::string text;
    std::unique_ptr<DuckStatement> statement;
  };

  static std::string QuoteName(const std::string& name) {
    std::string quoted = "\"";
    for (const char c : name) {
      if (c == '"') quoted += '"';
      quoted += c;
    }
    return quoted + "\"";
  }

  std::unique_ptr<DuckConnection> connection_;
  const StatementRules& rules_;
  std::list<Prepared> statements_;  // most recently used first
  std::unordered_map<std::string, std::list<Prepared>::iterator> by_text_;
};

/// The transaction of a write: all of it or, if it fails on the way, nothing.
class Transaction {
 public:
  explicit Transaction(duckdb_connection connection) : connection_(connection) {
    if (const std::string fault = Execute("BEGIN TRANSACTION"); !fault.empty())
      throw Fault("sql_error", fault);
    is_open_ = true;
  }
  ~Transaction() {
    // One that is interrupted is tried again: the connection must be fit for the next call.
    constexpr int kMostAttempts = 100;
    for (int i = 0; i < kMostAttempts && is_open_; ++i) is_open_ = !Execute("ROLLBACK").empty();
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  void Commit() {
    is_open_ = false;  // a commit that fails has rolled back
    if (const std::string fault = Execute("COMMIT"); !fault.empty())
      throw Fault("sql_error", fault);
  }

 private:
  /// "" or what is wrong.
  std::string Execute(const char* sql) {
    DuckResult result;
    if (duckdb_query(connection_, sql, result.out()) == DuckDBSuccess) return "";
    return FirstParagraph(duckdb_result_error(result.out()));
  }

  duckdb_connection connection_;
  bool is_open_ = false;
};

struct Database {
  DuckDbConnection spec;
  std::unique_ptr<DuckDatabase> database;
  std::unique_ptr<StatementRules> rules;
  std::vector<std::unique_ptr<Lane>> lanes;  // [threads]
};

/// What a result's columns are called: later ones of a name get a number.
std::vector<std::string> ColumnNames(duckdb_result* result) {
  std::vector<std::string> names;
  for (idx_t i = 0; i < duckdb_column_count(result); ++i) {
    const std::string name = ReplaceInvalidUtf8(duckdb_column_name(result, i));
    std::string unique = name;
    for (int n = 2; std::find(names.begin(), names.end(), unique) != names.end(); ++n)
      unique = name + "_" + std::to_string(n);
    names.push_back(std::move(unique));
  }
  return names;
}

/// What a value takes as JSON at the least, found without making it (JSON itself as it is written);
/// beyond `most` any number.
int64_t LeastBytes(const SqlVector& vector, idx_t row, int64_t most) {
  const bool valid = vector.validity == nullptr || ((vector.validity[row / 64] >> (row % 64)) & 1);
  if (!valid) return 1;
  idx_t first = row, count = 1;
  switch (vector.type->id) {
    case DUCKDB_TYPE_VARCHAR:
      return static_cast<int64_t>(
          duckdb_string_t_length(static_cast<const duckdb_string_t*>(vector.data)[row]));
    case DUCKDB_TYPE_LIST:
    case DUCKDB_TYPE_MAP: {
      const auto entry = static_cast<const duckdb_list_entry*>(vector.data)[row];
      first = entry.offset;
      count = entry.length;
      break;
    }
    case DUCKDB_TYPE_ARRAY:
      first = row * vector.type->array_size;
      count = vector.type->array_size;
      break;
    default:
      break;
  }
  int64_t bytes = static_cast<int64_t>(count);  // a comma each
  for (const SqlVector& child : vector.children) {
    for (idx_t i = first; i < first + count && bytes <= most; ++i)
      bytes += LeastBytes(child, i, most - bytes);
  }
  return bytes;
}

/// Reads a result row by row, within a call's limits.
class ResultReader {
 public:
  ResultReader(duckdb_result* result, const SqlCall& call) : result_(result), call_(call) {
    names_ = ColumnNames(result);
    for (size_t i = 0; i < names_.size(); ++i) {
      const DuckType type(duckdb_column_logical_type(result, i));
      std::string fault;
      types_.push_back(ReadSqlType(type.get(), fault));
      if (!fault.empty()) {
        throw Fault("bad_column", "column '" + names_[i] + "' " + fault +
                                      ": leave it out or convert it in the SELECT");
      }
    }
  }

  Json Rows() {
    Json rows = Json::array();
    while (true) {
      const DuckChunk chunk(duckdb_fetch_chunk(*result_));
      if (chunk.get() == nullptr) break;
      std::vector<SqlVector> vectors;
      for (size_t i = 0; i < types_.size(); ++i)
        vectors.emplace_back(types_[i], duckdb_data_chunk_get_vector(chunk.get(), i));
      for (idx_t row = 0; row < duckdb_data_chunk_get_size(chunk.get()); ++row)
        rows.push_back(Row(vectors, row));
    }
    const char* fault = duckdb_result_error(result_);
    if (fault != nullptr && *fault != '\0') throw Fault("sql_error", FirstParagraph(fault));
    return rows;
  }

 private:
  Json Row(const std::vector<SqlVector>& vectors, idx_t row) {
    if (++rows_ > call_.most_rows) {
      throw Fault("result_too_large", "the result has more than " +
                                          std::to_string(call_.most_rows) +
                                          " rows: add a LIMIT, or raise most_rows");
    }
    Json object = Json::object();
    for (size_t i = 0; i < vectors.size(); ++i) {
      std::string fault;
      if (LeastBytes(vectors[i], row, call_.most_bytes) > call_.most_bytes) throw TooLarge();
      Json value = SqlValue(vectors[i], row, fault);
      if (!fault.empty())
        throw Fault("invalid_value",
                    "column '" + names_[i] + "', row " + std::to_string(rows_) + ": " + fault);
      constexpr int64_t kBytesAround = 4;
      bytes_ += kBytesAround + static_cast<int64_t>(names_[i].size());
      bytes_ += value.is_string() ? static_cast<int64_t>(value.get_ref<const std::string&>().size())
                : value.is_structured() ? static_cast<int64_t>(value.dump().size())
                                        : 8;
      object[names_[i]] = std::move(value);
    }
    if (bytes_ > call_.most_bytes) throw TooLarge();
    return object;
  }

  Failure TooLarge() const {
    return Fault("result_too_large",
                 "the result has more than " + std::to_string(call_.most_bytes) +
                     " bytes: choose fewer columns or rows, or raise most_bytes");
  }

  duckdb_result* result_;
  const SqlCall& call_;
  std::vector<std::string> names_;
  std::vector<SqlType> types_;
  int64_t rows_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace

struct DuckDbBackend::Impl {
  /// A call from Submit to its completion.
  struct Waiting {
    ToolCall call;
    bool operator<(const Waiting& other) const {
      return std::tie(call.order, call.id) < std::tie(other.call.order, other.call.id);
    }
  };
  /// What a thread runs now; the watch interrupts it when it is late.
  struct Running {
    ToolCallId id = 0;
    duckdb_connection connection = nullptr;
    int64_t deadline_us = 0;
    bool timed_out = false, cancelled = false;
  };

  ToolMailbox& mailbox;
  Clock& clock;
  std::map<std::string, Database> databases;
  std::mutex mutex;
  std::condition_variable changed;  // something waits, something runs, or the end has come
  std::multiset<Waiting> waiting;   // under mutex, as all below
  std::vector<Running> running;     // [threads]
  bool ending = false;
  std::vector<std::thread> threads;
  std::thread watch;

  Impl(ToolMailbox& m, Clock& c) : mailbox(m), clock(c) {}

  void Open(DuckDbConnection spec, int32_t count);
  void Work(size_t thread);
  void Watch();
  bool InterruptAll();
  void EndLate(std::unique_lock<std::mutex>& lock);
  Failure TooSlow(const std::string& connection) const;
  void Execute(size_t thread, ToolCall call);
  Json Run(size_t thread, const ToolCall& call, const SqlCall& sql);
  void Bind(duckdb_prepared_statement statement, const SqlCall& sql);
  static Json ResultOf(duckdb_prepared_statement statement, const SqlCall& sql);
};

void DuckDbBackend::Impl::Open(DuckDbConnection spec, int32_t count) {
  Database opened;
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::kConfig, "connection '" + spec.name + "' (duckdb:" +
                                        (spec.path.empty() ? ":memory:" : spec.path) + "): " + why);
  };
  std::error_code ignored;
  const bool exists = !spec.path.empty() && std::filesystem::is_regular_file(spec.path, ignored);
  if (!spec.path.empty() && !exists && !spec.may_write)
    refuse("there is no such file: make it first, or give another with --connect " + spec.name +
           "=duckdb:PATH");
  for (const auto& [name, other] : databases) {
    // DuckDB's lock on a file is one of the process: it does not keep two of ours apart.
    const bool is_same = exists && !other.spec.path.empty() &&
                         std::filesystem::equivalent(spec.path, other.spec.path, ignored);
    if (is_same && (spec.may_write || other.spec.may_write))
      refuse("connection '" + name +
             "' is the same file, and the run writes to it: use one "
             "connection for both");
  }
  try {
    opened.database =
        std::make_unique<DuckDatabase>(DuckLimits{spec.memory_bytes, spec.spill_folder},
                                       DuckFile{spec.path, !spec.path.empty() && !spec.may_write});
    opened.rules = std::make_unique<StatementRules>(*opened.database);
    for (int32_t i = 0; i < count + 1; ++i)
      opened.lanes.push_back(std::make_unique<Lane>(*opened.database, spec, *opened.rules));
    std::vector<std::string> files;
    for (const auto& [table, file] : spec.files) files.push_back(file);
    opened.database->Lock(files);
  } catch (const Error& error) {
    refuse(FirstParagraph(error.what()));
  }
  opened.spec = std::move(spec);
  const std::string name = opened.spec.name;
  databases.emplace(name, std::move(opened));
}

void DuckDbBackend::Impl::Work(size_t thread) {
  while (true) {
    ToolCall call;
    {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return ending || !waiting.empty(); });
      if (ending) return;
      call = std::move(waiting.extract(waiting.begin()).value().call);
      running[thread] = {call.id, nullptr, 0, false, false};
    }
    Execute(thread, std::move(call));
  }
}

/// Ends calls whose deadline passed while they waited. Gives the lock up for a moment.
void DuckDbBackend::Impl::EndLate(std::unique_lock<std::mutex>& lock) {
  std::vector<ToolCompletion> late;
  const int64_t now_us = clock.NowUs();
  for (auto it = waiting.begin(); it != waiting.end();) {
    const ToolCall& call = it->call;
    if (call.deadline_us == 0 || now_us < call.deadline_us) {
      ++it;
      continue;
    }
    late.emplace_back();
    late.back().id = call.id;
    late.back().failure = Late();
    late.back().finished_us = now_us;
    it = waiting.erase(it);
  }
  lock.unlock();
  for (ToolCompletion& completion : late) mailbox.Put(std::move(completion));
  lock.lock();
}

/// False if nothing runs.
bool DuckDbBackend::Impl::InterruptAll() {
  const std::lock_guard lock(mutex);
  bool any = false;
  for (const Running& each : running) {
    if (each.connection == nullptr) continue;
    duckdb_interrupt(each.connection);
    any = true;
  }
  return any;
}

/// Interrupts statements that run past their deadline.
void DuckDbBackend::Impl::Watch() {
  std::unique_lock lock(mutex);
  while (!ending) {
    EndLate(lock);
    if (ending) return;
    int64_t next_us = 0;
    const int64_t now_us = clock.NowUs();
    for (const Waiting& each : waiting) {
      const int64_t deadline_us = each.call.deadline_us;
      if (deadline_us > 0) next_us = next_us == 0 ? deadline_us : std::min(next_us, deadline_us);
    }
    for (Running& each : running) {
      if (each.connection == nullptr || each.deadline_us == 0) continue;
      if (now_us >= each.deadline_us) {
        each.timed_out = true;
        duckdb_interrupt(each.connection);
      }
      next_us = next_us == 0 ? each.deadline_us : std::min(next_us, each.deadline_us);
    }
    if (next_us == 0) {
      changed.wait(lock);
    } else {
      // An interrupt that came between two statements of a call is lost: it is sent again.
      constexpr int64_t kAgainUs = 20'000;
      changed.wait_for(lock, std::chrono::microseconds(std::max(kAgainUs, next_us - now_us)));
    }
  }
}

Failure DuckDbBackend::Impl::TooSlow(const std::string& connection) const {
  constexpr double kUsPerS = 1e6;
  const auto limit_us = static_cast<double>(databases.at(connection).spec.statement_timeout_us);
  return {"", "timeout",
          "the statement took longer than the connection's limit of " +
              Json(limit_us / kUsPerS).dump() + " s",
          true};
}

void DuckDbBackend::Impl::Execute(size_t thread, ToolCall call) {
  ToolCompletion completion;
  completion.id = call.id;
  completion.started_us = clock.NowUs();
  const int64_t cpu_us = ThreadCpuUs();
  const auto& sql = std::get<SqlCall>(call.what);
  try {
    if (call.deadline_us > 0 && completion.started_us >= call.deadline_us) throw Late();
    completion.value = Run(thread, call, sql);
  } catch (Failure& failure) {
    completion.failure = std::move(failure);
  } catch (const std::bad_alloc&) {
    completion.failure = Fault("out_of_memory", "there is not enough memory for the result");
  }
  completion.finished_us = clock.NowUs();
  // DuckDB runs with one thread, so a statement's work is done by the thread that asks for it.
  completion.cpu_us = ThreadCpuUs() - cpu_us;
  {
    const std::lock_guard lock(mutex);
    const Running ran = std::exchange(running[thread], {});
    // A result that was there in time counts, whatever was asked for meanwhile.
    if (completion.failure && ran.cancelled) {
      completion.failure = Cancelled();
    } else if (completion.failure && ran.timed_out) {
      completion.failure = call.deadline_us > 0 ? Late() : TooSlow(sql.connection);
    }
  }
  mailbox.Put(std::move(completion));
}

void DuckDbBackend::Impl::Bind(duckdb_prepared_statement statement, const SqlCall& sql) {
  duckdb_clear_bindings(statement);
  for (size_t i = 0; i < sql.arguments.size(); ++i) {
    std::string fault;
    const DuckValue value(MakeDuckValue(sql.arguments[i], fault));
    if (!fault.empty())
      throw Fault("bad_parameter", "parameter " + std::to_string(i + 1) + ": " + fault);
    if (duckdb_bind_value(statement, i + 1, value.get()) != DuckDBSuccess)
      throw Fault("bad_parameter", "parameter " + std::to_string(i + 1) + ": " +
                                       FirstParagraph(duckdb_prepare_error(statement)));
  }
}

Json DuckDbBackend::Impl::Run(size_t thread, const ToolCall& call, const SqlCall& sql) {
  const auto found = databases.find(sql.connection);
  if (found == databases.end())
    throw Fault("bad_connection", "there is no connection '" + sql.connection + "'");
  Lane& lane = *found->second.lanes[thread];
  {
    const std::lock_guard lock(mutex);
    Running& mine = running[thread];
    if (mine.cancelled) throw Cancelled();
    mine.connection = lane.get();
    mine.deadline_us = call.deadline_us > 0
                           ? call.deadline_us
                           : clock.NowUs() + found->second.spec.statement_timeout_us;
  }
  changed.notify_all();
  const bool writes = call.effect == ToolEffect::kWrite;
  duckdb_prepared_statement statement = lane.Prepare(sql.text);
  if (!MayRun(duckdb_prepared_statement_type(statement), writes))
    throw Fault("not_allowed", WhyItMayNot(writes));
  if (!sql.settings.empty())
    throw Fault("not_allowed", "settings of a plan are PostgreSQL's: DuckDB has none of them");
  Bind(statement, sql);
  if (!writes) return ResultOf(statement, sql);
  Transaction transaction(lane.get());
  Json result = ResultOf(statement, sql);
  transaction.Commit();
  return result;
}

/// Executes a statement whose values are bound.
Json DuckDbBackend::Impl::ResultOf(duckdb_prepared_statement statement, const SqlCall& sql) {
  // Streaming, so that a result which is too large is never held: see workflow/sql_reader.cc.
  DuckPending pending;
  if (duckdb_pending_prepared_streaming(statement, pending.out()) != DuckDBSuccess)
    throw Fault("sql_error", FirstParagraph(duckdb_pending_error(pending.get())));
  DuckResult result;
  if (duckdb_execute_pending(pending.get(), result.out()) != DuckDBSuccess)
    throw Fault("sql_error", FirstParagraph(duckdb_result_error(result.out())));
  const bool is_count = duckdb_result_return_type(*result.out()) == DUCKDB_RESULT_TYPE_CHANGED_ROWS;
  Json rows = ResultReader(result.out(), sql).Rows();
  const auto count = static_cast<int64_t>(rows.size());
  if (!is_count) return {{"rows", std::move(rows)}, {"rowcount", count}};
  const Json changed_rows = rows.empty() ? Json(0) : rows.front().begin().value();
  return {{"rows", Json::array()}, {"rowcount", changed_rows}};
}

DuckDbBackend::DuckDbBackend(std::vector<DuckDbConnection> connections, int32_t threads,
                             ToolMailbox& mailbox, Clock& clock)
    : impl_(std::make_unique<Impl>(mailbox, clock)) {
  for (DuckDbConnection& connection : connections) impl_->Open(std::move(connection), threads);
  impl_->running.resize(static_cast<size_t>(threads));
  for (int32_t i = 0; i < threads; ++i)
    impl_->threads.emplace_back([this, i] { impl_->Work(static_cast<size_t>(i)); });
  impl_->watch = std::thread([this] { impl_->Watch(); });
}

DuckDbBackend::~DuckDbBackend() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->ending = true;
    for (Impl::Running& each : impl_->running) each.cancelled = true;
  }
  impl_->changed.notify_all();
  // An interrupt that comes between two steps of a call is lost: until all have ended.
  while (impl_->InterruptAll()) std::this_thread::sleep_for(kBetweenInterrupts);
  for (std::thread& thread : impl_->threads) thread.join();
  impl_->watch.join();
}

void DuckDbBackend::Submit(ToolCall call) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->waiting.insert({std::move(call)});
  }
  impl_->changed.notify_all();
}

void DuckDbBackend::Cancel(ToolCallId id) {
  ToolCompletion completion;
  {
    const std::lock_guard lock(impl_->mutex);
    for (Impl::Running& each : impl_->running) {
      if (each.id != id) continue;
      each.cancelled = true;
      each.deadline_us = 1;  // the watch interrupts it until it has ended
      if (each.connection != nullptr) duckdb_interrupt(each.connection);
      impl_->changed.notify_all();
      return;
    }
    const auto found = std::find_if(impl_->waiting.begin(), impl_->waiting.end(),
                                    [&](const Impl::Waiting& each) { return each.call.id == id; });
    if (found == impl_->waiting.end()) return;
    impl_->waiting.erase(found);
    completion.id = id;
    completion.failure = Cancelled();
    completion.finished_us = impl_->clock.NowUs();
  }
  impl_->mailbox.Put(std::move(completion));
}

std::string DuckDbBackend::Check(const std::string& connection, const SqlStatement& statement,
                                 bool writes) {
  // Some statements of other kinds become a SELECT when they are prepared.
  if (!BeginsLikeAQuery(statement.normalized)) return WhyItMayNot(writes);
  Database& database = impl_->databases.at(connection);
  duckdb_connection spare = database.lanes.back()->get();
  if (std::string why = database.rules->WhyRefused(statement.text); !why.empty()) return why;
  DuckStatement prepared;
  if (duckdb_prepare(spare, statement.text.c_str(), prepared.out()) != DuckDBSuccess)
    return FirstParagraph(duckdb_prepare_error(prepared.get()));
  if (!MayRun(duckdb_prepared_statement_type(prepared.get()), writes)) return WhyItMayNot(writes);
  return "";
}

DuckDbCatalogue DuckDbBackend::Ask(const std::string& connection) {
  DuckDatabase& database = *impl_->databases.at(connection).database;
  DuckDbCatalogue catalogue;
  // A name that is volatile in one of its forms is volatile.
  for (const std::string& name : database.Texts(
           "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE stability IN "
           "('VOLATILE', 'CONSISTENT_WITHIN_QUERY') AND $1 = ''",
           "")) {
    catalogue.volatile_functions.insert({"", name});
  }
  const std::vector<Definition> definitions = DefinitionsOf(database);
  // They use each other, so what is volatile is found in rounds.
  for (bool found = true; found;) {
    found = false;
    for (const Definition& each : definitions) {
      std::set<SqlName>& changing =
          each.is_view ? catalogue.volatile_relations : catalogue.volatile_functions;
      if (changing.contains(each.name)) continue;
      const bool changes = !each.is_readable || each.statement.is_volatile ||
                           HasName(each.statement.functions, catalogue.volatile_functions) ||
                           HasName(each.statement.relations, catalogue.volatile_relations);
      if (!changes) continue;
      changing.insert(each.name);
      found = true;
    }
  }
  catalogue.writes_spread =
      std::any_of(definitions.begin(), definitions.end(), [](const Definition& each) {
        return each.is_view || !each.is_readable || !each.statement.relations.empty();
      });
  return catalogue;
}

}  // namespace halo
