"""Several workers, and models that take turns: where calls run changes no answer."""
import json
import os
import signal
import time
import unittest

import support
from engine_process_test import children, exists, start, wait_for
from support import halo, write

# Every model reads what the one before it said, and the first one reads the last.
CHAIN = """
start_ops: [first]
end_ops: [fourth]
ops:
  first: {model: a, prompt: "Say something about it.", max_tokens: 16, output_ops: [second, fourth]}
  second: {model: b, prompt: "Say it shorter.", max_tokens: 16, input_ops: [first], output_ops: [third]}
  third: {model: c, prompt: "Say it louder.", max_tokens: 16, input_ops: [second], output_ops: [fourth]}
  fourth: {model: a, prompt: "And once more.", max_tokens: 16, input_ops: [first, third]}
"""
ROWS = 12


def synthetic(seed):
    path = os.path.join(support.SCRATCH, f"model{seed}.gguf")
    if not os.path.exists(path):
        code, _, error = halo("models", "synth", "--shape", "tiny", "--layers", "2", "--seed", str(seed), "-o", path)
        assert code == 0, error
    return path


class Workers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.workflow = write("chain.yaml", CHAIN)
        cls.rows = write("rows.jsonl", "".join(json.dumps({"id": i, "prompt": f"Row number {i} speaks."}) + "\n" for i in range(ROWS)))
        cls.files = {name: synthetic(seed) for seed, name in enumerate("abc", start=1)}
        models = [f"{name}={path}" for name, path in cls.files.items()]
        cls.arguments = [cls.workflow, "-i", cls.rows, "--all-outputs", "--kept-memory", "64M", "--threads", "2", "--date", "2026-01-31"]
        for each in models:
            cls.arguments += ["--model", each]
        cls.one_model = str(os.path.getsize(cls.files["a"]) + (8 << 20))

    def run_with(self, *flags):
        path = os.path.join(support.SCRATCH, "summary.json")
        code, out, error = halo("run", *self.arguments, *flags, "--summary-json", path)
        self.assertEqual(code, 0, error)
        with open(path, encoding="utf-8") as file:
            return out, json.load(file), error

    def test_answers_are_the_same_wherever_they_are_computed(self):
        support.exact_answers_or_skip(self)
        expected = self.run_with("--worker-memory", "256M", "--naive")[0]
        for where in ("child", "in"):
            for flags in (["--worker-memory", "256M"], ["--worker-memory", "256M", "--workers", "2"], ["--worker-memory", self.one_model],
                          ["--worker-memory", self.one_model, "--workers", "2"]):
                with self.subTest(where=where, flags=flags):
                    rows, summary, _ = self.run_with(*flags, "--engine-process", where)
                    self.assertEqual(rows, expected)
                    self.assertTrue(summary["deterministic"])

    def test_models_change_as_seldom_as_the_workflow_allows(self):
        _, summary, _ = self.run_with("--worker-memory", self.one_model)
        # a, b, c, a: all rows go through a model before the next one comes.
        self.assertEqual(summary["model_switches"], 3)
        self.assertEqual(sorted((engine["model"], engine["loads"]) for engine in summary["engine"]), [("a", 2), ("b", 1), ("c", 1)])
        _, summary, _ = self.run_with("--worker-memory", "256M")
        self.assertEqual(summary["model_switches"], 0)

    def test_rows_are_shared_by_the_workers(self):
        _, summary, _ = self.run_with("--worker-memory", "256M", "--workers", "2")
        busy = {}
        for engine in summary["engine"]:
            busy[engine["worker"]] = busy.get(engine["worker"], 0) + engine["busy_s"]
        self.assertEqual(sorted(busy), [0, 1])
        self.assertGreater(min(busy.values()), 0)
        calls = {operator["id"]: operator["calls"] for operator in summary["operators"]}
        self.assertEqual(set(calls.values()), {ROWS})

    def test_an_engine_that_is_killed_while_others_are_unloaded_is_started_again(self):
        expected = self.run_with("--worker-memory", self.one_model)[0]
        path = os.path.join(support.SCRATCH, "killed.json")
        run = start("run", *self.arguments, "--worker-memory", self.one_model, "--workers", "2", "--summary-json", path)
        self.addCleanup(run.kill)
        wait_for(lambda: len(children(run.pid)) >= 3 or run.poll() is not None, "engines")
        for child in children(run.pid):
            time.sleep(0.1)
            if exists(child):
                os.kill(child, signal.SIGKILL)
        out, error = run.communicate(timeout=support.seconds(120))
        self.assertEqual(run.returncode, 0, error)
        self.assertEqual(out, expected)

    def test_workers_that_cannot_be_had_are_refused(self):
        for flags, message in ((["--workers", "3"], "each worker needs a thread of its own, and there are 2"),
                               (["--workers", "2", "--naive"], "one call at a time, on one worker"),
                               (["--worker-memory", "100K"], "needs ")):
            code, _, error = halo("run", *self.arguments, *flags)
            self.assertEqual(code, 2)
            self.assertIn(message, error)


if __name__ == "__main__":
    unittest.main(argv=["workers_test"], verbosity=1)
