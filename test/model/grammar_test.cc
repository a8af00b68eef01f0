#include "model/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "base/random.h"
#include "grammar_oracle.h"
#include "model/grammar_states.h"
#include "model/token_grammar.h"

namespace halo {
namespace {

using ::testing::HasSubstr;

bool Fits(const std::string& gbnf, const std::string& text) {
  GrammarStates states(Grammar::Compile(gbnf, "grammar"));
  const GrammarStates::StateId end = states.StepAll(states.start(), text);
  return end != GrammarStates::kRefused && states.CanEnd(end);
}

std::string FaultOf(const std::string& gbnf) {
  try {
    Grammar::Compile(gbnf, "grammar");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Grammar, ReadsGbnf) {
  EXPECT_TRUE(Fits("root ::= \"yes\" | \"no\"", "no"));
  EXPECT_FALSE(Fits("root ::= \"yes\" | \"no\"", "n"));
  EXPECT_FALSE(Fits("root ::= \"yes\" | \"no\"", "nope"));
  const std::string list =
      "# words with commas\nroot ::= word (\",\" word)*  # and more\nword ::= [a-z]+ |\n  "
      "[0-9]{2,3}";
  EXPECT_TRUE(Fits(list, "ab,12,c,345"));
  EXPECT_FALSE(Fits(list, "ab,1"));
  EXPECT_FALSE(Fits(list, "ab,1234"));
  EXPECT_TRUE(Fits("root ::= \"\\x41\\u00e9\\U0001F600\\n\\\"\\\\\"", "A\u00e9\U0001F600\n\"\\"));
  EXPECT_TRUE(Fits("root ::= [^a-y\\]]?", "z"));
  EXPECT_FALSE(Fits("root ::= [^a-y\\]]?", "]"));
  EXPECT_TRUE(Fits("root ::= [a-]", "-"));
  EXPECT_TRUE(Fits("root ::= .", "\u20ac"));
  EXPECT_FALSE(Fits("root ::= .", "\xE2\x82"));
  EXPECT_TRUE(Fits("root ::= | \"x\"", ""));
  EXPECT_TRUE(Fits("root ::= (\"a\" |\n \"b\"\n) \"c\"\n\n", "bc"));
}

TEST(Grammar, BytesAreWellFormedUtf8Only) {
  const std::string any = "root ::= .{1}";
  for (uint32_t code = 0; code <= 0x10FFFF; code += code < 0x900 ? 1 : 97) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    std::string text;
    AppendUtf8(code, text);
    GrammarStates states(Grammar::Compile(any, "grammar"));
    ASSERT_TRUE(states.CanEnd(states.StepAll(states.start(), text))) << code;
  }
  for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80",
                          "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"}) {
    EXPECT_FALSE(Fits(any, bad));
  }
  EXPECT_TRUE(Fits("root ::= [\\u0080-\\U0010FFFF]", "\U0010FFFF"));
  EXPECT_FALSE(Fits("root ::= [\\u0080-\\u00ff]", "\u0100"));
  EXPECT_TRUE(Fits("root ::= [\\u00e9-\\u20ac]", "\u07ff"));
}

TEST(Grammar, CountsRepetitions) {
  const std::string bounded = "root ::= \"<\" [a-z]{3,200} \">\"";
  for (const int count : {0, 2, 3, 4, 5, 199, 200, 201}) {
    EXPECT_EQ(Fits(bounded, "<" + std::string(static_cast<size_t>(count), 'x') + ">"),
              count >= 3 && count <= 200)
        << count;
  }
  EXPECT_TRUE(Fits("root ::= \"a\"{1000,}", std::string(1500, 'a')));
  EXPECT_FALSE(Fits("root ::= \"a\"{1000,}", std::string(999, 'a')));
  EXPECT_TRUE(Fits("root ::= (\"a\" \"b\"{6}){5}", "abbbbbbabbbbbbabbbbbbabbbbbbabbbbbb"));
  EXPECT_FALSE(Fits("root ::= (\"a\" \"b\"{6}){5}", "abbbbbbabbbbbbabbbbbbabbbbbbabbbbb"));
  EXPECT_TRUE(Fits("root ::= \"a\"{0} \"b\"", "b"));
  EXPECT_TRUE(Fits("root ::= \"a\"{50000}", std::string(50000, 'a')));
}

