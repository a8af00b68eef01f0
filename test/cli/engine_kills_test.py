"""A hundred kills of engine processes over a run of 500 rows, each at a random moment after at least one answer since the
restart: every row ends ok, equal to that of an undisturbed run."""
import json
import os
import random
import signal
import subprocess
import time
import unittest

import support
from support import halo, model, write

KILLS = 100
WORKFLOW = """
start_ops: [first]
end_ops: [last]
ops:
  first: {model: m, prompt: "Say something about it.", max_tokens: 60, output_ops: [last]}
  last: {model: m, prompt: "And now shorter.", max_tokens: 30, input_ops: [first]}
"""


def engine_of(pid):
    """The process that hosts the engine of a run; None while there is none."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
        found = [int(word) for word in file.read().split()]
    return found[0] if found else None


class EngineKills(unittest.TestCase):
    def test_a_hundred_kills_cost_no_row(self):
        support.exact_answers_or_skip(self)
        workflow = write("w.yaml", WORKFLOW)
        rows = write("rows.jsonl", "".join(json.dumps({"id": i, "prompt": f"Row number {i} speaks."}) + "\n" for i in range(500)))
        arguments = ["run", workflow, "-i", rows, "--model", f"m={model()}", "--worker-memory", "64M", "--kept-memory", "64M",
                     "--deterministic", "--all-outputs", "--sequences", "8", "--order", "completion"]
        code, expected, error = halo(*arguments, timeout=500)
        self.assertEqual(code, 0, error)

        out = os.path.join(support.SCRATCH, "out.jsonl")
        summary = os.path.join(support.SCRATCH, "summary.json")
        log = os.path.join(support.SCRATCH, "log")
        with open(log, "w", encoding="utf-8") as errors:
            run = subprocess.Popen([support.HALO, *arguments, "-o", out, "--summary-json", summary], stderr=errors,
                                   env=dict(os.environ, XDG_STATE_HOME=os.path.join(support.SCRATCH, "own-state")))
        self.addCleanup(run.kill)

        def written():
            return os.path.getsize(out + ".part") if os.path.exists(out + ".part") else 0

        draw = random.Random(11)
        kills = 0
        engine, before = None, 0
        while run.poll() is None and kills < KILLS:
            now = engine_of(run.pid)
            if now != engine:
                engine, before = now, written()
            # A row was written since this process started, so there was an answer since.
            if engine is not None and written() > before:
                time.sleep(draw.uniform(0, 0.1))
                if engine_of(run.pid) == engine:
                    os.kill(engine, signal.SIGKILL)
                    kills += 1
                    while run.poll() is None and engine_of(run.pid) == engine:
                        time.sleep(0.001)
            time.sleep(0.002)
        self.assertEqual(run.wait(timeout=support.seconds(500)), 0, open(log, encoding="utf-8").read())
        self.assertEqual(kills, KILLS, "the run was over before")

        def by_id(lines):
            return {row["id"]: row for row in map(json.loads, lines)}

        with open(out, encoding="utf-8") as file:
            got = by_id(file)
        self.assertEqual(len(got), 500)
        self.assertEqual({row["status"] for row in got.values()}, {"ok"})
        self.assertEqual(got, by_id(expected.splitlines()))
        with open(summary, encoding="utf-8") as file:
            restarts = json.load(file)["engine"][0]["restarts"]
        self.assertGreaterEqual(restarts, KILLS - 1, "the last one may have met a run with nothing left to ask")
        print(f"{kills} kills, {restarts} restarts, {len(got)} rows ok and equal")


if __name__ == "__main__":
    unittest.main(argv=["engine_kills_test"], verbosity=1)
