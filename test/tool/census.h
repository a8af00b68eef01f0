#pragma once

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <ostream>
#include <sstream>
#include <string>
#include <thread>

namespace halo::test {

/// Open file descriptors of this process, the one that looks included.
inline size_t CountDescriptors() {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    (void)entry;
    ++count;
  }
  return count;
}

/// True if a thread of this process, a folder of /proc/self/task, has come to its end: for a moment
/// one that was joined is still there (55 of 20,000 were).
inline bool HasEnded(const std::filesystem::path& thread) {
  constexpr unsigned long kIsExiting = 0x4;  // PF_EXITING of Linux: set before a join returns
  constexpr int kFieldsBeforeFlags = 6;      // behind the name: the state and five ids
  std::ostringstream text;
  text << std::ifstream(thread / "stat").rdbuf();
  const std::string line = text.str();
  if (line.empty()) return true;  // gone meanwhile
  std::istringstream fields(line.substr(line.rfind(')') + 1));
  std::string skipped;
  for (int i = 0; i < kFieldsBeforeFlags; ++i) fields >> skipped;
  unsigned long flags = 0;
  fields >> flags;
  return (flags & kIsExiting) != 0;
}

/// Threads of this process that have not come to their end.
inline size_t CountThreads() {
  // With the first thread that a program starts, ThreadSanitizer starts one of its own, which
  // stays.
  static std::once_flag once;
  std::call_once(once, [] { std::thread([] {}).join(); });
  size_t count = 0;
  for (const auto& thread : std::filesystem::directory_iterator("/proc/self/task"))
    count += HasEnded(thread.path()) ? 0 : 1;
  return count;
}

/// What a process has open, to be compared before and after.
struct Census {
  size_t threads = CountThreads();
  size_t descriptors = CountDescriptors();

  friend bool operator==(const Census&, const Census&) = default;
};

inline std::ostream& operator<<(std::ostream& out, const Census& census) {
  return out << census.threads << " threads, " << census.descriptors << " descriptors";
}

}  // namespace halo::test
