// halo-demo-model: makes the demo model (corpus, vocabulary, training, model files) and measures
// it.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <map>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "demo_model/evaluation.h"
#include "demo_model/model_file.h"
#include "demo_model/trainer.h"
#include "model/part_file.h"
#include "run_program.h"

namespace halo::demo {
namespace {

constexpr uint64_t kMeasuredConversations = 200;

struct Flags {
  TrainingOptions training;
  std::string output = "halo-demo";
  std::string rows = "-";
  std::string model;
  Split split = Split::kTraining;
  uint64_t count = 8;
  uint64_t prompts = 50;
  int32_t threads = 2;
  int64_t report_every = 50;
  bool show_failures = false;
};

/// What --split takes.
const std::map<std::string, Split>& SplitsByFlag() {
  static const std::map<std::string, Split> splits = {{"training", Split::kTraining},
                                                      {"held-out", Split::kHeldOutCombinations},
                                                      {"unseen-products", Split::kUnseenProducts},
                                                      {"unseen-problems", Split::kUnseenProblems},
                                                      {"free-wording", Split::kFreeWording}};
  return splits;
}

void RunCorpus(const Flags& flags) {
  static constexpr const char* kRoles[] = {"system", "user", "assistant"};
  for (uint64_t i = 0; i < flags.count; ++i) {
    const Conversation conversation = MakeConversation(flags.split, flags.training.seed, i);
    std::cout << "== " << conversation.task << " " << conversation.facts.dump() << "\n";
    for (const Turn& turn : conversation.turns)
      std::cout << kRoles[static_cast<size_t>(turn.role)] << ": " << turn.text << "\n";
  }
}

/// Writes customer messages with what is true in them, one JSON object a line.
void RunRows(const Flags& flags) {
  std::string lines;
  for (uint64_t i = 0; i < flags.count; ++i)
    lines += MakeMessageRow(flags.split, flags.training.seed, i).dump() + "\n";
  if (flags.rows == "-") {
    std::cout << lines;
    return;
  }
  std::ofstream file(flags.rows, std::ios::binary);
  file << lines;
  file.close();
  if (!file) throw Error(ErrorCode::kIo, "cannot write " + flags.rows);
}

void PrintStep(const TrainingStep& step, int64_t tokens, double seconds) {
  const double share = static_cast<double>(step.loss.answer_hits) /
                       static_cast<double>(std::max<int64_t>(step.loss.answers, 1));
  std::cout << fmt::format(
                   "step {:5} loss {:.4f} answer tokens {:.2f}% norm {:.2f} {:.0f} tokens/s\n",
                   step.step, step.loss.mean, 100 * share, step.gradient_norm,
                   static_cast<double>(tokens) / seconds)
            << std::flush;
}

void RunTrain(const Flags& flags) {
  const std::string paths[] = {flags.output + ".f16.gguf", flags.output + ".q8_0.gguf"};
  // Whether the files can be written is known before the minutes of training, not after.
  for (const std::string& path : paths) const PartFile probe(path);
  const SteadyClock clock;
  const int64_t start_us = clock.NowUs();
  int64_t tokens = 0;
  const TrainedModel model = Train(flags.training, [&](const TrainingStep& step) {
    tokens += step.tokens;
    if (step.step % flags.report_every == 0 || step.step == flags.training.adam.steps)
      PrintStep(step, tokens, static_cast<double>(clock.NowUs() - start_us) * 1e-6);
  });
  for (const Split split : kMeasuredSplits) {
    const BatchLoss loss = Measure(model, split, flags.training.seed, 0, kMeasuredConversations);
    std::cout << fmt::format(
        "{}: answer tokens {:.3f}%\n", SplitName(split),
        100.0 * static_cast<double>(loss.answer_hits) / static_cast<double>(loss.answers));
  }
  ModelFile file{&model.shape, &model.parameters, &model.encoding, flags.training.seed,
                 WeightType::kF16};
  WriteModelFile(file, paths[0]);
  file.type = WeightType::kQ8_0;
  WriteModelFile(file, paths[1]);
  std::cout << fmt::format("wrote {} and {}\n", paths[0], paths[1]);
}

void RunEvaluate(const Flags& flags) {
  std::cout
      << "| prompts | valid JSON | product | problem | sentiment | all three | reply names both |\n"
         "|---|---|---|---|---|---|---|\n";
  for (const SplitFigures& f :
       EvaluateMessages(flags.model, flags.training.seed, flags.prompts, flags.threads)) {
    std::cout << fmt::format("| {}, {} | {} | {} | {} | {} | {} | {} |\n", f.split, f.prompts,
                             f.valid_json, f.product, f.problem, f.sentiment, f.extraction, f.reply)
              << std::flush;
    if (!flags.show_failures) continue;
    for (const WrongAnswer& wrong : f.failures)
      std::cout << "\n" << wrong.question << "\n-> " << wrong.answer << "\n";
  }
}

void AddSplit(CLI::App* command, Flags& flags) {
  command->add_option("--split", flags.split, "Which texts the messages are made of")
      ->transform(CLI::CheckedTransformer(SplitsByFlag()));
  command->add_option("--count", flags.count, "How many");
}

void AddCorpus(CLI::App& app, Flags& flags) {
  CLI::App* corpus = app.add_subcommand("corpus", "Print conversations of the corpus");
  AddSplit(corpus, flags);
  corpus->callback([&] { RunCorpus(flags); });
}

void AddRows(CLI::App& app, Flags& flags) {
  CLI::App* rows = app.add_subcommand(
      "rows", "Write customer messages as rows, each with what an answer must say ('expected')");
  AddSplit(rows, flags);
  rows->add_option("-o,--output", flags.rows, "A JSONL file, or - for standard output");
  rows->callback([&] { RunRows(flags); });
}

void AddTrain(CLI::App& app, Flags& flags) {
  CLI::App* train = app.add_subcommand("train", "Train, and write OUT.f16.gguf and OUT.q8_0.gguf");
  train->add_option("-o,--output", flags.output, "OUT")->capture_default_str();
  train->add_option("--steps", flags.training.adam.steps, "Optimizer steps")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  train->add_option("--threads", flags.training.threads, "Change the time, not the model")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  train->add_option("--rate", flags.training.adam.peak_rate, "Highest learning rate")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  train->add_option("--report-every", flags.report_every, "Steps between lines")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  train->callback([&] { RunTrain(flags); });
}

void AddEvaluate(CLI::App& app, Flags& flags) {
  CLI::App* evaluate = app.add_subcommand("evaluate", "Print the model card's figures of a file");
  evaluate->add_option("file", flags.model, "The model")->required();
  evaluate->add_option("--prompts", flags.prompts, "Of each kind")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  evaluate->add_option("--threads", flags.threads, "Of the engine")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  evaluate->add_flag("--failures", flags.show_failures, "Print the answers that are wrong, too");
  evaluate->callback([&] { RunEvaluate(flags); });
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app{"Makes and measures Halo's demo model.", "halo-demo-model"};
  app.require_subcommand(1);
  AddCorpus(app, flags);
  AddRows(app, flags);
  AddTrain(app, flags);
  AddEvaluate(app, flags);
  for (CLI::App* command : app.get_subcommands({}))
    command->add_option("--seed", flags.training.seed, "Of corpus and weights")
        ->capture_default_str();
  return RunProgram(app, "halo-demo-model", argc, argv);
}

}  // namespace
}  // namespace halo::demo

int main(int argc, char** argv) { return halo::demo::Main(argc, argv); }
