#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "workload/datasets.h"
#include "workload/draws.h"
#include "workload/movie_words.h"

namespace halo::workload {
namespace {

constexpr double kWordExponent = 0.9;
constexpr int64_t kTitlesAtScale1 = 1'000'000;
constexpr double kPeoplePerTitle = 1.2;

/// What all tables of one data set share.
struct Films {
  explicit Films(const DataOptions& options)
      : seed(options.seed),
        titles(std::llround(kTitlesAtScale1 * options.scale)),
        people(std::llround(kTitlesAtScale1 * options.scale * kPeoplePerTitle)),
        keywords(MovieKeywords().size(), kWordExponent),
        nouns(TitleNouns().size(), kWordExponent),
        adjectives(TitleAdjectives().size(), kWordExponent),
        first_names(FirstNames().size(), kWordExponent),
        surnames(Surnames().size(), kWordExponent),
        genres(Genres().size(), kWordExponent),
        professions(Professions().size(), kWordExponent),
        regions(Regions().size(), kWordExponent) {}

  uint64_t seed;
  int64_t titles, people;
  Zipf keywords, nouns, adjectives, first_names, surnames, genres, professions, regions;
};

std::string TitleId(int64_t number) { return fmt::format("tt{:07}", number); }
std::string PersonId(int64_t number) { return fmt::format("nm{:07}", number); }

/// 1, 2, ...: number 1 the most popular of `count`, by a continuous law, so that nothing as long as
/// a table has to be kept.
int64_t PopularNumber(RandomStream& draws, int64_t count) {
  const double share = std::pow(static_cast<double>(count), draws.Uniform());
  return std::clamp<int64_t>(static_cast<int64_t>(share), 1, count);
}

std::string Capital(const std::string& word) {
  std::string capital = word;
  capital[0] = static_cast<char>(capital[0] - 'a' + 'A');
  return capital;
}

std::string DrawTitle(const Films& films, RandomStream& draws) {
  const std::string keyword = Capital(MovieKeywords()[films.keywords.Draw(draws)]);
  const std::string noun(TitleNouns()[films.nouns.Draw(draws)]);
  const std::string adjective(TitleAdjectives()[films.adjectives.Draw(draws)]);
  switch (draws.Below(9)) {
    case 0:
      return "The " + adjective + " " + keyword;
    case 1:
      return keyword + " and the " + noun;
    case 2:
      return "The " + noun + " of " + keyword;
    case 3:
      return keyword + " in the " + noun;
    case 4:
      return fmt::format("{} {} {}", adjective, keyword, Between(draws, 2, 4));
    case 5:
      return "A " + keyword + " for the " + noun;
    case 6:
      return "The " + adjective + " " + noun;
    case 7:
      return noun + " of the " + adjective + " " +
             std::string(TitleNouns()[films.nouns.Draw(draws)]);
    default:
      return std::string(Surnames()[films.surnames.Draw(draws)]) + "'s " + noun;
  }
}

/// What is told of a title in several tables.
struct Title {
  std::string primary, original;
  const Region* origin = nullptr;
  bool is_foreign = false;
};

Title TitleOf(const Films& films, int64_t number) {
  RandomStream draws = DrawsOf(films.seed, "title", static_cast<uint64_t>(number));
  Title title;
  title.primary = DrawTitle(films, draws);
  title.origin = &Regions()[films.regions.Draw(draws)];
  title.is_foreign = title.origin->language != "en" && Chance(draws, 0.7);
  title.original = title.is_foreign
                       ? std::string(title.origin->article) + " " + DrawTitle(films, draws)
                       : title.primary;
  return title;
}

/// Up to `most` different entries of a list, joined by commas.
std::string DrawList(const Zipf& zipf, std::span<const std::string_view> words, size_t most,
                     RandomStream& draws) {
  std::vector<size_t> chosen;
  const size_t wanted = 1 + draws.Below(most);
  constexpr int kTries = 8;
  for (int tries = 0; tries < kTries && chosen.size() < wanted; ++tries) {
    const size_t word = zipf.Draw(draws);
    if (std::find(chosen.begin(), chosen.end(), word) == chosen.end()) chosen.push_back(word);
  }
  std::sort(chosen.begin(), chosen.end(), [&](size_t a, size_t b) { return words[a] < words[b]; });
  std::string list;
  for (const size_t word : chosen) list += (list.empty() ? "" : ",") + std::string(words[word]);
  return list;
}

struct TitleType {
  std::string_view name;
  double share;
};
constexpr TitleType kTitleTypes[] = {{"movie", 0.34},    {"tvEpisode", 0.2}, {"short", 0.16},
                                     {"tvSeries", 0.14}, {"tvMovie", 0.08},  {"video", 0.06},
                                     {"videoGame", 0.02}};

std::string_view DrawTitleType(RandomStream& draws) {
  double draw = draws.Uniform();
  for (const TitleType& type : kTitleTypes) {
    if (draw < type.share) return type.name;
    draw -= type.share;
  }
  return kTitleTypes[0].name;
}

void MakeTitles(const Films& films, TableSink& sink) {
  sink.Begin({"title_basics",
              {{"tconst", ColumnType::kText},
               {"title_type", ColumnType::kText},
               {"primary_title", ColumnType::kText},
               {"original_title", ColumnType::kText},
               {"is_adult", ColumnType::kBoolean},
               {"start_year", ColumnType::kInteger},
               {"end_year", ColumnType::kInteger},
               {"runtime_minutes", ColumnType::kInteger},
               {"genres", ColumnType::kText}},
              {"tconst"},
              {"start_year"}});
  for (int64_t number = 1; number <= films.titles; ++number) {
    Title title = TitleOf(films, number);
    RandomStream draws = DrawsOf(films.seed, "title_basics", static_cast<uint64_t>(number));
    const std::string_view type = DrawTitleType(draws);
    Cell year, end_year, minutes, genres;
    // More films were made lately than long ago.
    if (Chance(draws, 0.96)) {
      const int64_t first = 2025 - static_cast<int64_t>(110.0 * std::pow(draws.Uniform(), 2.0));
      year = first;
      if (type == "tvSeries" && Chance(draws, 0.7))
        end_year = std::min<int64_t>(2025, first + Between(draws, 0, 9));
    }
    if (Chance(draws, 0.7))
      minutes = Between(draws, type == "short" ? 3 : 40, type == "short" ? 39 : 190);
    if (Chance(draws, 0.95)) genres = DrawList(films.genres, Genres(), 3, draws);
    sink.Append({TitleId(number), std::string(type), std::move(title.primary),
                 std::move(title.original), Chance(draws, 0.01), year, end_year, minutes, genres});
  }
  sink.End();
}

void MakeRatings(const Films& films, TableSink& sink) {
  sink.Begin({"title_ratings",
              {{"tconst", ColumnType::kText},
               {"average_rating", ColumnType::kRating},
               {"num_votes", ColumnType::kInteger}},
              {"tconst"},
              {"num_votes"}});
  for (int64_t number = 1; number <= films.titles; ++number) {
    RandomStream draws = DrawsOf(films.seed, "title_ratings", static_cast<uint64_t>(number));
    if (!Chance(draws, 0.6)) continue;
    const double bell = draws.Uniform() + draws.Uniform() + draws.Uniform();  // mean 1.5
    const auto rating = static_cast<int64_t>(10 + 90 * std::pow(bell / 3, 0.75));
    constexpr double kMostVotes = 2'500'000;
    const double votes = std::min(kMostVotes, 5 * std::pow(1 - draws.Uniform(), -1.2));
    sink.Append({TitleId(number), rating, static_cast<int64_t>(votes)});
  }
  sink.End();
}

void MakePeople(const Films& films, TableSink& sink) {
  sink.Begin({"name_basics",
              {{"nconst", ColumnType::kText},
               {"primary_name", ColumnType::kText},
               {"birth_year", ColumnType::kInteger},
               {"death_year", ColumnType::kInteger},
               {"primary_profession", ColumnType::kText},
               {"known_for_titles", ColumnType::kText}},
              {"nconst"},
              {"primary_name"}});
  for (int64_t number = 1; number <= films.people; ++number) {
    RandomStream draws = DrawsOf(films.seed, "name_basics", static_cast<uint64_t>(number));
    std::string name(FirstNames()[films.first_names.Draw(draws)]);
    if (Chance(draws, 0.3)) name += fmt::format(" {}.", static_cast<char>('A' + draws.Below(26)));
    name += " " + std::string(Surnames()[films.surnames.Draw(draws)]);
    Cell born, died, known_for;
    if (Chance(draws, 0.5)) {
      const int64_t year = Between(draws, 1880, 2005);
      born = year;
      if (year < 1950 && Chance(draws, 0.7))
        died = std::min<int64_t>(2025, year + Between(draws, 30, 95));
    }
    std::string titles;
    const int64_t known = Between(draws, 0, 4);
    for (int64_t i = 0; i < known; ++i)
      titles += (titles.empty() ? "" : ",") + TitleId(PopularNumber(draws, films.titles));
    if (known > 0) known_for = std::move(titles);
    sink.Append({PersonId(number), std::move(name), born, died,
                 DrawList(films.professions, Professions(), 3, draws), known_for});
  }
  sink.End();
}

Cell DrawPeople(const Films& films, int64_t most, RandomStream& draws) {
  std::string list;
  const int64_t count = Between(draws, 0, most);
  for (int64_t i = 0; i < count; ++i)
    list += (list.empty() ? "" : ",") + PersonId(PopularNumber(draws, films.people));
  return count == 0 ? Cell() : Cell(std::move(list));
}

void MakeCrews(const Films& films, TableSink& sink) {
  sink.Begin({"title_crew",
              {{"tconst", ColumnType::kText},
               {"directors", ColumnType::kText},
               {"writers", ColumnType::kText}},
              {"tconst"},
              {}});
  for (int64_t number = 1; number <= films.titles; ++number) {
    RandomStream draws = DrawsOf(films.seed, "title_crew", static_cast<uint64_t>(number));
    Cell directors = DrawPeople(films, 2, draws);
    sink.Append({TitleId(number), std::move(directors), DrawPeople(films, 3, draws)});
  }
  sink.End();
}

void MakeAkas(const Films& films, TableSink& sink) {
  sink.Begin({"title_akas",
              {{"title_id", ColumnType::kText},
               {"ordering", ColumnType::kInteger},
               {"title", ColumnType::kText},
               {"region", ColumnType::kText},
               {"language", ColumnType::kText},
               {"types", ColumnType::kText},
               {"attributes", ColumnType::kText},
               {"is_original_title", ColumnType::kBoolean}},
              {"title_id", "ordering"},
              {"region"}});
  for (int64_t number = 1; number <= films.titles; ++number) {
    const Title title = TitleOf(films, number);
    RandomStream draws = DrawsOf(films.seed, "title_akas", static_cast<uint64_t>(number));
    int64_t ordering = 0;
    sink.Append({TitleId(number), ++ordering, title.original, Cell(), Cell(),
                 std::string("original"), Cell(), true});
    const int64_t regions = PopularNumber(draws, 6) - 1;
    for (int64_t i = 0; i < regions; ++i) {
      const Region& region = Regions()[films.regions.Draw(draws)];
      Cell language, attributes;
      if (!region.language.empty() && Chance(draws, 0.6)) language = std::string(region.language);
      if (Chance(draws, 0.05)) attributes = std::string("working title");
      std::string local = Chance(draws, 0.5) || region.language == "en"
                              ? title.primary
                              : std::string(region.article) + " " + title.primary;
      sink.Append({TitleId(number), ++ordering, std::move(local), std::string(region.code),
                   language, std::string("imdbDisplay"), attributes, false});
    }
  }
  sink.End();
}

}  // namespace

void GenerateImdb(const DataOptions& options, TableSink& sink) {
  CheckScale(options);
  const Films films(options);
  MakeTitles(films, sink);
  MakeRatings(films, sink);
  MakePeople(films, sink);
  MakeCrews(films, sink);
  MakeAkas(films, sink);
}

}  // namespace halo::workload
