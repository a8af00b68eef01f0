"""Engines in child processes: what ends one of them costs a run time, and nothing else."""
import json
import os
import random
import signal
import subprocess
import threading
import time
import unittest

import support
from support import halo, model, write

WORKFLOW = """
start_ops: [first]
end_ops: [last]
ops:
  first: {model: m, prompt: "Say something about it.", max_tokens: 24, output_ops: [last]}
  last: {model: m, prompt: "And now shorter.", max_tokens: 16, input_ops: [first]}
"""


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
            return [int(word) for word in file.read().split()]
    except FileNotFoundError:
        return []


def exists(pid):
    """A process that has ended counts as gone, reaped or not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, what, patience=60):
    give_up = time.monotonic() + support.seconds(patience)
    while not condition():
        if time.monotonic() > give_up:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.01)


def start(*args, **options):
    return subprocess.Popen([support.HALO, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=support.own_environment(), cwd=support.SCRATCH, **options)


class EngineProcess(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.workflow = write("w.yaml", WORKFLOW)
        cls.rows = write("rows.jsonl", "".join(json.dumps({"id": i, "prompt": f"Row number {i} speaks."}) + "\n" for i in range(60)))
        cls.model = ["--model", f"m={model()}", "--worker-memory", "64M", "--kept-memory", "64M", "--workers", "1"]

    def summary(self, *args):
        path = os.path.join(support.SCRATCH, "summary.json")
        code, out, error = halo("run", *args, "--summary-json", path)
        self.assertEqual(code, 0, error)
        with open(path, encoding="utf-8") as file:
            return out, json.load(file)

    def test_answers_are_the_same_in_process_and_in_a_child(self):
        rows = {}
        for where in ("in", "child"):
            rows[where], summary = self.summary(self.workflow, "-i", self.rows, *self.model, "--engine-process", where, "--all-outputs")
            self.assertEqual([engine["restarts"] for engine in summary["engine"]], [0])
            self.assertGreater(summary["engine"][0]["busy_s"], 0)
        self.assertEqual(rows["in"], rows["child"])

    def test_naive_adapters_schemas_and_two_models_run_in_children(self):
        support.exact_answers_or_skip(self)
        support.adapter()
        workflow = write("mixed.yaml", """
start_ops: [plain, tuned, other]
end_ops: [shape]
ops:
  plain: {model: m, prompt: Go., max_tokens: 8, output_ops: [shape]}
  tuned: {model: m, prompt: Go., max_tokens: 8, lora_config: {file: adapter.gguf}, output_ops: [shape]}
  other: {model: n, prompt: Go., max_tokens: 8, output_ops: [shape]}
  shape: {model: n, prompt: "As JSON.", max_tokens: 60, input_ops: [plain, tuned, other],
          schema: {type: object, properties: {n: {type: integer, minimum: 0, maximum: 9}}, required: [n]}}
