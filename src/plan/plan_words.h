#pragma once

#include <string>

#include "base/estimate.h"
#include "plan/physical_plan.h"

namespace halo {

/// How EXPLAIN writes quantities.
std::string RoundedWords(double value);             ///< a count that nobody needs to the last digit
std::string SecondsWords(double seconds);           ///< "0 s", "12 ms", "3.4 s", "12 min", "1.5 h"
std::string SecondsWords(const Estimate& seconds);  ///< with its interval, unless it is exact
std::string CountWords(const Estimate& count);      ///< likewise
/// What the prompts of a group have in common and what that saves.
std::string PrefixGroupWords(const PrefixGroup& group);
/// The larger over the smaller; infinite if one of them is zero.
double ErrorFactor(double estimated, double actual);

}  // namespace halo
