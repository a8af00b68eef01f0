#include "session/profile_store.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "model/part_file.h"

namespace halo {
namespace {

/// The file's text, or nothing if there is no file. Throws Error(kIo).
std::optional<std::string> TextOf(const std::string& path) {
  constexpr std::streamsize kMost = (16 << 20) + 1;  // what ReadCostProfile refuses
  std::error_code fault;
  const auto status = std::filesystem::status(path, fault);
  if (status.type() == std::filesystem::file_type::not_found) return std::nullopt;
  if (!std::filesystem::is_regular_file(status))
    throw Error(ErrorCode::kIo, path + ": a cost profile is a file, and this is none");
  std::ifstream file(path, std::ios::binary);
  std::string text(static_cast<size_t>(std::min<uintmax_t>(std::filesystem::file_size(path, fault),
                                                           static_cast<uintmax_t>(kMost))),
                   '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (fault || !file) throw Error(ErrorCode::kIo, path + ": cannot be read");
  return text;
}

std::string OtherMachine(const std::string& path, const CostProfile& profile,
                         const std::string& fingerprint) {
  return path + " was measured on another machine or by another build (" + profile.machine +
         "), this is " + fingerprint;
}

/// What is in the file now; an empty profile of this machine if there is none.
CostProfile CurrentProfile(const std::string& path, const std::string& fingerprint) {
  const std::optional<std::string> text = TextOf(path);
  CostProfile profile;
  profile.machine = fingerprint;
  if (!text) return profile;
  CostProfile current = ReadCostProfile(*text, path);
  if (current.machine != fingerprint) {
    throw Error(ErrorCode::kConfig, OtherMachine(path, current, fingerprint) +
                                        "; name another file with --profile, or remove it");
  }
  return current;
}

}  // namespace

LoadedProfile LoadProfileFor(const std::string& path, const std::string& fingerprint) {
  LoadedProfile loaded;
  try {
    const std::optional<std::string> text = TextOf(path);
    if (!text) {
      loaded.why_not =
          "no cost profile at " + path + "; halo calibrate --model NAME=FILE measures this machine";
      return loaded;
    }
    CostProfile profile = ReadCostProfile(*text, path);
    if (profile.machine == fingerprint) {
      loaded.profile = std::move(profile);
    } else {
      loaded.why_not = OtherMachine(path, profile, fingerprint) + "; halo calibrate measures it";
    }
  } catch (const Error& error) {
    loaded.why_not = error.what();
  }
  return loaded;
}

void CheckProfileFile(const std::string& path, const std::string& fingerprint) {
  CurrentProfile(path, fingerprint);
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code fault;
  if (!folder.empty()) std::filesystem::create_directories(folder, fault);
  if (fault) {
    throw Error(ErrorCode::kIo, folder.string() + ": cannot make this folder for profiles: " +
                                    fault.message() + "; name a file with --profile");
  }
  // Found out before anything is measured; nothing is left behind.
  const PartFile probe(path);
}

void StoreModelProfile(const std::string& path, const std::string& fingerprint, int32_t threads,
                       const ModelProfile& model) {
  CostProfile profile = CurrentProfile(path, fingerprint);
  profile.threads = threads;
  const auto known = std::find_if(
      profile.models.begin(), profile.models.end(),
      [&](const ModelProfile& other) { return other.model_digest == model.model_digest; });
  if (known == profile.models.end()) {
    profile.models.push_back(model);
  } else {
    *known = model;
  }
  const std::string text = ToJson(profile);
  PartFile file(path);
  file.WriteHeader(text, text.size());
  file.Keep();
}

}  // namespace halo
