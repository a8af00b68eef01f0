#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/engine.h"
#include "engine/llama/llama_setup.h"

namespace halo {

/// The Engine seam as messages, so that an engine can live in another process of this machine and
/// version. A 4-byte little-endian length and a body; where the length has kInSharedMemory set, the
/// body is not in the stream but in shared memory, whose descriptor came with it (connection.h).
///
/// A body is a byte for the kind of message, then its fields in their order (wire.cc): numbers as
/// they lie in memory, a byte for a bool or a choice, a 4-byte count before texts and lists. No
/// names and no document in between: at 10,000 calls in flight, CBOR made of JSON was three
/// quarters of the scheduler's time (docs/benchmarks/scheduler.md). A body over kFrameLimit, or one
/// that is not exactly a message, ends the connection.
inline constexpr uint32_t kFrameLimit = 256U << 20;
inline constexpr uint32_t kInSharedMemory = 1U << 31;
/// The body is in the stream, and a descriptor that belongs to it came with its length.
inline constexpr uint32_t kHasAttachment = 1U << 30;
inline constexpr size_t kLengthBytes = 4;

/// What the program that hosts an engine is to make; the first message that it gets.
struct SetupMessage {
  LlamaSetup setup;
  std::string version;  ///< of the program that asks
  /// Whose engine it is, of so many workers that share the cores (engine_turns.h); -1: it has them
  /// for itself.
  int32_t worker = -1, workers = 1, lanes = 1;

  friend bool operator==(const SetupMessage&, const SetupMessage&) = default;
};
/// The engine cannot be made; the last message of its program.
struct EngineFault {
  ErrorCode code = ErrorCode::kIo;
  std::string message;

  friend bool operator==(const EngineFault&, const EngineFault&) = default;
};
/// All that follows from what the engine has answered was sent: it may go on. After answers it
/// waits for this a moment, so that what comes next joins the next pass.
struct GoOnMessage {
  friend bool operator==(const GoOnMessage&, const GoOnMessage&) = default;
};

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
/// Weights and room for KV are to be loaded, or given back.
struct LoadMessage {
  bool load = true;

  friend bool operator==(const LoadMessage&, const LoadMessage&) = default;
};
/// The oldest LoadMessage that was not answered has been carried out.
struct LoadedMessage {
  friend bool operator==(const LoadedMessage&, const LoadedMessage&) = default;
};
/// What Engine::Export asks for.
struct ExportMessage {
  RequestId id = 0;

  friend bool operator==(const ExportMessage&, const ExportMessage&) = default;
};
/// A KvTransfer without its memory, which is the frame's attachment where `bytes` is not 0.
struct KvMessage {
  RequestId id = 0;
  std::string adapter;
  std::vector<TokenId> tokens;
  int64_t bytes = 0;

  friend bool operator==(const KvMessage&, const KvMessage&) = default;
};
using ToEngine = std::variant<Request, CancelMessage, CancelWaitingMessage, ReleaseMessage,
                              GoOnMessage, SetupMessage, LoadMessage, ExportMessage, KvMessage>;
using FromEngine = std::variant<EngineDescription, Completion, EngineStatistics, EngineFault,
                                EngineSpans, LoadedMessage, KvMessage>;

/// A length and a body, for the stream.
std::string EncodeFrame(const ToEngine& message);
std::string EncodeFrame(const FromEngine& message);
/// The same of a request that stays where it is.
std::string EncodeFrame(const Request& request);
/// The length alone, of a body of `bytes` in shared memory.
std::string EncodeSharedLength(size_t bytes);
/// Says in a frame's length that a descriptor goes with it.
void MarkAttachment(std::string& frame);
/// Bodies of frames, without the length. Throw Error(kIo) naming what does not fit.
ToEngine DecodeToEngine(std::string_view body);
FromEngine DecodeFromEngine(std::string_view body);

/// The counters in the order in which they cross.
std::vector<int64_t*> Counters(EngineStatistics& statistics);
void AddCounters(EngineStatistics part, EngineStatistics& total);

/// Cuts a byte stream into frames.
class FrameReader {
 public:
  struct Frame {
    std::string body;
    uint32_t shared_bytes = 0;  ///< not 0: the body has so many bytes, in shared memory
    bool has_attachment = false;
  };

  void Append(const char* bytes, size_t count) { buffer_.append(bytes, count); }
  /// The next whole frame, or false. Throws Error(kIo) for one over the limit.
  bool Next(Frame& frame);

 private:
  std::string buffer_;
  size_t start_ = 0;
};

}  // namespace halo
