#include "workload/movie_words.h"

#include <string>
#include <vector>

#include "workload/datasets.h"

namespace halo::workload {

const std::vector<std::string>& MovieKeywords() {
  static const std::vector<std::string> words = {
      "war",    "love",  "man",      "crime",   "king",      "story",     "family", "west",
      "music",  "night", "mystery",  "star",    "romance",   "black",     "short",  "horror",
      "river",  "drama", "stone",    "history", "winter",    "real",      "comedy", "wolf",
      "sport",  "moon",  "fantasy",  "rose",    "men",       "adventure", "gold",   "port",
      "action", "young", "thriller", "fox",     "animation", "day",       "fan",    "hill"};
  return words;
}

std::span<const std::string_view> TitleNouns() {
  static constexpr std::string_view kWords[] = {
      "House",  "Garden", "Letter", "Journey", "Road",    "Summer",  "Secret",  "Island",
      "Dream",  "City",   "Bridge", "Window",  "Train",   "Shadow",  "Circle",  "Ocean",
      "Mirror", "Forest", "Door",   "Clock",   "Witness", "Harbour", "Lantern", "Orchard",
      "Violin", "Desert", "Signal", "Meadow",  "Kitchen", "Compass", "Feather", "Balcony"};
  return kWords;
}

std::span<const std::string_view> TitleAdjectives() {
  static constexpr std::string_view kWords[] = {
      "Last",   "Lost",   "First",   "Silent", "Hidden",  "Broken",  "Little", "Golden",
      "Empty",  "Second", "Distant", "Quiet",  "Burning", "Strange", "Open",   "Restless",
      "Hollow", "Gentle", "Narrow",  "Bitter", "Crooked", "Pale",    "Frozen", "Unseen"};
  return kWords;
}

std::span<const std::string_view> FirstNames() {
  static constexpr std::string_view kNames[] = {
      "Anna",  "John",   "Maria",  "Peter",  "Laura", "David",  "Julia",   "Thomas",
      "Sofia", "Lucas",  "Emma",   "Daniel", "Clara", "Robert", "Nina",    "Paul",
      "Helen", "Oscar",  "Ingrid", "Hugo",   "Elena", "Victor", "Alice",   "Simon",
      "Yuki",  "Ravi",   "Chiara", "Pablo",  "Freya", "Idris",  "Noor",    "Tomasz",
      "Leïla", "Jürgen", "Chloé",  "Søren",  "Zoë",   "Ángel",  "Beatriz", "Kwame"};
  return kNames;
}

std::span<const std::string_view> Surnames() {
  static constexpr std::string_view kNames[] = {
      "Ward",      "Newman", "King",     "Love",     "West",      "Knight",  "Stone",     "Mendes",
      "Black",     "Rivers", "Hill",     "Fox",      "Rose",      "Young",   "Gold",      "Porter",
      "Winter",    "Starr",  "Wolf",     "Moon",     "Day",       "Short",   "Story",     "Fanning",
      "Villareal", "Warren", "Glover",   "Freeman",  "Weston",    "Goldman", "Blackwood", "Rosen",
      "Silva",     "Tanaka", "Kowalski", "Okafor",   "Lindqvist", "Moreau",  "Bianchi",   "Petrov",
      "Nguyen",    "Haddad", "Ivanova",  "Castillo", "Fischer",   "Jansen",  "Costa",     "Sato"};
  return kNames;
}

std::span<const std::string_view> Genres() {
  static constexpr std::string_view kGenres[] = {
      "Drama",     "Comedy",    "Short",     "Documentary", "Romance",    "Action", "Crime",
      "Family",    "Adventure", "Animation", "Thriller",    "Reality-TV", "Horror", "Music",
      "Mystery",   "Talk-Show", "Fantasy",   "History",     "News",       "Sport",  "Sci-Fi",
      "Biography", "Game-Show", "Musical",   "War",         "Western"};
  return kGenres;
}

std::span<const std::string_view> Professions() {
  static constexpr std::string_view kProfessions[] = {"actor",
                                                      "actress",
                                                      "producer",
                                                      "writer",
                                                      "director",
                                                      "miscellaneous",
                                                      "camera_department",
                                                      "sound_department",
                                                      "art_department",
                                                      "music_department",
                                                      "animation_department",
                                                      "editor",
                                                      "cinematographer",
                                                      "composer",
                                                      "visual_effects",
                                                      "assistant_director",
                                                      "costume_designer",
                                                      "production_designer",
                                                      "casting_director",
                                                      "stunts",
                                                      "soundtrack",
                                                      "location_management",
                                                      "production_manager",
                                                      "executive"};
  return kProfessions;
}

std::span<const Region> Regions() {
  static constexpr Region kRegions[] = {
      {"US", "en", "The"},  {"GB", "en", "The"},  {"DE", "de", "Das"},  {"FR", "fr", "Le"},
      {"JP", "ja", "映画"}, {"IN", "hi", "Shri"}, {"ES", "es", "El"},   {"IT", "it", "Il"},
      {"BR", "pt", "O"},    {"CA", "en", "The"},  {"XWW", "en", "The"}, {"PL", "pl", "Ten"},
      {"RU", "ru", "Это"},  {"MX", "es", "Los"},  {"SE", "sv", "Den"},  {"KR", "ko", "그"},
      {"AR", "es", "La"},   {"PT", "pt", "A"},    {"NL", "nl", "Het"},  {"TR", "", "Bir"}};
  return kRegions;
}

}  // namespace halo::workload
