#pragma once

#include <string>

#include "halo/session.h"

namespace halo::cli {

/// Reads the project's own settings, `halo.yaml` in the folder that Halo is called in, into what no
/// flag has set; without such a file nothing happens.
///
///     allow: [net, exec, files, env]     what workflows may reach (contract section 6)
///     connections: {shop: "postgres://..."}
///
/// Throws Error(kConfig) with every fault of the file.
void ReadProjectFile(const std::string& path, RunOptions& options);

}  // namespace halo::cli
