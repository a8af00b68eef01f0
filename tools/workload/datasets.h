#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "workload/table.h"

namespace halo::workload {

/// What is generated: the same rows for the same values, whatever they are written to.
struct DataOptions {
  double scale = 0.01;  ///< see each data set; from 0.001 to 100
  uint64_t seed = 0;
};

/// Throws Error(kUsage) unless the scale is within bounds.
void CheckScale(const DataOptions& options);

/// Films, people and titles abroad, in the manner of IMDb's published tables: title_basics (scale
/// 1: 1,000,000 titles), title_ratings, name_basics, title_crew, title_akas. Words of titles, votes
/// and genres follow Zipf's law.
void GenerateImdb(const DataOptions& options, TableSink& sink);

/// The words that the keyword planners of W1 and W2 choose among, the most frequent first. Each
/// occurs in titles; most also in names of people or genres.
const std::vector<std::string>& MovieKeywords();

/// Articles with wikitext, in the manner of a dump of Wikipedia's: pages (scale 1: 200,000), of 800
/// characters on average, with categories, links, files, interwiki links, and versions of most
/// subjects in other languages.
void GenerateWiki(const DataOptions& options, TableSink& sink);

/// The titles of the first English articles of that data, at most `most`.
std::vector<std::string> WikiTitles(const DataOptions& options, size_t most);

/// The eight tables of TPC-H by its specification (cardinalities, domains, prices, dates), with
/// this scale as its scale factor; draws and comments are ours, so that answers differ from
/// dbgen's.
void GenerateTpch(const DataOptions& options, TableSink& sink);

}  // namespace halo::workload
