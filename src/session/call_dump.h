#pragma once

#include <string>

#include "runtime/executor.h"

namespace halo {

/// `--dump-prompts`: one JSON object a call, with the ids that went in and came out, so that other
/// programs can count what a run had to compute without asking the code under test:
/// {"source","row","operator","model","merged","prompt":[ids],"output":[ids],"finish","max_tokens","temperature","top_p"}.
/// With engines that take text, `prompt_text` stands in place of `prompt`.
class CallDump {
 public:
  explicit CallDump(const std::string& path);  ///< throws Error(kIo)
  ~CallDump();
  CallDump(const CallDump&) = delete;
  CallDump& operator=(const CallDump&) = delete;
  void Write(const CallRecord& call);
  void Finish();  ///< throws Error(kIo) if anything could not be written

 private:
  std::string path_;
  void* file_;
};

}  // namespace halo
