#pragma once

#include <cstddef>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"

namespace halo::demo {

// Two draws never stand among the arguments of one call: compilers evaluate those in orders of
// their own, and would make different texts of one seed.

/// One of a list's texts, all equally likely.
template <typename List>
std::string_view Pick(RandomStream& random, const List& list) {
  return std::string_view(std::data(list)[random.Below(std::size(list))]);
}

inline std::string_view Pick(RandomStream& random, std::initializer_list<std::string_view> list) {
  return std::data(list)[random.Below(list.size())];
}

/// True in `percent` of a hundred cases.
inline bool Chance(RandomStream& random, uint64_t percent) { return random.Below(100) < percent; }

/// Puts the elements into a random order.
template <typename T>
void Shuffle(RandomStream& random, std::vector<T>& list) {
  for (size_t left = list.size(); left > 1; --left)
    std::swap(list[left - 1], list[random.Below(left)]);
}

/// What stands for {name} in a text.
struct Filling {
  std::string_view name;
  std::string_view text;
};

/// The text with every {name} replaced; a name without a filling is a broken invariant.
std::string Fill(std::string_view text, std::initializer_list<Filling> fillings);

/// "a", "a and b", "a, b and c".
std::string ListInWords(std::span<const std::string> words);

/// The text with its first letter in upper case.
std::string Capitalized(std::string_view text);

/// "a lamp", "an old lamp": by the first letter.
std::string WithArticle(std::string_view words);

}  // namespace halo::demo
