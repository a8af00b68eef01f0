#pragma once

#include <optional>
#include <string>
#include <vector>

namespace halo {

/// The folder that a run keeps itself in, and its lock: one process works on a run at a time.
/// Nobody but the user may look into it (0700): it has rows, prompts and answers.
///
/// A folder of runs (`runs/`) has a folder for each, named after when it began, and links:
/// `last` to the newest, `.unfinished-HASH` to the run that has not come to its end of all that
/// would do the same thing.
class RunFolder {
 public:
  /// Makes a new one in `runs`, which is made too. `now`: seconds since 1970, for its name. Throws
  /// Error(kIo).
  static RunFolder MakeIn(const std::string& runs, int64_t now);
  /// Makes `path`, or takes it if it is an empty folder. Throws Error(kIo, kUsage).
  static RunFolder Make(const std::string& path);
  /// An earlier run's. Throws Error(kUsage) where there is none, or another process works on it.
  static RunFolder Open(const std::string& path);

  RunFolder(RunFolder&& other) noexcept;
  RunFolder& operator=(RunFolder&&) = delete;
  ~RunFolder();

  const std::string& path() const { return path_; }  ///< as it was given
  std::string id() const;                            ///< the folder's name
  std::string File(const std::string& name) const { return path_ + "/" + name; }
  /// The run has begun: from now on the folder stays, and is the newest one of its `runs`.
  void Keep();

 private:
  explicit RunFolder(std::string path) : path_(std::move(path)) {}
  void Lock();

  std::string path_;
  std::string runs_;     // that it was made in; "": it has a place of its own
  bool is_new_ = false;  // nothing is lost with it
  bool made_runs_ = false;
  int lock_ = -1;
};

/// True while a process works on the run.
bool IsLocked(const std::string& folder);

/// The folder that a person means: a path, or the name of one in `runs`. Throws Error(kUsage).
std::string FindRun(const std::string& given, const std::string& runs);

/// The folders of all runs in `runs`, oldest first.
std::vector<std::string> ListRuns(const std::string& runs);

/// Deletes a run's folder, and what led to it; `last` leads to the newest of the others then.
/// Throws Error(kUsage) where it is none or a process works on it, Error(kIo).
void RemoveRun(const std::string& folder);

/// The unfinished run in `runs` that would do the same thing, by the hash of what that is.
std::optional<std::string> FindUnfinished(const std::string& runs, const std::string& same);
/// Sets the link to `folder`, or takes it away ("").
void PointUnfinished(const std::string& runs, const std::string& same, const std::string& folder);

/// Writes a file at once: a reader sees the old or the new one, whole, also after a loss of power.
/// Throws Error(kIo).
void WriteWhole(const std::string& path, const std::string& text);

}  // namespace halo
