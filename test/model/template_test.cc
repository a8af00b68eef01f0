#include "model/template.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/random.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;
using Values = std::map<std::string, Json>;

Template Parse(const std::string& source) { return Template::Parse(source, {"f.yaml", 10, 5}); }

// Data in brackets, so that a test can read what came from where.
std::string Shown(const std::vector<PromptSpan>& spans) {
  std::string text;
  for (const PromptSpan& span : spans) {
    text += span.kind == PromptSpan::Kind::kData ? "[" + span.text + "]" : span.text;
  }
  return text;
}

std::string Render(const std::string& source, const Values& values) {
  return Shown(Parse(source).Render(values));
}

std::string FailureOf(const std::string& source, const Values& values) {
  try {
    return "rendered: " + Render(source, values);
  } catch (const Failure& failure) {
    return failure.code + ": " + failure.message;
  }
}

const Values kRow = {{"row",
                      {{"title", "A b"},
                       {"n", 3},
                       {"x", 0.1},
                       {"big", 18446744073709551615ULL},
                       {"ok", true},
                       {"nothing", nullptr},
                       {"tags", {"p", "q"}},
                       {"items", {{{"k", "v"}}}},
                       {"map", {{"a", 1}, {"b", {1, 2}}}}}},
                     {"s", "text"}};

/// What a template prints, piece by piece: text as it is, values as people see them with the names
/// that they read.
std::string PiecesOf(const std::string& source) {
  std::string all;
  for (const TemplatePiece& piece : Parse(source).Pieces()) {
    if (!piece.is_value) {
      all += "'" + piece.text + "' ";
      continue;
    }
    all += piece.shown + "(";
    for (const std::string& name : piece.names) all += name + ",";
    all += piece.is_name ? ") " : ") of '" + piece.text + "' ";
  }
  return all;
}

std::string FormOf(const std::string& source) { return Parse(source).Pieces().front().form; }

TEST(Template, PiecesAreTextAndValuesInTheirOrder) {
  EXPECT_EQ(PiecesOf("All text\n"), "'All text\n' ");
  EXPECT_EQ(PiecesOf(""), "");
  EXPECT_EQ(PiecesOf("Of {{ title }} by {{ row.author }}."),
            "'Of ' {{ title }}(title,) ' by ' {{ row.author }}(row.author,) '.' ");
  EXPECT_EQ(PiecesOf("{{ title | upper }}"), "{{ title | upper }}(title,) of '' ");
  // White space goes as it does in rendering.
  EXPECT_EQ(PiecesOf("a {{- title -}} b"), "'a' {{ title }}(title,) 'b' ");
  // From a statement on all is one value: what follows may depend on it.
  EXPECT_EQ(PiecesOf("Of {% if x %}yes {{ y }}{% endif %} end {{ z }}"),
            "'Of ' {% ... %}(x,y,z,) of 'yes  end ' ");
  EXPECT_EQ(PiecesOf("{{ row['title'] }}{{ row.get('title') }}"),
            "{{ row[\"title\"] }}(row.title,) {{ ... }}(row,) of '' ");
}

TEST(Template, ValuesOfOneFormDifferByTheirNamesOnly) {
  EXPECT_EQ(FormOf("{{ a | upper }}"), FormOf("{{b|upper}}"));
  EXPECT_NE(FormOf("{{ a | upper }}"), FormOf("{{ a | lower }}"));
  EXPECT_NE(FormOf("{{ a | upper | trim }}"), FormOf("{{ a | trim | upper }}"));
  EXPECT_NE(FormOf("{{ a | replace('x', 'y') }}"), FormOf("{{ a | replace('x', 'z') }}"));
  EXPECT_NE(FormOf("{{ a ~ a }}"), FormOf("{{ a ~ b }}"));
  EXPECT_NE(FormOf("{{ a[0] }}"), FormOf("{{ a[1] }}"));
  EXPECT_NE(FormOf("{{ a[0] }}"), FormOf("{{ a['0'] }}"));
  EXPECT_NE(FormOf("{{ a.upper() }}"), FormOf("{{ a.lower() }}"));
  EXPECT_EQ(FormOf("{% if a %}x{% endif %}"), FormOf("{% if b %}x{% endif %}"));
  EXPECT_NE(FormOf("{% if a %}x{% endif %}"), FormOf("{% if a %}y{% endif %}"));
  EXPECT_NE(FormOf("{% if a %}x{% endif %}"), FormOf("{% if not a %}x{% endif %}"));
}

