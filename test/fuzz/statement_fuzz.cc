// Any bytes, taken for a SQL statement of either server (the first byte says of which): it is
// refused with a reason, or taken apart so that its normalized text says the same again.

#include <algorithm>

#include "fuzz/property.h"
#include "sql/statement.h"

namespace {

using halo::fuzz::Require;

/// A normalized text with its parameters by name again, $7 as :p7.
std::string Named(const std::string& normalized, halo::SqlDialect dialect) {
  std::string fault, named;
  const auto tokens = halo::ReadSqlTokens(normalized, dialect, fault);
  Require(fault.empty(), "a normalized text can be read");
  size_t copied = 0;
  for (const halo::SqlToken& token : tokens) {
    if (token.kind != halo::SqlTokenKind::kNumberedParameter) continue;
    const auto start = static_cast<size_t>(token.source.data() - normalized.data());
    named += normalized.substr(copied, start - copied) + ":p" + token.value.substr(1);
    copied = start + token.source.size();
  }
  return named + normalized.substr(copied);
}

void RequireSorted(const std::vector<halo::SqlName>& names) {
  Require(std::ranges::is_sorted(names) && std::ranges::adjacent_find(names) == names.end(),
          "names are sorted, each once");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto dialect = data[0] == 'd' ? halo::SqlDialect::kDuckDb : halo::SqlDialect::kPostgres;
  const std::string text = halo::fuzz::Text(data + 1, size - 1);
  std::string fault;
  const halo::SqlStatement statement = halo::ReadSqlStatement(text, dialect, fault);
  if (!fault.empty()) {
    Require(statement.text.empty() && statement.functions.empty(), "a refused text has no parts");
    return 0;
  }
  for (const auto* names : {&statement.functions, &statement.relations, &statement.written})
    RequireSorted(*names);
  Require(statement.writes || statement.written.empty(), "only a write changes something");

  const halo::SqlStatement again =
      halo::ReadSqlStatement(Named(statement.normalized, dialect), dialect, fault);
  Require(fault.empty(), "a normalized text is a statement");
  Require(again.normalized == statement.normalized, "normalizing twice changes nothing");
  Require(again.parameters.size() == statement.parameters.size(), "no parameter comes or goes");
  Require(again.writes == statement.writes && again.is_volatile == statement.is_volatile &&
              again.functions == statement.functions && again.relations == statement.relations &&
              again.written == statement.written,
          "what a statement does is in its normalized text");
  return 0;
}
