#include "engine/llama/kv_room.h"

#include <llama.h>

#include <algorithm>

#include "base/check.h"
#include "base/clock.h"
#include "engine/llama/exactness.h"
#include "engine/span_log.h"

namespace halo {
namespace {

/// Adds the time it lives to a counter, and tells of it where somebody asks.
class Timed {
 public:
  Timed(int64_t& total_us, SpanLog* spans, EngineSpan::Kind kind, int32_t tokens)
      : total_us_(total_us), spans_(spans) {
    span_.kind = kind;
    span_.start_us = clock_.NowUs();
    span_.tokens = tokens;
  }
  ~Timed() {
    span_.end_us = clock_.NowUs();
    total_us_ += span_.end_us - span_.start_us;
    if (spans_ != nullptr) spans_->Add(span_);
  }
  Timed(const Timed&) = delete;
  Timed& operator=(const Timed&) = delete;

 private:
  SteadyClock clock_;
  int64_t& total_us_;
  SpanLog* spans_;
  EngineSpan span_;
};

}  // namespace

struct KvRoom::Batch {
  explicit Batch(int32_t tokens) : value(llama_batch_init(tokens, 0, 1)), capacity(tokens) {}
  ~Batch() { llama_batch_free(value); }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  llama_batch value;
  int32_t capacity;
};

void KvRoom::ContextDeleter::operator()(llama_context* context) const { llama_free(context); }

KvRoom::KvRoom(llama_model* model, const Shape& shape, SpanLog* spans)
    : shape_(shape), spans_(spans) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(shape.tokens);
  params.n_batch = static_cast<uint32_t>(shape.batch_tokens);
  params.n_ubatch = static_cast<uint32_t>(std::min(shape.micro_batch_tokens, shape.batch_tokens));
  params.n_seq_max = static_cast<uint32_t>(shape.sequences);
  // The default would reserve n_batch rows.
  params.n_outputs_max = static_cast<uint32_t>(shape.most_logits());
  params.n_threads = shape.threads;
  params.n_threads_batch = shape.threads;
  params.kv_unified = shape.layout == KvLayout::kUnified;
  // Keeps values untransposed, which makes copies of a sequence one run of memory.
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
  params.no_perf = true;
  {
    const ExactBackends scope(shape.exact);
    context_.reset(llama_init_from_model(model, params));
  }
  if (!context_) {
    throw Error(ErrorCode::kConfig, "no room for " + std::to_string(shape.tokens) +
                                        " tokens of KV over " + std::to_string(shape.sequences) +
                                        " sequences; give less with --worker-memory");
  }
  batch_ = std::make_unique<Batch>(shape.batch_tokens);
}

KvRoom::~KvRoom() = default;

void KvRoom::UseThreads(int32_t threads) {
  llama_set_n_threads(context_.get(), threads, threads);
  shape_.threads = threads;
}

void KvRoom::Apply(llama_adapter_lora* adapter, float scale) {
  llama_set_adapters_lora(context_.get(), &adapter, adapter == nullptr ? 0 : 1, &scale);
}

bool KvRoom::Decode(const std::vector<BatchToken>& batch, bool& restored) {
  HALO_CHECK(!batch.empty() && batch.size() <= static_cast<size_t>(batch_->capacity),
             "a batch fits its buffer");
  llama_batch& b = batch_->value;
  b.n_tokens = static_cast<int32_t>(batch.size());
  for (size_t i = 0; i < batch.size(); ++i) {
    b.token[i] = batch[i].token;
    b.pos[i] = batch[i].position;
    b.n_seq_id[i] = 1;
    b.seq_id[i][0] = batch[i].sequence;
    b.logits[i] = batch[i].wants_logits ? 1 : 0;
  }
  const int32_t status = llama_decode(context_.get(), b);
  // llama.h: 1 and -1 put the memory back; 2 and below -1 leave what was done.
  restored = status == 1 || status == -1;
  return status == 0;
}

