#include "model/output_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "model/grammar_states.h"
#include "model/schema_pattern.h"

namespace halo {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

std::shared_ptr<const OutputSchema> Made(const std::string& schema) {
  std::vector<SchemaFault> faults;
  auto made = OutputSchema::OfJsonSchema(Json::parse(schema), faults);
  for (const SchemaFault& fault : faults) ADD_FAILURE() << fault.pointer << ": " << fault.message;
  return made;
}

/// Faults as "#pointer: message", one a line.
std::string FaultsOf(const Json& schema) {
  std::vector<SchemaFault> faults;
  OutputSchema::OfJsonSchema(schema, faults);
  std::string text;
  for (const SchemaFault& fault : faults) text += "#" + fault.pointer + ": " + fault.message + "\n";
  return text;
}
std::string FaultsOf(const char* schema) { return FaultsOf(Json::parse(schema)); }

bool GrammarTakes(const OutputSchema& schema, const std::string& text) {
  GrammarStates states(Grammar::Compile(schema.grammar(), "grammar"));
  const GrammarStates::StateId end = states.StepAll(states.start(), text);
  return end != GrammarStates::kRefused && states.CanEnd(end);
}

/// "" if the answer passes, else the failure's code and message.
std::string Checked(const OutputSchema& schema, const std::string& text, bool cut = false) {
  Json value;
  const auto failure = schema.Check(text, cut, value);
  return failure ? failure->code + ": " + failure->message : "";
}

/// A random text of the grammar: bytes at random, until it ends; "" if that takes too long.
std::string RandomText(const OutputSchema& schema, uint64_t seed) {
  GrammarStates states(Grammar::Compile(schema.grammar(), "grammar"));
  RandomStream random(seed);
  GrammarStates::StateId state = states.start();
  std::string text;
  constexpr size_t kLongest = 20'000;
  while (text.size() < kLongest) {
    // Signs that close come often, or lists and texts never would.
    static constexpr char kClosing[] = "\"}],0";
    std::vector<uint8_t> bytes;
    for (int byte = 0; byte < 256; ++byte) {
      if (states.Step(state, static_cast<uint8_t>(byte)) != GrammarStates::kRefused)
        bytes.push_back(static_cast<uint8_t>(byte));
    }
    if (bytes.empty() || (states.CanEnd(state) && random.Below(4) == 0)) return text;
    uint8_t byte = bytes[random.Below(bytes.size())];
    for (const char closing : kClosing) {
      const auto sign = static_cast<uint8_t>(closing);
      if (random.Below(3) == 0 && std::find(bytes.begin(), bytes.end(), sign) != bytes.end())
        byte = sign;
    }
    text += static_cast<char>(byte);
    state = states.Step(state, byte);
  }
  return "";
}

/// What the grammar lets through, the validator and the parser of JSON let through.
void ExpectDecodedTextsValidate(const std::string& schema_text) {
  const auto schema = Made(schema_text);
  ASSERT_NE(schema, nullptr) << schema_text;
  int ended = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const std::string text = RandomText(*schema, seed);
    if (text.empty()) continue;
    ++ended;
    ASSERT_EQ(Checked(*schema, text), "") << schema_text << "\n" << text;
  }
  EXPECT_GT(ended, 30) << schema_text;
}

