#include "session/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/utc_time.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

constexpr mode_t kOwnerOnly = 0700;
constexpr const char* kManifest = "manifest.json";

[[noreturn]] void Fail(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::kIo, path + ": " + what + ": " + std::strerror(errno));
}

void SynchronizeFolder(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) Fail(path, "cannot be opened");
  // Some file systems cannot do that for folders, and need it not.
  if (fsync(fd) != 0 && errno != EINVAL && errno != EROFS) {
    close(fd);
    Fail(path, "cannot be synchronized");
  }
  close(fd);
}

/// A link that leads to `target` from now on, whatever was there.
void Point(const std::string& link, const std::string& target) {
  const std::string made = link + "." + std::to_string(getpid());
  std::error_code ignored;
  fs::remove(made, ignored);
  if (symlink(target.c_str(), made.c_str()) != 0) Fail(made, "cannot be made");
  if (std::rename(made.c_str(), link.c_str()) != 0) Fail(link, "cannot be made");
}

}  // namespace

RunFolder RunFolder::MakeIn(const std::string& runs, int64_t now) {
  const bool made_runs = mkdir(runs.c_str(), kOwnerOnly) == 0;
  if (!made_runs && errno != EEXIST) Fail(runs, "cannot be made");
  constexpr int kMostInASecond = 10'000;
  const std::string name = runs + "/" + UtcText(now, "%Y%m%d-%H%M%S");
  for (int number = 1;; ++number) {
    RunFolder folder(number == 1 ? name : name + "-" + std::to_string(number));
    if (mkdir(folder.path_.c_str(), kOwnerOnly) != 0) {
      if (errno == EEXIST && number < kMostInASecond) continue;
      Fail(folder.path_, "cannot be made");
    }
    folder.runs_ = runs;
    folder.is_new_ = true;
    folder.made_runs_ = made_runs;
    folder.Lock();
    return folder;
  }
}

RunFolder RunFolder::Make(const std::string& path) {
  RunFolder folder(path);
  folder.is_new_ = mkdir(path.c_str(), kOwnerOnly) == 0;
  if (!folder.is_new_ && errno != EEXIST) Fail(path, "cannot be made");
  std::error_code fault;
  if (!folder.is_new_ && !fs::is_empty(path, fault)) {
    throw Error(ErrorCode::kUsage, fs::exists(path + "/" + kManifest)
                                       ? "--run-dir " + path +
                                             ": a run is kept there already: `halo resume " + path +
                                             "` goes on with it"
                                       : "--run-dir " + path + ": the folder is not empty");
  }
  if (!folder.is_new_ && chmod(path.c_str(), kOwnerOnly) != 0) Fail(path, "cannot be made private");
  folder.Lock();
  return folder;
}

RunFolder RunFolder::Open(const std::string& path) {
  RunFolder folder(path);
  if (!fs::exists(path + "/" + kManifest)) throw Error(ErrorCode::kUsage, path + ": is no run");
  folder.Lock();
  return folder;
}

RunFolder::RunFolder(RunFolder&& other) noexcept
    : path_(std::move(other.path_)),
      runs_(std::move(other.runs_)),
      is_new_(std::exchange(other.is_new_, false)),
      made_runs_(other.made_runs_),
      lock_(std::exchange(other.lock_, -1)) {}

RunFolder::~RunFolder() {
  if (is_new_) {  // nothing has begun
    std::error_code ignored;
    fs::remove_all(path_, ignored);
    if (made_runs_) rmdir(runs_.c_str());  // stays if another run has been made in it
  }
  if (lock_ >= 0) close(lock_);
}

std::string RunFolder::id() const {
  std::error_code fault;
  const fs::path place = fs::weakly_canonical(path_, fault);
  return (fault ? fs::path(path_) : place).filename().string();
}

void RunFolder::Lock() {
  const std::string path = File("lock");
  lock_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_ < 0) Fail(path, "cannot be made");
  if (flock(lock_, LOCK_EX | LOCK_NB) == 0) return;
  if (errno != EWOULDBLOCK) Fail(path, "cannot be locked");
  throw Error(ErrorCode::kUsage, path_ + ": another process works on this run");
}

void RunFolder::Keep() {
  is_new_ = false;
  if (runs_.empty()) return;
  Point(runs_ + "/last", id());
  SynchronizeFolder(runs_);
}

bool IsLocked(const std::string& folder) {
  const int fd = open((folder + "/lock").c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return false;
  const bool locked = flock(fd, LOCK_SH | LOCK_NB) != 0;
  close(fd);
  return locked;
}

std::string FindRun(const std::string& given, const std::string& runs) {
  for (const std::string& path : {given, runs + "/" + given}) {
    if (fs::exists(path + "/" + kManifest)) return path;
  }
  throw Error(ErrorCode::kUsage, given + ": there is no such run, neither as a folder nor in " +
                                     runs + "/ (`halo runs ls` lists them)");
}

std::vector<std::string> ListRuns(const std::string& runs) {
  std::vector<std::string> folders;
  std::error_code fault;
  for (const auto& entry : fs::directory_iterator(runs, fault)) {
    if (!entry.is_symlink() && fs::exists(entry.path() / kManifest))
      folders.push_back(entry.path().string());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

void RemoveRun(const std::string& folder) {
  const RunFolder locked = RunFolder::Open(folder);
  std::error_code fault;
  const fs::path place = fs::canonical(folder, fault);
  if (!fault) fs::remove(place / kManifest, fault);  // from now on it is no run
  if (!fault) fs::remove_all(place, fault);
  if (fault) throw Error(ErrorCode::kIo, folder + ": cannot be deleted: " + fault.message());
  const std::string runs = place.parent_path().string();
  const std::vector<std::string> others = ListRuns(runs);
  std::vector<fs::path> links;
  for (const auto& entry : fs::directory_iterator(runs, fault)) {
    if (entry.is_symlink() && fs::read_symlink(entry.path(), fault) == place.filename())
      links.push_back(entry.path());
  }
  for (const fs::path& link : links) {
    if (link.filename() == "last" && !others.empty()) {
      Point(link.string(), fs::path(others.back()).filename().string());
    } else {
      fs::remove(link, fault);
    }
  }
}

std::optional<std::string> FindUnfinished(const std::string& runs, const std::string& same) {
  const std::string link = runs + "/.unfinished-" + same;
  std::error_code fault;
  const fs::path target = fs::read_symlink(link, fault);
  if (fault || !fs::exists(link + "/" + kManifest)) return std::nullopt;
  return target.is_absolute() ? target.string() : runs + "/" + target.string();
}

void PointUnfinished(const std::string& runs, const std::string& same, const std::string& folder) {
  const std::string link = runs + "/.unfinished-" + same;
  std::error_code ignored;  // it was not there
  if (folder.empty()) {
    fs::remove(link, ignored);
  } else {
    Point(link, folder);
  }
}

void WriteWhole(const std::string& path, const std::string& text) {
  const std::string made = path + ".new";
  const int fd = open(made.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) Fail(made, "cannot be made");
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t put = write(fd, text.data() + done, text.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) {
      close(fd);
      Fail(made, "cannot be written");
    }
    done += static_cast<size_t>(put);
  }
  const bool synchronized = fsync(fd) == 0 || errno == EINVAL;
  close(fd);
  if (!synchronized) Fail(made, "cannot be synchronized");
  if (std::rename(made.c_str(), path.c_str()) != 0) Fail(path, "cannot be made");
  const std::string folder = fs::path(path).parent_path().string();
  SynchronizeFolder(folder.empty() ? "." : folder);
}

}  // namespace halo
