#include "engine/llama/calibration.h"

#include <llama.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/error.h"
#include "base/random.h"
#include "engine/llama/calibration_points.h"
#include "engine/llama/exactness.h"
#include "engine/llama/grammar_cache.h"
#include "engine/llama/kv_room.h"
#include "engine/llama/llama_engine.h"
#include "engine/llama/loaded_model.h"
#include "engine/llama/step_sampler.h"
#include "model/output_schema.h"

namespace halo {
namespace {

constexpr int32_t kMostRounds = 9;
// Of a reading. The first step of other sequences builds its graph anew, and so does each at which
// an answer ends or begins: one of five, about as often as in a batch.
constexpr int32_t kDecodeSteps = 5;
constexpr double kQuietShare = 0.9;
constexpr int32_t kMostTries = 4;  // of a disturbed reading, at once
constexpr double kCheapSeconds = 0.25;
constexpr size_t kBlobsHeld = 4;
/// What answers are often kept to.
constexpr const char* kSchema = R"({"type": "object", "properties": {
    "mood": {"enum": ["angry", "neutral", "pleased"]},
    "urgency": {"type": "integer", "minimum": 1, "maximum": 5},
    "summary": {"type": "string", "maxLength": 120}},
    "required": ["mood", "urgency", "summary"]})";

double ProcessCpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

/// One look at the clock, and whether this process had the cores meanwhile.
struct Reading {
  double seconds = 0.0;
  bool quiet = true;
};

/// The median of the quiet readings; without any the least, since what disturbs only adds.
double TypicalOf(const std::vector<Reading>& readings) {
  std::vector<double> seconds;
  double least_s = std::numeric_limits<double>::infinity();
  for (const Reading& reading : readings) {
    if (reading.quiet) seconds.push_back(reading.seconds);
    least_s = std::min(least_s, reading.seconds);
  }
  if (seconds.empty()) return readings.empty() ? 0.0 : least_s;
  const size_t middle = seconds.size() / 2;
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(middle),
                   seconds.end());
  if (seconds.size() % 2 == 1) return seconds[middle];
  const double below =
      *std::max_element(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(middle));
  return (below + seconds[middle]) / 2.0;
}

struct Subject {
  CalibrationPoint point;
  std::vector<Reading> readings;
};

/// A room, and its first sequence's KV to begin each round with.
struct Place {
  std::unique_ptr<KvRoom> room;
  std::shared_ptr<const KvBlob> filled;  // shared with the blobs that are held
  std::vector<Subject> subjects;
};

class Calibrator {
 public:
  Calibrator(const CalibrationOptions& options, const Clock& clock);
  Calibration Run();

 private:
  using Batch = std::vector<KvRoom::BatchToken>;

  double Now() const { return static_cast<double>(clock_.NowUs()) * 1e-6; }
  template <typename Work>
  Reading Time(int32_t threads, const Work& work);
  void Say(const std::string& text) const {
    if (options_.on_progress) options_.on_progress(text);
  }
  TokenId RandomToken();
  KvRoom::Shape ShapeOf(const CalibrationRoom& room) const;
  Batch PrefillBatch(const CalibrationPoint& point);
  void Compute(KvRoom& room, const Batch& batch);

  void LoadTwice();
  void WarmUp();
  void Round();
  void MeasureAtContexts(Place& place);
  void MeasureMoves(KvRoom& room, int32_t tokens);
  void Measure(Place& place, int32_t context);
  void MeasurePrefill(KvRoom& room, Subject& subject);
  void MeasureDecode(KvRoom& room, Subject& subject);
  void SampleAll(KvRoom& room, Batch& batch, bool greedy);
  void MeasureGrammar(KvRoom& room);
  Calibration Results() const;

