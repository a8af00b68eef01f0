#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "halo/session.h"

namespace halo {

/// A file as a run found it.
struct FileFacts {
  std::string path;
  int64_t bytes = 0;
  int64_t modified_ns = 0;  ///< since 1970
  std::string digest;       ///< of all that is in it, 32 hexadecimal digits
};

/// An operator as a run found it.
struct OperatorFacts {
  std::string id;
  std::string signature;           ///< OperatorIdentity::signature
  std::vector<std::string> reads;  ///< operators whose outputs it may look at
};

/// What a run was asked for and what it was made of: everything but what came of it. Kept as
/// `manifest.json` in its folder; docs/durability.md lists the keys.
struct RunManifest {
  struct Input {
    FileFacts workflow;
    std::string text;  ///< of the workflow's file, as it was read
    std::vector<OperatorFacts> operators;
    FileFacts rows;  ///< no path: standard input
  };
  int64_t created = 0;         ///< seconds since 1970
  int64_t parts = 0;           ///< how often it was begun and gone on with
  bool in_runs = false;        ///< its folder is one of many, with links beside it
  std::string working_folder;  ///< in which relative paths mean something
  std::string same;            ///< equal for runs that would do the same thing, 32 digits
  RunOptions options;          ///< passwords in URLs of connections are `***`
  std::vector<Input> inputs;
  std::vector<FileFacts> models;  ///< and adapters
};

/// Compact enough to be read by people.
std::string ManifestText(const RunManifest& manifest);
/// Reads FOLDER/manifest.json. Throws Error(kUsage) where it is none that this version can read.
RunManifest ReadManifest(const std::string& folder);

/// Facts of the file there now. `known`: facts that are taken over where size and time have not
/// changed, so that gigabytes are read once. Throws Error(kIo).
FileFacts LookAt(const std::string& path, const std::vector<FileFacts>& known);

/// Equal for runs that would do the same thing: workflows, rows and output, whatever the rest.
std::string SameThing(const RunOptions& options);

/// A URL without what nobody else may read.
std::string MaskedUrl(const std::string& url);
/// Connections whose URLs had to be masked, which somebody has to give again.
std::vector<std::string> MaskedConnections(const RunOptions& options);

/// What has changed between two looks at a run, for a person, one line each: which operators are
/// asked again, and why.
std::vector<std::string> Changes(const RunManifest& before, const RunManifest& now);

}  // namespace halo
