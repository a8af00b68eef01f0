// Frames over a socket: in order, whole, and large ones in shared memory.
#include "engine/connection.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "engine/crash_record.h"
#include "engine/shared_memory.h"
#include "tool/census.h"

namespace halo {
namespace {

std::pair<Descriptor, Descriptor> SocketPair() {
  int sockets[2] = {-1, -1};
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
  return {Descriptor(sockets[0]), Descriptor(sockets[1])};
}

std::string FrameOf(size_t prompt_bytes, char filler) {
  Request request;
  request.id = prompt_bytes;
  request.prompt_text = std::string(prompt_bytes, filler);
  return EncodeFrame(ToEngine(request));
}

/// Sends bytes with descriptors beside them, as nobody should.
void SendWith(const Descriptor& socket, const std::string& bytes,
              const std::vector<int>& memories) {
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))] = {};
  message.msg_control = control;
  message.msg_controllen = CMSG_LEN(memories.size() * sizeof(int));
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(memories.size() * sizeof(int));
  std::memcpy(CMSG_DATA(header), memories.data(), memories.size() * sizeof(int));
  ASSERT_EQ(sendmsg(socket.get(), &message, 0), static_cast<ssize_t>(bytes.size()));
}

TEST(ConnectionTest, SmallAndLargeMessagesComeInTheirOrder) {
  const test::Census before;
  {
    auto [a, b] = SocketPair();
    Connection sender(std::move(a)), receiver(std::move(b));
    std::vector<size_t> sizes;
    for (size_t i = 0; i < 200; ++i) sizes.push_back(i % 7 == 3 ? 100'000 + 5'000 * i : 50 * i);
    for (const size_t size : sizes) sender.Put(FrameOf(size, 'p'));
    std::vector<size_t> got;
    while (sender.has_output() || got.size() < sizes.size()) {
      sender.Write();
      receiver.Read([&](std::string_view body, const Descriptor&) {
        const ToEngine message = DecodeToEngine(body);
        const auto& request = std::get<Request>(message);
        EXPECT_EQ(request.prompt_text, std::string(request.id, 'p'));
        got.push_back(request.id);
      });
      ASSERT_TRUE(receiver.is_open()) << receiver.why();
    }
    EXPECT_EQ(got, sizes);
  }
  EXPECT_EQ(test::Census(), before);
}

TEST(ConnectionTest, WhatWasSaidBeforeTheEndIsHeard) {
  auto [a, b] = SocketPair();
  Connection listener(std::move(b));
  {
    Connection sender(std::move(a));
    sender.Put(FrameOf(10, 'p'));
    sender.Put(FrameOf(Connection::kBulkBytes + 1, 'p'));
    sender.Write();
  }
  listener.Put(FrameOf(1, 'x'));
  listener.Write();  // to nobody
  EXPECT_TRUE(listener.is_open());
  size_t heard = 0;
  listener.Read([&](std::string_view, const Descriptor&) { ++heard; });
  EXPECT_EQ(heard, 2U);
  EXPECT_FALSE(listener.is_open());
  EXPECT_FALSE(listener.was_abused());
}

/// What a receiver makes of a length of `bytes` in shared memory, sent with `memories`.
std::string WhyRefused(const std::vector<int>& memories, size_t bytes,
                       const std::string& more = "") {
  const test::Census before;
  std::string why;
  {
    auto [a, b] = SocketPair();
    Connection receiver(std::move(b));
    if (memories.empty()) {
      const std::string length = EncodeSharedLength(bytes);
      EXPECT_EQ(write(a.get(), length.data(), length.size()), 4);
    } else {
      SendWith(a, EncodeSharedLength(bytes) + more, memories);
    }
    receiver.Read([](std::string_view, const Descriptor&) {});
    EXPECT_EQ(receiver.was_abused(), !receiver.is_open());
    why = receiver.why();
  }
  EXPECT_EQ(test::Census(), before) << "descriptors that came are closed";
  return why;
}

