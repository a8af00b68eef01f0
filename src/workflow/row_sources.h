#pragma once

#include <memory>

#include "workflow/input_file.h"
#include "workflow/line_reader.h"
#include "workflow/rows.h"

namespace halo {

/// The kinds of sources that OpenRows chooses from; each scans as OpenRows says.
std::unique_ptr<RowSource> OpenJsonLines(const RowOptions& options);
std::unique_ptr<RowSource> OpenJsonArray(const RowOptions& options);
std::unique_ptr<RowSource> OpenCsv(const RowOptions& options);
std::unique_ptr<RowSource> OpenParquet(const RowOptions& options);
std::unique_ptr<RowSource> OpenSql(const RowOptions& options);
std::unique_ptr<RowSource> OpenStandardInput(const RowOptions& options);
std::unique_ptr<RowSource> OpenStream(const RowOptions& options);

/// The next row of a file of JSON lines that was scanned. Throws Error(kIo) if it has changed.
nlohmann::ordered_json NextJsonLine(LineReader& lines, const InputFile& file);

}  // namespace halo
