#include "workflow/row_scan.h"

#include <algorithm>
#include <tuple>

#include "base/text.h"

namespace halo {
namespace {

constexpr size_t kMaxDiagnostics = 100;
constexpr uint64_t kLineMask = (uint64_t{1} << 48) - 1;

std::vector<std::string> KeysOf(const nlohmann::ordered_json& values) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : values.items()) keys.push_back(key);
  return keys;
}

std::string Shorten(std::string_view text, size_t bytes) {
  if (text.size() <= bytes) return std::string(text);
  text = text.substr(0, bytes);
  return std::string(text.substr(0, CompleteUtf8Length(text))) + "...";
}

}  // namespace

std::optional<int64_t> IdTable::Insert(const Signature& id, int64_t line) {
  if ((used_ + 1) * 4 > slots_.size() * 3) Grow();
  const Slot wanted{id.high, (id.low & ~kLineMask) | (static_cast<uint64_t>(line) & kLineMask)};
  Slot& slot = slots_[Place(wanted)];
  if (slot.low_and_line != 0) return static_cast<int64_t>(slot.low_and_line & kLineMask);
  slot = wanted;
  ++used_;
  return std::nullopt;
}

/// The slot of an equal id, or the free one where `wanted` belongs.
size_t IdTable::Place(const Slot& wanted) const {
  size_t at = static_cast<size_t>(wanted.high) & (slots_.size() - 1);
  while (slots_[at].low_and_line != 0 &&
         (slots_[at].high != wanted.high ||
          (slots_[at].low_and_line & ~kLineMask) != (wanted.low_and_line & ~kLineMask))) {
    at = (at + 1) & (slots_.size() - 1);
  }
  return at;
}

void IdTable::Grow() {
  std::vector<Slot> old(std::max<size_t>(64, 2 * slots_.size()));
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.low_and_line != 0) slots_[Place(slot)] = slot;
  }
}

Signature IdSignature(const nlohmann::ordered_json& id) {
  return SignatureBuilder()
      .Add(id.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace))
      .Finish();
}

Row MakeRow(int64_t index, nlohmann::ordered_json values) {
  Row row;
  row.index = index;
  const auto id = values.find("id");
  row.id = id == values.end() ? nlohmann::ordered_json(index) : *id;
  row.values = std::move(values);
  return row;
}

std::string RowIdFault(const JsonRow& row) {
  const auto id = row.values.find("id");
  if (id == row.values.end()) return "";
  if (!id->is_string() && !id->is_number()) {
    return std::string("id: expected a string or a number, got ") +
           (id->is_array() ? "an array" : id->type_name());
  }
  if (!row.id_is_exact) {
    return "id: a whole number of more than 64 bits cannot be kept exactly: write it as a string";
  }
  return "";
}

std::string ListNames(const std::vector<std::string>& names) {
  constexpr size_t kShownNames = 20;
  constexpr size_t kShownBytes = 60;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kShownNames); ++i) {
    if (i > 0) text += ", ";
    text += Shorten(names[i], kShownBytes);
  }
  if (names.size() > kShownNames) {
    text += " and " + std::to_string(names.size() - kShownNames) + " more";
  }
  return names.empty() ? "nothing" : text;
}

void CheckColumns(const std::string& file, int64_t line, const std::string& header,
                  const std::vector<std::string>& columns,
                  const std::vector<std::string>& required_columns) {
  std::vector<Diagnostic> faults;
  const auto add = [&](std::string message) {
    faults.push_back({{file, static_cast<int32_t>(line), 0}, std::move(message)});
  };
  std::unordered_set<std::string_view> seen;
  for (size_t i = 0; i < columns.size(); ++i) {
    const std::string place = "column " + std::to_string(i + 1) + header;
    if (columns[i].empty()) {
      add(place + " has no name");
    } else if (!seen.insert(columns[i]).second) {
      add(place + ", '" + columns[i] + "', is there twice");
    }
  }
  for (const std::string& required : required_columns) {
    if (seen.contains(required)) continue;
    add("no row has the column '" + required + "'" + DidYouMean(required, columns) +
        "; the columns are: " + ListNames(columns));
  }
  if (!faults.empty()) throw Error(ErrorCode::kRows, std::move(faults));
}

RowScan::RowScan(std::string file, std::vector<std::string> required_columns, std::string row_at)
    : file_(std::move(file)), row_at_(std::move(row_at)) {
  for (std::string& name : required_columns) required_.push_back({std::move(name), false, {}, 0});
}

void RowScan::AddFault(int64_t line, int64_t column, std::string message) {
  ++faults_;
  if (diagnostics_.size() >= kMaxDiagnostics) return;
  diagnostics_.push_back(
      {{file_, static_cast<int32_t>(line), static_cast<int32_t>(column)}, std::move(message)});
}

