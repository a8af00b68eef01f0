#include "session/tool_setup.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "base/file_text.h"
#include "base/text.h"
#include "halo_build_info.h"
#include "runtime/tool_calls.h"
#include "session/run_manifest.h"
#include "tool/function/exec_backend.h"
#include "tool/function/host_backend.h"
#include "tool/function/local_function.h"
#include "tool/http/http_backend.h"
#include "tool/live_tools.h"
#include "tool/sql/duckdb_backend.h"
#include "tool/sql/duckdb_costs.h"
#include "tool/sql/postgres_backend.h"
#include "tool/sql/postgres_costs.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

/// Beside the engine's: one busy thread more costs passes their pace.
constexpr int32_t kDuckDbThreads = 1;

/// A connection of the run: where it leads, and who uses it.
struct Connection {
  std::string url;  // with its secrets
  std::vector<std::pair<std::string, std::string>> files;
  bool may_write = false;
  SourceLocation location;

  bool is_duckdb() const { return url.starts_with("duckdb:"); }
  SqlDialect dialect() const { return is_duckdb() ? SqlDialect::kDuckDb : SqlDialect::kPostgres; }
};

/// A statement of a workflow.
struct Query {
  size_t workflow = 0, position = 0;  // of its operator
  const Operator* op = nullptr;
  const SqlSpec* sql = nullptr;
};

/// Gathers what the tools of the workflows need, with every fault.
class ToolNeeds {
 public:
  ToolNeeds(const std::vector<const Workflow*>& workflows, const RunOptions& options)
      : options_(options) {
    for (size_t i = 0; i < workflows.size(); ++i) Add(i, *workflows[i]);
    for (const auto& [name, url] : options.connections) {
      if (!connections.contains(name) && !known_.contains(name))
        faults_.push_back({{"--connect", 0, 0},
                           "no workflow has a connection '" + name + "'" +
                               DidYouMean(name, {known_.begin(), known_.end()})});
    }
    if (!faults_.empty()) throw Error(ErrorCode::kWorkflow, faults_);
  }

  std::map<std::string, Connection> connections;
  std::map<std::string, std::string> secrets;
  std::vector<Query> queries;
  std::vector<std::string> hosts;
  std::vector<HttpHostLimit> host_limits;
  std::string exec_folder;  ///< where programs run: the folder of the first workflow that has one
  bool has_tools = false, has_http = false, has_exec = false, has_host_functions = false;

 private:
  void Fault(const SourceLocation& place, std::string message) {
    faults_.push_back({place, std::move(message)});
  }

  bool Allows(const char* what) const { return options_.allow.contains(what); }

  void Add(size_t number, const Workflow& workflow) {
    const fs::path folder = fs::path(workflow.path).parent_path();
    for (const ConnectionSpec& spec : workflow.connections) known_.insert(spec.name);
    hosts.insert(hosts.end(), workflow.allow_hosts.begin(), workflow.allow_hosts.end());
    for (const HostLimitSpec& limit : workflow.host_limits)
      host_limits.push_back({limit.host, limit.concurrency, limit.requests_per_second});
    for (const Operator& op : workflow.operators) {
      if (op.is_inference()) continue;
      has_tools = true;
      if (const auto* sql = std::get_if<SqlSpec>(&op.tool->what)) {
        AddQuery(workflow,
                 {number, static_cast<size_t>(&op - workflow.operators.data()), &op, sql});
      } else if (const auto* http = std::get_if<HttpSpec>(&op.tool->what)) {
        AddHttp(workflow, op, *http);
      } else if (FindLocalFunction(std::get<FunctionSpec>(op.tool->what).function) == nullptr) {
        AddHostFunction(op, std::get<FunctionSpec>(op.tool->what).function);
      } else if (std::get<FunctionSpec>(op.tool->what).function == "exec") {
        has_exec = true;
        if (exec_owner_.empty()) exec_owner_ = workflow.path;
        if (exec_owner_ != workflow.path && exec_folder != folder.string())
          Fault(op.location, "'" + op.id + "' runs a program in another folder than " +
                                 exec_owner_ + ": run the workflows apart");
        exec_folder = folder.string();
        if (!Allows("exec"))
          Fault(op.location, "'" + op.id +
                                 "' runs a program of this machine: pass --allow exec if "
                                 "it shall");
      }
    }
  }

