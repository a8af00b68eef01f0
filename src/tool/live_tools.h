#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "tool/tool_backend.h"

namespace halo {

/// The tools of a real run: gives each call to the backend of its kind and takes completions from
/// all of them at one mailbox. Functions that come with Halo run where they are submitted, since
/// they cost less than a change of threads.
class LiveTools final : public ToolRunner {
 public:
  explicit LiveTools(Clock& clock) : clock_(clock) {}

  /// What backends put their completions into.
  ToolMailbox& mailbox() { return mailbox_; }
  /// `connections`: names of SqlCall::connection that go to `backend`.
  void TakeSql(std::unique_ptr<ToolBackend> backend, const std::vector<std::string>& connections);
  void TakeHttp(std::unique_ptr<ToolBackend> backend) { http_ = std::move(backend); }
  void TakeExec(std::unique_ptr<ToolBackend> backend) { exec_ = std::move(backend); }
  /// `backend` has every function that does not come with Halo.
  void TakeHost(std::unique_ptr<ToolBackend> backend) { host_ = std::move(backend); }

  void Submit(ToolCall call) override;
  void Cancel(ToolCallId id) override;
  std::vector<ToolCompletion> Poll(int64_t deadline_us) override;
  int64_t pending() const override { return static_cast<int64_t>(by_call_.size()); }
  int64_t held_back() const override { return http_ == nullptr ? 0 : http_->held_back(); }
  int ready_descriptor() const override { return mailbox_.ready_descriptor(); }

 private:
  ToolBackend* BackendOf(const ToolCall& call) const;
  void RunHere(const ToolCall& call);

  Clock& clock_;
  ToolMailbox mailbox_;  // outlives the backends
  std::vector<std::unique_ptr<ToolBackend>> sql_;
  std::map<std::string, ToolBackend*> by_connection_;
  std::unique_ptr<ToolBackend> http_, exec_, host_;
  std::map<ToolCallId, ToolBackend*> by_call_;  // null: run here
};

}  // namespace halo
