#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "engine/engine.h"

namespace halo {

/// The Engine seam as messages, so that an engine can live in another process. CBOR inside a frame
/// of a 4-byte little-endian length; a frame over kFrameLimit or one that does not decode ends the
/// connection.
inline constexpr uint32_t kFrameLimit = 256U << 20;

struct CancelMessage {
  RequestId id = 0;

  friend bool operator==(const CancelMessage&, const CancelMessage&) = default;
};
struct CancelWaitingMessage {
  friend bool operator==(const CancelWaitingMessage&, const CancelWaitingMessage&) = default;
};
struct ReleaseMessage {
  RequestId id = 0;
  int32_t consumers = 0;

  friend bool operator==(const ReleaseMessage&, const ReleaseMessage&) = default;
};
using ToEngine = std::variant<Request, CancelMessage, CancelWaitingMessage, ReleaseMessage>;
using FromEngine = std::variant<EngineDescription, Completion, EngineStatistics>;

std::string EncodeFrame(const ToEngine& message);
std::string EncodeFrame(const FromEngine& message);
/// Bodies of frames, without the length. Throw Error(kIo) naming what does not fit.
ToEngine DecodeToEngine(const std::string& body);
FromEngine DecodeFromEngine(const std::string& body);

/// Cuts a byte stream into frame bodies.
class FrameReader {
 public:
  void Append(const char* bytes, size_t count) { buffer_.append(bytes, count); }
  /// The next whole body, or false. Throws Error(kIo) for a frame over the limit.
  bool Next(std::string& body);

 private:
  std::string buffer_;
  size_t start_ = 0;
};

}  // namespace halo