  void AddHostFunction(const Operator& op, const std::string& function) {
    has_host_functions = true;
    const auto found = options_.functions.find(function);
    if (found == options_.functions.end() || found->second.run == nullptr)
      Fault(op.location, "'" + op.id + "' calls '" + function +
                             "', a function of the program that began the run: go on with it from "
                             "there, or from one that has it");
  }

  void AddQuery(const Workflow& workflow, const Query& query) {
    const Operator& op = *query.op;
    const SqlSpec& sql = *query.sql;
    if (opened_.insert({workflow.path, sql.connection}).second)
      OpenConnection(workflow, op, sql.connection);
    const auto found = connections.find(sql.connection);
    if (found == connections.end()) return;  // what is wrong with it is known
    Connection& connection = found->second;
    connection.may_write = connection.may_write || op.tool->effect == ToolEffect::kWrite;
    if (!sql.For(connection.dialect())) {
      const char* kind = connection.is_duckdb() ? "duckdb" : "postgres";
      Fault(op.location, "'" + op.id + "': connection '" + sql.connection + "' is " + kind +
                             ", and the query has no text for it: add sql." + kind);
    }
    queries.push_back(query);
  }

  /// The URL that a person has given for a connection, by a flag or in the project's settings; "".
  std::string Given(const std::string& name) const {
    for (const auto* urls : {&options_.connections, &options_.project_connections}) {
      if (const auto found = urls->find(name); found != urls->end()) return found->second;
    }
    return "";
  }

  void OpenConnection(const Workflow& workflow, const Operator& op, const std::string& name) {
    const auto spec = std::find_if(workflow.connections.begin(), workflow.connections.end(),
                                   [&](const ConnectionSpec& each) { return each.name == name; });
    const bool is_declared = spec != workflow.connections.end();
    const std::string given = Given(name);
    if (!is_declared && given.empty()) {
      return Fault(op.location, "'" + op.id +
                                    "' asks a database, and no connection is declared: add "
                                    "connections to the graph, or pass --connect " +
                                    name + "=URL");
    }
    Connection connection;
    connection.location = is_declared ? spec->location : op.location;
    const fs::path folder = fs::path(workflow.path).parent_path();
    if (is_declared) {
      for (const auto& [table, file] : spec->files)
        connection.files.emplace_back(table, RowFile(folder, file, connection.location));
    }
    if (!given.empty()) {
      connection.url = given;
      if (!IsKnownKind(connection.url))
        return Fault({"--connect", 0, 0},
                     "expected duckdb:PATH, duckdb::memory: or postgres://... "
                     "for '" +
                         name + "'");
    } else {
      const size_t known_faults = faults_.size();
      connection.url = WithSecrets(spec->url, folder, connection.location);
      if (faults_.size() > known_faults) return;
      if (!IsKnownKind(connection.url))
        return Fault(
            connection.location,
            "connection '" + name + "': its secret gives neither duckdb:PATH nor postgres://...");
      if (connection.is_duckdb() && connection.url != "duckdb::memory:")
        connection.url = "duckdb:" + Inside(folder, connection.url.substr(7), connection.location);
      if (!connection.is_duckdb() && !Allows("net"))
        Fault(connection.location, "connection '" + name +
                                       "' reaches a server: pass --allow net if "
                                       "it shall, or name the server with --connect " +
                                       name + "=URL");
    }
    const auto [known, is_new] = connections.emplace(name, connection);
    if (!is_new && (known->second.url != connection.url || known->second.files != connection.files))
      Fault(connection.location,
            "another workflow of this run means another database by connection '" + name +
                "': give one of them another name, or run them apart");
  }

