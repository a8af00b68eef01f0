// What is kept of a run while it goes on, and what earlier parts of it have left.
#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/utc_time.h"
#include "plan/node_signature.h"
#include "session/session_impl.h"

namespace halo {

std::string TodayUtc() {
  return UtcText(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now()),
                 "%Y-%m-%d");
}

/// Before rows are looked at: the date is fixed, and what the run is kept in is there.
void Session::Impl::OpenDurable() {
  if (options.date.empty()) options.date = TodayUtc();
  const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  durable = DurableRun::Open(options, now, durable_notes);
  asked = options;
}

/// Rows that can be had only once are kept with the run, and come from there when it goes on.
void Session::Impl::KeepRows(size_t input, RowOptions& rows) {
  const std::string kept = durable ? durable->KeptRows(input) : "";
  if (kept.empty()) {
    // A stream's rows are in memory until they are taken: without a run that is kept nobody needs
    // another copy.
    const bool is_copied = durable != nullptr || rows.stream == nullptr;
    if (is_copied) rows.spool_folder = durable ? durable->folder().path() : SpoolFolder();
    return;
  }
  rows.stream = nullptr;
  if (rows.spec != "-") {
    rows.spec = kept;
    return;
  }
  kept_input.emplace(open(kept.c_str(), O_RDONLY | O_CLOEXEC));
  if (kept_input->get() < 0)
    throw Error(ErrorCode::kIo, kept + ": cannot be read: " + std::strerror(errno));
  rows.standard_input_fd = kept_input->get();
  rows.spool_folder = SpoolFolder();
  durable_notes.push_back(
      "standard input is what had been read of it: rows that had not are not among them");
}

/// What the run is made of, before rules have changed its plan.
RunManifest Session::Impl::Manifest() {
  RunManifest manifest;
  if (!durable) {
    if (!options.cache_folder.empty() && !options.naive) FindContents({});
    return manifest;
  }
  std::vector<std::string> texts;
  const std::vector<FileFacts> known = durable->KnownFiles();
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Input& input = *inputs[i];
    RunManifest::Input& found = manifest.inputs.emplace_back();
    found.workflow = LookAt(options.inputs[i].workflow, {});
    found.text = input.workflow.source_text;
    texts.push_back(found.text);
    const std::string rows = input.rows->reread_spec();
    if (!rows.empty()) found.rows = LookAt(rows, known);
    const std::vector<OperatorIdentity> identities = IdentifyOperators(input.plan, input.column);
    for (const LogicalNode& node : input.plan.nodes) {
      const auto op = static_cast<size_t>(node.op);
      OperatorFacts& facts = found.operators.emplace_back();
      facts.id = input.plan.operator_of(node.op).id;
      facts.signature = identities[op].signature.ToHex();
      for (const OperatorIndex read : node.inputs)
        facts.reads.push_back(input.plan.operator_of(read).id);
    }
  }
  manifest.models = FindContents(known);
  const std::string plan = durable->PlanFile(texts);
  if (!plan.empty()) options.plan_file = plan;
  return manifest;
}

/// What is in the files of models and adapters. `known`: facts that need not be found again.
std::vector<FileFacts> Session::Impl::FindContents(const std::vector<FileFacts>& known) {
  std::vector<FileFacts> facts;
  for (auto& [path, model] : models) {
    facts.push_back(LookAt(path, known));
    model.content = SignatureBuilder().Add(facts.back().digest).Finish();
  }
  for (const auto& input : inputs) {
    for (size_t a = 0; a < input->adapters.size(); ++a) {
      const LogicalAdapter& wanted = input->plan.adapters[a];
      const ModelRequest& request = input->plan.models[static_cast<size_t>(wanted.model)];
      const std::vector<LlamaAdapter>& loaded = models.at(model_paths.at(request)).adapters;
      const auto adapter = std::find_if(loaded.begin(), loaded.end(), [&](const LlamaAdapter& l) {
        return l.name == input->adapters[a];
      });
      facts.push_back(LookAt(adapter->path, known));
      input->adapter_contents.push_back(
          SignatureBuilder().Add(facts.back().digest).Add(double{wanted.lora.scale}).Finish());
    }
  }
  return facts;
}

