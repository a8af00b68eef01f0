#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "runtime/executor.h"

namespace halo {

/// `--dump-prompts`: one JSON object a call, in the order in which they end, so that other programs
/// can count what a run had to compute without asking the code under test. All have
/// {"kind","source","row","operator","merged"} and, where the call was made for this row,
/// {"started_s","finished_s"} (seconds of the run; of the last attempt).
///
/// kind "llm", with the ids that went in and came out:
/// {"model","prompt":[ids],"output":[ids],"finish","max_tokens","temperature","top_p"}.
/// With engines that take text, `prompt_text` stands in place of `prompt`.
///
/// kind "http", "sql" or "function":
/// {"target","request","may_share","finish"}: scheme and host, connection, or function; a hash that
/// is equal for equal requests; whether these may share a result; "end" or "failed". Where the call
/// was made for this row also {"latency_s","drawn","busy_s","cpu_s"}: what was drawn from the
/// latency that the workflow declares (drawn: true), else how long it took; how long all attempts
/// took; processor time on this machine, where it is known. Never a path, a header or a value.
class CallDump {
 public:
  /// `start_us`: of the run, on its clock. Throws Error(kIo).
  CallDump(const std::string& path, int64_t start_us);
  ~CallDump();
  CallDump(const CallDump&) = delete;
  CallDump& operator=(const CallDump&) = delete;
  void Write(const CallRecord& call);
  void Write(const ToolCallRecord& call);
  void Finish();  ///< throws Error(kIo) if anything could not be written

 private:
  double SecondsOfRun(int64_t time_us) const;
  void WriteLine(const nlohmann::ordered_json& line);

  std::string path_;
  int64_t start_us_;
  void* file_;
};

}  // namespace halo
