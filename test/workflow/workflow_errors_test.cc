#include <gtest/gtest.h>

#include "workflow_faults.h"

namespace halo {
namespace {

TEST(WorkflowErrorsTest, AFileWithFiveErrorsReportsFiveInOrder) {
  ExpectFaults(
      R"(start_ops: [a]
end_ops: [bb]
ops:
  a:
    modell: m
    temperature: hot
  b:
    model: m
    input_ops: [a]
    history: sideways
    max_tokens: 0
)",
      {{2, 11, "end_ops: unknown operator 'bb' (did you mean 'b'?)"},
       {5, 5, "unknown key 'modell' in an operator (did you mean 'model'?)"},
       {6, 18, "temperature: expected a number of at least 0 (0 is greedy), got 'hot'"},
       {10, 14, "history: expected continue, outputs or transcript, got 'sideways'"},
       {11, 17, "max_tokens: expected a whole number from 1 to 1000000, got the number 0"}});
}

TEST(WorkflowErrorsTest, TopLevel) {
  ExpectFaults("", {{1, 1, "the file is empty"}});
  ExpectFaults("# nothing\n", {{1, 1, "the file is empty"}});
  ExpectFaults(
      "- a\n",
      {{1, 1, "expected a mapping with start_ops, end_ops and ops, or with graph, got a list"}});
  ExpectFaults("ops: {a: {model: m}}\n",
               {{1, 1, "'start_ops' is missing"}, {1, 1, "'end_ops' is missing"}});
  ExpectFaults("start_ops: [a]\nend_ops: [a]\nop: {a: {model: m}}\n",
               {{1, 13, "unknown operator 'a'"},
                {2, 11, "unknown operator 'a'"},
                {3, 1, "unknown key 'op' at the top of the file (did you mean 'ops'?)"}});
  ExpectFaults("start_ops: []\nend_ops: a\nops: {a: {model: m}}\n",
               {{1, 12, "start_ops: expected at least one operator"},
                {2, 10, "end_ops: expected a list, such as [a, b], got 'a'"},
                {3, 7, "'a' has no inputs and is not in start_ops"}});
  ExpectFaults("start_ops: [a]\nend_ops: [a]\nops: []\n",
               {{1, 13, "unknown"}, {2, 11, "unknown"}, {3, 6, "expected a mapping of operator"}});
  ExpectFaults("graph:\n  nodes: []\n", {{2, 10, "nodes: expected at least one node"}});
  ExpectFaults("name: 3\n" + OneOperator({}), {{1, 7, "name: expected text, got the number 3"}});
}

TEST(WorkflowErrorsTest, OperatorIds) {
  const auto with_id = [](const std::string& id) {
    return "start_ops: ['" + id + "']\nend_ops: ['" + id + "']\nops:\n  '" + id +
           "':\n    model: m\n";
  };
  ParseWorkflow(with_id("_a.b-9"), "f");
  ExpectFaults(with_id("9a"), {{4, 3, "'9a' cannot name an operator"}});
  ExpectFaults(with_id("a b"), {{4, 3, "cannot name an operator"}});
  ExpectFaults(with_id(""), {{4, 3, "cannot name an operator"}});
  ExpectFaults(with_id("row"), {{4, 3, "templates read the row's columns by it"}});
  ExpectFaults(with_id(std::string(129, 'a')), {{4, 3, "at most 128 characters"}});
  ExpectFaults("start_ops: [1]\nend_ops: [a]\nops: {a: {model: m}, 1: {model: m}}\n",
               {{1, 13, "start_ops: expected the id of an operator, got the number 1"},
                {3, 22, "cannot name"},
                {3, 22, "not in end_ops"}});
}

TEST(WorkflowErrorsTest, ValuesOfTheWrongType) {
  ExpectFaults(OneOperator({"temperature: \"0.5\""}),
               {{6, 18, "got '0.5' in quotes: take the quotes away"}});
  ExpectFaults(OneOperator({"temperature: -0.1"}), {{6, 18, "at least 0"}});
  ExpectFaults(OneOperator({"temperature: .inf"}), {{6, 18, "got the number .inf"}});
  ExpectFaults(OneOperator({"temperature: 1e999"}), {{6, 18, "got the number 1e999"}});
  ExpectFaults(OneOperator({"temperature:"}), {{6, 5, "temperature: expected a number"}});
  ExpectFaults(OneOperator({"temperature: [1]"}), {{6, 18, "got a list"}});
  ExpectFaults(OneOperator({"top_p: 0"}), {{6, 12, "above 0 and up to 1"}});
  ExpectFaults(OneOperator({"top_p: 1.01"}), {{6, 12, "above 0 and up to 1"}});
  ExpectFaults(OneOperator({"min_p: 2"}), {{6, 12, "from 0 to 1"}});
  ExpectFaults(OneOperator({"top_k: -1"}), {{6, 12, "from 0 to 2147483647"}});
  ExpectFaults(OneOperator({"top_k: 1.5"}), {{6, 12, "whole number"}});
  ExpectFaults(OneOperator({"seed: 99999999999999999999"}), {{6, 11, "whole number"}});
  ExpectFaults(OneOperator({"seed: abc"}), {{6, 11, "expected a whole number, got 'abc'"}});
  ExpectFaults(OneOperator({"max_batch_size: 0"}), {{6, 21, "from 1"}});
  ExpectFaults(OneOperator({"max_model_len: 0"}), {{6, 20, "from 1"}});
  ExpectFaults(OneOperator({"use_chat_template: yes"}),
               {{6, 24, "expected true or false, got 'yes'"}});
  ExpectFaults(OneOperator({"keep_cache: \"true\""}), {{6, 17, "take the quotes away"}});
  ExpectFaults(OneOperator({"dtype: bf16"}),
               {{6, 12, "expected bfloat16, float16 or float32, got 'bf16'"}});
  ExpectFaults(OneOperator({"quantization: \"\""}), {{6, 19, "not empty"}});
  ExpectFaults(OneOperator({"prompt: true"}),
               {{6, 13, "expected text, got true (put quotes around it)"}});
  ExpectFaults(OneOperator({"prompt: {a: b}"}), {{6, 13, "expected text, got a mapping"}});
  ExpectFaults(OneOperator({"prompt:"}), {{6, 5, "got nothing"}});
  ExpectFaults("start_ops: [a]\nend_ops: [a]\nops:\n  a: text\n",
               {{4, 6, "operator 'a': expected a mapping with model and prompt, got 'text'"}});
  ExpectFaults("start_ops: [a]\nend_ops: [a]\nops:\n  a:\n    prompt: x\n",
               {{4, 3, "operator 'a' has no model"}});
  ExpectFaults("start_ops: [a]\nend_ops: [a]\nops:\n  a:\n    model: 3\n",
               {{5, 12, "model: expected text, got the number 3 (put quotes around it)"}});
}

TEST(WorkflowErrorsTest, StopAndTokens) {
  ExpectFaults(OneOperator({"stop: ['']"}), {{6, 12, "not empty"}});
  ExpectFaults(OneOperator({"stop: ''"}), {{6, 11, "not empty"}});
  ExpectFaults(OneOperator({"stop: [a, a]"}), {{6, 15, "listed twice"}});
  ExpectFaults(OneOperator({"stop: [a, 5]"}), {{6, 15, "expected text, got the number 5"}});
  ExpectFaults(OneOperator({"stop: [a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q]"}),
               {{6, 11, "at most 16 texts, got 17"}});
  ExpectFaults(OneOperator({"max_tokens: 1000001"}), {{6, 17, "from 1 to 1000000"}});
  ExpectFaults(OneOperator({"max_tokens: lots"}), {{6, 17, "or an expression such as"}});
  ExpectFaults(OneOperator({"max_tokens: {{ row.x }}"}),
               {{6, 17, "put quotes around"}, {6, 18, "needs quotes"}});
  ExpectFaults(OneOperator({"max_tokens: \"{{ a }}\""}), {{6, 21, "from 'row' only"}});
  ExpectFaults(OneOperator({"min_tokens: 5", "max_tokens: 4"}),
               {{6, 17, "min_tokens: 5 is more than max_tokens, 4"}});
  ExpectFaults(OneOperator({"min_tokens: 300"}), {{6, 17, "more than max_tokens, 256"}});
  ParseWorkflow(OneOperator({"min_tokens: 300", "max_tokens: \"{{ row.x }}\""}), "f");
}

TEST(WorkflowErrorsTest, LoraConfig) {
  ExpectFaults(OneOperator({"lora_config: x.gguf"}), {{6, 18, "a mapping with file and scale"}});
  ExpectFaults(OneOperator({"lora_config: {scale: 1}"}), {{6, 18, "expected file"}});
  ExpectFaults(OneOperator({"lora_config: {file: x, scale: big}"}),
               {{6, 35, "a number from -1000000 to 1000000"}});
  ExpectFaults(OneOperator({"lora_config: {file: x, scale: 1e7}"}), {{6, 35, "1 is as trained"}});
  ExpectFaults(OneOperator({"lora_config: {path: x}"}),
               {{6, 18, "expected file"}, {6, 19, "unknown key 'path' in lora_config"}});
  const Workflow workflow =
      ParseWorkflow(OneOperator({"lora_config: {file: a/b.gguf, scale: -0.5}"}), "f");
  EXPECT_EQ(workflow.operators[0].lora, (LoraSpec{"a/b.gguf", -0.5, {}}));
  EXPECT_EQ(ParseWorkflow(OneOperator({"lora_config: {file: x}"}), "f").operators[0].lora->scale,
            1.0);
}

TEST(WorkflowErrorsTest, SamplesConditionsAndFailures) {
  ExpectFaults(OneOperator({"samples: 0"}), {{6, 14, "from 1"}});
  ExpectFaults(OneOperator({"vote: true"}), {{6, 5, "there is one sample to choose from"}});
  ExpectFaults(OneOperator({"when: \"row.x ==\""}), {{6, 11, "when: in the template"}});
  ExpectFaults(OneOperator({"when: raw.x"}), {{6, 11, "unknown name 'raw' (did you mean 'row'?)"}});
  ExpectFaults(OneOperator({"retry: {max: -1, back: 1}"}),
               {{6, 18, "max: expected"}, {6, 22, "unknown key 'back' in retry"}});
  ExpectFaults(OneOperator({"on_error: ignore"}), {{6, 15, "expected fail, null or skip"}});
  ExpectFaults(OneOperator({"cache: never"}), {{6, 12, "auto, off or a number of seconds"}});
  ExpectFaults(OneOperator({"timeout_s: 0"}), {{6, 16, "above 0"}});
  ExpectFaults(OneOperator({"effect: write"}), {{6, 13, "a call of a language model is pure"}});
  const std::string head = "start_ops: [a]\nend_ops: [b]\nops:\n";
  ExpectFaults(head + "  a: {model: m, samples: 3}\n  b: {model: m, input_ops: [a]}\n",
               {{5, 3, "'b' takes up the conversation of 'a', which has several answers"}});
  ExpectFaults(head + "  a: {model: m, on_error: null}\n  b: {model: m, input_ops: [a]}\n",
               {{5, 3, "which may have no answer (on_error: null)"}});
}

TEST(WorkflowErrorsTest, References) {
  const std::string head = "start_ops: [a]\nend_ops: [b]\nops:\n";
  ExpectFaults(head + "  a: {model: m, output_ops: [b]}\n  b: {model: m, input_ops: []}\n",
               {{4, 30, "output_ops: 'a' gives to 'b', but input_ops of 'b' in line 5"}});
  ExpectFaults(head + "  a: {model: m, output_ops: []}\n  b: {model: m, input_ops: [a]}\n",
               {{5, 29, "input_ops: 'b' takes from 'a', but output_ops of 'a' in line 4"}});
  ExpectFaults(head + "  a: {model: m}\n  b: {model: m, input_ops: [a, a]}\n",
               {{5, 32, "input_ops: 'a' is listed twice"}});
  ExpectFaults(head + "  a: {model: m}\n  b: {model: m, input_ops: [a, b]}\n",
               {{5, 32, "input_ops: 'b' names itself"}});
  ExpectFaults(head + "  a: {model: m}\n  b: {model: m, input_ops: [alpha]}\n",
               {{5, 29, "input_ops: unknown operator 'alpha'"}});
  ExpectFaults(head + "  a: {model: m}\n  b: {model: m}\n",
               {{4, 3, "nothing reads the output of 'a' and it is not in end_ops"},
                {5, 3, "'b' has no inputs and is not in start_ops"}});
  ExpectFaults(
      "start_ops: [a, b]\nend_ops: [b]\nops:\n  a: {model: m}\n"
      "  b: {model: m, input_ops: [a]}\n",
      {{5, 3, "'b' is in start_ops, but takes from 'a'"}});
}

TEST(WorkflowErrorsTest, CyclesAreNamed) {
  ExpectFaults(R"(start_ops: [a]
end_ops: [e]
ops:
  a: {model: m}
  b: {model: m, input_ops: [a, d]}
  c: {model: m, input_ops: [b]}
  d: {model: m, input_ops: [c]}
  e: {model: m, input_ops: [d, g]}
  f: {model: m, input_ops: [g]}
  g: {model: m, input_ops: [f]}
)",
               {{5, 3, "cycle: b -> c -> d -> b"}, {9, 3, "cycle: f -> g -> f"}});
}

