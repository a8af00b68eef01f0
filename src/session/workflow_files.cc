#include "session/workflow_files.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

fs::path FolderOf(const std::string& workflow_path) {
  return fs::weakly_canonical(fs::absolute(workflow_path)).parent_path();
}

/// Where a name in a workflow's folder leads, links followed. What leads nowhere (links in a
/// circle, a folder that may not be looked into) stays where it is, and is no file.
fs::path FollowIn(const fs::path& folder, const std::string& name) {
  std::error_code fault;
  const fs::path path = fs::weakly_canonical(folder / name, fault);
  return fault ? folder / name : path;
}

bool IsWithin(const fs::path& folder, const fs::path& path) {
  const auto [folder_end, unused] =
      std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return folder_end == folder.end();
}

bool IsFile(const fs::path& path) {
  std::error_code ignored;  // what cannot be looked at is not there
  return fs::is_regular_file(path, ignored);
}

}  // namespace

std::string DatasetOf(const Workflow& workflow, const std::string& workflow_path) {
  if (workflow.dataset.empty())
    throw Error(ErrorCode::kUsage,
                "no rows given: use -i ROWS.jsonl, or name a file in the workflow's `dataset`");
  const fs::path folder = FolderOf(workflow_path);
  const fs::path rows = FollowIn(folder, workflow.dataset);
  if (!IsWithin(folder, rows)) {
    throw Error(ErrorCode::kUsage,
                "the workflow's dataset '" + workflow.dataset +
                    "' lies outside its folder: if you trust it, give it with -i");
  }
  if (!IsFile(rows)) {
    throw Error(ErrorCode::kUsage, "no rows given, and the workflow's dataset '" +
                                       workflow.dataset +
                                       "' is no file in its folder: use -i ROWS.jsonl");
  }
  return rows.string();
}

std::string FindAdapter(const LoraSpec& lora, const std::string& workflow_path,
                        const std::string& models_folder, std::vector<Diagnostic>& faults) {
  const fs::path own = FolderOf(workflow_path);
  const fs::path beside = FollowIn(own, lora.file);
  if (IsWithin(own, beside) && IsFile(beside)) return beside.string();
  bool outside = IsFile(beside);
  if (!models_folder.empty()) {
    // The person's own folder: links in it are theirs, and may lead elsewhere.
    const fs::path folder = fs::absolute(models_folder).lexically_normal();
    const fs::path path = (folder / lora.file).lexically_normal();
    if (IsWithin(folder, path) && IsFile(path)) return fs::weakly_canonical(path).string();
    outside = outside || IsFile(path);
  }
  const std::string where = models_folder.empty()
                                ? "the workflow's folder (HALO_MODELS may name another)"
                                : "the workflow's folder or in " + models_folder;
  faults.push_back({lora.location, "lora_config: '" + lora.file + "' " +
                                       (outside ? "lies outside: put it into " + where
                                                : "is no file in " + where)});
  return "";
}

}  // namespace halo
