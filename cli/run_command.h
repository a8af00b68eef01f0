#pragma once

namespace CLI {
class App;
}

namespace halo::cli {

/// `halo cache explain`: takes what `halo run` takes.
void AddCacheExplainCommand(CLI::App& cache, int& exit_code);

}  // namespace halo::cli
