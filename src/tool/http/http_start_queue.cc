#include "tool/http/http_start_queue.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "base/check.h"

namespace halo {
namespace {

// The loop that asks wakes up to the millisecond. A start that comes late by so little does not
// move the next one, else a rate of hundreds a second would never be reached.
constexpr int64_t kLateUs = 2'000;

int64_t Interval(double starts_per_second) {
  if (!(starts_per_second > 0)) return 0;
  constexpr double kLongestUs = 1e12;
  return static_cast<int64_t>(std::min(kLongestUs, 1e6 / starts_per_second));
}

}  // namespace

HttpStartQueue::HttpStartQueue(int32_t most_in_all) : most_in_all_(most_in_all) {
  HALO_CHECK(most_in_all > 0, "some call may start");
}

void HttpStartQueue::Add(const std::string& host, const HttpTicket& ticket,
                         const HttpHostBounds& bounds) {
  HALO_CHECK(bounds.most_at_once > 0, "some call may start");
  const auto at = hosts_.try_emplace(host).first;
  at->second.most_at_once = bounds.most_at_once;
  at->second.interval_us = Interval(bounds.starts_per_second);
  const bool added = at->second.waiting.insert(ticket).second;
  HALO_CHECK(added, "a call waits once");
  Place(at, now_us_);
}

void HttpStartQueue::Remove(const std::string& host, const HttpTicket& ticket) {
  const auto at = hosts_.find(host);
  HALO_CHECK(at != hosts_.end() && at->second.waiting.erase(ticket) == 1, "the call waits");
  Place(at, now_us_);
}

std::optional<HttpTicket> HttpStartQueue::StartNext(int64_t now_us) {
  now_us_ = std::max(now_us_, now_us);
  while (!later_us_.empty() && later_us_.begin()->first <= now_us_) {
    Place(hosts_.find(later_us_.begin()->second), now_us_);
  }
  if (ready_.empty() || running_ >= most_in_all_) return std::nullopt;
  const auto at = hosts_.find(ready_.begin()->second);
  Host& host = at->second;
  const HttpTicket ticket = *host.waiting.begin();
  host.waiting.erase(host.waiting.begin());
  ++host.running;
  ++running_;
  if (host.interval_us > 0) {
    host.next_start_us = std::max(host.next_start_us, now_us_ - kLateUs) + host.interval_us;
  }
  Place(at, now_us_);
  return ticket;
}

void HttpStartQueue::Release(const std::string& host) {
  const auto at = hosts_.find(host);
  HALO_CHECK(at != hosts_.end() && at->second.running > 0, "the call had a place");
  --at->second.running;
  --running_;
  Place(at, now_us_);
}

std::optional<int64_t> HttpStartQueue::next_start_us() const {
  if (later_us_.empty()) return std::nullopt;
  return later_us_.begin()->first;
}

int64_t HttpStartQueue::held_back() const {
  int64_t calls = 0;
  for (const auto& [start_us, host] : later_us_)
    calls += static_cast<int64_t>(hosts_.at(host).waiting.size());
  return calls;
}

void HttpStartQueue::Place(std::map<std::string, Host>::iterator at, int64_t now_us) {
  Host& host = at->second;
  if (host.ready) ready_.erase(*std::exchange(host.ready, std::nullopt));
  if (host.later_us) later_us_.erase({*std::exchange(host.later_us, std::nullopt), at->first});

  const bool in_time = host.next_start_us <= now_us;
  const bool wants = !host.waiting.empty() && host.running < host.most_at_once;
  if (wants && in_time) {
    host.ready = *host.waiting.begin();
    ready_.emplace(*host.ready, at->first);
  } else if (wants || (host.waiting.empty() && host.running == 0 && !in_time)) {
    host.later_us = host.next_start_us;  // in the second case only to be forgotten then
    later_us_.emplace(*host.later_us, at->first);
  } else if (host.waiting.empty() && host.running == 0) {
    hosts_.erase(at);
  }
}

}  // namespace halo
