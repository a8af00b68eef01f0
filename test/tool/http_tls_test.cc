#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>

#include "tool/http/http_backend.h"

namespace halo {
namespace {

using testing::HasSubstr;
using Json = nlohmann::ordered_json;

/// http2_server.js with a certificate for api.example.com that only a file vouches for.
class TlsServer {
 public:
  TlsServer() {
    // mkdtemp() puts letters of its own in place of the six X.
    std::string folder = (std::filesystem::temp_directory_path() / "halo-tls-XXXXXX").string();
    if (mkdtemp(folder.data()) == nullptr) ADD_FAILURE() << "no folder " << folder;
    folder_ = folder;
    const std::string make_certificate =
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=api.example.com"
        " -addext subjectAltName=DNS:api.example.com -keyout " +
        Key() + " -out " + Certificate() + " 2>" + (folder_ / "log").string();
    EXPECT_EQ(std::system(make_certificate.c_str()), 0) << "is the package openssl installed?";
    Start();
  }

  ~TlsServer() {
    close(to_server_);  // which ends it
    int status = 0;
    EXPECT_EQ(waitpid(process_, &status, 0), process_);
    std::filesystem::remove_all(folder_);
  }

  uint16_t port() const { return port_; }
  std::string Certificate() const { return (folder_ / "certificate.pem").string(); }

 private:
  std::string Key() const { return (folder_ / "key.pem").string(); }

  void Start() {
    int in[2], out[2];
    ASSERT_EQ(pipe2(in, O_CLOEXEC), 0);
    ASSERT_EQ(pipe2(out, O_CLOEXEC), 0);
    const std::string script = HALO_SOURCE_DIR "/test/tool/http2_server.js";
    const std::string key = Key(), certificate = Certificate();
    process_ = fork();
    if (process_ == 0) {
      dup2(in[0], STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      execlp("node", "node", script.c_str(), key.c_str(), certificate.c_str(), nullptr);
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    to_server_ = in[1];
    std::string line;
    for (char byte = 0; read(out[0], &byte, 1) == 1 && byte != '\n';) line += byte;
    close(out[0]);
    ASSERT_NE(line, "") << "the server does not start: is nodejs, which npm needs, installed?";
    port_ = static_cast<uint16_t>(std::stoi(line));
  }

  std::filesystem::path folder_;
  pid_t process_ = -1;
  int to_server_ = -1;
  uint16_t port_ = 0;
};

HttpOptions Reach(const TlsServer& server, const std::string& host) {
  HttpOptions options;
  options.allowed_hosts = {host};
  options.pinned_addresses = {{host, server.port(), "127.0.0.1"}};
  return options;
}

/// `count` calls of /`count` at once; what became of each.
std::vector<ToolCompletion> Ask(const TlsServer& server, const std::string& host,
                                HttpOptions options, int count) {
  ToolMailbox mailbox;
  SteadyClock clock;
  HttpBackend backend(std::move(options), mailbox, clock);
  for (int i = 0; i < count; ++i) {
    ToolCall call;
    call.id = static_cast<ToolCallId>(i) + 1;
    call.what = HttpCall{.method = "GET",
                         .url = "https://" + host + ":" + std::to_string(server.port()) + "/" +
                                std::to_string(count)};
    backend.Submit(std::move(call));
  }
  std::vector<ToolCompletion> all;
  while (all.size() < static_cast<size_t>(count)) {
    std::vector<ToolCompletion> some = mailbox.Take(60'000'000);
    if (some.empty()) break;
    for (ToolCompletion& each : some) all.push_back(std::move(each));
  }
  EXPECT_EQ(all.size(), static_cast<size_t>(count));
  return all;
}

TEST(HttpTls, OneConnectionCarriesManyRequestsAtOnce) {
  const TlsServer server;
  HttpOptions options = Reach(server, "api.example.com");
  options.certificate_file = server.Certificate();
  for (const ToolCompletion& done : Ask(server, "api.example.com", options, 16)) {
    EXPECT_FALSE(done.failure) << done.failure->message;
    EXPECT_EQ(done.value, Json::parse(R"({"version": "2.0", "connections": 1})"));
  }
}

TEST(HttpTls, ACertificateThatNobodyVouchesForIsRefused) {
  const TlsServer server;
  const ToolCompletion unknown =
      Ask(server, "api.example.com", Reach(server, "api.example.com"), 1).at(0);
  ASSERT_TRUE(unknown.failure);
  EXPECT_EQ(unknown.failure->code, "tls");
  EXPECT_FALSE(unknown.failure->retriable);
  EXPECT_THAT(unknown.failure->message, HasSubstr("certificate"));

  HttpOptions options = Reach(server, "other.example.com");
  options.certificate_file = server.Certificate();
  const ToolCompletion other = Ask(server, "other.example.com", options, 1).at(0);
  ASSERT_TRUE(other.failure);
  EXPECT_EQ(other.failure->code, "tls") << "the certificate is for another name";
  EXPECT_FALSE(other.failure->retriable);
}

}  // namespace
}  // namespace halo
