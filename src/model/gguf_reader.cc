#include "model/gguf_reader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <ggml.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace halo {
namespace {

// Far above any real file, low enough that llama.cpp's own reader, which compares every key and
// every tensor name with every other, stays quick.
constexpr uint64_t kMaxKeys = 4096;
constexpr uint64_t kMaxTensors = 32768;
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxStringBytes = uint64_t{64} << 20;
constexpr uint64_t kMaxArrayElements = uint64_t{1} << 24;
constexpr uint64_t kMaxAlignment = uint64_t{1} << 20;
constexpr uint64_t kDefaultAlignment = 32;

template <typename T>
T LoadLittleEndian(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

// Text from the file inside a message: short, printable, whole characters.
std::string Quoted(std::string_view text) {
  constexpr size_t kShown = 80;
  std::string shown = ReplaceInvalidUtf8(text.substr(0, kShown));
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return "'" + shown + (text.size() > kShown ? "...'" : "'");
}

template <typename T>
std::optional<int64_t> IntegerAt(const GgufValue& value, uint64_t index) {
  const T number = LoadLittleEndian<T>(value.data.data() + index * sizeof(T));
  if (!std::in_range<int64_t>(number)) return std::nullopt;
  return static_cast<int64_t>(number);
}

}  // namespace

// Walks the header once, front to back. `position_` never passes the end of the bytes.
class GgufParser {
 public:
  explicit GgufParser(GgufFile& file) : file_(file), bytes_(file.bytes_) {}

  void Run() {
    ReadMagic();
    const uint64_t tensor_count = ReadCount("tensors", kMaxTensors, kMinTensorBytes);
    const uint64_t key_count = ReadCount("keys", kMaxKeys, kMinKeyBytes);
    file_.values_.reserve(key_count);
    for (uint64_t i = 0; i < key_count; ++i) ReadKey();
    alignment_ = ReadAlignment();
    file_.tensors_.reserve(tensor_count);
    for (uint64_t i = 0; i < tensor_count; ++i) ReadTensor();
    PlaceTensors();
  }

 private:
  // A name's length, a type and one byte; a name's length, dimensions, type and offset.
  static constexpr uint64_t kMinKeyBytes = 8 + 4 + 1;
  static constexpr uint64_t kMinTensorBytes = 8 + 4 + 8 + 4 + 8;

  uint64_t Left() const { return bytes_.size() - position_; }

  std::span<const uint8_t> Take(uint64_t count, const char* what) {
    if (count > Left()) {
      file_.Refuse(position_, fmt::format("{} needs {} bytes, {} are left", what, count, Left()));
    }
    const std::span<const uint8_t> taken = bytes_.subspan(position_, count);
    position_ += count;
    return taken;
  }

  template <typename T>
  T Read(const char* what) {
    return LoadLittleEndian<T>(Take(sizeof(T), what).data());
  }

  std::string_view ReadString(const char* what, uint64_t most_bytes) {
    const uint64_t at = position_;
    const uint64_t length = Read<uint64_t>(what);
    if (length > most_bytes) {
      file_.Refuse(at,
                   fmt::format("{} of {} bytes, at most {} are taken", what, length, most_bytes));
    }
    const std::span<const uint8_t> text = Take(length, what);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

  uint64_t ReadCount(const char* what, uint64_t most, uint64_t min_bytes_each) {
    const uint64_t at = position_;
    const uint64_t count = Read<uint64_t>(what);
    if (count > most) {
      file_.Refuse(at, fmt::format("{} {}, at most {} are taken", count, what, most));
    }
    if (count > Left() / min_bytes_each) {
      file_.Refuse(at, fmt::format("{} {} cannot fit into {} bytes", count, what, Left()));
    }
    return count;
  }

  void ReadMagic() {
    if (bytes_.size() < 4 || std::memcmp(bytes_.data(), "GGUF", 4) != 0) {
      file_.Refuse(0, "not a GGUF file (its first four bytes are not 'GGUF')");
    }
    position_ = 4;
    const uint32_t version = Read<uint32_t>("version");
    if ((version & 0xFFFFU) == 0)
      file_.Refuse(4, "a big-endian GGUF file, only little-endian is read");
    if (version != 2 && version != 3) {
      file_.Refuse(4, fmt::format("GGUF version {}, versions 2 and 3 are read", version));
    }
  }

  void ReadKey() {
    const uint64_t at = position_;
    GgufValue value;
    value.key = ReadString("key", kMaxKeyBytes);
    if (value.key.empty()) file_.Refuse(at, "an empty key");
    if (value.key.find('\0') != std::string_view::npos) file_.Refuse(at, "a key with a zero byte");
    if (!file_.value_index_.emplace(value.key, file_.values_.size()).second) {
      file_.Refuse(at, fmt::format("key {} twice", Quoted(value.key)));
    }
    value.offset = position_;
    value.type = static_cast<GgufType>(Read<uint32_t>("value type"));
    if (value.type == GgufType::kArray) {
      value.is_array = true;
      value.type = static_cast<GgufType>(Read<uint32_t>("element type"));
      value.count = Read<uint64_t>("array length");
    }
    const uint64_t data_at = position_;
    ReadElements(value);
    value.data = bytes_.subspan(data_at, position_ - data_at);
    value.encoded = bytes_.subspan(value.offset, position_ - value.offset);
    file_.values_.push_back(value);
  }

  void ReadElements(const GgufValue& value) {
    if (value.type == GgufType::kArray) {
      file_.Refuse(value.offset, fmt::format("key {} is an array of arrays", Quoted(value.key)));
    }
    if (value.count > kMaxArrayElements) {
      file_.Refuse(value.offset, fmt::format("key {} has {} elements, at most {} are taken",
                                             Quoted(value.key), value.count, kMaxArrayElements));
    }
    if (value.type == GgufType::kString) {
      for (uint64_t i = 0; i < value.count; ++i) ReadString("string", kMaxStringBytes);
      return;
    }
    const size_t size = GgufTypeBytes(value.type);
    if (size == 0) {
      file_.Refuse(value.offset, fmt::format("key {} has the unknown type {}", Quoted(value.key),
                                             static_cast<uint32_t>(value.type)));
    }
    Take(value.count * size, "value");
  }

  uint64_t ReadAlignment() {
    const GgufValue* value = file_.Find("general.alignment");
    if (value == nullptr) return kDefaultAlignment;
    if (value->is_array || value->type != GgufType::kUint32) {
      file_.Refuse(value->offset, "general.alignment is no 32-bit unsigned number");
    }
    const uint32_t alignment = LoadLittleEndian<uint32_t>(value->data.data());
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > kMaxAlignment) {
      file_.Refuse(value->offset,
                   fmt::format("general.alignment is {}, a power of two up to {} is wanted",
                               alignment, kMaxAlignment));
    }
    return alignment;
  }

