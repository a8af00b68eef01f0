// What a run shows of itself besides its rows: the trace and the report.
#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "session/report_page.h"
#include "session/session_impl.h"

namespace halo {
namespace {

/// How a run ended, for a person.
std::string StatusWords(const RunOutcome& outcome) {
  switch (outcome.status) {
    case RunStatus::kAllOk:
      return "All rows are ok.";
    case RunStatus::kRowsFailed:
      return "Finished; some rows failed.";
    case RunStatus::kStopped:
      return "Stopped: " + outcome.stop_reason + ".";
    case RunStatus::kInterrupted:
      return "Stopped by a signal.";
    case RunStatus::kFailed:
    case RunStatus::kUsage:
      return "The run failed.";
  }
  return "";
}

}  // namespace

/// Null where none was asked for. `planned_us`: when models began to be loaded.
std::unique_ptr<RunTrace> Session::Impl::OpenTrace(int64_t start_us, int64_t planned_us) {
  if (options.trace.empty()) return nullptr;
  auto trace = std::make_unique<RunTrace>(options.trace, start_us, clock);
  for (const auto& [path, model] : models) {
    for (int32_t w = 0; w < fleet->workers(); ++w) {
      trace->AddEngine(model.resolved.request.name, fleet->engine(model.in_fleet), w,
                       [this, w, m = model.in_fleet] { return fleet->replica(w, m); });
    }
  }
  trace->AddPhase("plan", start_us, planned_us);
  trace->AddPhase("make engines", planned_us, clock.NowUs());
  return trace;
}

/// Null where none was asked for and no run is kept.
std::unique_ptr<ReportData> Session::Impl::OpenReport(int64_t start_us) {
  if (options.report.empty() && !durable) return nullptr;
  const auto text_of = [this](const CallRecord& call) {
    if (call.prompt.tokens.empty()) return call.prompt.text;
    const std::string& path = model_paths.at(call.op.model);
    return models.at(path).vocabulary->Detokenize(call.prompt.tokens);
  };
  auto data = std::make_unique<ReportData>(start_us, options.report_samples, text_of);
  for (const auto& [path, model] : models) {
    for (int32_t w = 0; w < fleet->workers(); ++w) {
      data->AddEngine(fmt::format("worker {}: {}", w, model.resolved.request.name),
                      fleet->engine(model.in_fleet), w);
    }
  }
  return data;
}

/// In the folder of the run, and where it was asked for.
void Session::Impl::WriteReport(const ReportData& data, RunOutcome& outcome) const {
  int64_t prefill_us = 0, prefill_tokens = 0;
  for (const auto& [path, model] : models) {
    const EngineStatistics statistics = fleet->engine(model.in_fleet).Statistics();
    prefill_us += statistics.prefill_us;
    prefill_tokens += statistics.prefill_tokens;
  }
  const auto summary = nlohmann::ordered_json::parse(outcome.summary_json);
  ReportInput input{physical, data, summary, outcome.failures, StatusWords(outcome), 0.0};
  if (prefill_tokens > 0)
    input.prefill_token_s =
        static_cast<double>(prefill_us) * 1e-6 / static_cast<double>(prefill_tokens);
  const std::string page = ReportPage(input);
  if (durable) {
    try {
      WriteWhole(durable->folder().File("report.html"), page);
    } catch (const Error& error) {
      outcome.notices.emplace_back(error.what());  // nobody has asked for it
    }
  }
  if (options.report.empty()) return;
  std::ofstream file(options.report, std::ios::binary);
  file << page;
  if (!file.flush())
    throw Error(ErrorCode::kIo, options.report + ": could not be written (--report)");
}

/// The run's folder leads to the trace of its last part.
void Session::Impl::LinkTrace(RunReport& report) const {
  if (!durable || options.trace.empty()) return;
  std::error_code fault;
  const std::string link = durable->folder().File("trace.json");
  std::filesystem::remove(link, fault);
  std::filesystem::create_symlink(std::filesystem::absolute(options.trace), link, fault);
  if (fault) report.notices.push_back(link + ": cannot be made: " + fault.message());
}

}  // namespace halo
