#include "session/report_data.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace halo {
namespace {

std::string Compact(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

/// A page is for reading: what is longer is cut, and says so.
std::string Shown(const std::string& text) {
  constexpr size_t kMostBytes = 8000;
  if (text.size() <= kMostBytes) return text;
  const std::string_view begin = std::string_view(text).substr(0, kMostBytes);
  return std::string(begin.substr(0, CompleteUtf8Length(begin))) + "\n... " +
         std::to_string(text.size()) + " bytes in all";
}

std::string WordsOf(const Failure& failure) { return failure.code + ": " + failure.message; }

std::string AskedOf(const ToolCall& call) {
  if (const auto* sql = std::get_if<SqlCall>(&call.what)) {
    nlohmann::ordered_json values = nlohmann::ordered_json::array();
    for (const SqlArgument& argument : sql->arguments) values.push_back(argument.value);
    return sql->text + (values.empty() ? "" : "\nwith " + Compact(values));
  }
  // Headers and the query of a URL may hold secrets.
  if (const auto* http = std::get_if<HttpCall>(&call.what))
    return http->method + " " + http->url.substr(0, http->url.find('?'));
  const auto& function = std::get<FunctionCall>(call.what);
  return function.function + " of " + Compact(function.inputs);
}

}  // namespace

void MagnitudeCounts::Add(double value) {
  const double step = value <= 0.0 ? 0.0 : (std::log2(value) - kLowest) * kSteps;
  const auto at =
      static_cast<size_t>(std::clamp(step, 0.0, static_cast<double>(counts_.size() - 1)));
  ++counts_[at];
  ++count_;
}

void MagnitudeCounts::Add(const MagnitudeCounts& others) {
  for (size_t at = 0; at < counts_.size(); ++at) counts_[at] += others.counts_[at];
  count_ += others.count_;
}

double MagnitudeCounts::Quantile(double share) const {
  const auto wanted = static_cast<int64_t>(std::ceil(share * static_cast<double>(count_)));
  int64_t seen = 0;
  for (size_t at = 0; at < counts_.size(); ++at) {
    seen += counts_[at];
    constexpr double kMiddle = 0.5;
    if (count_ > 0 && seen >= std::max<int64_t>(1, wanted))
      return at == 0 ? 0.0 : std::exp2((static_cast<double>(at) + kMiddle) / kSteps + kLowest);
  }
  return 0.0;
}

std::vector<MagnitudeCounts::Bar> MagnitudeCounts::Doublings() const {
  std::vector<Bar> bars;
  for (size_t doubling = 0; doubling < kDoublings; ++doubling) {
    Bar bar{std::exp2(static_cast<double>(doubling) + kLowest), 0};
    for (size_t step = 0; step < kSteps; ++step) bar.count += counts_[doubling * kSteps + step];
    if (bar.count > 0 || !bars.empty()) bars.push_back(bar);
  }
  while (!bars.empty() && bars.back().count == 0) bars.pop_back();
  return bars;
}

void ActivityOverTime::Add(int64_t start_us, int64_t end_us) {
  start_us = std::max<int64_t>(0, start_us);
  while (end_us > width_us_ * static_cast<int64_t>(kColumns)) {
    for (size_t i = 0; i < kColumns; ++i)
      busy_us_[i] = 2 * i < kColumns ? busy_us_[2 * i] + busy_us_[2 * i + 1] : 0.0;
    width_us_ *= 2;
  }
  for (int64_t at = start_us; at < end_us;) {
    const int64_t column = at / width_us_;
    const int64_t until = std::min(end_us, (column + 1) * width_us_);
    busy_us_[static_cast<size_t>(column)] += static_cast<double>(until - at);
    at = until;
  }
}

std::vector<double> ActivityOverTime::Means(int64_t end_us, size_t columns) const {
  std::vector<double> means(columns, 0.0);
  const double wide = static_cast<double>(end_us) / static_cast<double>(columns);
  if (wide <= 0.0) return means;
  for (size_t i = 0; i < kColumns; ++i) {
    // What a column holds is spread over the parts that it covers.
    const double from = static_cast<double>(i) * static_cast<double>(width_us_);
    const double to = std::min(from + static_cast<double>(width_us_), static_cast<double>(end_us));
    for (auto part = static_cast<size_t>(from / wide); part < columns; ++part) {
      const double part_from = static_cast<double>(part) * wide;
      const double common = std::min(to, part_from + wide) - std::max(from, part_from);
      if (common <= 0.0) break;
      means[part] += busy_us_[i] * common / (to - from) / wide;
    }
  }
  return means;
}

ReportData::ReportData(int64_t start_us, int32_t samples,
                       std::function<std::string(const CallRecord&)> text_of)
    : start_us_(start_us), most_samples_(samples), text_of_(std::move(text_of)) {}

void ReportData::AddEngine(const std::string& name, const Engine& front, int32_t worker) {
  worker_of_.emplace(std::pair(&front, worker), workers_.size());
  workers_.push_back({name, {}, 0});
}

void ReportData::Count(Lane& lane, int64_t started_us, int64_t finished_us) const {
  ++lane.count;
  lane.calls.Add(started_us - start_us_, finished_us - start_us_);
}

void ReportData::OnAttempt(const CallRecord& call) {
  const Completion& done = call.completion;
  OfOperator& of = operators_[{call.source, call.op.id}];
  of.retries += call.request.script_attempt > 0 ? 1 : 0;
  if (done.started_us == 0) return;  // it ended before it began
  Count(workers_.at(worker_of_.at({call.engine, done.worker})), done.started_us, done.finished_us);
  of.latency_s.Add(static_cast<double>(done.finished_us - done.started_us) * 1e-6);
  of.prompt_tokens.Add(static_cast<double>(done.prompt_tokens));
  of.output_tokens.Add(static_cast<double>(done.output_tokens));
}

void ReportData::OnToolAttempt(const ToolCallRecord& call) {
  const ToolCompletion& done = call.completion;
  OfOperator& of = operators_[{call.source, call.op.id}];
  of.retries += call.call.script_attempt > 0 ? 1 : 0;
  if (done.started_us == 0) return;
  Lane& lane = targets_[call.target];
  lane.name = call.target;
  Count(lane, done.started_us, done.finished_us);
  of.latency_s.Add(static_cast<double>(done.finished_us - done.started_us) * 1e-6);
}

/// Null: the row is not shown.
ReportData::SampleRow* ReportData::SampleOf(size_t source, const Row& row) {
  if (row.index >= most_samples_) return nullptr;
  SampleRow& sample = samples_[{source, row.index}];
  if (sample.id.empty()) sample.id = Compact(row.id);
  return &sample;
}

void ReportData::OnCall(const CallRecord& call) {
  SampleRow* sample = SampleOf(call.source, call.row);
  if (sample == nullptr) return;
  const Completion& done = call.completion;
  sample->calls.push_back({call.op.id, Shown(text_of_(call)),
                           Shown(done.failure ? WordsOf(*done.failure) : done.text), call.merged,
                           done.failure.has_value()});
}

void ReportData::OnToolCall(const ToolCallRecord& call) {
  SampleRow* sample = SampleOf(call.source, call.row);
  if (sample == nullptr) return;
  const std::string answered =
      call.result == nullptr ? WordsOf(*call.completion.failure) : Compact(*call.result);
  sample->calls.push_back({call.op.id, Shown(AskedOf(call.call)), Shown(answered), call.merged,
                           call.result == nullptr});
}

void ReportData::OnRow(size_t source, const RowResult& row) {
  const auto sample = samples_.find({source, row.index});
  if (sample != samples_.end()) sample->second.result = Shown(Compact(row.ToJson()));
}

}  // namespace halo
