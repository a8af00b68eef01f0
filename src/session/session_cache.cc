// What earlier runs have left: the cache of answers, opened, explained and closed. What tokens
// cost.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "session/session_impl.h"

namespace halo {
namespace {

/// Why a question has no answer: what is kept of the nearest one.
struct Miss {
  CacheQuestion question;
  int64_t row_index = 0;  // of one that asks it
  std::string row_id;     // the same, as JSON
  int64_t calls = 0;
  int32_t alike = -1;  // parts that the nearest one has in common; -1: nothing is near
  CacheQuestion nearest;
};

/// Watches a run that makes no call.
class CacheInspector final : public RunObserver {
 public:
  void OnCall(const CallRecord& call) override {
    Add(call.source, call.op.id, call.row, call.completion.failure, call.question);
  }
  void OnToolCall(const ToolCallRecord& call) override {
    Add(call.source, call.op.id, call.row, call.completion.failure, call.question);
  }

  struct OfOperator {
    int64_t known = 0;
    std::map<Signature, Miss> misses;
    int64_t never = 0;  // calls whose outcomes are not kept at all
  };
  /// By source and operator.
  std::map<std::pair<size_t, std::string>, OfOperator> operators;

 private:
  void Add(size_t source, const std::string& id, const Row& row,
           const std::optional<Failure>& failure, const CacheQuestion* question) {
    OfOperator& op = operators[{source, id}];
    if (!failure) {
      ++op.known;
    } else if (failure->code == "not_known" && question != nullptr) {
      Miss& miss = op.misses[question->key];
      if (miss.calls++ > 0) return;
      miss.question = *question;
      miss.row_index = row.index;
      miss.row_id = row.id.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    } else if (failure->code == "not_known") {
      ++op.never;
    }
  }
};

/// Parts of two questions that are equal; -1: they have neither prompt nor asker in common, and
/// are not near.
int32_t AlikeParts(const CacheQuestion& a, const CacheQuestion& b) {
  if (a.is_tool != b.is_tool) return -1;
  const bool same_prompt = a.at(QuestionPart::kPrompt) == b.at(QuestionPart::kPrompt);
  if (!same_prompt && a.asker != b.asker) return -1;
  int32_t alike = same_prompt ? 1 : 0;  // what is asked says more than how
  for (size_t i = 0; i < kQuestionParts; ++i) alike += a.parts[i] == b.parts[i] ? 1 : 0;
  return alike;
}

/// One look at all that is kept finds the nearest of every miss.
void FindNearest(ResultCache& cache, CacheInspector& inspector) {
  std::unordered_multimap<uint32_t, Miss*> by_prompt, by_asker;
  for (auto& [id, op] : inspector.operators) {
    for (auto& [key, miss] : op.misses) {
      by_prompt.emplace(miss.question.at(QuestionPart::kPrompt), &miss);
      by_asker.emplace(miss.question.asker, &miss);
    }
  }
  const auto offer = [](const auto& index, uint32_t part, const CacheQuestion& kept) {
    const auto [first, last] = index.equal_range(part);
    for (auto it = first; it != last; ++it) {
      Miss& miss = *it->second;
      const int32_t alike = AlikeParts(miss.question, kept);
      if (alike <= miss.alike) continue;
      miss.alike = alike;
      miss.nearest = kept;
    }
  };
  cache.ForEach([&](const CacheQuestion& kept) {
    offer(by_prompt, kept.at(QuestionPart::kPrompt), kept);
    offer(by_asker, kept.asker, kept);
  });
}

std::string Why(const Miss& miss) {
  if (miss.alike < 0) return "nothing like it is kept";
  std::string parts;
  for (size_t i = 0; i < kQuestionParts; ++i) {
    if (miss.question.parts[i] == miss.nearest.parts[i]) continue;
    const auto part = static_cast<QuestionPart>(i);
    const bool is_content = miss.question.is_tool && part == QuestionPart::kModel;
    parts += (parts.empty() ? "" : ", ");
    parts += is_content ? "database, server or program" : QuestionPartName(part);
  }
  return parts.empty() ? "what is kept is too old" : "differs in: " + parts;
}

/// "    12 calls: differs in: prompt; for example row 3".
std::string MissLines(const CacheInspector::OfOperator& op) {
  struct Group {
    int64_t calls = 0;
    const Miss* first = nullptr;  // by its row
  };
  std::map<std::string, Group> groups;
  for (const auto& [key, miss] : op.misses) {
    Group& group = groups[Why(miss)];
    ++group.calls;
    if (group.first == nullptr || miss.row_index < group.first->row_index) group.first = &miss;
  }
  std::string text;
  for (const auto& [why, group] : groups)
    text += fmt::format("    {} not kept: {}; for example row {}\n", group.calls, why,
                        group.first->row_id);
  return text;
}

}  // namespace

/// Where there is none to be had the run goes on without.
void Session::Impl::OpenCache() {
  if (options.cache_folder.empty() || options.naive) return;
  ResultCache::Options how;
  how.folder = options.cache_folder;
  how.most_bytes = options.cache_bytes;
  try {
    cache = std::make_unique<ResultCache>(std::move(how));
    if (!cache->notice().empty()) durable_notes.push_back(cache->notice());
  } catch (const Error& error) {
    durable_notes.push_back(std::string("answers are not kept for later runs: ") + error.what());
  }
}

/// What the run has left is written.
void Session::Impl::CloseCache(RunReport& report) {
  if (cache == nullptr) return;
  cache->Flush();
  const std::string failure = cache->failure();
  if (!failure.empty()) report.notices.push_back(failure);
  if (cache->left_out() > 0)
    report.notices.push_back(
        fmt::format("{} answers are not kept for later runs: they came too fast, or are too large",
                    cache->left_out()));
  cache.reset();
}

TokenPrice Session::Impl::PriceOf(const std::string& model) const {
  ModelPrice price;
  const auto listed = ReadModelPrices(options.models_file);
  if (const auto found = listed.find(model); found != listed.end())
    price = {found->second.prompt, found->second.output};
  if (const auto given = options.prices.find(model); given != options.prices.end())
    price = given->second;
  // A million tokens cost so many units of the currency, one token so many billionths of it.
  constexpr double kBillionthsOfMillionth = 1e3;
  return {std::llround(price.prompt * kBillionthsOfMillionth),
          std::llround(price.output * kBillionthsOfMillionth)};
}

/// Throws Error(kUsage) for a budget that nothing could ever be taken from.
void Session::Impl::CheckPrices() const {
  const bool has_price =
      std::any_of(model_paths.begin(), model_paths.end(), [&](const auto& model) {
        const TokenPrice price = PriceOf(model.first.name);
        return price.prompt > 0 || price.output > 0;
      });
  if (options.most_cost < 0 || has_price) return;
  throw Error(ErrorCode::kUsage,
              "--budget cost: no model of the run has a price: give one in the --models file "
              "({file: FILE.gguf, price: {prompt: N, output: N}}) or in halo.yaml (prices)");
}

std::string Session::ExplainCache() {
  Impl& impl = *impl_;
  if (impl.options.cache_folder.empty())
    throw Error(ErrorCode::kUsage, "there is no cache of answers: it is switched off");
  CheckWorkers(impl.options);
  impl.options.discard_results = true;
  impl.options.run_folder = impl.options.runs_folder = "";
  impl.LoadWorkflows();
  impl.OpenDurable();
  impl.OpenInputs();
  impl.Resolve();
  impl.NameOutputs();
  impl.tools = OpenTools(impl.Workflows(), impl.options, impl.SpoolFolder(), impl.clock);
  impl.costs = impl.tools.costs;
  impl.LoadVocabularies();
  impl.Manifest();
  impl.PlanBatch();
  impl.LoadModels();
  impl.OpenCache();
  if (impl.cache == nullptr) throw Error(ErrorCode::kIo, impl.durable_notes.back());
  impl.replanner = impl.planning->MakeReplanner(impl.physical);
  ExecutorOptions how = impl.HowToExecute();
  impl.OpenOutputs();
  how.only_known = true;
  how.stop_when_all_fail = how.stop_on_error = false;
  how.max_failures = how.max_failures_share = -1;
  how.budget = {};
  CacheInspector inspector;
  const StopFlag never{0};
  const RunReport report = Executor(impl.Sources(), how, impl.clock, &inspector).Run(never);
  FindNearest(*impl.cache, inspector);

  std::string text;
  for (const OperatorCounts& counts : report.operators) {
    const auto& op = inspector.operators[{counts.source, counts.id}];
    const std::string where =
        impl.inputs.size() > 1 ? impl.inputs[counts.source]->workflow.name + ": " : "";
    text += fmt::format("{}{}: {} of {} calls are kept\n", where, counts.id, op.known,
                        counts.logical - counts.skipped);
    text += MissLines(op);
    if (op.never > 0) text += fmt::format("    {} are of a kind that is not kept\n", op.never);
    if (counts.unfinished > 0)
      text += fmt::format("    {} depend on calls that are not kept\n", counts.unfinished);
  }
  return text;
}

}  // namespace halo
