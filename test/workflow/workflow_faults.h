#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "workflow/workflow.h"

namespace halo {

/// A diagnostic that a test expects: its place, and a part of its message.
struct ExpectedFault {
  int32_t line;
  int32_t column;
  std::string part;
};

/// Parses `text` and expects exactly these faults, in this order.
inline void ExpectFaults(const std::string& text, const std::vector<ExpectedFault>& expected) {
  try {
    ParseWorkflow(text, "flow.yaml");
    FAIL() << "no fault was found in:\n" << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kWorkflow);
    ASSERT_EQ(error.diagnostics().size(), expected.size()) << error.what() << "\n--- in:\n" << text;
    for (size_t i = 0; i < expected.size(); ++i) {
      const Diagnostic& fault = error.diagnostics()[i];
      EXPECT_EQ(fault.location.file, "flow.yaml");
      EXPECT_EQ(fault.location.line, expected[i].line) << fault.ToString();
      EXPECT_EQ(fault.location.column, expected[i].column) << fault.ToString();
      EXPECT_NE(fault.message.find(expected[i].part), std::string::npos)
          << fault.message << "\nlacks: " << expected[i].part;
    }
  }
}

/// A workflow of one operator, `a`, whose keys after `model` are `lines`, each indented by four
/// spaces; the first of them is line 6 and a value after "key: " begins at column 7 + length of the
/// key.
inline std::string OneOperator(const std::vector<std::string>& lines) {
  std::string text = "start_ops: [a]\nend_ops: [a]\nops:\n  a:\n    model: m\n";
  for (const std::string& line : lines) text += "    " + line + "\n";
  return text;
}

}  // namespace halo