TEST(Grammar, RefusesWhatCannotBeKeptTo) {
  EXPECT_THAT(FaultOf("word ::= \"a\""), HasSubstr("there is no rule 'root'"));
  EXPECT_THAT(FaultOf("root ::= wrod\nword ::= \"a\""),
              HasSubstr("grammar:1:10: there is no rule 'wrod' (did you mean 'word'?)"));
  EXPECT_THAT(FaultOf("root ::= \"a"), HasSubstr("1:10: the literal does not end"));
  EXPECT_THAT(FaultOf("root ::= [a"), HasSubstr("the class does not end"));
  EXPECT_THAT(FaultOf("root ::= [z-a]"), HasSubstr("ends before it begins"));
  EXPECT_THAT(FaultOf("root ::= (\"a\""), HasSubstr("expected ')', got the end"));
  EXPECT_THAT(FaultOf("root ::= \"a\" )"), HasSubstr("expected the end of the rule, got ')'"));
  EXPECT_THAT(FaultOf("root ::= *"), HasSubstr("nothing to repeat"));
  EXPECT_THAT(FaultOf("root ::= \"a\"{3,2}"), HasSubstr("most is less"));
  EXPECT_THAT(FaultOf("root ::= \"a\"{9999999}"), HasSubstr("at most 1000000"));
  EXPECT_THAT(FaultOf("root ::= \"\\q\""), HasSubstr("unknown escape"));
  EXPECT_THAT(FaultOf("root ::= <[12]>"), HasSubstr("rules over tokens"));
  EXPECT_THAT(FaultOf("root ::= \"a\"\nroot ::= \"b\""),
              HasSubstr("2:1: the rule 'root' is defined twice"));
  EXPECT_THAT(FaultOf("root ::= \"\xFF\""), HasSubstr("not UTF-8"));
  EXPECT_THAT(FaultOf("root = \"a\""), HasSubstr("expected '::='"));
}

TEST(Grammar, RefusesRulesThatBeginWithThemselvesOrNeverEnd) {
  EXPECT_THAT(FaultOf("root ::= root \"a\" | \"b\""), HasSubstr("left recursion"));
  EXPECT_THAT(FaultOf("root ::= a | \"x\"\na ::= b? c\nb ::= \"b\"\nc ::= root \"y\""),
              HasSubstr("left recursion"));
  EXPECT_THAT(FaultOf("root ::= \"a\" root"), HasSubstr("rule 'root' never ends"));
  EXPECT_THAT(FaultOf("root ::= a\na ::= \"(\" b \")\"\nb ::= a"), HasSubstr("never ends"));
  EXPECT_EQ(FaultOf("root ::= \"a\" root | \"b\""), "");
  EXPECT_THAT(FaultOf("root ::= (\"a\"?){9}"), HasSubstr("what may be empty"));
}

