#pragma once

#include <string_view>

namespace halo {

/// What is known of the functions that come with DuckDB and PostgreSQL. Names are in lower case,
/// without their schema: pg_catalog.now() is now(), and someone's own now() is taken for it too.
/// Tests hold the lists against both catalogues.

/// May give another value at another time or in another session: the clock, randomness, sequences,
/// settings, the state of the server, files of the server, statements kept in a text.
bool IsVolatileFunction(std::string_view name);

/// Changes something beyond its value: a sequence, a setting of the session, a lock that outlives
/// the statement, a file, another session.
bool FunctionWrites(std::string_view name);

/// Is called without parentheses: CURRENT_DATE, USER, ...
bool IsKeywordFunction(std::string_view word);

/// A word before `(` that belongs to the grammar, as in `IN (`: no function's name.
bool IsGrammarWord(std::string_view word);

}  // namespace halo
