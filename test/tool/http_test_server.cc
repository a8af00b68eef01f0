#include "tool/http_test_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "base/text.h"

namespace halo {

void TestHttpExchange::Reply(int status, std::string_view body, std::string_view headers) {
  std::string answer = "HTTP/1.1 " + std::to_string(status) + " Said\r\n" + std::string(headers) +
                       "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n";
  if (request.method != "HEAD") answer += body;
  Send(answer);
}

bool TestHttpExchange::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

void TestHttpExchange::Reset() {
  // With a linger time of 0, closing sends a reset; connecting to nothing does it at once.
  const linger now{1, 0};
  setsockopt(socket_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  sockaddr nothing{};
  nothing.sa_family = AF_UNSPEC;
  connect(socket_, &nothing, sizeof(nothing));
}

void TestHttpExchange::Close() { shutdown(socket_, SHUT_RDWR); }

void TestHttpExchange::WaitForClient() {
  char byte = 0;
  while (recv(socket_, &byte, 1, 0) > 0) {
  }
}

TestHttpServer::TestHttpServer(Handler handler) : handler_(std::move(handler)) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (bind(listener_, generic, size) != 0 || listen(listener_, 256) != 0 ||
      getsockname(listener_, generic, &size) != 0) {
    throw std::runtime_error("no port to listen on");
  }
  port_ = ntohs(address.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

TestHttpServer::~TestHttpServer() {
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  close(listener_);
  {
    const std::lock_guard lock(mutex_);
    for (const int open : open_sockets_) shutdown(open, SHUT_RDWR);
  }
  for (std::thread& thread : threads_) thread.join();
}

int TestHttpServer::connections() const {
  const std::lock_guard lock(mutex_);
  return connections_;
}

int TestHttpServer::most_at_once() const {
  const std::lock_guard lock(mutex_);
  return most_at_once_;
}

std::vector<TestHttpRequest> TestHttpServer::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

bool TestHttpServer::WaitUntil(const std::function<bool()>& condition) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::minutes(1), condition);
}

void TestHttpServer::Notify() {
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

bool TestHttpServer::WaitUntilIdle() const {
  return WaitUntil([this] { return open_sockets_.empty(); });
}

void TestHttpServer::Accept() {
  while (true) {
    const int socket = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0) return;
    const std::lock_guard lock(mutex_);
    open_sockets_.push_back(socket);
    const int number = ++connections_;
    threads_.emplace_back([this, socket, number] { Serve(socket, number); });
    changed_.notify_all();
  }
}

void TestHttpServer::Serve(int socket, int number) {
  std::string unread;
  TestHttpRequest request;
  while (ReadRequest(socket, unread, request)) {
    request.connection = number;
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
      most_at_once_ = std::max(most_at_once_, ++at_once_);
      changed_.notify_all();
    }
    TestHttpExchange exchange(request, socket);
    handler_(exchange);
    const std::lock_guard lock(mutex_);
    --at_once_;
    changed_.notify_all();
  }
  const std::lock_guard lock(mutex_);
  close(socket);
  std::erase(open_sockets_, socket);
  changed_.notify_all();
}

bool TestHttpServer::ReadRequest(int socket, std::string& unread, TestHttpRequest& request) {
  const auto read_more = [&] {
    char buffer[16 * 1024];
    const ssize_t count = recv(socket, buffer, sizeof(buffer), 0);
    if (count > 0) unread.append(buffer, static_cast<size_t>(count));
    return count > 0;
  };
  size_t end = 0;
  while ((end = unread.find("\r\n\r\n")) == std::string::npos) {
    if (!read_more()) return false;
  }
  request = {};
  std::string head = unread.substr(0, end + 2);
  unread.erase(0, end + 4);
  const size_t first = head.find(' ');
  const size_t second = head.find(' ', first + 1);
  request.method = head.substr(0, first);
  request.target = head.substr(first + 1, second - first - 1);
  for (size_t at = head.find("\r\n") + 2; at < head.size();) {
    const size_t line_end = head.find("\r\n", at);
    const size_t colon = head.find(':', at);
    std::string value = head.substr(colon + 1, line_end - colon - 1);
    value.erase(0, value.find_first_not_of(' '));
    request.headers[LowerCaseAscii(head.substr(at, colon - at))] = value;
    at = line_end + 2;
  }
  const auto length = request.headers.find("content-length");
  const size_t bytes = length == request.headers.end() ? 0 : std::stoul(length->second);
  while (unread.size() < bytes) {
    if (!read_more()) return false;
  }
  request.body = unread.substr(0, bytes);
  unread.erase(0, bytes);
  return true;
}

}  // namespace halo