""")
        second = os.path.join(support.SCRATCH, "second.gguf")
        self.assertEqual(halo("models", "synth", "--shape", "tiny", "--layers", "1", "--seed", "8", "-o", second)[0], 0)
        arguments = (workflow, "-i", self.rows, "--limit", "12", *self.model, "--model", f"n={second}", "--all-outputs")
        expected = self.summary(*arguments, "--naive", "--engine-process", "in")[0]
        self.assertEqual(self.summary(*arguments, "--naive")[0], expected)
        self.assertEqual(self.summary(*arguments, "--deterministic")[0], expected)

    def test_the_end_of_a_process_costs_no_row(self):
        support.exact_answers_or_skip(self)
        arguments = (self.workflow, "-i", self.rows, *self.model, "--deterministic", "--all-outputs", "--seed", "4", "--sequences", "8")
        expected = halo("run", *arguments)[1]
        path = os.path.join(support.SCRATCH, "killed.json")
        run = start("run", *arguments, "--summary-json", path)
        output = {}
        reader = threading.Thread(target=lambda: output.update(zip(("out", "error"), run.communicate())))
        reader.start()
        draw = random.Random(5)
        killed = 0
        # A third end before anything was answered, as on a machine that is slow enough, would make a call poisonous.
        while run.poll() is None and killed < 2:
            for child in children(run.pid):
                time.sleep(draw.uniform(0.1, 0.5))
                if exists(child):
                    os.kill(child, signal.SIGKILL)
                    killed += 1
            time.sleep(0.02)
        reader.join()
        self.assertEqual(run.returncode, 0, output["error"])
        self.assertEqual(output["out"], expected)
        with open(path, encoding="utf-8") as file:
            restarts = json.load(file)["engine"][0]["restarts"]
        self.assertGreaterEqual(restarts, 1)
        self.assertIn("the engine of m is started again", output["error"])
        self.assertIn("killed by signal 9", output["error"])
        self.assertIn(f"its process was started again {restarts} times", output["error"])

    def test_a_model_that_cannot_be_loaded_is_an_error_as_in_process(self):
        for flags in (["--deterministic", "--kv-layout", "unified"], ["--worker-memory", "1K"]):
            answers = [halo("run", self.workflow, "-i", self.rows, *self.model, *flags, "--engine-process", where)
                       for where in ("in", "child")]
            self.assertEqual(answers[0], answers[1])
            self.assertEqual(answers[0][0], 2)

    def long_run(self, *flags, **options):
        """A run that goes on until it is ended, and the process of its engine once rows are done."""
        rows = write("many.jsonl", "".join(json.dumps({"prompt": f"row {i}"}) + "\n" for i in range(20000)))
        out = os.path.join(support.SCRATCH, "many-out.jsonl")
        for path in (out, out + ".part"):
            if os.path.exists(path):
                os.remove(path)
        run = start("run", self.workflow, "-i", rows, "-o", out, *self.model, *flags, **options)
        self.addCleanup(run.communicate)
        self.addCleanup(run.kill)
        wait_for(lambda: run.poll() is not None or (os.path.exists(out + ".part") and os.path.getsize(out + ".part") > 0), "rows")
        self.assertIsNone(run.poll())
        (engine,) = children(run.pid)
        return run, engine

    def test_the_engine_dies_with_its_parent(self):
        run, engine = self.long_run()
        run.kill()
        wait_for(lambda: not exists(engine), "the end of the engine", 10)

    def test_the_engine_has_nothing_but_what_it_needs(self):
        run, engine = self.long_run()
        names = {os.readlink(f"/proc/{engine}/fd/{fd}") for fd in os.listdir(f"/proc/{engine}/fd")}
        self.assertFalse([name for name in names if name.endswith((".jsonl", ".part"))], names)
        self.assertLessEqual(sum(name.startswith("socket:") for name in names), 1)
        with open(f"/proc/{engine}/cmdline", encoding="utf-8") as file:
            self.assertEqual(file.read().split("\0")[:-1], ["halo", "engine-process"])
        run.kill()

    def test_what_a_terminal_sends_to_both_ends_the_run_in_order(self):
        for signals in ([signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]):
            run, engine = self.long_run("--sequences", "4", start_new_session=True)
            for number in signals:
                os.killpg(run.pid, number)
                time.sleep(0.2)  # two of one kind that are pending at once would be one
            error = run.communicate(timeout=support.seconds(60))[1]
            self.assertEqual(run.returncode, 128 + signals[0], error)
            self.assertIn("unfinished", error)
            self.assertNotIn("started again", error)
            self.assertFalse(exists(engine))

    def test_the_program_of_engines_says_what_is_missing(self):
        code, out, error = halo("engine-process")
        self.assertEqual((code, out), (1, ""))
        self.assertTrue(error)
        self.assertNotIn("engine-process", halo("--help")[1])


if __name__ == "__main__":
    unittest.main(argv=["engine_process_test"], verbosity=1)