TEST(OutputSchema, WhatIsDecodedValidates) {
  for (
      const char* schema : {
          R"({"type": "string"})",
          R"({"type": "string", "minLength": 3, "maxLength": 200})",
          R"({"type": "string", "maxLength": 0})",
          R"({"type": "string", "minLength": 7})",
          R"({"type": "number"})",
          R"({"type": "integer"})",
          R"({"type": "integer", "minimum": -12, "maximum": 345})",
          R"({"type": "integer", "exclusiveMinimum": 9.5, "maximum": 12})",
          R"({"type": "boolean"})",
          R"({"type": "number", "minimum": -3, "maximum": 3})",
          R"({"type": "number", "maximum": 250})",
          R"({"type": "null"})",
          R"({"enum": ["a", "ab", "caf\u00e9", "\"q\"", "back\\slash", 3, 1.5, null, {"k": [1, "x"]}]})",
          R"({"const": {"a": [1, 2, {"b": null}]}})",
          R"({"type": ["string", "null"], "maxLength": 4})",
          R"({"type": ["integer", "boolean"], "minimum": 3})",
          R"({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 7})",
          R"({"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 0})",
          R"({"type": "array", "minItems": 1, "items": {"type": "array", "items": {"type": "boolean"}}})",
          R"({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]})",
          R"({"type": "array", "items": [{"const": 1}, {"const": 2}]})",
          R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}, "age": {"type": "integer", "minimum": 0, "maximum": 150}}, "required": ["name", "age"]})",
          R"({"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}, "c": {"enum": [1, 2]}}})",
          R"({"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}}, "required": ["b"], "additionalProperties": false})",
          R"({"type": "object", "properties": {"and": {"type": "boolean"}, "also": {"type": "integer"}}, "required": ["and"], "additionalProperties": {"type": "integer"}})",
          R"({"type": "object", "properties": {"a-b": {"const": 1}, "a.c": {"const": 2}}, "required": ["a-b", "a.c"], "additionalProperties": true})",
          R"({"type": "object", "additionalProperties": {"type": "string", "maxLength": 2}})",
          R"({"type": "object"})",
          R"({"anyOf": [{"type": "integer"}, {"type": "object", "properties": {"x": {"type": "string"}}}]})",
          R"({"oneOf": [{"type": "integer"}, {"type": "string"}]})",
          R"({"allOf": [{"$ref": "#/$defs/color"}], "$defs": {"color": {"enum": ["red", "blue"]}}, "description": "as pydantic writes it"})",
          R"({"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}, {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}]})",
          R"({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {"value": {"type": "integer"}, "children": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/tree"}}}, "required": ["value", "children"]}}})",
          R"({"type": "object", "properties": {"first": {"type": ["array", "null"], "items": {"const": 5}, "maxItems": 2}, "second": {"$ref": "#/properties/first/items"}}, "required": ["first", "second"]})",
          R"({"type": "string", "pattern": "^[A-Z]{2}-\\d{3,5}$"})",
          R"({"type": "string", "pattern": "^.{1,6}$"})",
          R"({"type": "string", "pattern": "^[^a-z]*$"})",
          R"({"type": "string", "pattern": "^(\\w+@\\w+\\.(com|org)|\\s?)$"})",
          R"({"type": "string", "pattern": "^a|b$"})",
          R"({"type": "string", "pattern": "^\"quoted\\\\ \\\"\u00e9\u20ac[\u00e0-\u00ff]\"$"})",
          R"({"type": "string", "pattern": "^(?:a|[\\]\\-x]){2}\\/\\.\\S\\D\\W$"})",
          R"({"type": ["string", "null"], "pattern": "^[ab]{3}$"})",
          R"({"type": "string", "format": "date"})",
          R"({"type": "string", "format": "time"})",
          R"({"type": "string", "format": "date-time"})",
          R"({"type": "string", "format": "uuid"})",
      }) {
    ExpectDecodedTextsValidate(schema);
  }
  // Any JSON: nested, numbers, escapes.
  ExpectDecodedTextsValidate(R"({"type": "array", "maxItems": 3})");
}

