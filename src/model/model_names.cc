#include "model/model_names.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include "base/error.h"
#include "base/text.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using Files = std::vector<std::string>;

std::string Upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) { return c >= 'a' && c <= 'z' ? c - 32 : c; });
  return text;
}

bool IsGguf(const fs::path& path) { return path.extension() == ".gguf"; }

/// True if `path`, links resolved, lies inside `folder`.
bool LiesInside(const fs::path& path, const fs::path& folder) {
  std::error_code error;
  const fs::path real = fs::weakly_canonical(path, error);
  const fs::path root = fs::weakly_canonical(folder, error);
  return !error && std::mismatch(root.begin(), root.end(), real.begin(), real.end()).first == root.end();
}

/// Names go into paths: nothing but plain components.
bool IsPlainName(const std::string& name) {
  if (name.empty() || name.front() == '/' || name.find('\\') != std::string::npos) return false;
  const fs::path path(name);
  return std::none_of(path.begin(), path.end(),
                      [](const fs::path& part) { return part == ".." || part == "." || part.empty(); });
}

/// STEM.gguf, STEM-Q8_0.gguf, STEM.Q8_0.gguf.
bool IsVariantOf(const std::string& file_stem, const std::string& stem) {
  if (file_stem == stem) return true;
  if (!file_stem.starts_with(stem) || file_stem.size() < stem.size() + 2) return false;
  const char separator = file_stem[stem.size()];
  const std::string rest = Upper(file_stem.substr(stem.size() + 1));
  const bool is_type = rest.starts_with("Q") || rest.starts_with("IQ") || rest.starts_with("F16") ||
                       rest.starts_with("BF16") || rest.starts_with("F32");
  return (separator == '-' || separator == '.') && is_type;
}

/// Files of one folder whose stem passes; sorted, so that the choice does not depend on the file system's order.
template <typename Passes>
Files FilesIn(const fs::path& folder, const fs::path& root, Passes passes) {
  Files files;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (IsGguf(entry.path()) && entry.is_regular_file(error) && passes(entry.path().stem().string()) &&
        LiesInside(entry.path(), root)) {
      files.push_back(entry.path().string());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

Files FromFolder(const std::string& name, const fs::path& folder) {
  if (folder.empty() || !IsPlainName(name)) return {};
  const fs::path wanted = folder / name;
  const std::string stem = wanted.filename().string();
  Files files = FilesIn(wanted.parent_path(), folder, [&](const std::string& s) { return IsVariantOf(s, stem); });
  const Files inside = FilesIn(wanted, folder, [](const std::string&) { return true; });
  files.insert(files.end(), inside.begin(), inside.end());
  return files;
}

/// The newest revision that refs/main names, else any.
Files FromHuggingFace(const std::string& name, const fs::path& cache) {
  if (cache.empty() || !IsPlainName(name)) return {};
  std::string folder_name = "models--" + name;
  for (size_t at = 0; (at = folder_name.find('/', at)) != std::string::npos;) folder_name.replace(at, 1, "--");
  const fs::path folder = cache / folder_name;
  std::ifstream reference(folder / "refs" / "main");
  std::string revision;
  std::getline(reference, revision);
  const auto any = [](const std::string&) { return true; };
  if (IsPlainName(revision)) {
    // Snapshots are links into the cache's own blobs.
    Files files = FilesIn(folder / "snapshots" / revision, cache, any);
    if (!files.empty()) return files;
  }
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder / "snapshots", error)) {
    Files files = FilesIn(entry.path(), cache, any);
    if (!files.empty()) return files;
  }
  return {};
}

std::map<std::string, Files> ReadModelsFile(const std::string& path) {
  std::map<std::string, Files> models;
  if (path.empty()) return models;
  const fs::path folder = fs::path(path).parent_path();
  try {
    const YAML::Node root = YAML::LoadFile(path);
    if (!root.IsMap()) throw Error(ErrorCode::kConfig, path + ": expected a mapping of model names to files");
    for (const auto& entry : root) {
      Files& files = models[entry.first.as<std::string>()];
      const auto add = [&](const YAML::Node& file) { files.push_back((folder / file.as<std::string>()).string()); };
      if (entry.second.IsSequence()) {
        for (const YAML::Node& file : entry.second) add(file);
      } else {
        add(entry.second);
      }
    }
  } catch (const YAML::Exception& error) {
    throw Error(ErrorCode::kConfig,
                std::vector<Diagnostic>{{{path, error.mark.line + 1, error.mark.column + 1}, error.msg}});
  }
  return models;
}

Files Candidates(const std::string& name, const ModelSearchPath& search, const std::map<std::string, Files>& listed) {
  if (const auto flag = search.flags.find(name); flag != search.flags.end()) return {flag->second};
  if (const auto file = listed.find(name); file != listed.end()) return file->second;
  Files files = FromFolder(name, search.models_folder);
  return files.empty() ? FromHuggingFace(name, search.hugging_face_cache) : files;
}

/// What a workflow's `dtype` calls the weight types of files.
std::string WeightTypeOfDtype(const std::string& dtype) {
  if (dtype == "bfloat16") return "BF16";
  if (dtype == "float16" || dtype == "half") return "F16";
  if (dtype == "float32" || dtype == "float") return "F32";
  return "";
}

