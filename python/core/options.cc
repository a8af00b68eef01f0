#include "core/options.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "session/durable_run.h"

namespace halo::python {
namespace {

using Json = nlohmann::json;

/// How an option is read. Throws nlohmann's exception for a value of another kind.
struct OptionKey {
  const char* name;
  void (*read)(const Json&, SimulationOptions&);
};

template <auto Member>
constexpr OptionKey Run(const char* name) {
  return {name, [](const Json& value, SimulationOptions& all) { value.get_to(all.run.*Member); }};
}

[[noreturn]] void Refuse(const std::string& message) { throw Error(ErrorCode::kUsage, message); }

void ReadAllow(const Json& value, SimulationOptions& all) {
  for (const auto& word : value.get<std::set<std::string>>()) {
    if (word != "exec" && word != "net" && word != "files" && word != "env")
      Refuse("allow: expected exec, net, files or env, got '" + word + "'");
    all.run.allow.insert(word);
  }
}

/// True: bit for bit the answers of naive runs, or an error; false: llama.cpp's own kernels.
void ReadDeterministic(const Json& value, SimulationOptions& all) {
  all.run.deterministic = value.get<bool>() ? Determinism::kRequired : Determinism::kOff;
}

void ReadBudget(const Json& value, SimulationOptions& all) {
  for (const auto& [key, amount] : value.get<std::map<std::string, Json>>()) {
    if (key == "calls") {
      amount.get_to(all.run.most_calls);
    } else if (key == "tokens") {
      amount.get_to(all.run.most_tokens);
    } else if (key == "seconds") {
      amount.get_to(all.run.most_seconds);
    } else {
      Refuse("budget: expected calls, tokens and seconds, got '" + key + "'");
    }
  }
}

void ReadOrder(const Json& value, SimulationOptions& all) {
  const std::string order = value.get<std::string>();
  if (order != "input" && order != "completion")
    Refuse("order: expected 'input' or 'completion', got '" + order + "'");
  all.run.input_order = order == "input";
}

void ReadInputs(const Json& value, SimulationOptions& all) {
  for (const Json& input : value)
    all.run.inputs.push_back(
        {input.at("workflow").get<std::string>(), input.value("rows", ""), nullptr});
}

constexpr OptionKey kOptions[] = {
    {"inputs", ReadInputs},
    Run<&RunOptions::models>("models"),
    Run<&RunOptions::models_file>("models_file"),
    Run<&RunOptions::models_folder>("models_folder"),
    Run<&RunOptions::hugging_face_cache>("hugging_face_cache"),
    Run<&RunOptions::shipped_models>("shipped_models"),
    Run<&RunOptions::connections>("connections"),
    {"allow", ReadAllow},
    Run<&RunOptions::latency_scale>("latency_scale"),
    Run<&RunOptions::share_tool_calls>("share_tool_calls"),
    Run<&RunOptions::column>("column"),
    Run<&RunOptions::limit>("limit"),
    Run<&RunOptions::threads>("threads"),
    Run<&RunOptions::workers>("workers"),
    Run<&RunOptions::worker_memory_bytes>("worker_memory"),
    Run<&RunOptions::kept_memory_bytes>("kept_memory"),
    Run<&RunOptions::sequences>("sequences"),
    Run<&RunOptions::context_tokens>("context"),
    Run<&RunOptions::kv_layout>("kv_layout"),
    Run<&RunOptions::prompt_lookup>("prompt_lookup"),
    Run<&RunOptions::engine_program>("engine_program"),
    Run<&RunOptions::naive>("naive"),
    {"deterministic", ReadDeterministic},
    Run<&RunOptions::seed>("seed"),
    Run<&RunOptions::date>("date"),
    Run<&RunOptions::all_outputs>("all_outputs"),
    {"order", ReadOrder},
    Run<&RunOptions::window>("window"),
    Run<&RunOptions::stop_on_error>("stop_on_error"),
    Run<&RunOptions::max_failures>("max_failures"),
    Run<&RunOptions::max_failures_share>("max_failures_share"),
    Run<&RunOptions::stop_when_all_fail>("stop_when_all_fail"),
    {"budget", ReadBudget},
    Run<&RunOptions::row_timeout_s>("row_timeout"),
    Run<&RunOptions::dump_prompts>("dump_prompts"),
    Run<&RunOptions::trace>("trace"),
    Run<&RunOptions::report>("report"),
    Run<&RunOptions::report_samples>("report_samples"),
    Run<&RunOptions::replan>("replan"),
    Run<&RunOptions::rules_off>("rules_off"),
    Run<&RunOptions::planner>("planner"),
    Run<&RunOptions::plan_file>("plan"),
    Run<&RunOptions::profile_file>("profile"),
    Run<&RunOptions::history_file>("history"),
    Run<&RunOptions::use_history>("use_history"),
    Run<&RunOptions::ask_databases>("ask_databases"),
    Run<&RunOptions::run_folder>("run_dir"),
    Run<&RunOptions::resume>("resume"),
    Run<&RunOptions::retry_failed>("retry_failed"),
    {"costs_as", [](const Json& value, SimulationOptions& all) { value.get_to(all.costs_as); }},
    {"repeat_to_rows", [](const Json& value, SimulationOptions& all) { value.get_to(all.rows); }},
};

}  // namespace

SimulationOptions ReadOptions(const std::string& json) {
  SimulationOptions all;
  const Json given = Json::parse(json);
  if (given.value("resume", false)) all.run = OptionsToResume(given.at("run_dir"));
  for (const auto& [name, value] : given.items()) {
    const auto* found = std::find_if(std::begin(kOptions), std::end(kOptions),
                                     [&](const OptionKey& key) { return key.name == name; });
    if (found == std::end(kOptions))
      Refuse("there is no option '" + name + "'" + DidYouMean(name, OptionNames()));
    try {
      found->read(value, all);
    } catch (const nlohmann::json::exception&) {
      Refuse(name + ": this option takes no " + std::string(value.type_name()) + " such as " +
             value.dump());
    }
  }
  return all;
}

std::vector<std::string> OptionNames() {
  std::vector<std::string> names;
  for (const OptionKey& key : kOptions) names.emplace_back(key.name);
  return names;
}

}  // namespace halo::python
