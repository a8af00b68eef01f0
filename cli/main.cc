#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "base/error.h"
#include "base/text.h"
#include "cache_command.h"
#include "commands.h"
#include "halo/session.h"
#include "halo_build_info.h"
#include "log.h"
#include "model/model_names.h"
#include "runs_command.h"

namespace halo::cli {

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::optional<std::string> EnvironmentIfSet(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

namespace {

/// "" if no variable says where it is.
std::string HuggingFaceCache() {
  if (std::string hub = Environment("HF_HUB_CACHE"); !hub.empty()) return hub;
  if (const std::string home = Environment("HF_HOME"); !home.empty()) return home + "/hub";
  const std::string user = Environment("HOME");
  return user.empty() ? "" : user + "/.cache/huggingface/hub";
}

}  // namespace

ModelSearchPath ModelPlaces(const std::string& models_file) {
  ModelSearchPath places;
  places.models_file = models_file;
  places.models_folder = Environment("HALO_MODELS");
  places.hugging_face_cache = HuggingFaceCache();
  places.shipped_folder = ShareFolder("models");
  return places;
}

void SetModelPlaces(RunOptions& options) {
  const ModelSearchPath places = ModelPlaces(options.models_file);
  options.models_folder = places.models_folder;
  options.hugging_face_cache = places.hugging_face_cache;
  options.shipped_models = places.shipped_folder;
}

std::string ShareFolder(const char* name) {
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe");
  return (program.parent_path().parent_path() / "share" / "halo" / name).string();
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

int ExitCodeOf(const Error& error) {
  return error.code() == ErrorCode::kIo ? kExitFailed : kExitUsage;
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

/// What may have been meant by the first word that the program does not know, or "".
std::string Suggestion(const CLI::App& app, int argc, char** argv) {
  const auto every = [](const CLI::App*) { return true; };
  std::vector<std::string> commands, options;
  for (const CLI::App* command : app.get_subcommands(every)) {
    if (!command->get_group().empty()) commands.push_back(command->get_name());
  }
  for (const CLI::App* command : app.get_subcommands()) {  // those that were given
    for (const CLI::Option* option : command->get_options()) {
      for (const std::string& name : option->get_lnames()) options.push_back("--" + name);
    }
  }
  for (int i = 1; i < argc; ++i) {
    const std::string whole = argv[i];
    const std::string word = whole.substr(0, whole.find('='));
    const bool is_option = word.starts_with("--");
    if (!is_option && i > 1) continue;
    const std::vector<std::string>& known = is_option ? options : commands;
    if (std::find(known.begin(), known.end(), word) != known.end()) continue;
    const std::string suggestion = DidYouMean(word, known);
    if (!suggestion.empty()) return word + suggestion;
  }
  return "";
}

/// Gives a program that was started without standard streams (`2>&-`) ones that it cannot use, or
/// the first files it opens would take their places, and messages would be written into results.
void HoldStandardStreams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) >= 0) continue;
    // Lower places are taken, so this is the one that open() gives. The wrong direction, so that
    // reading and writing still fail.
    if (open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
  }
}

int Main(int argc, char** argv) {
  HoldStandardStreams();
  // A file that may not grow any more is an error of the write, as on a full disk, which is told.
  std::signal(SIGXFSZ, SIG_IGN);
  CLI::App app{"Halo runs batches of agentic workflows: YAML in, every row's answers out.", "halo"};
  app.require_subcommand(1);
  app.set_version_flag("--version", "halo " + std::string(build_info::kVersion));
  int exit_code = kExitOk;
  AddRunCommand(app, exit_code);
  AddEngineProcessCommand(app, exit_code);
  AddExplainCommand(app, exit_code);
  AddValidateCommand(app, exit_code);
  AddRunsCommands(app, exit_code);
  AddCacheCommands(app, exit_code);
  AddModelsCommand(app, exit_code);
  AddCalibrateCommand(app, exit_code);
  AddSimulateCommand(app, exit_code);
  AddVersionCommand(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error, std::cout, std::cerr);
    if (code == 0) return kExitOk;
    const std::string suggestion = Suggestion(app, argc, argv);
    if (!suggestion.empty()) std::cerr << suggestion << "\n";
    return kExitUsage;
  } catch (const Error& error) {
    std::cerr << PrintableLines(error.what()) << "\n";
    return ExitCodeOf(error);
  } catch (const Failure& failure) {
    std::cerr << PrintableLines("halo: " + failure.code + ": " + failure.message) << "\n";
    return kExitFailed;
  } catch (const std::exception& error) {
    std::cerr << PrintableLines("halo: " + std::string(error.what())) << "\n";
    return kExitFailed;
  }
  return exit_code;
}

}  // namespace
}  // namespace halo::cli

int main(int argc, char** argv) { return halo::cli::Main(argc, argv); }