TEST(OutputSchema, GrammarsTakeWhatTheSchemaMeans) {
  struct Case {
    const char* schema;
    std::vector<std::string> taken, refused;
  };
  const Case cases[] = {
      {R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}, "tags": {"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 1, "maxItems": 2}}, "required": ["name", "tags"]})",
       {R"({"name":"abc","tags":["x"]})", R"({"name": "", "tags": ["x", "y"]})",
        "{\"name\":\"\u20ac\u20ac\u20ac\",\"tags\":[\"y\"]}",
        R"({"name":"\n\"\u0041","tags":["y"]})"},
       {R"({"name":"abcd","tags":["x"]})", R"({"name":"a","tags":[]})",
        R"({"name":"a","tags":["x","x","x"]})", R"({"name":"a","tags":["z"]})",
        R"({"tags":["x"],"name":"a"})", R"({"name":"a"})", R"({"name":"a","tags":["x"],"b":1})"}},
      {R"({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}, "required": ["b"]})",
       {R"({"b":2})", R"({"b":2,"a":1})", R"({"b":2,"c":3})", R"({"b":2,"a":1,"c":3})"},
       {R"({"a":1})", R"({"b":3})", R"({})", R"({"b":2,"b":2})"}},
      {R"({"type": "string"})",
       {"\"\"", "\"\\ud7ff\\ue000\\u0000\"", "\"\U0001F600\""},
       {"\"", "\"\\ud800\"", "\"\\udfff\"", "\"\\x\"", "\"a\nb\"", "\"\"\"", "\"\\\""}},
      {R"({"type": "number"})",
       {"0", "-1.5", "1e9", "12.25E-3"},
       {"01", "1e999", "1.", ".5", "+1", "NaN", "1e"}},
      {R"({"type": "string", "pattern": "^[^a]\\.$"})",
       {"\"b.\"", "\"\\\".\"", "\"\\\\.\"", "\"\\n.\""},
       {"\"a.\"", "\"\".\"", "\"\\.\"", "\"bx\"", "\"\n.\""}},
      {R"({"type": "string", "pattern": "ab+c"})",
       {"\"abc\"", "\"xx \u20ac abbbc \\n\""},
       {"\"\"", "\"ac\"", "\"ab c\""}},
      {R"({"type": "number", "minimum": -2, "maximum": 10})",
       {"-2", "-2.0", "-1.999", "-0.5", "0", "9.99", "10", "10.000"},
       {"-2.1", "-3", "10.1", "11", "100", "1e1", "00", "-"}},
      {R"({"type": "number", "minimum": 0, "maximum": 1})",
       {"0", "0.25", "1", "1.0"},
       {"-0.1", "1.01", "2"}},
      {R"({"type": "number", "maximum": -5})",
       {"-5", "-5.1", "-123456", "-10"},
       {"-4.9", "5", "0"}},
      {R"({"type": "number", "minimum": 7})", {"7", "7.5", "12", "1000000"}, {"6.9", "-7", "0"}},
      {R"({"type": "string", "format": "date"})",
       {"\"2024-02-29\"", "\"2023-12-31\"", "\"1999-11-30\""},
       {"\"2023-02-29\"", "\"2023-02-30\"", "\"2023-11-31\"", "\"2023-13-01\"", "\"2023-00-10\"",
        "\"1900-02-29\""}},
      {R"({"type": "array", "prefixItems": [{"type": "boolean"}, {"type": "null"}]})",
       {"[true,null]", "[false, null]"},
       {"[true]", "[]", "[true,null,1]"}},
      {R"({"type": "object", "properties": {"and": {"const": 1}}, "required": ["and"], "additionalProperties": {"const": 0}})",
       {R"({"and":1})", R"({"and":1,"ax":0,"android":0,"b":0})"},
       {R"({"and":1,"and":0})", R"({"and":1,"x":1})", R"({"and":1,"\":0})", R"({"and":1,"an\":0})",
        R"({"and":1,"\u0061nd":0})"}},
      // Names that could be taken for names of rules.
      {R"({"type": "object", "properties": {"": {"type": "string", "maxLength": 1}, "-": {"const": 1}}, "required": ["", "-"]})",
       {R"({"":"x","-":1})"},
       {R"("x")", R"("")", R"({"":"xy","-":1})", R"({"":1,"-":1})"}},
      {R"({"type": "object", "properties": {"": {"type": "object", "properties": {"": {"type": "string"}}, "required": [""]}}, "required": [""]})",
       {R"({"":{"":""}})"},
       {R"("")", R"({"":""})", R"({"":{"":{}}})"}},
      {R"({"type": "object", "properties": {"root": {"const": 1}, "string": {"const": 2}, "char": {"type": "string"}, "space": {"type": "null"}, "ref--defs-halo0-": {"$ref": "#/$defs/halo0-"}}, "required": ["root", "string", "char", "space", "ref--defs-halo0-"], "$defs": {"halo0-": {"const": true}}})",
       {R"({"root":1,"string":2,"char":"c","space":null,"ref--defs-halo0-":true})"},
       {R"(1)", R"({"root":2,"string":2,"char":"c","space":null,"ref--defs-halo0-":true})",
        R"({"root":1,"string":2,"char":"c","space":null,"ref--defs-halo0-":1})"}},
  };
  for (const Case& each : cases) {
    const auto schema = Made(each.schema);
    ASSERT_NE(schema, nullptr);
    for (const std::string& text : each.taken) {
      EXPECT_TRUE(GrammarTakes(*schema, text)) << each.schema << "\n" << text;
      EXPECT_EQ(Checked(*schema, text), "") << each.schema;
    }
    for (const std::string& text : each.refused) {
      EXPECT_FALSE(GrammarTakes(*schema, text)) << each.schema << "\n" << text;
    }
  }
}

