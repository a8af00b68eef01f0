#include "model/vocabulary.h"

#include <gguf.h>
#include <llama.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/text.h"
#include "model/special_tokens.h"

namespace halo {

namespace {

constexpr size_t kMemoEntries = 4096;
constexpr size_t kMemoTextBytes = 8192;  // longer texts are not remembered
constexpr char kPrivateLead = '\xEE';    // first byte of most code points for private use

void DropLog(ggml_log_level, const char*, void*) {}

std::string TokenPiece(const llama_vocab* vocab, TokenId token, bool special) {
  std::string piece(32, '\0');
  int32_t length = llama_token_to_piece(vocab, token, piece.data(),
                                        static_cast<int32_t>(piece.size()), 0, special);
  if (length < 0) {
    piece.resize(static_cast<size_t>(-length));
    length = llama_token_to_piece(vocab, token, piece.data(), static_cast<int32_t>(piece.size()), 0,
                                  special);
  }
  piece.resize(static_cast<size_t>(std::max(length, 0)));
  return piece;
}

size_t FirstCharacterBytes(std::string_view text) {
  size_t length = 1;
  while (length < text.size() && (static_cast<unsigned char>(text[length]) & 0xC0) == 0x80)
    ++length;
  return length;
}

// User-defined tokens that are plain text: runs of white space and single characters. They steer no
// model, some vocabularies list hundreds of them, and data without them would be tokenized unlike
// what the model was trained on. They are left to llama.cpp, which recognizes them wherever they
// stand.
bool IsPlainText(const SpecialToken& token) {
  if (!token.user_defined) return false;
  const bool blank = token.text.find_first_not_of(" \t\r\n\v\f") == std::string::npos;
  return blank || FirstCharacterBytes(token.text) == token.text.size();
}

// A number of the file's metadata, -1 if it is not there.
int64_t MetadataNumber(const llama_model* model, const char* key) {
  char text[32];
  if (llama_model_meta_val_str(model, key, text, sizeof(text)) < 0) return -1;
  return std::strtoll(text, nullptr, 10);
}

struct FreeModel {
  void operator()(llama_model* model) const { llama_model_free(model); }
};
struct FreeGguf {
  void operator()(gguf_context* context) const { gguf_free(context); }
};

// How a text is cut into words, and the byte pair merges, which llama.cpp's interface does not
// give.
void AddRules(const std::string& path, const llama_model* model, SignatureBuilder* builder) {
  char words[128] = "";
  llama_model_meta_val_str(model, "tokenizer.ggml.pre", words, sizeof(words));
  builder->Add(std::string_view(words));
  const std::unique_ptr<gguf_context, FreeGguf> file(
      gguf_init_from_file(path.c_str(), gguf_init_params{/*no_alloc=*/true, /*ctx=*/nullptr}));
  if (!file) return;
  const int64_t key = gguf_find_key(file.get(), "tokenizer.ggml.merges");
  if (key < 0 || gguf_get_kv_type(file.get(), key) != GGUF_TYPE_ARRAY ||
      gguf_get_arr_type(file.get(), key) != GGUF_TYPE_STRING) {
    return;
  }
  const size_t count = gguf_get_arr_n(file.get(), key);
  builder->Add(static_cast<int64_t>(count));
  for (size_t i = 0; i < count; ++i)
    builder->Add(std::string_view(gguf_get_arr_str(file.get(), key, i)));
}

}  // namespace

struct Vocabulary::Impl {
  std::unique_ptr<llama_model, FreeModel> model;
  const llama_vocab* vocab = nullptr;
  TokenId bos = -1;
  bool add_bos = false;
  std::vector<SpecialToken> specials;  // in llama.cpp's order of precedence
  SpecialTokenFinder finder;           // of `specials`
  std::vector<bool> is_special;        // [size] plain text as below included
  std::vector<bool> is_guarded;        // [size] what data must never become
  // A character that no token is made of; "" if the tokenizer puts no space before a text.
  std::string barrier;
  size_t barrier_tokens = 0;

  mutable std::shared_mutex memo_mutex;
  mutable std::unordered_map<std::string, std::vector<TokenId>> memo;  // guarded by memo_mutex

