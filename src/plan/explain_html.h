#pragma once

#include <string>

#include "plan/physical_plan.h"

namespace halo {

/// What ExplainHtml shows below its heading, as HTML for a page of HtmlPage: figures, graph,
/// operators, groups, rules, placement.
std::string ExplainHtmlSections(const PhysicalPlan& plan);

}  // namespace halo
