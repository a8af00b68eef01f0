#include "workload/table.h"

#include <fmt/format.h>

#include <chrono>

#include "base/check.h"

namespace halo::workload {

const char* SqlTypeName(ColumnType type) {
  switch (type) {
    case ColumnType::kInteger:
      return "INTEGER";
    case ColumnType::kBigint:
      return "BIGINT";
    case ColumnType::kMoney:
      return "DECIMAL(15,2)";
    case ColumnType::kRating:
      return "DECIMAL(3,1)";
    case ColumnType::kText:
      return "TEXT";
    case ColumnType::kDate:
      return "DATE";
    case ColumnType::kTimestamp:
      return "TIMESTAMP";
    case ColumnType::kBoolean:
      return "BOOLEAN";
  }
  return "";
}

Date MakeDate(int32_t year, int32_t month, int32_t day) {
  const std::chrono::sys_days days = std::chrono::year{year} /
                                     std::chrono::month{static_cast<unsigned>(month)} /
                                     std::chrono::day{static_cast<unsigned>(day)};
  return {static_cast<int32_t>(days.time_since_epoch().count())};
}

int32_t YearOf(Date date) {
  const std::chrono::year_month_day parts{std::chrono::sys_days{std::chrono::days{date.days}}};
  return static_cast<int32_t>(parts.year());
}

std::string DateText(Date date) {
  const std::chrono::year_month_day parts{std::chrono::sys_days{std::chrono::days{date.days}}};
  return fmt::format("{:04}-{:02}-{:02}", static_cast<int>(parts.year()),
                     static_cast<unsigned>(parts.month()), static_cast<unsigned>(parts.day()));
}

std::string TimestampText(Timestamp timestamp) {
  constexpr int64_t kDayUs = 86'400'000'000;
  const int64_t days = timestamp.us / kDayUs - (timestamp.us % kDayUs < 0 ? 1 : 0);
  const int64_t seconds = (timestamp.us - days * kDayUs) / 1'000'000;
  return fmt::format("{} {:02}:{:02}:{:02}", DateText({static_cast<int32_t>(days)}), seconds / 3600,
                     seconds / 60 % 60, seconds % 60);
}

std::string CellText(const Cell& cell, ColumnType type) {
  if (const auto* text = std::get_if<std::string>(&cell)) return *text;
  if (const auto* flag = std::get_if<bool>(&cell)) return *flag ? "true" : "false";
  if (const auto* date = std::get_if<Date>(&cell)) return DateText(*date);
  if (const auto* time = std::get_if<Timestamp>(&cell)) return TimestampText(*time);
  const auto* number = std::get_if<int64_t>(&cell);
  HALO_CHECK(number != nullptr, "the value is not NULL");
  const int64_t unit = type == ColumnType::kMoney ? 100 : type == ColumnType::kRating ? 10 : 1;
  if (unit == 1) return std::to_string(*number);
  const int64_t size = *number < 0 ? -*number : *number;
  return fmt::format("{}{}.{:0{}}", *number < 0 ? "-" : "", size / unit, size % unit,
                     unit == 100 ? 2 : 1);
}

}  // namespace halo::workload
