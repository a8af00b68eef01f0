#include "session/run_manifest.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "base/bounded_json.h"
#include "base/error.h"
#include "base/file_text.h"
#include "base/hash.h"
#include "halo_build_info.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

/// Of the file's keys. A newer version reads all older ones.
constexpr int kFormat = 1;
constexpr const char* kMask = "***";

/// How an option is written down and read back.
struct OptionKey {
  const char* name;
  Json (*get)(const RunOptions&);
  void (*set)(const Json&, RunOptions&);
};

template <auto Member>
constexpr OptionKey Plain(const char* name) {
  return {name, [](const RunOptions& options) { return Json(options.*Member); },
          [](const Json& value, RunOptions& options) { value.get_to(options.*Member); }};
}

/// Everything that a later part has to be told again. What only one part writes (--trace,
/// --dump-prompts, --summary-json) is not among it.
constexpr OptionKey kOptions[] = {
    Plain<&RunOptions::output>("output"),
    Plain<&RunOptions::models>("models"),
    Plain<&RunOptions::models_file>("models_file"),
    Plain<&RunOptions::models_folder>("models_folder"),
    Plain<&RunOptions::hugging_face_cache>("hugging_face_cache"),
    {"connections",
     [](const RunOptions& options) {
       Json urls = Json::object();
       for (const auto& [name, url] : options.connections) urls[name] = MaskedUrl(url);
       return urls;
     },
     [](const Json& value, RunOptions& options) { value.get_to(options.connections); }},
    Plain<&RunOptions::allow>("allow"),
    Plain<&RunOptions::latency_scale>("latency_scale"),
    Plain<&RunOptions::share_tool_calls>("share_tool_calls"),
    // By their names: whoever goes on with the run has to have them.
    {"functions",
     [](const RunOptions& options) {
       Json names = Json::array();
       for (const auto& [name, function] : options.functions) names.push_back(name);
       return names;
     },
     [](const Json& value, RunOptions& options) {
       for (const auto& name : value.get<std::vector<std::string>>()) options.functions[name] = {};
     }},
    Plain<&RunOptions::column>("column"),
    Plain<&RunOptions::limit>("limit"),
    Plain<&RunOptions::threads>("threads"),
    Plain<&RunOptions::worker_memory_bytes>("worker_memory_bytes"),
    Plain<&RunOptions::kept_memory_bytes>("kept_memory_bytes"),
    Plain<&RunOptions::kept_disk_bytes>("kept_disk_bytes"),
    Plain<&RunOptions::sequences>("sequences"),
    Plain<&RunOptions::context_tokens>("context_tokens"),
    Plain<&RunOptions::kv_layout>("kv_layout"),
    Plain<&RunOptions::prompt_lookup>("prompt_lookup"),
    Plain<&RunOptions::prefill_ahead>("prefill_ahead"),
    {"engines_in_children",
     [](const RunOptions& options) { return Json(!options.engine_program.empty()); },
     [](const Json& value, RunOptions& options) {
       options.engine_program = value.get<bool>() ? "/proc/self/exe" : "";
     }},
    Plain<&RunOptions::naive>("naive"),
    {"deterministic",
     [](const RunOptions& options) { return Json(static_cast<int>(options.deterministic)); },
     [](const Json& value, RunOptions& options) {
       options.deterministic = static_cast<Determinism>(
           std::clamp(value.get<int>(), 0, static_cast<int>(Determinism::kOff)));
     }},
    Plain<&RunOptions::seed>("seed"),
    Plain<&RunOptions::date>("date"),
    Plain<&RunOptions::all_outputs>("all_outputs"),
    Plain<&RunOptions::input_order>("input_order"),
    Plain<&RunOptions::window>("window"),
    Plain<&RunOptions::stop_on_error>("stop_on_error"),
    Plain<&RunOptions::max_failures>("max_failures"),
    Plain<&RunOptions::max_failures_share>("max_failures_share"),
    Plain<&RunOptions::stop_when_all_fail>("stop_when_all_fail"),
    Plain<&RunOptions::most_calls>("most_calls"),
    Plain<&RunOptions::most_tokens>("most_tokens"),
    Plain<&RunOptions::most_cost>("most_cost"),
    Plain<&RunOptions::most_seconds>("most_seconds"),
    Plain<&RunOptions::row_timeout_s>("row_timeout_s"),
    Plain<&RunOptions::report>("report"),
    Plain<&RunOptions::report_samples>("report_samples"),
    Plain<&RunOptions::replan>("replan"),
    Plain<&RunOptions::rules_off>("rules_off"),
    Plain<&RunOptions::planner>("planner"),
    Plain<&RunOptions::workers>("workers"),
    Plain<&RunOptions::profile_file>("profile_file"),
    Plain<&RunOptions::history_file>("history_file"),
    Plain<&RunOptions::use_history>("use_history"),
    Plain<&RunOptions::cache_folder>("cache_folder"),
    Plain<&RunOptions::cache_bytes>("cache_bytes"),
};