const float* KvRoom::Logits(int32_t index) { return llama_get_logits_ith(context_.get(), index); }

void KvRoom::Clear(int32_t sequence) {
  llama_memory_seq_rm(llama_get_memory(context_.get()), sequence, -1, -1);
}

bool KvRoom::Cut(int32_t sequence, int32_t tokens) {
  if (llama_memory_seq_rm(llama_get_memory(context_.get()), sequence, tokens, -1)) return true;
  Clear(sequence);
  return false;
}

bool KvRoom::CopyPrefix(int32_t from, int32_t to, int32_t tokens) {
  const Timed timed(statistics_.copy_us, spans_, EngineSpan::Kind::kCopy, tokens);
  llama_memory_t memory = llama_get_memory(context_.get());
  Clear(to);
  if (shape_.layout == KvLayout::kUnified) {
    llama_memory_seq_cp(memory, from, to, 0, tokens);
  } else {
    // llama_memory_seq_cp would copy the whole stream at the next decode, whatever is in it; the
    // state copies cells in use.
    scratch_.resize(llama_state_seq_get_size(context_.get(), from));
    const size_t written =
        llama_state_seq_get_data(context_.get(), scratch_.data(), scratch_.size(), from);
    if (written == 0 ||
        llama_state_seq_set_data(context_.get(), scratch_.data(), written, to) == 0) {
      Clear(to);
      return false;
    }
    if (!Cut(to, tokens)) return false;
    ++statistics_.copies;
  }
  ++statistics_.forks;
  return true;
}

std::shared_ptr<const KvBlob> KvRoom::Export(int32_t sequence, int32_t tokens) {
  if (tokens <= 0) return nullptr;
  const Timed timed(statistics_.copy_us, spans_, EngineSpan::Kind::kSpill, tokens);
  auto blob = std::make_shared<KvBlob>();
  blob->tokens = tokens;
  const size_t most = llama_state_seq_get_size(context_.get(), sequence);
  blob->own = std::make_unique_for_overwrite<uint8_t[]>(most);
  blob->own_bytes = llama_state_seq_get_data(context_.get(), blob->own.get(), most, sequence);
  if (blob->own_bytes == 0) return nullptr;
  ++statistics_.spills;
  return blob;
}

Descriptor KvRoom::ExportShared(int32_t sequence, int32_t tokens, int64_t& bytes) {
  const Timed timed(statistics_.copy_us, spans_, EngineSpan::Kind::kSpill, tokens);
  const auto read = [&](std::span<uint8_t> memory) {
    return llama_state_seq_get_data(context_.get(), memory.data(), memory.size(), sequence);
  };
  return prepared_.Share(llama_state_seq_get_size(context_.get(), sequence), read, bytes);
}

Descriptor KvRoom::ExportShared(const KvBlob& blob, int64_t& bytes) {
  const Timed timed(statistics_.copy_us, spans_, EngineSpan::Kind::kSpill, blob.tokens);
  const std::string_view data = blob.data();
  const auto copy = [&](std::span<uint8_t> memory) {
    return std::copy(data.begin(), data.end(), memory.begin()) - memory.begin();
  };
  return prepared_.Share(data.size(), copy, bytes);
}

bool KvRoom::Import(const KvBlob& blob, int32_t sequence, int32_t tokens) {
  HALO_CHECK(tokens <= blob.tokens, "a blob has no more than it has");
  const Timed timed(statistics_.copy_us, spans_, EngineSpan::Kind::kRestore, tokens);
  Clear(sequence);
  const std::string_view data = blob.data();
  if (llama_state_seq_set_data(context_.get(), reinterpret_cast<const uint8_t*>(data.data()),
                               data.size(), sequence) == 0) {
    Clear(sequence);
    return false;
  }
  ++statistics_.restores;
  return tokens == blob.tokens || Cut(sequence, tokens);
}

}  // namespace halo
