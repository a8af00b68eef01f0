#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/hash.h"
#include "runtime/answer_store.h"

namespace halo {

/// What a tool's call gave. shared by the instances that equal calls were merged for; immutable.
using ToolResult = std::shared_ptr<const nlohmann::ordered_json>;

/// Results of this run that later equal calls take, by signature: the most recently used ones in
/// memory, older ones in a file of `folder` ("": they are forgotten).
class ToolResults {
 public:
  static constexpr int64_t kDefaultBytes = int64_t{256} << 20;

  explicit ToolResults(const std::string& folder, int64_t most_bytes = kDefaultBytes)
      : older_({folder, 1, AnswerStore::Options{}.index_bytes}), most_bytes_(most_bytes) {}

  void Put(const Signature& signature, ToolResult result);
  /// Null if there is none.
  ToolResult Find(const Signature& signature);
  /// Why older results are forgotten; "": they are not.
  const std::string& failure() const { return older_.failure(); }

 private:
  struct Entry {
    Signature signature;
    ToolResult result;
    int64_t bytes = 0;
  };
  void Keep(const Signature& signature, ToolResult result, int64_t bytes);

  AnswerStore older_;
  const int64_t most_bytes_;
  int64_t bytes_ = 0;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_map<Signature, std::list<Entry>::iterator, SignatureHasher> by_signature_;
};

}  // namespace halo
