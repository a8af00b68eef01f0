#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace halo::bench {

/// One line of `halo run --dump-prompts`. Read by code of its own: the benchmarks share nothing
/// with what they judge.
struct Call {
  int64_t source = 0;
  std::string row;
  std::string op;
  std::string model;
  bool merged = false;          ///< answered by an equal call: no work of its own
  std::vector<int32_t> prompt;  ///< token ids
  std::vector<int32_t> output;  ///< sampled ids, the end token included
  std::string finish;           ///< end, stop, length or failed
  int64_t max_tokens = 0;
  double temperature = 0.0;
  double top_p = 1.0;

  bool failed() const { return finish == "failed"; }
};

/// The calls of a dump in its order, which is the order in which they finished.
/// Throws std::runtime_error naming the file and the line.
std::vector<Call> ReadCallLog(const std::string& path);

/// Distinct models in order of appearance.
std::vector<std::string> ModelsOf(const std::vector<Call>& calls);

}  // namespace halo::bench
