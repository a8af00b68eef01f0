#include "workload/mock_api.h"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <functional>
#include <future>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <unordered_map>

#include "base/error.h"
#include "workload/query_client.h"
#include "workload/tpch_reports.h"
#include "workload/wikitext.h"

namespace halo::workload {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kThreads = 128;  // a connection that is kept alive holds one
constexpr int kListenBacklog = 512;
constexpr int kConnections = 8;  // to a database
constexpr int64_t kMostRows = 100;
constexpr size_t kMostAnswersKept = 10'000;
constexpr size_t kMostPages = 40, kMostMembersShown = 10, kMostLinksShown = 25;

/// A request that cannot be answered, and how it is said.
struct Refusal {
  int status;
  std::string message;
};

/// The parameters of a request; what was read is repeated in the answer.
class Parameters {
 public:
  explicit Parameters(const httplib::Request& request) : request_(request) {}

  std::string Text(const char* name) {
    std::string value = request_.get_param_value(name);
    if (value.empty()) throw Refusal{400, fmt::format("the parameter '{}' is missing", name)};
    read_[name] = value;
    return value;
  }

  /// A whole number from `low` to `high`; `fallback` where it is not given, if there is one.
  int64_t Whole(const char* name, int64_t low, int64_t high, std::optional<int64_t> fallback) {
    if (!request_.has_param(name) && fallback) {
      read_[name] = *fallback;
      return *fallback;
    }
    const std::string text = Text(name);
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < low || value > high) {
      throw Refusal{400, fmt::format("'{}': expected a whole number from {} to {}, got '{}'", name,
                                     low, high, text)};
    }
    read_[name] = value;
    return value;
  }

  int64_t Limit(int64_t fallback) { return Whole("limit", 1, kMostRows, fallback); }
  int64_t Year() { return Whole("year", 1992, 1998, std::nullopt); }
  const Json& read() const { return read_; }

 private:
  const httplib::Request& request_;
  Json read_ = Json::object();
};

/// Answers equal questions once: while one is under way the others wait for it, and what was
/// answered is kept, up to a bound.
class SingleFlight {
 public:
  std::vector<Json> Answer(const std::string& question,
                           const std::function<std::vector<Json>()>& compute) {
    std::promise<std::vector<Json>> promise;
    std::shared_future<std::vector<Json>> answer;
    {
      const std::lock_guard lock(mutex_);
      const auto found = answers_.find(question);
      if (found != answers_.end()) {
        answer = found->second;
      } else {
        if (answers_.size() >= kMostAnswersKept) answers_.clear();
        answers_.emplace(question, promise.get_future().share());
      }
    }
    if (answer.valid()) return answer.get();
    try {
      std::vector<Json> rows = compute();
      promise.set_value(rows);
      return rows;
    } catch (...) {
      promise.set_exception(std::current_exception());
      const std::lock_guard lock(mutex_);
      answers_.erase(question);  // errors are not kept
      throw;
    }
  }

 private:
  std::mutex mutex_;
  std::unordered_map<std::string, std::shared_future<std::vector<Json>>> answers_;  // under mutex_
};

// ---- Films

constexpr const char* kTitleMatch =
    "(position(lower($1) IN lower(b.primary_title)) > 0 OR "
    "position(lower($1) IN lower(b.original_title)) > 0)";

std::string TitlesSql(int64_t limit) {
  return fmt::format(
      "SELECT b.tconst, b.primary_title, b.original_title, b.start_year, b.title_type, "
      "CAST(r.average_rating AS double precision) AS average_rating, r.num_votes "
      "FROM title_basics AS b LEFT JOIN title_ratings AS r ON r.tconst = b.tconst "
      "WHERE b.title_type IN ('movie', 'tvMovie', 'tvSeries') AND {} "
      "ORDER BY coalesce(r.num_votes, 0) DESC, b.tconst LIMIT {}",
      kTitleMatch, limit);
}

std::string RecentSql(int64_t since, int64_t limit) {
  return fmt::format(
      "SELECT b.tconst, b.primary_title, b.start_year, b.genres, "
      "CAST(r.average_rating AS double precision) AS average_rating, r.num_votes "
      "FROM title_basics AS b LEFT JOIN title_ratings AS r ON r.tconst = b.tconst "
      "WHERE b.title_type IN ('movie', 'tvMovie') AND b.start_year >= {} AND {} "
      "ORDER BY coalesce(r.num_votes, 0) DESC, b.tconst LIMIT {}",
      since, kTitleMatch, limit);
}

std::string PeopleSql(int64_t limit) {
  return fmt::format(
      "SELECT nconst, primary_name, birth_year, primary_profession, known_for_titles "
      "FROM name_basics WHERE position(lower($1) IN lower(primary_name)) > 0 "
      "ORDER BY primary_name, nconst LIMIT {}",
      limit);
}

// ---- Articles

constexpr const char* kPagesSql =
    "SELECT page_id, title, url, wikitext FROM pages "
    "WHERE in_language = 'en' AND position(lower($1) IN lower(title)) > 0 "
    "ORDER BY page_id LIMIT 40";

