"""Twenty kills -9 of a whole run over 150 rows, each at a random moment, each followed by `halo resume`: the output is that of an
undisturbed run to the byte, and what was committed is never asked again."""
import json
import os
import random
import subprocess
import sys
import time
import unittest

import support
from support import halo, model, write

KILLS = 20
SEQUENCES = 8
WORKFLOW = """
start_ops: [first]
end_ops: [last]
ops:
  first: {model: m, prompt: "Say something about it.", max_tokens: 30, output_ops: [last]}
  last: {model: m, prompt: "And now shorter.", max_tokens: 15, input_ops: [first], samples: 2}
"""


class DurableKills(unittest.TestCase):
    @staticmethod
    def has_committed(folder, started):
        log = os.path.join(folder, "journal.db-wal")
        return os.path.exists(log) and os.stat(log).st_mtime_ns > started

    def test_twenty_kills_change_no_byte(self):
        support.exact_answers_or_skip(self)
        workflow = write("w.yaml", WORKFLOW)
        rows = write("rows.jsonl", "".join(json.dumps({"id": i, "prompt": f"Row number {i} speaks."}) + "\n" for i in range(150)))
        arguments = ["run", workflow, "-i", rows, "--model", f"m={model()}", "--worker-memory", "64M", "--kept-memory", "64M",
                     "--deterministic", "--all-outputs", "--sequences", str(SEQUENCES), "--threads", "1"]
        began = time.monotonic()
        code, expected, error = halo(*arguments, timeout=500)
        self.assertEqual(code, 0, error)
        part_s = (time.monotonic() - began) / KILLS

        out = os.path.join(support.SCRATCH, "out.jsonl")
        folder = os.path.join(support.SCRATCH, "kept")
        summary = os.path.join(support.SCRATCH, "summary.json")
        draw = random.Random(8)
        kills = 0
        command = [*arguments, "-o", out, "--run-dir", folder]
        while True:
            run = subprocess.Popen([support.HALO, *command, "--quiet", "--summary-json", summary], stderr=subprocess.PIPE, text=True)
            started = time.time_ns()
            while kills < KILLS and run.poll() is None and not self.has_committed(folder, started):
                time.sleep(0.002)
            time.sleep(part_s * draw.uniform(0, 0.9))
            if kills < KILLS and run.poll() is None:
                run.kill()
                kills += 1
            error = run.communicate(timeout=support.seconds(500))[1]
            if run.returncode == 0:
                break
            self.assertEqual(run.returncode, -9, error)
            if os.path.exists(os.path.join(folder, "manifest.json")):
                command = ["resume", folder]
        with open(out, encoding="utf-8") as file:
            self.assertEqual(file.read(), expected)
        self.assertEqual(kills, KILLS, "the run was over before")
        with open(summary, encoding="utf-8") as file:
            operators = {op["id"]: op for op in json.load(file)["operators"]}
        self.assertEqual({name: op["executed"] + op["cached"] for name, op in operators.items()}, {"first": 150, "last": 150})
        self.assertGreater(operators["first"]["cached"], 0)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
