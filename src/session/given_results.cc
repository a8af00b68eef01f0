#include "session/given_results.h"

#include <utility>

#include "base/error.h"
#include "tool/function/local_function.h"

namespace halo {
namespace {

class GivenResults final : public ResultSink {
 public:
  GivenResults(size_t input, std::function<void(FinishedRow)> take)
      : input_(input), take_(std::move(take)) {}
  void Write(const RowResult& row) override {
    constexpr double kSecondsPerUs = 1e-6;
    take_({input_, row.index, !row.failure,
           row.ToJson().dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace),
           static_cast<double>(row.opened_us) * kSecondsPerUs,
           static_cast<double>(row.ended_us) * kSecondsPerUs});
  }
  void Finish() override {}
  void Flush() override {}

 private:
  const size_t input_;
  const std::function<void(FinishedRow)> take_;
};

}  // namespace

std::unique_ptr<ResultSink> GiveResults(size_t input, std::function<void(FinishedRow)> take) {
  return std::make_unique<GivenResults>(input, std::move(take));
}

std::set<std::string> NamesOfFunctions(const RunOptions& options) {
  std::set<std::string> names;
  for (const auto& [name, function] : options.functions) {
    if (FindLocalFunction(name) != nullptr)
      throw Error(ErrorCode::kUsage,
                  "the function '" + name + "' has the name of one that comes with Halo");
    names.insert(name);
  }
  return names;
}

}  // namespace halo
