#include "engine/llama/exactness.h"

#include <ggml-backend.h>
#include <ggml.h>

#include <algorithm>
#include <array>
#include <mutex>

#include "base/check.h"
#include "model/gguf_reader.h"

namespace halo {
namespace {

/// Matrices of one type that were found to be exact with split KV, by test
/// (test/engine/exactness_test.cc).
struct KnownType {
  ggml_type type;
  bool free;  ///< not slower than the stock kernels
};

constexpr std::array<KnownType, 4> kKnownTypes = {{
    {GGML_TYPE_F16, true},
    {GGML_TYPE_Q8_0, true},
    {GGML_TYPE_Q4_K, false},
    {GGML_TYPE_Q6_K, false},
}};

constexpr std::array<const char*, 2> kKnownArchitectures = {"llama", "qwen3"};

using SetExactDefault = void (*)(bool);

SetExactDefault FindSwitch() {
  ggml_backend_reg_t cpu = ggml_backend_reg_by_name("CPU");
  if (cpu == nullptr) return nullptr;
  return reinterpret_cast<SetExactDefault>(
      ggml_backend_reg_get_proc_address(cpu, "ggml_backend_cpu_set_exact_default"));
}

/// What the CPU backend was compiled to use.
bool CpuHas(const std::string& feature) {
  ggml_backend_reg_t cpu = ggml_backend_reg_by_name("CPU");
  const auto list = reinterpret_cast<ggml_backend_get_features_t>(
      ggml_backend_reg_get_proc_address(cpu, "ggml_backend_get_features"));
  if (list == nullptr) return false;
  for (const ggml_backend_feature* at = list(cpu); at->name != nullptr; ++at) {
    if (feature == at->name) return true;
  }
  return false;
}

std::string WhyNotThisTensor(const GgufTensor& tensor, bool only_if_free) {
  for (const KnownType& known : kKnownTypes) {
    if (static_cast<int32_t>(known.type) != tensor.type) continue;
    return only_if_free && !known.free ? "other kernels are faster" : "";
  }
  return std::string("weights of type ") + ggml_type_name(static_cast<ggml_type>(tensor.type)) +
         " were not tested (tensor " + std::string(tensor.name) +
         "); F16, Q8_0 and Q4_K files were";
}

std::mutex& SwitchLock() {
  static std::mutex lock;
  return lock;
}

bool switched = false;  // guarded by SwitchLock()

}  // namespace

std::string WhyNotExactHere() {
#if !defined(__x86_64__)
  return "it was tested on x86-64 only";
#endif
  if (FindSwitch() == nullptr) {
    return "this llama.cpp lacks exact kernels; build with HALO_LLAMA_CPP_SOURCE=BUNDLED";
  }
  const bool avx2 = CpuHas("AVX2") && CpuHas("FMA") && CpuHas("F16C");
  const bool untested_avx512 = CpuHas("AVX512") && !CpuHas("AVX512_VNNI");
  if (!avx2 || untested_avx512) {
    return "it was tested with kernels for AVX2 and for AVX-512 with VNNI, not with those that "
           "this "
           "build uses on this CPU";
  }
  for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
    ggml_backend_dev_t device = ggml_backend_dev_get(i);
    if (ggml_backend_dev_type(device) != GGML_BACKEND_DEVICE_TYPE_CPU) {
      return std::string("it was tested on CPUs only, and this process uses ") +
             ggml_backend_dev_name(device);
    }
  }
  return "";
}

std::string WhyNotExact(const std::string& path, KvLayout layout, bool only_if_free) {
  if (std::string why = WhyNotExactHere(); !why.empty()) return why;
  if (layout == KvLayout::kUnified) {
    return "cells of unified KV lie where room was, and attention sums them in tiles counted from "
           "the first cell of all; "
           "use split";
  }
  const GgufFile file = GgufFile::Open(path);
  const std::string architecture(file.Text("general.architecture").value_or("?"));
  bool known = false;
  for (const char* name : kKnownArchitectures) known = known || architecture == name;
  if (!known)
    return "models of the architecture " + architecture + " were not tested; llama and qwen3 were";
  for (const char* which : {"key", "value"}) {
    const int64_t heads =
        std::max<int64_t>(1, file.Integer(architecture + ".attention.head_count").value_or(1));
    const int64_t share = file.Integer(architecture + ".embedding_length").value_or(0) / heads;
    const int64_t width =
        file.Integer(architecture + ".attention." + which + "_length").value_or(share);
    if (width != 64 && width != 128) {
      return "heads of width " + std::to_string(width) + " were not tested; 64 and 128 were";
    }
  }
  for (const GgufTensor& tensor : file.tensors()) {
    constexpr int32_t kMatrix = 2;
    // Norms are multiplied element by element; F32 matrices were not tested.
    if (tensor.type == GGML_TYPE_F32 && tensor.n_dims == 1) continue;
    if (tensor.n_dims > kMatrix)
      return "mixtures of experts were not tested (tensor " + std::string(tensor.name) + ")";
    if (std::string why = WhyNotThisTensor(tensor, only_if_free); !why.empty()) return why;
  }
  return "";
}

std::string WhyNotExactAdapter(const std::string& path) {
  const GgufFile file = GgufFile::Open(path);
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.type == GGML_TYPE_F16 || tensor.type == GGML_TYPE_F32) continue;
    return "adapters of type " + std::string(ggml_type_name(static_cast<ggml_type>(tensor.type))) +
           " were not tested (" + path + "); F16 and F32 were";
  }
  return "";
}

ExactBackends::ExactBackends(bool exact) {
  SwitchLock().lock();
  switched = exact;
  if (!exact) return;
  const SetExactDefault set = FindSwitch();
  HALO_CHECK(set != nullptr, "WhyNotExact has seen the switch");
  set(true);
}

ExactBackends::~ExactBackends() {
  if (switched) FindSwitch()(false);
  SwitchLock().unlock();
}

}  // namespace halo
