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
  std::string body, more;
  Require(reader.Next(body), "an encoded message is a whole frame");
  Require(!reader.Next(more), "an encoded message is one frame");
  return body;
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
    std::string body;
    size_t taken = 0;
    while (reader.Next(body)) {
      taken += body.size() + 4;
      Require(taken <= bytes.size(), "frames lie in the stream");
    }
  } catch (const halo::Error& error) {
    Require(error.code() == halo::ErrorCode::kIo, "a bad frame is an I/O error");
  }
  return 0;
}
