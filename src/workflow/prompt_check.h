#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "workflow/operator_keys.h"

namespace halo {

/// Parses the template in a scalar. A fault goes to the diagnostics at its place in the file, as
/// nearly as the scalar's style lets it be known, and gives nullptr.
std::shared_ptr<const Template> ParseTemplateScalar(const YamlNode& scalar, std::string_view text,
                                                    const std::string& key,
                                                    DiagnosticList& diagnostics);

/// The same for a condition: an expression, with or without the braces around it.
std::shared_ptr<const Template> ParseConditionScalar(const YamlNode& scalar, std::string_view text,
                                                     const std::string& key,
                                                     DiagnosticList& diagnostics);

/// Where `word` stands in the expressions and statements of a scalar; its beginning if it cannot be
/// found.
SourceLocation LocationOfWord(const YamlNode& scalar, std::string_view text, std::string_view word,
                              const std::string& file);

/// Checks that every name that a template reads is `row`, a column of it, or the id of an ancestor.
/// `inputs[i]` holds the producers of operator i.
void CheckTemplateReads(const std::vector<OperatorDraft>& operators,
                        const std::vector<std::vector<size_t>>& inputs, std::string_view text,
                        DiagnosticList& diagnostics);

/// Where line and column `place` (from 1) of a scalar's value stand in the file, as nearly as the
/// scalar's style lets it be known.
SourceLocation LocationInScalar(const YamlNode& scalar, std::string_view text,
                                const SourceLocation& place);

}  // namespace halo
