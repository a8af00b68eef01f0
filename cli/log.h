#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace halo::cli {

/// Text as a terminal may show it: what a model, a row or a server said cannot move the cursor,
/// ring, turn the direction of what follows or pretend to be another line. Control characters
/// become '?', line breaks blanks.
std::string Printable(std::string_view text);
/// As Printable, of each line.
std::string PrintableLines(std::string_view text);

enum class LogLevel { kInfo, kWarning, kError };

/// What a command says on standard error: lines for a person, or one JSON object a line
/// (`--log-format json`): `time` (UTC), `level`, `event`, `message`, and the event's own fields.
class Log {
 public:
  Log(bool is_json, bool quiet) : is_json_(is_json), quiet_(quiet) {}

  bool is_json() const { return is_json_; }
  bool quiet() const { return quiet_; }
  /// `message` is one line, or several; `fields` are shown in JSON only. Quiet logs say errors
  /// only.
  void Say(LogLevel level, const std::string& event, const std::string& message,
           const nlohmann::ordered_json& fields = nlohmann::ordered_json::object()) const;

 private:
  bool is_json_;
  bool quiet_;
};

}  // namespace halo::cli
