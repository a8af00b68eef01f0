#include "optimizer/planners/planners.h"
namespace halo {
Schedule PlanByMilp(const SchedulingProblem& p, const PlannerOptions& o) {
  return PlanByList(p, o);
}
}  // namespace halo