  void FindSpecialTokens(int32_t size);
  void FindBarrier(int32_t size);
  std::vector<TokenId> LlamaTokenize(std::string_view text) const;
  std::vector<TokenId> Tokenize(std::string_view text, bool after_text) const;
  void AppendPlain(std::string_view text, bool after_text, std::vector<TokenId>* ids) const;
  void AppendRaw(std::string_view text, bool is_template, bool after_text,
                 std::vector<TokenId>* ids) const;
  void AppendText(std::string_view text,
                  const std::vector<std::pair<size_t, size_t>>& template_ranges, bool* after_text,
                  std::vector<TokenId>* ids) const;
  std::vector<TokenId> TokenizeSpans(const std::vector<PromptSpan>& spans, bool after_text) const;
};

void Vocabulary::Impl::FindSpecialTokens(int32_t size) {
  is_special.assign(static_cast<size_t>(size), false);
  is_guarded.assign(static_cast<size_t>(size), false);
  const int64_t unknown = MetadataNumber(model.get(), "tokenizer.ggml.unknown_token_id");
  for (TokenId id = 0; id < size; ++id) {
    const int attributes = llama_vocab_get_attr(vocab, id);
    if ((attributes & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_USER_DEFINED |
                       LLAMA_TOKEN_ATTR_UNKNOWN)) == 0) {
      continue;
    }
    SpecialToken token;
    token.id = id;
    token.text = llama_vocab_get_text(vocab, id);
    token.user_defined = (attributes & LLAMA_TOKEN_ATTR_USER_DEFINED) != 0;
    token.strip_left = (attributes & LLAMA_TOKEN_ATTR_LSTRIP) != 0;
    token.strip_right = (attributes & LLAMA_TOKEN_ATTR_RSTRIP) != 0;
    is_special[static_cast<size_t>(id)] = true;
    if (IsPlainText(token)) continue;
    // The unknown token is what any unreadable text becomes, so only its text is guarded, not its
    // id.
    is_guarded[static_cast<size_t>(id)] =
        (attributes & LLAMA_TOKEN_ATTR_UNKNOWN) == 0 && id != unknown;
    specials.push_back(std::move(token));
  }
  // The same unstable sort from the same start as llama.cpp's, so that tokens of equal length rank
  // alike.
  std::sort(specials.begin(), specials.end(), [](const SpecialToken& a, const SpecialToken& b) {
    return a.text.size() > b.text.size();
  });
  finder.Build(specials);
}

void Vocabulary::Impl::FindBarrier(int32_t size) {
  if (llama_vocab_type(vocab) != LLAMA_VOCAB_TYPE_SPM) return;
  // U+E000 to U+EFFF, in UTF-8 all of three bytes of which the first is EE.
  std::vector<bool> used(64 * 64, false);
  const auto low_bits = [](char c) { return size_t{static_cast<unsigned char>(c)} & 0x3F; };
  for (TokenId id = 0; id < size; ++id) {
    const std::string_view text = llama_vocab_get_text(vocab, id);
    for (size_t at = text.find(kPrivateLead); at != std::string_view::npos && at + 2 < text.size();
         at = text.find(kPrivateLead, at + 1)) {
      used[low_bits(text[at + 1]) * 64 + low_bits(text[at + 2])] = true;
    }
  }
  const auto unused = std::find(used.begin(), used.end(), false);
  if (unused == used.end()) return;
  const auto code = static_cast<size_t>(unused - used.begin());
  barrier = {kPrivateLead, static_cast<char>(0x80 | code / 64),
             static_cast<char>(0x80 | code % 64)};
  barrier_tokens = LlamaTokenize(barrier).size();
  // Twice the barrier has twice its tokens, but only one space in front.
  const size_t with_two = LlamaTokenize(barrier + barrier).size();
  if (2 * barrier_tokens <= with_two) barrier.clear();
}

// Bytes that are not UTF-8 must not reach llama.cpp: it throws, and for some vocabularies ends the
// process.
std::vector<TokenId> Vocabulary::Impl::LlamaTokenize(std::string_view text) const {
  std::string repaired;
  if (FindInvalidUtf8(text) != std::string_view::npos) {
    repaired = ReplaceInvalidUtf8(text);
    text = repaired;
  }
  std::vector<TokenId> ids(text.size() + 2);
  const auto run = [&] {
    return llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), ids.data(),
                          static_cast<int32_t>(ids.size()), /*add_special=*/false,
                          /*parse_special=*/false);
  };
  int32_t count = run();
  if (count < 0) {
    ids.resize(static_cast<size_t>(-count));
    count = run();
  }
  ids.resize(static_cast<size_t>(std::max(count, 0)));
  return ids;
}

