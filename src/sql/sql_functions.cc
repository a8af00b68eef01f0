#include "sql/sql_functions.h"

#include <algorithm>

namespace halo {
namespace {

template <size_t n>
constexpr bool Contains(const std::string_view (&list)[n], std::string_view word) {
  return std::find(std::begin(list), std::end(list), word) != std::end(list);
}

template <size_t n>
bool BeginsWithOneOf(const std::string_view (&list)[n], std::string_view word) {
  return std::any_of(std::begin(list), std::end(list),
                     [&](std::string_view prefix) { return word.starts_with(prefix); });
}

/// Families of functions. Most that begin with pg_ look at the server's state.
constexpr std::string_view kVolatilePrefixes[] = {
    "binary_upgrade_", "brin_",       "current_",     "dblink", "disable_", "duckdb_",
    "enable_",         "gen_random_", "get_current_", "inet_",  "lo_",      "pg_",
    "pragma_",         "random",      "txid_",        "uuid",   "verify_",
};

/// Of those families, the ones that are functions of their arguments.
constexpr std::string_view kNotVolatile[] = {
    "pg_collation_for", "pg_column_size", "pg_input_is_valid", "pg_size_bytes",
    "pg_size_pretty",   "pg_typeof",      "uuid_ns_dns",       "uuid_ns_oid",
    "uuid_ns_url",      "uuid_ns_x500",   "uuid_nil",
};

constexpr std::string_view kVolatile[] = {
    "age",
    "amvalidate",
    "bernoulli",
    "checkpoint",
    "clock_timestamp",
    "connectby",
    "copy_database",
    "crosstab",
    "currtid2",
    "currval",
    "database_list",
    "database_size",
    "dsnowball_init",
    "dsnowball_lexize",
    "error",
    "force_checkpoint",
    "getenv",
    "getvariable",
    "gin_clean_pending_list",
    "import_database",
    "in_search_path",
    "json_execute_serialized_sql",
    "lastval",
    "loread",
    "lowrite",
    "mxid_age",
    "nextval",
    "now",
    "query",
    "query_table",
    "row_security_active",
    "session_user",
    "set_config",
    "setseed",
    "setval",
    "statement_timestamp",
    "stats",
    "storage_info",
    "suppress_redundant_updates_trigger",
    "system",
    "timeofday",
    "today",
    "transaction_timestamp",
    "truncate_duckdb_logs",
    "ts_rewrite",
    "ts_stat",
    "unique_key_recheck",
    "user",
    "which_secret",
    "write_log",
    "xpath_table",
};

constexpr std::string_view kWritingPrefixes[] = {
    "binary_upgrade_", "brin_",        "disable_",      "enable_",          "lo_creat",
    "lo_from_bytea",   "lo_import",    "lo_put",        "lo_truncate",      "lo_unlink",
    "lo_export",       "pg_advisory_", "pg_backup_",    "pg_cancel_",       "pg_copy_",
    "pg_create_",      "pg_drop_",     "pg_export_",    "pg_import_",       "pg_log_backend_",
    "pg_logical_",     "pg_promote",   "pg_reload_",    "pg_replication_",  "pg_rotate_",
    "pg_stat_reset",   "pg_switch_",   "pg_terminate_", "pg_try_advisory_", "pg_wal_replay_",
    "verify_",
};

constexpr std::string_view kWriting[] = {
    "checkpoint",
    "copy_database",
    "dblink_exec",
    "force_checkpoint",
    "import_database",
    "gin_clean_pending_list",
    "lowrite",
    "nextval",
    "pg_notify",
    "set_config",
    "setseed",
    "setval",
    "truncate_duckdb_logs",
    "write_log",
};

constexpr std::string_view kKeywordFunctions[] = {
    "current_catalog", "current_date",      "current_role", "current_schema",
    "current_time",    "current_timestamp", "current_user", "localtime",
    "localtimestamp",  "session_user",      "system_user",
};

constexpr std::string_view kGrammarWords[] = {
    "all",     "and",       "any",      "array",     "as",        "between",      "by",
    "case",    "cast",      "conflict", "cross",     "cube",      "default",      "distinct",
    "else",    "end",       "escape",   "except",    "exclude",   "exists",       "explain",
    "filter",  "from",      "full",     "group",     "having",    "ilike",        "in",
    "include", "inner",     "insert",   "intersect", "interval",  "into",         "is",
    "join",    "key",       "lateral",  "like",      "limit",     "materialized", "natural",
    "not",     "offset",    "on",       "only",      "or",        "order",        "outer",
    "over",    "partition", "pivot",    "qualify",   "recursive", "returning",    "rollup",
    "row",     "select",    "set",      "sets",      "similar",   "some",         "table",
    "then",    "try_cast",  "union",    "unique",    "unpivot",   "using",        "values",
    "when",    "where",     "window",   "with",      "within",
};

}  // namespace

bool IsVolatileFunction(std::string_view name) {
  if (Contains(kVolatile, name) || FunctionWrites(name)) return true;
  // query_to_xml, table_to_xml, cursor_to_xmlschema, ...: they run a query that a text holds.
  if (name.find("_to_xml") != std::string_view::npos) return true;
  if (name.starts_with("has_") && name.ends_with("_privilege")) return true;
  return BeginsWithOneOf(kVolatilePrefixes, name) && !Contains(kNotVolatile, name);
}

bool FunctionWrites(std::string_view name) {
  return Contains(kWriting, name) || BeginsWithOneOf(kWritingPrefixes, name);
}

bool IsKeywordFunction(std::string_view word) { return Contains(kKeywordFunctions, word); }

bool IsGrammarWord(std::string_view word) { return Contains(kGrammarWords, word); }

}  // namespace halo