  void ReadTensor() {
    const uint64_t at = position_;
    GgufTensor tensor;
    tensor.name = ReadString("tensor name", GGML_MAX_NAME - 1);
    if (tensor.name.empty() || tensor.name.find('\0') != std::string_view::npos) {
      file_.Refuse(at, "a tensor name that is empty or has a zero byte");
    }
    if (!file_.tensor_index_.emplace(tensor.name, file_.tensors_.size()).second) {
      file_.Refuse(at, fmt::format("tensor {} twice", Quoted(tensor.name)));
    }
    const uint32_t n_dims = Read<uint32_t>("tensor dimensions");
    if (n_dims < 1 || n_dims > tensor.dims.size()) {
      file_.Refuse(at, fmt::format("tensor {} has {} dimensions, 1 to 4 are taken",
                                   Quoted(tensor.name), n_dims));
    }
    tensor.n_dims = static_cast<int32_t>(n_dims);
    for (uint32_t i = 0; i < n_dims; ++i) tensor.dims[i] = Read<int64_t>("tensor dimension");
    tensor.type = Read<int32_t>("tensor type");
    tensor.bytes = TensorBytes(tensor, at);
    tensor.offset = Read<uint64_t>("tensor offset");
    file_.tensors_.push_back(tensor);
  }

  // Never overflows: the elements are bounded by the file's bytes x the widest block before they
  // are multiplied.
  uint64_t TensorBytes(const GgufTensor& tensor, uint64_t at) const {
    if (tensor.type < 0 || tensor.type >= GGML_TYPE_COUNT ||
        ggml_blck_size(static_cast<ggml_type>(tensor.type)) == 0) {
      file_.Refuse(
          at, fmt::format("tensor {} has the unknown type {}", Quoted(tensor.name), tensor.type));
    }
    const uint64_t block =
        static_cast<uint64_t>(ggml_blck_size(static_cast<ggml_type>(tensor.type)));
    const uint64_t block_bytes = ggml_type_size(static_cast<ggml_type>(tensor.type));
    const uint64_t most_elements = bytes_.size() / block_bytes * block;
    uint64_t elements = 1;
    for (const int64_t dim : tensor.dims) {
      if (dim < 1) {
        file_.Refuse(at, fmt::format("tensor {} has a dimension of {}", Quoted(tensor.name), dim));
      }
      if (static_cast<uint64_t>(dim) > most_elements / elements) {
        file_.Refuse(at, fmt::format("tensor {} is larger than the file", Quoted(tensor.name)));
      }
      elements *= static_cast<uint64_t>(dim);
    }
    if (static_cast<uint64_t>(tensor.dims[0]) % block != 0) {
      file_.Refuse(
          at, fmt::format("tensor {} has rows of {} elements, no multiple of the {} of its type {}",
                          Quoted(tensor.name), tensor.dims[0], block,
                          ggml_type_name(static_cast<ggml_type>(tensor.type))));
    }
    return elements / block * block_bytes;
  }

