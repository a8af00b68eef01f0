// Any bytes, taken for a model file, pass the check or are refused with an Error. The reader is
// asked for everything it can be asked for.

#include <span>

#include "fuzz/property.h"
#include "model/gguf_check.h"
#include "model/gguf_reader.h"

namespace {

using halo::fuzz::Require;

void ReadEverything(const halo::GgufFile& file) {
  for (const halo::GgufValue& value : file.values()) {
    Require(file.Find(value.key) != nullptr, "a key that is there is found");
    file.Integer(value.key);
    file.Text(value.key);
    for (const uint64_t index : {uint64_t{0}, value.count == 0 ? 0 : value.count - 1}) {
      if (index >= value.count) continue;
      halo::GgufInteger(value, index);
      halo::GgufFloat(value, index);
    }
    uint64_t bytes = 0;
    for (const std::string_view text : halo::GgufStrings(value)) bytes += text.size();
    Require(bytes <= file.file_bytes(), "texts lie in the file");
  }
  for (const halo::GgufTensor& tensor : file.tensors()) {
    Require(file.FindTensor(tensor.name) != nullptr, "a tensor that is there is found");
    Require(tensor.offset <= file.file_bytes() && tensor.bytes <= file.file_bytes() - tensor.offset,
            "a tensor's data lie in the file");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(data, size);
  try {
    ReadEverything(halo::GgufFile::Parse(bytes, "fuzzed.gguf"));
    halo::DescribeModel(halo::CheckGgufBytes(bytes, "fuzzed.gguf"));
  } catch (const halo::Error& error) {
    Require(error.code() == halo::ErrorCode::kModel, "a bad model file is a model error");
    halo::fuzz::RequireMeaningful(error, false);
  }
  return 0;
}
