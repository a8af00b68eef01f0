#include "core/options.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "session/durable_run.h"

namespace halo::python {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMostRows = 1'000'000'000'000;  // here and below as the program `halo` has it
constexpr int64_t kMostBytes = int64_t{1} << 50;

struct OfAnotherKind {};

struct OutOfBounds {
  int64_t least, most;
};

/// How an option is read. Throws OutOfBounds, and OfAnotherKind or nlohmann's exception for a value
/// of another kind.
struct OptionKey {
  const char* name;
  void (*read)(const Json&, SimulationOptions&);
};

[[noreturn]] void Refuse(const std::string& message) { throw Error(ErrorCode::kUsage, message); }

template <typename Whole>
bool Holds(const Json& value) {
  return value.is_number_unsigned() ? std::in_range<Whole>(value.get<uint64_t>())
                                    : std::in_range<Whole>(value.get<int64_t>());
}

/// As `get_to`, which takes true for a number, cuts off fractions and wraps large numbers around.
template <typename Value>
void Read(const Json& value, Value& to) {
  if constexpr (std::is_integral_v<Value> && !std::is_same_v<Value, bool>) {
    if (!value.is_number_integer() || !Holds<Value>(value)) throw OfAnotherKind();
  } else if constexpr (std::is_floating_point_v<Value>) {
    if (!value.is_number()) throw OfAnotherKind();
  }
  value.get_to(to);
}

template <auto Member>
constexpr OptionKey Run(const char* name) {
  return {name, [](const Json& value, SimulationOptions& all) { Read(value, all.run.*Member); }};
}

/// A number within bounds.
template <auto Member, int64_t Least, int64_t Most>
constexpr OptionKey Bounded(const char* name) {
  return {name, [](const Json& value, SimulationOptions& all) {
            auto& to = all.run.*Member;
            Read(value, to);
            using Number = std::remove_reference_t<decltype(to)>;
            if (to < static_cast<Number>(Least) || to > static_cast<Number>(Most))
              throw OutOfBounds{Least, Most};
          }};
}

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
    if (amount.is_number() && amount < 0) throw OfAnotherKind();
    if (key == "calls") {
      Read(amount, all.run.most_calls);
    } else if (key == "tokens") {
      Read(amount, all.run.most_tokens);
    } else if (key == "seconds") {
      Read(amount, all.run.most_seconds);
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
    Bounded<&RunOptions::latency_scale, 0, 1000>("latency_scale"),
    Run<&RunOptions::share_tool_calls>("share_tool_calls"),
    Run<&RunOptions::column>("column"),
    Bounded<&RunOptions::limit, 0, kMostRows>("limit"),
    Bounded<&RunOptions::threads, 1, 1024>("threads"),
    Bounded<&RunOptions::workers, 0, 1024>("workers"),
    Bounded<&RunOptions::worker_memory_bytes, 0, kMostBytes>("worker_memory"),
    Bounded<&RunOptions::kept_memory_bytes, 0, kMostBytes>("kept_memory"),
    Bounded<&RunOptions::kept_disk_bytes, 0, kMostBytes>("kept_disk"),
    Bounded<&RunOptions::sequences, 1, 4096>("sequences"),
    Bounded<&RunOptions::context_tokens, 2, 1 << 30>("context"),
    Run<&RunOptions::kv_layout>("kv_layout"),
    Run<&RunOptions::prompt_lookup>("prompt_lookup"),
    Run<&RunOptions::prefill_ahead>("prefill_ahead"),
    Run<&RunOptions::engine_program>("engine_program"),
    Run<&RunOptions::naive>("naive"),
    {"deterministic", ReadDeterministic},
    Run<&RunOptions::seed>("seed"),
    Run<&RunOptions::date>("date"),
    Run<&RunOptions::all_outputs>("all_outputs"),
    {"order", ReadOrder},
    Bounded<&RunOptions::window, 1, kMostRows>("window"),
    Run<&RunOptions::stop_on_error>("stop_on_error"),
    Bounded<&RunOptions::max_failures, 0, kMostRows>("max_failures"),
    Run<&RunOptions::max_failures_share>("max_failures_share"),
    Run<&RunOptions::stop_when_all_fail>("stop_when_all_fail"),
    {"budget", ReadBudget},
    Bounded<&RunOptions::row_timeout_s, 0, 1'000'000'000>("row_timeout"),
    Run<&RunOptions::dump_prompts>("dump_prompts"),
    Run<&RunOptions::trace>("trace"),
    Run<&RunOptions::report>("report"),
    Bounded<&RunOptions::report_samples, 0, 1000>("report_samples"),
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
    {"costs_as", [](const Json& value, SimulationOptions& all) { Read(value, all.costs_as); }},
    {"repeat_to_rows", [](const Json& value, SimulationOptions& all) { Read(value, all.rows); }},
};

[[noreturn]] void RefuseName(const std::string& name) {
  std::vector<std::string> names = OptionNames();
  // Those of the package's own functions.
  names.insert(names.end(), {"engine_process", "functions", "ordered", "progress"});
  Refuse("there is no option '" + name + "'" + DidYouMean(name, names));
}

[[noreturn]] void RefuseKind(const std::string& name, const Json& value) {
  Refuse(name + ": this option takes no " + std::string(value.type_name()) + " such as " +
         value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace

SimulationOptions ReadOptions(const std::string& json) {
  SimulationOptions all;
  const Json given = Json::parse(json);
  if (given.value("resume", false)) all.run = OptionsToResume(given.at("run_dir"));
  for (const auto& [name, value] : given.items()) {
    const auto* found = std::find_if(std::begin(kOptions), std::end(kOptions),
                                     [&](const OptionKey& key) { return key.name == name; });
    if (found == std::end(kOptions)) RefuseName(name);
    try {
      found->read(value, all);
    } catch (const OutOfBounds& bounds) {
      Refuse(name + ": expected a number from " + std::to_string(bounds.least) + " to " +
             std::to_string(bounds.most) + ", got " + value.dump());
    } catch (const OfAnotherKind&) {
      RefuseKind(name, value);
    } catch (const Json::exception&) {
      RefuseKind(name, value);
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