std::vector<Json> CategoriesOf(const std::vector<Json>& pages, int64_t limit) {
  std::map<std::string, std::vector<std::string>> members;
  for (const Json& page : pages) {
    for (const std::string& category :
         ReadWikiLinks(page["wikitext"].get<std::string>()).categories)
      members[category].push_back(page["title"]);
  }
  std::vector<const std::pair<const std::string, std::vector<std::string>>*> ranked;
  for (const auto& entry : members) ranked.push_back(&entry);
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto* a, const auto* b) {
    return a->second.size() > b->second.size();  // by name already
  });
  ranked.resize(std::min(ranked.size(), static_cast<size_t>(limit)));
  std::vector<Json> rows;
  for (const auto* entry : ranked) {
    std::string path = entry->first;
    std::replace(path.begin(), path.end(), ' ', '_');
    std::vector<std::string> shown = entry->second;
    shown.resize(std::min(shown.size(), kMostMembersShown));
    rows.push_back({{"category", entry->first},
                    {"title", "Category:" + entry->first},
                    {"url", "https://en.wiki.example/wiki/Category:" + path},
                    {"member_count", entry->second.size()},
                    {"member_pages", shown}});
  }
  return rows;
}

std::vector<Json> LinksOf(const std::vector<Json>& pages, int64_t limit) {
  std::vector<Json> rows;
  for (const Json& page : pages) {
    if (std::ssize(rows) == limit) break;
    std::vector<std::string> links = ReadWikiLinks(page["wikitext"].get<std::string>()).articles;
    const size_t count = links.size();
    links.resize(std::min(count, kMostLinksShown));
    rows.push_back({{"page_id", page["page_id"]},
                    {"title", page["title"]},
                    {"url", page["url"]},
                    {"link_count", count},
                    {"links", links}});
  }
  return rows;
}

static_assert(kMostPages == 40, "kPagesSql says it too");

// ---- Line items

std::string KnownText(Parameters& parameters, const char* name,
                      std::initializer_list<std::string_view> known) {
  std::string value = parameters.Text(name);
  if (std::find(known.begin(), known.end(), value) == known.end())
    throw Refusal{400, fmt::format("'{}': unknown value '{}'", name, value)};
  return value;
}

std::string Mode(Parameters& parameters, const char* name) {
  return KnownText(parameters, name, {"REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"});
}

void AddIfAny(std::vector<Json>& rows, Json row) {
  if (!row.is_null()) rows.push_back(std::move(row));
}

}  // namespace

struct MockApi::Impl {
  using Route = std::function<std::vector<Json>(Parameters&)>;

  explicit Impl(const MockApiOptions& given) : options(given) {
    if (!options.imdb.empty()) imdb = OpenQueryClient(options.imdb, kConnections);
    if (!options.wiki.empty()) wiki = OpenQueryClient(options.wiki, kConnections);
    if (!options.tpch.empty()) {
      const std::unique_ptr<QueryClient> data = OpenQueryClient(options.tpch, 1);
      reports = std::make_unique<TpchReports>(*data);
    }
    AddRoutes();
    Bind();
  }

  // ---- What is answered

  std::vector<Json> AskFilms(const std::string& sql, const std::string& keyword) {
    if (!imdb) throw Refusal{503, "the data set imdb is not available"};
    return flights.Answer(sql + '\n' + keyword, [&] { return imdb->Query(sql, {keyword}); });
  }

  std::vector<Json> AskArticles(const std::string& topic) {
    if (!wiki) throw Refusal{503, "the data set wiki is not available"};
    return flights.Answer("pages\n" + topic, [&] { return wiki->Query(kPagesSql, {topic}); });
  }

  const TpchReports& Reports() const {
    if (!reports) throw Refusal{503, "the data set tpch is not available"};
    return *reports;
  }

