#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>

#include "base/error.h"
#include "commands.h"
#include "halo/session.h"
#include "halo_build_info.h"

namespace halo::cli {

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

long long ParseSize(const std::string& text, const std::string& flag) {
  size_t used = 0;
  double amount = -1.0;
  try {
    amount = std::stod(text, &used);
  } catch (const std::exception&) {
    amount = -1.0;
  }
  std::string unit = amount < 0 ? "" : text.substr(used);
  if (unit.size() > 1 && (unit.back() == 'B' || unit.back() == 'b')) unit.pop_back();
  if (unit.size() > 1 && unit.back() == 'i') unit.pop_back();
  const std::string letters = "KMGT";
  double factor = 1.0;
  const size_t place =
      unit.empty() ? std::string::npos : letters.find(static_cast<char>(std::toupper(unit[0])));
  if (!unit.empty() && (unit.size() != 1 || place == std::string::npos)) amount = -1.0;
  if (place != std::string::npos) {
    for (size_t i = 0; i <= place; ++i) factor *= 1024.0;
  }
  if (!(amount > 0.0) || amount * factor > 1e15) {
    throw Error(ErrorCode::kUsage,
                flag + ": expected a size such as 512M or 4G, got '" + text + "'");
  }
  return static_cast<long long>(amount * factor);
}

void AddVersionCommand(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("version", "Print version, commit, llama.cpp version and backends");
  command->callback([&exit_code] {
    const std::string why_not = WhyNoExactAnswers();
    std::cout << "halo " << build_info::kVersion << "\ncommit " << build_info::kCommit
              << "\nllama.cpp " << build_info::kLlamaVersion << "\nDuckDB "
              << build_info::kDuckdbVersion << "\nbackends " << build_info::kBackends
              << "\nexact answers " << (why_not.empty() ? "yes" : "no: " + why_not) << "\n";
    exit_code = kExitOk;
  });
}

namespace {

int ExitCodeOf(const Error& error) {
  return error.code() == ErrorCode::kIo ? kExitFailed : kExitUsage;
}

int Main(int argc, char** argv) {
  CLI::App app{"Halo runs batches of agentic workflows: YAML in, every row's answers out.", "halo"};
  app.require_subcommand(1);
  app.set_version_flag("--version", "halo " + std::string(build_info::kVersion));
  int exit_code = kExitOk;
  AddRunCommand(app, exit_code);
  AddExplainCommand(app, exit_code);
  AddValidateCommand(app, exit_code);
  AddModelsCommand(app, exit_code);
  AddVersionCommand(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error, std::cout, std::cerr);
    return code == 0 ? kExitOk : kExitUsage;
  } catch (const Error& error) {
    std::cerr << error.what() << "\n";
    return ExitCodeOf(error);
  } catch (const Failure& failure) {
    std::cerr << "halo: " << failure.code << ": " << failure.message << "\n";
    return kExitFailed;
  } catch (const std::exception& error) {
    std::cerr << "halo: " << error.what() << "\n";
    return kExitFailed;
  }
  return exit_code;
}

}  // namespace
}  // namespace halo::cli

int main(int argc, char** argv) { return halo::cli::Main(argc, argv); }
