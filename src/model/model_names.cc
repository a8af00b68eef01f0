#include "model/model_names.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <string_view>

#include "base/error.h"
#include "base/text.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using Files = std::vector<std::string>;

/// Files found for a name, and those that were left out for lying outside the folder.
struct Found {
  Files files;
  Files outside;
};

char UpperLetter(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }

std::string Upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), UpperLetter);
  return text;
}

bool IsGguf(const fs::path& path) { return path.extension() == ".gguf"; }

/// True if `path`, links resolved, lies inside `folder`.
bool LiesInside(const fs::path& path, const fs::path& folder) {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  if (error) return false;
  const fs::path root = fs::canonical(folder, error);
  return !error &&
         std::mismatch(root.begin(), root.end(), real.begin(), real.end()).first == root.end();
}

/// Names go into paths: nothing but plain components.
bool IsPlainName(const std::string& name) {
  if (name.empty() || name.front() == '/' || name.find('\\') != std::string::npos ||
      name.find('\0') != std::string::npos) {
    return false;
  }
  const fs::path path(name);
  return std::none_of(path.begin(), path.end(), [](const fs::path& part) {
    return part == ".." || part == "." || part.empty();
  });
}

/// NAME, NAME-Q8_0, NAME.Q8_0 for the stem NAME.
bool IsVariantOf(const std::string& file_stem, const std::string& stem) {
  if (file_stem == stem) return true;
  if (!file_stem.starts_with(stem) || file_stem.size() < stem.size() + 3) return false;
  const char separator = file_stem[stem.size()];
  if (separator != '-' && separator != '.') return false;
  const std::string rest = Upper(file_stem.substr(stem.size() + 1));
  constexpr std::array<std::string_view, 7> kPrefixes = {"Q",    "IQ",  "TQ",   "F16",
                                                         "BF16", "F32", "MXFP4"};
  return std::any_of(kPrefixes.begin(), kPrefixes.end(), [&](std::string_view prefix) {
    const bool needs_digit = prefix.back() == 'Q';
    return rest.starts_with(prefix) &&
           (!needs_digit || (rest.size() > prefix.size() && rest[prefix.size()] >= '0' &&
                             rest[prefix.size()] <= '9'));
  });
}

/// Adds the files of one folder whose stem passes; sorted, so that the choice does not depend on
/// the file system's order.
template <typename Passes>
void AddFilesIn(const fs::path& folder, const fs::path& root, Passes passes, Found& found) {
  Found here;
  std::error_code error;
  for (auto entry = fs::directory_iterator(folder, error);
       !error && entry != fs::directory_iterator(); entry.increment(error)) {
    std::error_code not_regular;
    if (!IsGguf(entry->path()) || !passes(entry->path().stem().string())) continue;
    if (!entry->is_regular_file(not_regular)) continue;
    (LiesInside(entry->path(), root) ? here.files : here.outside).push_back(entry->path().string());
  }
  std::sort(here.files.begin(), here.files.end());
  std::sort(here.outside.begin(), here.outside.end());
  found.files.insert(found.files.end(), here.files.begin(), here.files.end());
  found.outside.insert(found.outside.end(), here.outside.begin(), here.outside.end());
}

bool AnyStem(const std::string&) { return true; }

Found FromFolder(const std::string& name, const fs::path& folder) {
  Found found;
  if (folder.empty() || !IsPlainName(name)) return found;
  const fs::path wanted = folder / name;
  const std::string stem = wanted.filename().string();
  AddFilesIn(
      wanted.parent_path(), folder, [&](const std::string& s) { return IsVariantOf(s, stem); },
      found);
  AddFilesIn(wanted, folder, AnyStem, found);
  return found;
}

/// The snapshot folders of a cached repository, the revision that refs/main names first.
std::vector<fs::path> Snapshots(const fs::path& repository) {
  std::vector<fs::path> snapshots;
  std::error_code error;
  for (auto entry = fs::directory_iterator(repository / "snapshots", error);
       !error && entry != fs::directory_iterator(); entry.increment(error)) {
    snapshots.push_back(entry->path());
  }
  std::string main_revision;
  std::ifstream reference(repository / "refs" / "main");
  std::getline(reference, main_revision);
  std::sort(snapshots.begin(), snapshots.end());
  std::stable_partition(snapshots.begin(), snapshots.end(), [&](const fs::path& snapshot) {
    return snapshot.filename() == main_revision;
  });
  return snapshots;
}

