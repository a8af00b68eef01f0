#pragma once

#include <string>
#include <string_view>

namespace halo {

/// Text as HTML and SVG show it: nothing in it is a tag, an entity or the end of an attribute.
std::string HtmlText(std::string_view text);

/// A self-contained page around `body`, which is HTML: style sheet within, nothing is fetched, no
/// script runs (its content security policy says so). Follows the reader's light or dark scheme.
std::string HtmlPage(std::string_view title, const std::string& body);

}  // namespace halo
