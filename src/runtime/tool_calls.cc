#include "runtime/tool_calls.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "base/check.h"
#include "base/random.h"
#include "base/text.h"
#include "tool/function/local_function.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;
using Values = std::map<std::string, Json>;

constexpr double kUsPerS = 1e6;
constexpr double kMostSeconds = 1e9;

std::string JsonText(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string TextOf(const Json& value) {
  return value.is_string() ? value.get<std::string>() : JsonText(value);
}

/// A generator for the standard library's distributions over one stream of draws.
class DrawBits {
 public:
  using result_type = uint32_t;
  explicit DrawBits(uint64_t key) : stream_(key) {}
  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return UINT32_MAX; }
  result_type operator()() { return static_cast<result_type>(stream_.Below(uint64_t{1} << 32)); }

 private:
  RandomStream stream_;
};

/// Seconds with this mean: chi-square with as many degrees of freedom, which is the Gamma
/// distribution of shape mean / 2 and scale 2 (the seed's latency model, halo_v2 section 1.5).
double DrawLatency(double mean_s, uint64_t key) {
  if (mean_s <= 0.0) return 0.0;
  DrawBits bits(key);
  return std::gamma_distribution<double>(mean_s / 2.0, 2.0)(bits);
}

/// A number of seconds from a value in `unit_s`.
double Seconds(const Json& value, double unit_s, const char* key) {
  double number = -1.0;
  if (value.is_number()) {
    number = value.get<double>();
  } else if (value.is_string()) {
    const Json parsed = Json::parse(value.get_ref<const std::string&>(), nullptr, false);
    if (parsed.is_number()) number = parsed.get<double>();
  }
  if (!(number >= 0.0)) {
    constexpr size_t kShown = 80;
    std::string shown = JsonText(value);
    if (shown.size() > kShown) {
      shown.resize(kShown);
      shown.resize(CompleteUtf8Length(shown));
      shown += "...";
    }
    throw Failure{"", "bad_value",
                  std::string(key) + ": expected a number of at least 0, got " + shown, false};
  }
  return std::min(number * unit_s, kMostSeconds);
}

bool IsUnreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '.' || c == '_' || c == '~';
}

void AppendEncoded(std::string& url, char c) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  const auto byte = static_cast<unsigned char>(c);
  url += '%';
  url += kDigits[byte >> 4];
  url += kDigits[byte & 15];
}

/// Data: every byte but the unreserved ones (RFC 3986, section 2.3).
std::string PercentEncoded(std::string_view data) {
  std::string encoded;
  for (const char c : data) {
    if (IsUnreserved(c)) {
      encoded += c;
    } else {
      AppendEncoded(encoded, c);
    }
  }
  return encoded;
}

/// What the author wrote: only what can stand in no URL.
std::string UrlText(std::string_view text) {
  std::string url;
  for (const char c : text) {
    const bool fits =
        c > ' ' && c < 0x7F && std::string_view("\"<>\\^`{|}").find(c) == std::string_view::npos;
    if (fits) {
      url += c;
    } else {
      AppendEncoded(url, c);
    }
  }
  return url;
}

/// Data that is a whole segment must not walk up the path; dots cannot be encoded away.
void RefuseDotSegments(std::string_view path) {
  path = path.substr(0, path.find('?'));
  while (!path.empty()) {
    const size_t slash = std::min(path.find('/'), path.size());
    const std::string_view segment = path.substr(0, slash);
    if (segment == "." || segment == "..")
      throw Failure{"", "bad_url", "a value makes '.' or '..' a segment of the path", false};
    path.remove_prefix(std::min(slash + 1, path.size()));
  }
}

std::string PathOf(const HttpSpec& http, const Values& values) {
  std::string path;
  for (const PromptSpan& span : http.path->Render(values)) {
    path +=
        span.kind == PromptSpan::Kind::kTemplate ? UrlText(span.text) : PercentEncoded(span.text);
  }
  RefuseDotSegments(path);
  return path;
}

void AppendQuery(std::string& url, const std::string& name, const Json& value) {
  if (value.is_null()) return;
  if (value.is_array()) {
    for (const Json& each : value) AppendQuery(url, name, each);
    return;
  }
  url += url.find('?') == std::string::npos ? '?' : '&';
  url += PercentEncoded(name) + "=" + PercentEncoded(TextOf(value));
}

