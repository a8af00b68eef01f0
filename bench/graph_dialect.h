#pragma once

#include <yaml-cpp/yaml.h>

#include <set>
#include <string>

#include "bench/workflow_graph.h"

namespace halo::bench {

/// Which operators of a graph (the value of the key `graph`) wait for which. Queries and tool calls
/// that are embedded in a node are operators of their own, NODE__pre__NAME and NODE__post__NAME,
/// and wait only for what their own templates and inputs read. Writes, which keep an order, are
/// taken for reads: the chain may come out shorter than it is, never longer. Throws
/// std::runtime_error, also for loops.
WorkflowGraph ReadGraphDialect(const YAML::Node& graph);

/// Words of a Jinja template that may be names of values: not behind a dot, not in quotes.
/// `is_expression`: the text is an expression, without {{ and }}.
std::set<std::string> WordsOf(const std::string& text, bool is_expression);

}  // namespace halo::bench