  /// A path relative to the workflow's folder; outside of it only by permission.
  std::string Inside(const fs::path& folder, const std::string& path, const SourceLocation& place) {
    std::error_code ignored;
    // What is not there yet stays as it is written, so both begin at the root.
    const fs::path full = fs::absolute(folder / path, ignored);  // an absolute path stays one
    const fs::path real = fs::weakly_canonical(full, ignored);
    const fs::path home = fs::weakly_canonical(fs::absolute(folder, ignored), ignored);
    const bool inside =
        std::mismatch(home.begin(), home.end(), real.begin(), real.end()).first == home.end();
    if (!inside && !Allows("files")) {
      Fault(place, "'" + path +
                       "' lies outside the workflow's folder: pass --allow files if it "
                       "shall be read");
    }
    return full.string();
  }

  /// A file that is to be read as a table: it alone, whatever its name means to DuckDB.
  std::string RowFile(const fs::path& folder, const std::string& file,
                      const SourceLocation& place) {
    const std::string path = Inside(folder, file, place);
    std::error_code ignored;
    if (file.find_first_of("*?[") != std::string::npos) {
      Fault(place, "files: '" + file + "' is a pattern: name each file as a table of its own");
    } else if (!fs::is_regular_file(path, ignored)) {
      Fault(place, "files: there is no file '" + file + "'");
    }
    return path;
  }

  std::string WithSecrets(std::string text, const fs::path& folder, const SourceLocation& place) {
    for (size_t at = text.find("${"); at != std::string::npos; at = text.find("${", at)) {
      const size_t end = text.find('}', at);
      if (end == std::string::npos) break;
      const std::string name = text.substr(at + 2, end - at - 2);
      AddSecret(name, folder, place);
      const std::string value = secrets.contains(name) ? secrets.at(name) : "";
      text.replace(at, end + 1 - at, value);
      at += value.size();
    }
    return text;
  }

  static bool IsKnownKind(const std::string& url) {
    return url.starts_with("duckdb:") || url.starts_with("postgres://") ||
           url.starts_with("postgresql://");
  }

  void AddSecret(const std::string& name, const fs::path& folder, const SourceLocation& place) {
    if (name.starts_with("env:")) {
      if (secrets.contains(name)) return;
      const std::string variable = name.substr(4);
      const auto value = options_.environment ? options_.environment(variable) : std::nullopt;
      if (!value) return Fault(place, "the environment has no variable " + variable + ": set it");
      secrets[name] = *value;
      return;
    }
    const std::string path = Inside(folder, name.substr(5), place);
    const auto [known, is_new] = secret_files_.emplace(name, path);
    if (!is_new) {
      if (known->second != path)
        Fault(place, "${" + name +
                         "}: another workflow of this run has another file of that name: name "
                         "them apart, or run the workflows apart");
      return;
    }
    std::optional<std::string> text = ReadFileText(path);
    if (!text) return Fault(place, "cannot read the secret's file '" + name.substr(5) + "'");
    std::string value = *std::move(text);
    while (!value.empty() && (value.back() == '\n' || value.back() == '\r')) value.pop_back();
    secrets[name] = value;
  }

  void AddHttp(const Workflow& workflow, const Operator& op, const HttpSpec& http) {
    for (const auto& [name, value] : http.headers) {
      for (const SecretText::Piece& piece : value.pieces) {
        if (piece.text == nullptr)
          AddSecret(piece.secret, fs::path(workflow.path).parent_path(), op.location);
      }
    }
    if (http.latency_mode == HttpLatencyMode::kSimulated) {
      has_http = true;
      return;
    }
    has_http = true;
    if (Allows("net") || HostIsListed(http.origin, workflow.allow_hosts)) return;
    Fault(op.location, "'" + op.id + "' asks " + http.origin +
                           ", which is not in allow_hosts: add "
                           "its host there, or pass --allow net");
  }

  /// The same rule as HttpOptions::allowed_hosts; the backend asks it again for redirects.
  static bool HostIsListed(const std::string& origin, const std::vector<std::string>& hosts) {
    const std::string authority = origin.substr(origin.find("://") + 3);
    const std::string host = authority.starts_with("[")
                                 ? authority.substr(0, authority.find(']') + 1)
                                 : authority.substr(0, authority.find(':'));
    return std::any_of(hosts.begin(), hosts.end(), [&](const std::string& allowed) {
      if (allowed.starts_with("*.")) return host.ends_with(allowed.substr(1));
      return allowed == host || allowed == authority;
    });
  }