  // llama.cpp takes tensors only back to back in the order of the header, so nothing can overlap.
  void PlaceTensors() {
    if (file_.tensors_.empty()) return;
    const auto padded = [this](uint64_t n) {
      return (n + alignment_ - 1) / alignment_ * alignment_;
    };
    const uint64_t data_at = padded(position_);
    uint64_t expected = 0;
    for (GgufTensor& tensor : file_.tensors_) {
      if (tensor.offset != expected) {
        file_.Refuse(data_at, fmt::format("the data of tensor {} are at {}, expected at {}",
                                          Quoted(tensor.name), tensor.offset, expected));
      }
      if (data_at > bytes_.size() || expected > bytes_.size() - data_at ||
          tensor.bytes > bytes_.size() - data_at - expected) {
        file_.Refuse(data_at,
                     fmt::format("the data of tensor {} end past the end of the file (cut short?)",
                                 Quoted(tensor.name)));
      }
      tensor.offset = data_at + expected;
      expected += padded(tensor.bytes);
    }
  }

  GgufFile& file_;
  std::span<const uint8_t> bytes_;
  uint64_t position_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
};

size_t GgufTypeBytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    default:
      return 0;
  }
}

GgufFile::GgufFile(std::span<const uint8_t> bytes, std::string path)
    : bytes_(bytes), path_(std::move(path)) {}

GgufFile::GgufFile(GgufFile&& other) noexcept
    : bytes_(other.bytes_),
      mapped_(std::exchange(other.mapped_, false)),
      path_(std::move(other.path_)),
      values_(std::move(other.values_)),
      tensors_(std::move(other.tensors_)),
      value_index_(std::move(other.value_index_)),
      tensor_index_(std::move(other.tensor_index_)) {}

GgufFile::~GgufFile() {
  if (mapped_) munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
}

GgufFile GgufFile::Open(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    throw Error(ErrorCode::kModel,
                fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
  }
  struct stat info = {};
  if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size <= 0) {
    close(descriptor);
    throw Error(ErrorCode::kModel, fmt::format("{}: not a regular file, or empty", path));
  }
  const size_t size = static_cast<size_t>(info.st_size);
  void* mapping = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  const int map_error = errno;
  close(descriptor);
  if (mapping == MAP_FAILED) {
    throw Error(ErrorCode::kModel,
                fmt::format("{}: cannot be mapped: {}", path, std::strerror(map_error)));
  }
  GgufFile file({static_cast<const uint8_t*>(mapping), size}, path);
  file.mapped_ = true;
  GgufParser(file).Run();
  return file;
}

GgufFile GgufFile::Parse(std::span<const uint8_t> bytes, std::string name) {
  GgufFile file(bytes, std::move(name));
  GgufParser(file).Run();
  return file;
}

const GgufValue* GgufFile::Find(std::string_view key) const {
  const auto found = value_index_.find(key);
  return found == value_index_.end() ? nullptr : &values_[found->second];
}

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

std::optional<int64_t> GgufFile::Integer(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr || value->is_array) return std::nullopt;
  return GgufInteger(*value, 0);
}

std::optional<std::string_view> GgufFile::Text(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr || value->is_array || value->type != GgufType::kString) return std::nullopt;
  return GgufStrings(*value).front();
}

void GgufFile::Refuse(uint64_t offset, const std::string& what) const {
  throw Error(ErrorCode::kModel, fmt::format("{}: at byte {}: {}", path_, offset, what));
}

std::optional<int64_t> GgufInteger(const GgufValue& value, uint64_t index) {
  if (index >= value.count) return std::nullopt;
  switch (value.type) {
    case GgufType::kUint8:
      return IntegerAt<uint8_t>(value, index);
    case GgufType::kInt8:
      return IntegerAt<int8_t>(value, index);
    case GgufType::kUint16:
      return IntegerAt<uint16_t>(value, index);
    case GgufType::kInt16:
      return IntegerAt<int16_t>(value, index);
    case GgufType::kUint32:
      return IntegerAt<uint32_t>(value, index);
    case GgufType::kInt32:
      return IntegerAt<int32_t>(value, index);
    case GgufType::kUint64:
      return IntegerAt<uint64_t>(value, index);
    case GgufType::kInt64:
      return IntegerAt<int64_t>(value, index);
    default:
      return std::nullopt;
  }
}

std::optional<double> GgufFloat(const GgufValue& value, uint64_t index) {
  if (index >= value.count) return std::nullopt;
  if (value.type == GgufType::kFloat32) {
    return static_cast<double>(LoadLittleEndian<float>(value.data.data() + index * sizeof(float)));
  }
  if (value.type == GgufType::kFloat64) {
    return LoadLittleEndian<double>(value.data.data() + index * sizeof(double));
  }
  return std::nullopt;
}

std::vector<std::string_view> GgufStrings(const GgufValue& value) {
  std::vector<std::string_view> strings;
  if (value.type != GgufType::kString) return strings;
  strings.reserve(value.count);
  const uint8_t* next = value.data.data();
  for (uint64_t i = 0; i < value.count; ++i) {  // lengths were checked by the parser
    const uint64_t length = LoadLittleEndian<uint64_t>(next);
    strings.emplace_back(reinterpret_cast<const char*>(next + sizeof(length)), length);
    next += sizeof(length) + length;
  }
  return strings;
}

}  // namespace halo