bool HasHeader(const std::vector<HttpHeader>& headers, std::string_view name) {
  return std::any_of(headers.begin(), headers.end(), [&](const HttpHeader& header) {
    return std::equal(header.name.begin(), header.name.end(), name.begin(), name.end(),
                      [](char a, char b) { return std::tolower(a) == std::tolower(b); });
  });
}

void Require(const Values& values, const std::string& path) {
  const std::string root = path.substr(0, path.find('.'));
  const auto found = values.find(root);
  const std::string rest = path.size() > root.size() ? path.substr(root.size() + 1) : "";
  const Json* value = found == values.end() ? nullptr : FindPath(found->second, rest);
  if (value == nullptr || value->is_null())
    throw Failure{"", "missing_input", "required_inputs: '" + path + "' has no value", false};
}

/// What a catalogue knows without a schema is meant in every schema.
bool Intersects(const std::vector<SqlName>& names, const std::set<SqlName>& known) {
  return std::any_of(names.begin(), names.end(), [&](const SqlName& name) {
    return known.contains(name) || known.contains({"", name.name});
  });
}

}  // namespace

bool MayDiffer(const SqlStatement& statement, const ConnectionSetup& connection) {
  return statement.is_volatile || Intersects(statement.functions, connection.volatile_functions) ||
         Intersects(statement.relations, connection.volatile_relations);
}

ToolCallBuilder::ToolCallBuilder(const Operator& op, const ToolSetup& setup)
    : op_(op), setup_(setup) {
  const ToolSpec& tool = *op.tool;
  at_once_ = setup.concurrency;
  target_ = TargetOf(tool);
  may_share_ = setup.share && tool.coalesce && tool.effect != ToolEffect::kWrite;
  if (const auto* sql = std::get_if<SqlSpec>(&tool.what)) {
    connection_ = &setup.connections.at(sql->connection);
    may_share_ = may_share_ && !MayDiffer(Statement(), *connection_);
    if (connection_->at_once > 0) at_once_ = connection_->at_once;
  } else if (const auto* function = std::get_if<FunctionSpec>(&tool.what)) {
    constexpr int32_t kProcesses = 2;  // as ExecOptions has it
    if (function->function == "exec") at_once_ = function->config.value("processes", kProcesses);
  }
}

const SqlStatement& ToolCallBuilder::Statement() const {
  const auto& statement = std::get<SqlSpec>(op_.tool->what).For(connection_->dialect);
  HALO_CHECK(statement.has_value(), "a query has a text for its kind of connection");
  return *statement;
}

const std::vector<SqlName>* ToolCallBuilder::written() const {
  if (connection_ == nullptr || connection_->writes_spread) return nullptr;
  const std::vector<SqlName>& written = Statement().written;
  return written.empty() ? nullptr : &written;
}

const std::vector<SqlName>& ToolCallBuilder::read() const {
  static const std::vector<SqlName> kNone;
  return connection_ == nullptr ? kNone : Statement().relations;
}

BuiltToolCall ToolCallBuilder::Build(const Values& values, uint64_t draw_key) const {
  const ToolSpec& tool = *op_.tool;
  BuiltToolCall built;
  if (const auto* sql = std::get_if<SqlSpec>(&tool.what)) {
    built = BuildSql(*sql, values);
  } else if (const auto* http = std::get_if<HttpSpec>(&tool.what)) {
    built = BuildHttp(*http, values, draw_key);
  } else {
    built = BuildFunction(std::get<FunctionSpec>(tool.what), values);
  }
  built.call.effect = tool.effect;
  built.call.idempotent = tool.idempotent;
  built.call.script_operator = op_.id;
  if (!tool.timeout.is_null()) {
    const double seconds = Seconds(tool.timeout.Evaluate(values), tool.timeout_unit_s, "timeout_s");
    // The shortest limit is one, too.
    built.call.timeout_us =
        seconds > 0.0 ? std::max<int64_t>(1, std::llround(seconds * kUsPerS)) : 0;
  }
  // How long a call may take decides on its outcome, as how often it is made does.
  built.request = SignatureBuilder().Add(built.request).Add(built.call.timeout_us).Finish();
  // Each row draws a latency of its own: under a limit one may be over it and another not.
  const auto* http = std::get_if<HttpSpec>(&tool.what);
  const bool draws = http != nullptr && http->latency_mode != HttpLatencyMode::kLive;
  built.may_share = may_share_ && !(draws && built.call.timeout_us > 0);
  return built;
}

