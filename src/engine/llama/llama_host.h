#pragma once

#include <string>

namespace halo {

/// Descriptors of a program that hosts an engine, as SupervisedEngine hands them down.
inline constexpr int kHostSocket = 3;
inline constexpr int kHostRecord = 4;
inline constexpr int kHostTurns = 5;  ///< where the setup says that it takes turns

/// What a program does that hosts a LlamaEngine: takes the setup from its connection, makes the
/// engine and serves it until the connection's other end goes. `version`: of this program; another
/// one's engine is refused, since its answers may differ. Returns what went wrong, "" if nothing.
std::string HostLlamaEngine(const std::string& version);

}  // namespace halo