TEST(WorkflowErrorsTest, HistoryAndLayoutThatCannotBeActedOn) {
  ExpectFaults(OneOperator({"history: outputs"}), {{6, 14, "has no inputs to take up"}});
  const std::string two =
      "start_ops: [a, b]\nend_ops: [c]\nops:\n  a: {model: m}\n"
      "  b: {model: m}\n  c: {model: m, input_ops: [a, b], ";
  ExpectFaults(two + "history: continue}\n",
               {{6, 45, "continue needs exactly one input, and 'c' has 2"}});
  ParseWorkflow(two + "history: transcript, prompt_layout: auto}\n", "f");
  ExpectFaults(
      "start_ops: [a]\nend_ops: [b]\nops:\n  a: {model: m}\n"
      "  b: {model: n, input_ops: [a], prompt_layout: auto}\n",
      {{5, 33, "prompt_layout has no effect"}});
}

TEST(WorkflowErrorsTest, TemplateReads) {
  const auto flow = [](const std::string& prompt) {
    return "start_ops: [first, side]\nend_ops: [last, side]\nops:\n  first: {model: m}\n"
           "  side: {model: m}\n  middle: {model: m, input_ops: [first]}\n  last:\n"
           "    model: m\n    input_ops: [middle]\n    prompt: " +
           prompt + "\n";
  };
  ParseWorkflow(flow("\"{{ first }} {{ middle }} {{ row }} {{ row.a.b }}\""), "f");
  ExpectFaults(flow("\"ab {{ fist }}\""),
               {{10, 20,
                 "unknown name 'fist' (did you mean 'first'?); this template can read: "
                 "row, first, middle"}});
  ExpectFaults(flow("'{{ side }}'"), {{10, 17, "'side' runs independently of 'last'"}});
  ExpectFaults(flow("'{{ last }}'"), {{10, 17, "cannot read its own output"}});
  ExpectFaults(flow("'{{ first.text }}'"), {{10, 17, "is text and has no fields"}});
  ExpectFaults(flow("|\n      One side here.\n\n       Two {{ side }}."),
               {{13, 15, "'side' runs independently"}});
  ExpectFaults(flow(">-\n      One\n      {{ side }}"), {{10, 13, "runs independently"}});
}

TEST(WorkflowErrorsTest, TemplateSyntaxHasAPlace) {
  try {
    ParseWorkflow(OneOperator({"prompt: |", "  one", "  two {{ row.x"}), "flow.yaml");
    FAIL();
  } catch (const Error& error) {
    ASSERT_EQ(error.diagnostics().size(), 1U) << error.what();
    const Diagnostic& fault = error.diagnostics()[0];
    EXPECT_EQ(fault.location.file, "flow.yaml");
    EXPECT_GE(fault.location.line, 6);
    EXPECT_LE(fault.location.line, 9);
    EXPECT_TRUE(fault.message.starts_with("prompt: ")) << fault.message;
  }
}

}  // namespace
}  // namespace halo