  const CalibrationOptions& options_;
  const Clock& clock_;
  double start_s_;
  RandomStream random_{1};
  bool exact_ = false;
  LlamaModelPointer model_;
  CalibrationPlan plan_;
  Place wide_, long_;
  StepSampler sampler_;
  double load_s_ = 0.0, room_byte_s_ = 0.0, grammar_token_s_ = 0.0;
  double token_s_ = 0.0;  // of a prefill, from the warm-up
  int32_t rounds_ = 0;
  int64_t readings_ = 0, disturbed_ = 0;
  std::vector<Reading> greedy_, drawn_;
  std::vector<int32_t> move_tokens_;                              // [lengths]
  std::vector<std::vector<Reading>> copies_, spills_, restores_;  // [lengths]
  // Memory that is freed comes back touched, and what the engine keeps is fresh.
  std::deque<std::shared_ptr<const KvBlob>> held_;  // shared with nobody for long
};

Calibrator::Calibrator(const CalibrationOptions& options, const Clock& clock)
    : options_(options), clock_(clock), start_s_(Now()), sampler_(options.threads) {
  exact_ = WhyNotExact(options_.model_path, KvLayout::kAuto, /*only_if_free=*/true).empty();
  LoadTwice();
}

template <typename Work>
Reading Calibrator::Time(int32_t threads, const Work& work) {
  const double cpu_before_s = ProcessCpuSeconds();
  const double before_s = Now();
  work();
  Reading reading;
  reading.seconds = Now() - before_s;
  const double had_s = ProcessCpuSeconds() - cpu_before_s;
  reading.quiet = had_s >= kQuietShare * reading.seconds * threads;
  ++readings_;
  if (!reading.quiet) ++disturbed_;
  return reading;
}

TokenId Calibrator::RandomToken() {
  const Vocabulary& vocabulary = *options_.vocabulary;
  TokenId token = 0;
  for (int32_t tries = 0; tries < 100; ++tries) {
    token = static_cast<TokenId>(random_.Below(static_cast<uint64_t>(vocabulary.size())));
    if (!vocabulary.IsSteering(token) && !vocabulary.IsEndOfGeneration(token)) break;
  }
  return token;
}

KvRoom::Shape Calibrator::ShapeOf(const CalibrationRoom& room) const {
  KvRoom::Shape shape;
  shape.layout = KvLayout::kSplit;
  shape.sequences = room.sequences;
  shape.tokens_per_sequence = room.cells;
  shape.tokens = int64_t{room.sequences} * room.cells;
  shape.threads = options_.threads;
  shape.batch_tokens = LlamaEngine::kBatchTokens;
  shape.exact = exact_;
  return shape;
}

Calibrator::Batch Calibrator::PrefillBatch(const CalibrationPoint& point) {
  Batch batch;
  batch.reserve(static_cast<size_t>(point.sequences) * static_cast<size_t>(point.tokens));
  for (int32_t sequence = 0; sequence < point.sequences; ++sequence) {
    const int32_t tokens = point.TokensOf(sequence);
    for (int32_t i = 0; i < tokens; ++i)
      batch.push_back({RandomToken(), point.context + i, sequence, i + 1 == tokens});
  }
  return batch;
}

void Calibrator::Compute(KvRoom& room, const Batch& batch) {
  bool restored = false;
  if (room.Decode(batch, restored)) return;
  throw Error(ErrorCode::kModel,
              options_.model_path + ": llama.cpp could not compute a batch: " +
                  (LastLlamaError().empty() ? "no reason given" : LastLlamaError()));
}

/// The first time brings the file into the page cache.
void Calibrator::LoadTwice() {
  Say("loading");
  for (int32_t i = 0; i < 2; ++i) {
    model_.reset();
    const double before_s = Now();
    model_ = LoadLlamaModel(options_.model_path, exact_);
    KvRoom room(model_.get(), ShapeOf({1, 256}));
    Compute(room, PrefillBatch({1, 1, 0}));
    load_s_ = Now() - before_s;
  }
}

