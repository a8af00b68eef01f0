#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "engine/llama/calibration.h"
#include "optimizer/cost_profile.h"

namespace halo {

struct CalibrateRequest {
  std::string model;         ///< name that a person knows it by
  std::string model_path;    ///< a GGUF file
  std::string profile_path;  ///< where the profile is kept
  int32_t threads = 0;       ///< 0: one a core
  double budget_s = 180.0;
  std::function<void(const std::string&)> on_progress;  ///< null: nobody is told
};

struct CalibrateOutcome {
  ModelProfile profile;
  std::string report;   ///< what was measured, as a person reads it, several lines
  std::string machine;  ///< MachineFingerprint
};

/// Measures a model on this machine and stores its profile (profile_store.h). Throws Error; nothing
/// is measured if the profile could not be stored.
CalibrateOutcome CalibrateModel(const CalibrateRequest& request);

/// The costs that measurements give: two contexts make a line, held-out passes the error.
ModelProfile ProfileFrom(const Calibration& calibration, const std::string& model,
                         const std::string& model_digest);

}  // namespace halo
