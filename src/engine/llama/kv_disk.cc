#include "engine/llama/kv_disk.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <iterator>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include "base/clock.h"
#include "base/descriptor.h"
#include "base/hash.h"

namespace halo {
namespace {

/// 200 MB a second each way.
constexpr double kFirstUsPerByte = 0.005;

/// False if not all of it was moved.
template <typename Move, typename Byte>
bool MoveAll(Move move, int fd, Byte* bytes, size_t count, int64_t offset) {
  size_t done = 0;
  while (done < count) {
    const ssize_t moved = move(fd, bytes + done, count - done, offset + static_cast<int64_t>(done));
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) return false;
    done += static_cast<size_t>(moved);
  }
  return true;
}

/// How long bytes take.
struct Rate {
  int64_t bytes = 0, us = 0;
  double UsPerByte() const {
    return bytes > 0 ? static_cast<double>(us) / static_cast<double>(bytes) : kFirstUsPerByte;
  }
};

}  // namespace

struct KvDisk::File {
  Descriptor fd;
  int64_t most_bytes = 0;

  mutable std::mutex mutex;
  std::condition_variable changed;
  // Under the mutex:
  std::map<int64_t, int64_t> gaps;  ///< offset -> bytes, never two side by side
  int64_t end = 0;                  ///< of what is in use; no gap reaches it
  std::deque<std::shared_ptr<Place>> queue;
  int64_t unwritten_bytes = 0;
  int64_t faults = 0;
  bool is_over = false;
  Rate writing, reading;

  std::optional<int64_t> Take(int64_t bytes) {
    for (auto gap = gaps.begin(); gap != gaps.end(); ++gap) {
      if (gap->second < bytes) continue;
      const auto [offset, length] = *gap;
      gaps.erase(gap);
      if (length > bytes) gaps.emplace(offset + bytes, length - bytes);
      return offset;
    }
    if (end + bytes > most_bytes) return std::nullopt;
    return std::exchange(end, end + bytes);
  }

  void GiveBack(int64_t offset, int64_t bytes) {
    auto next = gaps.lower_bound(offset);
    if (next != gaps.end() && next->first == offset + bytes) {
      bytes += next->second;
      next = gaps.erase(next);
    }
    if (next != gaps.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second == offset) {
        offset = before->first;
        bytes += before->second;
        gaps.erase(before);
      }
    }
    if (offset + bytes == end) {
      end = offset;
    } else {
      gaps.emplace(offset, bytes);
    }
  }
};

