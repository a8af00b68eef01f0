// Runs one workflow over a file of rows, inside this program: no server, no second process.
//
//   embed WORKFLOW.yaml ROWS.jsonl NAME=MODEL.gguf ANSWERS.jsonl

#include <halo/error.h>
#include <halo/session.h>

#include <atomic>
#include <cstdio>
#include <string>

int main(int argc, char** argv) {
  const std::string model = argc == 5 ? argv[3] : "";
  const size_t equals = model.find('=');
  if (equals == std::string::npos) {
    std::fprintf(stderr, "usage: embed WORKFLOW.yaml ROWS.jsonl NAME=MODEL.gguf ANSWERS.jsonl\n");
    return 2;
  }

  halo::RunOptions options;
  options.inputs = {{argv[1], argv[2]}};
  options.models[model.substr(0, equals)] = model.substr(equals + 1);
  options.output = argv[4];
  options.worker_memory_bytes = 256 << 20;  // for KV; without it, a quarter of the machine's memory
  try {
    halo::Session session(options);
    std::printf("%s\n", session.Explain().c_str());

    // Another thread, or a signal handler, may set it: 1 finishes what runs, 2 ends at once.
    const std::atomic<int> stop = 0;
    const halo::RunOutcome outcome = session.Run(stop, [](const halo::Progress& progress) {
      std::fprintf(stderr, "%lld rows done\n",
                   static_cast<long long>(progress.rows_ok + progress.rows_failed));
    });
    std::printf("%s\n", outcome.summary_json.c_str());
    for (const halo::FailureGroup& group : outcome.failures)
      std::fprintf(stderr, "failed: %lld rows at %s: %s\n", static_cast<long long>(group.rows),
                   group.operator_id.c_str(), group.example.c_str());
    return static_cast<int>(outcome.status);
  } catch (const halo::Error& error) {
    // Everything that is wrong with the workflow, the rows or the model, found before anything ran.
    for (const halo::Diagnostic& diagnostic : error.diagnostics())
      std::fprintf(stderr, "%s\n", diagnostic.ToString().c_str());
    return 2;
  }
}
