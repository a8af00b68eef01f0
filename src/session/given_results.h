#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>

#include "halo/session.h"
#include "runtime/result_sink.h"

namespace halo {

/// A sink that gives the rows of an input to the program (RunOptions::on_row).
std::unique_ptr<ResultSink> GiveResults(size_t input, std::function<void(FinishedRow)> take);

/// What workflows may call besides Halo's own functions. Throws Error(kUsage) for a name that one
/// of these has.
std::set<std::string> NamesOfFunctions(const RunOptions& options);

}  // namespace halo
