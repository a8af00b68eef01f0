#pragma once

#include <CLI/CLI.hpp>
#include <exception>
#include <iostream>

#include "base/error.h"

namespace halo {

/// Reads a command line, which runs the subcommand that it names, and says on standard error what
/// went wrong. The program's exit code: 0, 1 if it failed, 2 if it was asked wrongly.
inline int RunProgram(CLI::App& app, const char* program, int argc, char** argv) {
  constexpr int kExitOk = 0, kExitFailed = 1, kExitUsage = 2;
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  } catch (const Error& error) {
    std::cerr << error.what() << "\n";
    return error.code() == ErrorCode::kUsage ? kExitUsage : kExitFailed;
  } catch (const std::exception& error) {
    std::cerr << program << ": " << error.what() << "\n";
    return kExitFailed;
  }
  return kExitOk;
}

}  // namespace halo