class KvDisk::Place {
 public:
  Place(std::shared_ptr<File> file, std::shared_ptr<const KvBlob> blob, int64_t offset)
      : file_(std::move(file)),
        offset_(offset),
        bytes_(blob->size()),
        tokens_(blob->tokens),
        hash_(Hash64(blob->data())),
        unwritten_(std::move(blob)) {}
  ~Place() {
    const std::scoped_lock lock(file_->mutex);
    file_->GiveBack(offset_, bytes_);
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

 private:
  friend class KvDisk;
  std::shared_ptr<File> file_;
  int64_t offset_, bytes_;
  int32_t tokens_;
  uint64_t hash_;
  // Under the file's mutex:
  std::shared_ptr<const KvBlob> unwritten_;  ///< null: it is on the disk, or lost
  bool is_lost_ = false;
};

KvDisk::KvDisk(std::string folder, int64_t most_bytes, int64_t most_unwritten_bytes)
    : folder_(std::move(folder)),
      most_bytes_(most_bytes),
      most_unwritten_bytes_(most_unwritten_bytes) {}

KvDisk::~KvDisk() {
  if (!file_) return;
  const std::scoped_lock lock(file_->mutex);
  file_->is_over = true;
  file_->changed.notify_all();
}

/// With the first blob.
bool KvDisk::Open() {
  file_ = std::make_shared<File>();
  file_->most_bytes = most_bytes_;
  std::string path = folder_ + "/halo-kv-XXXXXX";  // mkostemp writes letters in place of the X
  file_->fd = Descriptor(mkostemp(path.data(), O_CLOEXEC));
  if (!file_->fd) {
    file_->faults = 1;
    return false;
  }
  unlink(path.c_str());
  try {
    writer_ = std::jthread([this] { Write(); });
  } catch (const std::system_error&) {
    file_->faults = 1;
    return false;
  }
  return true;
}

std::shared_ptr<KvDisk::Place> KvDisk::Put(std::shared_ptr<const KvBlob> blob) {
  if (!file_ && !Open()) return nullptr;
  const int64_t bytes = blob->size();
  const std::scoped_lock lock(file_->mutex);
  const bool is_much = file_->unwritten_bytes + bytes > most_unwritten_bytes_;
  if (file_->faults > 0 || (is_much && !file_->queue.empty())) return nullptr;
  const std::optional<int64_t> offset = file_->Take(bytes);
  if (!offset) return nullptr;
  auto place = std::make_shared<Place>(file_, std::move(blob), *offset);
  file_->unwritten_bytes += bytes;
  file_->queue.push_back(place);
  file_->changed.notify_all();
  return place;
}

/// What the thread does: writes what is handed over, oldest first.
void KvDisk::Write() {
  const SteadyClock clock;
  File& file = *file_;
  std::unique_lock lock(file.mutex);
  while (true) {
    file.changed.wait(lock, [&] { return file.is_over || !file.queue.empty(); });
    if (file.is_over) break;
    std::shared_ptr<Place> place = std::move(file.queue.front());
    file.queue.pop_front();
    const std::shared_ptr<const KvBlob> blob = place->unwritten_;
    const bool is_wanted = place.use_count() > 1 && file.faults == 0;
    bool is_written = false;
    int64_t us = 0;
    lock.unlock();
    if (is_wanted) {
      const int64_t start_us = clock.NowUs();
      const std::string_view data = blob->data();
      is_written = MoveAll(pwrite, file.fd.get(), data.data(), data.size(), place->offset_);
      us = clock.NowUs() - start_us;
    }
    lock.lock();
    if (is_wanted && !is_written) ++file.faults;
    if (is_written) {
      file.writing.bytes += place->bytes_;
      file.writing.us += us;
    }
    place->is_lost_ = !is_written;
    place->unwritten_.reset();
    file.unwritten_bytes -= place->bytes_;
    lock.unlock();
    place.reset();  // may give its room back, which takes the lock
    lock.lock();
  }
  // Places that are still to be written go with the queue, which takes the lock for each.
  std::deque<std::shared_ptr<Place>> left = std::move(file.queue);
  lock.unlock();
}

std::shared_ptr<const KvBlob> KvDisk::Read(Place& place) {
  {
    const std::scoped_lock lock(file_->mutex);
    if (place.unwritten_ || place.is_lost_) return place.unwritten_;
  }
  const SteadyClock clock;
  const int64_t start_us = clock.NowUs();
  auto blob = std::make_shared<KvBlob>();
  blob->tokens = place.tokens_;
  blob->own_bytes = static_cast<size_t>(place.bytes_);
  blob->own = std::make_unique_for_overwrite<uint8_t[]>(blob->own_bytes);
  // Some file systems tell of what they could not write by zeros.
  const bool is_read =
      MoveAll(pread, file_->fd.get(), blob->own.get(), blob->own_bytes, place.offset_) &&
      Hash64(blob->data()) == place.hash_;
  const std::scoped_lock lock(file_->mutex);
  if (!is_read) {
    ++file_->faults;
    return nullptr;
  }
  file_->reading.bytes += place.bytes_;
  file_->reading.us += clock.NowUs() - start_us;
  return blob;
}

void KvDisk::Expect(const Place& place) {
  posix_fadvise(file_->fd.get(), place.offset_, place.bytes_, POSIX_FADV_WILLNEED);
}

double KvDisk::UsPerByte() const {
  if (!file_) return 2 * kFirstUsPerByte;
  const std::scoped_lock lock(file_->mutex);
  return file_->writing.UsPerByte() + file_->reading.UsPerByte();
}

int64_t KvDisk::faults() const {
  if (!file_) return 0;
  const std::scoped_lock lock(file_->mutex);
  return file_->faults;
}

}  // namespace halo
