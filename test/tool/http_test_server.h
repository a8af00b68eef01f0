#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace halo {

/// What a client asked a TestHttpServer.
struct TestHttpRequest {
  std::string method, target, body;
  std::map<std::string, std::string> headers;  ///< names in lower case
  int connection = 0;                          ///< counts from 1
};

/// One exchange as its handler sees it. Whatever is sent once the client is gone goes nowhere.
class TestHttpExchange {
 public:
  TestHttpExchange(const TestHttpRequest& the_request, int socket)
      : request(the_request), socket_(socket) {}

  const TestHttpRequest& request;

  /// A whole answer; `headers` are lines, each ended by "\r\n".
  void Reply(int status, std::string_view body, std::string_view headers = "");
  /// Bytes as they are. False if the client is gone.
  bool Send(std::string_view bytes);
  /// Ends the connection with a reset.
  void Reset();
  /// Ends the connection as a server does that has said all.
  void Close();
  /// Returns when the client ends the connection.
  void WaitForClient();

 private:
  const int socket_;
};

/// An HTTP/1.1 server on a free port of 127.0.0.1 for tests: says what it saw, and answers as its
/// handler wants. A thread for each connection, which calls the handler.
class TestHttpServer {
 public:
  using Handler = std::function<void(TestHttpExchange&)>;

  explicit TestHttpServer(Handler handler);
  ~TestHttpServer();

  uint16_t port() const { return port_; }
  std::string port_text() const { return std::to_string(port_); }
  int connections() const;                        ///< that were ever made
  int most_at_once() const;                       ///< requests whose handlers ran at the same time
  std::vector<TestHttpRequest> requests() const;  ///< in the order in which they were read

  /// Waits until `condition` holds, for a minute at most, and says whether it does. It is asked
  /// anew whenever something happens here, and may call the functions above.
  bool WaitUntil(const std::function<bool()>& condition) const;
  /// Something that a condition may ask for has happened outside.
  void Notify();
  /// Waits until no client is connected.
  bool WaitUntilIdle() const;

 private:
  void Accept();
  void Serve(int socket, int number);
  bool ReadRequest(int socket, std::string& unread, TestHttpRequest& request);

  const Handler handler_;
  int listener_ = -1;
  uint16_t port_ = 0;
  mutable std::recursive_mutex mutex_;
  mutable std::condition_variable_any changed_;
  // under mutex_
  std::vector<TestHttpRequest> requests_;
  std::vector<int> open_sockets_;
  int connections_ = 0, at_once_ = 0, most_at_once_ = 0;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace halo
