#include "bench/http_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <stdexcept>

namespace halo::bench {
namespace {

/// A socket that closes itself.
class Socket {
 public:
  Socket() : descriptor_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (descriptor_ < 0) throw std::runtime_error("no socket can be made");
  }
  ~Socket() { close(descriptor_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

sockaddr_in LocalAddress(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

bool SendAll(int descriptor, const std::string& text) {
  for (size_t sent = 0; sent < text.size();) {
    const ssize_t count = send(descriptor, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (count <= 0) return false;
    sent += static_cast<size_t>(count);
  }
  return true;
}

std::string JoinChunks(const std::string& text) {
  std::string body;
  for (size_t at = 0; at < text.size();) {
    const size_t line_end = text.find("\r\n", at);
    if (line_end == std::string::npos) break;
    const size_t size = std::stoul(text.substr(at, line_end - at), nullptr, 16);
    if (size == 0) break;
    body += text.substr(line_end + 2, size);
    at = line_end + 2 + size + 2;
  }
  return body;
}

}  // namespace

HttpAnswer ParseHttpAnswer(const std::string& text) {
  const size_t header_end = text.find("\r\n\r\n");
  const size_t space = text.find(' ');
  if (text.rfind("HTTP/", 0) != 0 || header_end == std::string::npos || space > header_end)
    return {};
  std::string header = text.substr(0, header_end);
  std::transform(header.begin(), header.end(), header.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  HttpAnswer answer;
  try {
    answer.status = std::stoi(header.substr(space + 1));
    answer.body = text.substr(header_end + 4);
    if (header.find("transfer-encoding: chunked") != std::string::npos)
      answer.body = JoinChunks(answer.body);
  } catch (const std::exception&) {
    return {};
  }
  return answer;
}

HttpAnswer AskLocalServer(uint16_t port, const std::string& path, const std::string& body) {
  const Socket connection;
  const sockaddr_in address = LocalAddress(port);
  if (connect(connection.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return {};
  std::string request =
      (body.empty() ? "GET " : "POST ") + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\n";
  request += "Connection: close\r\n";
  if (!body.empty()) {
    request +=
        "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  }
  if (!SendAll(connection.get(), request + "\r\n" + body)) return {};
  std::string text;
  char buffer[1 << 14];
  for (;;) {
    const ssize_t count = recv(connection.get(), buffer, sizeof buffer, 0);
    if (count <= 0) break;
    text.append(buffer, static_cast<size_t>(count));
  }
  return ParseHttpAnswer(text);
}

uint16_t FreePort() {
  const Socket listener;
  sockaddr_in address = LocalAddress(0);
  socklen_t size = sizeof address;
  auto* any = reinterpret_cast<sockaddr*>(&address);
  if (bind(listener.get(), any, size) != 0 || getsockname(listener.get(), any, &size) != 0) {
    throw std::runtime_error("no free port on 127.0.0.1");
  }
  return ntohs(address.sin_port);
}

}  // namespace halo::bench