/// Texts that are built to break parsers end in an error or a grammar, and soon.
TEST(Grammar, HostileTextsAreRefused) {
  EXPECT_THAT(FaultOf("root ::= " + std::string(100'000, '(')), HasSubstr("nested more than 200"));
  std::string stars = "root ::= \"a\"";
  for (int i = 0; i < 100'000; ++i) stars += i % 2 == 0 ? "*" : "?";
  EXPECT_THAT(FaultOf(stars), HasSubstr("too many groups and repetitions"));
  std::string blown = "\"a\"";
  for (int i = 0; i < 60; ++i) blown = "(" + blown + "){4}";
  EXPECT_THAT(FaultOf("root ::= " + blown), HasSubstr("too large"));
  std::string blown_empty = "";
  for (int i = 0; i < 60; ++i) blown_empty = "(" + blown_empty + "){4}";
  EXPECT_THAT(FaultOf("root ::= " + blown_empty + " \"a\""), HasSubstr("too large"));
  std::string chain;  // each rule uses the next, ten thousand deep
  for (int i = 0; i < 10'000; ++i)
    chain += "r" + std::to_string(i) + " ::= \"x\" r" + std::to_string(i + 1) + "\n";
  EXPECT_EQ(FaultOf(chain + "r10000 ::= \"y\"\nroot ::= r0"), "");
  EXPECT_THAT(FaultOf(std::string(5U << 20, '#')), HasSubstr("4 MiB"));
  EXPECT_THAT(FaultOf(std::string("root ::= \"a\0\"", 13)), HasSubstr(""));
}

TEST(GrammarStates, TooManyReadingsFailTheCall) {
  // Each count of each repetition is a reading of its own.
  std::string gbnf = "root ::= a{0,2000} a{0,2000} a{0,2000}\na ::= \"x\"";
  GrammarStates states(Grammar::Compile(gbnf, "grammar"));
  states.AllowWork(1'000'000);
  EXPECT_THROW(states.StepAll(states.start(), std::string(50'000, 'x')), Failure);
  // Deep nesting too.
  GrammarStates nested(Grammar::Compile("root ::= \"[\" root \"]\" | \"x\"", "grammar"));
  try {
    nested.StepAll(nested.start(), std::string(20'000, '['));
    FAIL() << "nesting has a bound";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.code, "grammar_limit");
    EXPECT_THAT(failure.message, HasSubstr("nests deeper"));
  }
  // It is usable after that.
  nested.AllowWork(1000);
  EXPECT_TRUE(nested.CanEnd(nested.StepAll(nested.start(), "[[x]]")));
}

TEST(GrammarStates, ListsWrittenWithRecursionDoNotPileUp) {
  GrammarStates states(Grammar::Compile("root ::= item root | item\nitem ::= [a-z] \";\"", "g"));
  EXPECT_NE(states.StepAll(states.start(), "a;b;"), GrammarStates::kRefused);
  const size_t before = states.size();
  std::string text;
  for (int i = 0; i < 30'000; ++i) text += "q;";
  EXPECT_TRUE(states.CanEnd(states.StepAll(states.start(), text)));
  EXPECT_EQ(states.size(), before);
}

TEST(GrammarStates, EnumsAreOnePlaceAtATime) {
  std::string gbnf = "root ::= \"w0\"";
  for (int i = 1; i < 50'000; ++i) gbnf += " | \"w" + std::to_string(i) + "\"";
  GrammarStates states(Grammar::Compile(gbnf, "grammar"));
  states.AllowWork(1000);
  EXPECT_TRUE(states.CanEnd(states.StepAll(states.start(), "w49999")));
  EXPECT_FALSE(states.CanEnd(states.StepAll(states.start(), "w")));
  EXPECT_EQ(states.StepAll(states.start(), "w50000"), GrammarStates::kRefused);
}

// Against the oracle ----------------------------------------------------------------------------

const std::vector<std::string>& Alphabet() {
  static const std::vector<std::string> kAlphabet = {"a", "b", "c", "\u00e9", "\u20ac"};
  return kAlphabet;
}

/// Random expressions in GBNF. Rules may use those after them (no left recursion), and themselves
/// behind a character.
class RandomGrammar {
 public:
  explicit RandomGrammar(uint64_t seed) : random_(seed) {}

  std::string Text() {
    const int rules = 1 + static_cast<int>(random_.Below(4));
    std::string text;
    for (int rule = 0; rule < rules; ++rule) {
      text += (rule == 0 ? "root" : "r" + std::to_string(rule)) + " ::= " + Choice(rule, rules, 3) +
              (random_.Below(3) == 0 ? " | \"b\" " + Name(rule) + " \"c\"" : "") + "\n";
    }
    return text;
  }

 private:
  static std::string Name(int rule) { return rule == 0 ? "root" : "r" + std::to_string(rule); }

  std::string Choice(int rule, int rules, int depth) {
    std::string text = Sequence(rule, rules, depth);
    for (uint64_t i = random_.Below(3); i > 0; --i) text += " | " + Sequence(rule, rules, depth);
    return text;
  }
  std::string Sequence(int rule, int rules, int depth) {
    std::string text;
    for (uint64_t i = random_.Below(4); i > 0; --i) text += Item(rule, rules, depth) + " ";
    return text.empty() ? "\"a\"" : text;
  }
  std::string Item(int rule, int rules, int depth) {
    std::string item;
    switch (random_.Below(depth > 0 ? 5 : 3)) {
      case 0:
        item = "\"" + Alphabet()[random_.Below(5)] + (random_.Below(2) == 0 ? "a" : "") + "\"";
        break;
      case 1:
        item = random_.Below(2) == 0 ? "[a-b\\u00e9]" : "[^ac]";
        break;
      case 2:
        item = rule + 1 < rules
                   ? Name(rule + 1 +
                          static_cast<int>(random_.Below(static_cast<uint64_t>(rules - rule - 1))))
                   : "\"c\"";
        break;
      default:
        item = "(" + Choice(rule, rules, depth - 1) + ")";
    }
    static const char* kRepeats[] = {"",    "",      "",      "*",     "+",   "?",
                                     "{2}", "{1,3}", "{2,7}", "{0,6}", "{5,}"};
    return item + kRepeats[random_.Below(std::size(kRepeats))];
  }

  RandomStream random_;
};

std::vector<std::string> TextsUpTo(size_t length) {
  std::vector<std::string> texts = {""};
  size_t begin = 0;
  for (size_t i = 0; i < length; ++i) {
    const size_t end = texts.size();
    for (size_t at = begin; at < end; ++at) {
      for (const std::string& character : Alphabet()) texts.push_back(texts[at] + character);
    }
    begin = end;
  }
  return texts;
}

TEST(Grammar, AgreesWithTheOracleOnRandomGrammars) {
  const std::vector<std::string> texts = TextsUpTo(4);
  int compiled = 0;
  int accepted = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    const std::string gbnf = RandomGrammar(seed).Text();
    std::shared_ptr<const Grammar> grammar;
    try {
      grammar = Grammar::Compile(gbnf, "random");
    } catch (const Error&) {
      continue;  // bounded repetitions of what may be empty
    }
    ++compiled;
    const GrammarRules rules = ParseGrammar(gbnf, "random");
    test::GrammarOracle oracle(rules);
    GrammarStates states(grammar);
    for (const std::string& text : texts) {
      const GrammarStates::StateId end = states.StepAll(states.start(), text);
      const bool fits = end != GrammarStates::kRefused && states.CanEnd(end);
      ASSERT_EQ(fits, oracle.Accepts(text)) << gbnf << "\ntext: " << text;
      accepted += fits ? 1 : 0;
    }
  }
  EXPECT_GT(compiled, 150);
  EXPECT_GT(accepted, 1000);
}

/// Tokens that cut characters and words anywhere.
std::vector<std::string> RandomPieces(RandomStream& random, size_t count) {
  std::vector<std::string> pieces;
  for (const std::string& character : Alphabet()) {
    for (const char byte : character) pieces.emplace_back(1, byte);
  }
  while (pieces.size() < count) {
    std::string text;
    const size_t length = random.Below(12) == 0 ? 5 + random.Below(40) : 1 + random.Below(4);
    for (size_t i = 0; i < length; ++i) text += Alphabet()[random.Below(random.Below(2) + 4)];
    pieces.push_back(text.substr(random.Below(2), 1 + random.Below(text.size())));
  }
  pieces.emplace_back("");  // a control token
  return pieces;
}

/// At every state of a random answer the mask is what testing each token gives.
TEST(TokenGrammar, MasksAreThoseOfTestingEveryToken) {
  int64_t dense = 0;
  int64_t looked = 0;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    std::string gbnf = RandomGrammar(1000 + seed).Text();
    if (seed % 4 == 0)
      gbnf = "root ::= ([a-c]{2,40} \"\u00e9\"{0,9}){1,8} | \"a\" [a-c\u20ac]{30,90}";
    std::shared_ptr<const Grammar> grammar;
    try {
      grammar = Grammar::Compile(gbnf, "random");
    } catch (const Error&) {
      continue;
    }
    RandomStream random(seed);
    const std::vector<std::string> pieces = RandomPieces(random, 400);
    // Small budgets, so that states and masks are dropped on the way.
    TokenGrammar::Budget budget;
    if (seed % 3 == 0) budget = {4000, 20'000, 1'000'000};
    TokenGrammar tokens(grammar, std::make_shared<TokenTrie>(pieces), budget);
    GrammarStates plain(grammar);
    TokenGrammar::Cursor cursor;
    for (int step = 0; step < 30; ++step) {
      TokenMask mask;
      try {
        mask = tokens.Allowed(cursor);
      } catch (const Failure& failure) {
        // Some random grammars have too many readings.
        ASSERT_EQ(failure.code, "grammar_limit");
        break;
      }
      plain.AllowWork(100'000'000);
      const GrammarStates::StateId here = plain.StepAll(plain.start(), cursor.text);
      ASSERT_NE(here, GrammarStates::kRefused);
      std::vector<TokenId> allowed;
      for (TokenId token = 0; token < static_cast<TokenId>(pieces.size()); ++token) {
        const std::string& piece = pieces[static_cast<size_t>(token)];
        const bool fits = !piece.empty() && plain.StepAll(here, piece) != GrammarStates::kRefused;
        ASSERT_EQ(mask.Contains(token), fits)
            << gbnf << "\nafter '" << cursor.text << "' token '" << piece << "'";
        if (fits) allowed.push_back(token);
      }
      ASSERT_EQ(mask.count, static_cast<int32_t>(allowed.size()));
      ASSERT_EQ(tokens.CanEnd(cursor), plain.CanEnd(here));
      dense += mask.is_dense ? 1 : 0;
      ++looked;
      if (allowed.empty()) break;
      ASSERT_TRUE(tokens.Accept(cursor, allowed[random.Below(allowed.size())]));
    }
  }
  EXPECT_GT(looked, 1000);
  EXPECT_GT(dense, 50);
  EXPECT_LT(dense, looked);
}

/// The states of a bounded string differ in what long tokens may do only: short ones are walked for
/// a few of them.
TEST(TokenGrammar, CountsFarFromTheirBoundShareWalks) {
  std::vector<std::string> pieces;
  for (char c = 'a'; c <= 'z'; ++c) {
    pieces.emplace_back(1, c);
    pieces.push_back(std::string(3, c));
  }
  pieces.emplace_back(16, 'a');
  pieces.emplace_back(30, 'b');
  TokenGrammar tokens(Grammar::Compile("root ::= [a-z]{0,200}", "g"),
                      std::make_shared<TokenTrie>(pieces));
  TokenGrammar::Cursor cursor;
  for (int i = 0; i < 200; ++i) {
    EXPECT_GT(tokens.Allowed(cursor).count, 0);
    ASSERT_TRUE(tokens.Accept(cursor, 0));
  }
  EXPECT_EQ(tokens.Allowed(cursor).count, 0);
  EXPECT_TRUE(tokens.MustEnd(cursor));
  // Tiers of 3, 16 and 30 bytes: so many counts near the bound, none left, and all others as one.
  EXPECT_LE(tokens.walks(), (3 + 3) + (16 + 3) + (30 + 3));
}

TEST(TokenGrammar, RefusedTokensChangeNothing) {
  TokenGrammar tokens(Grammar::Compile("root ::= \"ab\"", "g"),
                      std::make_shared<TokenTrie>(std::vector<std::string>{"a", "b", "ab", ""}));
  TokenGrammar::Cursor cursor;
  EXPECT_FALSE(tokens.Accept(cursor, 1));
  EXPECT_FALSE(tokens.Accept(cursor, 3));
  EXPECT_EQ(cursor.text, "");
  EXPECT_TRUE(tokens.Accept(cursor, 0));
  EXPECT_TRUE(tokens.Accept(cursor, 1));
  EXPECT_TRUE(tokens.MustEnd(cursor));
}

}  // namespace
}  // namespace halo
