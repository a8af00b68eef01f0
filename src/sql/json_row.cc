#include "sql/json_row.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <optional>
#include <unordered_set>

#include "base/text.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

/// Walks a text and tells the outside how far the parser has read: its events carry no places.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, const char** reached) : at_(at), reached_(reached) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    *reached_ = ++at_;
    return *this;
  }
  friend bool operator==(const CountingIterator& a, const CountingIterator& b) {
    return a.at_ == b.at_;
  }

 private:
  const char* at_;
  const char** reached_;
};

std::string DescribeParseError(const nlohmann::detail::exception& fault) {
  // "[json.exception.parse_error.101] parse error at line 1, column 7: syntax error while ..."
  std::string_view text = fault.what();
  const size_t bracket = text.find("] ");
  if (bracket != std::string_view::npos) text.remove_prefix(bracket + 2);
  if (text.starts_with("parse error")) {
    const size_t colon = text.find(": ");
    if (colon != std::string_view::npos) text.remove_prefix(colon + 2);
  }
  constexpr size_t kShownBytes = 200;
  const bool cut = text.size() > kShownBytes;
  text = text.substr(0, kShownBytes);
  text = text.substr(0, CompleteUtf8Length(text));
  return "not valid JSON: " + std::string(text) + (cut ? "..." : "");
}

/// Builds a row from the parser's events. ordered_json's own builder neither sees duplicate keys
/// nor has a bound.
class RowBuilder {
 public:
  RowBuilder(const char* begin, const char* const* reached) : begin_(begin), reached_(reached) {}

  JsonRow& row() { return row_; }
  const std::optional<JsonFault>& fatal() const { return fatal_; }

  // The events of nlohmann::json's SAX interface.
  bool null() { return Value(Json()); }
  bool boolean(bool value) { return Value(Json(value)); }
  bool number_integer(Json::number_integer_t value) { return Value(Json(value)); }
  bool number_unsigned(Json::number_unsigned_t value) { return Value(Json(value)); }
  bool number_float(Json::number_float_t value, const Json::string_t& text) {
    const bool whole = text.find_first_of(".eE") == std::string::npos;
    if (!whole) return Value(Json(value));
    if (frames_.size() == 1 && frames_[0].key == "id") row_.id_is_exact = false;
    return Value(Json(text));  // floating point would lose digits
  }
  bool string(Json::string_t& value) { return Value(Json(std::move(value))); }
  bool binary(Json::binary_t& /*value*/) { return false; }  // JSON has none
  bool start_object(size_t /*size*/) { return Open(Json::object()); }
  bool end_object() { return Close(); }
  bool start_array(size_t /*size*/) { return Open(Json::array()); }
  bool end_array() { return Close(); }

  bool key(Json::string_t& key) {
    Frame& frame = frames_.back();
    frame.duplicate = !frame.AddKey(key);
    if (frame.duplicate) {
      row_.faults.push_back({StringOffset(), "the key '" + Shorten(key) + "' is given twice"});
    } else if (frames_.size() == 1 && key == "id") {
      row_.id_offset = StringOffset();
    }
    frame.key = std::move(key);
    return true;
  }

  bool parse_error(size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& fault) {
    fatal_ = JsonFault{position > 0 ? position - 1 : 0, DescribeParseError(fault)};
    return false;
  }

 private:
  using Entries = Json::object_t::Container;

  /// An array or object being read.
  struct Frame {
    Json value;
    std::string key;         ///< of the value that comes next
    bool duplicate = false;  ///< the key was there before: its value is left out
    std::unordered_set<std::string> many_keys;

    /// ordered_map's own emplace compares with every key before; this is the vector behind it.
    Entries& entries() { return value.get_ref<Json::object_t&>(); }

    /// False if the object has `name` already. Few keys are compared one by one, many through a
    /// set: an object of a million keys must not take a million squared steps.
    bool AddKey(const std::string& name) {
      constexpr size_t kFew = 16;
      if (!many_keys.empty()) return many_keys.insert(name).second;
      const auto same = [&](const auto& entry) { return entry.first == name; };
      if (std::any_of(entries().begin(), entries().end(), same)) return false;
      if (entries().size() >= kFew) {
        for (const auto& entry : entries()) many_keys.insert(entry.first);
        many_keys.insert(name);
      }
      return true;
    }
  };