  const RunOptions& options_;
  std::set<std::string> known_;
  std::set<std::pair<std::string, std::string>> opened_;  // (workflow, connection)
  std::map<std::string, std::string> secret_files_;       // "file:PATH" -> the file it is
  std::string exec_owner_;                                // the first workflow with programs
  std::vector<Diagnostic> faults_;
};

/// The types of a query's parameters, in the order of their numbers.
std::vector<SqlArgument> TypesOf(const SqlSpec& sql, const SqlStatement& statement) {
  std::vector<SqlArgument> types;
  for (const std::string& name : statement.parameters) {
    const auto parameter =
        std::find_if(sql.parameters.begin(), sql.parameters.end(),
                     [&](const SqlParameterSpec& each) { return each.name == name; });
    types.push_back({parameter->type, parameter->is_list, nullptr});
  }
  return types;
}

/// The reads of a connection whose cost its database is asked for, equal ones once.
class CostQuestions {
 public:
  /// `known`: what the database's catalogue has said of names; null: it is asked again.
  CostQuestions(const ToolNeeds& needs, const std::string& connection,
                const ConnectionSetup* known) {
    const SqlDialect dialect = needs.connections.at(connection).dialect();
    std::map<std::string, size_t> by_content;
    for (const Query& query : needs.queries) {
      const auto& statement = query.sql->For(dialect);
      const bool may_ask = query.sql->connection == connection && statement &&
                           query.op->tool->effect != ToolEffect::kWrite && !statement->writes &&
                           !(known != nullptr && MayDiffer(*statement, *known));
      if (!may_ask) continue;
      QueryToCost question{&*statement, TypesOf(*query.sql, *statement), {}};
      std::string content = statement->normalized;
      for (const SqlArgument& type : question.types)
        content += fmt::format("\n{} {}", static_cast<int>(type.type), type.is_list);
      if (dialect == SqlDialect::kPostgres) {
        for (const SqlPlanSpec& plan : query.sql->plans) {
          question.plans.push_back(plan.settings);
          for (const auto& [name, value] : plan.settings) content += "\n" + name + "=" + value;
          content += "\n;";
        }
      }
      const auto [found, is_new] = by_content.emplace(content, questions.size());
      if (is_new) questions.push_back(std::move(question));
      asked_.emplace_back(query, found->second);
    }
    dialect_ = dialect;
  }

  std::vector<QueryToCost> questions;

  /// Puts answers where their operators are. Of several plans the cheapest is to be run, the first
  /// of equal ones.
  void Take(const QueryCosts& answers, DatabaseCosts& costs,
            std::map<const ToolSpec*, size_t>& plans) const {
    if (!answers.why_not.empty()) costs.unasked.push_back(answers.why_not);
    for (const auto& [query, question] : asked_) {
      const std::vector<double>& units = answers.units[question];
      if (units.empty()) continue;
      const auto plan =
          static_cast<size_t>(std::min_element(units.begin(), units.end()) - units.begin());
      QueryCost cost{dialect_, units[plan], ""};
      if (units.size() > 1) {
        plans[query.op->tool.get()] = plan;
        cost.choice = fmt::format("it runs under plan '{}' of {}, the cheapest by EXPLAIN",
                                  query.sql->plans[plan].id, units.size());
      }
      costs.operators[query.workflow][query.position] = std::move(cost);
    }
  }

 private:
  SqlDialect dialect_ = SqlDialect::kDuckDb;
  std::vector<std::pair<Query, size_t>> asked_;  // with the question
};

DatabaseCosts NoCosts(const std::vector<const Workflow*>& workflows) {
  DatabaseCosts costs;
  for (const Workflow* workflow : workflows)
    costs.operators.emplace_back(workflow->operators.size());
  return costs;
}

DuckDbConnection DuckDbSpec(const std::string& name, const Connection& connection) {
  DuckDbConnection spec;
  spec.name = name;
  spec.path = connection.url.substr(7);
  if (spec.path == ":memory:") spec.path.clear();
  spec.files = connection.files;
  spec.may_write = connection.may_write;
  return spec;
}

PostgresConnection PostgresSpec(const std::string& name, const Connection& connection) {
  PostgresConnection server;
  server.name = name;
  server.url = connection.url;
  return server;
}

