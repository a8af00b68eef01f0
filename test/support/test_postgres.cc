#include "support/test_postgres.h"

#include <fcntl.h>
#include <libpq-fe.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <stdexcept>
#include <thread>

extern char** environ;

namespace halo {
namespace {

[[noreturn]] void Fail(const std::string& why) { throw std::runtime_error(why); }

struct Pipe {
  int read = -1, write = -1;
};

/// Closed in whatever this process starts, so that its end is the end of the pipe.
Pipe MakePipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) Fail("no pipe for the PostgreSQL server");
  return {ends[0], ends[1]};
}

}  // namespace

TestPostgres::TestPostgres(const std::vector<std::string>& arguments) {
  signal(SIGPIPE, SIG_IGN);  // a server that has ended is an exception here
  const Pipe input = MakePipe(), output = MakePipe();
  std::vector<std::string> words = {"python3", HALO_SOURCE_DIR "/test/support/postgres_server.py",
                                    "--template", HALO_BIN_DIR "/../test-scratch/postgres"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input.read, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output.write, STDOUT_FILENO);
  const int fault = posix_spawnp(&process_, "python3", &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(input.read);
  close(output.write);
  to_ = input.write;
  from_ = output.read;
  if (fault != 0) Fail("python3 cannot be started");
  url_ = Answer();
}

TestPostgres::~TestPostgres() {
  close(to_);
  waitpid(process_, nullptr, 0);
  close(from_);
}

TestPostgres& TestPostgres::Shared() {
  static TestPostgres server;
  return server;
}

std::string TestPostgres::UrlOf(const std::string& user, const std::string& database) const {
  const size_t query = url_.find('?');
  return "postgres://" + user + "@/" + database + url_.substr(query);
}

void TestPostgres::Say(const std::string& line) const {
  const std::string text = line + "\n";
  if (write(to_, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    Fail("the PostgreSQL server's script has ended");
}

std::string TestPostgres::Answer() {
  std::string line;
  for (char c = 0; c != '\n';) {
    if (read(from_, &c, 1) != 1) Fail("the PostgreSQL server did not start; its script says why");
    if (c != '\n') line += c;
  }
  return line;
}

void TestPostgres::Stop() {
  Say("stop");
  Answer();
}

void TestPostgres::Start() {
  Say("start");
  url_ = Answer();
}

std::vector<std::vector<std::string>> TestPostgres::Rows(const std::string& sql,
                                                         const std::string& url) {
  const std::unique_ptr<PGconn, decltype(&PQfinish)> connection(PQconnectdb(url.c_str()), PQfinish);
  if (PQstatus(connection.get()) != CONNECTION_OK) Fail(PQerrorMessage(connection.get()));
  PQsetNoticeReceiver(
      connection.get(), [](void*, const PGresult*) {}, nullptr);
  const std::unique_ptr<PGresult, decltype(&PQclear)> result(PQexec(connection.get(), sql.c_str()),
                                                             PQclear);
  const ExecStatusType status = PQresultStatus(result.get());
  if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
    Fail(PQerrorMessage(connection.get()));
  std::vector<std::vector<std::string>> rows;
  for (int row = 0; row < PQntuples(result.get()); ++row) {
    rows.emplace_back();
    for (int column = 0; column < PQnfields(result.get()); ++column) {
      const bool is_null = PQgetisnull(result.get(), row, column) != 0;
      rows.back().push_back(is_null ? "NULL" : PQgetvalue(result.get(), row, column));
    }
  }
  return rows;
}

void TestPostgres::Await(const std::string& sql, const std::string& value) const {
  // What the server's other sessions do (one ends, one waits for a lock) shows in its views alone,
  // and no view tells when it changes: so it is asked again and again. The bound only ends a test
  // that would wait for ever.
  constexpr int kMostTries = 3'000;
  std::string last;
  for (int i = 0; i < kMostTries; ++i) {
    last = Value(sql);
    if (last == value) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  Fail(sql + " is " + last + ", not " + value);
}

}  // namespace halo
