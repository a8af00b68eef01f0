#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace halo {

/// The value types of a GGUF key, numbered as in the file.
enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12
};

/// Bytes of one element of a fixed-size type; 0 for strings, arrays and unknown types.
size_t GgufTypeBytes(GgufType type);

/// One key. Views point into the file's bytes.
struct GgufValue {
  std::string_view key;
  GgufType type = GgufType::kUint8;  ///< of the elements, if is_array
  bool is_array = false;
  uint64_t count = 1;                ///< elements
  uint64_t offset = 0;               ///< of the key's type in the file
  std::span<const uint8_t> data;     ///< the elements, as they lie in the file
  std::span<const uint8_t> encoded;  ///< type, count and elements: what a writer copies
};

/// One tensor's entry in the header; its data were found to lie inside the file.
struct GgufTensor {
  std::string_view name;
  int32_t type = 0;  ///< a ggml_type that this build knows
  std::array<int64_t, 4> dims = {1, 1, 1, 1};
  int32_t n_dims = 0;
  uint64_t offset = 0;  ///< from the start of the file
  uint64_t bytes = 0;
};

/// A GGUF file's header, parsed within bounds. Nothing is copied but the two tables; every count is
/// compared with the bytes that are left before anything is allocated for it.
///
/// The file is mapped, not read: a header can be long (a vocabulary is megabytes) and is walked
/// once. A file that somebody shortens meanwhile raises SIGBUS, but llama.cpp maps the same file
/// right after, so nothing is lost.
class GgufFile {
 public:
  /// Maps and parses. Throws Error(kModel) naming the file, the offset and what is wrong.
  static GgufFile Open(const std::string& path);
  /// Parses bytes that the caller keeps alive; `name` is for messages.
  static GgufFile Parse(std::span<const uint8_t> bytes, std::string name);

  GgufFile(GgufFile&& other) noexcept;
  GgufFile& operator=(GgufFile&&) = delete;
  ~GgufFile();

  const std::string& path() const { return path_; }
  uint64_t file_bytes() const { return bytes_.size(); }
  const std::vector<GgufValue>& values() const { return values_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }

  const GgufValue* Find(std::string_view key) const;
  const GgufTensor* FindTensor(std::string_view name) const;

  /// A scalar of any integer type; nullopt if absent, no integer, or beyond int64.
  std::optional<int64_t> Integer(std::string_view key) const;
  /// A string; nullopt if absent or of another type.
  std::optional<std::string_view> Text(std::string_view key) const;

  /// Throws Error(kModel): `FILE: at byte OFFSET: what`.
  [[noreturn]] void Refuse(uint64_t offset, const std::string& what) const;

 private:
  GgufFile(std::span<const uint8_t> bytes, std::string path);
  void ParseHeader();

  std::span<const uint8_t> bytes_;
  bool mapped_ = false;  // the destructor unmaps
  std::string path_;
  std::vector<GgufValue> values_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, size_t> value_index_;
  std::unordered_map<std::string_view, size_t> tensor_index_;

  friend class GgufParser;
};

/// Element `index` of an integer scalar or array; nullopt for other types and beyond int64.
std::optional<int64_t> GgufInteger(const GgufValue& value, uint64_t index);
/// Element `index` of a float scalar or array (either width); nullopt for other types.
std::optional<double> GgufFloat(const GgufValue& value, uint64_t index);
/// Every string of a string or an array of strings; empty for other types.
std::vector<std::string_view> GgufStrings(const GgufValue& value);

}  // namespace halo
