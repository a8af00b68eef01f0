// assumed_profile: a cost profile of machines that nobody has measured, for simulations.
//
//   assumed_profile --model NAME=WEIGHTS_BYTES:KV_TOKEN_BYTES... [--faster N] [--load BYTES_PER_S]
//
// Costs are DefaultProfile's, every time divided by N; models are loaded at the given rate, after
// half a second. Prints the profile.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "optimizer/cost_profile.h"

namespace halo::bench {
namespace {

struct Flags {
  std::vector<std::string> models;
  double faster = 1.0;
  double load_bytes_per_s = 1e9;
};

void MakeFaster(double faster, ModelProfile* model) {
  for (PrefillPoint& point : model->prefill) {
    point.base_s /= faster;
    point.context_s /= faster;
  }
  for (DecodePoint& point : model->decode) {
    point.base_s /= faster;
    point.context_s /= faster;
  }
  for (double* seconds :
       {&model->part_s, &model->sampling_token_s, &model->greedy_token_s, &model->grammar_token_s,
        &model->copy_token_s, &model->spill_token_s, &model->restore_token_s, &model->copy_s,
        &model->spill_s, &model->restore_s, &model->room_byte_s}) {
    *seconds /= faster;
  }
}

ModelProfile ModelOf(const std::string& text, const Flags& flags) {
  const size_t equals = text.find('='), colon = text.find(':', equals);
  if (equals == std::string::npos || colon == std::string::npos)
    throw std::invalid_argument("--model: expected NAME=WEIGHTS_BYTES:KV_TOKEN_BYTES, got '" +
                                text + "'");
  const std::string name = text.substr(0, equals);
  const int64_t weights_bytes = std::stoll(text.substr(equals + 1, colon - equals - 1));
  ModelProfile model = DefaultProfile(name, weights_bytes, std::stoll(text.substr(colon + 1)));
  MakeFaster(flags.faster, &model);
  constexpr double kStart_s = 0.5;
  model.load_s = kStart_s + static_cast<double>(weights_bytes) / flags.load_bytes_per_s;
  model.model_digest = "assumed " + name;
  return model;
}

}  // namespace
}  // namespace halo::bench

int main(int argc, char** argv) {
  CLI::App app{"A cost profile of machines that nobody has measured"};
  halo::bench::Flags flags;
  app.add_option("--model", flags.models, "NAME=WEIGHTS_BYTES:KV_TOKEN_BYTES")->required();
  app.add_option("--faster", flags.faster, "than the defaults")->check(CLI::PositiveNumber);
  app.add_option("--load", flags.load_bytes_per_s, "bytes a second")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  try {
    halo::CostProfile profile;
    profile.machine = fmt::format(
        "an assumed device, {:g} times as fast as the defaults, which loads {:g} bytes a second",
        flags.faster, flags.load_bytes_per_s);
    profile.threads = 1;
    for (const std::string& model : flags.models)
      profile.models.push_back(halo::bench::ModelOf(model, flags));
    fmt::print("{}", halo::ToJson(profile));
  } catch (const std::exception& error) {
    fmt::print(stderr, "assumed_profile: {}\n", error.what());
    return 1;
  }
  return 0;
}