/// What earlier parts left is known then; nothing of it is changed.
void Session::Impl::PrepareDurable(RunManifest manifest) {
  news = std::exchange(durable_notes, {});
  if (!durable) return;
  manifest.created = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::error_code fault;
  manifest.working_folder = std::filesystem::current_path(fault).string();
  manifest.options = asked;
  if (!asked.plan_file.empty()) manifest.options.replan = false;  // in later parts neither
  for (std::string& note : durable->Prepare(std::move(manifest))) news.push_back(std::move(note));
}

/// Nothing is left that could keep the run from beginning.
void Session::Impl::BeginDurable() {
  if (!durable) return;
  durable->Begin(ExplainJson(physical));
  has_begun = true;
}

void Session::Impl::EndDurable(RunOutcome& outcome) {
  if (!durable) return;
  try {
    durable->Finish(outcome.status, outcome.summary_json);
  } catch (const Error& error) {
    // The rows are written; what is missing is that the run says so of itself.
    outcome.notices.push_back(error.what());
  }
}

/// Earlier parts of the run have left something of it. Otherwise this one would only make OUT.part
/// anew, with less in it.
void Session::Impl::RequireBudget(const ExecutorOptions& how) const {
  if (how.journal == nullptr) return;
  const auto require = [](int64_t most, int64_t spent, const char* of) {
    if (most < 0 || spent < most || spent == 0) return;
    throw Error(ErrorCode::kUsage,
                fmt::format("the budget of {} {} is spent: {} are. Give the run a larger one: "
                            "--budget {}={}",
                            most, of, spent, of, 2 * spent));
  };
  require(how.budget.calls, how.journal->earlier_calls(), "calls");
  require(how.budget.tokens, how.journal->earlier_tokens(), "tokens");
  const double spent = static_cast<double>(how.journal->earlier_cost()) * kCostUnit;
  const int64_t took_us = how.journal->earlier_us();
  if (how.budget.time_us >= 0 && took_us >= how.budget.time_us && took_us > 0) {
    const double took_s = static_cast<double>(took_us) * 1e-6;
    throw Error(ErrorCode::kUsage,
                fmt::format("the budget of {:g} s is spent: the run has taken {:.1f} s. Give it a "
                            "larger one: --budget seconds={:g}",
                            options.most_seconds, took_s, std::ceil(2 * took_s)));
  }
  if (how.budget.cost >= 0 && how.journal->earlier_cost() >= how.budget.cost && spent > 0.0) {
    throw Error(ErrorCode::kUsage,
                fmt::format("the budget of {:.6g} for tokens is spent: {:.6g} is. Give the run a "
                            "larger one: --budget cost={:.6g}",
                            options.most_cost, spent, 2 * spent));
  }
}

/// Twice what there was, as `--budget` takes it.
std::string Session::Impl::LargerBudget() const {
  std::vector<std::string> parts;
  if (options.most_calls >= 0)
    parts.push_back(fmt::format("calls={}", std::max<int64_t>(1, 2 * options.most_calls)));
  if (options.most_tokens >= 0)
    parts.push_back(fmt::format("tokens={}", std::max<int64_t>(1, 2 * options.most_tokens)));
  if (options.most_cost >= 0)
    parts.push_back(fmt::format("cost={:.6g}", std::max(1e-6, 2 * options.most_cost)));
  if (options.most_seconds >= 0)
    parts.push_back(fmt::format("seconds={}", std::max(1.0, 2 * options.most_seconds)));
  return fmt::format("{}", fmt::join(parts, ","));
}

}  // namespace halo
