#include "plan/prompt_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

namespace halo {
namespace {

using testing::ElementsAre;
using Pieces = std::vector<PromptPiece>;

PromptPiece Text(std::string text) {
  PromptPiece piece;
  piece.text = std::move(text);
  piece.is_written = true;
  return piece;
}

PromptPiece Value(const std::string& column) {
  PromptPiece piece;
  piece.is_value = true;
  piece.value = SignatureBuilder().Add(column).Finish();
  piece.columns = {column};
  piece.shown = "{{ " + column + " }}";
  return piece;
}

class PromptTreeTest : public testing::Test {
 protected:
  PromptTree::NodeIndex Put(Pieces pieces, PromptTree::NodeIndex below = 0) {
    pieces_.push_back(std::move(pieces));
    return tree_.Insert(pieces_.size() - 1, pieces_.back(), below);
  }
  /// The nearest node that two prompts have in common, as people see it.
  std::string Common(PromptTree::NodeIndex a, PromptTree::NodeIndex b) const {
    std::vector<PromptTree::NodeIndex> way;
    for (; a != PromptTree::kNoNode; a = tree_.at(a).parent) way.push_back(a);
    while (std::find(way.begin(), way.end(), b) == way.end()) b = tree_.at(b).parent;
    const PromptTree::Node& node = tree_.at(b);
    return ShownPrompt(pieces_[node.first], node.first_value, node.bytes);
  }

  std::deque<Pieces> pieces_;
  PromptTree tree_;
  PromptTree::NodeIndex root_ = tree_.AddRoot();
};

TEST_F(PromptTreeTest, TextIsSharedAsFarAsItIsEqual) {
  const auto a = Put({Text("You are a judge. Be brief.")});
  const auto b = Put({Text("You are a judge. Be long.")});
  const auto c = Put({Text("You are "), Text("a cook.")});
  EXPECT_EQ(Common(a, b), "\"You are a judge. Be\"");
  EXPECT_EQ(Common(a, c), "\"You are a\"");
  EXPECT_EQ(Common(c, b), "\"You are a\"");
  EXPECT_EQ(tree_.at(a).written, 26U);
}

TEST_F(PromptTreeTest, OnePromptMayBeTheBeginningOfAnother) {
  const auto a = Put({Text("Say."), Value("x")});
  const auto b = Put({Text("Say."), Value("x"), Text(" More.")});
  const auto c = Put({Text("Say."), Value("x")});
  EXPECT_EQ(a, c);
  EXPECT_EQ(tree_.at(b).parent, a);
  EXPECT_THAT(tree_.at(a).ends, ElementsAre(0, 2));
  EXPECT_EQ(Common(a, b), "\"Say.\" + {{ x }}");
}

TEST_F(PromptTreeTest, ValuesAreLettersOfTheirOwn) {
  const auto a = Put({Text("Of "), Value("x"), Text(" and "), Value("y"), Text(": why?")});
  const auto b = Put({Text("Of "), Value("x"), Text(" and "), Value("z"), Text(": why?")});
  const auto c = Put({Text("Of "), Value("x"), Text(" and "), Value("y"), Text(": who?")});
  EXPECT_EQ(Common(a, b), "\"Of\" + {{ x }} + \"and\"");
  EXPECT_EQ(Common(a, c), "\"Of\" + {{ x }} + \"and\" + {{ y }} + \": wh\"");
  EXPECT_EQ(tree_.at(a).open_values, 2);
  // A value is never the beginning of a text, whatever it says.
  EXPECT_EQ(Common(a, Put({Text("Of x")})), "\"Of\"");
}

TEST_F(PromptTreeTest, CharactersAreNotCutInTwo) {
  // Both second letters begin with the same byte.
  const auto a = Put({Text("p\xC3\xA9")});
  const auto b = Put({Text("p\xC3\xA8")});
  EXPECT_EQ(Common(a, b), "\"p\"");
  EXPECT_EQ(tree_.at(a).text, "\xC3\xA9");
  EXPECT_EQ(tree_.at(b).text, "\xC3\xA8");
  // Nor does text that is no UTF-8 come to a stop.
  const auto c = Put({Text("\x80\x80\x80\x80\x80\x80")});
  const auto d = Put({Text("\x80\x80\x80\x80\x80\x81")});
  EXPECT_NE(c, d);
}

TEST_F(PromptTreeTest, RootsHaveNothingInCommon) {
  const PromptTree::NodeIndex other = tree_.AddRoot();
  const auto a = Put({Text("Say.")});
  const auto b = Put({Text("Say.")}, other);
  EXPECT_NE(a, b);
  EXPECT_EQ(tree_.at(b).parent, other);
}

TEST_F(PromptTreeTest, ParentsComeBeforeTheirChildren) {
  Put({Text("abc"), Value("x")});
  Put({Text("abd")});
  Put({Text("a")});
  std::vector<bool> seen(tree_.size(), false);
  size_t count = 0;
  for (const PromptTree::NodeIndex node : tree_.TopDown()) {
    const PromptTree::NodeIndex parent = tree_.at(node).parent;
    EXPECT_TRUE(parent == PromptTree::kNoNode || seen[static_cast<size_t>(parent)]);
    seen[static_cast<size_t>(node)] = true;
    ++count;
  }
  EXPECT_EQ(count, tree_.size());
}

TEST_F(PromptTreeTest, NodesAreAtMostTwoForEachPiece) {
  // Each prompt parts from the one before a letter later; each conversation goes on from the last.
  const std::string text(300, 'x');
  size_t pieces = 0;
  PromptTree::NodeIndex end = 0;
  for (size_t i = 1; i < text.size(); ++i) {
    Put({Text(text.substr(0, i) + "y"), Value("v")});
    end = Put({Value("a"), Text("And " + std::to_string(i))}, end);
    pieces += 4;
  }
  EXPECT_LE(tree_.size(), 1 + 2 * pieces);
}

}  // namespace
}  // namespace halo