/// DuckDB databases of a run, checked; null without any.
std::unique_ptr<DuckDbBackend> OpenDuckDb(const ToolNeeds& needs, const std::string& spill_folder,
                                          RunTools& tools, ToolMailbox& mailbox, Clock& clock,
                                          std::vector<std::string>& names) {
  std::vector<DuckDbConnection> specs;
  std::vector<CostQuestions> asked;
  for (const auto& [name, connection] : needs.connections) {
    if (!connection.is_duckdb()) continue;
    DuckDbConnection spec = DuckDbSpec(name, connection);
    spec.spill_folder = spill_folder;
    asked.emplace_back(needs, name, nullptr);
    spec.queries = asked.back().questions;
    specs.push_back(std::move(spec));
    names.push_back(name);
  }
  if (specs.empty()) return nullptr;
  auto backend = std::make_unique<DuckDbBackend>(std::move(specs), kDuckDbThreads, mailbox, clock);
  std::vector<Diagnostic> faults;
  for (const Query& query : needs.queries) {
    const Connection& connection = needs.connections.at(query.sql->connection);
    if (!connection.is_duckdb() || !query.sql->duckdb) continue;
    if (!query.sql->plans.empty())
      tools.notices.push_back("'" + query.op->id +
                              "': plans are settings of PostgreSQL, and connection '" +
                              query.sql->connection + "' is DuckDB: they have no effect");
    const bool writes = query.op->tool->effect == ToolEffect::kWrite;
    const std::string fault = backend->Check(query.sql->connection, *query.sql->duckdb, writes);
    // A table that is not there may be what another statement of the run makes.
    const bool may_come = connection.may_write && fault.starts_with("Catalog Error");
    if (!fault.empty() && !may_come)
      faults.push_back({query.op->location, "'" + query.op->id + "': " + fault});
  }
  if (!faults.empty()) throw Error(ErrorCode::kWorkflow, std::move(faults));
  for (size_t i = 0; i < names.size(); ++i) {
    const DuckDbCatalogue& catalogue = backend->Ask(names[i]);
    tools.setup.connections[names[i]] = {SqlDialect::kDuckDb, catalogue.volatile_functions,
                                         catalogue.volatile_relations, catalogue.writes_spread,
                                         kDuckDbThreads};
    asked[i].Take(backend->Costs(names[i]), tools.costs, tools.setup.plans);
  }
  return backend;
}

/// What a server's catalogue says of the names that its statements use. A server that cannot be
/// reached now may be there when rows need it: nothing is known of it then, and that is a notice.
ConnectionSetup AskServer(const ToolNeeds& needs, const PostgresConnection& server, RunTools& tools,
                          std::vector<Diagnostic>& faults) {
  std::set<SqlName> functions, relations;
  for (const Query& query : needs.queries) {
    if (query.sql->connection != server.name || !query.sql->postgres) continue;
    functions.insert(query.sql->postgres->functions.begin(), query.sql->postgres->functions.end());
    relations.insert(query.sql->postgres->relations.begin(), query.sql->postgres->relations.end());
  }
  ConnectionSetup setup;
  setup.dialect = SqlDialect::kPostgres;
  setup.at_once = server.sessions;
  try {
    const PostgresCatalogue catalogue = AskPostgres(server, {functions.begin(), functions.end()},
                                                    {relations.begin(), relations.end()});
    setup.volatile_functions = {catalogue.volatile_functions.begin(),
                                catalogue.volatile_functions.end()};
    setup.volatile_relations = {catalogue.volatile_views.begin(), catalogue.volatile_views.end()};
    setup.writes_spread = catalogue.writes_spread;
    const CostQuestions asked(needs, server.name, &setup);
    asked.Take(AskPostgresCosts(server, asked.questions), tools.costs, tools.setup.plans);
    for (const Query& query : needs.queries) {
      if (query.sql->connection != server.name || !query.sql->postgres) continue;
      const std::string fault =
          CheckOnPostgres(server, *query.sql->postgres, TypesOf(*query.sql, *query.sql->postgres));
      // A table that is not there may be what another statement of the run makes.
      if (!fault.empty() && !needs.connections.at(server.name).may_write)
        faults.push_back({query.op->location, "'" + query.op->id + "': " + fault});
    }
  } catch (const Error& error) {
    tools.unreachable.emplace_back(error.what());
    tools.notices.push_back(std::string(error.what()) +
                            "; its statements are tried again when rows need them");
    // What is not known to be harmless may differ from call to call.
    setup.volatile_functions = functions;
    setup.volatile_relations.clear();
  }
  return setup;
}

