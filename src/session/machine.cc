#include "session/machine.h"

#include <fmt/format.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <thread>

#include "base/hash.h"
#include "engine/llama/exactness.h"
#include "engine/llama/loaded_model.h"
#include "halo_build_info.h"

namespace halo {
namespace {

/// Virtual machines often leave numbers out of the name, so they are put beside it.
std::string Processor() {
  std::ifstream file("/proc/cpuinfo");
  std::map<std::string, std::string> values;
  for (std::string line; std::getline(file, line) && !line.empty();) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const size_t key_end = line.find_last_not_of(" \t", colon - 1);
    const size_t value_start = line.find_first_not_of(" \t", colon + 1);
    if (key_end == std::string::npos || value_start == std::string::npos) continue;
    values[line.substr(0, key_end + 1)] = line.substr(value_start);
  }
  if (!values.contains("model name")) return "unknown processor";
  return fmt::format("{} (family {}, model {}, stepping {})", values["model name"],
                     values["cpu family"], values["model"], values["stepping"]);
}

}  // namespace

std::string MachineFingerprint(int32_t threads) {
  const double memory_bytes =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
  const std::string accelerators = AcceleratorNames();
  return fmt::format("{}, {} cores, {:.0f} GiB, {}{} threads, halo {}, llama.cpp {} {}, {} kernels",
                     Processor(), std::thread::hardware_concurrency(),
                     memory_bytes / (1024.0 * 1024.0 * 1024.0),
                     accelerators.empty() ? "" : accelerators + ", ", threads, build_info::kVersion,
                     build_info::kLlamaVersion, build_info::kBackends,
                     WhyNotExactHere().empty() ? "exact" : "stock");
}

std::string ComputingFingerprint(bool exactly) {
  return fmt::format("{}, {}, halo {} {}, llama.cpp {} {}, {}", Processor(), AcceleratorNames(),
                     build_info::kVersion, build_info::kCommit, build_info::kLlamaVersion,
                     build_info::kBackends, exactly ? "exact" : "stock kernels");
}

std::string ProfileFileName(const std::string& fingerprint) {
  return fmt::format("{:016x}.json", Hash64(fingerprint));
}

}  // namespace halo