BuiltToolCall ToolCallBuilder::BuildSql(const SqlSpec& sql, const Values& values) const {
  for (const std::string& path : sql.required_inputs) Require(values, path);
  const SqlStatement& statement = Statement();
  SqlCall call;
  call.connection = sql.connection;
  call.text = statement.text;
  for (const std::string& name : statement.parameters) {
    const auto parameter = std::find_if(sql.parameters.begin(), sql.parameters.end(),
                                        [&](const SqlParameterSpec& p) { return p.name == name; });
    HALO_CHECK(parameter != sql.parameters.end(), "every parameter of a query has a value");
    call.arguments.push_back(
        {parameter->type, parameter->is_list, parameter->value.Evaluate(values), name});
  }
  if (connection_->dialect == SqlDialect::kPostgres && !sql.plans.empty()) {
    const auto chosen = setup_.plans.find(op_.tool.get());
    call.settings = sql.plans.at(chosen == setup_.plans.end() ? 0 : chosen->second).settings;
  }
  call.most_rows = sql.most_rows;
  call.most_bytes = sql.most_bytes;

  SignatureBuilder key;
  key.Add("sql").Add(sql.connection).Add(statement.normalized);
  for (const SqlArgument& argument : call.arguments) {
    key.Add(static_cast<int64_t>(argument.type)).Add(int64_t{argument.is_list});
    key.Add(JsonText(argument.value));
  }
  for (const auto& [name, value] : call.settings) key.Add(name).Add(value);
  key.Add(call.most_rows).Add(call.most_bytes).Add(int64_t{op_.retry.max});
  return {{0, std::move(call)}, key.Finish()};
}

BuiltToolCall ToolCallBuilder::BuildHttp(const HttpSpec& http, const Values& values,
                                         uint64_t draw_key) const {
  HttpCall call;
  SignatureBuilder key;
  key.Add("http").Add(http.method);
  call.method = http.method;
  if (!http.origin.empty()) call.url = http.origin + PathOf(http, values);
  for (const auto& [name, value] : http.params.fields)
    AppendQuery(call.url, name, value.Evaluate(values));
  key.Add(call.url);
  for (const auto& [name, text] : http.headers) {
    HttpHeader header{name, "", text.has_secret()};
    key.Add(name);
    for (const SecretText::Piece& piece : text.pieces) {
      const std::string shown =
          piece.text == nullptr ? piece.secret : SpansText(piece.text->Render(values));
      key.Add(int64_t{piece.text == nullptr}).Add(shown);
      header.value += piece.text == nullptr ? setup_.secrets.at(piece.secret) : shown;
    }
    call.headers.push_back(std::move(header));
  }
  if (http.json || http.body) {
    const Json body = (http.json ? *http.json : *http.body).Evaluate(values);
    const bool as_json = http.json || !body.is_string();
    call.body = as_json ? JsonText(body) : body.get<std::string>();
    if (as_json && !HasHeader(call.headers, "content-type"))
      call.headers.push_back({"Content-Type", "application/json", false});
    key.Add(as_json ? "json" : "body").Add(*call.body);
  } else {
    key.Add("no body");
  }
  call.response_path = http.response_path;
  call.most_bytes = http.most_bytes;
  call.latency_mode = http.latency_mode;
  key.Add(call.response_path).Add(call.most_bytes).Add(static_cast<int64_t>(call.latency_mode));
  if (call.latency_mode != HttpLatencyMode::kLive) {
    const double mean_s =
        Seconds(http.mean_latency.Evaluate(values), http.latency_unit_s, "latency_s");
    const double drawn_s = DrawLatency(mean_s, draw_key) * setup_.latency_scale;
    call.latency_us = static_cast<int64_t>(std::min(drawn_s, kMostSeconds) * kUsPerS);
    key.Add(mean_s);
  }
  key.Add(int64_t{op_.retry.max});
  return {{0, std::move(call)}, key.Finish()};
}

BuiltToolCall ToolCallBuilder::BuildFunction(const FunctionSpec& function,
                                             const Values& values) const {
  FunctionCall call;
  call.function = function.function;
  call.config = function.config;
  call.inputs = Json::object();
  for (const std::string& name : function.inputs) call.inputs[name] = values.at(name);
  call.outputs = op_.tool->outputs;
  SignatureBuilder key;
  key.Add("function").Add(call.function).Add(JsonText(call.config)).Add(JsonText(call.inputs));
  key.Add(int64_t{op_.retry.max});
  return {{0, std::move(call)}, key.Finish()};
}

