#pragma once

#include <memory>
#include <string_view>

#include "model/output_schema.h"
#include "workflow/value_reader.h"

namespace halo {

/// Reads the key `schema` of an operator, in one of the forms
///
///     schema: {type: object, ...}       a JSON Schema, or its text in JSON
///     schema: {gbnf: "root ::= ..."}    a grammar
///     schema: answer.json               a file of either kind (.json, .gbnf) in the workflow's
///                                       folder
///
/// and compiles it. `text` is the workflow file. Faults go to the diagnostics, at their place in
/// the file that holds them; then there is nothing.
std::shared_ptr<const OutputSchema> ReadSchema(const YamlField& field, std::string_view text,
                                               DiagnosticList& diagnostics);

}  // namespace halo
