// A program that hosts an engine, for tests of what happens when such a program ends, fails or
// lies.
//
//   engine_program llama            a LlamaEngine, as the setup says
//   engine_program simulated N      the simulated engine of the conformance suite, N sequences
//   engine_program text             answers "echo PROMPT"; what some prompts do is in TextEngine
//   engine_program fault MESSAGE    says that there is no engine, and why
//   engine_program dies [FILE]      ends by an abort before it has an engine, if there is no FILE,
//   or
//                                   FILE is there; else as text
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "base/clock.h"
#include "engine/connection.h"
#include "engine/crash_record.h"
#include "engine/llama/llama_host.h"
#include "engine/remote_engine.h"
#include "engine/simulated/simulated_engine.h"

namespace halo {
namespace {

[[noreturn]] void Abort(const char* last_words) {
  std::fprintf(stderr, "what came before\n%s\n", last_words);
  std::abort();
}

/// The first word of a prompt says what happens when it is begun:
///   poison          the process aborts
///   poison-submit   it aborts while it takes the request
///   twice FILE      it aborts the first two times, counted by the bytes of FILE
///   half            half an answer is sent, then the process exits with code 3
///   nonsense        what is sent is no message
///   unsealed        an answer lies in memory that could still be cut
///   missing         an answer is said to lie in memory that does not come
///   big N           the answer has N bytes
///   slow MS         it takes so many milliseconds
class TextEngine final : public Engine {
 public:
  explicit TextEngine(CrashRecord& record) : record_(record) {
    description_.name = "text";
    description_.sequences = 4;
    description_.context_tokens = 1024;
  }
  const EngineDescription& Describe() const override { return description_; }
  void Submit(Request request) override {
    if (request.prompt_text == "poison-submit") Abort("refuses to take it");
    waiting_.push_back(std::move(request));
  }
  void Cancel(RequestId id) override {
    for (std::deque<Request>* requests : {&waiting_, &running_}) {
      const size_t before = requests->size();
      std::erase_if(*requests, [&](const Request& request) { return request.id == id; });
      if (requests->size() == before) continue;
      Completion completion;
      completion.id = id;
      completion.failure = Failure{"", "cancelled", "the call was cancelled", false};
      ended_.push_back(std::move(completion));
    }
  }
  void CancelWaiting() override {
    while (!waiting_.empty()) Cancel(waiting_.front().id);
  }
  void Release(RequestId, int32_t) override {}
  std::vector<Completion> Poll(int64_t) override {
    while (!waiting_.empty() && running_.size() < 4) {
      running_.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
      record_.Begin(running_.back().id);
      Begin(running_.back());
    }
    ++statistics_.steps;
    if (!running_.empty()) {
      ended_.push_back(Answer(running_.front()));
      running_.pop_front();
    }
    return std::exchange(ended_, {});
  }
  int64_t pending() const override {
    return static_cast<int64_t>(waiting_.size() + running_.size() + ended_.size());
  }
  EngineStatistics Statistics() const override { return statistics_; }

 private:
  static void SendRaw(const std::string& bytes, int memory = -1) {
    iovec part{const_cast<char*>(bytes.data()), bytes.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
    if (memory >= 0) {
      message.msg_control = control;
      message.msg_controllen = CMSG_LEN(2 * sizeof(int));
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(2 * sizeof(int));
      const int both[2] = {memory, memory};  // one more than is asked for
      std::memcpy(CMSG_DATA(header), both, sizeof both);
    }
    if (sendmsg(kHostSocket, &message, 0) < 0) Abort("cannot send");
  }

  void Begin(const Request& request) {
    const std::string what = request.prompt_text.substr(0, request.prompt_text.find(' '));
    const std::string rest =
        what.size() < request.prompt_text.size() ? request.prompt_text.substr(what.size() + 1) : "";
    if (what == "poison") Abort("GGML_ASSERT(poison) failed");
    if (what == "half") {
      SendRaw(EncodeFrame(FromEngine(Answer(request))).substr(0, 20));
      _exit(3);
    }
    if (what == "nonsense") SendRaw(std::string("\x04\0\0\0what", 8));
    if (what == "missing") SendRaw(EncodeSharedLength(1000));
    if (what == "unsealed") {
      const int memory = memfd_create("unsealed", MFD_ALLOW_SEALING);
      if (ftruncate(memory, 1000) != 0) Abort("cannot grow");
      SendRaw(EncodeSharedLength(1000), memory);
    }
    if (what == "twice") {
      std::ofstream(rest, std::ios::app) << "x" << std::flush;
      if (std::filesystem::file_size(rest) <= 2) Abort("not yet");
    }
    if (what == "slow") std::this_thread::sleep_for(std::chrono::milliseconds(std::stoi(rest)));
  }

  static Completion Answer(const Request& request) {
    Completion completion;
    completion.id = request.id;
    completion.finish = FinishReason::kEndToken;
    const bool is_big = request.prompt_text.starts_with("big ");
    completion.text = is_big ? std::string(std::stoul(request.prompt_text.substr(4)), 'b')
                             : "echo " + request.prompt_text;
    completion.prompt_tokens = completion.prefilled_tokens = 1;
    completion.output_tokens = 1;
    return completion;
  }

  CrashRecord& record_;
  EngineDescription description_;
  std::deque<Request> waiting_, running_;
  std::vector<Completion> ended_;
  EngineStatistics statistics_;
};

void ServeText() {
  CrashRecord record{Descriptor(kHostRecord)};
  TextEngine engine(record);
  Connection connection{Descriptor(kHostSocket)};
  ServeEngine(engine, connection, {.record = &record});
}

void ServeSimulated(int32_t sequences) {
  VirtualClock clock;
  SimulatedEngineOptions options;
  options.sequences = sequences;
  options.context_tokens = 512;
  options.script = [](const Request& request) {
    return ScriptedReply{"reply to " + std::to_string(request.prompt_text.size()),
                         1000,
                         FinishReason::kEndToken,
                         {}};
  };
  SimulatedEngine engine(std::move(options), clock);
  Connection connection{Descriptor(kHostSocket)};
  ServeEngine(engine, connection);
}

int Main(int argc, char** argv) {
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "llama") {
    HostLlamaEngine("test");
  } else if (mode == "simulated" && argc > 2) {
    ServeSimulated(std::atoi(argv[2]));
  } else if (mode == "text") {
    ServeText();
  } else if (mode == "fault" && argc > 2) {
    Connection connection{Descriptor(kHostSocket)};
    connection.Put(EncodeFrame(FromEngine(EngineFault{ErrorCode::kModel, argv[2]})));
    connection.Write();
  } else if (mode == "dies") {
    if (argc < 3 || std::filesystem::exists(argv[2])) Abort("dies young");
    ServeText();
  } else {
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace halo

int main(int argc, char** argv) { return halo::Main(argc, argv); }
