#pragma once

#include <string>
#include <vector>

#include "workflow/workflow.h"

namespace halo {

/// Files that a workflow names. It may be anybody's, so it cannot make a person's run read what
/// lies elsewhere: such files lie in the workflow's folder or below (contract 6), links followed.

/// The rows that a workflow names itself. Throws Error(kUsage) if it names none, or none that may
/// be read.
std::string DatasetOf(const Workflow& workflow, const std::string& workflow_path);

/// The file of an adapter, in the workflow's folder or in that of the models ("": none). Adds to
/// `faults` and returns "" if there is none.
std::string FindAdapter(const LoraSpec& lora, const std::string& workflow_path,
                        const std::string& models_folder, std::vector<Diagnostic>& faults);

}  // namespace halo