/// "q4_k_m" asks for the Q4_K family.
bool MeetsQuantization(const std::string& wanted, const std::string& weight_type) {
  const std::string upper = Upper(wanted);
  return upper == weight_type || upper.starts_with(weight_type + "_");
}

bool Meets(const ModelRequest& request, const GgufSummary& summary) {
  if (!request.quantization.empty()) return MeetsQuantization(request.quantization, summary.weight_type);
  const std::string type = WeightTypeOfDtype(request.dtype);
  return type.empty() || type == summary.weight_type;
}

/// Among files that all meet a request the most exact one is taken.
int Precision(const std::string& weight_type) {
  static const std::vector<std::string> kOrder = {"F32", "BF16", "F16", "Q8_0", "Q6_K", "Q5_K", "Q5_1",
                                                  "Q5_0", "Q4_K", "Q4_1", "Q4_0", "Q3_K", "Q2_K"};
  const auto found = std::find(kOrder.begin(), kOrder.end(), weight_type);
  return static_cast<int>(found - kOrder.begin());
}

std::string WhereLooked(const ModelSearchPath& search) {
  std::vector<std::string> places = {"--model flags"};
  if (!search.models_file.empty()) places.push_back(search.models_file);
  places.push_back(search.models_folder.empty() ? "HALO_MODELS (not set)" : search.models_folder);
  if (!search.hugging_face_cache.empty()) places.push_back("the Hugging Face cache " + search.hugging_face_cache);
  return fmt::format("{}", fmt::join(places, ", "));
}

std::string Wanted(const ModelRequest& request) {
  return !request.quantization.empty() ? "quantization " + request.quantization : "dtype " + request.dtype;
}

/// The best file of `files` for a request, or a message saying why none is.
std::string Choose(const ModelRequest& request, const Files& files, ResolvedModel& resolved) {
  std::vector<std::string> there;
  bool found = false;
  for (const std::string& file : files) {
    GgufSummary summary = CheckGguf(file);
    if (!summary.has_weights) return fmt::format("{}: {} has a vocabulary but no weights", request.name, file);
    there.push_back(summary.weight_type + " (" + file + ")");
    if (!Meets(request, summary)) continue;
    if (found && Precision(summary.weight_type) >= Precision(resolved.summary.weight_type)) continue;
    found = true;
    resolved = {request, file, std::move(summary)};
  }
  if (found) return "";
  return fmt::format("{}: no file has {}; there is {}", request.name, Wanted(request), fmt::join(there, ", "));
}

}  // namespace

std::vector<ResolvedModel> ResolveModels(const std::vector<ModelRequest>& requests, const ModelSearchPath& search) {
  const std::map<std::string, Files> listed = ReadModelsFile(search.models_file);
  std::vector<ResolvedModel> resolved;
  std::vector<Diagnostic> faults;
  std::set<std::string> unresolved;
  std::vector<std::string> known;
  for (const auto& [name, file] : search.flags) known.push_back(name);
  for (const auto& [name, files] : listed) known.push_back(name);
  for (const ModelRequest& request : requests) {
    const Files files = Candidates(request.name, search, listed);
    if (files.empty()) {
      if (!unresolved.insert(request.name).second) continue;
      faults.push_back({{}, fmt::format("model '{}' is not known{}", request.name, DidYouMean(request.name, known))});
      continue;
    }
    ResolvedModel model;
    try {
      const std::string fault = Choose(request, files, model);
      if (!fault.empty()) {
        faults.push_back({{}, fault});
      } else {
        resolved.push_back(std::move(model));
      }
    } catch (const Error& error) {
      faults.insert(faults.end(), error.diagnostics().begin(), error.diagnostics().end());
    }
  }
  if (!unresolved.empty()) {
    faults.push_back({{}, "looked in: " + WhereLooked(search)});
    faults.push_back({{}, fmt::format("give a file with --model '{}=FILE.gguf'", *unresolved.begin())});
  }
  if (!faults.empty()) throw Error(ErrorCode::kModel, std::move(faults));
  return resolved;
}

std::vector<std::pair<std::string, std::string>> ListModels(const ModelSearchPath& search) {
  std::vector<std::pair<std::string, std::string>> models(search.flags.begin(), search.flags.end());
  for (const auto& [name, files] : ReadModelsFile(search.models_file)) {
    for (const std::string& file : files) models.emplace_back(name, file);
  }
  std::error_code error;
  constexpr int kDeepest = 3;  // org/name/file
  if (!search.models_folder.empty()) {
    auto entries = fs::recursive_directory_iterator(search.models_folder, error);
    for (; !error && entries != fs::recursive_directory_iterator(); entries.increment(error)) {
      if (entries.depth() >= kDeepest) entries.disable_recursion_pending();
      const fs::path path = entries->path();
      if (!IsGguf(path) || !LiesInside(path, search.models_folder)) continue;
      fs::path name = fs::relative(path, search.models_folder, error);
      models.emplace_back(name.replace_extension().string(), path.string());
    }
  }
  std::sort(models.begin(), models.end());
  return models;
}

}  // namespace halo
