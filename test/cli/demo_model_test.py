"""The model that comes with Halo, found by its name: a shipped workflow gives answers that mean something."""
import json
import os
import unittest

import support
from support import halo

COLLEAGUES = ("support", "sales", "operations")

FOLDER = os.path.join(support.SOURCE, "examples", "customer_messages")
ROWS = 8


class DemoModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with open(os.path.join(FOLDER, "messages.jsonl"), encoding="utf-8") as file:
            cls.rows = [json.loads(line) for line in file][:ROWS]

    def test_its_name_is_known_and_leads_to_a_file(self):
        code, out, error = halo("models", "ls")
        self.assertEqual(code, 0, error)
        paths = dict(line.split("\t") for line in out.splitlines())
        self.assertTrue(os.path.isfile(paths["halo-demo.q8_0"]), out)

    def test_a_shipped_workflow_reads_messages_it_has_never_seen(self):
        support.exact_answers_or_skip(self)
        code, out, error = halo("run", os.path.join(FOLDER, "triage.yaml"), "--limit", str(ROWS), "--deterministic", "--all-outputs",
                                "--worker-memory", "64M", "--kept-memory", "64M", timeout=240)
        self.assertEqual(code, 0, error)
        self.assertIn("bit for bit those of --naive", error)
        answers = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([answer["id"] for answer in answers], [row["id"] for row in self.rows])
        right = named = counted = 0
        for row, answer in zip(self.rows, answers):
            outputs = answer["outputs"]
            record = outputs["record"]
            self.assertEqual(list(record), ["product", "problem", "sentiment", "urgency"])
            right += sum(record[key] == row["expected"][key] for key in record)
            named += record["product"] in outputs["reply"] and record["problem"] in outputs["reply"]
            escalating = sum(outputs[name].endswith("Verdict: escalate.") for name in COLLEAGUES)
            self.assertEqual(escalating + sum(outputs[name].endswith("Verdict: wait.") for name in COLLEAGUES), 3)
            counted += (": escalate, by " if escalating > 1 else ": wait, by ") in outputs["verdict"]
            self.assertRegex(outputs["verdict"], r"^The .+: (escalate|wait), by [23] of 3 votes$")
            self.assertRegex(outputs["reply"], r"^(We are|Thank you) .+\.$")
        # Guesses would be right a third of the time in two fields, and never in the other two.
        self.assertGreaterEqual(right, 4 * ROWS - 3, out)
        self.assertGreaterEqual(named, ROWS - 1, out)
        self.assertGreaterEqual(counted, ROWS - 1, out)


if __name__ == "__main__":
    unittest.main(argv=["demo_model_test"], verbosity=1)
