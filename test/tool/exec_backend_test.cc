#include "tool/function/exec_backend.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#include "support/test_models.h"
#include "tool/backend_rig.h"

namespace halo::test {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::IsSupersetOf;
using testing::Not;
using Json = nlohmann::ordered_json;

const std::vector<std::string> kEnvironment = {"PATH=/usr/bin:/bin", "LANG=C.UTF-8"};

std::string ReadFile(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

/// Returns when `holds` does, or after a minute with false. For what other processes do (a file is
/// written, a process ends), of which the kernel tells nobody who is not their parent: so it looks
/// again and again. Nothing is said about time, since a minute is far more than any of it takes.
bool Eventually(const std::function<bool()>& holds) {
  constexpr int kLooks = 6000;
  for (int i = 0; i < kLooks; ++i) {
    if (holds()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

/// True if there is such a process that has not ended.
bool IsRunning(pid_t pid) {
  const std::string stat = ReadFile("/proc/" + std::to_string(pid) + "/stat");
  const size_t name_end = stat.rfind(')');
  return name_end != std::string::npos && stat.size() > name_end + 2 && stat[name_end + 2] != 'Z';
}

/// Children of this process, those included that have ended and wait to be reaped.
std::set<pid_t> Children() {
  std::set<pid_t> children;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const std::string stat = ReadFile("/proc/" + name + "/stat");
    const size_t name_end = stat.rfind(')');
    if (name_end == std::string::npos) continue;
    char state = 0;
    pid_t parent = 0;
    std::istringstream(stat.substr(name_end + 2)) >> state >> parent;
    if (parent == getpid()) children.insert(std::stoi(name));
  }
  return children;
}

/// A folder for programs and what they leave, and a backend whose working folder it is.
class ExecBackendTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = FreshFolder(std::string("exec_") +
                          testing::UnitTest::GetInstance()->current_test_info()->name());
    Open({.folder = folder_});
  }

  void TearDown() override {
    backend_.reset();
    EXPECT_EQ(Children(), children_before_);
    EXPECT_EQ(Census(), before_);
  }

  void Open(ExecOptions options, std::vector<std::string> environment = kEnvironment) {
    backend_.reset();
    backend_ = std::make_unique<ExecBackend>(std::move(options), std::move(environment),
                                             rig_.mailbox, rig_.clock);
  }

  /// A config that runs a script of /bin/sh.
  Json Shell(const std::string& script, Json more = Json::object()) {
    return Script("/bin/sh", ".sh", script, std::move(more));
  }
  Json Python(const std::string& script, Json more = Json::object()) {
    return Script("python3", ".py", "import json, os, sys, time\n" + script, std::move(more));
  }
  /// Python that answers each call with the value of an expression over `call`.
  Json Answering(const std::string& expression, const std::string& before = "",
                 Json more = Json::object()) {
    return Python(before +
                      "\nfor line in sys.stdin:\n  call = json.loads(line)\n  print(json.dumps(" +
                      expression + "), flush=True)\n",
                  std::move(more));
  }
  Json Script(const std::string& program, const std::string& ending, const std::string& script,
              Json more) {
    const std::string path = folder_ + "/program" + std::to_string(++scripts_) + ending;
    std::ofstream(path) << script;
    Json config = {{"command", {program, path}}};
    config.update(more);
    return config;
  }

  ToolCallId Submit(const Json& config, Json inputs = Json::object(), ToolCall how = {}) {
    how.id = rig_.NextId();
    how.what = FunctionCall{"exec", config, std::move(inputs), {"out"}};
    const ToolCallId id = how.id;
    backend_->Submit(std::move(how));
    return id;
  }

  ToolCompletion Do(const Json& config, Json inputs = Json::object(), ToolCall how = {}) {
    return rig_.Wait(Submit(config, std::move(inputs), std::move(how)));
  }

  ToolCall Within(int64_t us) { return {.deadline_us = rig_.clock.NowUs() + us}; }

  /// The number that a program has written to a file of the folder.
  pid_t PidIn(const std::string& file) {
    EXPECT_TRUE(Eventually([&] { return ReadFile(folder_ + "/" + file).ends_with("\n"); })) << file;
    return static_cast<pid_t>(std::atoi(ReadFile(folder_ + "/" + file).c_str()));
  }

  BackendRig rig_;  // first: its mailbox has a descriptor of its own
  const Census before_{};
  const std::set<pid_t> children_before_ = Children();
  std::string folder_;
  std::unique_ptr<ExecBackend> backend_;
  int scripts_ = 0;
};

// ---- answers

TEST_F(ExecBackendTest, AnswersAreValues) {
  const Json echo = Answering("call['inputs']['x']");
  for (const char* text : {"null", "5", "-0.25", "\"a\\nb\\u0000\"", "[1, [2]]",
                           R"({"k": {"l": []}})", "true", R"({"error": 1, "more": 2})"}) {
    const Json value = Json::parse(text);
    const ToolCompletion completion = Do(echo, {{"x", value}});
    EXPECT_EQ(MessageOf(completion), "");
    EXPECT_EQ(completion.value, value);
    EXPECT_GT(completion.started_us, 0);
    EXPECT_GE(completion.finished_us, completion.started_us);
  }
  const Json odd = {
      {"x", "na\xC3\xAFve '; rm -rf / $(id) `id` \\ \" \xF0\x9F\xA6\x86\n{\"id\": 9}"}};
  EXPECT_EQ(Do(echo, odd).value, odd["x"]);
}

TEST_F(ExecBackendTest, ACallIsItsNumberAndItsInputsInOrder) {
  const Json config = Answering("call");
  const ToolCallId id = Submit(config, {{"z", 1}, {"a", Json::parse("[null]")}});
  EXPECT_EQ(rig_.Wait(id).value.dump(),
            R"({"id":)" + std::to_string(id) + R"(,"inputs":{"z":1,"a":[null]}})");
  EXPECT_EQ(Do(config).value["inputs"].dump(), "{}");
}

TEST_F(ExecBackendTest, OneProcessAnswersManyCalls) {
  const Json config = Answering("[os.getpid(), call['inputs']['n']]", "", {{"processes", 1}});
  std::set<Json> processes;
  for (int i = 0; i < 50; ++i) {
    const ToolCompletion completion = Do(config, {{"n", i}});
    ASSERT_EQ(MessageOf(completion), "");
    EXPECT_EQ(completion.value[1], i);
    processes.insert(completion.value[0]);
  }
  EXPECT_EQ(processes.size(), 1U);
}

TEST_F(ExecBackendTest, ProcessesWorkSideBySideUpToTheirNumber) {
  // Each answers when three are there.
  const Json meeting = Python(R"(
for line in sys.stdin:
  open('here' + str(os.getpid()), 'w').close()
  while len([f for f in os.listdir('.') if f.startswith('here')]) < 3: time.sleep(0.01)
  print(os.getpid(), flush=True)
)",
                              {{"processes", 3}});
  std::vector<ToolCallId> ids;
  for (int i = 0; i < 9; ++i) ids.push_back(Submit(meeting));
  std::set<Json> processes;
  for (const ToolCallId id : ids) {
    const ToolCompletion completion = rig_.Wait(id);
    EXPECT_EQ(MessageOf(completion), "");
    processes.insert(completion.value);
  }
  EXPECT_EQ(processes.size(), 3U);
}

TEST_F(ExecBackendTest, TheLowestOrderGoesFirst) {
  const Json config = Python(R"(
for line in sys.stdin:
  call = json.loads(line)
  if call['inputs']['n'] == 0:
    while not os.path.exists('go'): time.sleep(0.01)
  open('log', 'a').write(str(call['inputs']['n']) + ' ')
  print('null', flush=True)
)",
                             {{"processes", 1}});
  std::vector<ToolCallId> ids = {Submit(config, {{"n", 0}})};
  for (const int n : {5, 3, 9, 1, 3, 7}) ids.push_back(Submit(config, {{"n", n}}, {.order = n}));
  std::ofstream(folder_ + "/go").close();
  for (const ToolCallId id : ids) EXPECT_EQ(MessageOf(rig_.Wait(id)), "");
  EXPECT_EQ(ReadFile(folder_ + "/log"), "0 1 3 3 5 7 9 ");
}

