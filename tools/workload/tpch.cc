// TPC-H's tables (TPC Benchmark H, Standard Specification, revision 3, clause 4.2).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "base/error.h"
#include "workload/datasets.h"
#include "workload/draws.h"

namespace halo::workload {
namespace {

using Words = std::span<const std::string_view>;

struct NationRow {
  std::string_view name;
  int64_t region;
};

constexpr std::string_view kRegions[] = {"AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"};
constexpr NationRow kNations[] = {
    {"ALGERIA", 0},      {"ARGENTINA", 1}, {"BRAZIL", 1}, {"CANADA", 1},
    {"EGYPT", 4},        {"ETHIOPIA", 0},  {"FRANCE", 3}, {"GERMANY", 3},
    {"INDIA", 2},        {"INDONESIA", 2}, {"IRAN", 4},   {"IRAQ", 4},
    {"JAPAN", 2},        {"JORDAN", 4},    {"KENYA", 0},  {"MOROCCO", 0},
    {"MOZAMBIQUE", 0},   {"PERU", 1},      {"CHINA", 2},  {"ROMANIA", 3},
    {"SAUDI ARABIA", 4}, {"VIETNAM", 2},   {"RUSSIA", 3}, {"UNITED KINGDOM", 3},
    {"UNITED STATES", 1}};

constexpr std::string_view kColours[] = {
    "almond",   "antique",   "aquamarine", "azure",      "beige",     "bisque",    "black",
    "blanched", "blue",      "blush",      "brown",      "burlywood", "burnished", "chartreuse",
    "chiffon",  "chocolate", "coral",      "cornflower", "cornsilk",  "cream",     "cyan",
    "dark",     "deep",      "dim",        "dodger",     "drab",      "firebrick", "floral",
    "forest",   "frosted",   "gainsboro",  "ghost",      "goldenrod", "green",     "grey",
    "honeydew", "hot",       "indian",     "ivory",      "khaki",     "lace",      "lavender",
    "lawn",     "lemon",     "light",      "lime",       "linen",     "magenta",   "maroon",
    "medium",   "metallic",  "midnight",   "mint",       "misty",     "moccasin",  "navajo",
    "navy",     "olive",     "orange",     "orchid",     "pale",      "papaya",    "peach",
    "peru",     "pink",      "plum",       "powder",     "puff",      "purple",    "red",
    "rose",     "rosy",      "royal",      "saddle",     "salmon",    "sandy",     "seashell",
    "sienna",   "sky",       "slate",      "smoke",      "snow",      "spring",    "steel",
    "tan",      "thistle",   "tomato",     "turquoise",  "violet",    "wheat",     "white",
    "yellow"};
constexpr std::string_view kTypeSizes[] = {"STANDARD", "SMALL",   "MEDIUM",
                                           "LARGE",    "ECONOMY", "PROMO"};
constexpr std::string_view kTypeFinishes[] = {"ANODIZED", "BURNISHED", "PLATED", "POLISHED",
                                              "BRUSHED"};
constexpr std::string_view kTypeMetals[] = {"TIN", "NICKEL", "BRASS", "STEEL", "COPPER"};
constexpr std::string_view kContainerSizes[] = {"SM", "LG", "MED", "JUMBO", "WRAP"};
constexpr std::string_view kContainerForms[] = {"CASE", "BOX",  "BAG", "JAR",
                                                "PKG",  "PACK", "CAN", "DRUM"};
constexpr std::string_view kSegments[] = {"AUTOMOBILE", "BUILDING", "FURNITURE", "MACHINERY",
                                          "HOUSEHOLD"};
constexpr std::string_view kPriorities[] = {"1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED",
                                            "5-LOW"};
constexpr std::string_view kInstructions[] = {"DELIVER IN PERSON", "COLLECT COD", "NONE",
                                              "TAKE BACK RETURN"};
constexpr std::string_view kModes[] = {"REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"};

constexpr std::string_view kQualities[] = {"quick",   "quiet", "final",   "regular", "special",
                                           "patient", "bold",  "pending", "express", "careful"};
constexpr std::string_view kThings[] = {"parcels", "orders",   "crates",  "invoices", "accounts",
                                        "ledgers", "requests", "pallets", "notes",    "samples"};
constexpr std::string_view kActions[] = {"wait",  "arrive", "sleep", "travel",
                                         "stack", "move",   "rest",  "return"};
constexpr std::string_view kManners[] = {"slowly",  "quickly", "again",    "early",
                                         "quietly", "late",    "together", "carefully"};
constexpr std::string_view kPlaces[] = {"behind the dock",   "near the gate", "above the shelves",
                                        "along the harbour", "before noon",   "after the count"};

/// Cardinalities at a scale factor.
struct Counts {
  explicit Counts(double scale)
      : suppliers(Rounded(10'000 * scale)),
        parts(Rounded(200'000 * scale)),
        customers(Rounded(150'000 * scale)),
        orders(Rounded(1'500'000 * scale)),
        clerks(std::max<int64_t>(1, Rounded(1'000 * scale))) {}
  static int64_t Rounded(double count) { return std::llround(count); }

  int64_t suppliers, parts, customers, orders, clerks;
};

constexpr int64_t kSuppliersOfPart = 4;

/// The i-th of a part's suppliers (i from 0 to 3). The specification's formula spreads a part's
/// suppliers over all of them; at some fractional scale factors two of the four would be one, and
/// the step is made longer until they differ.
int64_t SupplierOf(int64_t part, int64_t i, int64_t suppliers) {
  int64_t step = suppliers / kSuppliersOfPart + (part - 1) / suppliers;
  while (step % suppliers == 0 || 2 * step % suppliers == 0 || 3 * step % suppliers == 0) ++step;
  return (part + i * step) % suppliers + 1;
}

/// In cents.
int64_t RetailPrice(int64_t part) { return 90'000 + part / 10 % 20'001 + 100 * (part % 1'000); }

std::string Joined(std::string_view a, std::string_view b) {
  return std::string(a) + " " + std::string(b);
}

/// Sentences cut to a length between the two.
std::string Comment(RandomStream& draws, int64_t shortest, int64_t longest) {
  const auto length = static_cast<size_t>(Between(draws, shortest, longest));
  std::string text;
  while (text.size() < length) {
    if (!text.empty()) text += ' ';
    text += Joined(Pick(draws, Words(kQualities)), Pick(draws, Words(kThings))) + " ";
    text += Joined(Pick(draws, Words(kActions)), Pick(draws, Words(kManners))) + " ";
    text += std::string(Pick(draws, Words(kPlaces))) + ".";
  }
  text.resize(length);
  if (text.back() == ' ') text.back() = '.';
  return text;
}

std::string Address(RandomStream& draws) {
  static constexpr std::string_view kLetters =
      "0123456789abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ,";
  std::string text(static_cast<size_t>(Between(draws, 10, 40)), ' ');
  for (char& c : text) c = kLetters[draws.Below(kLetters.size())];
  if (text.front() == ' ') text.front() = 'x';
  if (text.back() == ' ') text.back() = 'x';
  return text;
}

std::string Phone(RandomStream& draws, int64_t nation) {
  const int64_t a = Between(draws, 100, 999), b = Between(draws, 100, 999);
  return fmt::format("{}-{}-{}-{}", nation + 10, a, b, Between(draws, 1000, 9999));
}

void MakeRegions(uint64_t seed, TableSink& sink) {
  sink.Begin({"region",
              {{"r_regionkey", ColumnType::kInteger},
               {"r_name", ColumnType::kText},
               {"r_comment", ColumnType::kText}},
              {"r_regionkey"},
              {}});
  for (int64_t key = 0; key < std::ssize(kRegions); ++key) {
    RandomStream draws = DrawsOf(seed, "region", static_cast<uint64_t>(key));
    sink.Append({key, std::string(kRegions[key]), Comment(draws, 31, 115)});
  }
  sink.End();
}

void MakeNations(uint64_t seed, TableSink& sink) {
  sink.Begin({"nation",
              {{"n_nationkey", ColumnType::kInteger},
               {"n_name", ColumnType::kText},
               {"n_regionkey", ColumnType::kInteger},
               {"n_comment", ColumnType::kText}},
              {"n_nationkey"},
              {}});
  for (int64_t key = 0; key < std::ssize(kNations); ++key) {
    RandomStream draws = DrawsOf(seed, "nation", static_cast<uint64_t>(key));
    sink.Append(
        {key, std::string(kNations[key].name), kNations[key].region, Comment(draws, 31, 114)});
  }
  sink.End();
}

void MakeSuppliers(uint64_t seed, const Counts& counts, TableSink& sink) {
  sink.Begin({"supplier",
              {{"s_suppkey", ColumnType::kInteger},
               {"s_name", ColumnType::kText},
               {"s_address", ColumnType::kText},
               {"s_nationkey", ColumnType::kInteger},
               {"s_phone", ColumnType::kText},
               {"s_acctbal", ColumnType::kMoney},
               {"s_comment", ColumnType::kText}},
              {"s_suppkey"},
              {"s_nationkey"}});
  for (int64_t key = 1; key <= counts.suppliers; ++key) {
    RandomStream draws = DrawsOf(seed, "supplier", static_cast<uint64_t>(key));
    std::string address = Address(draws);
    const int64_t nation = Between(draws, 0, 24);
    std::string phone = Phone(draws, nation);
    const int64_t balance = Between(draws, -99'999, 999'999);
    std::string comment = Comment(draws, 25, 100);
    // Five in 10,000 suppliers have complaints, five are recommended.
    const int64_t place = key % 2'000;
    if (place == 7) comment.replace(0, 21, "Customer asks Complaints");
    if (place == 1'007) comment.replace(0, 21, "Customer says Recommends");
    comment.resize(std::min<size_t>(comment.size(), 101));
    sink.Append({key, fmt::format("Supplier#{:09}", key), std::move(address), nation,
                 std::move(phone), balance, std::move(comment)});
  }
  sink.End();
}

std::string PartName(RandomStream& draws) {
  std::array<size_t, 5> chosen{};
  std::string name;
  for (size_t i = 0; i < chosen.size(); ++i) {
    do {
      chosen[i] = draws.Below(std::size(kColours));
    } while (std::find(chosen.begin(), chosen.begin() + i, chosen[i]) != chosen.begin() + i);
    name += (i == 0 ? "" : " ") + std::string(kColours[chosen[i]]);
  }
  return name;
}

void MakeParts(uint64_t seed, const Counts& counts, TableSink& sink) {
  sink.Begin({"part",
              {{"p_partkey", ColumnType::kInteger},
               {"p_name", ColumnType::kText},
               {"p_mfgr", ColumnType::kText},
               {"p_brand", ColumnType::kText},
               {"p_type", ColumnType::kText},
               {"p_size", ColumnType::kInteger},
               {"p_container", ColumnType::kText},
               {"p_retailprice", ColumnType::kMoney},
               {"p_comment", ColumnType::kText}},
              {"p_partkey"},
              {"p_brand"}});
  for (int64_t key = 1; key <= counts.parts; ++key) {
    RandomStream draws = DrawsOf(seed, "part", static_cast<uint64_t>(key));
    std::string name = PartName(draws);
    const int64_t maker = Between(draws, 1, 5), brand = Between(draws, 1, 5);
    std::string type = Joined(Pick(draws, Words(kTypeSizes)), Pick(draws, Words(kTypeFinishes)));
    type = Joined(type, Pick(draws, Words(kTypeMetals)));
    const int64_t size = Between(draws, 1, 50);
    std::string container =
        Joined(Pick(draws, Words(kContainerSizes)), Pick(draws, Words(kContainerForms)));
    sink.Append({key, std::move(name), fmt::format("Manufacturer#{}", maker),
                 fmt::format("Brand#{}{}", maker, brand), std::move(type), size,
                 std::move(container), RetailPrice(key), Comment(draws, 5, 22)});
  }
  sink.End();
}

void MakePartSuppliers(uint64_t seed, const Counts& counts, TableSink& sink) {
  sink.Begin({"partsupp",
              {{"ps_partkey", ColumnType::kInteger},
               {"ps_suppkey", ColumnType::kInteger},
               {"ps_availqty", ColumnType::kInteger},
               {"ps_supplycost", ColumnType::kMoney},
               {"ps_comment", ColumnType::kText}},
              {"ps_partkey", "ps_suppkey"},
              {"ps_suppkey"}});
  for (int64_t part = 1; part <= counts.parts; ++part) {
    RandomStream draws = DrawsOf(seed, "partsupp", static_cast<uint64_t>(part));
    for (int64_t i = 0; i < kSuppliersOfPart; ++i) {
      const int64_t available = Between(draws, 1, 9'999), cost = Between(draws, 100, 100'000);
      sink.Append(
          {part, SupplierOf(part, i, counts.suppliers), available, cost, Comment(draws, 49, 198)});
    }
  }
  sink.End();
}

void MakeCustomers(uint64_t seed, const Counts& counts, TableSink& sink) {
  sink.Begin({"customer",
              {{"c_custkey", ColumnType::kInteger},
               {"c_name", ColumnType::kText},
               {"c_address", ColumnType::kText},
               {"c_nationkey", ColumnType::kInteger},
               {"c_phone", ColumnType::kText},
               {"c_acctbal", ColumnType::kMoney},
               {"c_mktsegment", ColumnType::kText},
               {"c_comment", ColumnType::kText}},
              {"c_custkey"},
              {"c_nationkey"}});
  for (int64_t key = 1; key <= counts.customers; ++key) {
    RandomStream draws = DrawsOf(seed, "customer", static_cast<uint64_t>(key));
    std::string address = Address(draws);
    const int64_t nation = Between(draws, 0, 24);
    std::string phone = Phone(draws, nation);
    const int64_t balance = Between(draws, -99'999, 999'999);
    std::string segment(Pick(draws, Words(kSegments)));
    sink.Append({key, fmt::format("Customer#{:09}", key), std::move(address), nation,
                 std::move(phone), balance, std::move(segment), Comment(draws, 29, 116)});
  }
  sink.End();
}

struct LineItem {
  int64_t part, supplier, quantity, price, discount, tax;  // money in cents, rates in hundredths
  Date shipped, committed, received;
  std::string return_flag, status, instruction, mode, comment;
};

/// An order with its lines: both tables are made from the same draws.
struct Order {
  int64_t key, customer, total;
  std::string status, priority, clerk, comment;
  Date ordered;
  std::vector<LineItem> lines;
};

LineItem MakeLine(RandomStream& draws, const Counts& counts, Date ordered) {
  const Date current = MakeDate(1995, 6, 17);
  LineItem line{};
  line.part = Between(draws, 1, counts.parts);
  line.supplier = SupplierOf(line.part, Between(draws, 0, kSuppliersOfPart - 1), counts.suppliers);
  line.quantity = Between(draws, 1, 50);
  line.price = line.quantity * RetailPrice(line.part);
  line.discount = Between(draws, 0, 10);
  line.tax = Between(draws, 0, 8);
  line.shipped = {ordered.days + static_cast<int32_t>(Between(draws, 1, 121))};
  line.committed = {ordered.days + static_cast<int32_t>(Between(draws, 30, 90))};
  line.received = {line.shipped.days + static_cast<int32_t>(Between(draws, 1, 30))};
  line.return_flag = line.received > current ? "N" : Chance(draws, 0.5) ? "R" : "A";
  line.status = line.shipped > current ? "O" : "F";
  line.instruction = Pick(draws, Words(kInstructions));
  line.mode = Pick(draws, Words(kModes));
  line.comment = Comment(draws, 10, 43);
  return line;
}

Order MakeOrder(uint64_t seed, const Counts& counts, int64_t number) {
  RandomStream draws = DrawsOf(seed, "orders", static_cast<uint64_t>(number));
  Order order{};
  // Of each 32 keys the first eight are used.
  order.key = number / 8 * 32 + number % 8 + 1;
  // A third of the customers has no orders.
  do {
    order.customer = Between(draws, 1, counts.customers);
  } while (order.customer % 3 == 0);
  const int32_t first = MakeDate(1992, 1, 1).days, last = MakeDate(1998, 12, 31).days - 151;
  order.ordered = {static_cast<int32_t>(Between(draws, first, last))};
  order.priority = Pick(draws, Words(kPriorities));
  order.clerk = fmt::format("Clerk#{:09}", Between(draws, 1, counts.clerks));
  order.comment = Comment(draws, 19, 78);
  const int64_t lines = Between(draws, 1, 7);
  int64_t open = 0, total = 0;  // total: in ten-thousandths of a cent
  for (int64_t i = 0; i < lines; ++i) {
    order.lines.push_back(MakeLine(draws, counts, order.ordered));
    const LineItem& line = order.lines.back();
    open += line.status == "O" ? 1 : 0;
    total += line.price * (100 - line.discount) * (100 + line.tax);
  }
  order.total = (total + 5'000) / 10'000;
  order.status = open == 0 ? "F" : open == lines ? "O" : "P";
  return order;
}

void MakeOrders(uint64_t seed, const Counts& counts, TableSink& sink) {
  sink.Begin({"orders",
              {{"o_orderkey", ColumnType::kBigint},
               {"o_custkey", ColumnType::kInteger},
               {"o_orderstatus", ColumnType::kText},
               {"o_totalprice", ColumnType::kMoney},
               {"o_orderdate", ColumnType::kDate},
               {"o_orderpriority", ColumnType::kText},
               {"o_clerk", ColumnType::kText},
               {"o_shippriority", ColumnType::kInteger},
               {"o_comment", ColumnType::kText}},
              {"o_orderkey"},
              {"o_custkey", "o_orderdate"}});
  for (int64_t number = 0; number < counts.orders; ++number) {
    Order order = MakeOrder(seed, counts, number);
    sink.Append({order.key, order.customer, std::move(order.status), order.total, order.ordered,
                 std::move(order.priority), std::move(order.clerk), int64_t{0},
                 std::move(order.comment)});
  }
  sink.End();
}

void MakeLineItems(uint64_t seed, const Counts& counts, TableSink& sink) {
  sink.Begin({"lineitem",
              {{"l_orderkey", ColumnType::kBigint},
               {"l_partkey", ColumnType::kInteger},
               {"l_suppkey", ColumnType::kInteger},
               {"l_linenumber", ColumnType::kInteger},
               {"l_quantity", ColumnType::kMoney},
               {"l_extendedprice", ColumnType::kMoney},
               {"l_discount", ColumnType::kMoney},
               {"l_tax", ColumnType::kMoney},
               {"l_returnflag", ColumnType::kText},
               {"l_linestatus", ColumnType::kText},
               {"l_shipdate", ColumnType::kDate},
               {"l_commitdate", ColumnType::kDate},
               {"l_receiptdate", ColumnType::kDate},
               {"l_shipinstruct", ColumnType::kText},
               {"l_shipmode", ColumnType::kText},
               {"l_comment", ColumnType::kText}},
              {"l_orderkey", "l_linenumber"},
              {"l_partkey", "l_shipdate"}});
  for (int64_t number = 0; number < counts.orders; ++number) {
    Order order = MakeOrder(seed, counts, number);
    int64_t line_number = 0;
    for (LineItem& line : order.lines) {
      sink.Append({order.key, line.part, line.supplier, ++line_number, 100 * line.quantity,
                   line.price, line.discount, line.tax, std::move(line.return_flag),
                   std::move(line.status), line.shipped, line.committed, line.received,
                   std::move(line.instruction), std::move(line.mode), std::move(line.comment)});
    }
  }
  sink.End();
}

}  // namespace

void CheckScale(const DataOptions& options) {
  constexpr double kSmallest = 0.001, kLargest = 100;
  if (options.scale >= kSmallest && options.scale <= kLargest) return;
  throw Error(ErrorCode::kUsage, fmt::format("--scale: expected a number from {} to {}, got {}",
                                             kSmallest, kLargest, options.scale));
}

void GenerateTpch(const DataOptions& options, TableSink& sink) {
  CheckScale(options);
  const Counts counts(options.scale);
  MakeRegions(options.seed, sink);
  MakeNations(options.seed, sink);
  MakeSuppliers(options.seed, counts, sink);
  MakeParts(options.seed, counts, sink);
  MakePartSuppliers(options.seed, counts, sink);
  MakeCustomers(options.seed, counts, sink);
  MakeOrders(options.seed, counts, sink);
  MakeLineItems(options.seed, counts, sink);
}

}  // namespace halo::workload
