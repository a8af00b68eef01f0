#pragma once

#include <span>
#include <string_view>

namespace halo::workload {

// What titles, people and genres of the IMDb-like data are made of; the first of each list are the
// most frequent.

std::span<const std::string_view> TitleNouns();
std::span<const std::string_view> TitleAdjectives();
std::span<const std::string_view> FirstNames();
std::span<const std::string_view> Surnames();
std::span<const std::string_view> Genres();
std::span<const std::string_view> Professions();

struct Region {
  std::string_view code;      ///< "DE"
  std::string_view language;  ///< "de"; "": not known
  std::string_view article;   ///< what titles there often begin with
};
std::span<const Region> Regions();

}  // namespace halo::workload
