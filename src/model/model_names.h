#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "model/gguf_check.h"

namespace halo {

/// Where model names may be resolved (contract section 5), in order of precedence: the first place
/// that has files for a name is used, later ones are not looked at.
///
/// Of a folder these are the files for NAME (which may be ORG/NAME): NAME.gguf,
/// NAME-TYPE.gguf, NAME.TYPE.gguf and NAME/*.gguf, TYPE being a weight type such as Q8_0. A file
/// that a link takes outside the folder is not used.
struct ModelSearchPath {
  std::map<std::string, std::string> flags;  ///< --model NAME=FILE
  /// --models FILE.yaml: a mapping of name to file or list of files, relative to it, or to
  /// {file: those, price: {prompt: N, output: N}}; may stand under a key `models`.
  std::string models_file;
  std::string models_folder;       ///< HALO_MODELS; "" if unset
  std::string hugging_face_cache;  ///< the hub folder of the Hugging Face cache; "" if unset
  std::string shipped_folder;      ///< of models that came with Halo, as HALO_MODELS; "" if none
};

/// What an operator asks for. Two requests may share a name and differ in quantization.
struct ModelRequest {
  std::string name;
  std::string dtype;         ///< "" if the workflow does not say
  std::string quantization;  ///< "" if the workflow does not say
  friend auto operator<=>(const ModelRequest&, const ModelRequest&) = default;
};

struct ResolvedModel {
  ModelRequest request;
  std::string path;
  GgufSummary summary;
};

/// Resolves every request, checking the files; the results are in the order of the requests.
///
/// Of several files for a name, a request takes those of its quantization ("q8_0", "q4_k_m"),
/// without one those of its dtype ("bfloat16", "float16", "float32"), without either (or with
/// "auto") all; and of these the most exact, F32 before BF16, F16, Q8_0, Q6_K and so on, a file
/// named like the quantization first. A dtype that the author did not write never refuses a file.
/// Files that fail CheckGguf are passed over if another one fits.
///
/// One Error(kModel) lists all that cannot be resolved and where was looked; a name with files but
/// none of the asked dtype or quantization names the files there are. Error(kConfig) for a bad
/// models file.
std::vector<ResolvedModel> ResolveModels(const std::vector<ModelRequest>& requests,
                                         const ModelSearchPath& search);

/// What a million tokens cost, in any currency.
struct PricePerMillion {
  double prompt = 0.0, output = 0.0;  ///< finite, at least 0
};

/// Prices that a models file gives, by name; none without a file. Throws Error(kConfig).
std::map<std::string, PricePerMillion> ReadModelPrices(const std::string& models_file);

/// Every (name, path) that can be resolved now, for `halo models ls`; files are not checked. Throws
/// as ResolveModels does for the models file.
std::vector<std::pair<std::string, std::string>> ListModels(const ModelSearchPath& search);

}  // namespace halo