TEST(OutputSchema, BoundsOfIntegersAreExact) {
  const int bounds[] = {-1234, -100, -99, -11, -10, -9,  -1,  0,    1,
                        5,     9,    10,  11,  99,  100, 101, 1000, 1234};
  for (const int low : bounds) {
    for (const int high : bounds) {
      if (low > high) continue;
      for (const int kind : {0, 1, 2}) {
        Json schema = {{"type", "integer"}};
        if (kind != 1) schema["minimum"] = low;
        if (kind != 2) schema["maximum"] = high;
        std::vector<SchemaFault> faults;
        const auto made = OutputSchema::OfJsonSchema(schema, faults);
        ASSERT_NE(made, nullptr);
        GrammarStates states(Grammar::Compile(made->grammar(), "grammar"));
        for (int value = -1300; value <= 1300; ++value) {
          const bool fits = (kind == 1 || value >= low) && (kind == 2 || value <= high);
          const GrammarStates::StateId end = states.StepAll(states.start(), std::to_string(value));
          ASSERT_EQ(end != GrammarStates::kRefused && states.CanEnd(end), fits)
              << schema.dump() << " " << value;
        }
      }
    }
  }
}

TEST(OutputSchema, NothingIsDroppedSilently) {
  EXPECT_EQ(FaultsOf(R"({"type": "array", "uniqueItems": true})"),
            "#/uniqueItems: 'uniqueItems' is not supported: no grammar is made of it\n");
  EXPECT_EQ(
      FaultsOf(R"({"type": "object", "properties": {"a": {"type": "string", "maxlength": 3}}})"),
      "#/properties/a/maxlength: unknown keyword 'maxlength' (did you mean 'maxLength'?)\n");
  EXPECT_THAT(FaultsOf(R"({"type": "number", "minimum": 3.5})"),
              HasSubstr("#/minimum: expected a whole number of at most 15 digits"));
  EXPECT_THAT(FaultsOf(R"({"type": "string", "maxItems": 3})"),
              HasSubstr("#/maxItems: 'maxItems' has no effect here (type string)"));
  EXPECT_THAT(FaultsOf(R"({"minimum": 3})"),
              HasSubstr("'minimum' has no effect here: say which type it belongs to"));
  EXPECT_THAT(
      FaultsOf(R"({"$ref": "#/$defs/a", "maxLength": 2, "$defs": {"a": {"type": "string"}}})"),
      HasSubstr("#/maxLength: 'maxLength' has no effect beside $ref"));
  EXPECT_THAT(FaultsOf(R"({"anyOf": [{"type": "string"}], "maxLength": 2})"),
              HasSubstr("'maxLength' has no effect beside anyOf: put it into each of them"));
  EXPECT_THAT(FaultsOf(R"({"enum": ["a"], "maxLength": 2})"), HasSubstr("no effect beside enum"));
  EXPECT_THAT(FaultsOf(R"({"type": "string", "enum": ["a", 3]})"),
              HasSubstr("#/enum/1: this is of type integer, and type says string"));
  EXPECT_THAT(FaultsOf(R"({"type": "string", "format": "email"})"),
              HasSubstr("#/format: expected one of date"));
  EXPECT_THAT(FaultsOf(R"({"type": "string", "pattern": "a", "maxLength": 2})"),
              HasSubstr("say the length in the pattern"));
  EXPECT_THAT(FaultsOf(R"({"type": "object", "properties": {"name": {}}, "required": ["nmae"]})"),
              HasSubstr("#/required/0: 'nmae' is not in 'properties' (did you mean 'name'?)"));
  EXPECT_THAT(FaultsOf(R"({"type": "strin"})"), HasSubstr("(did you mean 'string'?)"));
  EXPECT_THAT(FaultsOf(R"({"type": "integer", "minimum": 5, "maximum": 4})"),
              HasSubstr("no integer is between the bounds"));
  EXPECT_THAT(FaultsOf(R"({"type": "integer", "minimum": 1e30})"), HasSubstr("at most 15 digits"));
  EXPECT_THAT(FaultsOf(R"({"type": "integer", "minimum": 1, "exclusiveMinimum": 3})"),
              HasSubstr("keep one"));
  EXPECT_THAT(FaultsOf(R"({"type": "string", "minLength": -1})"),
              HasSubstr("expected a whole number"));
  EXPECT_THAT(FaultsOf(R"({"type": "string", "minLength": 4, "maxLength": 3})"),
              HasSubstr("is more than"));
  EXPECT_THAT(FaultsOf(R"({"type": "object", "properties": {"*": {}}})"),
              HasSubstr("#/properties/*: a property named '*' is not supported: give it another"));
  EXPECT_THAT(FaultsOf(R"({"$ref": "other.json"})"), HasSubstr("expected a place in this schema"));
  EXPECT_THAT(FaultsOf(R"({"$ref": "#/$defs/a"})"), HasSubstr("there is no '#/$defs/a'"));
  EXPECT_THAT(FaultsOf(R"({"type": "array", "items": true})"),
              HasSubstr("#/items: expected a schema"));
  EXPECT_THAT(FaultsOf(R"({"allOf": [{"type": "string"}, {"type": "object", "properties": {}}]})"),
              HasSubstr("#/allOf/0: allOf joins objects"));
  EXPECT_THAT(FaultsOf(R"({"allOf": [{"properties": {"a": {}}}, {"properties": {"a": {}}}]})"),
              HasSubstr("in more than one part"));
  EXPECT_THAT(FaultsOf("[1]"), HasSubstr("#: expected a schema (an object), got array"));
  EXPECT_THAT(FaultsOf(R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})"),
              HasSubstr("never ends"));
  EXPECT_THAT(
      FaultsOf(
          R"({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}}})"),
      HasSubstr("never ends"));
}

TEST(OutputSchema, PatternsWithoutAGrammarSayWhy) {
  const std::pair<const char*, const char*> cases[] = {{"(?=a)", "look-around"},
                                                       {"(?<n>a)", "look-around"},
                                                       {"a\\b", "'\\b' has no grammar"},
                                                       {"(a)\\1", "'\\1' has no"},
                                                       {"(", "not closed"},
                                                       {"a)", "closes nothing"},
                                                       {"[a", "not closed"},
                                                       {"*a", "nothing before it"},
                                                       {"a{2", "no repetition"},
                                                       {"a{3,2}", "most is less"},
                                                       {"a**", "without a group"},
                                                       {"a^b", "at the ends only"},
                                                       {"[z-a]", "ends before"},
                                                       {"[]", "no character"},
                                                       {"a{5000}", "1000 repetitions"},
                                                       {"((a{900}){900}){9}", "too large"},
                                                       {"\\ud83d", "surrogate"},
                                                       {"a\\", "nothing behind"},
                                                       {"(a*){9}", "what may be empty"},
                                                       {"\\p{L}", "'\\p' has no grammar"},
                                                       {"[[:alpha:]]", "inside a class"}};
  for (const auto& [pattern, why] : cases) {
    EXPECT_THAT(FaultsOf(Json{{"type", "string"}, {"pattern", pattern}}), HasSubstr(why))
        << pattern;
  }
  EXPECT_THAT(FaultsOf(Json{{"type", "string"}, {"pattern", std::string(900, '(')}}),
              HasSubstr("50 deep"));
  EXPECT_THAT(FaultsOf(Json{{"type", "string"}, {"pattern", std::string(90'000, 'a')}}),
              HasSubstr("1000 bytes"));
}

TEST(OutputSchema, PatternsAreCheckedOnLongTextsToo) {
  const auto schema = Made(R"({"type": "string", "pattern": "^(a+)+$"})");
  EXPECT_EQ(Checked(*schema, "\"" + std::string(100'000, 'a') + "\""), "");
  EXPECT_THAT(Checked(*schema, "\"" + std::string(100'000, 'a') + "b\""),
              HasSubstr("does not match"));
  EXPECT_THAT(Checked(*schema, "\"" + std::string(9'000'000, 'a') + "\""),
              HasSubstr("too long to check"));
}

TEST(OutputSchema, ChecksKnowNothingOfGrammars) {
  const auto schema = Made(
      R"({"type": "object", "properties": {"age": {"type": "integer", "minimum": 18, "maximum": 99},
          "names": {"type": "array", "items": {"type": "string", "minLength": 2}, "maxItems": 2},
          "kind": {"enum": ["a", 1]}, "when": {"type": "string", "format": "date-time"}},
          "required": ["age"], "additionalProperties": false})");
  EXPECT_EQ(Checked(*schema, R"({"kind": 1, "age": 18})"), "");
  EXPECT_EQ(Checked(*schema, R"({"age": 20.0, "when": "2024-02-29T23:59:59.5+01:30"})"), "");
  EXPECT_EQ(
      Checked(*schema, R"({"age": 7})"),
      "invalid_output: the answer does not fit the schema: #/age: 7 is less than the minimum 18");
  EXPECT_THAT(Checked(*schema, R"({"age": 100})"),
              HasSubstr("#/age: 100 is more than the maximum"));
  EXPECT_THAT(Checked(*schema, R"({"age": 20.5})"), HasSubstr("#/age: 20.5 is not of type"));
  EXPECT_THAT(Checked(*schema, R"({})"), HasSubstr("#: the property \"age\" is missing"));
  EXPECT_THAT(Checked(*schema, R"({"age": 20, "x": 1})"), HasSubstr("#/x: the schema has no such"));
  EXPECT_THAT(Checked(*schema, R"({"age": 20, "names": ["ab", "c"]})"),
              HasSubstr("#/names/1: 1 characters are fewer than 2"));
  EXPECT_THAT(Checked(*schema, R"({"age": 20, "names": ["ab", "cd", "ef"]})"),
              HasSubstr("3 items are more"));
  EXPECT_THAT(Checked(*schema, R"({"age": 20, "kind": "b"})"),
              HasSubstr("#/kind: \"b\" is not in enum"));
  EXPECT_THAT(Checked(*schema, R"({"age": 20, "when": "2023-02-29T00:00:00Z"})"),
              HasSubstr("is no"));
  EXPECT_THAT(Checked(*schema, R"({"age": 20)"), HasSubstr("it is not JSON"));
  EXPECT_THAT(Checked(*schema, ""), HasSubstr("it is not JSON"));
  EXPECT_THAT(Checked(*schema, R"({"age": 20)", true),
              HasSubstr("output_cut: the answer was cut at max_tokens"));
  EXPECT_EQ(Checked(*schema, R"({"age": 20})", true), "");
  const SchemaValidator one(Json::parse(R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})"));
  EXPECT_THAT(one.Check(3), HasSubstr("it fits 2 schemas of oneOf"));
  EXPECT_EQ(one.Check(3.5), "");
  EXPECT_THAT(one.Check(nullptr), HasSubstr("it fits none of oneOf"));
}

TEST(OutputSchema, AlternativesOfOneOfExcludeEachOther) {
  const char* apart[] = {
      R"([{"type": "integer"}, {"type": "string"}, {"type": ["null", "boolean"]}, {"type": "array"}])",
      R"([{"const": 1}, {"const": 2}, {"enum": ["a", 3]}, {"type": "null"}])",
      R"([{"enum": ["long", "longer"]}, {"type": "string", "maxLength": 3}])",
      R"([{"type": "integer", "maximum": 4}, {"type": "number", "minimum": 5}])",
      R"([{"type": "integer", "exclusiveMaximum": 5}, {"type": "number", "minimum": 5}])",
      R"([{"type": "string", "maxLength": 4}, {"type": "string", "minLength": 5}])",
      R"([{"type": "string", "format": "date"}, {"type": "string", "format": "time"}])",
      R"([{"type": "array", "maxItems": 2}, {"type": "array", "minItems": 3}])",
      R"([{"type": "array", "minItems": 1, "items": {"type": "string"}}, {"type": "array", "items": {"type": "null"}}])",
      R"([{"type": "array", "prefixItems": [{}, {"const": 1}]}, {"type": "array", "prefixItems": [{}, {"const": 2}]}])",
      R"([{"type": "object", "properties": {"kind": {"const": "a"}, "x": {}}, "required": ["kind"]},
          {"type": "object", "properties": {"kind": {"const": "b"}, "x": {}}, "required": ["kind"]}])",
      R"([{"type": "object", "properties": {"a": {}}, "required": ["a"]},
          {"type": "object", "properties": {"b": {}}, "required": ["b"]}])",
      R"([{"$ref": "#/$defs/n"}, {"anyOf": [{"type": "string"}, {"allOf": [{"$ref": "#/$defs/o"}]}]}])",
  };
  const char* sharing[] = {
      R"([{"type": "integer"}, {"type": "number"}])",
      R"([{"type": "integer", "maximum": 5}, {"type": "number", "minimum": 5}])",
      R"([{"type": "string"}, {"enum": ["a"]}])",
      R"([{"const": 1}, {"const": 1.0}])",
      R"([{}, {"type": "null"}])",
      R"([{"type": "string", "pattern": "a"}, {"type": "string", "pattern": "b"}])",
      R"([{"type": "array", "items": {"type": "string"}}, {"type": "array", "items": {"type": "null"}}])",
      R"([{"type": "object", "properties": {"a": {}}}, {"type": "object", "properties": {"b": {}}}])",
      R"([{"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"]},
          {"type": "object", "properties": {"a": {}}, "required": ["a"]}])",
      R"([{"type": "object", "properties": {"a": {}}}, {"properties": {"b": {}}, "required": ["b"]}, {"type": "string"}])",
      R"([{"$ref": "#/$defs/n"}, {"anyOf": [{"type": "string"}, {"const": 3}]}])",
      R"([{"$ref": "#/$defs/tree"}, {"type": "array", "items": {"$ref": "#/$defs/tree"}}])",
  };
  const auto schema_of = [](const char* list) {
    return Json{{"oneOf", Json::parse(list)},
                {"$defs", Json::parse(R"({"n": {"type": "integer"}, "o": {"type": "object"},
                    "tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}})")}};
  };
  for (const char* list : apart) EXPECT_EQ(FaultsOf(schema_of(list)), "") << list;
  for (const char* list : sharing) {
    EXPECT_THAT(FaultsOf(schema_of(list)), HasSubstr("a value may fit this and number ")) << list;
  }
  EXPECT_EQ(
      FaultsOf(R"({"oneOf": [{"type": "integer"}, {"type": "number"}, {"type": "null"}]})"),
      "#/oneOf/1: a value may fit this and number 0 of oneOf, and must fit one: use anyOf, or "
      "let them differ in the type or in a required property with a 'const'\n");
  // Many alternatives, long lists: no more than a moment.
  Json many = {{"oneOf", Json::array()}};
  for (int i = 0; i < 400; ++i) {
    many["oneOf"].push_back(
        {{"type", "object"}, {"properties", {{"kind", {{"const", i}}}}}, {"required", {"kind"}}});
  }
  EXPECT_EQ(FaultsOf(many), "");
  // More than that is not looked through.
  Json values = Json::array();
  for (int i = 0; i < 40'000; ++i) values.push_back("word " + std::to_string(i));
  Json long_list = {{"oneOf", {{{"enum", values}}}}};
  for (int i = 0; i < 4000; ++i) long_list["oneOf"].push_back({{"const", i}});
  EXPECT_THAT(FaultsOf(long_list), HasSubstr("a value may fit this and number 0 of oneOf"));
}

TEST(OutputSchema, ValuesAreWhatTheJsonSays) {
  Json value;
  EXPECT_FALSE(Made(R"({"type": "object"})")->Check(R"({ "b": 1, "a": [ true ] })", false, value));
  EXPECT_EQ(value.dump(), R"({"b":1,"a":[true]})");
  const auto text = OutputSchema::OfGrammar("root ::= [0-9]+", "g");
  EXPECT_FALSE(text->is_json());
  EXPECT_FALSE(text->Check("12", false, value));
  EXPECT_EQ(value, Json("12"));
  EXPECT_EQ(Checked(*text, "12a"),
            "invalid_output: the answer does not fit the schema: it does not fit the grammar");
  EXPECT_THAT(Checked(*text, "", true), HasSubstr("output_cut"));
}

TEST(OutputSchema, HostileAnswersEndSoon) {
  const auto any = Made(R"({"type": "array"})");
  EXPECT_THAT(Checked(*any, std::string(1'000'000, '[')), HasSubstr("nested more than 500 deep"));
  // Alternatives that double at each level.
  const auto doubling = Made(
      R"({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [
          {"type": "array", "items": {"$ref": "#/$defs/a"}}, {"type": "array", "items": {"$ref": "#/$defs/a"}}]}}})");
  EXPECT_THAT(Checked(*doubling, std::string(100, '[') + std::string(100, ']')),
              HasSubstr("too much work"));
}

