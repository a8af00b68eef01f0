// server_client: the peer. The calls of a run's dump, sent to llama-server by a client that keeps a
// number of rows in flight.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "bench/call_log.h"
#include "bench/child_process.h"
#include "bench/http_client.h"
#include "bench/workflow_graph.h"

namespace halo::bench {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  std::string dump, workflow, levels, server, log = "llama-server.log";
  std::vector<std::string> models, server_arguments;
  int32_t threads = static_cast<int32_t>(std::max(1U, std::thread::hardware_concurrency()));
  int32_t slots = 16, rows_in_flight = 16;
  bool cache_prompt = true;
};

/// llama-server for one model, up once it is healthy.
class Server {
 public:
  Server(const Flags& flags, const std::string& model, const std::string& file, int64_t slot_tokens)
      : port_(FreePort()) {
    std::vector<std::string> arguments = {
        flags.server, "-m", file, "--host", "127.0.0.1", "--port", std::to_string(port_), "-np",
        std::to_string(flags.slots), "-c", std::to_string(flags.slots * slot_tokens), "-t",
        std::to_string(flags.threads), "--cache-ram", "0", "-fa", "on", "--no-ui",
        // A call holds a thread of the server until it is answered.
        "--threads-http", std::to_string(flags.rows_in_flight * kMostCallsOfRow + 4)};
    arguments.insert(arguments.end(), flags.server_arguments.begin(), flags.server_arguments.end());
    std::string log = flags.log;
    if (flags.models.size() > 1) log += "." + std::to_string(port_);
    program_ = std::make_unique<BackgroundProgram>(arguments, log);
    WaitUntilHealthy(model, log);
  }

  uint16_t port() const { return port_; }

 private:
  static constexpr int32_t kMostCallsOfRow = 8;

  void WaitUntilHealthy(const std::string& model, const std::string& log) {
    constexpr int kPolls = 6000;
    for (int i = 0; i < kPolls; ++i) {
      if (AskLocalServer(port_, "/health", "").status == 200) return;
      if (!program_->running()) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    throw std::runtime_error("llama-server for " + model + " does not come up, see " + log);
  }

  uint16_t port_;
  std::unique_ptr<BackgroundProgram> program_;
};

/// What came back, over all calls.
struct Totals {
  std::mutex mutex;  ///< guards everything below
  int64_t calls = 0, prompt_tokens = 0, prefilled_tokens = 0, cached_tokens = 0, output_tokens = 0;
  std::string error;  ///< the first
};

class Client {
 public:
  Client(const Flags& flags, WorkflowGraph graph, const std::vector<Call>& calls)
      : flags_(flags), graph_(std::move(graph)) {
    std::map<std::pair<int64_t, std::string>, size_t> row_of;
    for (const Call& call : calls) {
      if (call.output.empty()) continue;
      if (!graph_.contains(call.op)) {
        throw std::invalid_argument("the workflow has no operator '" + call.op +
                                    "', but the dump has");
      }
      const auto [row, is_new] = row_of.try_emplace({call.source, call.row}, rows_.size());
      if (is_new) rows_.emplace_back();
      rows_[row->second].push_back(&call);
    }
  }

  /// Sends everything; returns seconds from the first request to the last answer.
  double Run(const std::map<std::string, uint16_t>& ports) {
    ports_ = ports;
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> lanes;
    const size_t lane_count = std::min(rows_.size(), static_cast<size_t>(flags_.rows_in_flight));
    for (size_t lane = 0; lane < lane_count; ++lane) {
      lanes.emplace_back([this] {
        for (size_t row = next_row_++; row < rows_.size(); row = next_row_++) RunRow(rows_[row]);
      });
    }
    for (std::thread& lane : lanes) lane.join();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    if (!totals_.error.empty()) throw std::runtime_error(totals_.error);
    return elapsed.count();
  }

  const Totals& totals() const { return totals_; }
  size_t rows() const { return rows_.size(); }

 private:
  using Row = std::vector<const Call*>;

  /// Each call goes as soon as the calls it waits for are answered, those of other operators at
  /// once.
  void RunRow(const Row& row) {
    std::mutex mutex;
    std::condition_variable changed;
    std::map<std::string, int64_t> open;  // operator -> calls not answered yet
    for (const Call* call : row) ++open[call->op];
    std::vector<std::thread> running;
    for (const std::string& op : TopologicalOrder(graph_)) {
      for (const Call* call : row) {
        if (call->op != op) continue;
        running.emplace_back([&, call] {
          {
            std::unique_lock lock(mutex);
            changed.wait(lock, [&] { return InputsAreThere(call->op, open); });
          }
          Send(*call);
          const std::lock_guard lock(mutex);
          --open[call->op];
          changed.notify_all();
        });
      }
    }
    for (std::thread& thread : running) thread.join();
  }

  bool InputsAreThere(const std::string& op, const std::map<std::string, int64_t>& open) const {
    for (const std::string& input : graph_.at(op)) {
      const auto found = open.find(input);
      if (found != open.end() && found->second > 0) return false;
    }
    return true;
  }