TEST(Template, ValuesPrintAsDataAndCompactJson) {
  EXPECT_EQ(Render("T {{ row.title }}!", kRow), "T [A b]!");
  EXPECT_EQ(Render("{{ row['title'] }} {{ s }}", kRow), "[A b] [text]");
  EXPECT_EQ(Render("{{ row.n }} {{ row.x }} {{ row.big }}", kRow),
            "[3] [0.1] [18446744073709551615]");
  EXPECT_EQ(Render("{{ row.ok }} {{ row.nothing }}", kRow), "[true] [null]");
  EXPECT_EQ(Render("{{ row.tags }}", kRow), "[[\"p\",\"q\"]]");
  EXPECT_EQ(Render("{{ row.map }}", kRow), "[{\"a\":1,\"b\":[1,2]}]");
  EXPECT_EQ(Render("{{ row.map | tojson }}", kRow), "[{\"a\":1,\"b\":[1,2]}]");
  EXPECT_EQ(Render("{% for t in row.tags %}<{{ t }}>{% endfor %}", kRow), "<[p]><[q]>");
  EXPECT_EQ(Render("{% for k, v in row.map.items() %}{{ k }}={{ v }};{% endfor %}", kRow),
            "[a]=[1];[b]=[[1,2]];");
  EXPECT_EQ(Render("{{ row.tags[1] }}{{ row.tags | join('-') }}", kRow), "[qp]-[q]");
}

TEST(Template, ColumnsComeBeforeMethods) {
  EXPECT_EQ(Render("{{ row.items[0].k }}", kRow), "[v]");
  EXPECT_EQ(Render("{{ row.length }}", {{"row", {{"length", 7}}}}), "[7]");
  EXPECT_EQ(Render("{{ row.tags | length }}", kRow), "2");
}

TEST(Template, WhatValuesSayIsNeverRunAgain) {
  EXPECT_EQ(Render("{{ s }}", {{"s", "{{ 1 + 1 }}{% for %}"}}), "[{{ 1 + 1 }}{% for %}]");
  EXPECT_EQ(Render("{{ s | upper ~ 'x' }}{{ s | replace('a', '<b>') }}", {{"s", "a<|im_end|>"}}),
            "[A<|IM_END|>]x<b>[<|im_end|>]");
}

TEST(Template, ConstantTemplatesAreTheirSource) {
  EXPECT_TRUE(Parse("Summarize.\n").is_constant());
  EXPECT_EQ(Render("Summarize.\n", {}), "Summarize.\n");
  EXPECT_FALSE(Parse("{{ x }}").is_constant());
  EXPECT_TRUE(Parse("").Render({}).empty());
}

TEST(Template, UndefinedNamesAreFailuresThatSayWhatThereIs) {
  EXPECT_EQ(FailureOf("{{ rows.title }}", kRow),
            "undefined: f.yaml:10:8: 'rows' is undefined (did you mean 'row'?); there are: row, s");
  EXPECT_NE(FailureOf("a\n{{ row.titl }}", kRow).find("undefined: f.yaml:11:"), std::string::npos);
  EXPECT_NE(FailureOf("{{ row.titl }}", kRow).find("did you mean 'title'?"), std::string::npos);
  for (const std::string source :
       {"{% if nope %}{% endif %}", "{% for x in nope %}{% endfor %}", "{{ nope.a }}",
        "{{ nope ~ 'a' }}", "{{ nope | upper }}", "{{ nope == 1 }}", "{{ 1 in nope }}",
        "{{ row.tags[9] }}", "{{ row.nothing.a }}", "{{ -nope }}", "{{ [nope] }}", "{{ nope() }}",
        "{{ row.tags | map(attribute='z') | list }}", "{{ [] | first }}", "{{ s.nope }}"}) {
    EXPECT_EQ(FailureOf(source, kRow).substr(0, 10), "undefined:")
        << source << ": " << FailureOf(source, kRow);
  }
  EXPECT_EQ(Render("{{ nope is defined }}{{ nope | default('d') }}{{ row.nope | d('e') }}", kRow),
            "falsede");
  EXPECT_EQ(Render("{{ row.get('nope', 'f') }}", kRow), "f");
}

