#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "workload/datasets.h"
#include "workload/draws.h"

namespace halo::workload {
namespace {

constexpr int64_t kPagesAtScale1 = 200'000;

/// One kind of subject that a place has, with its titles; {} is the place.
struct Kind {
  std::string_view english, german, french, spanish, japanese;
  std::string_view what;      ///< "is a castle"
  std::string_view category;  ///< plural
};
constexpr Kind kKinds[] = {
    {"{}", "{}", "{}", "{}", "{} (町)", "town", "Towns"},
    {"{} Castle", "Schloss {}", "Château de {}", "Castillo de {}", "{}城", "castle", "Castles"},
    {"River {}", "{} (Fluss)", "{} (rivière)", "Río {}", "{}川", "river", "Rivers"},
    {"{} railway station", "Bahnhof {}", "Gare de {}", "Estación de {}", "{}駅", "railway station",
     "Railway stations"},
    {"Battle of {}", "Schlacht von {}", "Bataille de {}", "Batalla de {}", "{}の戦い", "battle",
     "Battles"},
    {"{} Cathedral", "Kathedrale von {}", "Cathédrale de {}", "Catedral de {}", "{}大聖堂",
     "cathedral", "Cathedrals"},
    {"{} Bridge", "Brücke von {}", "Pont de {}", "Puente de {}", "{}橋", "bridge", "Bridges"},
    {"Museum of {}", "Museum {}", "Musée de {}", "Museo de {}", "{}博物館", "museum", "Museums"}};

constexpr std::string_view kBeginnings[] = {"Kal", "Bren", "Tor", "Vel",  "Mar", "Ost", "Hel",
                                            "Dun", "Ler",  "Fal", "Gron", "Sil", "Wex", "Ald",
                                            "Nor", "Pel",  "Ruh", "Sarn", "Ul",  "Yar"};
constexpr std::string_view kMiddles[] = {"a", "e", "o", "en", "er", "in", "ow", "ul", "am", "es"};
constexpr std::string_view kEndings[] = {
    "berg", "den", "ford", "mark", "stad",  "vik",   "holm", "dale",  "heim",  "mouth",
    "wick", "ton", "bury", "gate", "field", "haven", "moor", "brook", "stead", "cliff"};
constexpr std::string_view kLands[] = {"Velmark", "Osteria", "Norrland", "Kasmir Coast", "Tarnia",
                                       "Belmont", "Harrow",  "Lydia",    "Merrow",       "Sundal"};
constexpr std::string_view kPeople[] = {"Anna Kaldor", "Otto Brandt", "Mary Fell",  "Jonas Wirk",
                                        "Clara Moss",  "Ivo Tessen",  "Ruth Aller", "Emil Sand"};

// {0} the title, {1} a year, {2} a link to another article, {3} a person, {4} a number, {5} the
// land.
constexpr std::string_view kSentences[] = {
    "It was first mentioned in {1}, when {3} wrote about it in a letter.",
    "The oldest part dates from {1} and was restored by {3}.",
    "Every spring some {4} visitors come from {2} to see it.",
    "A fire in {1} destroyed most of the records kept there.",
    "In {1} the council of {5} decided to protect it by law.",
    "The road to {2} was opened in {1} and is {4} metres long.",
    "Its history is closely linked with that of {2}.",
    "According to {3}, the name comes from an old word for a meeting place.",
    "During the flood of {1} it stood {4} centimetres under water.",
    "A painting of it by {3} hangs in {2}.",
    "It gained its present form between {1} and the end of that century.",
    "Scholars from {2} have studied it since {1}.",
    "The annual fair, held since {1}, draws traders from all over {5}.",
    "Music was always part of its life: {3} gave concerts there until {1}.",
    "It is mentioned beside {2} in most guides to {5}."};

// {0} the title in that language, {1} the English title, {2} a year, {3} the land.
struct Language {
  std::string_view code;
  std::string_view Kind::*title;
  std::string_view sentences[4];
};
constexpr Language kLanguages[] = {
    {"de",
     &Kind::german,
     {"'''{0}''' (englisch ''{1}'') liegt in {3} und wurde {2} zuerst erwähnt.",
      "Im Jahr {2} brannte ein großer Teil ab und wurde später wieder aufgebaut.",
      "Die Umgebung von {0} ist für ihre Gärten bekannt.",
      "Seit {2} findet dort jedes Jahr ein Markt statt."}},
    {"fr",
     &Kind::french,
     {"'''{0}''' (en anglais : ''{1}'') se trouve en {3} et fut mentionné en {2}.",
      "Un incendie en {2} en détruisit une grande partie.",
      "La région autour de {0} est connue pour ses jardins.",
      "Une foire s'y tient chaque année depuis {2}."}},
    {"es",
     &Kind::spanish,
     {"'''{0}''' (en inglés: ''{1}'') está en {3} y se menciona por primera vez en {2}.",
      "Un incendio destruyó gran parte del lugar en {2}.",
      "Los alrededores de {0} son conocidos por sus jardines.",
      "Desde {2} se celebra allí una feria cada año."}},
    {"ja",
     &Kind::japanese,
     {"'''{0}'''（英語: ''{1}''）は{3}にあり、{2}年に初めて記録された。",
      "{2}年の火事で多くが失われ、のちに再建された。", "{0}の周りは庭園で知られている。",
      "{2}年から毎年、市が開かれている。"}}};

std::string With(std::string_view pattern, const std::string& place) {
  return fmt::format(fmt::runtime(pattern), place);
}

std::string PlaceName(uint64_t seed, int64_t place) {
  // A walk over all combinations that begins and steps by the seed: no name comes twice.
  constexpr int64_t kNames = std::ssize(kBeginnings) * std::ssize(kMiddles) * std::ssize(kEndings);
  RandomStream draws = DrawsOf(seed, "places", 0);
  const int64_t start = Between(draws, 0, kNames - 1);
  const int64_t at = (start + place * 1'777) % kNames;  // 1,777 is prime to 4,000
  std::string name(kBeginnings[at % std::ssize(kBeginnings)]);
  name += kMiddles[at / std::ssize(kBeginnings) % std::ssize(kMiddles)];
  name += kEndings[at / std::ssize(kBeginnings) / std::ssize(kMiddles)];
  const int64_t round = place / kNames;  // New Kaladen, New Kaladen 2, ...
  if (round == 0) return name;
  return round == 1 ? "New " + name : fmt::format("New {} {}", name, round);
}

/// A subject: one place's castle, river, ... Places get their kinds one after the other.
struct Subject {
  int64_t number;
  const Kind* kind;
  std::string place, title;
  std::string_view land;
};

Subject SubjectOf(uint64_t seed, int64_t number) {
  Subject subject;
  subject.number = number;
  subject.kind = &kKinds[number % std::ssize(kKinds)];
  const int64_t place = number / std::ssize(kKinds);
  subject.place = PlaceName(seed, place);
  subject.title = With(subject.kind->english, subject.place);
  subject.land =
      kLands[DrawsOf(seed, "land", static_cast<uint64_t>(place)).Below(std::size(kLands))];
  return subject;
}

/// The languages that have an article on a subject, beside English.
std::vector<const Language*> LanguagesOf(uint64_t seed, int64_t number) {
  static constexpr double kShares[] = {0.6, 0.45, 0.4, 0.2};
  RandomStream draws = DrawsOf(seed, "languages", static_cast<uint64_t>(number));
  std::vector<const Language*> languages;
  for (size_t i = 0; i < std::size(kLanguages); ++i) {
    if (Chance(draws, kShares[i])) languages.push_back(&kLanguages[i]);
  }
  return languages;
}

std::string Url(std::string_view language, const std::string& title) {
  std::string path;
  for (const char c : title) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (plain || c == '(' || c == ')') {
      path += c;
    } else {
      path += c == ' ' ? "_" : fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return fmt::format("https://{}.wiki.example/wiki/{}", language, path);
}

/// Writes articles until there are as many pages as wanted.
class PageWriter {
 public:
  PageWriter(const DataOptions& options, TableSink& sink)
      : seed_(options.seed), pages_(std::llround(kPagesAtScale1 * options.scale)), sink_(sink) {}

  void WriteAll() {
    for (int64_t number = 0; written_ < pages_; ++number) {
      const Subject subject = SubjectOf(seed_, number);
      WriteEnglish(subject);
      for (const Language* language : LanguagesOf(seed_, number)) {
        if (written_ < pages_) WriteOther(subject, *language);
      }
    }
  }

 private:
  std::string Link(RandomStream& draws) const {
    // Early subjects are linked to most. Which exist does not depend on the scale: the first 2,000
    // are subjects of the smallest data sets' places, or red links.
    constexpr double kLinked = 2'000;
    const auto target = static_cast<int64_t>(std::pow(kLinked, draws.Uniform())) - 1;
    const Subject subject = SubjectOf(seed_, target);
    return Chance(draws, 0.3) ? "[[" + subject.title + "|" + subject.place + "]]"
                              : "[[" + subject.title + "]]";
  }

  void WriteEnglish(const Subject& subject) {
    RandomStream draws = DrawsOf(seed_, "page", static_cast<uint64_t>(subject.number));
    const auto built = static_cast<int64_t>(1100 + 900 * std::sqrt(draws.Uniform()));
    std::string end =
        fmt::format("\n\n[[Category:{} in {}]]\n[[Category:{}]]\n[[Category:{}0s establishments]]",
                    subject.kind->category, subject.land, subject.land, built / 10);
    for (const Language* language : LanguagesOf(seed_, subject.number)) {
      end += fmt::format("\n[[{}:{}]]", language->code,
                         With(subject.kind->*(language->title), subject.place));
    }
    std::string text;
    if (Chance(draws, 0.4))
      text += fmt::format("[[File:{}.jpg|thumb|{} in {}]]\n", subject.title, subject.title, built);
    text += fmt::format("'''{}''' is a {} in [[{}]], {}, built in {}.", subject.title,
                        subject.kind->what, subject.place, subject.land, built);
    // From stubs to long articles, 800 characters on average.
    const double length = 330 + 510 * -std::log(1 - draws.Uniform() * 0.99);
    while (static_cast<double>(text.size() + end.size()) < length) {
      const std::string_view sentence = Pick(draws, std::span<const std::string_view>(kSentences));
      const int64_t year = Between(draws, 1150, 1990), count = Between(draws, 12, 4'800);
      const std::string link = Link(draws);
      text += " " + fmt::format(fmt::runtime(sentence), subject.title, year, link,
                                Pick(draws, std::span<const std::string_view>(kPeople)), count,
                                subject.land);
    }
    Write("en", subject.title, text + end, draws);
  }

  void WriteOther(const Subject& subject, const Language& language) {
    RandomStream draws = DrawsOf(seed_, language.code, static_cast<uint64_t>(subject.number));
    const std::string title = With(subject.kind->*(language.title), subject.place);
    std::string text;
    const double length = 500 + 180 * -std::log(1 - draws.Uniform() * 0.99);
    for (size_t i = 0; i == 0 || static_cast<double>(text.size()) < length; ++i) {
      const auto year = Between(draws, 1150, 1990);
      text += (i == 0 ? "" : " ") + fmt::format(fmt::runtime(language.sentences[i % 4]), title,
                                                subject.title, year, subject.land);
    }
    Write(language.code, title,
          text + fmt::format("\n\n[[Category:{}]]\n[[en:{}]]", subject.land, subject.title), draws);
  }

  void Write(std::string_view language, const std::string& title, std::string text,
             RandomStream& draws) {
    const int64_t day_us = 86'400'000'000;
    const Timestamp modified{MakeDate(2025, 1, 1).days * day_us -
                             Between(draws, 0, 2'000 * int64_t{86'400}) * 1'000'000};
    ++written_;
    const auto bytes = static_cast<int64_t>(text.size());
    sink_.Append({1'000 + written_ * 7, title, Url(language, title), std::move(text),
                  std::string(language), modified, fmt::format("Q{}", 40'000 + written_ * 3),
                  bytes});
  }

  uint64_t seed_;
  int64_t pages_;
  TableSink& sink_;
  int64_t written_ = 0;
};

}  // namespace

void GenerateWiki(const DataOptions& options, TableSink& sink) {
  CheckScale(options);
  sink.Begin({"pages",
              {{"page_id", ColumnType::kBigint},
               {"title", ColumnType::kText},
               {"url", ColumnType::kText},
               {"wikitext", ColumnType::kText},
               {"in_language", ColumnType::kText},
               {"date_modified", ColumnType::kTimestamp},
               {"wikidata_id", ColumnType::kText},
               {"bytes_wikitext", ColumnType::kInteger}},
              {"page_id"},
              {},
              true});
  PageWriter(options, sink).WriteAll();
  sink.End();
}

std::vector<std::string> WikiTitles(const DataOptions& options, size_t most) {
  CheckScale(options);
  std::vector<std::string> titles;
  const int64_t pages = std::llround(kPagesAtScale1 * options.scale);
  int64_t written = 0;
  for (int64_t number = 0; written < pages && titles.size() < most; ++number) {
    titles.push_back(SubjectOf(options.seed, number).title);
    written += 1 + std::ssize(LanguagesOf(options.seed, number));
  }
  return titles;
}

}  // namespace halo::workload
