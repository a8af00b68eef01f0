#include "workflow/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace halo {

InputFile::InputFile(std::string path) : path_(std::move(path)) {
  // O_NONBLOCK: opening a FIFO would wait for a writer.
  fd_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat status {};
  std::string fault;
  if (fd_ < 0 || fstat(fd_, &status) != 0) {
    fault = std::strerror(errno);
  } else if (!S_ISREG(status.st_mode)) {
    fault = "it is not a regular file (rows that come through a pipe are read with '-')";
  }
  if (!fault.empty()) {
    if (fd_ >= 0) close(fd_);
    throw Error(ErrorCode::kRows, {{{path_, 0, 0}, "cannot read the rows: " + fault}});
  }
  size_bytes_ = status.st_size;
  modified_ = status.st_mtim;
}

InputFile::~InputFile() { close(fd_); }

void InputFile::Rewind() { lseek(fd_, 0, SEEK_SET); }

void InputFile::CheckUnchanged() const {
  struct stat status {};
  const bool same = fstat(fd_, &status) == 0 && status.st_size == size_bytes_ &&
                    status.st_mtim.tv_sec == modified_.tv_sec &&
                    status.st_mtim.tv_nsec == modified_.tv_nsec;
  if (!same) ReportChange();
}

void InputFile::ReportChange() const {
  throw Error(ErrorCode::kIo, {{{path_, 0, 0},
                                "the file has changed since it was checked: run again, and let "
                                "nothing write to it meanwhile"}});
}

size_t ReadSome(int fd, char* buffer, size_t capacity_bytes, const std::string& path) {
  while (true) {
    const ssize_t got = read(fd, buffer, capacity_bytes);
    if (got >= 0) return static_cast<size_t>(got);
    if (errno == EINTR) continue;
    throw Error(ErrorCode::kIo,
                {{{path, 0, 0}, std::string("cannot read: ") + std::strerror(errno)}});
  }
}

}  // namespace halo
