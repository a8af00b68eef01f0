#pragma once

#include <string>
#include <utility>
#include <vector>

#include "bench/call_log.h"

namespace halo::bench {

inline Call MakeCall(std::vector<int32_t> prompt, std::vector<int32_t> output,
                     std::string row = "0", std::string op = "a", std::string model = "m") {
  Call call;
  call.row = std::move(row);
  call.op = std::move(op);
  call.model = std::move(model);
  call.prompt = std::move(prompt);
  call.output = std::move(output);
  call.finish = "length";
  call.temperature = 0.7;
  return call;
}

}  // namespace halo::bench