Json ToolOutput(const ToolSpec& tool, const Json& result, const std::string& name) {
  if (const auto* sql = std::get_if<SqlSpec>(&tool.what)) {
    if (name == tool.outputs.front()) return result;
    for (const auto& [output, path] : sql->result_mappings) {
      if (output != name) continue;
      const Json* found = FindPath(result.at("rows"), path);
      return found == nullptr ? Json() : *found;
    }
    return nullptr;
  }
  if (tool.outputs.size() == 1 || !result.is_object()) return result;
  const auto field = result.find(name);
  return field == result.end() ? Json() : *field;
}

namespace {

/// What stands where elements of a list were left out: it has the keys of its neighbours, so that a
/// template that goes through the list finds them.
Json LeftOut(const Json& neighbour, size_t count) {
  const std::string text = "(" + std::to_string(count) + " more not shown)";
  if (!neighbour.is_object()) return text;
  Json note = Json::object();
  for (const auto& [key, value] : neighbour.items()) note[key] = note.empty() ? text : "...";
  return note;
}

size_t CountCharacters(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

/// The first `chars` characters of a text.
std::string CutText(const std::string& text, size_t chars) {
  if (text.size() <= chars) return text;
  size_t end = 0, seen = 0;
  for (; end < text.size(); ++end) {
    const bool begins = (static_cast<unsigned char>(text[end]) & 0xC0) != 0x80;
    if (begins && seen++ == chars) break;
  }
  if (end == text.size()) return text;
  const size_t left = CountCharacters(std::string_view(text).substr(end));
  return text.substr(0, end) + "...(" + std::to_string(left) + " more characters)";
}

/// Cuts lists and texts at every depth. `is_whole`: the value is no part of another, so that a text
/// stays as it is.
Json Cut(const Json& value, size_t rows, size_t chars, bool is_whole) {
  if (value.is_string() && !is_whole) return CutText(value.get_ref<const std::string&>(), chars);
  if (value.is_array()) {
    Json list = Json::array();
    for (size_t i = 0; i < std::min(rows, value.size()); ++i)
      list.push_back(Cut(value[i], rows, chars, false));
    if (value.size() > rows) list.push_back(LeftOut(list.back(), value.size() - rows));
    return list;
  }
  if (!value.is_object()) return value;
  Json object = Json::object();
  for (const auto& [key, inner] : value.items()) {
    object[key] = Cut(inner, rows, chars, false);
    // A result's rows keep their form; what was left out is said beside them.
    if (key != "rows" || !inner.is_array() || inner.size() <= rows) continue;
    object[key].erase(object[key].size() - 1);
    object["rows_shown"] = std::to_string(rows) + " of " + std::to_string(inner.size());
  }
  return object;
}

size_t TokensOf(const std::string& text, const Vocabulary* vocabulary) {
  constexpr size_t kBytesPerToken = 4;
  return vocabulary == nullptr ? text.size() / kBytesPerToken
                               : vocabulary->TokenizePart({PromptSpan::Data(text)}).size();
}

}  // namespace

Json ShownInPrompt(const Json& output, const PromptLimits& limits, const Vocabulary* vocabulary) {
  const auto most = static_cast<size_t>(limits.tokens);
  constexpr size_t kFewRows = 16, kFewestChars = 16;
  constexpr size_t kMostBytesPerToken = 32;  // longer texts are not counted, which takes long
  const auto fits = [&](const std::string& text) {
    if (text.size() <= most) return true;  // a token says a byte at least
    return text.size() <= most * kMostBytesPerToken && TokensOf(text, vocabulary) <= most;
  };
  size_t rows = static_cast<size_t>(limits.rows), chars = static_cast<size_t>(limits.chars);
  Json shown = Cut(output, rows, chars, true);
  std::string text = TextOf(shown);
  while (!fits(text)) {
    if (output.is_string() || (rows == 1 && chars <= kFewestChars)) break;
    if (rows > 1) {
      rows = rows > kFewRows ? std::max(kFewRows, rows / 2) : rows - 1;
    } else {
      chars /= 2;
    }
    shown = Cut(output, rows, chars, true);
    text = TextOf(shown);
  }
  if (fits(text)) return shown;
  // Of a text, or of what has too many fields, the beginning.
  size_t length = std::min(text.size(), most * kMostBytesPerToken);
  std::string beginning = CutText(text, length);
  while (length > 0 && !fits(beginning)) {
    length = length * 3 / 4;
    beginning = CutText(text, length);
  }
  return beginning;
}

}  // namespace halo
