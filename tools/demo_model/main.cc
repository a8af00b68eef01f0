// halo-demo-model: makes the demo model (corpus, vocabulary, training, model files) and measures it.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "demo_model/evaluation.h"
#include "demo_model/model_file.h"
#include "demo_model/trainer.h"

namespace halo::demo {
namespace {

constexpr int kExitOk = 0, kExitFailed = 1, kExitUsage = 2;
constexpr uint64_t kMeasuredConversations = 200;

struct Flags {
  TrainingOptions training;
  std::string output = "halo-demo";
  std::string model;
  std::string split = "training";
  uint64_t count = 8;
  uint64_t prompts = 50;
  int32_t threads = 2;
  int64_t report_every = 50;
};

Split SplitByName(const std::string& name) {
  for (const Split split : {Split::kTraining, Split::kHeldOutCombinations, Split::kUnseenProducts,
                            Split::kUnseenProblems, Split::kFreeWording}) {
    if (SplitName(split) == name) return split;
  }
  throw Error(ErrorCode::kUsage, "no split '" + name +
                                     "'; there are training, held-out combinations, unseen "
                                     "products, unseen problems, free wording");
}

void RunCorpus(const Flags& flags) {
  static constexpr const char* kRoles[] = {"system", "user", "assistant"};
  const Split split = SplitByName(flags.split);
  for (uint64_t i = 0; i < flags.count; ++i) {
    const Conversation conversation = MakeConversation(split, flags.training.seed, i);
    std::cout << "== " << conversation.task << " " << conversation.facts.dump() << "\n";
    for (const Turn& turn : conversation.turns)
      std::cout << kRoles[static_cast<size_t>(turn.role)] << ": " << turn.text << "\n";
  }
}

void PrintStep(const TrainingStep& step, int64_t tokens, double seconds) {
  const double share = static_cast<double>(step.loss.answer_hits) /
                       static_cast<double>(std::max<int64_t>(step.loss.answers, 1));
  std::cout << fmt::format("step {:5} loss {:.4f} answer tokens {:.2f}% norm {:.2f} {:.0f} tokens/s\n",
                           step.step, step.loss.mean, 100 * share, step.gradient_norm,
                           static_cast<double>(tokens) / seconds)
            << std::flush;
}

void RunTrain(const Flags& flags) {
  const SteadyClock clock;
  const int64_t start_us = clock.NowUs();
  int64_t tokens = 0;
  const TrainedModel model = Train(flags.training, [&](const TrainingStep& step) {
    tokens += step.tokens;
    if (step.step % flags.report_every == 0 || step.step == flags.training.adam.steps)
      PrintStep(step, tokens, static_cast<double>(clock.NowUs() - start_us) * 1e-6);
  });
  for (const Split split : {Split::kHeldOutCombinations, Split::kUnseenProducts,
                            Split::kUnseenProblems, Split::kFreeWording}) {
    const BatchLoss loss =
        Measure(model, split, flags.training.seed, 0, kMeasuredConversations);
    std::cout << fmt::format("{}: answer tokens {:.3f}%\n", SplitName(split),
                             100.0 * static_cast<double>(loss.answer_hits) /
                                 static_cast<double>(loss.answers));
  }
  ModelFile file{&model.shape, &model.parameters, &model.encoding,
                 flags.training.seed, WeightType::kF16};
  WriteModelFile(file, flags.output + ".f16.gguf");
  file.type = WeightType::kQ8_0;
  WriteModelFile(file, flags.output + ".q8_0.gguf");
  std::cout << fmt::format("wrote {0}.f16.gguf and {0}.q8_0.gguf\n", flags.output);
}

void RunEvaluate(const Flags& flags) {
  std::cout << "| prompts | valid JSON | product | problem | sentiment | all three | reply names both |\n"
               "|---|---|---|---|---|---|---|\n";
  for (const SplitFigures& f :
       EvaluateMessages(flags.model, flags.training.seed, flags.prompts, flags.threads)) {
    std::cout << fmt::format("| {}, {} | {} | {} | {} | {} | {} | {} |\n", f.split, f.prompts,
                             f.valid_json, f.product, f.problem, f.sentiment, f.extraction, f.reply);
  }
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app{"Makes and measures Halo's demo model.", "halo-demo-model"};
  app.require_subcommand(1);
  CLI::App* corpus = app.add_subcommand("corpus", "Print conversations");
  corpus->add_option("--split", flags.split, "training, held-out combinations, ...");
  corpus->add_option("--count", flags.count, "How many");
  corpus->callback([&] { RunCorpus(flags); });
  CLI::App* train = app.add_subcommand("train", "Train, and write OUT.f16.gguf and OUT.q8_0.gguf");
  train->add_option("-o,--output", flags.output, "OUT");
  train->add_option("--steps", flags.training.adam.steps, "Optimizer steps");
  train->add_option("--threads", flags.training.threads, "Change the time, not the model");
  train->add_option("--rate", flags.training.adam.peak_rate, "Highest learning rate");
  train->add_option("--report-every", flags.report_every, "Steps between lines");
  train->callback([&] { RunTrain(flags); });
  CLI::App* evaluate = app.add_subcommand("evaluate", "Print the model card's figures of a file");
  evaluate->add_option("file", flags.model, "The model")->required();
  evaluate->add_option("--prompts", flags.prompts, "Of each kind");
  evaluate->add_option("--threads", flags.threads, "Of the engine");
  evaluate->callback([&] { RunEvaluate(flags); });
  for (CLI::App* command : {corpus, train, evaluate})
    command->add_option("--seed", flags.training.seed, "Of corpus and weights");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  } catch (const Error& error) {
    std::cerr << error.what() << "\n";
    return error.code() == ErrorCode::kUsage ? kExitUsage : kExitFailed;
  } catch (const std::exception& error) {
    std::cerr << "halo-demo-model: " << error.what() << "\n";
    return kExitFailed;
  }
  return kExitOk;
}

}  // namespace
}  // namespace halo::demo

int main(int argc, char** argv) { return halo::demo::Main(argc, argv); }
