#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "engine/engine.h"

namespace halo {

/// What was answered in this run, by the signature of the call, so that equal calls merge however
/// far apart their rows are (contract 2). The last answers stay in memory. Older ones go to a file,
/// and an index of 32 bytes a call says where; what it holds beyond `index_bytes` goes to disk in
/// sorted runs. Signatures are uniform, so a search in a run is an interpolation: about one page.
///
/// Files have no names while they are used: they go when the process does. If one cannot be written
/// (a full disk), older answers are forgotten, which costs calls and changes nothing; `failure`
/// says why.
class AnswerStore {
 public:
  struct Options {
    std::string folder;                     ///< for the files; "": only recent answers are kept
    size_t recent = 65536;                  ///< answers in memory
    size_t index_bytes = size_t{64} << 20;  ///< of memory for the index of older ones
  };

  explicit AnswerStore(Options options);
  ~AnswerStore();
  AnswerStore(const AnswerStore&) = delete;
  AnswerStore& operator=(const AnswerStore&) = delete;

  /// Remembers an answer; one that is there already stays. Failures are not answers.
  void Put(const Signature& signature, const Completion& completion);
  /// The answer to an equal call: text, tokens, how it ended, its counts of tokens.
  std::optional<Completion> Find(const Signature& signature) const;

  /// Why older answers are forgotten; "": they are not.
  const std::string& failure() const { return failure_; }
  int64_t spilled() const { return spilled_; }  ///< answers in the file
  size_t runs() const { return runs_.size(); }  ///< sorted runs of the index on disk

 private:
  /// 32 bytes. A length of 0 marks a free place.
  struct Entry {
    Signature signature;
    uint64_t offset = 0;
    uint64_t length = 0;
  };
  class File;
  struct Run {
    uint64_t first = 0;  ///< place of its first entry in the index file
    uint64_t count = 0;
  };

  void Spill(const Signature& signature, const std::string& bytes);
  void Insert(const Entry& entry);
  void WriteRun();
  std::optional<Entry> Locate(const Signature& signature) const;
  std::optional<Entry> LocateIn(const Run& run, const Signature& signature) const;
  void Fail(const std::string& why);

  Options options_;
  /// As bytes: a sixth of what completions take, in one piece.
  std::unordered_map<Signature, std::string, SignatureHasher> recent_;
  std::deque<Signature> recent_in_order_;
  std::vector<Entry> table_;  ///< open addressing; a power of two places
  size_t used_ = 0;
  std::vector<Run> runs_;
  std::unique_ptr<File> answers_;
  std::unique_ptr<File> index_;
  int64_t spilled_ = 0;
  std::string failure_;
};

}  // namespace halo
