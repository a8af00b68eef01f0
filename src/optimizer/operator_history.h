#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/hash.h"

namespace halo {

/// What calls of one operator turned out to be, over the runs so far. Sums over calls that were
/// made; recent runs weigh more, see OperatorHistory::Add.
struct OperatorRecord {
  double instances = 0.0;  ///< rows that reached the operator
  double calls = 0.0;      ///< of those: made, not merged or skipped
  double prompt_tokens = 0.0, reused_tokens = 0.0;
  double output_tokens = 0.0, output_tokens_squared = 0.0;
  double latency_s = 0.0;  ///< of tools, summed over calls
  /// Of inference: engine seconds that the calls took, and what the profile says they take. Of all
  /// operators of a model (ModelPaceSignature) and all queries of a kind (QueryPaceSignature)
  /// likewise.
  double engine_s = 0.0, profile_s = 0.0;
  std::string profile;  ///< which profile that was; "": none

  friend bool operator==(const OperatorRecord&, const OperatorRecord&) = default;
};

/// Under which the pace of all operators of a model is kept, with its digest.
Signature ModelPaceSignature();

/// Records by what an operator does (OperatorIdentity::signature) and the model's digest: they
/// serve every workflow in which it occurs, and none in which it was changed.
class OperatorHistory {
 public:
  static constexpr int32_t kVersion = 1;
  /// Earlier runs count half as much with each new one, so that a change shows soon.
  static constexpr double kMemory = 0.5;
  static constexpr size_t kMostRecords = 10000;

  const OperatorRecord* Find(const Signature& operation, const std::string& model_digest) const;
  void Add(const Signature& operation, const std::string& model_digest,
           const OperatorRecord& of_run);

  /// Forgets what models took beside their profiles, for those who run by a profile alone.
  void ForgetPacesOfModels();

  /// One JSON object. Read throws Error(kConfig) naming `path` and what is wrong.
  std::string ToJson() const;
  static OperatorHistory Read(const std::string& text, const std::string& path);

 private:
  std::map<std::string, OperatorRecord> records_;
};

}  // namespace halo
