// Any bytes, taken for a cost profile: refused with what is wrong, or read, in which case what is
// written of it is read again without change, and its costs are costs.

#include <cmath>

#include "fuzz/property.h"
#include "optimizer/cost_profile.h"

namespace {

using halo::fuzz::Require;

bool IsCost(double seconds) { return std::isfinite(seconds) && seconds >= 0.0; }

void RequireCosts(const halo::ModelProfile& model) {
  for (const double context : {0.0, 1e5}) {
    Require(IsCost(halo::PrefillSeconds(model, 3.5, 700.0, context)), "a prefill takes some time");
    Require(IsCost(halo::DecodeSeconds(model, 1000.0, 7.5, context)), "decoding takes some time");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const halo::CostProfile profile =
        halo::ReadCostProfile(halo::fuzz::Text(data, size), "profile.json");
    const std::string written = halo::ToJson(profile);
    Require(halo::ToJson(halo::ReadCostProfile(written, "written.json")) == written,
            "a profile that was read survives another journey");
    for (const halo::ModelProfile& model : profile.models) RequireCosts(model);
  } catch (const halo::Error& error) {
    Require(error.code() == halo::ErrorCode::kConfig, "a bad profile is a matter of configuration");
    halo::fuzz::RequireMeaningful(error, true);
  }
  return 0;
}
