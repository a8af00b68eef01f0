#include "bench/rate_measurement.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>

#include "bench/batched_bench.h"
#include "bench/statistics.h"

namespace halo::bench {
namespace {

using SteadyTime = std::chrono::steady_clock;

double SecondsSince(SteadyTime::time_point start) {
  return std::chrono::duration<double>(SteadyTime::now() - start).count();
}

/// Reads what is needed of a GGUF header: numbers, strings, and how long a value is.
class HeaderReader {
 public:
  explicit HeaderReader(const std::string& path) : path_(path), file_(path, std::ios::binary) {}

  template <typename T>
  T Number() {
    T value{};
    file_.read(reinterpret_cast<char*>(&value), sizeof value);
    if (!file_) throw std::runtime_error(path_ + ": is no GGUF file, or cut short");
    return value;
  }
  std::string Text() {
    const auto size = Number<uint64_t>();
    if (size > kMostText) throw std::runtime_error(path_ + ": has an overlong text in its header");
    std::string text(static_cast<size_t>(size), '\0');
    file_.read(text.data(), static_cast<std::streamsize>(size));
    return text;
  }
  void SkipValue(uint32_t type) {
    if (type == kString) {
      Text();
    } else {
      Skip(1, type);
    }
  }
  void SkipArray(uint32_t type, uint64_t count) {
    if (type != kString) return Skip(count, type);
    for (uint64_t i = 0; i < count; ++i) Text();
  }

  static constexpr uint32_t kString = 8, kArray = 9;

 private:
  static constexpr uint64_t kMostText = 1 << 26;

  void Skip(uint64_t count, uint32_t type) {
    static constexpr uint64_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type >= std::size(kBytes) || kBytes[type] == 0) {
      throw std::runtime_error(path_ + ": has a value of unknown type in its header");
    }
    file_.seekg(static_cast<std::streamoff>(count * kBytes[type]), std::ios::cur);
  }

  std::string path_;
  std::ifstream file_;
};

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define HALO_BENCH_CLONES \
  __attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3")))
#else
#define HALO_BENCH_CLONES
#endif

// Vectors by extension (gcc and clang), since loops with a comparison stay scalar for AVX2 in
// gcc 12.
constexpr size_t kLanes = 8;  // one AVX2 register: gcc 12 takes wider vectors apart one by one
using FloatLanes = float __attribute__((vector_size(kLanes * sizeof(float))));
using IntLanes = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));

/// Exponentials good to a few percent (the exponent's bits by one multiplication) are enough for a
/// lower estimate of the time.
HALO_BENCH_CLONES float LargestAndSum(const float* logits, size_t count) {
  FloatLanes largest = FloatLanes{} - 1e30F, sums = {}, x;
  for (size_t i = 0; i + kLanes <= count; i += kLanes) {
    std::memcpy(&x, logits + i, sizeof x);
    largest = x > largest ? x : largest;
  }
  float most = largest[0];
  for (size_t lane = 1; lane < kLanes; ++lane) most = std::max(most, largest[lane]);
  const FloatLanes lowest = FloatLanes{} - 80.0F;
  for (size_t i = 0; i + kLanes <= count; i += kLanes) {
    std::memcpy(&x, logits + i, sizeof x);
    x -= most;
    x = x > lowest ? x : lowest;
    const IntLanes bits = __builtin_convertvector(x * 12102203.0F + 1064866805.0F, IntLanes);
    FloatLanes weights;
    std::memcpy(&weights, &bits, sizeof weights);
    sums += weights;
  }
  float sum = 0.0F;
  for (size_t lane = 0; lane < kLanes; ++lane) sum += sums[lane];
  return sum;
}

double MeasureLoad(const std::string& path) {
  const auto start = SteadyTime::now();
  std::ifstream file(path, std::ios::binary);
  std::vector<char> buffer(1 << 20);
  while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()))) {
  }
  return SecondsSince(start);
}

