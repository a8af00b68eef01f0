#include "tool/http/http_backend.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <system_error>
#include <thread>
#include <utility>
#include <variant>

#include "base/check.h"
#include "tool/http/http_answer.h"
#include "tool/http/http_request.h"
#include "tool/http/http_start_queue.h"
#include "tool/http/http_transfer.h"
#include "tool/http/http_url.h"
#include "tool/http/ip_address.h"

namespace halo {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

int64_t Later(int64_t time_us, int64_t by_us) {
  by_us = std::max<int64_t>(0, by_us);
  return time_us > kNever - by_us ? kNever : time_us + by_us;
}

/// Once a process; libcurl counts its users itself, and other code may be one.
void StartLibcurl() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (code != CURLE_OK) {
    throw Error(ErrorCode::kConfig,
                fmt::format("libcurl cannot start: {}", curl_easy_strerror(code)));
  }
}

void CheckOptions(const HttpOptions& options) {
  const auto refuse = [](const std::string& why) { throw Error(ErrorCode::kConfig, why); };
  if (options.concurrency < 1 || options.concurrency_in_all < 1) {
    refuse("the number of HTTP requests in flight must be at least 1");
  }
  if (!(options.requests_per_second >= 0)) {
    refuse("the number of HTTP requests per second must be 0 (no limit) or more");
  }
  for (const HttpHostLimit& limit : options.host_limits) {
    if (limit.concurrency < 0 || !(limit.requests_per_second >= 0))
      refuse(fmt::format("the limits of the host '{}' must not be negative", limit.host));
  }
  if (options.default_timeout_us <= 0 || options.connect_timeout_us <= 0) {
    refuse("the time limits of HTTP requests must be more than 0");
  }
  for (const HttpPinnedAddress& pinned : options.pinned_addresses) {
    if (!ParseIpAddress(pinned.address) || pinned.port == 0) {
      refuse(
          fmt::format("the address of the host '{}': '{}' port {} is none: write an IPv4 or IPv6 "
                      "address and a port",
                      pinned.host, pinned.address, pinned.port));
    }
  }
}

/// One for each limit, in their order.
std::vector<HttpHostRules> RulesOf(const std::vector<HttpHostLimit>& limits) {
  std::vector<HttpHostRules> rules;
  for (const HttpHostLimit& limit : limits) rules.emplace_back(std::vector{limit.host});
  return rules;
}

/// Signals are for the program's own threads; and a write to a closed connection is no reason to
/// end the program.
void BlockSignals() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
}

struct FreeMulti {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};

/// A call from its submission to its completion.
///
///   new --> waiting --StartNext--> running --answer--> held --its time--> done
///    ^                                |
///    +----------- redirect -----------+            (simulated: waiting --> held)
///
/// From every state it may go to done at once: failed, past its limit, or cancelled.
struct Call {
  enum class State : uint8_t {
    kNew,      ///< neither waits for a place nor has one
    kWaiting,  ///< in the queue
    kRunning,  ///< has a place to its host
    kHeld      ///< the same; its value is there
  };

  HttpCall& http() { return std::get<HttpCall>(tool.what); }

  ToolCall tool;
  HttpTicket ticket;
  State state = State::kNew;
  HttpUrl url;
  std::string host;                  ///< whose place it waits for or has
  std::vector<std::string> secrets;  ///< no message repeats these
  std::string shown;                 ///< what messages begin with: "GET example.com"
  int redirects = 0;
  int64_t started_us = -1;                 ///< -1: not yet
  int64_t limit_us = kNever;               ///< past it the call fails
  int64_t release_us = 0;                  ///< held: when it is done
  int64_t due_us = kNever;                 ///< when to look at it again; in Impl::due
  std::unique_ptr<HttpTransfer> transfer;  ///< running
  nlohmann::ordered_json value;            ///< held
};

}  // namespace

struct HttpBackend::Impl {
  using Command = std::variant<ToolCall, ToolCallId>;  // submit, cancel
  using Calls = std::map<ToolCallId, Call>;

  Impl(HttpOptions the_options, ToolMailbox& the_mailbox, Clock& the_clock);
  ~Impl();

  void Tell(Command command);

  // The thread.
  void Run();
  void Obey(std::vector<Command> commands);
  void Begin(ToolCall tool);
  void Ask(Call& call);
  HttpHostBounds BoundsOf(const HttpUrl& url) const;
  void Wait(Call& call);
  void StartCalls();
  void Start(Call& call);
  void TakeAnswers();
  void Judge(Call& call, HttpTransfer::Outcome outcome);
  void Redirect(Call& call, const HttpAnswer& answer);
  void Hold(Call& call, nlohmann::ordered_json value, int64_t until_us);
  void LookAtDue();
  int WaitMs() const;
  void SetDue(Call& call, int64_t due_us);
  void StopTransfer(Call& call);
  void Fail(Call& call, Failure failure, int64_t retry_after_us = 0);
  void Complete(Call& call, ToolCompletion completion);

