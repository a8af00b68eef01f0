#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/gguf_check.h"

namespace halo {

/// Where model names may be resolved (contract section 5), in order of precedence.
struct ModelSearchPath {
  std::map<std::string, std::string> flags;   ///< --model NAME=FILE
  std::string models_file;                    ///< --models FILE.yaml: mapping of name to file, relative to it
  std::string models_folder;                  ///< HALO_MODELS; "" if unset
  std::string hugging_face_cache;             ///< the hub folder of the Hugging Face cache; "" if unset
};

/// What an operator asks for. Two requests may share a name and differ in quantization.
struct ModelRequest {
  std::string name;
  std::string dtype;          ///< "" if the workflow does not say
  std::string quantization;   ///< "" if the workflow does not say
  friend auto operator<=>(const ModelRequest&, const ModelRequest&) = default;
};

struct ResolvedModel {
  ModelRequest request;
  std::string path;
  GgufSummary summary;
};

/// Resolves every request, checking the files. One Error(kModel) lists all that cannot be resolved and where was
/// looked; a name with files but none of the asked dtype/quantization names the files there are. `dtype` that the
/// author did not write never refuses a file.
std::vector<ResolvedModel> ResolveModels(const std::vector<ModelRequest>& requests, const ModelSearchPath& search);

/// Every (name, path) that can be resolved now, for `halo models ls`.
std::vector<std::pair<std::string, std::string>> ListModels(const ModelSearchPath& search);

}  // namespace halo