  static std::string Shorten(std::string_view text) {
    constexpr size_t kShownBytes = 60;
    if (text.size() <= kShownBytes) return std::string(text);
    text = text.substr(0, kShownBytes);
    return std::string(text.substr(0, CompleteUtf8Length(text))) + "...";
  }

  size_t Offset() const { return static_cast<size_t>(*reached_ - begin_); }

  /// Where the string that was just read begins: its opening quote is the last one that no
  /// backslash escapes.
  size_t StringOffset() const {
    const std::string_view read(begin_, Offset());
    size_t at = read.rfind('"');  // the closing quote
    while (at > 0 && at != std::string_view::npos) {
      at = read.rfind('"', at - 1);
      if (at == std::string_view::npos) break;
      const size_t before = at == 0 ? std::string_view::npos : read.find_last_not_of('\\', at - 1);
      const size_t backslashes = at - (before == std::string_view::npos ? 0 : before + 1);
      if (backslashes % 2 == 0) return at;
    }
    return 0;
  }

  bool Open(Json empty) {
    if (frames_.empty()) BeginRow(Offset() - 1);
    if (frames_.size() >= kMaxRowDepth) {
      fatal_ = JsonFault{Offset() - 1, "nested more than 64 levels deep"};
      return false;
    }
    frames_.push_back({std::move(empty), {}, false, {}});
    return true;
  }

  bool Close() {
    Json value = std::move(frames_.back().value);
    frames_.pop_back();
    return Value(std::move(value));
  }

  bool Value(Json value) {
    if (frames_.empty()) {
      if (!value.is_structured()) BeginRow(ScalarOffset(value));
      EndRow(std::move(value));
      return true;
    }
    Frame& frame = frames_.back();
    if (frame.value.is_array()) {
      frame.value.push_back(std::move(value));
    } else if (!frame.duplicate) {
      frame.entries().emplace_back(std::move(frame.key), std::move(value));
    }
    return true;
  }

  /// Where the scalar that was just read begins.
  size_t ScalarOffset(const Json& value) const {
    if (value.is_string()) return StringOffset();
    if (!value.is_number()) return Offset() - (value == Json(false) ? 5 : 4);
    // The parser has looked at the byte behind a number, if there is one.
    const auto is_number = [](char c) { return c != '\0' && std::strchr("0123456789+-.eE", c); };
    size_t at = Offset();
    if (!is_number(begin_[at - 1])) --at;
    while (at > 0 && is_number(begin_[at - 1])) --at;
    return at;
  }

  void BeginRow(size_t offset) {
    row_ = {};
    row_.offset = row_.id_offset = offset;
  }

  void EndRow(Json value) {
    if (!value.is_object()) {
      row_.faults.insert(row_.faults.begin(),
                         {row_.offset, std::string("expected a row as an object, got ") +
                                           (value.is_array() ? "an array" : value.type_name())});
    }
    row_.values = std::move(value);
  }

  const char* const begin_;
  const char* const* const reached_;
  std::vector<Frame> frames_;
  JsonRow row_;
  std::optional<JsonFault> fatal_;
};

}  // namespace

JsonRow ParseJsonRow(std::string_view text) {
  const char* reached = text.data();
  RowBuilder builder(text.data(), &reached);
  Json::sax_parse(CountingIterator(text.data(), &reached),
                  CountingIterator(text.data() + text.size(), &reached), &builder);
  JsonRow row = std::move(builder.row());
  if (builder.fatal()) {
    // The parser refuses what is not UTF-8 too; only the reason is put more plainly.
    const size_t bad = FindInvalidUtf8(text.substr(0, builder.fatal()->offset + 4));
    const bool is_utf8 = bad == std::string_view::npos || bad > builder.fatal()->offset;
    row.faults.push_back(is_utf8 ? *builder.fatal() : JsonFault{bad, "not UTF-8"});
  }
  return row;
}

}  // namespace halo
