#include "workflow/row_spool.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace halo {

RowSpool::RowSpool(const std::string& folder, const std::string& name) {
  constexpr int kMostSpools = 10'000;
  for (int number = 1; fd_ < 0; ++number) {
    const std::string suffix = number == 1 ? "" : "-" + std::to_string(number);
    path_ = folder + "/" + name + suffix + ".jsonl";
    fd_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd_ < 0 && (errno != EEXIST || number == kMostSpools)) Fail("create");
  }
}

RowSpool::~RowSpool() { close(fd_); }

void RowSpool::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno != EINTR) Fail("write");
    if (written > 0) bytes.remove_prefix(static_cast<size_t>(written));
  }
}

void RowSpool::Fail(const char* what) const {
  throw Error(ErrorCode::kIo, {{{path_, 0, 0},
                                std::string("cannot ") + what +
                                    " the file that rows are kept in: " + std::strerror(errno)}});
}

}  // namespace halo
