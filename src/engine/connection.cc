#include "engine/connection.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "engine/shared_memory.h"

namespace halo {
namespace {

constexpr size_t kReadBytes = 64 * 1024;
constexpr size_t kPieceBytes = 64 * 1024;  // small frames are gathered up to this
constexpr size_t kMostArrived = 4;         // one belongs to the length that is being read
constexpr int kReadsOfTurn = 64;  // so that an end which never stops talking holds up nobody

/// Room for one descriptor beside a message.
union Control {
  char bytes[CMSG_SPACE(sizeof(int))];
  cmsghdr alignment;
};

bool WouldBlock(int64_t result) {
  return result < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

}  // namespace

void Connection::GiveUp(std::string why) {
  if (is_open()) why_ = std::move(why);
}

void Connection::Put(std::string frame) {
  if (!is_open()) return;
  const size_t body_bytes = frame.size() - kLengthBytes;
  if (body_bytes > kBulkBytes) {
    try {
      output_.push_back({EncodeSharedLength(body_bytes), 0,
                         std::make_shared<const Descriptor>(
                             ShareBytes(std::string_view(frame).substr(kLengthBytes)))});
      return;
    } catch (const Error&) {
      // Without memory to share, the stream carries it: slower, and no less right.
    }
  }
  Piece* last = output_.empty() ? nullptr : &output_.back();
  const bool joins = last != nullptr && !last->memory && last->bytes.size() < kPieceBytes;
  if (joins) {
    last->bytes.reserve(kPieceBytes);  // once, not again and again
    last->bytes += frame;
  } else {
    output_.push_back({std::move(frame), 0, {}});
  }
}

void Connection::Put(std::string frame, std::shared_ptr<const Descriptor> attachment) {
  if (!is_open()) return;
  MarkAttachment(frame);
  output_.push_back({std::move(frame), 0, std::move(attachment)});
}

int64_t Connection::Send(const Piece& piece) const {
  iovec part{const_cast<char*>(piece.bytes.data()) + piece.written,
             piece.bytes.size() - piece.written};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  Control control{};
  if (piece.memory && piece.written == 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int memory = piece.memory->get();
    std::memcpy(CMSG_DATA(header), &memory, sizeof memory);
  }
  return sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void Connection::Write() {
  while (is_open() && !output_.empty()) {
    Piece& piece = output_.front();
    const int64_t count = Send(piece);
    if (count < 0) {
      if (WouldBlock(count)) return;
      // What the other end said before it went is still to be read: that end of the stream gives
      // the connection up.
      const bool has_gone = errno == EPIPE || errno == ECONNRESET;
      if (!has_gone) GiveUp(std::strerror(errno));
      return output_.clear();
    }
    piece.written += static_cast<size_t>(count);
    if (piece.written == piece.bytes.size()) output_.pop_front();
  }
}

int64_t Connection::ReceiveSome() {
  char bytes[kReadBytes];
  iovec part{bytes, sizeof bytes};
  Control control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = CMSG_LEN(sizeof(int));  // what is more is closed, not given to us
  const int64_t count = recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (count < 0) return count;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    int memory = -1;
    std::memcpy(&memory, CMSG_DATA(header), sizeof memory);
    arrived_.emplace_back(memory);
  }
  reader_.Append(bytes, static_cast<size_t>(count));
  return count;
}

/// The memory of the message that is being read: they come in the same order.
Descriptor Connection::TakeArrived() {
  if (arrived_.empty()) {
    throw Error(ErrorCode::kIo,
                "engine connection: a message in shared memory came without the memory");
  }
  Descriptor memory = std::move(arrived_.front());
  arrived_.pop_front();
  return memory;
}

void Connection::TakeFrames(const Take& take) {
  FrameReader::Frame frame;
  while (reader_.Next(frame)) {
    if (frame.shared_bytes > 0) {
      const Descriptor memory = TakeArrived();
      take(MappedMemory::Sealed(memory, frame.shared_bytes).text(), {});
    } else {
      take(frame.body, frame.has_attachment ? TakeArrived() : Descriptor());
    }
  }
  if (arrived_.size() > kMostArrived)
    throw Error(ErrorCode::kIo, "engine connection: memory came without a message in it");
}

void Connection::Read(const Take& take) {
  for (int turn = 0; is_open() && turn < kReadsOfTurn; ++turn) {
    const int64_t count = ReceiveSome();
    if (WouldBlock(count)) return;
    if (count < 0) return GiveUp(std::strerror(errno));
    if (count == 0) return GiveUp("the connection was closed");
    try {
      TakeFrames(take);
    } catch (const Error& error) {
      was_abused_ = true;
      return GiveUp(error.what());
    }
  }
}

void Connection::Wait(int64_t most_us) const {
  constexpr int64_t kUsPerMs = 1000, kMostMs = 60'000;
  pollfd socket{socket_.get(), POLLIN, 0};
  if (has_output()) socket.events |= POLLOUT;
  const int64_t ms = std::clamp<int64_t>((most_us + kUsPerMs - 1) / kUsPerMs, 0, kMostMs);
  poll(&socket, 1, most_us < 0 ? -1 : static_cast<int>(ms));
}

}  // namespace halo