/// Files of the first revision that has any. They are links into the cache's own blobs.
Found FromHuggingFace(const std::string& name, const fs::path& cache) {
  Found found;
  if (cache.empty() || !IsPlainName(name)) return found;
  std::string folder_name = "models--" + name;
  for (size_t at = 0; (at = folder_name.find('/', at)) != std::string::npos;)
    folder_name.replace(at, 1, "--");
  for (const fs::path& snapshot : Snapshots(cache / folder_name)) {
    AddFilesIn(snapshot, cache, AnyStem, found);
    if (!found.files.empty()) break;
  }
  return found;
}

/// An entry of a models file.
struct ListedModel {
  Files files;
  std::optional<PricePerMillion> price;
};
using ModelsFile = std::map<std::string, ListedModel>;

[[noreturn]] void ThrowAt(const std::string& path, const YAML::Mark& mark,
                          const std::string& message) {
  throw Error(ErrorCode::kConfig,
              std::vector<Diagnostic>{
                  {{path, mark.is_null() ? 0 : mark.line + 1, mark.is_null() ? 0 : mark.column + 1},
                   message}});
}

Files FilesOfEntry(const std::string& path, const YAML::Node& entry) {
  const fs::path folder = fs::path(path).parent_path();
  Files files;
  const auto add = [&](const YAML::Node& file) {
    if (!file.IsScalar() || file.Scalar().empty())
      ThrowAt(path, file.Mark(), "expected a file, or a list of files");
    files.push_back((folder / file.Scalar()).string());
  };
  if (!entry.IsSequence()) {
    add(entry);
  } else {
    for (const YAML::Node& file : entry) add(file);
  }
  if (files.empty()) ThrowAt(path, entry.Mark(), "an empty list of files");
  return files;
}

PricePerMillion PriceOfEntry(const std::string& path, const YAML::Node& entry) {
  constexpr double kMost = 1e6;
  constexpr const char* kExpected = "price: expected {prompt: NUMBER, output: NUMBER}";
  if (!entry.IsMap()) ThrowAt(path, entry.Mark(), kExpected);
  PricePerMillion price;
  for (const auto& part : entry) {
    const std::string name = part.first.as<std::string>();
    if (name != "prompt" && name != "output") ThrowAt(path, part.first.Mark(), kExpected);
    const double amount = part.second.as<double>();
    if (!(amount >= 0.0 && amount <= kMost))
      ThrowAt(path, part.second.Mark(), "price: expected a number from 0 to 1000000");
    (name == "prompt" ? price.prompt : price.output) = amount;
  }
  return price;
}

ListedModel ModelOfEntry(const std::string& path, const YAML::Node& entry) {
  ListedModel model;
  if (!entry.IsMap()) {
    model.files = FilesOfEntry(path, entry);
    return model;
  }
  for (const auto& part : entry) {
    const std::string key = part.first.as<std::string>();
    if (key == "file") {
      model.files = FilesOfEntry(path, part.second);
    } else if (key == "price") {
      model.price = PriceOfEntry(path, part.second);
    } else {
      ThrowAt(
          path, part.first.Mark(),
          fmt::format("unknown key '{}' of a model{}", key, DidYouMean(key, {"file", "price"})));
    }
  }
  if (model.files.empty()) ThrowAt(path, entry.Mark(), "a model has no file");
  return model;
}

ModelsFile ReadModelsFile(const std::string& path) {
  ModelsFile models;
  if (path.empty()) return models;
  std::ifstream stream(path);
  if (!stream) throw Error(ErrorCode::kConfig, path + ": cannot be read");
  try {
    YAML::Node root = YAML::Load(stream);
    if (root.IsMap() && root.size() == 1 && root["models"].IsDefined() && root["models"].IsMap()) {
      root.reset(root["models"]);
    }
    if (root.IsNull()) return models;
    if (!root.IsMap()) ThrowAt(path, root.Mark(), "expected a mapping of model names to files");
    for (const auto& entry : root) {
      const std::string name = entry.first.as<std::string>();
      if (models.count(name) != 0)
        ThrowAt(path, entry.first.Mark(), fmt::format("model '{}' twice", name));
      models[name] = ModelOfEntry(path, entry.second);
    }
  } catch (const YAML::Exception& error) {
    ThrowAt(path, error.mark, error.msg);
  }
  return models;
}

