#include "sim/random_workload.h"

#include <algorithm>

#include "base/random.h"
#include "support/simulated_run.h"

namespace halo::test {
namespace {

constexpr int64_t kKvTokenBytes = 1024;
constexpr int64_t kWeightsBytes = int64_t{4} << 20;
/// Of the longest prompt and answer that a workload can come to; transcripts grow fast.
constexpr int64_t kLongestTokens = 8192;

class WorkloadMaker {
 public:
  explicit WorkloadMaker(uint64_t seed) : random_(seed) { workload_.seed = seed % 5; }

  Workload Make() {
    const auto models = 1 + random_.Below(3);
    for (uint64_t m = 0; m < models; ++m)
      workload_.models.push_back({"m" + std::to_string(m),
                                  kWeightsBytes * static_cast<int64_t>(1 + random_.Below(4)),
                                  kKvTokenBytes});
    const size_t operators = 1 + random_.Below(12);
    workload_.yaml = Chance(40) ? Graph(operators) : Ops(operators);
    const uint64_t rows = Chance(5) ? 0 : 1 + random_.Below(40);
    for (uint64_t i = 0; i < rows; ++i) workload_.rows.push_back(MakeRow(static_cast<int64_t>(i)));
    DrawMachines();
    return std::move(workload_);
  }

 private:
  bool Chance(uint64_t percent) { return random_.Below(100) < percent; }
  static std::string Id(size_t op) { return "op" + std::to_string(op); }

  void DrawMachines() {
    constexpr int32_t kWorkers[] = {1, 1, 2, 3, 4, 8, 16, 64};
    constexpr int32_t kSequences[] = {1, 2, 4, 8, 64};
    constexpr int64_t kWindows[] = {2, 8, 65536, 65536};
    workload_.workers = kWorkers[random_.Below(8)];
    workload_.sequences = kSequences[random_.Below(5)];
    workload_.window = kWindows[random_.Below(4)];
    workload_.rows_side_by_side = 1 + static_cast<int64_t>(random_.Below(16));
    workload_.input_order = Chance(80);
    // For many workers a beam takes longer than all the rest.
    constexpr int32_t kFewWorkers = 4;
    if (workload_.workers <= kFewWorkers && Chance(15)) workload_.planner = "beam";
    int64_t most = 0, all = 0;
    for (const WorkloadModel& model : workload_.models) {
      most = std::max(most, model.weights_bytes);
      all += model.weights_bytes;
    }
    const int64_t request = kLongestTokens * kKvTokenBytes;
    // Tight: one model at a time, and one of the longest requests.
    workload_.memory_bytes = Chance(50) ? most + request : all + 16 * request;
    constexpr int64_t kHost[] = {0, kWeightsBytes, int64_t{1} << 30};
    workload_.host_bytes = kHost[random_.Below(3)];
  }

  std::vector<size_t> DrawParents(size_t op) {
    std::vector<size_t> parents;
    const uint64_t wanted = op == 0 ? 0 : random_.Below(4);
    for (uint64_t k = 0; k < wanted; ++k) {
      const size_t parent = random_.Below(op);
      if (std::find(parents.begin(), parents.end(), parent) == parents.end())
        parents.push_back(parent);
    }
    return parents;
  }

  static std::string List(const std::vector<size_t>& ops) {
    std::string text;
    for (const size_t op : ops) text += (text.empty() ? "" : ", ") + Id(op);
    return "[" + text + "]";
  }

  std::string Model() { return "m" + std::to_string(random_.Below(workload_.models.size())); }

  /// The seed's dialect: conversations, prefixes, samples.
  std::string Ops(size_t count) {
    std::vector<bool> is_read(count, false), no_conversation(count, false);
    std::vector<size_t> starts, ends;
    std::string text;
    for (size_t i = 0; i < count; ++i) {
      const std::vector<size_t> parents = DrawParents(i);
      std::string op =
          "{model: " + Model() + ", max_tokens: " + std::to_string(1 + random_.Below(24));
      // Often the same as another operator's.
      if (Chance(70)) op += ", prompt: \"Say " + std::to_string(random_.Below(4)) + " of it.\"";
      if (Chance(50)) op += ", temperature: 0";
      if (Chance(15)) op += ", max_batch_size: " + std::to_string(1 + random_.Below(3));
      const bool samples = Chance(15);
      const bool vote = samples && Chance(50);
      if (samples) op += ", samples: 3" + std::string(vote ? ", vote: true" : "");
      no_conversation[i] = samples && !vote;
      if (parents.empty()) {
        starts.push_back(i);
        if (Chance(50)) op += ", prompt_layout: auto";
      } else {
        for (const size_t parent : parents) is_read[parent] = true;
        op += ", input_ops: " + List(parents);
        const bool may_continue = std::none_of(parents.begin(), parents.end(),
                                               [&](size_t p) { return no_conversation[p]; });
        if (!may_continue || Chance(50)) op += ", history: outputs";
      }
      text += "  " + Id(i) + ": " + op + "}\n";
    }
    for (size_t i = 0; i < count; ++i) {
      if (!is_read[i] || Chance(10)) ends.push_back(i);
    }
    return "start_ops: " + List(starts) + "\nend_ops: " + List(ends) + "\nops:\n" + text;
  }