  const HttpOptions options;
  const HttpHostRules rules;
  const std::vector<HttpHostRules> limit_rules;  // [options.host_limits]
  ToolMailbox& mailbox;
  Clock& clock;
  std::unique_ptr<CURLM, FreeMulti> multi;

  std::mutex mutex;
  std::vector<Command> inbox;  // under mutex
  bool stopping = false;       // under mutex

  // The thread's own.
  Calls calls;
  HttpStartQueue queue;
  std::atomic<int64_t> held_back{0};  // of the queue, for other threads
  std::set<std::pair<int64_t, ToolCallId>> due;
  uint64_t submitted = 0;

  std::thread thread;
};

HttpBackend::Impl::Impl(HttpOptions the_options, ToolMailbox& the_mailbox, Clock& the_clock)
    : options(std::move(the_options)),
      rules(options.allowed_hosts),
      limit_rules(RulesOf(options.host_limits)),
      mailbox(the_mailbox),
      clock(the_clock),
      multi(curl_multi_init()),
      queue(options.concurrency_in_all) {
  if (!multi) throw Error(ErrorCode::kConfig, "libcurl has no memory to start");
  // Idle connections are kept for as many calls as there may be.
  curl_multi_setopt(multi.get(), CURLMOPT_MAXCONNECTS,
                    static_cast<long>(options.concurrency_in_all));
  curl_multi_setopt(multi.get(), CURLMOPT_PIPELINING, static_cast<long>(CURLPIPE_MULTIPLEX));
  try {
    thread = std::thread([this] { Run(); });
  } catch (const std::system_error& fault) {
    throw Error(ErrorCode::kConfig, fmt::format("no thread for HTTP requests: {}", fault.what()));
  }
}

HttpBackend::Impl::~Impl() {
  {
    const std::lock_guard lock(mutex);
    stopping = true;
  }
  curl_multi_wakeup(multi.get());
  thread.join();
}

void HttpBackend::Impl::Tell(Command command) {
  {
    const std::lock_guard lock(mutex);
    inbox.push_back(std::move(command));
  }
  const CURLMcode code = curl_multi_wakeup(multi.get());
  HALO_CHECK(code == CURLM_OK, "libcurl can be woken up");
}

void HttpBackend::Impl::Run() {
  BlockSignals();
  while (true) {
    std::vector<Command> commands;
    bool last = false;
    {
      const std::lock_guard lock(mutex);
      commands = std::exchange(inbox, {});
      last = stopping;
    }
    Obey(std::move(commands));
    if (last) break;
    LookAtDue();
    StartCalls();
    int running = 0;
    CURLMcode code = curl_multi_perform(multi.get(), &running);
    HALO_CHECK(code == CURLM_OK, "libcurl goes on with its transfers");
    TakeAnswers();
    StartCalls();  // in the places that are free now; libcurl does not wait where it has new ones
    code = curl_multi_poll(multi.get(), nullptr, 0, WaitMs(), nullptr);
    HALO_CHECK(code == CURLM_OK, "libcurl waits for its transfers");
  }
  while (!calls.empty()) {
    Fail(calls.begin()->second, {"", "cancelled", "the run ended first", false});
  }
}

void HttpBackend::Impl::Obey(std::vector<Command> commands) {
  for (Command& command : commands) {
    if (ToolCall* tool = std::get_if<ToolCall>(&command)) {
      Begin(std::move(*tool));
      continue;
    }
    const auto at = calls.find(std::get<ToolCallId>(command));
    if (at == calls.end()) continue;  // it had finished
    Fail(at->second, {"", "cancelled", "cancelled", false});
  }
}

void HttpBackend::Impl::Begin(ToolCall tool) {
  const ToolCallId id = tool.id;
  const auto [at, is_new] = calls.try_emplace(id);
  HALO_CHECK(is_new, "a call's id is used once");
  Call& call = at->second;
  call.tool = std::move(tool);
  call.ticket = {call.tool.order, submitted++, id};
  call.secrets = SecretsOf(call.http());
  if (call.tool.deadline_us != 0) call.limit_us = call.tool.deadline_us;

  const HttpCall& http = call.http();
  std::string fault;
  const std::optional<HttpUrl> url = ParseHttpUrl(http.url, fault);
  if (url) call.url = *url;
  if (http.latency_mode == HttpLatencyMode::kSimulated) {
    // Nothing is reached, so nothing is refused; a call without a URL counts as to one host.
    call.host = url ? url->Origin() : "";
    return Wait(call);
  }
  if (std::optional<Failure> failure = CheckHttpRequest(http)) {
    Fail(call, std::move(*failure));
  } else if (!url) {
    Fail(call, {"", "bad_url", fault, false});
  } else {
    Ask(call);
  }
}

