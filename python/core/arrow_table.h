#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/arrow_c.h"

namespace halo::python {

using Texts = std::vector<std::optional<std::string>>;
using Numbers = std::vector<std::optional<int64_t>>;

/// A column of results: texts (UTF-8) or whole numbers, nothing where there is no value.
struct ArrowColumn {
  std::string name;
  std::variant<Texts, Numbers> values;
};

/// A table that is handed out through the Arrow C data interface, as one batch. Its memory is laid
/// out once and shared by every stream that is made of it, which may outlive this object.
class ArrowTable {
 public:
  /// All columns have the same length. Throws Error(kUsage) otherwise.
  explicit ArrowTable(const std::vector<ArrowColumn>& columns);
  /// A new stream over it, which the caller releases.
  void Export(ArrowArrayStream* out) const;
  int64_t rows() const;

 private:
  struct Layout;
  std::shared_ptr<const Layout> layout_;  // shared with the streams, as said above
};

}  // namespace halo::python
