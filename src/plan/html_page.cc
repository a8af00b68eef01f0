#include "plan/html_page.h"

namespace halo {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5c6675; --line: #d5dae2; --paper: #ffffff;
  --card: #f5f7fa; --llm: #2f6fdb; --tool: #c77700; --gone: #9aa3af; --bar: #2f6fdb55; --late: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #a2acba; --line: #39424f;
  --paper: #14181e; --card: #1c222b; --llm: #7fb0ff; --tool: #f0b354; --gone: #6a7482; --bar: #7fb0ff44;
  --late: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2.25rem 0 .75rem; }
p.lead, .soft { color: var(--soft); } p.lead { margin: 0 0 1.25rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .7rem 1rem; min-width: 11rem; }
.tile b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.tile.bad b { color: var(--late); } nav { margin: .5rem 0 1rem; } nav a { margin-right: 1rem; }
a { color: var(--llm); } :focus-visible { outline: 3px solid var(--llm); outline-offset: 2px; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; vertical-align: top; }
th { font-weight: 600; color: var(--soft); background: var(--card); }
tr:last-child td { border-bottom: 0; } td.name, th.name { text-align: left; white-space: normal; min-width: 8rem; }
td.bar { background: linear-gradient(to right, var(--bar) var(--share), transparent var(--share)); }
td small, li small { display: block; color: var(--soft); }
.gone { color: var(--gone); } ul { margin: .3rem 0 .8rem; padding-left: 1.3rem; }
svg { display: block; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .soft { fill: var(--soft); } svg .box { fill: var(--card); stroke: var(--line); }
svg .llm { stroke: var(--llm); } svg .tool { stroke: var(--tool); stroke-dasharray: 4 3; }
svg .edge { fill: none; stroke: var(--soft); stroke-width: 1; }
svg .work { fill: var(--bar); stroke: var(--llm); } svg .load { fill: var(--line); }
svg .many { fill: var(--llm); } svg .axis { stroke: var(--line); }
.charts { display: flex; flex-wrap: wrap; gap: 1.25rem; } .chart { flex: 1 1 18rem; max-width: 28rem; min-width: 0; }
.chart svg { width: 100%; height: auto; } svg.wide { width: 100%; height: 44px; }
h3 { font-size: 1rem; margin: 1rem 0 .2rem; } h3 + p.soft { margin: 0 0 .4rem; } li { overflow-wrap: anywhere; }
details { border: 1px solid var(--line); border-radius: 8px; margin: .5rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; overflow-wrap: anywhere; }
pre { background: var(--card); border-radius: 6px; padding: .6rem .8rem; margin: .3rem 0 .8rem;
  white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.45 ui-monospace, monospace; }
@media (max-width: 40rem) { body { padding: 1rem .75rem 3rem; } .tile { flex: 1 1 8rem; min-width: 0; } }
.note { border-left: 3px solid var(--tool); padding: .1rem .8rem; margin: .5rem 0; }
)";

}  // namespace

std::string HtmlText(std::string_view text) {
  std::string escaped;
  escaped.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string HtmlPage(std::string_view title, const std::string& body) {
  return "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
         "'unsafe-inline'\">\n<meta name=\"viewport\" content=\"width=device-width, "
         "initial-scale=1\">\n<title>" +
         HtmlText(title) + "</title>\n<style>" + kStyle + "</style>\n</head>\n<body>\n" + body +
         "</body>\n</html>\n";
}

}  // namespace halo
