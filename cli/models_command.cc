#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <memory>

#include "base/error.h"
#include "base/file_text.h"
#include "commands.h"
#include "model/chat_template.h"
#include "model/gguf_check.h"
#include "model/lora_adapter.h"
#include "model/model_names.h"
#include "model/synth.h"
#include "model/vocabulary.h"

namespace halo::cli {
namespace {

struct SynthFlags {
  std::string shape = "tiny", vocabulary, chat_template_file, type = "Q8_0", output;
  int64_t layers = 0, width = 0, heads = 0, kv_heads = 0, feed_forward = 0, context = 0;
  uint64_t seed = 0;
  double mean_output = 0;
};

std::string VocabularyFolder() {
  const std::string given = Environment("HALO_VOCABULARIES");
  if (!given.empty()) return given;
  return ShareFolder("vocabularies");
}

int Synthesize(const SynthFlags& flags) {
  SynthOptions options;
  options.shape = ShapeByName(flags.shape);
  const auto override_with = [&](int64_t given, int64_t& field) {
    if (given > 0) {
      field = given;
      options.shape.name = "custom";
    }
  };
  const bool new_width = flags.width > 0 || flags.heads > 0;
  override_with(flags.layers, options.shape.layers);
  override_with(flags.width, options.shape.width);
  override_with(flags.heads, options.shape.heads);
  override_with(flags.kv_heads, options.shape.kv_heads);
  override_with(flags.feed_forward, options.shape.feed_forward);
  override_with(flags.context, options.shape.context_tokens);
  if (new_width)
    options.shape.head_width = options.shape.width / std::max<int64_t>(1, options.shape.heads);
  options.vocabulary_file = VocabularyFile(
      flags.vocabulary.empty() ? options.shape.vocabulary : flags.vocabulary, VocabularyFolder());
  if (!flags.chat_template_file.empty()) {
    std::optional<std::string> text = ReadFileText(flags.chat_template_file);
    if (!text)
      throw Error(ErrorCode::kUsage,
                  flags.chat_template_file + ": cannot be read (--chat-template)");
    options.chat_template = *std::move(text);
  }
  options.weight_type = flags.type;
  options.seed = flags.seed;
  options.mean_output_tokens = flags.mean_output;
  options.output = flags.output;
  SynthesizeModel(options);
  std::cerr << "wrote " << flags.output << "\n";
  return kExitOk;
}

int SynthesizeLora(const SynthAdapterOptions& options) {
  CheckGguf(options.model_path);
  SynthesizeAdapter(options);
  std::cerr << "wrote " << options.output << "\n";
  return kExitOk;
}

int Show(const std::string& path) {
  const GgufSummary summary = CheckGguf(path);
  std::cout << DescribeModel(summary);
  const auto vocabulary = Vocabulary::Load(path);
  const ChatTemplate chat(vocabulary->chat_template(), vocabulary->bos_text(),
                          vocabulary->eos_text(), "2026-01-31");
  const auto spans = chat.Render({{"system", {PromptSpan::Template("You are brief.")}},
                                  {"user", {PromptSpan::Data("What is two and two?")}}},
                                 true);
  std::cout << "\nA conversation as the model sees it (" << vocabulary->TokenizePrompt(spans).size()
            << " tokens):\n"
            << SpansText(spans) << "\n";
  return kExitOk;
}

int List(const ModelSearchPath& search) {
  const auto models = ListModels(search);
  for (const auto& [name, path] : models) std::cout << name << "\t" << path << "\n";
  if (models.empty())
    std::cerr << "no models: give HALO_MODELS a folder of .gguf files, or use --model NAME=FILE\n";
  return kExitOk;
}

}  // namespace

void AddModelsCommand(CLI::App& app, int& exit_code) {
  CLI::App* models = app.add_subcommand("models", "Make, show and list model files");
  models->require_subcommand(1);

  auto flags =
      std::make_shared<SynthFlags>();  // shared with the callback, which outlives this function
  CLI::App* synth =
      models->add_subcommand("synth", "Write a model of random weights, for tests and benchmarks");
  synth->add_option("--shape", flags->shape, "A named shape, such as tiny, 135m or llama-3.2-1b");
  synth->add_option("--layers", flags->layers);
  synth->add_option("--width", flags->width);
  synth->add_option("--heads", flags->heads);
  synth->add_option("--kv-heads", flags->kv_heads);
  synth->add_option("--feed-forward", flags->feed_forward);
  synth->add_option("--context", flags->context, "Context the model says it was trained for");
  synth->add_option("--vocabulary", flags->vocabulary, "A vocabulary's name or a GGUF file");
  synth->add_option("--chat-template", flags->chat_template_file,
                    "File with a Jinja chat template");
  synth->add_option("--type", flags->type, "Weight type: F16, Q8_0 or Q4_K");
  synth->add_option("--seed", flags->seed);
  synth->add_option("--mean-output", flags->mean_output, "Mean length of answers in tokens");
  synth->add_option("-o,--output", flags->output, "File to write")->required();
  synth->callback([flags, &exit_code] { exit_code = Synthesize(*flags); });

  auto adapter = std::make_shared<SynthAdapterOptions>();  // as above
  CLI::App* synth_lora = models->add_subcommand(
      "synth-lora", "Write a LoRA adapter of random numbers, for tests and benchmarks");
  synth_lora->add_option("model", adapter->model_path, "The model's GGUF file")->required();
  synth_lora->add_option("--rank", adapter->rank);
  synth_lora->add_option("--type", adapter->weight_type, "F16 or F32");
  synth_lora->add_option("--seed", adapter->seed);
  synth_lora->add_option("-o,--output", adapter->output, "File to write")->required();
  synth_lora->callback([adapter, &exit_code] { exit_code = SynthesizeLora(*adapter); });

  auto path = std::make_shared<std::string>();  // as above
  CLI::App* show =
      models->add_subcommand("show", "Print a model file's metadata and a rendered chat example");
  show->add_option("file", *path)->required();
  show->callback([path, &exit_code] { exit_code = Show(*path); });

  auto models_file = std::make_shared<std::string>();  // as above
  CLI::App* list = models->add_subcommand("ls", "List the model names that can be resolved");
  list->add_option("--models", *models_file, "YAML file of model names and files");
  list->callback([models_file, &exit_code] { exit_code = List(ModelPlaces(*models_file)); });
}

}  // namespace halo::cli