Found Candidates(const std::string& name, const ModelSearchPath& search, const ModelsFile& listed) {
  if (const auto flag = search.flags.find(name); flag != search.flags.end())
    return {{flag->second}, {}};
  if (const auto file = listed.find(name); file != listed.end()) return {file->second.files, {}};
  Found found = FromFolder(name, search.models_folder);
  if (!found.files.empty()) return found;
  Found cached = FromHuggingFace(name, search.hugging_face_cache);
  cached.outside.insert(cached.outside.end(), found.outside.begin(), found.outside.end());
  if (!cached.files.empty()) return cached;
  Found shipped = FromFolder(name, search.shipped_folder);
  shipped.outside.insert(shipped.outside.end(), cached.outside.begin(), cached.outside.end());
  return shipped;
}

constexpr std::array<std::string_view, 6> kDtypes = {"bfloat16", "float16", "half",
                                                     "float32",  "float",   "auto"};

/// What a workflow's `dtype` calls the weight types of files; "" for any.
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
  if (!request.quantization.empty())
    return MeetsQuantization(request.quantization, summary.weight_type);
  const std::string type = WeightTypeOfDtype(request.dtype);
  return type.empty() || type == summary.weight_type;
}

/// Smaller is better: named like the asked quantization (Q4_K_M and Q4_K_S files have the same
/// weight type), then exact.
std::pair<bool, ptrdiff_t> Rank(const ModelRequest& request, const std::string& file,
                                const GgufSummary& summary) {
  constexpr std::array<std::string_view, 17> kOrder = {
      "F32",    "BF16",   "F16",  "Q8_0", "Q6_K", "Q5_K",  "Q5_1", "Q5_0", "Q4_K",
      "IQ4_NL", "IQ4_XS", "Q4_1", "Q4_0", "Q3_K", "IQ3_S", "Q2_K", "IQ2_S"};
  const std::string file_name = Upper(fs::path(file).filename().string());
  const bool unnamed = file_name.find(Upper(request.quantization)) == std::string::npos;
  return {unnamed, std::find(kOrder.begin(), kOrder.end(), summary.weight_type) - kOrder.begin()};
}

std::string WhereLooked(const ModelSearchPath& search) {
  std::vector<std::string> places = {"--model flags"};
  places.push_back(search.models_file.empty() ? "--models (not given)" : search.models_file);
  places.push_back(search.models_folder.empty() ? "HALO_MODELS (not set)" : search.models_folder);
  places.push_back(search.hugging_face_cache.empty()
                       ? "the Hugging Face cache (none)"
                       : "the Hugging Face cache " + search.hugging_face_cache);
  if (!search.shipped_folder.empty()) places.push_back(search.shipped_folder);
  return fmt::format("{}", fmt::join(places, ", "));
}

/// One call of ResolveModels: remembers checked files, collects faults.
class Resolver {
 public:
  explicit Resolver(const ModelSearchPath& search)
      : search_(search), listed_(ReadModelsFile(search.models_file)) {}

  void Resolve(const ModelRequest& request) {
    if (std::find(kDtypes.begin(), kDtypes.end(), request.dtype) == kDtypes.end() &&
        !request.dtype.empty()) {
      AddFault(fmt::format("model '{}': dtype '{}' is none of {}{}", request.name, request.dtype,
                           fmt::join(kDtypes, ", "),
                           DidYouMean(request.dtype, {kDtypes.begin(), kDtypes.end()})));
      return;
    }
    const Found found = Candidates(request.name, search_, listed_);
    if (found.files.empty()) {
      AddUnknown(request.name, found.outside);
    } else {
      Choose(request, found.files);
    }
  }

  std::vector<ResolvedModel> Finish() {
    if (!unknown_.empty()) {
      AddFault("looked in: " + WhereLooked(search_));
      AddFault(fmt::format("give a file with --model '{}=FILE.gguf'", unknown_.front()));
    }
    if (!faults_.empty()) throw Error(ErrorCode::kModel, std::move(faults_));
    return std::move(resolved_);
  }

 private:
  void AddFault(std::string message) {
    if (told_.insert(message).second) faults_.push_back({{}, std::move(message)});
  }

  void AddUnknown(const std::string& name, const Files& outside) {
    if (std::find(unknown_.begin(), unknown_.end(), name) != unknown_.end()) return;
    unknown_.push_back(name);
    std::vector<std::string> known;
    for (auto& [known_name, path] : ListModels(search_)) known.push_back(std::move(known_name));
    AddFault(fmt::format("model '{}' is not known{}", name, DidYouMean(name, known)));
    for (const std::string& file : outside) {
      AddFault(fmt::format("model '{}': {} is not used: it leads outside its folder", name, file));
    }
  }

