#include "support/test_models.h"

#include <unistd.h>

#include <filesystem>

#include "model/lora_adapter.h"
#include "model/synth.h"

namespace halo::test {

std::string TinyModel(const std::string& weight_type, double mean_output) {
  return SynthModel(ShapeByName("tiny"), weight_type, mean_output);
}

std::string SynthModel(const SynthShape& shape, const std::string& weight_type,
                       double mean_output) {
  const std::filesystem::path folder =
      std::filesystem::path(HALO_BIN_DIR).parent_path() / "test-models";
  std::filesystem::create_directories(folder);
  const std::string path = (folder / (shape.name + "-" + weight_type + "-" +
                                      std::to_string(static_cast<int>(mean_output)) + ".gguf"))
                               .string();
  if (std::filesystem::exists(path)) return path;
  SynthOptions options;
  options.shape = shape;
  options.vocabulary_file = VocabularyFile(
      shape.vocabulary,
      (std::filesystem::path(HALO_BIN_DIR).parent_path() / "share/halo/vocabularies").string());
  options.weight_type = weight_type;
  options.seed = 1;
  options.mean_output_tokens = mean_output;
  // Tests run side by side in several processes: each writes its own file, the rename decides.
  options.output = path + "." + std::to_string(getpid());
  SynthesizeModel(options);
  std::filesystem::rename(options.output, path);
  return path;
}

std::string Adapter(const std::string& model_path, const std::string& weight_type, int64_t rank,
                    uint64_t seed) {
  const std::string path = model_path + ".lora-" + weight_type + "-" + std::to_string(rank) + "-" +
                           std::to_string(seed) + ".gguf";
  if (std::filesystem::exists(path)) return path;
  const std::string part = path + "." + std::to_string(getpid());
  SynthesizeAdapter({model_path, rank, weight_type, seed, part});
  std::filesystem::rename(part, path);
  return path;
}

std::string FreshFolder(const std::string& name) {
  const std::filesystem::path folder = std::filesystem::path(HALO_BIN_DIR).parent_path() /
                                       "test-scratch" / (name + "-" + std::to_string(getpid()));
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder.string();
}

}  // namespace halo::test
