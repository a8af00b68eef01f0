#include "session/planning.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/file_text.h"
#include "model/gguf_check.h"
#include "model/model_digest.h"
#include "model/part_file.h"
#include "session/fleet_setup.h"
#include "session/machine.h"
#include "session/profile_store.h"

namespace halo {
namespace {

/// Adds what calls of one query took to the pace of all of its kind.
void AddQuery(const QueryCost& cost, const OperatorRecord& query,
              std::map<SqlDialect, OperatorRecord>& queries) {
  OperatorRecord& pace = queries[cost.dialect];
  pace.profile = QueryRateName(cost.dialect);
  pace.instances += query.instances;
  pace.calls += query.calls;
  pace.latency_s += query.latency_s;
  pace.engine_s += query.latency_s;
  pace.profile_s += query.calls * DefaultQueryRate(cost.dialect).SecondsOf(cost);
}

/// What a chat template adds to an operator's first turn, in tokens.
int64_t ChatTokensOf(const Vocabulary& vocabulary, const ChatTemplate& chat) {
  const std::string word = "x";
  try {
    const std::vector<ChatMessage> turns = {{"system", {PromptSpan::Data(word)}},
                                            {"user", {PromptSpan::Data(word)}}};
    return static_cast<int64_t>(vocabulary.TokenizePrompt(chat.Render(turns, true)).size());
  } catch (const Failure&) {
    return 0;  // a template that refuses a system's turn adds little
  }
}

/// What the template says around messages, by rendering them with holes.
std::optional<ChatFrame> FrameOf(const ChatTemplate& chat, const std::vector<std::string>& roles) {
  std::vector<ChatMessage> messages;
  for (const std::string& role : roles)
    messages.push_back({role, {PromptSpan::Slot(static_cast<int32_t>(messages.size()))}});
  try {
    const ChatTemplate::Skeleton skeleton =
        chat.Compile(messages, true, static_cast<int32_t>(roles.size()));
    if (!skeleton.usable) return std::nullopt;
    ChatFrame frame{{""}, skeleton.trim_left, skeleton.trim_right};
    for (const PromptSpan& span : skeleton.spans) {
      if (span.kind != PromptSpan::Kind::kSlot) {
        frame.texts.back() += span.text;
        continue;
      }
      // A template that turns messages around, or says one twice, cannot be told by a frame.
      if (span.slot != static_cast<int32_t>(frame.texts.size()) - 1) return std::nullopt;
      frame.texts.emplace_back();
    }
    if (frame.texts.size() != roles.size() + 1) return std::nullopt;
    return frame;
  } catch (const Failure&) {
    return std::nullopt;  // it refuses these messages; so will a run
  }
}

/// Adds what one operator's calls took to the pace of its model.
void AddPace(const OperatorRecord& of_operator, OperatorRecord& of_model) {
  of_model.profile = of_operator.profile;
  of_model.instances += of_operator.instances;
  of_model.calls += of_operator.calls;
  of_model.engine_s += of_operator.engine_s;
  of_model.profile_s += of_operator.profile_s;
}

using TokenCount = std::function<int64_t(const std::string&)>;

/// Plans that are made anew ask for the same texts again.
TokenCount CountedOnce(TokenCount count) {
  constexpr size_t kMostTexts = size_t{1} << 18;
  struct Hash {
    size_t operator()(const Signature& text) const { return text.low; }
  };
  using Counts = std::unordered_map<Signature, int64_t, Hash>;
  return [count = std::move(count), counts = std::make_shared<Counts>()](const std::string& text) {
    if (counts->size() >= kMostTexts) counts->clear();
    const auto [found, is_new] = counts->try_emplace(SignatureBuilder().Add(text).Finish());
    if (is_new) found->second = count(text);
    return found->second;
  };
}

}  // namespace

std::string ProfileId(const ModelProfile& profile) {
  CostProfile alone;
  alone.models.push_back(profile);
  return SignatureBuilder().Add(ToJson(alone)).Finish().ToHex();
}

void DescribePrompts(const std::shared_ptr<const Vocabulary>& vocabulary,
                     const std::shared_ptr<const ChatTemplate>& chat, ModelFacts& facts) {
  if (vocabulary != nullptr) {
    facts.count_tokens = CountedOnce([vocabulary](const std::string& text) {
      return static_cast<int64_t>(vocabulary->TokenizePart({PromptSpan::Data(text)}).size());
    });
    facts.count_written_tokens = CountedOnce([vocabulary](const std::string& text) {
      return static_cast<int64_t>(vocabulary->TokenizePart({PromptSpan::Template(text)}).size());
    });
  }
  if (chat == nullptr) return;
  if (vocabulary != nullptr) facts.chat_tokens = ChatTokensOf(*vocabulary, *chat);
  // Operators have few shapes of conversations between them.
  using Frames = std::map<std::vector<std::string>, std::optional<ChatFrame>>;
  facts.chat_frame = [chat,
                      known = std::make_shared<Frames>()](const std::vector<std::string>& roles) {
    const auto [found, is_new] = known->try_emplace(roles);
    if (is_new) found->second = FrameOf(*chat, roles);
    return found->second;
  };
}

void AddToHistory(const std::vector<OptimizerSource>& sources, const RunReport& report,
                  const PhysicalPlan* as_run, OperatorHistory& history) {
  size_t position = 0;
  std::map<SqlDialect, OperatorRecord> queries;
  std::map<std::string, OperatorRecord> models;  // by digest
  for (const OptimizerSource& source : sources) {
    const std::vector<OperatorIdentity> identities =
        IdentifyOperators(*source.plan, source.prompt_column);
    for (const LogicalNode& node : source.plan->nodes) {
      const size_t at = position++;
      const OperatorCounts& counts = report.operators[at];
      if (counts.calls == 0) continue;
      OperatorRecord record;
      // Of instances whose calls were made before nothing is known but that they were instances.
      const auto made = static_cast<double>(counts.executed);
      const auto known = static_cast<double>(counts.cached);
      record.instances =
          static_cast<double>(counts.logical) * (known > 0.0 ? made / (made + known) : 1.0);
      record.calls = static_cast<double>(counts.calls);
      record.prompt_tokens = static_cast<double>(counts.prompt_tokens);
      record.reused_tokens = static_cast<double>(counts.reused_tokens);
      record.output_tokens = static_cast<double>(counts.output_tokens);
      record.output_tokens_squared = counts.output_tokens_squared;
      std::string digest;
      if (node.model == kNoModel) {
        record.latency_s = static_cast<double>(counts.busy_us) * 1e-6;
        const auto index = static_cast<size_t>(node.op);
        if (index < source.query_costs.size() && source.query_costs[index])
          AddQuery(*source.query_costs[index], record, queries);
      } else {
        const ModelFacts& model = source.models[static_cast<size_t>(node.model)];
        digest = model.digest;
        const bool told = as_run != nullptr && as_run->operators[at].estimate.calls.value ==
                                                   static_cast<double>(counts.calls);
        if (told) {
          record.engine_s = as_run->operators[at].actual->busy_s;
          record.profile_s = as_run->operators[at].estimate.busy_s.value;
          record.profile = model.profile_id;
          AddPace(record, models[digest]);
        }
      }
      history.Add(identities[static_cast<size_t>(node.op)].signature, digest, record);
    }
  }
  for (const auto& [dialect, record] : queries)
    history.Add(QueryPaceSignature(dialect), "", record);
  for (const auto& [digest, record] : models) history.Add(ModelPaceSignature(), digest, record);
}

Planning::Planning(const RunOptions& options, Clock& clock) : options_(options), clock_(clock) {
  const std::string machine = MachineFingerprint(ThreadsOfWorker(options));
  std::string file = options.profile_file;
  if (file.ends_with('/')) file += ProfileFileName(machine);
  if (!file.empty() && std::filesystem::exists(file)) {
    LoadedProfile loaded = LoadProfileFor(file, machine);
    if (loaded.profile) profile_ = std::move(*loaded.profile);
    if (!loaded.why_not.empty()) notes_.push_back(loaded.why_not);
  }
  if (options.history_file.empty() || !std::filesystem::exists(options.history_file)) return;
  try {
    history_ = OperatorHistory::Read(ReadFileText(options.history_file).value_or(""),
                                     options.history_file);
  } catch (const Error& error) {
    notes_.emplace_back(error.what());
  }
}

ModelFacts Planning::FactsOf(const std::string& name, const ModelToPlan& model) {
  ModelFacts facts;
  facts.name = name;
  if (options_.sequences > 0) facts.sequences = options_.sequences;
  if (model.resolved == nullptr) {
    facts.profile = DefaultProfile(name, 0, 0);
    return facts;
  }
  facts.digest = ModelFileDigest(model.resolved->path);
  const ModelProfile* measured = profile_.Find(facts.digest);
  facts.profile =
      measured != nullptr
          ? *measured
          : DefaultProfile(name, static_cast<int64_t>(model.resolved->summary.file_bytes),
                           KvTokenBytes(model.resolved->summary));
  facts.profile_id = ProfileId(facts.profile);
  DescribePrompts(model.vocabulary, model.chat, facts);
  return facts;
}

PhysicalPlan Planning::Plan(const std::vector<InputToPlan>& inputs, int64_t rows_side_by_side) {
  sources_.clear();
  for (const InputToPlan& input : inputs) {
    OptimizerSource source;
    source.plan = input.plan;
    source.prompt_column = input.prompt_column;
    source.rows = input.rows;
    source.latency_scale = options_.latency_scale;
    source.query_costs = input.query_costs;
    for (size_t i = 0; i < input.models.size(); ++i)
      source.models.push_back(FactsOf(input.plan->models[i].name, input.models[i]));
    sources_.push_back(std::move(source));
  }
  OptimizerOptions how;
  how.rules_off = options_.rules_off;
  how.planner = options_.planner;
  how.place = options_.place;
  how.workers = options_.workers;
  const int64_t machine = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  how.worker_memory_bytes = options_.worker_memory_bytes > 0
                                ? options_.worker_memory_bytes
                                : machine / std::max(1, options_.workers);
  for (const OptimizerSource& source : sources_) {
    for (const ModelFacts& model : source.models)
      CheckFits(model.name, model.profile.weights_bytes, model.profile.kv_token_bytes,
                how.worker_memory_bytes);
  }
  how.rows_side_by_side = rows_side_by_side;
  how.now_s = [this] { return static_cast<double>(clock_.NowUs()) * 1e-6; };
  how_ = how;
  PhysicalPlan plan = Optimize(sources_, options_.use_history ? &history_ : nullptr, how);
  plan.notes.insert(plan.notes.begin(), notes_.begin(), notes_.end());
  return plan;
}

std::unique_ptr<Replanner> Planning::MakeReplanner(const PhysicalPlan& plan) const {
  return std::make_unique<Replanner>(sources_, plan, options_.use_history ? &history_ : nullptr,
                                     how_, clock_);
}

void Planning::AddActuals(const RunReport& report, int64_t engine_busy_us, PhysicalPlan& plan) {
  HALO_CHECK(report.operators.size() == plan.operators.size(), "a run is of its plan");
  int64_t passes_us = 0;
  for (const OperatorCounts& counts : report.operators) passes_us += counts.engine_us;
  const double of_passes =
      passes_us > 0 ? static_cast<double>(engine_busy_us) / static_cast<double>(passes_us) : 1.0;
  for (size_t i = 0; i < plan.operators.size(); ++i) {
    const OperatorCounts& counts = report.operators[i];
    OperatorActual actual;
    actual.instances = counts.logical;
    actual.calls = counts.calls;
    const double calls = static_cast<double>(std::max<int64_t>(1, counts.calls));
    actual.prompt_tokens = static_cast<double>(counts.prompt_tokens) / calls;
    actual.reused_tokens = static_cast<double>(counts.reused_tokens) / calls;
    actual.output_tokens = static_cast<double>(counts.output_tokens) / calls;
    const bool is_tool = counts.kind != OperatorKind::kInference;
    actual.busy_s = is_tool ? static_cast<double>(counts.busy_us) * 1e-6
                            : static_cast<double>(counts.engine_us) * 1e-6 * of_passes;
    plan.operators[i].actual = actual;
  }
}

PhysicalPlan Planning::AsRun(const RunReport& report, const PhysicalPlan& plan) const {
  OperatorHistory of_run;
  AddToHistory(sources_, report, nullptr, of_run);
  PhysicalPlan as_run = plan;
  CardinalityEstimator(sources_, &of_run).EstimateAll(as_run);
  return as_run;
}

std::optional<double> Planning::LowerBound(const RunReport& report,
                                           const PhysicalPlan& plan) const {
  for (const OptimizerSource& source : sources_) {
    for (const ModelFacts& model : source.models) {
      if (!model.profile.measured) return std::nullopt;
    }
  }
  double busy_s = 0.0;
  for (const PlannedOperator& planned : AsRun(report, plan).operators) {
    const LogicalNode& node = sources_[planned.source].plan->at(planned.op);
    if (node.model != kNoModel) busy_s += planned.estimate.busy_s.value;
  }
  return busy_s;
}

std::string Planning::Remember(const RunReport& report, const PhysicalPlan& plan) const {
  if (options_.history_file.empty() || report.end != RunEnd::kFinished) return "";
  OperatorHistory history = history_;
  // One call at a time takes several times what a batch takes: that is no measure of batches.
  const std::optional<PhysicalPlan> as_run =
      options_.naive ? std::nullopt : std::optional(AsRun(report, plan));
  AddToHistory(sources_, report, as_run ? &*as_run : nullptr, history);
  std::error_code fault;
  std::filesystem::create_directories(std::filesystem::path(options_.history_file).parent_path(),
                                      fault);
  try {
    const std::string text = history.ToJson();
    PartFile file(options_.history_file);
    file.WriteHeader(text, text.size());
    file.Keep();
  } catch (const Error& error) {
    return std::string("what this run took is not remembered: ") + error.what();
  }
  return "";
}

}  // namespace halo
