#include "tool/census.h"

#include <gtest/gtest.h>

#include <future>
#include <thread>

namespace halo::test {
namespace {

TEST(Census, CountsThreadsThatRunAndNoneThatWereJoined) {
  const Census before{};
  std::promise<void> end;
  std::thread running([&] { end.get_future().wait(); });
  EXPECT_EQ(CountThreads(), before.threads + 1);
  end.set_value();
  running.join();
  for (int i = 0; i < 2000; ++i) {  // some of them are still in /proc
    std::thread([] {}).join();
    ASSERT_EQ(Census(), before);
  }
}

}  // namespace
}  // namespace halo::test