  void Send(const Call& call) {
    const nlohmann::json request = {{"prompt", call.prompt}, {"n_predict", call.output.size()},
                                    {"ignore_eos", true},    {"temperature", call.temperature},
                                    {"top_p", call.top_p},   {"cache_prompt", flags_.cache_prompt},
                                    {"stream", false}};
    const HttpAnswer answer = AskLocalServer(ports_.at(call.model), "/completion", request.dump());
    const std::lock_guard lock(totals_.mutex);
    try {
      if (answer.status != 200) throw std::runtime_error("status " + std::to_string(answer.status));
      const nlohmann::json body = nlohmann::json::parse(answer.body);
      const int64_t predicted = body.at("tokens_predicted").get<int64_t>();
      if (predicted != static_cast<int64_t>(call.output.size())) {
        throw std::runtime_error(std::to_string(predicted) + " tokens, not " +
                                 std::to_string(call.output.size()));
      }
      ++totals_.calls;
      totals_.prompt_tokens += static_cast<int64_t>(call.prompt.size());
      totals_.prefilled_tokens += body.at("timings").at("prompt_n").get<int64_t>();
      totals_.cached_tokens += body.at("timings").value("cache_n", int64_t{0});
      totals_.output_tokens += predicted;
    } catch (const std::exception& error) {
      if (totals_.error.empty()) {
        totals_.error = "row " + call.row + ", operator " + call.op + ": " + error.what() + " " +
                        answer.body.substr(0, 300);
      }
    }
  }

  const Flags& flags_;
  WorkflowGraph graph_;
  std::vector<Row> rows_;                  ///< in order of appearance
  std::map<std::string, uint16_t> ports_;  ///< by model
  std::atomic<size_t> next_row_{0};
  Totals totals_;
};

/// The longest prompt and answer of a model's calls, and a little more, in whole blocks of cells.
int64_t SlotTokens(const std::vector<Call>& calls, const std::string& model) {
  constexpr int64_t kMargin = 16, kBlock = 256;
  size_t longest = 0;
  for (const Call& call : calls) {
    if (call.model == model) longest = std::max(longest, call.prompt.size() + call.output.size());
  }
  return (static_cast<int64_t>(longest) + kMargin + kBlock - 1) / kBlock * kBlock;
}

void Run(const Flags& flags) {
  const CallLog log = ReadCallLog(flags.dump);
  const std::vector<Call>& calls = log.llm;
  if (calls.empty()) throw std::runtime_error(flags.dump + ": has no calls of models");
  if (!log.tools.empty())
    throw std::runtime_error(flags.dump + ": has calls of tools, which are not sent here");
  Client client(
      flags,
      flags.workflow.empty() ? GraphFromLevels(flags.levels) : ReadWorkflowGraph(flags.workflow),
      calls);
  std::map<std::string, std::string> files;
  for (const std::string& flag : flags.models) {
    const size_t at = flag.find('=');
    if (at == std::string::npos)
      throw std::invalid_argument("--model: expected NAME=FILE.gguf, got '" + flag + "'");
    files[flag.substr(0, at)] = flag.substr(at + 1);
  }
  std::map<std::string, std::unique_ptr<Server>> servers;
  std::map<std::string, uint16_t> ports;
  for (const std::string& model : ModelsOf(calls)) {
    const auto file = files.find(model);
    if (file == files.end())
      throw std::invalid_argument("--model " + model + "=FILE.gguf: missing");
    servers[model] = std::make_unique<Server>(flags, model, file->second, SlotTokens(calls, model));
    ports[model] = servers[model]->port();
  }
  const double elapsed_s = client.Run(ports);
  const Totals& totals = client.totals();
  std::cout << Json{{"elapsed_s", elapsed_s},
                    {"rows", client.rows()},
                    {"calls", totals.calls},
                    {"prompt_tokens", totals.prompt_tokens},
                    {"prefilled_tokens", totals.prefilled_tokens},
                    {"cached_tokens", totals.cached_tokens},
                    {"output_tokens", totals.output_tokens},
                    {"slots", flags.slots},
                    {"rows_in_flight", flags.rows_in_flight},
                    {"threads", flags.threads}}
                   .dump(2)
            << "\n";
}

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--dump", flags.dump, "--dump-prompts file of a run: its calls are sent")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--workflow", flags.workflow,
                 "Workflow file (ops dialect): which call waits for which");
  app.add_option("--levels", flags.levels,
                 "In place of --workflow: a,b/c means c waits for a and b");
  app.add_option("--model", flags.models, "NAME=FILE.gguf (repeatable); one server each")
      ->required();
  app.add_option("--server", flags.server, "Path of llama-server")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--server-argument", flags.server_arguments,
                 "One more argument of the server (repeatable)");
  app.add_option("--log", flags.log, "File for the server's output (llama-server.log)");
  app.add_option("--threads", flags.threads, "Threads of the server (default: one a core)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--slots", flags.slots, "The server's -np (16)")->check(CLI::Range(1, 256));
  app.add_option("--rows", flags.rows_in_flight, "Rows in flight (16)")->check(CLI::Range(1, 256));
  app.add_flag("!--no-cache-prompt", flags.cache_prompt,
               "Do not let slots reuse their last prompt");
}

}  // namespace
}  // namespace halo::bench

int main(int argc, char** argv) {
  CLI::App app(
      "Sends the calls of a run to llama-server, which it starts and ends: the same prompt ids and "
      "as many\n"
      "tokens as the run sampled, a number of rows in flight, each row's calls as soon as their "
      "inputs are\n"
      "there. What the dialect does not set is left at the server's defaults. Prints JSON.");
  halo::bench::Flags flags;
  halo::bench::AddFlags(app, flags);
  try {
    app.parse(argc, argv);
    if (flags.workflow.empty() == flags.levels.empty()) {
      throw CLI::ValidationError("--workflow or --levels: exactly one is needed");
    }
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    halo::bench::Run(flags);
  } catch (const std::invalid_argument& error) {
    std::cerr << "server_client: " << error.what() << "\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "server_client: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
