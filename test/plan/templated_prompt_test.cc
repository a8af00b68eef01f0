#include "plan/templated_prompt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace halo {
namespace {

/// The prompts of a workflow.
class Prompts {
 public:
  explicit Prompts(const std::string& yaml, PromptSetting setting = {})
      : workflow_(ParseWorkflow(yaml, "f.yaml")), plan_(MakeLogicalPlan(workflow_)) {
    if (setting.prompt_column.empty()) setting.prompt_column = "prompt";
    prompts_ = TemplatePrompts(plan_, IdentifyOperators(plan_, setting.prompt_column), setting);
  }

  const TemplatedPrompt& of(const std::string& id) const {
    return *prompts_[static_cast<size_t>(*workflow_.Find(id))];
  }
  /// The `which`-th value of an operator's prompt.
  Signature value(const std::string& id, size_t which = 0) const {
    for (const PromptPiece& piece : of(id).pieces) {
      if (piece.is_value && which-- == 0) return piece.value;
    }
    throw std::runtime_error(id + " has fewer values");
  }
  std::string shown(const std::string& id) const {
    return ShownPrompt(of(id).pieces, of(id).pieces.size(), 0);
  }

 private:
  Workflow workflow_;
  LogicalPlan plan_;
  std::vector<std::optional<TemplatedPrompt>> prompts_;
};

std::string Graph(const std::string& nodes) {
  return "graph:\n  defaults: {model: m, temperature: 0}\n  nodes:\n"
         "    - {id: in, type: input, outputs: [text, note]}\n" +
         nodes;
}

TEST(TemplatedPromptTest, PartsStandInTheOrderOfTheLayout) {
  const Prompts prompts(R"(start_ops: [a, b]
end_ops: [c]
ops:
  a: {model: m, prompt: "Judge {{ row.title }} well."}
  b: {model: m, prompt: "Judge {{ row.title }} well.", prompt_layout: context_first}
  c: {model: m, prompt: "Decide.", input_ops: [a, b]}
)");
  EXPECT_EQ(prompts.shown("a"), "\"Judge\" + {{ row.title }} + \"well.\" + {{ prompt }}");
  EXPECT_EQ(prompts.shown("b"), "{{ prompt }} + \"Judge\" + {{ row.title }} + \"well.\"");
  EXPECT_EQ(prompts.shown("c"), "\"Decide.\" + {{ prompt }} + {{ a }} + {{ b }}");
  EXPECT_EQ(prompts.value("a", 1), prompts.value("b", 0));
  EXPECT_EQ(prompts.value("a", 0), prompts.value("b", 1));
}

TEST(TemplatedPromptTest, AValueIsWhatItIsWhateverItIsCalled) {
  const Prompts prompts(Graph(R"(    - {id: a, prompt: "{{ text }}", outputs: [x]}
    - {id: b, prompt: "{{ row.text }}", outputs: [y]}
    - {id: c, prompt: "{{ note }}", outputs: [z]}
    - {id: d, prompt: "{{ text | upper }}", outputs: [u]}
    - {id: e, prompt: "{{row.text|upper}}", outputs: [v]}
    - {id: f, prompt: "{{ text | lower }}", outputs: [w]}
    - {id: g, inputs: [text], outputs: [t]}
)"));
  EXPECT_EQ(prompts.value("a"), prompts.value("b"));
  EXPECT_EQ(prompts.value("a"), prompts.value("g"));
  EXPECT_NE(prompts.value("a"), prompts.value("c"));
  EXPECT_NE(prompts.value("a"), prompts.value("d"));
  EXPECT_EQ(prompts.value("d"), prompts.value("e"));
  EXPECT_NE(prompts.value("d"), prompts.value("f"));
  // In the ops dialect a template may read the row's prompt, too.
  const Prompts ops(
      "start_ops: [a, b]\nend_ops: [a, b]\nops:\n  a: {model: m}\n  b: {model: m, prompt: \"{{ "
      "row.prompt }}\"}\n");
  EXPECT_EQ(ops.value("a"), ops.value("b"));
}

TEST(TemplatedPromptTest, RowsOfTwoSourcesAreNeverTheSame) {
  const std::string yaml = Graph("    - {id: a, prompt: \"{{ text }}\", outputs: [x]}\n");
  PromptSetting other;
  other.source = 1;
  EXPECT_NE(Prompts(yaml).value("a"), Prompts(yaml, other).value("a"));
  EXPECT_EQ(Prompts(yaml).value("a"), Prompts(yaml).value("a"));
}

TEST(TemplatedPromptTest, AnswersAreEqualWhereOperatorsAskTheSame) {
  const Prompts prompts(Graph(R"(    - {id: a1, prompt: "A {{ text }}", outputs: [one]}
    - {id: a2, prompt: "A {{ text }}", outputs: [two]}
    - {id: n, prompt: "A {{ note }}", outputs: [three]}
    - {id: s1, prompt: "A {{ text }}", temperature: 1, outputs: [drawn]}
    - {id: s2, prompt: "A {{ text }}", temperature: 1, outputs: [again]}
    - {id: r1, inputs: [one], prompt: "{{ one }}", outputs: [o1]}
    - {id: r2, inputs: [two], prompt: "{{ two }}", outputs: [o2]}
    - {id: r3, inputs: [three], prompt: "{{ three }}", outputs: [o3]}
    - {id: r4, inputs: [drawn], prompt: "{{ drawn }}", outputs: [o4]}
    - {id: r5, inputs: [again], prompt: "{{ again }}", outputs: [o5]}
    - {id: r6, inputs: [drawn], prompt: "{{ drawn }}", outputs: [o6]}
)"));
  EXPECT_EQ(prompts.value("r1"), prompts.value("r2"));
  EXPECT_NE(prompts.value("r1"), prompts.value("r3"));
  // Two draws differ; who reads the same one reads the same.
  EXPECT_NE(prompts.value("r4"), prompts.value("r5"));
  EXPECT_EQ(prompts.value("r4"), prompts.value("r6"));
}

TEST(TemplatedPromptTest, OfListsEachDepthHasAnElementOfItsOwn) {
  const std::string yaml = R"(start_ops: [a, b]
end_ops: [c]
ops:
  a: {model: m}
  b: {model: m}
  c: {model: m, input_ops: [a, b]}
)";
  PromptSetting lists;
  lists.list_prompts = true;
  EXPECT_EQ(Prompts(yaml).value("a"), Prompts(yaml).value("c"));
  EXPECT_EQ(Prompts(yaml, lists).value("a"), Prompts(yaml, lists).value("b"));
  EXPECT_NE(Prompts(yaml, lists).value("a"), Prompts(yaml, lists).value("c"));
}

TEST(TemplatedPromptTest, ConversationsGoOnWithinOneModel) {
  const Prompts prompts(R"(start_ops: [a]
end_ops: [b, c]
ops:
  a: {model: m, prompt: "Say."}
  b: {model: m, input_ops: [a], prompt: "More."}
  c: {model: other, input_ops: [a], prompt: "More."}
)");
  EXPECT_EQ(prompts.of("b").continues, 0);
  EXPECT_EQ(prompts.shown("b"), "{{ a }} + \"More.\"");
  EXPECT_EQ(prompts.of("c").continues, -1);
  EXPECT_NE(prompts.value("b"), prompts.value("c"));
}

TEST(TemplatedPromptTest, TheChatTemplatesTextStandsBetweenMessages) {
  PromptSetting setting;
  setting.frame = [](ModelIndex, const std::vector<std::string>& roles) {
    EXPECT_EQ(roles, (std::vector<std::string>{"system", "user"}));
    return ChatFrame{{"<s>", "</s><u>", "</u><a>"}, {true, true}, {true, true}};
  };
  const Prompts prompts("start_ops: [a]\nend_ops: [a]\nops:\n  a: {model: m, prompt: \" Say. \"}\n",
                        setting);
  std::string text;
  for (const PromptPiece& piece : prompts.of("a").pieces)
    text += piece.is_value ? piece.shown : piece.text;
  EXPECT_EQ(text, "<s>Say.</s><u>{{ prompt }}</u><a>");
  // People see what the author wrote.
  EXPECT_EQ(prompts.shown("a"), "\"Say.\" + {{ prompt }}");
}

TEST(TemplatedPromptTest, LongPromptsAreShownShort) {
  std::vector<PromptPiece> pieces;
  for (int i = 0; i < 20; ++i) {
    PromptPiece piece;
    piece.text = std::string(50, static_cast<char>('a' + i)) + "\n";
    piece.is_written = true;
    pieces.push_back(piece);
    piece = {};
    piece.is_value = true;
    piece.shown = "{{ v }}";
    pieces.push_back(piece);
  }
  EXPECT_EQ(ShownPrompt(pieces, 1, 0), "\"" + std::string(37, 'a') + "...\" + {{ v }}");
  EXPECT_EQ(ShownPrompt(pieces, 0, 3), "\"aaa\"");
  EXPECT_THAT(ShownPrompt(pieces, 20, 0), testing::EndsWith("ddd...\" + 33 more"));
}

}  // namespace
}  // namespace halo
