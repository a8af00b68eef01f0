#include "model/gguf_tokenizer_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/text.h"

namespace halo {
namespace {

// llama.cpp's other kinds read further tables from the file (a compiled trie, say) with too few
// checks.
constexpr std::array<std::string_view, 4> kKinds = {"gpt2", "llama", "gemma4", "bert"};

// Special tokens that a file does not name get default ids up to 103, and llama.cpp aborts when it
// needs one that the vocabulary does not reach.
constexpr uint64_t kLeastTokens = 128;

constexpr std::string_view kTokensKey = "tokenizer.ggml.tokens";

class TokenizerChecker {
 public:
  explicit TokenizerChecker(const GgufFile& file) : file_(file) {}

  int64_t Check() {
    const GgufValue* tokens = file_.Find(kTokensKey);
    if (tokens == nullptr) return 0;
    if (!IsListOf(*tokens, GgufType::kString)) Refuse(*tokens, "a list of texts is expected");
    if (tokens->count < kLeastTokens) {
      Refuse(*tokens,
             fmt::format("{} tokens, at least {} are expected", tokens->count, kLeastTokens));
    }
    count_ = tokens->count;
    CheckKind();
    CheckTokens(*tokens);
    CheckParallel("tokenizer.ggml.scores", GgufType::kFloat32, GgufType::kInt32);
    CheckParallel("tokenizer.ggml.token_type", GgufType::kInt32, GgufType::kInt32);
    CheckMerges();
    CheckSpecialTokens();
    return static_cast<int64_t>(count_);
  }

 private:
  static bool IsListOf(const GgufValue& value, GgufType type) {
    return value.is_array && value.type == type;
  }

  [[noreturn]] void Refuse(const GgufValue& value, const std::string& what) const {
    file_.Refuse(value.offset, fmt::format("{}: {}", ReplaceInvalidUtf8(value.key), what));
  }

  void CheckKind() {
    kind_ = file_.Text("tokenizer.ggml.model").value_or("");
    if (std::find(kKinds.begin(), kKinds.end(), kind_) != kKinds.end()) return;
    const GgufValue* value = file_.Find("tokenizer.ggml.model");
    if (value == nullptr) file_.Refuse(0, "tokenizer.ggml.model is missing");
    Refuse(*value, fmt::format("a tokenizer of this kind is not read here; those of {} are",
                               fmt::join(kKinds, ", ")));
  }

  // llama.cpp takes each text up to its first zero byte, gives empty ones a name, and aborts if two
  // are then equal.
  void CheckTokens(const GgufValue& value) const {
    const std::vector<std::string_view> tokens = GgufStrings(value);
    std::vector<std::string> named;  // keeps the made-up names alive
    named.reserve(tokens.size());
    std::unordered_set<std::string_view> seen;
    seen.reserve(tokens.size());
    for (size_t i = 0; i < tokens.size(); ++i) {
      std::string_view text = tokens[i].substr(0, tokens[i].find('\0'));
      if (text.empty()) text = named.emplace_back(fmt::format("[EMPTY_{}]", i));
      if (!seen.insert(text).second)
        Refuse(value, fmt::format("token {} has the text of another", i));
    }
    if (kind_ == "llama") CheckBytes(value, seen);
  }

  // Text that no token covers falls back to its bytes; llama.cpp throws while tokenizing if one has
  // no token.
  void CheckBytes(const GgufValue& value, const std::unordered_set<std::string_view>& texts) const {
    for (int byte = 0; byte < 256; ++byte) {
      const char plain = static_cast<char>(byte);
      if (texts.count(fmt::format("<0x{:02X}>", byte)) == 0 &&
          texts.count(std::string_view(&plain, 1)) == 0) {
        Refuse(value, fmt::format("no token for the byte {:#04x}", byte));
      }
    }
  }

  void CheckParallel(const char* key, GgufType type, GgufType other_type) const {
    const GgufValue* value = file_.Find(key);
    if (value == nullptr) return;
    if (!IsListOf(*value, type) && !IsListOf(*value, other_type))
      Refuse(*value, "a list of numbers is expected");
    if (value->count != count_)
      Refuse(*value, fmt::format("{} elements for {} tokens", value->count, count_));
  }

  void CheckMerges() const {
    const GgufValue* merges = file_.Find("tokenizer.ggml.merges");
    if (merges != nullptr && !IsListOf(*merges, GgufType::kString))
      Refuse(*merges, "a list of texts is expected");
  }

  void CheckSpecialTokens() const {
    for (const GgufValue& value : file_.values()) {
      if (!value.key.starts_with("tokenizer.ggml.") || !value.key.ends_with("_token_id")) continue;
      // The largest unsigned number means "none" in files made by older converters; llama.cpp
      // ignores it.
      constexpr int64_t kNone = 0xFFFFFFFF;
      const auto id = value.is_array ? std::nullopt : GgufInteger(value, 0);
      if (!id || (*id != kNone && *id != -1 && (*id < 0 || *id >= static_cast<int64_t>(count_)))) {
        Refuse(value, fmt::format("not an id of a vocabulary of {} tokens", count_));
      }
    }
  }

  const GgufFile& file_;
  uint64_t count_ = 0;
  std::string_view kind_;
};

}  // namespace

int64_t CheckTokenizer(const GgufFile& file) { return TokenizerChecker(file).Check(); }

}  // namespace halo
