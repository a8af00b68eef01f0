#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "halo/session.h"
#include "plan/physical_plan.h"
#include "session/report_data.h"

namespace halo {

/// What the page is made of; all outlive the call.
struct ReportInput {
  const PhysicalPlan& plan;  ///< with actuals
  const ReportData& data;
  const nlohmann::ordered_json& summary;  ///< SummaryJson
  const std::vector<FailureGroup>& failures;
  std::string status;          ///< how the run ended, in words
  double prefill_token_s = 0;  ///< that a prompt token took where it was computed; 0: none was
};

/// `--report`: one self-contained page about a run. Everything in it that comes from workflow, rows
/// or models is shown as text.
std::string ReportPage(const ReportInput& input);

}  // namespace halo