TEST(Template, ReadsAreKnownBeforeAnythingRuns) {
  const auto reads = [](const std::string& source) { return Parse(source).reads(); };
  using Set = std::set<std::string>;
  EXPECT_EQ(reads("{{ row.title }}{{ row['n'] }}"), (Set{"row.title", "row.n"}));
  EXPECT_EQ(reads("{{ row[key] }}{{ row.a[0].b }}"), (Set{"key", "row", "row.a"}));
  EXPECT_EQ(reads("{{ row.title.upper() }}{{ row.tags | join(sep) }}"),
            (Set{"row.title", "row.tags", "sep"}));
  EXPECT_EQ(reads("{% for t in row.tags %}{{ t.x }}{{ loop.index }}{{ t }}{% endfor %}{{ t }}"),
            (Set{"row.tags", "t"}));
  EXPECT_EQ(reads("{% set a = b.c %}{{ a.d }}"), (Set{"b.c"}));
  EXPECT_EQ(reads("{% if x is defined %}{% set y = 1 %}{% endif %}{{ y }}"), (Set{"x", "y"}));
  EXPECT_EQ(reads("{% macro m(p) %}{{ p }}{{ q }}{% endmacro %}{{ m(range(3)) }}"), (Set{"q"}));
  EXPECT_EQ(reads("just text"), Set{});
}

TEST(Template, EvaluatesToJson) {
  EXPECT_EQ(Parse("{{ row.n + 1 }}").Evaluate(kRow), Json(4));
  EXPECT_EQ(Parse("  {{ row.map }}\n").Evaluate(kRow), kRow.at("row").at("map"));
  EXPECT_EQ(Parse("{{ row.title }}").Evaluate(kRow), Json("A b"));
  EXPECT_EQ(Parse("{{ row.n > 2 and 'p' in row.tags }}").Evaluate(kRow), Json(true));
  EXPECT_EQ(Parse("{{ row.nothing }}").Evaluate(kRow), Json(nullptr));
  EXPECT_EQ(Parse("n is {{ row.n }}").Evaluate(kRow), Json("n is 3"));
  EXPECT_THROW(Parse("{{ nope }}").Evaluate(kRow), Failure);
  EXPECT_THROW(Parse("{{ row.get }}").Evaluate(kRow), Failure);
}