/// PostgreSQL servers of a run; null without any.
std::unique_ptr<PostgresBackend> OpenPostgres(const ToolNeeds& needs, RunTools& tools,
                                              ToolMailbox& mailbox, Clock& clock,
                                              std::vector<std::string>& names) {
  std::vector<PostgresConnection> servers;
  for (const auto& [name, connection] : needs.connections) {
    if (connection.is_duckdb()) continue;
    servers.push_back(PostgresSpec(name, connection));
    names.push_back(name);
  }
  if (servers.empty()) return nullptr;
  auto backend = std::make_unique<PostgresBackend>(servers, mailbox, clock);
  std::vector<Diagnostic> faults;
  for (const PostgresConnection& server : servers)
    tools.setup.connections[server.name] = AskServer(needs, server, tools, faults);
  if (!faults.empty()) throw Error(ErrorCode::kWorkflow, std::move(faults));
  return backend;
}

/// What a program needs to find others; nothing that may be secret.
std::vector<std::string> EnvironmentOfPrograms(const RunOptions& options) {
  std::vector<std::string> variables;
  for (const char* name : {"PATH", "HOME", "LANG"}) {
    const auto value = options.environment ? options.environment(name) : std::nullopt;
    if (value) variables.push_back(std::string(name) + "=" + *value);
  }
  return variables;
}

/// A file that a word of a command names, as the program will find it: its own one by PATH, others
/// from its folder. Nothing: it names none.
std::optional<std::string> FileOfWord(const std::string& word, bool is_program,
                                      const std::string& folder, const RunOptions& options) {
  std::error_code ignored;
  const auto at = [&](const fs::path& path) { return fs::is_regular_file(path, ignored); };
  if (!is_program || word.find('/') != std::string::npos) {
    const fs::path path = fs::path(folder) / word;  // an absolute path stays one
    return at(path) ? std::optional(path.string()) : std::nullopt;
  }
  std::istringstream folders(options.environment ? options.environment("PATH").value_or("") : "");
  for (std::string each; std::getline(folders, each, ':');) {
    const fs::path path = fs::path(each) / word;
    if (at(path)) return path.string();
  }
  return std::nullopt;
}

/// What a program is: what is in the files that its command names.
void AddProgram(const FunctionSpec& function, const std::string& folder, const RunOptions& options,
                SignatureBuilder& content) {
  if (!function.config.contains("command")) return;
  bool is_program = true;
  for (const auto& word : function.config["command"]) {
    const std::string text = word.is_string() ? word.get<std::string>() : word.dump();
    const auto file = FileOfWord(text, std::exchange(is_program, false), folder, options);
    content.Add(text).Add(file ? LookAt(*file, {}).digest : "");
  }
}

/// RunTools::contents of an operator: which database by its URL and files, which server by the
/// secrets that it is told, which program by what is in its files.
Signature ContentOf(const Operator& op, const ToolNeeds& needs, const RunOptions& options) {
  SignatureBuilder content;
  if (op.is_inference()) return content.Finish();
  if (const auto* sql = std::get_if<SqlSpec>(&op.tool->what)) {
    const Connection& connection = needs.connections.at(sql->connection);
    content.Add("sql").Add(MaskedUrl(connection.url));
    for (const auto& [table, file] : connection.files) content.Add(table).Add(file);
  } else if (const auto* http = std::get_if<HttpSpec>(&op.tool->what)) {
    content.Add("http");
    for (const auto& [name, text] : http->headers) {
      for (const SecretText::Piece& piece : text.pieces)
        if (piece.text == nullptr) content.Add(needs.secrets.at(piece.secret));
    }
  } else {
    const auto& function = std::get<FunctionSpec>(op.tool->what);
    content.Add("function").Add(build_info::kVersion).Add(build_info::kCommit);
    if (function.function == "exec") AddProgram(function, needs.exec_folder, options, content);
  }
  return content.Finish();
}

}  // namespace