/// Which batch sizes of a layout are measured for a kind of work.
std::vector<int32_t> Batches(const MeasurementSetup& setup, const std::string& layout, bool decode,
                             int64_t calls, const std::optional<ModelRates>& focus) {
  std::set<int32_t> chosen;
  if (focus) {
    std::vector<Rate> rates;
    for (const Rate& rate : focus->rates) {
      if (rate.decode == decode) rates.push_back(rate);
    }
    std::sort(rates.begin(), rates.end(),
              [](const Rate& a, const Rate& b) { return a.token_s < b.token_s; });
    constexpr size_t kKept = 3;
    for (size_t i = 0; i < rates.size() && i < kKept; ++i) {
      if (rates[i].layout == layout) chosen.insert(rates[i].batch);
    }
    if (layout == focus->Single(decode).layout) chosen.insert(1);
    return {chosen.begin(), chosen.end()};
  }
  int32_t most = decode ? INT32_MAX : setup.most_prefill_batch;
  if (layout == "unified") most = std::min(most, setup.most_unified_batch);
  most = static_cast<int32_t>(std::min<int64_t>(most, std::max<int64_t>(1, calls)));
  for (const int32_t batch : setup.batches) {
    if (batch <= most) chosen.insert(batch);
  }
  chosen.insert(1);
  return {chosen.begin(), chosen.end()};
}

int32_t Rounded(double tokens) { return std::max(1, static_cast<int32_t>(std::lround(tokens))); }

}  // namespace

int64_t VocabularySize(const std::string& gguf_path) {
  constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
  HeaderReader header(gguf_path);
  if (header.Number<uint32_t>() != kMagic)
    throw std::runtime_error(gguf_path + ": is no GGUF file");
  header.Number<uint32_t>();  // version
  header.Number<uint64_t>();  // tensors
  const auto keys = header.Number<uint64_t>();
  for (uint64_t i = 0; i < keys; ++i) {
    const std::string key = header.Text();
    const auto type = header.Number<uint32_t>();
    if (type != HeaderReader::kArray) {
      header.SkipValue(type);
      continue;
    }
    const auto element = header.Number<uint32_t>();
    const auto count = header.Number<uint64_t>();
    if (key == "tokenizer.ggml.tokens") return static_cast<int64_t>(count);
    header.SkipArray(element, count);
  }
  throw std::runtime_error(gguf_path + ": has no vocabulary");
}

double MeasureSampling(int64_t vocabulary, int32_t threads) {
  std::vector<float> logits(static_cast<size_t>(vocabulary));
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>((i * 2654435761U) % 1000003U) * 1e-5F;
  }
  constexpr int kRounds = 15, kPasses = 40;
  std::vector<double> seconds;
  volatile float sink = 0.0F;
  for (int round = 0; round < kRounds; ++round) {
    const auto start = SteadyTime::now();
    for (int pass = 0; pass < kPasses; ++pass)
      sink = sink + LargestAndSum(logits.data(), logits.size());
    seconds.push_back(SecondsSince(start) / kPasses);
  }
  return Median(seconds) / threads;
}

ModelRates MeasureRates(const std::string& gguf_path, const ModelWork& work,
                        const MeasurementSetup& setup, const std::optional<ModelRates>& focus) {
  ModelRates measured;
  measured.vocabulary = VocabularySize(gguf_path);
  measured.sampling_s = MeasureSampling(measured.vocabulary, setup.threads);
  measured.file_bytes = static_cast<int64_t>(std::filesystem::file_size(gguf_path));
  measured.load_s = MeasureLoad(gguf_path);

  BatchedBenchSetup bench;
  bench.program = setup.batched_bench;
  bench.model = gguf_path;
  bench.threads = setup.threads;
  for (const std::string& layout : setup.layouts) {
    bench.unified = layout == "unified";
    bench.exact = layout == "exact";

    bench.sequences = Batches(setup, layout, false, work.calls, focus);
    bench.prompt_tokens = Rounded(work.mean_prompt_tokens);
    bench.output_tokens = 1;
    bench.shared_prompt = false;
    if (!bench.sequences.empty()) {
      for (const BatchedBenchResult& result : RunBatchedBench(bench)) {
        measured.rates.push_back(
            {false, layout, result.sequences, 1.0 / result.prefill_tokens_per_s});
      }
    }

    bench.sequences = Batches(setup, layout, true, work.calls, focus);
    constexpr int32_t kFewestSteps = 8, kMostSteps = 64;
    bench.output_tokens = std::clamp(Rounded(work.mean_output_tokens), kFewestSteps, kMostSteps);
    bench.prompt_tokens = Rounded(work.mean_decode_context - 0.5 * bench.output_tokens);
    // With split streams each sequence has a copy of the prompt, so computing it once is the same.
    // In unified cells a shared prompt would be scanned once, which no workload of distinct rows
    // gets.
    bench.shared_prompt = !bench.unified;
    if (!bench.sequences.empty()) {
      for (const BatchedBenchResult& result : RunBatchedBench(bench)) {
        measured.rates.push_back(
            {true, layout, result.sequences, 1.0 / result.decode_tokens_per_s});
      }
    }
  }
  return measured;
}

}  // namespace halo::bench