  std::string Inputs(const std::vector<size_t>& parents) {
    if (parents.empty()) return "[prompt]";
    std::string text;
    for (const size_t parent : parents)
      text += (text.empty() ? "o" : ", o") + std::to_string(parent);
    return "[" + text + "]";
  }

  /// A node that asks a service or a database.
  std::string Tool(size_t op, const std::vector<size_t>& parents) {
    const std::string value =
        parents.empty() ? "{{ topic }}" : "{{ o" + std::to_string(parents.front()) + " }}";
    const std::string inputs = parents.empty() ? "[topic]" : Inputs(parents);
    std::string text =
        "    - {id: " + Id(op) + ", outputs: [o" + std::to_string(op) + "], inputs: ";
    if (Chance(50)) {
      text += inputs + ", type: http, url: \"http://example.org/find\", params: {q: \"" + value +
              "\"}, latency_s: " + std::to_string(1 + random_.Below(3)) + ", coalesce: true}\n";
    } else {
      text += inputs +
              ", type: db_query, connection: shop, sql: \"SELECT :v\", parameters: {v: \"" + value +
              "\"}}\n";
    }
    return text;
  }

  /// The second dialect: tools, structured answers.
  std::string Graph(size_t count) {
    std::string text =
        "graph:\n  connections: {shop: \"duckdb::memory:\"}\n  allow_hosts: [example.org]\n"
        "  defaults: {model: m0, max_tokens: 24}\n  nodes:\n"
        "    - {id: in, type: input, outputs: [prompt, topic]}\n";
    for (size_t i = 0; i < count; ++i) {
      const std::vector<size_t> parents = DrawParents(i);
      if (i + 1 < count && Chance(30)) {
        text += Tool(i, parents);
        continue;
      }
      const std::string output = "o" + std::to_string(i);
      text += "    - {id: " + Id(i) + ", model: " + Model() + ", outputs: [" + output +
              "], inputs: " + Inputs(parents) + ", system_prompt: \"Say " +
              std::to_string(random_.Below(3)) + ".\"";
      if (Chance(50)) text += ", temperature: 0";
      if (Chance(20))
        text += ", schema: {type: object, properties: {" + output +
                ": {type: string, enum: [yes, no, perhaps]}}, required: [" + output + "]}";
      text += "}\n";
    }
    return text;
  }

  Row MakeRow(int64_t index) {
    constexpr const char* kTexts[] = {
        "one", "two two", "a text of some more words than that",
        "a text of some more words than this, and then of a few more"};
    Json values = {{"prompt", kTexts[random_.Below(4)]},
                   {"topic", random_.Below(2) == 0 ? "rain" : "snow"}};
    if (Chance(60)) values["prompt"] = std::to_string(index) + " " + kTexts[random_.Below(4)];
    return MakeTestRow(index, std::move(values));
  }

  RandomStream random_;
  Workload workload_;
};

}  // namespace

Workload MakeWorkload(uint64_t seed) { return WorkloadMaker(seed).Make(); }

Workload MakeLargeGraph(int32_t operators, int64_t rows, uint64_t seed) {
  RandomStream random(seed);
  Workload workload;
  for (int m = 0; m < 3; ++m)
    workload.models.push_back({"m" + std::to_string(m), kWeightsBytes, kKvTokenBytes});
  std::vector<bool> is_read(static_cast<size_t>(operators), false);
  std::string text, starts, ends;
  for (int32_t i = 0; i < operators; ++i) {
    const std::string id = "op" + std::to_string(i);
    std::string inputs;
    for (uint64_t k = 0; i > 0 && k < 1 + random.Below(3); ++k) {
      const int32_t back =
          1 + static_cast<int32_t>(random.Below(static_cast<uint64_t>(std::min(i, 20))));
      const std::string parent = "op" + std::to_string(i - back);
      if ((", " + inputs + ",").find(", " + parent + ",") != std::string::npos) continue;
      inputs += (inputs.empty() ? "" : ", ") + parent;
      is_read[static_cast<size_t>(i - back)] = true;
    }
    if (inputs.empty()) starts += (starts.empty() ? "" : ", ") + id;
    text += "  " + id + ": {model: m" + std::to_string(random.Below(3)) +
            ", max_tokens: 8, prompt: \"Step " + std::to_string(i) + ".\"" +
            (inputs.empty() ? "" : ", history: outputs, input_ops: [" + inputs + "]") + "}\n";
  }
  for (int32_t i = 0; i < operators; ++i) {
    if (!is_read[static_cast<size_t>(i)])
      ends += (ends.empty() ? "op" : ", op") + std::to_string(i);
  }
  workload.yaml = "start_ops: [" + starts + "]\nend_ops: [" + ends + "]\nops:\n" + text;
  for (int64_t i = 0; i < rows; ++i)
    workload.rows.push_back(MakeTestRow(i, {{"prompt", "row " + std::to_string(i)}}));
  workload.workers = 8;
  workload.memory_bytes = 3 * kWeightsBytes + 16 * kLongestTokens * kKvTokenBytes;
  workload.host_bytes = int64_t{1} << 30;
  return workload;
}

}  // namespace halo::test
