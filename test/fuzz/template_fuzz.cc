// Any bytes, taken for a prompt template and a row's text (cut at 0xFF): it is refused, fails
// within its limits, or renders, and what came from the row is never template text.

#include <nlohmann/json.hpp>

#include "fuzz/property.h"
#include "model/template.h"

namespace {

using halo::PromptSpan;
using Json = nlohmann::ordered_json;

// A character that no template writes by itself.
constexpr std::string_view kMark = "\xEE\x80\x80";

std::map<std::string, Json> Values(const std::string& text) {
  const std::string marked = std::string(kMark) + text + std::string(kMark);
  const Json row = {{"prompt", marked},
                    {"number", 7},
                    {"share", 0.25},
                    {"missing", nullptr},
                    {"list", {marked, 1, true, nullptr}},
                    {"map", {{"title", marked}, {"items", {1, 2, 3}}}}};
  return {{"row", row}, {"extract", marked}};
}

// True if the template itself could write the mark: as it is, or with an escape.
bool MayWriteMark(const std::string& source) {
  return source.find(kMark) != std::string::npos || source.find('\\') != std::string::npos;
}

void Check(const halo::Template& parsed, const std::string& source,
           const std::map<std::string, Json>& values) {
  using halo::fuzz::Require;
  std::string rendered;
  for (const PromptSpan& span : parsed.Render(values)) {
    Require(span.kind == PromptSpan::Kind::kTemplate || span.kind == PromptSpan::Kind::kData,
            "a template renders to template and data spans");
    Require(span.kind == PromptSpan::Kind::kData || MayWriteMark(source) ||
                span.text.find(kMark) == std::string::npos,
            "what came from a row is never template text");
    rendered += span.text;
  }
  Require(!parsed.is_constant() || rendered == source, "a constant template renders to its source");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto [source, text] = halo::fuzz::TwoTexts(data, size);
  try {
    const halo::Template parsed = halo::Template::Parse(source, {"fuzzed.yaml", 1, 1});
    const auto values = Values(text);
    try {
      Check(parsed, source, values);
    } catch (const halo::Failure& failure) {
      halo::fuzz::Require(!failure.message.empty(), "a failure has a message");
    }
    try {
      parsed.Evaluate(values);
    } catch (const halo::Failure& failure) {
      halo::fuzz::Require(!failure.message.empty(), "a failure has a message");
    }
  } catch (const halo::Error& error) {
    halo::fuzz::RequireMeaningful(error, true);
  }
  return 0;
}
