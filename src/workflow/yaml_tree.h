#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "workflow/diagnostics.h"

namespace halo {

/// One node of a YAML document, with its place in the text. Aliases share the node that they name.
struct YamlNode {
  enum class Kind : uint8_t { kNull, kScalar, kSequence, kMapping };
  using Pointer = std::shared_ptr<const YamlNode>;

  Kind kind = Kind::kNull;
  bool quoted = false;  ///< a scalar in quotes or a block scalar: text, whatever it looks like
  int32_t line = 0;     ///< from 1
  int32_t column = 0;   ///< from 1, in bytes
  size_t offset = 0;    ///< of the node's first byte in the text
  std::string text;     ///< of a scalar
  std::vector<Pointer> items;                        ///< of a sequence
  std::vector<std::pair<Pointer, Pointer>> entries;  ///< of a mapping, in file order
  int64_t size = 1;    ///< nodes of this subtree with aliases expanded
  int32_t height = 1;  ///< levels of this subtree with aliases expanded

  bool IsText() const { return kind == Kind::kScalar; }
};

/// Bounds of a workflow file, checked while it is read and before anything recurses over it.
inline constexpr size_t kMaxYamlBytes = size_t{16} << 20;
inline constexpr int32_t kMaxYamlDepth = 64;
inline constexpr int64_t kMaxYamlNodes = 100'000;

/// Reads one document. What ends the reading (size, encoding, syntax, depth, too many nodes once
/// aliases are expanded, several documents) is thrown as Error(kWorkflow) with its place; duplicate
/// keys, keys that are not text and merge keys are added to `diagnostics`, each mapping being
/// checked once.
///
/// Uses yaml-cpp's event interface: its node tree has no duplicate keys to show, and recurses. Its
/// scanner does not recurse, but keeps every open bracket (100 bytes each), so texts with more than
/// 10,000 unclosed ones are refused.
YamlNode::Pointer ParseYaml(std::string_view text, DiagnosticList& diagnostics);

}  // namespace halo