Json FactsJson(const FileFacts& facts) {
  return {{"path", facts.path},
          {"bytes", facts.bytes},
          {"modified_ns", facts.modified_ns},
          {"digest", facts.digest}};
}

FileFacts FactsFrom(const Json& json) {
  return {json.at("path").get<std::string>(), json.at("bytes").get<int64_t>(),
          json.at("modified_ns").get<int64_t>(), json.at("digest").get<std::string>()};
}

Json InputJson(const RunManifest::Input& input, const RunOptions::Input& given) {
  Json operators = Json::array();
  for (const OperatorFacts& op : input.operators)
    operators.push_back({{"id", op.id}, {"signature", op.signature}, {"reads", op.reads}});
  return {{"workflow", given.workflow},
          {"rows", given.rows},
          {"workflow_file", FactsJson(input.workflow)},
          {"rows_file", FactsJson(input.rows)},
          {"operators", operators},
          {"text", input.text}};
}

/// Throws nlohmann's exceptions where a key is missing or of another kind.
RunManifest ManifestFrom(const Json& json) {
  RunManifest manifest;
  json.at("created").get_to(manifest.created);
  json.at("parts").get_to(manifest.parts);
  json.at("in_runs").get_to(manifest.in_runs);
  json.at("working_folder").get_to(manifest.working_folder);
  json.at("same").get_to(manifest.same);
  const Json& options = json.at("options");
  for (const OptionKey& key : kOptions) {
    // A key that an older version did not know has its default.
    if (options.contains(key.name)) key.set(options.at(key.name), manifest.options);
  }
  for (const Json& each : json.at("inputs")) {
    manifest.options.inputs.push_back(
        {each.at("workflow").get<std::string>(), each.at("rows").get<std::string>()});
    RunManifest::Input input;
    input.workflow = FactsFrom(each.at("workflow_file"));
    input.rows = FactsFrom(each.at("rows_file"));
    each.at("text").get_to(input.text);
    for (const Json& op : each.at("operators")) {
      input.operators.push_back({op.at("id").get<std::string>(),
                                 op.at("signature").get<std::string>(),
                                 op.at("reads").get<std::vector<std::string>>()});
    }
    manifest.inputs.push_back(std::move(input));
  }
  for (const Json& model : json.at("models")) manifest.models.push_back(FactsFrom(model));
  return manifest;
}

/// Rows of queries are kept in the run's folder, which may have been moved since.
void FindKeptRows(const std::string& folder, RunManifest& manifest) {
  for (size_t i = 0; i < manifest.inputs.size(); ++i) {
    std::string& path = manifest.inputs[i].rows.path;
    if (manifest.options.inputs[i].rows.starts_with("sql:"))
      path = folder + "/" + std::filesystem::path(path).filename().string();
  }
}

/// Lines of the operators of one workflow that are not what they were.
void OperatorChanges(const RunManifest::Input& before, const RunManifest::Input& now,
                     std::vector<std::string>& lines) {
  std::set<std::string> changed;
  for (const OperatorFacts& op : now.operators) {  // in an order in which inputs come first
    const auto was = std::find_if(before.operators.begin(), before.operators.end(),
                                  [&](const OperatorFacts& o) { return o.id == op.id; });
    if (was != before.operators.end() && was->signature == op.signature) continue;
    changed.insert(op.id);
    const auto through = std::find_if(op.reads.begin(), op.reads.end(),
                                      [&](const std::string& id) { return changed.contains(id); });
    std::string why = "has changed";
    if (was == before.operators.end()) why = "is new";
    if (was != before.operators.end() && through != op.reads.end())
      why = "looks at '" + *through + "'";
    lines.push_back(now.workflow.path + ": '" + op.id +
                    "' is asked again where its prompts differ: it " + why);
  }
}

}  // namespace

