#pragma once

#include <string>

#include "engine/llama/kv_room.h"

namespace halo {

/// Exact answers: a token's logits are a function of the tokens before it and of nothing else: not
/// of the batch or chunk it was computed in, of the number of threads, or of whether the KV before
/// it was prefilled, decoded, copied, spilled or computed again. Holds on the CPU with the bundled
/// llama.cpp (cmake/patches/llama.cpp/0002-exact-execution.patch) for the rows of the table in
/// exactness.cc, each of which test/engine/exactness_test.cc compares bit by bit with the
/// reference.
///
/// Why a table and not a flag: whether two kernels sum in one order is a property of each of them,
/// found by test. What was not tested is refused.

/// Measured, 2 cores (docs/benchmarks/deterministic.md): with F16 and Q8_0 weights the exact
/// kernels are the faster ones, so they are the default. With Q4_K the stock backend lays weights
/// out anew for wide batches, which exact runs do without: prefill 0.69 of stock, decode 1.18;
/// there they run when asked for.

/// Why no model can run exactly in this build on this machine; empty if some can.
std::string WhyNotExactHere();
/// Why the model cannot run exactly in this build and layout; empty if it can. With `only_if_free`,
/// a price is a reason too. `path` has passed CheckGguf.
std::string WhyNotExact(const std::string& path, KvLayout layout, bool only_if_free = false);
/// Why a LoRA adapter on top of such a model cannot be applied exactly; empty if it can. `path` has
/// passed CheckLoraAdapter.
std::string WhyNotExactAdapter(const std::string& path);

/// While it lives, contexts that this process makes compute exactly, if `exact`.
/// The switch is llama.cpp's, one for the process: it is held for the making of a context only,
/// under a lock.
class ExactBackends {
 public:
  explicit ExactBackends(bool exact);
  ~ExactBackends();
  ExactBackends(const ExactBackends&) = delete;
  ExactBackends& operator=(const ExactBackends&) = delete;
};

}  // namespace halo
