#pragma once

#include <optional>
#include <string>

#include "optimizer/cost_profile.h"

namespace halo {

/// A profile, or why there is none: a note for a plan, never an error of a run.
struct LoadedProfile {
  std::optional<CostProfile> profile;
  std::string why_not;  ///< "" with a profile
};

/// The profile in the file `path` if it was measured on the machine `fingerprint`
/// (MachineFingerprint). A file that is not there, cannot be read or belongs to another machine
/// gives a reason that says what to do.
LoadedProfile LoadProfileFor(const std::string& path, const std::string& fingerprint);

/// Throws Error if StoreModelProfile would not write to `path`: another machine's file, or one that
/// is no profile. Makes the folder.
void CheckProfileFile(const std::string& path, const std::string& fingerprint);

/// Puts a model's entry into the file, in place of one with the same digest; the entries of other
/// models stay. The file appears by rename. Throws as CheckProfileFile, and Error(kIo).
void StoreModelProfile(const std::string& path, const std::string& fingerprint, int32_t threads,
                       const ModelProfile& model);

}  // namespace halo
