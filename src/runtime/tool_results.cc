#include "runtime/tool_results.h"

#include <optional>

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

std::string TextOf(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

void ToolResults::Put(const Signature& signature, ToolResult result) {
  const auto bytes = static_cast<int64_t>(TextOf(*result).size());
  Keep(signature, std::move(result), bytes);
}

void ToolResults::Keep(const Signature& signature, ToolResult result, int64_t bytes) {
  if (by_signature_.contains(signature)) return;
  entries_.push_front({signature, std::move(result), bytes});
  by_signature_.emplace(signature, entries_.begin());
  bytes_ += bytes;
  while (bytes_ > most_bytes_ && entries_.size() > 1) {
    const Entry& oldest = entries_.back();
    Completion completion;  // what the store keeps: here the text of a result
    completion.finish = FinishReason::kEndToken;
    completion.text = TextOf(*oldest.result);
    older_.Put(oldest.signature, completion);
    bytes_ -= oldest.bytes;
    by_signature_.erase(oldest.signature);
    entries_.pop_back();
  }
}

ToolResult ToolResults::Find(const Signature& signature) {
  const auto found = by_signature_.find(signature);
  if (found != by_signature_.end()) {
    entries_.splice(entries_.begin(), entries_, found->second);
    return found->second->result;
  }
  const std::optional<Completion> older = older_.Find(signature);
  if (!older) return nullptr;
  auto result = std::make_shared<const Json>(Json::parse(older->text));
  Keep(signature, result, static_cast<int64_t>(older->text.size()));
  return result;
}

}  // namespace halo