TEST_F(ExecBackendTest, AProgramSaysWhyItCannotAnswer) {
  const ToolCompletion said = Do(Answering("{'error': 'no such customer'}"));
  EXPECT_EQ(CodeOf(said), "exec_error");
  EXPECT_EQ(MessageOf(said), "no such customer");
  EXPECT_FALSE(said.failure->retriable);
  EXPECT_EQ(MessageOf(Do(Answering("{'error': {'why': 5}}"))), R"({"why":5})");
  const ToolCompletion much = Do(Answering("{'error': 'x' * 1000000}"));
  EXPECT_EQ(CodeOf(much), "exec_error");
  EXPECT_LT(MessageOf(much).size(), 5000U);
}

TEST_F(ExecBackendTest, LargeCallsAndAnswersGoThrough) {
  const std::string large(1'500'000, 'x');
  EXPECT_EQ(Do(Answering("call['inputs']['x'] + 'y'"), {{"x", large}}).value, large + "y");
  // One that answers piece by piece.
  EXPECT_EQ(Do(Python(R"(
for line in sys.stdin:
  for piece in ['[1', ',', '2]', '\n']:
    sys.stdout.write(piece); sys.stdout.flush(); time.sleep(0.02)
)"))
                .value.dump(),
            "[1,2]");
}

// ---- faults

TEST_F(ExecBackendTest, ACrashSaysHowAndWhatTheProgramComplained) {
  const Json config = Python(R"(
for line in sys.stdin:
  call = json.loads(line)
  if call['inputs']['die']:
    sys.stderr.write('first\n' + 'x' * 5000 + '\nlast words\n')
    sys.exit(7)
  print(os.getpid(), flush=True)
)",
                             {{"processes", 1}});
  const Json first = Do(config, {{"die", false}}).value;
  const ToolCompletion crash = Do(config, {{"die", true}});
  EXPECT_EQ(CodeOf(crash), "exec_crashed");
  EXPECT_THAT(MessageOf(crash),
              AllOf(HasSubstr("ended with 7"), HasSubstr("last words"), Not(HasSubstr("first"))));
  EXPECT_LT(MessageOf(crash).size(), 2200U);
  EXPECT_TRUE(crash.failure->retriable);
  const ToolCompletion next = Do(config, {{"die", false}});
  EXPECT_EQ(MessageOf(next), "");
  EXPECT_NE(next.value, first);
}

