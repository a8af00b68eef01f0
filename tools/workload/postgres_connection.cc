#include "workload/postgres_connection.h"

#include "base/error.h"

namespace halo::workload {

bool IsPostgresUrl(const std::string& url) {
  return url.starts_with("postgres://") || url.starts_with("postgresql://");
}

PostgresConnection::PostgresConnection(const std::string& url)
    : connection_(PQconnectdb(url.c_str())) {
  if (PQstatus(connection_.get()) != CONNECTION_OK) Fail();
  // Notices ("table does not exist, skipping") are for a person at psql.
  PQsetNoticeProcessor(
      connection_.get(), [](void*, const char*) {}, nullptr);
}

void PostgresConnection::Fail() const {
  std::string message = PQerrorMessage(connection_.get());
  while (!message.empty() && message.back() == '\n') message.pop_back();
  throw Error(ErrorCode::kIo, "PostgreSQL: " + message);
}

PostgresResult PostgresConnection::Execute(const std::string& sql,
                                           const std::vector<std::string>& parameters) {
  if (PQstatus(get()) != CONNECTION_OK) PQreset(get());  // the server was restarted
  std::vector<const char*> values;
  for (const std::string& parameter : parameters) values.push_back(parameter.c_str());
  PostgresResult result(PQexecParams(get(), sql.c_str(), static_cast<int>(values.size()), nullptr,
                                     values.data(), nullptr, nullptr, 0));
  const ExecStatusType status = PQresultStatus(result.get());
  if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_COPY_IN) Fail();
  return result;
}

}  // namespace halo::workload
