// The attention kernel of exact runs by itself
// (cmake/patches/llama.cpp/0002-exact-execution.patch).
#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "base/random.h"
#include "engine/llama/exactness.h"

namespace halo {
namespace {

constexpr int64_t kWidth = 64, kHeads = 4, kKvHeads = 2, kCells = 150;

struct Attention {
  std::vector<float> q;           ///< [position][head][width]
  std::vector<ggml_fp16_t> k, v;  ///< [kv head][cell][width]
  std::vector<ggml_fp16_t> mask;  ///< [position][cell]: 0 or -inf
};

std::vector<float> Numbers(RandomStream& random, int64_t count) {
  std::vector<float> numbers(static_cast<size_t>(count));
  for (float& number : numbers) number = static_cast<float>(random.Uniform()) * 2.0F - 1.0F;
  return numbers;
}

std::vector<ggml_fp16_t> Halves(const std::vector<float>& numbers) {
  std::vector<ggml_fp16_t> halves(numbers.size());
  ggml_fp32_to_fp16_row(numbers.data(), halves.data(), static_cast<int64_t>(numbers.size()));
  return halves;
}

/// Position p of the batch sees the cells up to `first_seen + p`.
Attention Example(int64_t positions, int64_t first_seen) {
  RandomStream random(7);
  Attention example;
  example.k = Halves(Numbers(random, kKvHeads * kCells * kWidth));
  example.v = Halves(Numbers(random, kKvHeads * kCells * kWidth));
  example.q = Numbers(random, positions * kHeads * kWidth);
  std::vector<float> mask(static_cast<size_t>(positions * kCells), 0.0F);
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t cell = first_seen + p + 1; cell < kCells; ++cell)
      mask[static_cast<size_t>(p * kCells + cell)] = -std::numeric_limits<float>::infinity();
  }
  example.mask = Halves(mask);
  return example;
}

/// [position][head][width]
std::vector<float> Compute(Attention& in) {
  const int64_t positions = static_cast<int64_t>(in.mask.size()) / kCells;
  const std::unique_ptr<ggml_context, decltype(&ggml_free)> context(
      ggml_init({1 << 20, nullptr, true}), ggml_free);
  ggml_context* const c = context.get();
  ggml_tensor* q = ggml_new_tensor_3d(c, GGML_TYPE_F32, kWidth, kHeads, positions);
  ggml_tensor* k = ggml_new_tensor_3d(c, GGML_TYPE_F16, kWidth, kCells, kKvHeads);
  ggml_tensor* v = ggml_new_tensor_3d(c, GGML_TYPE_F16, kWidth, kCells, kKvHeads);
  ggml_tensor* mask = ggml_new_tensor_2d(c, GGML_TYPE_F16, kCells, positions);
  ggml_tensor* out = ggml_flash_attn_ext(c, ggml_permute(c, q, 0, 2, 1, 3), k, v, mask,
                                         1.0F / std::sqrt(static_cast<float>(kWidth)), 0.0F, 0.0F);
  ggml_cgraph* graph = ggml_new_graph(c);
  ggml_build_forward_expand(graph, out);

  const ExactBackends scope(true);
  const std::unique_ptr<ggml_backend, decltype(&ggml_backend_free)> backend(
      ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr), ggml_backend_free);
  const std::unique_ptr<ggml_backend_buffer, decltype(&ggml_backend_buffer_free)> buffer(
      ggml_backend_alloc_ctx_tensors(c, backend.get()), ggml_backend_buffer_free);
  ggml_backend_tensor_set(q, in.q.data(), 0, ggml_nbytes(q));
  ggml_backend_tensor_set(k, in.k.data(), 0, ggml_nbytes(k));
  ggml_backend_tensor_set(v, in.v.data(), 0, ggml_nbytes(v));
  ggml_backend_tensor_set(mask, in.mask.data(), 0, ggml_nbytes(mask));
  EXPECT_EQ(ggml_backend_graph_compute(backend.get(), graph), GGML_STATUS_SUCCESS);
  std::vector<float> result(static_cast<size_t>(ggml_nelements(out)));
  ggml_backend_tensor_get(out, result.data(), 0, ggml_nbytes(out));
  return result;
}

class HiddenCells : public testing::TestWithParam<int> {};

INSTANTIATE_TEST_SUITE_P(ExactAttention, HiddenCells, testing::Values(1, 2, 3, 5));

TEST_P(HiddenCells, ReachNoRowWhateverTheyHold) {
  // A sequence that overflows half precision leaves Inf in its cells; the next one of the stream
  // must not see it, nor may a row see what rows computed beside it see.
  const int64_t positions = GetParam();
  constexpr int64_t kFirstSeen = 70;
  Attention clean = Example(positions, kFirstSeen);
  const std::vector<float> expected = Compute(clean);
  for (const float number : expected) ASSERT_TRUE(std::isfinite(number));
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const auto& [poison, keys] :
       {std::pair{kInf, false}, std::pair{kInf, true}, std::pair{std::nanf(""), false},
        std::pair{std::nanf(""), true}}) {
    Attention poisoned = clean;
    // Seen by the last position alone if there are several, else by none.
    const int64_t cell = kFirstSeen + std::max<int64_t>(1, positions - 1);
    for (int64_t head = 0; head < kKvHeads; ++head) {
      const auto at = static_cast<size_t>((head * kCells + cell) * kWidth);
      for (size_t i = 0; i < 3; ++i)
        (keys ? poisoned.k : poisoned.v)[at + i] = ggml_fp32_to_fp16(poison);
    }
    const std::vector<float> result = Compute(poisoned);
    const int64_t untouched = positions == 1 ? 1 : positions - 1;
    for (int64_t i = 0; i < untouched * kHeads * kWidth; ++i)
      ASSERT_EQ(result[static_cast<size_t>(i)], expected[static_cast<size_t>(i)]) << i;
    if (positions > 1 && !keys) {
      EXPECT_FALSE(std::isfinite(result[static_cast<size_t>(untouched * kHeads * kWidth)]))
          << "the poison is not where the test believes it to be";
    }
  }
}

}  // namespace
}  // namespace halo