  /// The file's summary, or nothing and why.
  const std::optional<GgufSummary>& Summary(const std::string& file, std::string& fault) {
    const auto [place, is_new] = checked_.try_emplace(file);
    if (is_new) {
      try {
        place->second.summary = CheckGguf(file);
        if (!place->second.summary->has_weights) {
          place->second.summary.reset();
          place->second.fault = file + ": has a vocabulary but no weights";
        }
      } catch (const Error& error) {
        place->second.fault = error.what();
      }
    }
    fault = place->second.fault;
    return place->second.summary;
  }

  void Choose(const ModelRequest& request, const Files& files) {
    const std::string* best = nullptr;
    Files sound, broken;
    for (const std::string& file : files) {
      std::string fault;
      const std::optional<GgufSummary>& summary = Summary(file, fault);
      if (!summary) {
        broken.push_back(fault);
        continue;
      }
      sound.push_back(fmt::format("{} ({})", summary->weight_type, file));
      if (!Meets(request, *summary)) continue;
      if (best == nullptr ||
          Rank(request, file, *summary) < Rank(request, *best, *checked_.at(*best).summary)) {
        best = &file;
      }
    }
    if (best != nullptr) {
      resolved_.push_back({request, *best, *checked_.at(*best).summary});
      return;
    }
    for (const std::string& fault : broken)
      AddFault(fmt::format("model '{}': {}", request.name, fault));
    if (sound.empty()) return;
    const std::string wanted = !request.quantization.empty()
                                   ? "quantization " + request.quantization
                                   : "dtype " + request.dtype;
    AddFault(fmt::format("model '{}': no file has {}; there is {}", request.name, wanted,
                         fmt::join(sound, ", ")));
  }

  struct Checked {
    std::optional<GgufSummary> summary;
    std::string fault;
  };

  const ModelSearchPath& search_;
  const ModelsFile listed_;
  std::map<std::string, Checked> checked_;
  std::vector<ResolvedModel> resolved_;
  std::vector<std::string> unknown_;
  std::vector<Diagnostic> faults_;
  std::set<std::string> told_;
};

using Listing = std::vector<std::pair<std::string, std::string>>;

void ListFolder(const fs::path& folder, Listing& models) {
  constexpr int kDeepest = 2;  // org/name/file.gguf
  std::error_code error;
  for (auto entry = fs::recursive_directory_iterator(folder, error);
       !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    if (entry.depth() >= kDeepest) entry.disable_recursion_pending();
    std::error_code not_regular;
    if (!IsGguf(entry->path()) || !entry->is_regular_file(not_regular) ||
        !LiesInside(entry->path(), folder))
      continue;
    models.emplace_back(entry->path().lexically_relative(folder).replace_extension().string(),
                        entry->path().string());
  }
}

void ListHuggingFace(const fs::path& cache, Listing& models) {
  constexpr std::string_view kPrefix = "models--";
  std::error_code error;
  for (auto entry = fs::directory_iterator(cache, error);
       !error && entry != fs::directory_iterator(); entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    name.erase(0, kPrefix.size());
    // An organization's name has no "--".
    if (const size_t at = name.find("--"); at != std::string::npos) name.replace(at, 2, "/");
    for (const std::string& file : FromHuggingFace(name, cache).files)
      models.emplace_back(name, file);
  }
}

}  // namespace

std::vector<ResolvedModel> ResolveModels(const std::vector<ModelRequest>& requests,
                                         const ModelSearchPath& search) {
  Resolver resolver(search);
  for (const ModelRequest& request : requests) resolver.Resolve(request);
  return resolver.Finish();
}

std::map<std::string, PricePerMillion> ReadModelPrices(const std::string& models_file) {
  std::map<std::string, PricePerMillion> prices;
  for (const auto& [name, listed] : ReadModelsFile(models_file)) {
    if (listed.price) prices[name] = *listed.price;
  }
  return prices;
}

std::vector<std::pair<std::string, std::string>> ListModels(const ModelSearchPath& search) {
  Listing models(search.flags.begin(), search.flags.end());
  for (const auto& [name, listed] : ReadModelsFile(search.models_file)) {
    for (const std::string& file : listed.files) models.emplace_back(name, file);
  }
  if (!search.models_folder.empty()) ListFolder(search.models_folder, models);
  if (!search.hugging_face_cache.empty()) ListHuggingFace(search.hugging_face_cache, models);
  if (!search.shipped_folder.empty()) ListFolder(search.shipped_folder, models);
  std::sort(models.begin(), models.end());
  return models;
}

}  // namespace halo