void Calibrator::WarmUp() {
  Say("warming up");
  const int64_t memory =
      static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<int64_t>(sysconf(_SC_PAGE_SIZE));
  const int64_t token_bytes = std::max<int64_t>(1, KvBytesPerToken(model_.get()));
  const int64_t kv_bytes = options_.kv_bytes > 0 ? options_.kv_bytes : memory / 8;
  const CalibrationLimits limits{llama_model_n_ctx_train(model_.get()), kv_bytes / token_bytes,
                                 LlamaEngine::kDefaultSequences, LlamaEngine::kBatchTokens};
  plan_ = PlanCalibration(limits);
  if (plan_.wide.cells < kLeastCalibrationCells) {
    throw Error(ErrorCode::kConfig, options_.model_name +
                                        ": no room to measure in: the model's context or the "
                                        "memory for KV is below " +
                                        std::to_string(kLeastCalibrationCells) + " tokens");
  }
  const double before_s = Now();
  wide_.room = std::make_unique<KvRoom>(model_.get(), ShapeOf(plan_.wide));
  room_byte_s_ = (Now() - before_s) / static_cast<double>(wide_.room->shape().tokens * token_bytes);
  long_.room = std::make_unique<KvRoom>(model_.get(), ShapeOf(plan_.deep));
  for (Place* place : {&long_, &wide_}) {
    const CalibrationPoint fill{1, plan_.contexts.front(), 0};
    Compute(*place->room, PrefillBatch(fill));
    place->room->Clear(0);
    const double fill_before_s = Now();
    Compute(*place->room, PrefillBatch(fill));
    token_s_ = (Now() - fill_before_s) / fill.tokens;
    place->filled = place->room->Export(0, fill.tokens);
    HALO_CHECK(place->filled != nullptr, "KV of a sequence can be copied");
  }
  // Rounds of more than a third of the budget would be too few for medians.
  plan_.Thin(options_.budget_s / 3.0 / token_s_);
  for (const CalibrationPoint& point : plan_.points)
    (point.sequences > plan_.deep.sequences || point.is_decode ? wide_ : long_)
        .subjects.push_back({point, {}});
  move_tokens_ = plan_.contexts;
  copies_.resize(move_tokens_.size());
  spills_.resize(move_tokens_.size());
  restores_.resize(move_tokens_.size());
}

void Calibrator::Round() {
  for (Place* place : {&wide_, &long_}) {
    std::vector<Subject>& subjects = place->subjects;
    for (size_t i = subjects.size(); i > 1; --i)
      std::swap(subjects[i - 1], subjects[random_.Below(i)]);
    MeasureAtContexts(*place);
  }
  ++rounds_;
}

void Calibrator::MeasureAtContexts(Place& place) {
  KvRoom& room = *place.room;
  const int32_t sequences = room.shape().sequences;
  bool worked = room.Import(*place.filled, 0, place.filled->tokens);
  for (int32_t to = 1; to < sequences; ++to)
    worked = worked && room.CopyPrefix(0, to, place.filled->tokens);
  HALO_CHECK(worked, "KV that was taken from a room fits it");
  for (const int32_t context : plan_.contexts) {  // descending
    for (int32_t sequence = 0; sequence < sequences; ++sequence) room.Cut(sequence, context);
    if (&place == &wide_) MeasureMoves(room, context);
    Measure(place, context);
  }
  for (int32_t sequence = 0; sequence < sequences; ++sequence) room.Clear(sequence);
  Measure(place, 0);
}

