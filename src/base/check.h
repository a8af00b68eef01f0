#pragma once

namespace halo {

/// Ends the process after printing where a broken invariant was seen. Never returns.
[[noreturn]] void CheckFailed(const char* expression, const char* file, int line, const char* why);

}  // namespace halo

/// An invariant of our own code. Not for user input (throw Error) and not for run-time failures
/// (values).
#define HALO_CHECK(condition, why)                                              \
  do {                                                                          \
    if (!(condition)) ::halo::CheckFailed(#condition, __FILE__, __LINE__, why); \
  } while (false)