  void AddRoutes() {
    constexpr double kFilmsSeconds = 3, kReportsSeconds = 6;
    Add("/imdb/titles/search", kFilmsSeconds, "", [this](Parameters& p) {
      const std::string keyword = p.Text("keyword");
      return AskFilms(TitlesSql(p.Limit(25)), keyword);
    });
    Add("/imdb/titles/recent", kFilmsSeconds, "", [this](Parameters& p) {
      const std::string keyword = p.Text("keyword");
      const int64_t since = p.Whole("since", 1800, 2200, 2000);
      return AskFilms(RecentSql(since, p.Limit(15)), keyword);
    });
    Add("/imdb/people/search", kFilmsSeconds, "", [this](Parameters& p) {
      const std::string keyword = p.Text("keyword");
      return AskFilms(PeopleSql(p.Limit(40)), keyword);
    });
    Add("/finewiki/categories", kFilmsSeconds, "", [this](Parameters& p) {
      const std::string topic = p.Text("topic");
      const int64_t limit = p.Limit(30);
      return CategoriesOf(AskArticles(topic), limit);
    });
    Add("/finewiki/outbound-links", kFilmsSeconds, "", [this](Parameters& p) {
      const std::string topic = p.Text("topic");
      const int64_t limit = p.Limit(40);
      return LinksOf(AskArticles(topic), limit);
    });
    Add("/tpch/reports/shipmode-priority", kReportsSeconds, "shipmode-priority",
        [this](Parameters& p) {
          const std::string first = Mode(p, "shipmode"), second = Mode(p, "shipmode2");
          const int64_t year = p.Year();
          std::vector<Json> rows;
          AddIfAny(rows, Reports().ShipmodePriority(first, year));
          if (second != first) AddIfAny(rows, Reports().ShipmodePriority(second, year));
          return rows;
        });
    Add("/tpch/reports/promo-revenue", kReportsSeconds, "promo-revenue", [this](Parameters& p) {
      std::vector<Json> rows;
      AddIfAny(rows, Reports().PromoRevenue(p.Year()));
      return rows;
    });
    Add("/tpch/reports/segment-revenue", kReportsSeconds, "segment-revenue", [this](Parameters& p) {
      const std::string segment = KnownText(
          p, "segment", {"AUTOMOBILE", "BUILDING", "FURNITURE", "HOUSEHOLD", "MACHINERY"});
      std::vector<Json> rows;
      AddIfAny(rows, Reports().SegmentRevenue(segment, p.Year()));
      return rows;
    });
    server.Get("/health", [this](const httplib::Request&, httplib::Response& response) {
      const Json body = {
          {"status", "ok"},
          {"datasets",
           {{"imdb", imdb != nullptr}, {"wiki", wiki != nullptr}, {"tpch", reports != nullptr}}}};
      response.set_content(body.dump(), "application/json");
    });
    server.set_error_handler([](const httplib::Request& request, httplib::Response& response) {
      if (!response.body.empty()) return;
      const Json body = {{"error", response.status == 404 ? "unknown path " + request.path
                                                          : "the request cannot be read"}};
      response.set_content(Text(body), "application/json");
    });
  }

  /// JSON, whatever bytes a request had in it.
  static std::string Text(const Json& body) {
    return body.dump(-1, ' ', false, Json::error_handler_t::replace);
  }

  void Add(const std::string& path, double latency_s, const std::string& report, Route route) {
    server.Get(path, [this, path, latency_s, report, route = std::move(route)](
                         const httplib::Request& request, httplib::Response& response) {
      HoldBack(latency_s);
      Parameters parameters(request);
      Json body;
      try {
        const std::vector<Json> rows = route(parameters);
        body = {{"endpoint", path},
                {"params", parameters.read()},
                {"rowcount", rows.size()},
                {"rows", rows}};
        if (!report.empty()) body["report"] = report;
      } catch (const Refusal& refusal) {
        response.status = refusal.status;
        body = {{"error", refusal.message}};
      } catch (const Error& error) {
        response.status = 503;
        body = {{"error", std::string("the data set cannot be read: ") + error.what()}};
      } catch (const std::exception& error) {
        response.status = 500;
        body = {{"error", error.what()}};
      }
      response.set_content(Text(body), "application/json");
    });
  }

  void HoldBack(double mean_s) {
    if (options.latency_scale <= 0) return;
    double seconds = 0;
    {
      const std::lock_guard lock(draws_mutex);
      seconds = std::gamma_distribution<double>(mean_s / 2, 2)(draws);
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds * options.latency_scale));
  }

  // ---- Where it is listened

  void Bind() {
    server.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
    server.set_tcp_nodelay(true);
    server.set_keep_alive_max_count(std::numeric_limits<size_t>::max());
    constexpr time_t kKeepAliveSeconds = 60;
    server.set_keep_alive_timeout(kKeepAliveSeconds);
    int listening = -1;
    server.set_socket_options([&listening](int socket) {
      const int on = 1;
      setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
      listening = socket;
    });
    const std::string host = "127.0.0.1";
    bound_port = options.port;
    if (options.port == 0) bound_port = server.bind_to_any_port(host);
    const bool bound = options.port == 0 ? bound_port > 0 : server.bind_to_port(host, options.port);
    if (!bound)
      throw Error(ErrorCode::kIo, fmt::format("cannot listen on {}:{}", host, options.port));
    // The library's own backlog of 5 makes clients that come together wait a second for a retry.
    listen(listening, kListenBacklog);
  }

  MockApiOptions options;
  std::unique_ptr<QueryClient> imdb, wiki;
  std::unique_ptr<TpchReports> reports;
  SingleFlight flights;
  std::mutex draws_mutex;
  std::mt19937_64 draws{options.seed};  // under draws_mutex
  httplib::Server server;
  int bound_port = 0;
};

MockApi::MockApi(const MockApiOptions& options) : impl_(std::make_unique<Impl>(options)) {}
MockApi::~MockApi() { Stop(); }
int MockApi::port() const { return impl_->bound_port; }
void MockApi::Run() { impl_->server.listen_after_bind(); }
void MockApi::Stop() { impl_->server.stop(); }

}  // namespace halo::workload
