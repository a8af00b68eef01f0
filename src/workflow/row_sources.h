#pragma once

#include <memory>

#include "workflow/rows.h"

namespace halo {

/// The kinds of sources that OpenRows chooses from; each scans as OpenRows says.
std::unique_ptr<RowSource> OpenJsonLines(const RowOptions& options);
std::unique_ptr<RowSource> OpenJsonArray(const RowOptions& options);
std::unique_ptr<RowSource> OpenCsv(const RowOptions& options);
std::unique_ptr<RowSource> OpenStandardInput(const RowOptions& options);

}  // namespace halo