// SentencePiece vocabularies put a space before a text unless ordinary tokens precede it. llama.cpp
// does not say whether to when it is given a text alone, so a text that goes on after other text is
// put behind a character that can merge with nothing, whose tokens are then dropped.
std::vector<TokenId> Vocabulary::Impl::Tokenize(std::string_view text, bool after_text) const {
  if (!after_text || barrier.empty()) return LlamaTokenize(text);
  std::vector<TokenId> ids = LlamaTokenize(barrier + std::string(text));
  ids.erase(ids.begin(),
            ids.begin() + static_cast<std::ptrdiff_t>(std::min(barrier_tokens, ids.size())));
  return ids;
}

// The last guard: ordinary merges can spell a special token too. Such a text is halved until none
// comes out.
void Vocabulary::Impl::AppendPlain(std::string_view text, bool after_text,
                                   std::vector<TokenId>* ids) const {
  const std::vector<TokenId> found = Tokenize(text, after_text);
  const bool clean = std::none_of(found.begin(), found.end(),
                                  [&](TokenId id) { return is_guarded[static_cast<size_t>(id)]; });
  const size_t first = FirstCharacterBytes(text);
  if (clean || first >= text.size()) {
    ids->insert(ids->end(), found.begin(), found.end());
    return;
  }
  size_t middle = text.size() / 2;
  while (middle > first && (static_cast<unsigned char>(text[middle]) & 0xC0) == 0x80) --middle;
  middle = std::max(middle, first);
  AppendPlain(text.substr(0, middle), after_text, ids);
  AppendPlain(text.substr(middle), true, ids);
}

// A text between special tokens. llama.cpp recognizes user-defined tokens in it, and what looks
// like a special token here is data, at least in part: each is cut behind its first character and
// the pieces are tokenized apart.
void Vocabulary::Impl::AppendRaw(std::string_view text, bool is_template, bool after_text,
                                 std::vector<TokenId>* ids) const {
  std::string key;
  if (is_template && text.size() <= kMemoTextBytes) {
    key.reserve(text.size() + 1);
    key.append(text).push_back(after_text ? '+' : '-');
    const std::shared_lock<std::shared_mutex> lock(memo_mutex);
    const auto known = memo.find(key);
    if (known != memo.end()) {
      ids->insert(ids->end(), known->second.begin(), known->second.end());
      return;
    }
  }
  const size_t first_id = ids->size();
  std::vector<SpecialTokenFinder::Match> matches;
  finder.Find(text, 0, text.size(), &matches);
  size_t begin = 0;
  for (const SpecialTokenFinder::Match& match : matches) {
    const std::string& found = specials[static_cast<size_t>(match.rank)].text;
    const size_t cut = match.begin + FirstCharacterBytes(found);
    if (cut <= begin || cut >= match.begin + found.size()) continue;
    AppendPlain(text.substr(begin, cut - begin), after_text || begin > 0, ids);
    begin = cut;
  }
  AppendPlain(text.substr(begin), after_text || begin > 0, ids);
  if (key.empty()) return;
  const std::unique_lock<std::shared_mutex> lock(memo_mutex);
  if (memo.size() >= kMemoEntries) memo.clear();
  memo.emplace(
      std::move(key),
      std::vector<TokenId>(ids->begin() + static_cast<std::ptrdiff_t>(first_id), ids->end()));
}

void Vocabulary::Impl::AppendText(std::string_view text,
                                  const std::vector<std::pair<size_t, size_t>>& template_ranges,
                                  bool* after_text, std::vector<TokenId>* ids) const {
  const auto within_template = [&](const PromptFragment& fragment) {
    const auto next = std::upper_bound(template_ranges.begin(), template_ranges.end(),
                                       std::make_pair(fragment.begin, std::string_view::npos));
    return next != template_ranges.begin() && std::prev(next)->second >= fragment.end;
  };
  for (const PromptFragment& fragment :
       PartitionBySpecialTokens(text, template_ranges, specials, finder)) {
    if (fragment.token >= 0) {
      ids->push_back(fragment.token);
      *after_text = false;
    } else {
      AppendRaw(text.substr(fragment.begin, fragment.end - fragment.begin),
                within_template(fragment), *after_text, ids);
      *after_text = true;
    }
  }
}

std::vector<TokenId> Vocabulary::Impl::TokenizeSpans(const std::vector<PromptSpan>& spans,
                                                     bool after_text) const {
  std::vector<TokenId> ids;
  std::string text;
  std::vector<std::pair<size_t, size_t>> template_ranges;
  const auto flush = [&] {
    if (text.empty()) return;
    AppendText(text, template_ranges, &after_text, &ids);
    text.clear();
    template_ranges.clear();
  };
  for (const PromptSpan& span : spans) {
    HALO_CHECK(span.kind != PromptSpan::Kind::kSlot,
               "a prompt is tokenized after its slots are filled");
    if (span.kind == PromptSpan::Kind::kTokens) {
      flush();
      ids.insert(ids.end(), span.tokens.begin(), span.tokens.end());
      if (!span.tokens.empty())
        after_text = !is_special.at(static_cast<size_t>(span.tokens.back()));
    } else if (!span.text.empty()) {
      if (span.kind == PromptSpan::Kind::kTemplate) {
        template_ranges.emplace_back(text.size(), text.size() + span.text.size());
      }
      text += span.text;
    }
  }
  flush();
  return ids;
}

