#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/descriptor.h"
#include "engine/wire.h"

namespace halo {

/// One end of an engine connection: frames (wire.h) over a connected stream socket of this machine.
/// What is queued is written when it is asked for, so that messages which belong together go
/// together. A body of more than kBulkBytes is put into shared memory, whose descriptor crosses
/// with its length. The other end is not trusted: whatever it sends, this one goes on.
class Connection {
 public:
  /// Below, copying through the socket is the cheaper way: making, sealing, passing and mapping
  /// memory takes as long as copying about this much twice.
  static constexpr size_t kBulkBytes = 128 * 1024;

  explicit Connection(Descriptor socket) : socket_(std::move(socket)) {}

  int descriptor() const { return socket_.get(); }
  /// False once the other end has gone, or was given up; `why` says what was seen.
  bool is_open() const { return why_.empty(); }
  const std::string& why() const { return why_; }
  /// It was given up because what came was no message.
  bool was_abused() const { return was_abused_; }

  /// Queues a frame of EncodeFrame.
  void Put(std::string frame);
  /// Queues a frame with a descriptor that goes with it, and is shared by those that hand it on.
  void Put(std::string frame, std::shared_ptr<const Descriptor> attachment);
  bool has_output() const { return !output_.empty(); }
  /// Writes what is queued as far as the other end takes it now.
  void Write();
  /// What is done with a message: its body, and the descriptor that came with it or none.
  using Take = std::function<void(std::string_view body, Descriptor attachment)>;
  /// Reads what has come, without waiting, and hands each whole message to `take`, which may
  /// throw Error: then the connection is given up.
  void Read(const Take& take);
  /// Waits until something has come, or the other end has gone, or what is queued can be written,
  /// for `most_us` (negative: for ever) or a signal.
  void Wait(int64_t most_us) const;

 private:
  /// Bytes of the stream, and the descriptor that goes with the first of them.
  struct Piece {
    std::string bytes;
    size_t written = 0;
    std::shared_ptr<const Descriptor> memory;
  };

  int64_t Send(const Piece& piece) const;
  int64_t ReceiveSome();
  void GiveUp(std::string why);
  void TakeFrames(const Take& take);
  Descriptor TakeArrived();

  Descriptor socket_;
  std::string why_;
  bool was_abused_ = false;
  std::deque<Piece> output_;
  FrameReader reader_;
  std::deque<Descriptor> arrived_;  // memory whose message has not been read yet
};

}  // namespace halo