RunTools OpenTools(const std::vector<const Workflow*>& workflows, const RunOptions& options,
                   const std::string& spill_folder, Clock& clock,
                   std::function<void(int32_t)> on_threads) {
  RunTools tools;
  tools.costs = NoCosts(workflows);
  ToolNeeds needs(workflows, options);
  if (!needs.has_tools) return tools;
  for (const Workflow* workflow : workflows) {
    if (options.cache_folder.empty()) break;
    std::vector<Signature>& contents = tools.contents.emplace_back();
    for (const Operator& op : workflow->operators)
      contents.push_back(ContentOf(op, needs, options));
  }
  for (const auto& [name, connection] : needs.connections) {
    if (connection.is_duckdb() && connection.url != "duckdb::memory:")
      tools.files.push_back(connection.url.substr(7));
    for (const auto& [table, file] : connection.files) tools.files.push_back(file);
  }
  tools.setup.secrets = needs.secrets;
  tools.setup.latency_scale = options.latency_scale;
  tools.setup.share = options.share_tool_calls;
  auto live = std::make_unique<LiveTools>(clock);
  live->mailbox().on_threads = std::move(on_threads);
  std::vector<std::string> names;
  if (auto duckdb = OpenDuckDb(needs, spill_folder, tools, live->mailbox(), clock, names))
    live->TakeSql(std::move(duckdb), names);
  std::vector<std::string> servers;
  if (auto postgres = OpenPostgres(needs, tools, live->mailbox(), clock, servers))
    live->TakeSql(std::move(postgres), servers);
  if (needs.has_http) {
    HttpOptions http;
    http.allowed_hosts = needs.hosts;
    http.host_limits = needs.host_limits;
    http.allow_everything = options.allow.contains("net");
    live->TakeHttp(std::make_unique<HttpBackend>(std::move(http), live->mailbox(), clock));
  }
  if (needs.has_exec) {
    live->TakeExec(std::make_unique<ExecBackend>(
        ExecOptions{needs.exec_folder}, EnvironmentOfPrograms(options), live->mailbox(), clock));
  }
  if (needs.has_host_functions)
    live->TakeHost(std::make_unique<HostBackend>(options.functions, live->mailbox(), clock));
  tools.runner = std::move(live);
  return tools;
}

DatabaseCosts AskDatabases(const std::vector<const Workflow*>& workflows,
                           const RunOptions& options) {
  RunTools tools;
  tools.costs = NoCosts(workflows);
  const ToolNeeds needs(workflows, options);
  for (const auto& [name, connection] : needs.connections) {
    if (connection.is_duckdb()) {
      const CostQuestions asked(needs, name, nullptr);
      asked.Take(AskDuckDbCosts(DuckDbSpec(name, connection), asked.questions), tools.costs,
                 tools.setup.plans);
      continue;
    }
    std::vector<Diagnostic> left_to_the_run;
    AskServer(needs, PostgresSpec(name, connection), tools, left_to_the_run);
  }
  tools.costs.unasked.insert(tools.costs.unasked.end(), tools.unreachable.begin(),
                             tools.unreachable.end());
  return std::move(tools.costs);
}

std::vector<std::string> MissingFor(const std::vector<const Workflow*>& workflows,
                                    const RunOptions& options) {
  try {
    const ToolNeeds needs(workflows, options);
    return {};
  } catch (const Error& error) {
    std::vector<std::string> missing;
    std::istringstream lines(error.what());
    for (std::string line; std::getline(lines, line);) missing.push_back(line);
    return missing;
  }
}

void CheckStatements(const std::vector<const Workflow*>& workflows, const RunOptions& options,
                     Clock& clock) {
  // Opening does all of it; a server that cannot be reached is a notice there and an error here.
  const RunTools tools = OpenTools(workflows, options, "", clock);
  if (!tools.unreachable.empty()) throw Error(ErrorCode::kConfig, tools.unreachable.front());
}

}  // namespace halo
