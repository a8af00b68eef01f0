// Keys of HTTP calls.
#include <algorithm>
#include <string_view>

#include "workflow/prompt_check.h"
#include "workflow/tool_value_keys.h"

namespace halo {
namespace {

/// A host and perhaps its port: no user, no blank, nothing of a template.
bool IsAuthority(std::string_view text) {
  if (text.empty()) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == '_' || c == ':' || c == '[' || c == ']';
  });
}

/// Cuts a URL behind its host and port. What is before is constant: a row never chooses whom to
/// ask.
void ReadUrl(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  const auto url = c.reader.Word(f);
  if (!url) return;
  const size_t scheme = url->starts_with("http://") ? 7 : url->starts_with("https://") ? 8 : 0;
  const size_t end = std::min(url->find_first_of("/?#", scheme), url->size());
  if (scheme == 0 || !IsAuthority(std::string_view(*url).substr(scheme, end - scheme))) {
    return c.reader.Mismatch(
        f,
        "http:// or https://, then a host that is written out (templates may follow in the path "
        "and the query, secrets in headers)");
  }
  tool.http.origin = url->substr(0, end);
  YamlNode rest = *f.value;
  rest.text = url->substr(end);
  if (rest.text.find('#') != std::string::npos)
    return c.reader.Fault(f, "a fragment (#...) is never sent: take it out");
  if (rest.text.find("${") != std::string::npos)
    return c.reader.Fault(f, "secrets may stand in headers and connections only");
  if (!rest.text.starts_with("/")) rest.text.insert(0, "/");
  auto parsed = ParseTemplateScalar(rest, c.text, f.name, c.reader.diagnostics());
  if (!parsed) return;
  tool.parameters.push_back({parsed, f.value, false});
  tool.http.path = std::move(parsed);
}

void ReadParams(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  if (!tool.http.params.fields.empty())
    return c.reader.Fault(f, "params and query mean the same: keep one of them");
  tool.http.params = ReadMappingTemplate(c, f, tool);
}

void ReadHeaders(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  if (f.value->kind != YamlNode::Kind::kMapping) return c.reader.Mismatch(f, "a mapping");
  for (const auto& [key, value] : f.value->entries) {
    const YamlField header{"headers." + key->text, key.get(), value.get()};
    tool.http.headers.emplace_back(key->text, ReadSecretText(c, header, tool));
  }
}

/// Behind a call: the wait it stands for, instead of a request or beside it.
template <bool simulated, int thousandths>
void ReadLatency(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  ValueTemplate mean = ReadDurationTemplate(c, f, tool);
  // sleep_* wins over latency_*, seconds over milliseconds, as in the seed.
  const bool taken = !tool.http.mean_latency.is_null() &&
                     (tool.http.latency_mode == HttpLatencyMode::kSimulated) >= simulated;
  if (taken) return;
  tool.http.mean_latency = std::move(mean);
  tool.http.latency_unit_s = thousandths / 1000.0;
  tool.http.latency_mode = simulated ? HttpLatencyMode::kSimulated : HttpLatencyMode::kPadded;
}

constexpr KeySpec<ToolDraft> kKeys[] = {
    {"url", ReadUrl},
    {"method",
     [](KeyContext& c, const YamlField& f, ToolDraft& d) {
       d.http.method =
           c.reader.Choice(f, {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}).value_or("");
     }},
    {"params", ReadParams},
    {"query", ReadParams},
    {"headers", ReadHeaders},
    {"json", [](KeyContext& c, const YamlField& f,
                ToolDraft& d) { d.http.json = ReadValueTemplate(c, f.name, *f.value, d); }},
    {"body", [](KeyContext& c, const YamlField& f,
                ToolDraft& d) { d.http.body = ReadValueTemplate(c, f.name, *f.value, d); }},
    {"timeout_ms",
     [](KeyContext& c, const YamlField& f, ToolDraft& d) {
       if (!d.spec.timeout.is_null()) return;  // timeout_s says it
       d.spec.timeout = ReadDurationTemplate(c, f, d);
       d.spec.timeout_unit_s = 0.001;
     }},
    {"response_path", [](KeyContext& c, const YamlField& f,
                         ToolDraft& d) { d.http.response_path = c.reader.Word(f).value_or(""); }},
    {"most_bytes",
     [](KeyContext& c, const YamlField& f, ToolDraft& d) {
       constexpr int64_t kMost = int64_t{1} << 30;
       d.http.most_bytes = c.reader.Whole(f, {1, kMost}).value_or(HttpCall::kMostBytes);
     }},
    {"sleep_s", ReadLatency<true, 1000>},
    {"sleep_ms", ReadLatency<true, 1>},
    {"latency_s", ReadLatency<false, 1000>},
    {"latency_ms", ReadLatency<false, 1>},
};

}  // namespace

std::span<const KeySpec<ToolDraft>> HttpKeys() { return kKeys; }

void FinishHttp(KeyContext& c, const YamlNode& node, ToolDraft& tool) {
  HttpSpec& http = tool.http;
  const auto fault = [&](const char* message) {
    c.reader.diagnostics().Add(node.line, node.column, message);
  };
  if (http.json && http.body) fault("an HTTP call has both json and body: keep one of them");
  const bool has_body = http.json || http.body;
  if (http.method.empty()) http.method = has_body ? "POST" : "GET";
  if (has_body && (http.method == "GET" || http.method == "HEAD"))
    fault("an HTTP call of method GET or HEAD sends no body: take it out, or use POST");
  // Without a URL a declared latency stands in for the call.
  if (http.origin.empty() && http.latency_mode == HttpLatencyMode::kPadded)
    http.latency_mode = HttpLatencyMode::kSimulated;
}

}  // namespace halo
