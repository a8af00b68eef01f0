#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace halo {

/// A function of the embedding program, which workflows name as they do Halo's own ones
/// (`processor: NAME`).
struct HostFunction {
  /// Takes {"inputs": {name: value}, "config": {...}, "outputs": [names]} as JSON and gives the
  /// call's value as JSON. Called by threads of its own, never by the scheduler's. What it throws
  /// fails the call ("function_failed") with its what(). Null: a run that is resumed names a
  /// function that is not there; Run says so.
  std::function<std::string(const std::string& call)> run;
  int32_t at_once = 1;  ///< calls that may run side by side
};

}  // namespace halo