void RowScan::AddRow(int64_t line, int32_t id_column, const JsonRow& row) {
  const int64_t index = rows_++;
  if (observer_) observer_(row.values);
  for (const auto& [key, value] : row.values.items()) columns_.Add(key);
  for (RequiredColumn& column : required_) {
    if (row.values.contains(column.name)) {
      column.seen = true;
      continue;
    }
    if (column.missing_count++ >= static_cast<int64_t>(kMaxDiagnostics)) continue;
    const std::vector<std::string> keys = KeysOf(row.values);
    column.missing.push_back({{file_, static_cast<int32_t>(line), 1},
                              row_at_ + " " + std::to_string(line) + " has no column '" +
                                  column.name + "'" + DidYouMean(column.name, keys) +
                                  "; it has: " + ListNames(keys)});
  }
  const std::string fault = RowIdFault(row);
  if (!fault.empty()) {
    AddFault(line, id_column, fault);
    return;
  }
  const auto found = row.values.find("id");
  const bool has_id = found != row.values.end();
  const nlohmann::ordered_json id = has_id ? *found : nlohmann::ordered_json(index);
  const std::optional<int64_t> earlier = ids_.Insert(IdSignature(id), line);
  if (!earlier) return;
  const std::string shown =
      Shorten(id.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace), 60);
  AddFault(line, id_column,
           has_id ? "the id " + shown + " is already that of the " + row_at_ + " " +
                        std::to_string(*earlier)
                  : "this row has no id and is called by its index, " + shown +
                        ", which is already the id of the " + row_at_ + " " +
                        std::to_string(*earlier));
}

/// A column that no row has is one fault; one that some rows lack is a fault of each of those.
void RowScan::AddMissingColumns() {
  for (RequiredColumn& column : required_) {
    if (column.missing_count == 0) continue;
    if (!column.seen) {
      const Diagnostic& first = column.missing.front();
      AddFault(first.location.line, first.location.column,
               "no row has the column '" + column.name + "'" +
                   DidYouMean(column.name, columns_.names()) +
                   "; the columns are: " + ListNames(columns_.names()));
      continue;
    }
    faults_ += column.missing_count;
    std::move(column.missing.begin(), column.missing.end(), std::back_inserter(diagnostics_));
  }
}

void RowScan::Finish() {
  AddMissingColumns();
  if (faults_ == 0) return;
  std::stable_sort(diagnostics_.begin(), diagnostics_.end(),
                   [](const Diagnostic& a, const Diagnostic& b) {
                     return std::tie(a.location.line, a.location.column) <
                            std::tie(b.location.line, b.location.column);
                   });
  if (diagnostics_.size() > kMaxDiagnostics) diagnostics_.resize(kMaxDiagnostics);
  const int64_t more = faults_ - static_cast<int64_t>(diagnostics_.size());
  if (more > 0) {
    diagnostics_.push_back({{file_, 0, 0}, "and " + std::to_string(more) + " more faults"});
  }
  throw Error(ErrorCode::kRows, std::move(diagnostics_));
}

Row UnscannedRows::Read(int64_t index, int64_t number, std::string_view text) {
  JsonRow parsed = ParseJsonRow(text);
  if (!parsed.faults.empty()) {
    const JsonFault& fault = parsed.faults.front();
    return Failed(index, number, "bad_row",
                  "column " + std::to_string(fault.offset + 1) + ": " + fault.message);
  }
  const std::string id_fault = RowIdFault(parsed);
  if (!id_fault.empty()) return Failed(index, number, "bad_row", id_fault);
  for (const auto& [key, value] : parsed.values.items()) columns_.Add(key);
  for (const std::string& column : required_) {
    if (parsed.values.contains(column)) continue;
    return Failed(
        index, number, "bad_row",
        "the row has no column '" + column + "'; it has: " + ListNames(KeysOf(parsed.values)));
  }
  Row row = MakeRow(index, std::move(parsed.values));
  if (const auto earlier = ids_.Insert(IdSignature(row.id), number))
    return Failed(index, number, "duplicate_id",
                  "its id is already that of " + where_ + " " + std::to_string(*earlier));
  return row;
}

Row UnscannedRows::Failed(int64_t index, int64_t number, const char* code,
                          const std::string& message) const {
  const std::string place = where_ + " " + std::to_string(number);
  Row row;
  row.index = index;
  row.id = where_ + ":" + std::to_string(number);
  row.values = nlohmann::ordered_json::object();
  row.failure = Failure{"", code, place + ": " + message, false};
  return row;
}

}  // namespace halo
