#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "tool/tool.h"

namespace halo {

/// A call that waits, by the order in which waiting calls start.
struct HttpTicket {
  int64_t order = 0;    ///< ToolCall::order
  uint64_t number = 0;  ///< counts submissions: first come, first served among equals
  ToolCallId id = 0;

  friend auto operator<=>(const HttpTicket&, const HttpTicket&) = default;
};

/// What one host takes.
struct HttpHostBounds {
  int32_t most_at_once = 1;
  double starts_per_second = 0.0;  ///< 0: no limit

  friend bool operator==(const HttpHostBounds&, const HttpHostBounds&) = default;
};

/// Which calls may start: at most so many at once to a host, and altogether, and not faster to a
/// host than so many a second. Knows no clock and no network.
class HttpStartQueue {
 public:
  explicit HttpStartQueue(int32_t most_in_all);

  /// `bounds`: of the host, the same with each of its calls.
  void Add(const std::string& host, const HttpTicket& ticket, const HttpHostBounds& bounds);
  /// A call that was added and has not started waits no longer.
  void Remove(const std::string& host, const HttpTicket& ticket);
  /// The call that starts now, which takes a place to its host; nullopt: none may.
  std::optional<HttpTicket> StartNext(int64_t now_us);
  /// A call that had started gives its place back.
  void Release(const std::string& host);
  /// When to ask again although no place is given back; nullopt: no call waits for its time alone.
  std::optional<int64_t> next_start_us() const;
  /// Calls to hosts that have a place for one and are asked only so often.
  int64_t held_back() const;

 private:
  struct Host {
    std::set<HttpTicket> waiting;
    int32_t most_at_once = 1;
    int64_t interval_us = 0;
    int32_t running = 0;
    int64_t next_start_us = INT64_MIN;
    // Where it stands in the sets below.
    std::optional<HttpTicket> ready;
    std::optional<int64_t> later_us;
  };

  /// Puts a host into the set where it belongs now; forgets it if nothing is left to know.
  void Place(std::map<std::string, Host>::iterator at, int64_t now_us);

  const int32_t most_in_all_;
  int32_t running_ = 0;
  int64_t now_us_ = INT64_MIN;  // the latest that was told
  std::map<std::string, Host> hosts_;
  std::map<HttpTicket, std::string> ready_;             // hosts whose first call may start
  std::set<std::pair<int64_t, std::string>> later_us_;  // hosts to look at again at that time
};

}  // namespace halo