/// A request to call.url, the first or after a redirect.
void HttpBackend::Impl::Ask(Call& call) {
  call.shown = fmt::format("{} {}", call.http().method,
                           PrintableExcerpt(call.url.ShownHost(), call.secrets, 100));
  if (!options.allow_everything && !rules.Allow(call.url)) {
    return Fail(call, {"", "host_not_allowed",
                       fmt::format("{}the host is not allowed: add it to allow_hosts, or pass "
                                   "`--allow net`",
                                   call.redirects > 0 ? "redirected there, but " : ""),
                       false});
  }
  call.host = call.url.Origin();
  Wait(call);
}

HttpHostBounds HttpBackend::Impl::BoundsOf(const HttpUrl& url) const {
  HttpHostBounds bounds{options.concurrency, options.requests_per_second};
  for (size_t i = 0; i < limit_rules.size(); ++i) {
    if (!limit_rules[i].Allow(url)) continue;
    const HttpHostLimit& limit = options.host_limits[i];
    if (limit.concurrency > 0) bounds.most_at_once = limit.concurrency;
    if (limit.requests_per_second > 0) bounds.starts_per_second = limit.requests_per_second;
    break;
  }
  return bounds;
}

void HttpBackend::Impl::Wait(Call& call) {
  call.state = Call::State::kWaiting;
  queue.Add(call.host, call.ticket, BoundsOf(call.url));
  SetDue(call, call.limit_us);
}

void HttpBackend::Impl::StartCalls() {
  const int64_t now_us = clock.NowUs();
  while (const std::optional<HttpTicket> ticket = queue.StartNext(now_us)) {
    Start(calls.at(ticket->id));
  }
  held_back.store(queue.held_back(), std::memory_order_relaxed);
}

void HttpBackend::Impl::Start(Call& call) {
  const HttpCall& http = call.http();
  if (call.started_us < 0) {
    call.started_us = clock.NowUs();
    if (call.tool.deadline_us == 0) {
      call.limit_us = Later(call.started_us, options.default_timeout_us);
    }
  }
  call.state = Call::State::kRunning;
  if (http.latency_mode == HttpLatencyMode::kSimulated) {
    Hold(call, {{"status", "ok"}}, Later(call.started_us, http.latency_us));
    return;
  }
  const bool once = call.tool.effect == ToolEffect::kWrite && !call.tool.idempotent;
  call.transfer = std::make_unique<HttpTransfer>(http, call.url, once, options);
  curl_easy_setopt(call.transfer->handle(), CURLOPT_PRIVATE, &call);
  const CURLMcode code = curl_multi_add_handle(multi.get(), call.transfer->handle());
  HALO_CHECK(code == CURLM_OK, "libcurl takes a transfer");
  SetDue(call, call.limit_us);
}

void HttpBackend::Impl::TakeAnswers() {
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi.get(), &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode code = message->data.result;  // the message goes with its transfer
    Call* call = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &call);
    HttpTransfer::Outcome outcome = call->transfer->Finish(code);
    StopTransfer(*call);
    Judge(*call, std::move(outcome));
  }
}

void HttpBackend::Impl::Judge(Call& call, HttpTransfer::Outcome outcome) {
  if (outcome.failure) {
    // libcurl's words may quote what a server sent.
    Failure failure = std::move(*outcome.failure);
    failure.message = PrintableExcerpt(failure.message, call.secrets, 200);
    return Fail(call, std::move(failure));
  }
  HttpAnswer& answer = outcome.answer;
  if (IsHttpRedirect(answer)) return Redirect(call, answer);
  const int32_t status = answer.status;
  if (status < 200 || status > 299) {
    const std::string excerpt = PrintableExcerpt(answer.body, call.secrets, 200);
    const bool asks_for_patience = status == 429 || status == 503;
    return Fail(call,
                {"", "http_status",
                 fmt::format("answered {}{}{}", status, excerpt.empty() ? "" : ": ", excerpt),
                 status == 408 || status == 429 || status >= 500},
                asks_for_patience ? RetryAfterUs(answer.retry_after, answer.date) : 0);
  }
  HttpValue value =
      ReadHttpBody(std::move(answer.body), answer.content_type, call.http().response_path);
  if (value.failure) return Fail(call, std::move(*value.failure));
  const bool is_padded = call.http().latency_mode == HttpLatencyMode::kPadded;
  Hold(call, std::move(value.value),
       is_padded ? Later(call.started_us, call.http().latency_us) : call.started_us);
}