/// Sequences hold `tokens` tokens each, and do afterwards.
void Calibrator::MeasureMoves(KvRoom& room, int32_t tokens) {
  const auto length = static_cast<size_t>(
      std::find(move_tokens_.begin(), move_tokens_.end(), tokens) - move_tokens_.begin());
  const int32_t last = room.shape().sequences - 1;
  std::shared_ptr<const KvBlob> blob;
  bool worked = true;
  spills_[length].push_back(Time(1, [&] { blob = room.Export(last, tokens); }));
  restores_[length].push_back(
      Time(1, [&] { worked = blob != nullptr && room.Import(*blob, last, tokens); }));
  HALO_CHECK(worked, "KV goes to host memory and back");
  held_.push_back(std::move(blob));
  if (held_.size() > kBlobsHeld) held_.pop_front();
  if (last == 0) return;
  copies_[length].push_back(Time(1, [&] { worked = room.CopyPrefix(0, last, tokens); }));
  HALO_CHECK(worked, "KV goes from one sequence to another");
}

void Calibrator::Measure(Place& place, int32_t context) {
  for (Subject& subject : place.subjects) {
    if (subject.point.context != context) continue;
    for (int32_t tries = 0; tries < kMostTries; ++tries) {
      if (subject.point.is_decode) {
        MeasureDecode(*place.room, subject);
      } else {
        MeasurePrefill(*place.room, subject);
      }
      for (int32_t sequence = 0; sequence < subject.point.sequences; ++sequence)
        place.room->Cut(sequence, context);
      const Reading& last = subject.readings.back();
      const bool is_late = Now() - start_s_ > options_.budget_s / 2.0;
      if (last.quiet || last.seconds > kCheapSeconds || is_late) break;
    }
  }
}

void Calibrator::MeasurePrefill(KvRoom& room, Subject& subject) {
  const Batch batch = PrefillBatch(subject.point);
  subject.readings.push_back(Time(options_.threads, [&] { Compute(room, batch); }));
}

void Calibrator::MeasureDecode(KvRoom& room, Subject& subject) {
  Batch batch = PrefillBatch(subject.point);
  Reading mean{0.0, true};
  for (int32_t step = 0; step < kDecodeSteps; ++step) {
    const Reading reading = Time(options_.threads, [&] { Compute(room, batch); });
    mean.seconds += reading.seconds / kDecodeSteps;
    mean.quiet = mean.quiet && reading.quiet;
    SampleAll(room, batch, step % 2 == 0);
  }
  subject.readings.push_back(mean);
}

/// Samples from every row of the last step, as the engine does before the next one, and puts the
/// tokens into `batch`.
void Calibrator::SampleAll(KvRoom& room, Batch& batch, bool greedy) {
  SamplingParameters parameters;
  parameters.temperature = greedy ? 0.0F : 0.7F;
  parameters.top_p = greedy ? 1.0F : 0.9F;
  const auto vocabulary = static_cast<size_t>(options_.vocabulary->size());
  Reading reading = Time(std::min(options_.threads, static_cast<int32_t>(batch.size())), [&] {
    std::vector<TokenDraw> draws;
    for (size_t i = 0; i < batch.size(); ++i) {
      const float* logits = room.Logits(static_cast<int32_t>(i));
      draws.push_back({{logits, vocabulary}, &parameters, {}, random_.Uniform()});
    }
    sampler_.Sample(draws);
    for (size_t i = 0; i < batch.size(); ++i) {
      if (draws[i].token >= 0) batch[i].token = draws[i].token;
      ++batch[i].position;
    }
  });
  reading.seconds /= static_cast<double>(batch.size());
  (greedy ? greedy_ : drawn_).push_back(reading);
}