TEST_F(ExecBackendTest, ASignalSaysItsNumber) {
  const ToolCompletion completion = Do(Shell("read line; kill -SEGV $$"));
  EXPECT_EQ(CodeOf(completion), "exec_crashed");
  EXPECT_THAT(MessageOf(completion), HasSubstr("signal 11"));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/core"));
}

TEST_F(ExecBackendTest, OneThatHangsEndsAtTheDeadline) {
  const Json config = Python(R"(
for line in sys.stdin:
  if json.loads(line)['inputs']['hang']:
    open('pid', 'w').write(str(os.getpid()) + '\n')
    time.sleep(1000)
  print('1', flush=True)
)",
                             {{"processes", 1}});
  const ToolCompletion hung = Do(config, {{"hang", true}}, Within(1'500'000));
  EXPECT_EQ(CodeOf(hung), "deadline");
  EXPECT_FALSE(hung.failure->retriable);
  const pid_t pid = PidIn("pid");
  EXPECT_TRUE(Eventually([&] { return !IsRunning(pid); }));
  EXPECT_EQ(Do(config, {{"hang", false}}).value, 1);
}

TEST_F(ExecBackendTest, WithoutADeadlineThereIsALimitAllTheSame) {
  Open({.folder = folder_, .default_timeout_us = 300'000});
  const ToolCompletion hung = Do(Shell("sleep 1000"));
  EXPECT_EQ(CodeOf(hung), "timeout");
  EXPECT_THAT(MessageOf(hung), HasSubstr("0.3 s"));
  EXPECT_TRUE(hung.failure->retriable);
}

TEST_F(ExecBackendTest, ACallThatWaitsEndsAtItsDeadlineAndIsNotMade) {
  const Json config = Python(R"(
for line in sys.stdin:
  call = json.loads(line)
  open('made', 'a').write(str(call['inputs']['n']) + ' ')
  while call['inputs']['n'] == 0 and not os.path.exists('go'): time.sleep(0.01)
  print(os.getpid(), flush=True)
)",
                             {{"processes", 1}});
  const ToolCallId holding = Submit(config, {{"n", 0}});
  const ToolCallId late = Submit(config, {{"n", 1}}, Within(200'000));
  EXPECT_EQ(CodeOf(rig_.Wait(late)), "deadline");
  std::ofstream(folder_ + "/go").close();
  const Json pid = rig_.Wait(holding).value;
  // The program had nothing to do with it and lives on.
  EXPECT_EQ(Do(config, {{"n", 2}}).value, pid);
  EXPECT_EQ(CodeOf(Do(config, {{"n", 3}}, {.deadline_us = rig_.clock.NowUs() - 1})), "deadline");
  EXPECT_EQ(Do(config, {{"n", 4}}).value, pid);
  EXPECT_EQ(ReadFile(folder_ + "/made"), "0 2 4 ");
}

TEST_F(ExecBackendTest, GarbageIsShownInPart) {
  for (const char* garbage :
       {"not json", "", "{\"a\": 1", "1 2", "nan", "1e999", "'x'", "\\xff\\xfe", "\"\\xff\""}) {
    SCOPED_TRACE(garbage);
    const ToolCompletion completion =
        Do(Python(std::string("sys.stdin.readline(); sys.stdout.buffer.write(b'''") + garbage +
                  "\\n'''); sys.stdout.flush(); time.sleep(1000)"));
    EXPECT_EQ(CodeOf(completion), "exec_garbage");
    EXPECT_FALSE(completion.failure && completion.failure->retriable);
    EXPECT_NO_THROW((void)Json(MessageOf(completion)).dump());
  }
  EXPECT_THAT(MessageOf(Do(Shell("read line; echo not json; sleep 1000"))), HasSubstr("not json"));
  const ToolCompletion deep =
      Do(Python("sys.stdin.readline(); print('[' * 500000 + ']' * 500000, flush=True)"));
  EXPECT_EQ(CodeOf(deep), "exec_garbage");
  EXPECT_LT(MessageOf(deep).size(), 300U);
}

TEST_F(ExecBackendTest, AnAnswerIsOneLine) {
  const ToolCompletion two = Do(Shell("read line; printf '1\\n2\\n'; sleep 1000"));
  EXPECT_EQ(CodeOf(two), "exec_garbage");
  EXPECT_THAT(MessageOf(two), HasSubstr("more than one line"));
  const ToolCompletion part = Do(Shell("read line; printf '1\\n2'; sleep 1000"));
  EXPECT_EQ(CodeOf(part), "exec_garbage");
}

TEST_F(ExecBackendTest, WhatIsSaidBetweenCallsIsNoAnswer) {
  // The second line comes when the first call has its answer.
  const Json config = Python(R"(
for line in sys.stdin:
  n = json.loads(line)['inputs']['n']
  print(json.dumps([os.getpid(), n]), flush=True)
  time.sleep(0.1)
  print(json.dumps('stray'), flush=True)
  open('said' + str(n), 'w').close()
)",
                             {{"processes", 1}});
  Json last;
  for (int n = 0; n < 3; ++n) {
    const ToolCompletion completion = Do(config, {{"n", n}});
    ASSERT_EQ(MessageOf(completion), "");
    ASSERT_TRUE(completion.value.is_array()) << completion.value;
    EXPECT_EQ(completion.value[1], n);
    EXPECT_NE(completion.value[0], last);
    last = completion.value[0];
    ASSERT_TRUE(Eventually([&] {
      return std::filesystem::exists(folder_ + "/said" + std::to_string(n)) ||
             !IsRunning(last.get<pid_t>());
    }));
  }
}

TEST_F(ExecBackendTest, OneThatSpeaksFirstIsNotBelieved) {
  const ToolCompletion completion = Do(Shell("echo 1; sleep 0.2; while read line; do echo 2; done"),
                                       {{"x", std::string(200'000, 'x')}});
  EXPECT_EQ(CodeOf(completion), "exec_garbage");
}

TEST_F(ExecBackendTest, AnswersHaveALimit) {
  const ToolCompletion large = Do(Answering("'x' * 2000", "", {{"most_bytes", 1000}}));
  EXPECT_EQ(CodeOf(large), "result_too_large");
  EXPECT_THAT(MessageOf(large), AllOf(HasSubstr("1000 bytes"), HasSubstr("most_bytes")));
  EXPECT_EQ(Do(Answering("'x' * 2000", "", {{"most_bytes", 3000}})).value.get<std::string>().size(),
            2000U);
  const ToolCompletion endless =
      Do(Shell("read line; while :; do printf xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done",
               {{"most_bytes", 100'000}}));
  EXPECT_EQ(CodeOf(endless), "result_too_large");
}

TEST_F(ExecBackendTest, EndlessComplaintsHoldNobodyUp) {
  const Json noisy = Python("while True: os.write(2, b'complaint ' * 5000)");
  const ToolCallId noise = Submit(noisy, Json::object(), Within(3'000'000));
  EXPECT_EQ(Do(Answering("5")).value, 5);
  EXPECT_EQ(CodeOf(rig_.Wait(noise)), "deadline");
}

TEST_F(ExecBackendTest, OneThatClosesItsOutputIsGivenUp) {
  const ToolCompletion completion =
      Do(Shell("read line; echo bye >&2; exec >&-; echo $$ > pid; sleep 1000"));
  EXPECT_EQ(CodeOf(completion), "exec_crashed");
  EXPECT_THAT(MessageOf(completion), AllOf(HasSubstr("closed its output"), HasSubstr("bye")));
  const pid_t pid = PidIn("pid");
  EXPECT_TRUE(Eventually([&] { return !IsRunning(pid); }));
}

TEST_F(ExecBackendTest, OneThatDoesNotReadItsInputIsNoTrouble) {
  const Json deaf = Shell("sleep 1000");
  const ToolCallId id = Submit(deaf, {{"x", std::string(1'000'000, 'x')}}, Within(1'000'000));
  EXPECT_EQ(Do(Answering("5")).value, 5);
  EXPECT_EQ(CodeOf(rig_.Wait(id)), "deadline");
  // One that has closed it.
  const ToolCompletion closed =
      Do(Shell("exec <&-; sleep 1000"), {{"x", std::string(1'000'000, 'x')}});
  EXPECT_EQ(CodeOf(closed), "exec_crashed");
}

TEST_F(ExecBackendTest, OneThatEndsAtOnceSaysSo) {
  const ToolCompletion completion = Do(Shell("echo no license >&2; exit 3"));
  EXPECT_EQ(CodeOf(completion), "exec_crashed");
  EXPECT_THAT(MessageOf(completion), AllOf(HasSubstr("ended with 3"), HasSubstr("no license")));
}

TEST_F(ExecBackendTest, AProgramForOneCallAtATimeIsStartedAnew) {
  const Json config = Shell("read line; echo $$; ", {{"processes", 1}});
  std::set<Json> processes;
  for (int i = 0; i < 5; ++i) {
    const ToolCompletion completion = Do(config);
    ASSERT_EQ(MessageOf(completion), "");
    processes.insert(completion.value);
    ASSERT_TRUE(Eventually([&] { return !IsRunning(completion.value.get<pid_t>()); }));
  }
  EXPECT_EQ(processes.size(), 5U);
}

TEST_F(ExecBackendTest, AMissingProgramIsNamed) {
  for (const std::string& program :
       {std::string("no-such-program"), folder_ + "/none", std::string("./none")}) {
    const ToolCompletion missing = Do({{"command", {program}}});
    EXPECT_EQ(CodeOf(missing), "exec_not_started");
    EXPECT_THAT(MessageOf(missing),
                AllOf(HasSubstr("'" + program + "'"), HasSubstr("No such file")));
    EXPECT_FALSE(missing.failure->retriable);
  }
  std::ofstream(folder_ + "/text").close();
  EXPECT_THAT(MessageOf(Do({{"command", {folder_ + "/text"}}})), HasSubstr("ermission denied"));
  EXPECT_EQ(CodeOf(Do({{"command", {folder_}}})), "exec_not_started");
  Open({.folder = folder_ + "/nowhere"});
  EXPECT_EQ(CodeOf(Do(Shell("read line; echo 1"))), "exec_not_started");
}

TEST_F(ExecBackendTest, MemoryHasALimit) {
  const Json config = Python(R"(
for line in sys.stdin:
  size = json.loads(line)['inputs']['mb']
  print(len(bytearray(size << 20)), flush=True)
)",
                             {{"memory_mb", 200}});
  EXPECT_EQ(Do(config, {{"mb", 10}}).value, 10 << 20);
  const ToolCompletion completion = Do(config, {{"mb", 500}});
  EXPECT_EQ(CodeOf(completion), "exec_crashed");
  EXPECT_THAT(MessageOf(completion), HasSubstr("MemoryError"));
}

// ---- what a program gets

TEST_F(ExecBackendTest, TheEnvironmentIsWhatWasGiven) {
  setenv("HALO_TEST_SECRET", "hunter2", 1);
  Open({.folder = folder_}, {"PATH=/usr/bin:/bin", "GIVEN=yes"});
  const Json seen = Do(Answering("dict(os.environ)")).value;
  unsetenv("HALO_TEST_SECRET");
  EXPECT_EQ(seen.value("GIVEN", ""), "yes");
  EXPECT_EQ(seen.value("PATH", ""), "/usr/bin:/bin");
  EXPECT_FALSE(seen.contains("HALO_TEST_SECRET"));
  EXPECT_FALSE(seen.contains("HOME"));
}

TEST_F(ExecBackendTest, ProgramsAreFoundByThePathThatTheyGet) {
  std::filesystem::create_directory(folder_ + "/bin");
  const std::string program = folder_ + "/bin/halo-test-program";
  std::ofstream(program) << "#!/bin/sh\nread line\necho 77\n";
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  EXPECT_EQ(CodeOf(Do({{"command", {"halo-test-program"}}})), "exec_not_started");
  Open({.folder = folder_}, {"PATH=/usr/bin:" + folder_ + "/bin"});
  EXPECT_EQ(Do({{"command", {"halo-test-program"}}}).value, 77);
  // A path is relative to the working folder.
  EXPECT_EQ(Do({{"command", {"bin/halo-test-program"}}}).value, 77);
}

TEST_F(ExecBackendTest, WordsAreNotForAShell) {
  const ToolCompletion completion = Do(
      {{"command",
        {"python3", "-c", "import sys, json; sys.stdin.readline(); print(json.dumps(sys.argv[1:]))",
         "$HOME; touch made", "*", "a b", ""}}});
  EXPECT_EQ(completion.value.dump(), R"(["$HOME; touch made","*","a b",""])");
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/made"));
}

TEST_F(ExecBackendTest, TheWorkingFolderIsTheGivenOne) {
  EXPECT_EQ(Do(Answering("os.getcwd()")).value, std::filesystem::canonical(folder_).string());
}

TEST_F(ExecBackendTest, NoDescriptorOfOursReachesAProgram) {
  // One that somebody in this process forgot to close for others, as libraries do.
  const int forgotten = open("/dev/null", O_RDONLY);
  ASSERT_GE(forgotten, 0);
  const Json config =
      Answering("sorted(int(f) for f in os.listdir('/proc/self/fd'))", "", {{"processes", 3}});
  const Json hold = Python(R"(
for line in sys.stdin:
  open('here' + str(os.getpid()), 'w').close()
  while len([f for f in os.listdir('.') if f.startswith('here')]) < 2: time.sleep(0.01)
  print(json.dumps(sorted(int(f) for f in os.listdir('/proc/self/fd'))), flush=True)
)");
  const ToolCallId first = Submit(hold), second = Submit(hold);
  for (const ToolCallId id : {first, second, Submit(config)}) {
    // 3 is the folder that is being read.
    EXPECT_EQ(rig_.Wait(id).value.dump(), "[0,1,2,3]");
  }
  close(forgotten);
}

TEST_F(ExecBackendTest, AProcessWithoutStandardDescriptorsStartsPrograms) {
  // The backend has its own descriptors by now: the program's take these places.
  const int kept[] = {fcntl(0, F_DUPFD_CLOEXEC, 3), fcntl(1, F_DUPFD_CLOEXEC, 3)};
  close(0);
  close(1);
  const ToolCompletion completion = Do(Answering("call['inputs']['x']"), {{"x", 5}});
  backend_.reset();
  dup2(kept[0], 0);
  dup2(kept[1], 1);
  close(kept[0]);
  close(kept[1]);
  EXPECT_EQ(MessageOf(completion), "");
  EXPECT_EQ(completion.value, 5);
}

// ---- ends

TEST_F(ExecBackendTest, CallsAreCancelledWhereverTheyAre) {
  const Json config = Python(R"(
for line in sys.stdin:
  if json.loads(line)['inputs']['n'] == 0:
    open('pid', 'w').write(str(os.getpid()) + '\n')
    time.sleep(1000)
  print('1', flush=True)
)",
                             {{"processes", 1}});
  const ToolCallId running = Submit(config, {{"n", 0}});
  const ToolCallId waiting = Submit(config, {{"n", 1}});
  const ToolCallId next = Submit(config, {{"n", 2}});
  const pid_t pid = PidIn("pid");
  backend_->Cancel(waiting);
  EXPECT_EQ(CodeOf(rig_.Wait(waiting)), "cancelled");
  backend_->Cancel(running);
  backend_->Cancel(running);
  EXPECT_EQ(CodeOf(rig_.Wait(running)), "cancelled");
  EXPECT_EQ(rig_.Wait(next).value, 1);
  EXPECT_FALSE(IsRunning(pid));
  backend_->Cancel(next);
  backend_->Cancel(999);
  EXPECT_EQ(Do(config, {{"n", 3}}).value, 1);
}

TEST_F(ExecBackendTest, TheBackendEndsWhateverRuns) {
  const Json config =
      Shell("read line; echo $$ > pid; sleep 1000 & echo $! > child; wait", {{"processes", 1}});
  Submit(config);
  Submit(config);
  const pid_t pid = PidIn("pid"), child = PidIn("child");
  EXPECT_TRUE(IsRunning(pid));
  backend_.reset();
  EXPECT_FALSE(IsRunning(pid));
  EXPECT_TRUE(Eventually([&] { return !IsRunning(child); }));
  EXPECT_EQ(rig_.ended().size(), 0U);
}

TEST_F(ExecBackendTest, WhatAProgramHasStartedGoesWithIt) {
  // It crashes and leaves a child that holds its output open.
  const ToolCompletion crash =
      Do(Shell("read line; sleep 1000 >&- 2>&- & echo $! > child1; exit 4"));
  EXPECT_THAT(MessageOf(crash), HasSubstr("ended with 4"));
  const pid_t after_crash = PidIn("child1");
  EXPECT_TRUE(Eventually([&] { return !IsRunning(after_crash); }));
  const ToolCompletion late =
      Do(Shell("read line; sleep 1000 & echo $! > child2; wait"), Json::object(), Within(700'000));
  EXPECT_EQ(CodeOf(late), "deadline");
  const pid_t after_deadline = PidIn("child2");
  EXPECT_TRUE(Eventually([&] { return !IsRunning(after_deadline); }));
}

TEST_F(ExecBackendTest, ManyProgramsAtOnce) {
  std::vector<ToolCallId> ids;
  for (int program = 0; program < 5; ++program) {
    const Json config = Shell("while read line; do echo " + std::to_string(program) + "; done");
    for (int call = 0; call < 40; ++call) ids.push_back(Submit(config));
  }
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(rig_.Wait(ids[i]).value, i / 40);
}

}  // namespace
}  // namespace halo::test
