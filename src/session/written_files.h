#pragma once

#include <string>
#include <vector>

namespace halo {

/// A file that a run is about to write, and the option that asks for it.
struct WrittenFile {
  std::string option;  ///< "-o"
  std::string path;    ///< as the person gave it; a file made on the way has a `stage`
  std::string stage;   ///< "": `path` itself, else the file that becomes it in the end
};

/// The files that `-o output` makes: the results, and what they are called before they are whole.
/// Nothing for "-" and "".
std::vector<WrittenFile> FilesOfResults(const std::string& output);

/// Throws Error(kUsage) if one of `written` is one of `read`, or if two options ask for one file.
/// Devices and pipes may be written to by all.
void CheckWrittenFiles(const std::vector<WrittenFile>& written,
                       const std::vector<std::string>& read);

}  // namespace halo
