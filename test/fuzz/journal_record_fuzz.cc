// Any bytes, taken for a record of a run's journal: none, or one that is written and read again
// without change.

#include "fuzz/property.h"
#include "runtime/journal_record.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes = halo::fuzz::Text(data, size);
  const std::optional<halo::JournalRecord> record = halo::DecodeRecord(bytes);
  if (!record) return 0;
  halo::fuzz::Require(halo::DecodeRecord(halo::EncodeRecord(*record)) == record,
                      "a record that was read survives another journey");
  return 0;
}