Vocabulary::~Vocabulary() = default;

std::shared_ptr<const Vocabulary> Vocabulary::Load(const std::string& gguf_path) {
  static std::once_flag quiet;
  std::call_once(quiet, [] { llama_log_set(DropLog, nullptr); });
  llama_model_params parameters = llama_model_default_params();
  parameters.vocab_only = true;
  std::shared_ptr<Vocabulary> vocabulary(new Vocabulary());
  vocabulary->impl_ = std::make_unique<Impl>();
  Impl& impl = *vocabulary->impl_;
  impl.model.reset(llama_model_load_from_file(gguf_path.c_str(), parameters));
  if (!impl.model)
    throw Error(ErrorCode::kModel, gguf_path + ": llama.cpp cannot load this file's vocabulary");
  impl.vocab = llama_model_get_vocab(impl.model.get());
  if (llama_vocab_type(impl.vocab) == LLAMA_VOCAB_TYPE_NONE) {
    throw Error(ErrorCode::kModel, gguf_path + ": the file has no tokenizer");
  }
  const int32_t size = llama_vocab_n_tokens(impl.vocab);
  vocabulary->size_ = size;
  impl.bos = llama_vocab_bos(impl.vocab);
  impl.add_bos = llama_vocab_get_add_bos(impl.vocab) && impl.bos >= 0;
  impl.FindSpecialTokens(size);
  impl.FindBarrier(size);

  SignatureBuilder signature;
  signature.Add(static_cast<int64_t>(llama_vocab_type(impl.vocab))).Add(static_cast<int64_t>(size));
  vocabulary->pieces_.reserve(static_cast<size_t>(size));
  vocabulary->end_of_generation_.reserve(static_cast<size_t>(size));
  for (TokenId id = 0; id < size; ++id) {
    vocabulary->pieces_.push_back(TokenPiece(impl.vocab, id, false));
    vocabulary->end_of_generation_.push_back(llama_vocab_is_eog(impl.vocab, id));
    signature.Add(std::string_view(llama_vocab_get_text(impl.vocab, id)));
    signature.Add(static_cast<int64_t>(llama_vocab_get_attr(impl.vocab, id)));
    signature.Add(static_cast<double>(llama_vocab_get_score(impl.vocab, id)));
  }
  AddRules(gguf_path, impl.model.get(), &signature);
  vocabulary->id_ = signature.Finish();

  const TokenId eos = llama_vocab_eos(impl.vocab);
  for (const TokenId end : {llama_vocab_eot(impl.vocab), eos}) {
    if (vocabulary->end_token_ < 0 && end >= 0 && vocabulary->IsEndOfGeneration(end))
      vocabulary->end_token_ = end;
  }
  if (impl.bos >= 0) vocabulary->bos_text_ = TokenPiece(impl.vocab, impl.bos, true);
  if (eos >= 0) vocabulary->eos_text_ = TokenPiece(impl.vocab, eos, true);
  const char* chat_template = llama_model_chat_template(impl.model.get(), nullptr);
  if (chat_template != nullptr) vocabulary->chat_template_ = chat_template;
  return vocabulary;
}

std::vector<TokenId> Vocabulary::TokenizePrompt(const std::vector<PromptSpan>& spans) const {
  std::vector<TokenId> ids = impl_->TokenizeSpans(spans, /*after_text=*/false);
  if (impl_->add_bos && (ids.empty() || ids.front() != impl_->bos))
    ids.insert(ids.begin(), impl_->bos);
  return ids;
}

std::vector<TokenId> Vocabulary::TokenizePart(const std::vector<PromptSpan>& spans) const {
  return impl_->TokenizeSpans(spans, /*after_text=*/true);
}

bool Vocabulary::IsSteering(TokenId token) const {
  return impl_->is_guarded[static_cast<size_t>(token)];
}

std::string Vocabulary::Detokenize(std::span<const TokenId> tokens) const {
  std::string text;
  for (const TokenId token : tokens) {
    if (!IsEndOfGeneration(token)) text += Piece(token);
  }
  return text;
}

}  // namespace halo
