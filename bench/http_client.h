#pragma once

#include <cstdint>
#include <string>

namespace halo::bench {

/// An answer of a server on this machine.
struct HttpAnswer {
  int status = 0;  ///< 0: nobody answered
  std::string body;
};

/// One request on one connection to 127.0.0.1, blocking. `body` empty: GET, else POST of JSON.
HttpAnswer AskLocalServer(uint16_t port, const std::string& path, const std::string& body);

/// Splits an answer as it came over the wire; joins chunks. status 0 if it is no HTTP answer.
HttpAnswer ParseHttpAnswer(const std::string& text);

/// A port of 127.0.0.1 that nobody listens on at the moment.
uint16_t FreePort();

}  // namespace halo::bench
