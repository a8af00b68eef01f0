#include "workload/rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "base/error.h"
#include "workload/draws.h"

namespace halo::workload {
namespace {

using Draw = std::function<std::string(RandomStream&)>;

/// Where the keys of a workload come from, and how a row asks for one.
struct Source {
  size_t most_keys;  ///< different ones
  Draw draw_key;
  std::function<std::string(const std::string& key, RandomStream&)> ask;
};

constexpr std::string_view kFilmQuestions[] = {
    "Which films about {} did people like best?",
    "I loved an old film with the word {} in its title. What could it be?",
    "Who made the best known films about {}?",
    "Recommend something with {} in it for tonight.",
    "Are there good series about {} made since 2000?",
    "Which directors keep coming back to {}?",
    "What are films about {} called in other countries?",
    "Is {} a good subject for a film? Name one that shows it.",
    "My sister asks for a film with {} in the title that is not too long.",
    "Compare the most popular films about {}."};

constexpr std::string_view kRegions[] = {"AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"};
constexpr std::string_view kSegments[] = {"AUTOMOBILE", "BUILDING", "FURNITURE", "HOUSEHOLD",
                                          "MACHINERY"};
constexpr std::string_view kModes[] = {"REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"};
constexpr std::string_view kTypes[] = {"BRASS", "COPPER", "NICKEL", "STEEL", "TIN"};

std::string PickText(RandomStream& draws, std::span<const std::string_view> texts) {
  return std::string(Pick(draws, texts));
}

Source FilmSource() {
  const std::vector<std::string>& words = MovieKeywords();
  return {words.size(),
          [&words, zipf = Zipf(words.size(), 0.9)](RandomStream& draws) {
            return words[zipf.Draw(draws)];
          },
          [](const std::string& key, RandomStream& draws) {
            return fmt::format(fmt::runtime(PickText(draws, kFilmQuestions)), key);
          }};
}

Source TitleSource(const DataOptions& data) {
  constexpr size_t kMostTitles = 2'048;
  std::vector<std::string> titles = WikiTitles(data, kMostTitles);
  const size_t count = titles.size();
  return {count,
          [titles = std::move(titles)](RandomStream& draws) {
            return titles[draws.Below(titles.size())];
          },
          [](const std::string& key, RandomStream&) { return key; }};
}

std::string DrawModes(RandomStream& draws) {
  const size_t first = draws.Below(std::size(kModes));
  const size_t second = (first + 1 + draws.Below(std::size(kModes) - 1)) % std::size(kModes);
  return fmt::format(" shipmode={} shipmode2={}", kModes[first], kModes[second]);
}

Source TridentSource() {
  return {100'000,
          [](RandomStream& draws) {
            std::string key = fmt::format("region={} segment={} year={}", PickText(draws, kRegions),
                                          PickText(draws, kSegments), Between(draws, 1992, 1998));
            if (Chance(draws, 0.6))
              key += fmt::format(" brand=Brand#{}{}", Between(draws, 1, 5), Between(draws, 1, 5));
            if (Chance(draws, 0.4)) key += DrawModes(draws);
            if (Chance(draws, 0.3))
              key += fmt::format(" date=1995-03-{:02}", Between(draws, 1, 28));
            if (Chance(draws, 0.2)) key += fmt::format(" size={}", Between(draws, 10, 20));
            if (Chance(draws, 0.2)) key += " type=" + PickText(draws, kTypes);
            return key;
          },
          [](const std::string& key, RandomStream&) { return key; }};
}

Source FanoutSource() {
  return {100'000,
          [](RandomStream& draws) {
            std::string key = fmt::format("segment={} year={}", PickText(draws, kSegments),
                                          Between(draws, 1992, 1998));
            if (Chance(draws, 0.6))
              key += fmt::format(" brand=Brand#{}{}", Between(draws, 1, 5), Between(draws, 1, 5));
            if (Chance(draws, 0.4)) key += DrawModes(draws);
            if (Chance(draws, 0.3)) key += fmt::format(" qty={}", Between(draws, 15, 35));
            if (Chance(draws, 0.2)) {
              const int64_t low = Between(draws, 2, 6);
              key += fmt::format(" discount_lo=0.0{} discount_hi=0.0{}", low, low + 2);
            }
            return key;
          },
          [](const std::string& key, RandomStream&) { return key; }};
}

Source SourceOf(const RowOptions& options) {
  const std::string& name = options.workload;
  if (name == "w1" || name == "w2") return FilmSource();
  if (name == "w3" || name == "w4") return TitleSource(options.data);
  if (name == "w5") return TridentSource();
  if (name == "w6") return FanoutSource();
  throw Error(ErrorCode::kUsage, "--workload: expected w1 to w6, got '" + name + "'");
}

/// [rows] true where a row repeats a key: `repeats` of them, never the first.
std::vector<bool> ChooseRepeats(size_t rows, size_t repeats, RandomStream& draws) {
  std::vector<bool> chosen(rows, false);
  for (size_t row = 1; row < rows; ++row) {
    const auto left = static_cast<double>(rows - row);
    chosen[row] = draws.Uniform() * left < static_cast<double>(repeats);
    repeats -= chosen[row] ? 1 : 0;
  }
  return chosen;
}

size_t RepeatsOf(const RowOptions& options) {
  if (options.count < 0) throw Error(ErrorCode::kUsage, "--count: expected at least 0");
  if (!(options.repeat_share >= 0 && options.repeat_share <= 1))
    throw Error(ErrorCode::kUsage, "--repeat-share: expected a number from 0 to 1");
  const auto repeats = std::llround(static_cast<double>(options.count) * options.repeat_share);
  return static_cast<size_t>(std::min<int64_t>(repeats, std::max<int64_t>(options.count - 1, 0)));
}

}  // namespace

std::vector<WorkloadRow> MakeRows(const RowOptions& options) {
  const Source source = SourceOf(options);
  const size_t repeats = RepeatsOf(options);
  const auto count = static_cast<size_t>(options.count);
  if (count - repeats > source.most_keys) {
    throw Error(
        ErrorCode::kUsage,
        fmt::format("{} has {} different keys here, and {} rows of which {} repeat one need "
                    "{}: raise --repeat-share to {:.3f}, or lower --count",
                    options.workload, source.most_keys, count, repeats, count - repeats,
                    1.0 - static_cast<double>(source.most_keys) / static_cast<double>(count)));
  }
  RandomStream draws = DrawsOf(options.seed, "rows of " + options.workload, 0);
  const std::vector<bool> is_repeat = ChooseRepeats(count, repeats, draws);
  constexpr double kRepeatExponent = 1.0;
  const Zipf ranks(std::max<size_t>(count, 1), kRepeatExponent);
  std::vector<std::string> keys;
  std::set<std::string> seen;
  std::vector<WorkloadRow> rows;
  for (size_t i = 0; i < count; ++i) {
    WorkloadRow row;
    row.id = fmt::format("{}-{:04}", options.workload, i + 1);
    if (is_repeat[i]) {
      size_t rank = ranks.Draw(draws);
      while (rank >= keys.size()) rank = ranks.Draw(draws);  // ends: rank 0 is the likeliest
      row.key = keys[rank];
    } else {
      // Ends: there are more keys than were drawn, and every one has a chance.
      do {
        row.key = source.draw_key(draws);
      } while (!seen.insert(row.key).second);
      keys.push_back(row.key);
    }
    row.user_query = source.ask(row.key, draws);
    rows.push_back(std::move(row));
  }
  return rows;
}

nlohmann::ordered_json RowJson(const WorkloadRow& row) {
  return {{"id", row.id}, {"user_query", row.user_query}};
}

}  // namespace halo::workload