void HttpBackend::Impl::Redirect(Call& call, const HttpAnswer& answer) {
  if (++call.redirects > kMostHttpRedirects) {
    return Fail(call, {"", "redirect",
                       fmt::format("redirected more than {} times", kMostHttpRedirects), false});
  }
  std::optional<Failure> failure = FollowHttpRedirect(answer, call.http(), call.url);
  if (failure) return Fail(call, std::move(*failure));
  queue.Release(call.host);
  call.state = Call::State::kNew;
  Ask(call);
}

/// Done with `value`, at `until_us` or now.
void HttpBackend::Impl::Hold(Call& call, nlohmann::ordered_json value, int64_t until_us) {
  call.state = Call::State::kHeld;
  call.value = std::move(value);
  call.release_us = until_us;
  if (until_us > clock.NowUs()) return SetDue(call, std::min(until_us, call.limit_us));
  ToolCompletion completion;
  completion.value = std::move(call.value);
  Complete(call, std::move(completion));
}

void HttpBackend::Impl::LookAtDue() {
  const int64_t now_us = clock.NowUs();
  while (!due.empty() && due.begin()->first <= now_us) {
    Call& call = calls.at(due.begin()->second);
    const bool is_over = call.state == Call::State::kHeld && call.release_us <= now_us;
    if (is_over && call.release_us <= call.limit_us) {
      Hold(call, std::move(call.value), call.release_us);
    } else if (call.tool.deadline_us != 0) {
      Fail(call, {"", "deadline", "not done by its deadline", false});
    } else {
      Fail(call, {"", "timeout",
                  fmt::format("no complete answer within {} s",
                              static_cast<double>(options.default_timeout_us) / 1e6),
                  true});
    }
  }
}

/// Until something is due. Rounded up: to wake up too early would only be to wait again.
int HttpBackend::Impl::WaitMs() const {
  constexpr int64_t kMostMs = 60'000;
  int64_t next_us = due.empty() ? kNever : due.begin()->first;
  if (const std::optional<int64_t> start_us = queue.next_start_us()) {
    next_us = std::min(next_us, *start_us);
  }
  if (next_us == kNever) return static_cast<int>(kMostMs);
  const int64_t left_us = std::max<int64_t>(0, next_us - clock.NowUs());
  return static_cast<int>(std::min(kMostMs, (left_us + 999) / 1000));
}

void HttpBackend::Impl::SetDue(Call& call, int64_t due_us) {
  if (call.due_us != kNever) due.erase({call.due_us, call.tool.id});
  call.due_us = due_us;
  if (due_us != kNever) due.emplace(due_us, call.tool.id);
}

void HttpBackend::Impl::StopTransfer(Call& call) {
  if (!call.transfer) return;
  const CURLMcode code = curl_multi_remove_handle(multi.get(), call.transfer->handle());
  HALO_CHECK(code == CURLM_OK, "libcurl gives a transfer back");
  call.transfer.reset();
}

void HttpBackend::Impl::Fail(Call& call, Failure failure, int64_t retry_after_us) {
  if (!call.shown.empty()) failure.message = fmt::format("{}: {}", call.shown, failure.message);
  ToolCompletion completion;
  completion.failure = std::move(failure);
  completion.retry_after_us = retry_after_us;
  Complete(call, std::move(completion));
}

void HttpBackend::Impl::Complete(Call& call, ToolCompletion completion) {
  StopTransfer(call);
  SetDue(call, kNever);
  if (call.state == Call::State::kWaiting) {
    queue.Remove(call.host, call.ticket);
  } else if (call.state != Call::State::kNew) {
    queue.Release(call.host);
  }
  completion.id = call.tool.id;
  completion.finished_us = clock.NowUs();
  completion.started_us = call.started_us < 0 ? completion.finished_us : call.started_us;
  calls.erase(completion.id);
  mailbox.Put(std::move(completion));
}

HttpBackend::HttpBackend(HttpOptions options, ToolMailbox& mailbox, Clock& clock) {
  CheckOptions(options);
  StartLibcurl();
  impl_ = std::make_unique<Impl>(std::move(options), mailbox, clock);
}

HttpBackend::~HttpBackend() = default;

void HttpBackend::Submit(ToolCall call) {
  HALO_CHECK(std::holds_alternative<HttpCall>(call.what), "an HTTP call");
  impl_->Tell(std::move(call));
}

int64_t HttpBackend::held_back() const { return impl_->held_back.load(std::memory_order_relaxed); }

void HttpBackend::Cancel(ToolCallId id) { impl_->Tell(id); }

}  // namespace halo
