#include "tool/sql/postgres_server.h"

#include <fmt/format.h>
#include <poll.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"

namespace halo {
namespace {

constexpr int64_t kConnectTimeoutUs = 10'000'000;

struct OptionsFree {
  void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
};

/// libpq prints notices unless told otherwise.
void IgnoreNotice(void*, const PGresult*) {}

/// The password in a connection's URL, or "".
std::string PasswordOf(const std::string& url) {
  const std::unique_ptr<PQconninfoOption, OptionsFree> options(
      PQconninfoParse(url.c_str(), nullptr));
  for (const PQconninfoOption* each = options.get(); each != nullptr && each->keyword != nullptr;
       ++each) {
    if (std::strcmp(each->keyword, "password") == 0 && each->val != nullptr) return each->val;
  }
  return "";
}

void Trim(std::string& text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
}

/// The first SQLSTATE in a message of PQERRORS_VERBOSE: "FATAL:  53300: sorry, ...".
std::string StateIn(const std::string& message) {
  constexpr size_t kLength = 5;
  for (size_t at = message.find(":  "); at != std::string::npos; at = message.find(":  ", at + 1)) {
    const std::string state = message.substr(at + 3, kLength);
    const bool is_state =
        state.size() == kLength && message[std::min(at + 3 + kLength, message.size() - 1)] == ':' &&
        state.find_first_not_of("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == std::string::npos;
    if (is_state) return state;
  }
  return "";
}

/// A message of several lines as one; where in the server's source it was raised is left out.
std::string OneLine(const std::string& message) {
  std::string line;
  for (size_t start = 0; start < message.size();) {
    size_t end = message.find('\n', start);
    if (end == std::string::npos) end = message.size();
    const std::string part = message.substr(start, end - start);
    if (!part.starts_with("LOCATION:") && !part.empty()) {
      line += line.empty() ? "" : " ";
      line += part.substr(std::min(part.find_first_not_of(" \t"), part.size()));
    }
    start = end + 1;
  }
  return ReplaceInvalidUtf8(line);
}

bool HasSucceeded(const PGresult* reply) {
  const ExecStatusType status = PQresultStatus(reply);
  return status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
}

BlockingPostgres::RowTexts TextsOf(const PGresult* reply) {
  BlockingPostgres::RowTexts rows;
  for (int row = 0; row < PQntuples(reply); ++row) {
    rows.emplace_back();
    for (int column = 0; column < PQnfields(reply); ++column) {
      const bool is_null = PQgetisnull(reply, row, column) != 0;
      rows.back().emplace_back(
          is_null ? std::nullopt : std::optional<std::string>(PQgetvalue(reply, row, column)));
    }
  }
  return rows;
}

const char* Field(const PGresult* result, int field) {
  const char* text = PQresultErrorField(result, field);
  return text == nullptr ? "" : text;
}

}  // namespace

std::string UrlFault(const PostgresConnection& connection) {
  const bool is_url =
      connection.url.starts_with("postgres://") || connection.url.starts_with("postgresql://");
  const bool can_be_read = is_url && std::unique_ptr<PQconninfoOption, OptionsFree>(PQconninfoParse(
                                         connection.url.c_str(), nullptr)) != nullptr;
  if (can_be_read) return "";
  return "connection '" + connection.name +
         "': its URL cannot be read; it is written postgres://user:password@host:port/database, "
         "with %40 for an @ in the password";
}

PostgresHandle StartConnecting(const PostgresConnection& connection) {
  // The last word on a key counts: ours, where both say something. PQcancel, which waits, gives up
  // after the user timeout as well.
  const char* const keys[] = {"dbname", "client_encoding", "application_name", "tcp_user_timeout",
                              nullptr};
  const char* const values[] = {connection.url.c_str(), "UTF8", "halo", "10000", nullptr};
  PostgresHandle handle(PQconnectStartParams(keys, values, 1));
  if (handle == nullptr) throw std::bad_alloc();
  PQsetNoticeReceiver(handle.get(), IgnoreNotice, nullptr);
  PQsetErrorVerbosity(handle.get(), PQERRORS_VERBOSE);  // for the SQLSTATE of a refusal
  return handle;
}

std::vector<std::string> SessionSettings(bool read_only) {
  return {
      "SET TimeZone = 'UTC'",
      "SET DateStyle = 'ISO, YMD'",
      "SET IntervalStyle = 'iso_8601'",
      "SET extra_float_digits = 3",  // all digits of a number, by servers older than 12 too
      "SET bytea_output = 'hex'",
      "SET standard_conforming_strings = on",  // how sql/sql_lexer.h reads texts
      std::string("SET default_transaction_read_only = ") + (read_only ? "on" : "off"),
  };
}

std::string RefusalState(PGconn* handle) { return StateIn(PQerrorMessage(handle)); }

Failure ConnectionFailure(const PostgresConnection& connection, PGconn* handle) {
  Failure failure{"", "connection", "", true};
  std::string message = PQerrorMessage(handle);
  const std::string state = StateIn(message);
  // Wrong user, password, database: it stays wrong.
  if (state.starts_with("28") || state == "3D000") failure.retriable = false;
  message = OneLine(message);
  if (const std::string password = PasswordOf(connection.url); !password.empty()) {
    constexpr std::string_view kHidden = "***";
    for (size_t at = message.find(password); at != std::string::npos;
         at = message.find(password, at + kHidden.size()))
      message.replace(at, password.size(), kHidden);
  }
  failure.message = "connection '" + connection.name +
                    "': " + (message.empty() ? "the server closed the connection" : message);
  return failure;
}

bool HasState(const PGresult* result, const char* state) {
  return std::strcmp(Field(result, PG_DIAG_SQLSTATE), state) == 0;
}

Failure StatementFailure(const PGresult* result) {
  const std::string state = Field(result, PG_DIAG_SQLSTATE);
  std::string message = Field(result, PG_DIAG_MESSAGE_PRIMARY);
  if (message.empty()) message = PQresultErrorMessage(result);
  Trim(message);
  if (!state.empty()) message = state + ": " + message;
  if (const char* detail = Field(result, PG_DIAG_MESSAGE_DETAIL); *detail != '\0')
    message += std::string("; ") + detail;
  if (const char* hint = Field(result, PG_DIAG_MESSAGE_HINT); *hint != '\0')
    message += std::string("; ") + hint;
  if (const char* place = Field(result, PG_DIAG_STATEMENT_POSITION); *place != '\0')
    message += fmt::format(" (at character {})", place);
  Failure failure{"", "sql_error", ReplaceInvalidUtf8(message), false};
  const bool ends_session = state.empty() || state == "57P01" || state == "57P02" ||
                            state == "57P03" || state == "57P05" || state == "25P03" ||
                            state.starts_with("08");
  if (ends_session) {
    failure.code = "connection";
    failure.retriable = true;
  } else if (state == "40P01") {
    failure.code = "deadlock";
    failure.retriable = true;
  } else if (state == "40001") {
    failure.code = "serialization";
    failure.retriable = true;
  } else if (state == "57014") {
    failure.code = "timeout";
    failure.retriable = true;
  } else if (state == "25006") {
    failure.code = "not_allowed";
    failure.message += ": declare effect: write, if it is to write";
  } else if (state == "22021" || state == "22P05") {
    failure.code = "invalid_value";
  }
  return failure;
}

// ---- one statement after the other

BlockingPostgres::BlockingPostgres(const PostgresConnection& connection) : connection_(connection) {
  if (const std::string fault = UrlFault(connection); !fault.empty()) Fail(fault);
  handle_ = StartConnecting(connection);
  Connect();
  for (const std::string& setting : SessionSettings(true)) Rows(setting, {});
  Rows(fmt::format("SET statement_timeout = {}", connection.statement_timeout_us / 1'000), {});
}

void BlockingPostgres::Fail(const std::string& why) const { throw Error(ErrorCode::kConfig, why); }

void BlockingPostgres::Connect() {
  PostgresPollingStatusType status = PGRES_POLLING_WRITING;
  while (status != PGRES_POLLING_OK) {
    if (PQstatus(handle_.get()) == CONNECTION_BAD || status == PGRES_POLLING_FAILED) {
      Fail(ConnectionFailure(connection_, handle_.get()).message);
    }
    Await(status == PGRES_POLLING_WRITING, kConnectTimeoutUs);
    status = PQconnectPoll(handle_.get());
  }
}

void BlockingPostgres::Await(bool writing, int64_t most_us) {
  pollfd socket{PQsocket(handle_.get()), static_cast<short>(writing ? POLLOUT : POLLIN), 0};
  int ready = 0;
  do {
    ready = poll(&socket, 1, static_cast<int>(most_us / 1'000));
  } while (ready < 0 && errno == EINTR);
  if (ready == 0)
    Fail(fmt::format("connection '{}': no answer within {} s", connection_.name,
                     most_us / 1'000'000));
}

PostgresReply BlockingPostgres::Finish(int sent) {
  // The server ends the statement itself; this is for a server that is gone.
  const int64_t most_us = connection_.statement_timeout_us + kConnectTimeoutUs;
  bool alive = sent == 1;
  while (alive && PQisBusy(handle_.get()) != 0) {
    Await(false, most_us);
    alive = PQconsumeInput(handle_.get()) == 1;
  }
  PostgresReply reply(alive ? PQgetResult(handle_.get()) : nullptr);
  while (alive && PQisBusy(handle_.get()) != 0) {
    Await(false, most_us);
    alive = PQconsumeInput(handle_.get()) == 1;
  }
  if (alive) alive = PostgresReply(PQgetResult(handle_.get())) == nullptr;
  if (!alive || reply == nullptr || PQstatus(handle_.get()) == CONNECTION_BAD) {
    Fail(ConnectionFailure(connection_, handle_.get()).message);
  }
  return reply;
}

PostgresReply BlockingPostgres::Ask(const std::string& sql,
                                    const std::vector<std::string>& values) {
  std::vector<const char*> texts;
  for (const std::string& value : values) texts.push_back(value.c_str());
  return Finish(PQsendQueryParams(handle_.get(), sql.c_str(), static_cast<int>(texts.size()),
                                  nullptr, texts.data(), nullptr, nullptr, 0));
}

BlockingPostgres::RowTexts BlockingPostgres::Rows(const std::string& sql,
                                                  const std::vector<std::string>& values) {
  const PostgresReply reply = Ask(sql, values);
  if (!HasSucceeded(reply.get()))
    Fail("connection '" + connection_.name + "': " + StatementFailure(reply.get()).message);
  return TextsOf(reply.get());
}

std::optional<BlockingPostgres::RowTexts> BlockingPostgres::RowsUnlessRefused(
    const std::string& sql) {
  const PostgresReply reply = Ask(sql, {});
  return HasSucceeded(reply.get()) ? std::optional(TextsOf(reply.get())) : std::nullopt;
}

std::string BlockingPostgres::Prepare(const std::string& sql, const std::vector<uint32_t>& types,
                                      const std::string& name) {
  const PostgresReply reply = Finish(PQsendPrepare(handle_.get(), name.c_str(), sql.c_str(),
                                                   static_cast<int>(types.size()), types.data()));
  if (PQresultStatus(reply.get()) == PGRES_COMMAND_OK) return "";
  return StatementFailure(reply.get()).message;
}

}  // namespace halo
