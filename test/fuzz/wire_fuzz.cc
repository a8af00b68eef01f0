// Any bytes, taken for what comes over an engine connection, end in messages or in an Error; a
// message that was decoded is encoded and decoded again without change.

#include "engine/wire.h"
#include "fuzz/property.h"

namespace {

using halo::fuzz::Require;

// The body of one frame.
std::string Body(const std::string& frame) {
  halo::FrameReader reader;
  reader.Append(frame.data(), frame.size());
  halo::FrameReader::Frame read, more;
  Require(reader.Next(read), "an encoded message is a whole frame");
  Require(read.shared_bytes == 0, "an encoded message lies in the stream");
  Require(!reader.Next(more), "an encoded message is one frame");
  return read.body;
}

template <typename Decode>
void CheckDecode(const std::string& body, Decode decode) {
  try {
    const std::string encoded = halo::EncodeFrame(decode(body));
    Require(halo::EncodeFrame(decode(Body(encoded))) == encoded,
            "a message that was decoded survives another journey");
  } catch (const halo::Error& error) {
    Require(error.code() == halo::ErrorCode::kIo, "a bad message is an I/O error");
    halo::fuzz::RequireMeaningful(error, false);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes = halo::fuzz::Text(data, size);
  CheckDecode(bytes, halo::DecodeToEngine);
  CheckDecode(bytes, halo::DecodeFromEngine);

  halo::FrameReader reader;
  reader.Append(bytes.data(), bytes.size());
  try {
    halo::FrameReader::Frame frame;
    size_t taken = 0;
    while (reader.Next(frame)) {
      Require(frame.shared_bytes == 0 || frame.body.empty(), "a body lies in one place");
      Require(frame.shared_bytes <= halo::kFrameLimit, "no body is over the limit");
      taken += frame.body.size() + halo::kLengthBytes;
      Require(taken <= bytes.size(), "frames lie in the stream");
    }
  } catch (const halo::Error& error) {
    Require(error.code() == halo::ErrorCode::kIo, "a bad frame is an I/O error");
  }
  return 0;
}
