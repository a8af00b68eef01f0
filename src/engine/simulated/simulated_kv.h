#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"
#include "engine/llama/token_tree.h"

namespace halo {

/// Which KV one model has on one simulated worker: what its running requests compute and what is
/// kept of finished ones, on the device or in host memory. Knows tokens and counts, no time.
class SimulatedKv {
 public:
  using HolderId = TokenTree::HolderId;

  struct Kept {
    RequestId request = 0;  ///< 0: a static prefix
    std::string adapter;
    int64_t tokens = 0;
    int32_t consumers = 0;
    bool on_device = false;  ///< else in host memory
    int64_t last_used = 0;
  };
  /// The longest prefix of a prompt that somebody has.
  struct Prefix {
    HolderId holder = -1;  ///< -1: nobody
    int32_t tokens = 0;
    bool still_computed = false;  ///< it is on its way: worth waiting for
    bool in_place = false;        ///< the last that needs it, all of it: taken over as it lies
  };

  /// Of a request that has not begun. The last token is always computed: its logits are wanted.
  Prefix FindPrefix(const Request& request, std::span<const TokenId> prompt) const;

  /// A running request's prompt; `computed` of it are there.
  HolderId AddRunning(const std::string& adapter, std::span<const TokenId> prompt);
  void SetComputed(HolderId holder, int32_t computed) { running_.at(holder).computed = computed; }
  void RemoveRunning(HolderId holder);
  bool IsRunning(HolderId holder) const { return running_.contains(holder); }

  /// Keeps `tokens` on the device unless nobody is known to want them and somebody else has them.
  /// `reused`: of them, taken from others when it began.
  void Keep(const Request& request, std::span<const TokenId> tokens, int64_t reused);
  /// Keeps a constant prefix in host memory. False if one as long is there.
  bool KeepStatic(const std::string& adapter, std::span<const TokenId> prefix);
  const Kept* Find(HolderId holder) const;
  void Touch(HolderId holder);
  void Drop(HolderId holder);
  void DropAll();
  void Release(RequestId request, int32_t consumers);
  /// Moves the least wanted entry on the device other than `but` to host memory and returns its
  /// tokens; nothing if there is none.
  std::optional<int64_t> SpillOne(HolderId but);
  /// Drops from host memory what is wanted least until it holds at most `tokens`; how many.
  int64_t ShrinkHost(int64_t tokens);

  int64_t device_tokens() const { return device_tokens_; }
  int64_t host_tokens() const { return host_tokens_; }
  int64_t on_device() const { return static_cast<int64_t>(device_order_.size()); }

 private:
  /// Static prefixes last, then what has consumers, then what was used last.
  using Worth = std::tuple<bool, bool, int64_t, HolderId>;
  struct Running {
    std::string adapter;
    int32_t computed = 0;
  };
  static Worth WorthOf(HolderId holder, const Kept& kept) {
    return {kept.request == 0, kept.consumers > 0, kept.last_used, holder};
  }
  std::set<Worth>& OrderOf(const Kept& kept) {
    return kept.on_device ? device_order_ : host_order_;
  }
  void Insert(HolderId holder, Kept kept, std::span<const TokenId> tokens);

  // The same tokens have other KV under another adapter.
  std::map<std::string, TokenTree> trees_;
  std::unordered_map<HolderId, Running> running_;
  std::unordered_map<HolderId, Kept> kept_;
  std::unordered_map<RequestId, HolderId> of_request_;
  std::set<Worth> device_order_, host_order_;
  int64_t device_tokens_ = 0, host_tokens_ = 0;
  HolderId next_holder_ = 1;
  int64_t uses_ = 0;
};

}  // namespace halo