std::string ManifestText(const RunManifest& manifest) {
  Json options = Json::object(), inputs = Json::array(), models = Json::array();
  for (const OptionKey& key : kOptions) options[key.name] = key.get(manifest.options);
  for (size_t i = 0; i < manifest.inputs.size(); ++i)
    inputs.push_back(InputJson(manifest.inputs[i], manifest.options.inputs[i]));
  for (const FileFacts& model : manifest.models) models.push_back(FactsJson(model));
  const Json json = {{"format", kFormat},
                     {"created", manifest.created},
                     {"parts", manifest.parts},
                     {"version", build_info::kVersion},
                     {"commit", build_info::kCommit},
                     {"llama_cpp", build_info::kLlamaVersion},
                     {"in_runs", manifest.in_runs},
                     {"working_folder", manifest.working_folder},
                     {"same", manifest.same},
                     {"options", options},
                     {"inputs", inputs},
                     {"models", models}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

RunManifest ReadManifest(const std::string& folder) {
  const std::string path = folder + "/manifest.json";
  const std::optional<std::string> text = ReadFileText(path);
  if (!text) throw Error(ErrorCode::kUsage, path + ": cannot be read");
  std::string fault;
  const Json json = ParseBoundedJson(*text, fault);
  if (json.is_discarded()) throw Error(ErrorCode::kUsage, path + ": " + fault);
  try {
    if (json.at("format").get<int>() > kFormat)
      throw Error(ErrorCode::kUsage, path + ": a newer version of Halo has written it");
    RunManifest manifest = ManifestFrom(json);
    FindKeptRows(folder, manifest);
    return manifest;
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::kUsage, path + ": is no manifest of a run: " + error.what());
  }
}

FileFacts LookAt(const std::string& path, const std::vector<FileFacts>& known) {
  const auto fail = [&] {
    throw Error(ErrorCode::kIo, path + ": cannot be read: " + std::strerror(errno));
  };
  struct stat facts {};
  if (stat(path.c_str(), &facts) != 0) fail();
  constexpr int64_t kNsPerS = 1'000'000'000;
  FileFacts found{path, facts.st_size, facts.st_mtim.tv_sec * kNsPerS + facts.st_mtim.tv_nsec, ""};
  const auto same = std::find_if(known.begin(), known.end(), [&](const FileFacts& k) {
    return k.path == path && k.bytes == found.bytes && k.modified_ns == found.modified_ns;
  });
  if (same != known.end()) return *same;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail();
  constexpr size_t kBytes = size_t{1} << 20;
  std::string buffer(kBytes, '\0');
  SignatureBuilder digest;
  ssize_t got = 0;
  size_t filled = 0;
  // Fields are hashed with their lengths: all but the last one are full.
  while ((got = read(fd, buffer.data() + filled, kBytes - filled)) > 0) {
    filled += static_cast<size_t>(got);
    if (filled < kBytes) continue;
    digest.Add(buffer);
    filled = 0;
  }
  digest.Add(std::string_view(buffer.data(), filled));
  close(fd);
  if (got < 0) fail();
  found.digest = digest.Finish().ToHex();
  return found;
}

std::string SameThing(const RunOptions& options) {
  const auto place = [](const std::string& path) {
    std::error_code fault;
    const std::filesystem::path whole = std::filesystem::absolute(path, fault);
    return fault ? path : whole.lexically_normal().string();
  };
  SignatureBuilder same;
  for (const RunOptions::Input& input : options.inputs) {
    same.Add(place(input.workflow));
    same.Add(input.rows.starts_with("sql:") || input.rows.empty() ? input.rows : place(input.rows));
  }
  return same.Add(place(options.output)).Finish().ToHex();
}

std::string MaskedUrl(const std::string& url) {
  const size_t scheme = url.find("://");
  if (scheme == std::string::npos) return url;
  std::string masked = url;
  const size_t host = scheme + 3;
  const size_t colon = masked.find(':', host);
  const size_t port_end = masked.find_first_not_of("0123456789", colon + 1);
  const bool is_port = port_end == std::string::npos || masked[port_end] == '/';
  // A password with a '/' should be encoded, and often is not: it ends at the last '@' then.
  const char* const end_of_host = is_port || masked[host] == '[' ? "/?" : "?";
  const size_t at = masked.rfind('@', masked.find_first_of(end_of_host, host));
  // What is looked up when the run goes on is no secret itself.
  const bool is_reference = masked.compare(colon + 1, 2, "${") == 0;
  if (at != std::string::npos && at > host && colon < at && !is_reference)
    masked.replace(colon + 1, at - colon - 1, kMask);
  const std::string key = "password=";
  for (size_t found = masked.find(key); found != std::string::npos;
       found = masked.find(key, found + key.size())) {
    const size_t begin = found + key.size();
    masked.replace(begin, std::min(masked.find('&', begin), masked.size()) - begin, kMask);
  }
  return masked;
}

std::vector<std::string> MaskedConnections(const RunOptions& options) {
  std::vector<std::string> names;
  for (const auto& [name, url] : options.connections) {
    if (url.find(kMask) != std::string::npos) names.push_back(name);
  }
  return names;
}

std::vector<std::string> Changes(const RunManifest& before, const RunManifest& now) {
  std::vector<std::string> lines;
  for (size_t i = 0; i < std::min(before.inputs.size(), now.inputs.size()); ++i) {
    OperatorChanges(before.inputs[i], now.inputs[i], lines);
    const FileFacts& rows = now.inputs[i].rows;
    if (!rows.path.empty() && rows.digest != before.inputs[i].rows.digest)
      lines.push_back(rows.path +
                      " has changed: rows are asked again for where their prompts differ");
  }
  for (const FileFacts& model : now.models) {
    const auto same = [&](const FileFacts& known) { return known.digest == model.digest; };
    if (std::none_of(before.models.begin(), before.models.end(), same))
      lines.push_back(model.path + " is another file than before: all of its calls are made again");
  }
  return lines;
}

}  // namespace halo