TEST(ConnectionTest, MemoryThatCouldBeCutIsRefused) {
  const Descriptor unsealed(memfd_create("unsealed", MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(unsealed.get(), 4096), 0);
  EXPECT_NE(WhyRefused({unsealed.get()}, 4096).find("could change"), std::string::npos);
  // Its size is sealed, its bytes are not.
  const Descriptor writable = MakeSharedMemory("writable", 4096);
  EXPECT_NE(WhyRefused({writable.get()}, 4096).find("could change"), std::string::npos);
  const Descriptor file(open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_NE(WhyRefused({file.get()}, 4096).find("could change"), std::string::npos);
}

TEST(ConnectionTest, MemoryOfAnotherSizeIsRefused) {
  const Descriptor memory = ShareBytes(std::string(4096, 'x'));
  for (const size_t bytes : {1UL, 4095UL, 4097UL, 200UL << 20})
    EXPECT_NE(WhyRefused({memory.get()}, bytes).find("lies in 4096"), std::string::npos) << bytes;
}

TEST(ConnectionTest, MemoryAndLengthsComeTogether) {
  EXPECT_NE(WhyRefused({}, 4096).find("without the memory"), std::string::npos);
  // Of several at once one is taken; the length finds that.
  const Descriptor memory = ShareBytes("x");
  EXPECT_EQ(WhyRefused({memory.get(), memory.get(), memory.get()}, 1), "");
  // Memory without a length fills no queue.
  auto [a, b] = SocketPair();
  Connection receiver(std::move(b));
  for (int i = 0; i < 20; ++i) SendWith(a, FrameOf(1, 'p'), {memory.get()});
  receiver.Read([](std::string_view, const Descriptor&) {});
  EXPECT_FALSE(receiver.is_open());
  EXPECT_NE(receiver.why().find("without a message"), std::string::npos);
}

TEST(ConnectionTest, SharedMemoryCannotBeChangedByAnyone) {
  const Descriptor memory = ShareBytes("bytes");
  EXPECT_NE(ftruncate(memory.get(), 1), 0);
  EXPECT_NE(ftruncate(memory.get(), 100), 0);
  EXPECT_LT(write(memory.get(), "x", 1), 0);
  EXPECT_EQ(mmap(nullptr, 5, PROT_WRITE, MAP_SHARED, memory.get(), 0), MAP_FAILED);
  EXPECT_EQ(MappedMemory::Sealed(memory, 5).text(), "bytes");
}

TEST(PreparedMemoryTest, HoldsWhatWasWrittenWhateverLayReady) {
  PreparedMemory prepared;
  // As large as what lies ready, larger, smaller, less than was asked for, nothing.
  for (const auto& [most, bytes] : std::vector<std::pair<size_t, size_t>>{{5000, 5000},
                                                                          {5000, 5000},
                                                                          {90'000, 90'000},
                                                                          {10, 10},
                                                                          {9000, 700},
                                                                          {9000, 0},
                                                                          {8, 8}}) {
    const std::string text(bytes, static_cast<char>('a' + bytes % 26));
    int64_t written = 0;
    const Descriptor memory = prepared.Share(
        most,
        [&](std::span<uint8_t> place) {
          EXPECT_EQ(place.size(), most);
          std::copy(text.begin(), text.end(), place.begin());
          return text.size();
        },
        written);
    EXPECT_EQ(written, static_cast<int64_t>(bytes));
    EXPECT_EQ(bool(memory), bytes > 0);
    if (memory) {
      EXPECT_EQ(MappedMemory::Sealed(memory, bytes).text(), text);
    }
  }
}

TEST(PreparedMemoryTest, ThereIsNotAsMuchMemory) {
  PreparedMemory prepared;
  int64_t written = 0;
  const auto write = [](std::span<uint8_t>) { return size_t{0}; };
  EXPECT_THROW(prepared.Share(size_t{1} << 60, write, written), Error);
  const auto one = [](std::span<uint8_t>) { return size_t{1}; };
  EXPECT_TRUE(prepared.Share(1, one, written));
}

TEST(CrashRecordTest, HoldsWhatIsComputed) {
  CrashRecord parents;
  CrashRecord childs{Descriptor(dup(parents.memory().get()))};
  EXPECT_NE(ftruncate(childs.memory().get(), 0), 0) << "it cannot be cut under its reader";
  childs.Begin(7);
  childs.Begin(9);
  childs.Begin(7);  // after a preemption
  childs.SetTaken(12);
  ASSERT_TRUE(parents.Caught().has_value());
  EXPECT_EQ(*parents.Caught(), (std::vector<RequestId>{7, 9, 12}));
  childs.End(7);
  childs.SetTaken(0);
  childs.Begin(9);
  EXPECT_EQ(*parents.Caught(), (std::vector<RequestId>{9}));
  childs.End(9);
  EXPECT_TRUE(parents.Caught()->empty());
}

TEST(CrashRecordTest, SaysWhenItIsTooSmall) {
  CrashRecord record;
  for (RequestId id = 1; id <= 400; ++id) record.Begin(id);
  EXPECT_EQ(record.Caught()->size(), 400U);
  for (RequestId id = 1; id <= 1000; ++id) record.Begin(id);
  EXPECT_FALSE(record.Caught().has_value());
}

}  // namespace
}  // namespace halo
