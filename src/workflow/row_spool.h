#pragma once

#include <string>
#include <string_view>

namespace halo {

/// A file of rows, one JSON object a line, that keeps what can be had only once: the bytes of
/// standard input as they were, or the rows of a query, which another run of it could give
/// otherwise.
class RowSpool {
 public:
  /// Makes FOLDER/NAME.jsonl, or NAME-2.jsonl and so on where that exists. Throws Error(kIo).
  RowSpool(const std::string& folder, const std::string& name);
  ~RowSpool();
  RowSpool(const RowSpool&) = delete;
  RowSpool& operator=(const RowSpool&) = delete;

  const std::string& path() const { return path_; }
  /// Throws Error(kIo).
  void Write(std::string_view bytes);

 private:
  [[noreturn]] void Fail(const char* what) const;

  std::string path_;
  int fd_ = -1;
};

}  // namespace halo