TEST(Template, ErrorsSayWhere) {
  const auto error = [](const std::string& source) -> std::string {
    try {
      Parse(source);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(error("ab {{ 1 + }}"), "f.yaml:10:15: in the template: Unexpected token: }}");
  EXPECT_EQ(error("one\ntwo {% if x %}"),
            "f.yaml:11:12: in the template: 'if' is never ended by 'endif'");
  EXPECT_EQ(error("{% for a in b %}{% endif %}"),
            "f.yaml:10:24: in the template: 'endif' where 'endfor' is expected");
  EXPECT_EQ(error("x {{ a ? b }}"), "f.yaml:10:12: in the template: unexpected character: ?");
  EXPECT_EQ(error("{{ a | uper }}"), "f.yaml:10:12: unknown filter 'uper' (did you mean 'upper'?)");
  EXPECT_EQ(error("{{ a is defind }}"),
            "f.yaml:10:13: unknown test 'defind' (did you mean 'defined'?)");
  EXPECT_NE(error("{% frob %}").find("f.yaml:10:"), std::string::npos);
  EXPECT_NE(error(std::string((1 << 20) + 1, 'x')).find("larger than 1 MiB"), std::string::npos);
}

TEST(Template, NestingIsBounded) {
  const auto repeat = [](const std::string& part, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += part;
    return text;
  };
  const int many = 20000;
  EXPECT_THROW(Parse("{{ " + repeat("(", many) + "1" + repeat(")", many) + " }}"), Error);
  EXPECT_THROW(Parse("{{ " + repeat("[", many) + " }}"), Error);
  EXPECT_THROW(Parse("{{ " + repeat("not ", many) + "1 }}"), Error);
  EXPECT_THROW(Parse("{{ " + repeat("- ", many) + "1 }}"), Error);
  EXPECT_THROW(Parse("{{ 1" + repeat(" ~ 1", many) + " }}"), Error);
  EXPECT_THROW(Parse("{{ a" + repeat(".a", many) + " }}"), Error);
  EXPECT_THROW(Parse("{{ a" + repeat("()", many) + " }}"), Error);
  EXPECT_THROW(Parse("{{ a" + repeat("[0]", many) + " }}"), Error);
  EXPECT_THROW(Parse("{{ a" + repeat("|upper", many) + " }}"), Error);
  EXPECT_THROW(Parse("{{ 1" + repeat(" if 1 else 1", many) + " }}"), Error);
  EXPECT_THROW(Parse("{{ 1" + repeat(" is defined", many) + " }}"), Error);
  EXPECT_THROW(Parse(repeat("{% if 1 %}", many) + repeat("{% endif %}", many)), Error);
  EXPECT_THROW(Parse("{% if 1 %}" + repeat("{% elif 1 %}", many) + "{% endif %}"), Error);
  EXPECT_NO_THROW(Parse(repeat("{% if 1 %}x{% elif 1 %}y{% endif %}", many)));
  EXPECT_NO_THROW(Parse("{{ [" + repeat("(1), ", many) + "1] }}"));
  EXPECT_EQ(Render("{{ 'a'" + repeat(" ~ 'b'", 100) + " }}", {}).size(), 101u);
}

TEST(Template, RunsAreBounded) {
  Values values = kRow;
  values["nested"] =
      Json::parse("{\"a\": " + std::string(100000, '[') + std::string(100000, ']') + "}");
  values["long"] = std::string(1000000, 'a');
  values["half"] = std::string(500000, 'a') + "b";
  for (const std::string source :
       {"{% for i in range(2000000) %}{% endfor %}",
        "{% for i in range(1000000000000) %}x{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(c) %}{% call m(1) %}{{ caller() }}{% endcall %}{% endmacro %}{{ m(1) }}",
        "{{ 'x' * 100000000 }}",
        "{% set ns = namespace(x='xxxxxxxxxxxxxxxx') %}{% for i in range(100) %}{% set ns.x = ns.x "
        "~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% "
        "endfor %}",
        "{% for i in range(20) %}{{ long }}{% endfor %}",
        "{% set a = [] %}{% set b = a.append(a) %}{{ a }}",
        "{% set n = namespace() %}{% set n.n = n %}{{ n }}",
        "{% set n = namespace() %}{% set n.n = n %}{% set m = namespace() %}{% set m.n = m %}{{ n "
        "== m }}",
        "{{ nested }}",
        "{% for i in range(100000) %}{{ half in long }}{% endfor %}",
        "{% for i in range(100000) %}{{ long == half ~ '' }}{% endfor %}",
        "{% for i in range(100) %}{{ [long, long, long] | join(long) }}{% endfor %}",
        "{{ [long] * 3 }}",
        "{{ {'a': {'b': 1}} | tojson(indent=10000000) }}",
        "{{ 9223372036854775807 + 1 }}",
        "{{ 1 / 0 }}",
        "{{ 1 % 0 }}"}) {
    const std::string failure = FailureOf(source, values);
    EXPECT_EQ(failure.substr(0, 8), "template") << source << ": " << failure.substr(0, 200);
  }
  // Deep, but made in few steps: must be taken apart without recursion.
  EXPECT_EQ(Render("{% set ns = namespace(x=[]) %}{% for i in range(80000) %}{% set ns.x = [ns.x] "
                   "%}{% endfor %}ok",
                   {}),
            "ok");
  EXPECT_EQ(Render("{% set ns = namespace(x=1) %}{% for i in range(50000) %}{% set ns.x = {'a': "
                   "ns.x} %}{% endfor %}ok",
                   {}),
            "ok");
}

TEST(Template, CirclesAreTakenApart) {
  // Leaks would show under the address sanitizer.
  EXPECT_EQ(Render("{% set a = [] %}{% set b = a.append(a) %}x", {}), "x");
  EXPECT_EQ(Render("{% set n = namespace() %}{% set n.n = n %}x", {}), "x");
  EXPECT_EQ(Render("{% set n = namespace() %}{% macro m() %}{% set n.f = caller %}{{ caller() }}{% "
                   "endmacro %}"
                   "{% call m() %}y{% endcall %}",
                   {}),
            "y");
}

// Values are made of letters that no template has. Whatever the filters do, none may come out as
// template text.
TEST(Template, NoFilterLosesTheMark) {
  const std::vector<std::string> sources = {"s",
                                            "u",
                                            "l",
                                            "l[0]",
                                            "m.k",
                                            "m",
                                            "d",
                                            "n",
                                            "l[1:]",
                                            "s[1:4]",
                                            "s[::-1]",
                                            "u[2]",
                                            "m.keys() | list",
                                            "m.values()",
                                            "m.items()",
                                            "m | dictsort"};
  const std::vector<std::string> filters = {"| upper",
                                            "| lower",
                                            "| title",
                                            "| capitalize",
                                            "| trim",
                                            "| replace('\xC3\xA9', 'T')",
                                            "| replace('T', s)",
                                            ".split('\xC3\xA9')",
                                            ".rsplit('\xC3\xA9', 1)",
                                            "| list",
                                            "| join",
                                            "| join(', ')",
                                            "| join(s)",
                                            "| first",
                                            "| last",
                                            "| sort",
                                            "| reverse",
                                            "| unique",
                                            "| string",
                                            "| tojson",
                                            "| tojson(indent=2)",
                                            "| indent",
                                            "| indent(2, true)",
                                            "~ 'T'",
                                            "+ s",
                                            "* 2",
                                            "[0]",
                                            "[-1]",
                                            "[:2]",
                                            "[::2]",
                                            "| default('T')",
                                            "| int",
                                            "| float",
                                            "| length",
                                            "| map('upper') | list",
                                            "| map(attribute='k', default='T')",
                                            "| min",
                                            "| max",
                                            "| wordcount",
                                            ".format(s)",
                                            "| safe",
                                            "| select('string')",
                                            "| selectattr('k')",
                                            ".strip('\xC3\xA9')",
                                            "| dictsort",
                                            ".get('k')",
                                            "[s]",
                                            "| abs",
                                            "| round(1)",
                                            "| batch",
                                            "| count",
                                            "| d"};
  Values values = {{"s", "éüöß éñø"}, {"u", "ÀÈ\"Ì\nÒÙ"},        {"n", 7},
                   {"d", 2.5},        {"l", {"äé", "ëï", "ÿé"}}, {"m", {{"k", "éw"}, {"öü", "å"}}}};
  RandomStream random(99);
  int rendered = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string expression = sources[random.Below(sources.size())];
    for (size_t i = 0; i < random.Below(5); ++i)
      expression = "(" + expression + ") " + filters[random.Below(filters.size())];
    static const std::vector<std::string> kWays = {
        "{{ @ }}",
        "{% set x = @ %}{{ x }}",
        "{% for x in [@, s] %}{{ x }}{% endfor %}",
        "{% for x in @ %}{{ x }}{{ loop.previtem | d }}{% endfor %}",
        "{% set x %}{{ @ }}{% endset %}{{ x }}",
        "{% macro m(x) %}{{ x }}{{ caller() }}{% endmacro %}{% call m(@) %}{{ s }}{% endcall %}",
        "{% filter upper %}{{ @ }}{% endfilter %}",
        "{{ {'T': @}.T }}",
        "{{ [@, 'T'] }}",
        "{{ '{}T'.format(@) }}",
        "{{ 'T' if not @ else @ }}",
        "{% set ns = namespace(v=@) %}{{ ns.v }}"};
    std::string source = kWays[random.Below(kWays.size())];
    for (size_t at = source.find('@'); at != std::string::npos; at = source.find('@'))
      source.replace(at, 1, expression);
    try {
      for (const PromptSpan& span : Parse(source).Render(values)) {
        if (span.kind == PromptSpan::Kind::kData) continue;
        for (const char c : span.text) ASSERT_TRUE(static_cast<unsigned char>(c) < 0x80) << source;
      }
      ++rendered;
    } catch (const Failure&) {
    } catch (const Error&) {
    }
  }
  EXPECT_GT(rendered, 5000);
}

TEST(Template, RandomSourcesDoNoHarm) {
  static const std::vector<std::string> kParts = {
      "{{",     "}}",        "{%",     "%}",    "{#",       "#}",         "-",
      " ",      "if",        "for",    "in",    "else",     "elif",       "endif",
      "endfor", "set",       "endset", "macro", "endmacro", "call",       "endcall",
      "filter", "endfilter", "x",      "row",   ".",        "[",          "]",
      "(",      ")",         ":",      ",",     "|",        "~",          "+",
      "*",      "/",         "%",      "==",    "=",        "<",          "'a'",
      "\"b\"",  "1",         "2.5",    "not",   "and",      "is",         "defined",
      "upper",  "range",     "loop",   "break", "continue", "generation", "\n",
      "text",   "{",         "}",      "\\",    "'",        "none",       "99999999999999999999"};
  RandomStream random(123);
  for (int round = 0; round < 30000; ++round) {
    std::string source = random.Below(2) == 0 ? "{{ " : "{% ";
    for (size_t i = 0; i < random.Below(14); ++i)
      source += kParts[random.Below(kParts.size())] + (random.Below(3) > 0 ? " " : "");
    source += random.Below(2) == 0 ? " }}" : " %}";
    try {
      Parse(source).Render(kRow);
    } catch (const Failure&) {
    } catch (const Error&) {
    }
  }
}

}  // namespace
}  // namespace halo
