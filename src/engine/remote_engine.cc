#include "engine/remote_engine.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/clock.h"

namespace halo {
namespace {

constexpr size_t kReadBytes = 64 * 1024;
constexpr int64_t kDescriptionTimeoutUs = 60'000'000;

bool Readable(int socket, int64_t timeout_us) {
  pollfd descriptor{socket, POLLIN, 0};
  const int timeout_ms =
      static_cast<int>(std::clamp<int64_t>((timeout_us + 999) / 1000, 0, 60'000));
  int ready = 0;
  do {
    ready = poll(&descriptor, 1, timeout_ms);
  } while (ready < 0 && errno == EINTR);
  return ready > 0;
}

/// Empty on success, else what went wrong.
std::string WriteAll(int socket, const std::string& bytes) {
  size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t count =
        send(socket, bytes.data() + written, bytes.size() - written, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return std::strerror(errno);
    written += static_cast<size_t>(count);
  }
  return "";
}

/// Reads what is there. False at the end of the stream or on an error.
bool ReadSome(int socket, FrameReader& reader) {
  char bytes[kReadBytes];
  ssize_t count = 0;
  do {
    count = recv(socket, bytes, sizeof(bytes), 0);
  } while (count < 0 && errno == EINTR);
  if (count <= 0) return false;
  reader.Append(bytes, static_cast<size_t>(count));
  return true;
}

}  // namespace

RemoteEngine::RemoteEngine(int socket) : socket_(socket) {
  const SteadyClock clock;
  const int64_t deadline_us = clock.NowUs() + kDescriptionTimeoutUs;
  while (connected_ && !described_ && clock.NowUs() < deadline_us)
    Receive(deadline_us - clock.NowUs());
  if (!described_) {
    close(socket_);
    throw Error(ErrorCode::kIo, "engine connection: the other end did not describe itself");
  }
}

RemoteEngine::~RemoteEngine() { close(socket_); }

void RemoteEngine::Submit(Request request) {
  pending_.insert(request.id);
  if (!connected_) {
    Lose(why_lost_);
    return;
  }
  Send(std::move(request));
}

void RemoteEngine::Cancel(RequestId id) { Send(CancelMessage{id}); }

void RemoteEngine::CancelWaiting() { Send(CancelWaitingMessage{}); }

void RemoteEngine::Release(RequestId id, int32_t consumers) { Send(ReleaseMessage{id, consumers}); }

void RemoteEngine::Send(const ToEngine& message) {
  if (!connected_) return;
  const std::string frame = EncodeFrame(message);
  size_t written = 0;
  while (connected_ && written < frame.size()) {
    const ssize_t count =
        send(socket_, frame.data() + written, frame.size() - written, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0) {
      written += static_cast<size_t>(count);
    } else if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      // The other end may be waiting for us to read before it reads: do both.
      pollfd descriptor{socket_, POLLIN | POLLOUT, 0};
      poll(&descriptor, 1, -1);
      if ((descriptor.revents & POLLIN) != 0) Receive(0);
    } else if (count < 0 && errno != EINTR) {
      Lose(std::strerror(errno));
    }
  }
}

void RemoteEngine::Lose(const std::string& why) {
  connected_ = false;
  why_lost_ = why;
  for (const RequestId id : pending_) {
    Completion completion;
    completion.id = id;
    completion.failure = Failure{"", "engine_lost", "the engine's process went away: " + why, true};
    lost_.push_back(std::move(completion));
  }
  pending_.clear();
  std::sort(lost_.begin(), lost_.end(),
            [](const Completion& a, const Completion& b) { return a.id < b.id; });
}

void RemoteEngine::Take(const std::string& body) {
  FromEngine message = DecodeFromEngine(body);
  if (auto* completion = std::get_if<Completion>(&message)) {
    // An id that is not pending was lost or never asked for; the other end is not trusted to be
    // right about it.
    if (pending_.erase(completion->id) > 0) arrived_.push_back(std::move(*completion));
  } else if (auto* description = std::get_if<EngineDescription>(&message)) {
    description_ = std::move(*description);
    described_ = true;
  } else {
    statistics_ = std::get<EngineStatistics>(message);
  }
}

void RemoteEngine::Receive(int64_t timeout_us) {
  if (!connected_ || !Readable(socket_, timeout_us)) return;
  try {
    if (!ReadSome(socket_, reader_)) {
      Lose("the connection was closed");
      return;
    }
    std::string body;
    while (reader_.Next(body)) Take(body);
  } catch (const Error& error) {
    Lose(error.what());
  }
}

std::vector<Completion> RemoteEngine::Poll(int64_t deadline_us) {
  const SteadyClock clock;
  Receive(0);
  while (connected_ && arrived_.empty() && lost_.empty() && !pending_.empty() &&
         clock.NowUs() < deadline_us) {
    Receive(deadline_us - clock.NowUs());
  }
  std::vector<Completion> finished = std::exchange(arrived_, {});
  std::move(lost_.begin(), lost_.end(), std::back_inserter(finished));
  lost_.clear();
  return finished;
}

void ServeEngine(Engine& engine, int socket) {
  constexpr int64_t kIdleWaitUs = 1'000'000;
  FrameReader reader;
  std::string failure = WriteAll(socket, EncodeFrame(FromEngine(engine.Describe())));
  while (failure.empty()) {
    // With work to do only look at what has come; without, wait for it.
    if (Readable(socket, engine.pending() > 0 ? 0 : kIdleWaitUs)) {
      if (!ReadSome(socket, reader)) return;
      std::string body;
      while (reader.Next(body)) {
        ToEngine message = DecodeToEngine(body);
        if (auto* request = std::get_if<Request>(&message)) engine.Submit(std::move(*request));
        if (const auto* cancel = std::get_if<CancelMessage>(&message)) engine.Cancel(cancel->id);
        if (std::holds_alternative<CancelWaitingMessage>(message)) engine.CancelWaiting();
        if (const auto* release = std::get_if<ReleaseMessage>(&message))
          engine.Release(release->id, release->consumers);
      }
    }
    const std::vector<Completion> finished = engine.Poll(0);
    if (finished.empty()) continue;
    std::string frames = EncodeFrame(FromEngine(engine.Statistics()));
    for (const Completion& completion : finished) frames += EncodeFrame(FromEngine(completion));
    failure = WriteAll(socket, frames);
  }
}

}  // namespace halo