TEST(OutputSchema, HostileSchemasAreRefusedOrBuilt) {
  Json deep = {{"type", "string"}};
  for (int i = 0; i < 5000; ++i) deep = Json{{"type", "array"}, {"items", std::move(deep)}};
  EXPECT_THAT(FaultsOf(deep), HasSubstr("nested more than 100 deep"));
  Json large = {{"type", "object"}, {"description", std::string(1'100'000, 'x')}};
  EXPECT_THAT(FaultsOf(large), HasSubstr("more than 1 MiB"));
  Json words = {{"enum", Json::array()}};
  for (int i = 0; i < 40'000; ++i) words["enum"].push_back("word number " + std::to_string(i));
  std::vector<SchemaFault> faults;
  EXPECT_NE(OutputSchema::OfJsonSchema(words, faults), nullptr);
  Json wide = {{"type", "object"}, {"properties", Json::object()}};
  for (int i = 0; i < 900; ++i)
    wide["properties"]["\u00e9" + std::to_string(i % 10) +
                       std::string(static_cast<size_t>(i), '!').substr(0, 100) +
                       std::to_string(i)] = Json{{"type", "integer"}};
  EXPECT_THAT(FaultsOf(wide), HasSubstr("more than 100 optional"));
  Json names = Json::array();
  for (const auto& [name, property] : wide["properties"].items()) names.push_back(name);
  wide["required"] = names;
  EXPECT_EQ(FaultsOf(wide), "");
  Json parts = {{"anyOf", Json::array()}};
  for (int i = 0; i < 6000; ++i) parts["anyOf"].push_back({{"const", i}});
  EXPECT_THAT(FaultsOf(parts), HasSubstr("more than 5000 parts"));
  Json chain = {{"$ref", "#/$defs/a0"}, {"$defs", Json::object()}};
  for (int i = 0; i < 2000; ++i)
    chain["$defs"]["a" + std::to_string(i)] = {{"$ref", "#/$defs/a" + std::to_string(i + 1)}};
  chain["$defs"]["a2000"] = {{"type", "null"}};
  EXPECT_NE(FaultsOf(chain), "");
  EXPECT_NE(FaultsOf(Json{{"$ref", "#/" + std::string(100'000, '!')}}), "");
  EXPECT_EQ(FaultsOf(Json{{"type", "string"}, {"maxLength", 1'000'000}}), "");
  EXPECT_EQ(FaultsOf(Json{{"type", "array"},
                          {"maxItems", 1'000'000},
                          {"items", {{"type", "string"}, {"maxLength", 1'000'000}}}}),
            "");
}

}  // namespace
}  // namespace halo