/// Two answers under one schema, token by token: the first one finds what the grammar allows in its
/// states, the second one is counted, as most answers of a batch are.
void Calibrator::MeasureGrammar(KvRoom& room) {
  Say("structured answers");
  std::vector<SchemaFault> faults;
  const auto schema = OutputSchema::OfJsonSchema(nlohmann::ordered_json::parse(kSchema), faults);
  HALO_CHECK(schema != nullptr, "a schema of our own can be kept to");
  GrammarCache cache(options_.vocabulary);
  const std::shared_ptr<TokenGrammar> grammar = cache.Get(schema->grammar());
  const auto vocabulary = static_cast<size_t>(options_.vocabulary->size());
  const SamplingParameters greedy;
  const int32_t most = std::min(64, room.shape().tokens_per_sequence - plan_.contexts.back() - 1);
  double spent_s = 0.0;
  int32_t tokens = 0;
  for (int32_t answer = 0; answer < 2; ++answer) {
    room.Clear(0);
    Batch batch = PrefillBatch({1, plan_.contexts.back(), 0});
    TokenGrammar::Cursor cursor;
    for (int32_t i = 0; i < most; ++i) {
      Compute(room, batch);
      const float* logits = room.Logits(static_cast<int32_t>(batch.size()) - 1);
      const double before_s = Now();
      if (grammar->MustEnd(cursor)) break;
      const TokenMask& allowed = grammar->Allowed(cursor);
      const TokenId token = sampler_.sampler().SampleAllowed({logits, vocabulary}, greedy, allowed,
                                                             {}, random_.Uniform());
      if (token < 0 || !grammar->Accept(cursor, token)) break;
      if (answer > 0) {
        spent_s += Now() - before_s;
        ++tokens;
      }
      batch = {{token, batch.back().position + 1, 0, true}};
    }
  }
  room.Clear(0);
  grammar_token_s_ = tokens > 0 ? std::max(0.0, spent_s / tokens - TypicalOf(greedy_)) : 0.0;
}

Calibration Calibrator::Run() {
  WarmUp();
  double longest_s = 0.0;
  const auto elapsed = [&] { return Now() - start_s_; };
  do {
    const double before_s = Now();
    Say("round " + std::to_string(rounds_ + 1) + " of at most " + std::to_string(kMostRounds) +
        ", " + std::to_string(std::lround(elapsed())) + " s of " +
        std::to_string(std::lround(options_.budget_s)));
    Round();
    longest_s = std::max(longest_s, Now() - before_s);
  } while (rounds_ < kMostRounds && elapsed() + longest_s <= options_.budget_s);
  MeasureGrammar(*wide_.room);
  return Results();
}

std::vector<MeasuredMove> MovesOf(const std::vector<int32_t>& tokens,
                                  const std::vector<std::vector<Reading>>& readings) {
  std::vector<MeasuredMove> moves;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!readings[i].empty()) moves.push_back({tokens[i], TypicalOf(readings[i])});
  }
  return moves;
}

Calibration Calibrator::Results() const {
  Calibration result;
  for (const Place* place : {&wide_, &long_}) {
    for (const Subject& subject : place->subjects) {
      const CalibrationPoint& point = subject.point;
      (point.is_decode ? result.decode : result.prefill)
          .push_back({point.sequences, point.tokens, point.context,
                      point.step * (point.sequences - 1), point.held_out,
                      TypicalOf(subject.readings), static_cast<int32_t>(subject.readings.size())});
    }
  }
  result.copies = MovesOf(move_tokens_, copies_);
  result.spills = MovesOf(move_tokens_, spills_);
  result.restores = MovesOf(move_tokens_, restores_);
  result.sampling_token_s = TypicalOf(drawn_);
  result.greedy_token_s = TypicalOf(greedy_);
  result.grammar_token_s = grammar_token_s_;
  result.load_s = load_s_;
  result.room_byte_s = room_byte_s_;
  result.weights_bytes = WeightsBytes(model_.get());
  result.kv_token_bytes = KvBytesPerToken(model_.get());
  result.exact = exact_;
  result.on_accelerator = !AcceleratorNames().empty();
  result.rounds = rounds_;
  result.disturbed_share =
      static_cast<double>(disturbed_) / static_cast<double>(std::max<int64_t>(1, readings_));
  result.elapsed_s = Now() - start_s_;
  return result;
}

}  // namespace

Calibration Calibrate(const CalibrationOptions& options, const Clock& clock) {
  return Calibrator(options, clock).Run();
}

}  // namespace halo
