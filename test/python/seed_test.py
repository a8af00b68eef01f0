"""The README of the first Halo: its snippet as it stands, and what else its users called."""
import contextlib
import io
import os
import runpy
import subprocess
import unittest

import support

from halo.components import Query
from halo.errors import UsageError, WorkflowError
from halo.optimizers import Optimizer_v

HALO = os.path.join(support.BUILD, "bin", "halo")
SEED = os.path.join(support.SOURCE, "test", "python", "seed")


class TheSeedsSnippet(unittest.TestCase):
    def setUp(self):
        # The model files are the one thing that is not the README's: two small ones under its names.
        folder = os.path.join(support.SCRATCH, "models")
        for seed, name in enumerate(("Llama-3.2-3B-Instruct", "Llama-3.1-8B-Instruct")):
            path = os.path.join(folder, "meta-llama", name + ".gguf")
            if not os.path.exists(path):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                subprocess.run([HALO, "models", "synth", "--shape", "tiny", "--layers", "2", "--seed", str(seed + 1),
                                "--mean-output", "8", "-o", path], check=True, capture_output=True)
        os.environ["HALO_MODELS"] = folder
        self.addCleanup(os.environ.pop, "HALO_MODELS")

    def test_works_as_it_stands(self):
        names = runpy.run_path(os.path.join(SEED, "snippet.py"),
                               init_globals={"YAML_CONFIG_PATH": os.path.join(SEED, "workflow.yaml")})
        queries = names["queries"]
        self.assertEqual([query.id for query in queries], [0, 1])
        for query in queries:
            self.assertEqual(query.status, "ok", query.error)
            self.assertEqual(sorted(query.op_output), ["op0", "op1"])
            self.assertTrue(all(isinstance(text, str) for text in query.op_output.values()))
            self.assertLessEqual(query.benchmark["start"], query.benchmark["end"])
            self.assertEqual(query.priority, 0)


class Batches(unittest.TestCase):
    def setUp(self):
        self.one = support.write("one.yaml", support.ONE)

    def test_without_queries_asked_for_it_gives_seconds(self):
        optimizer = Optimizer_v(self.one)
        queries = [Query(id="a", prompt="It leaks.")]
        elapsed = optimizer.execute(queries)
        self.assertIsInstance(elapsed, float)
        self.assertGreater(elapsed, 0)
        self.assertEqual(queries[0].status, "ok")

    def test_higher_priority_ends_earlier(self):
        optimizer = Optimizer_v(self.one, sequences=1, threads=1)
        queries = [Query(id=n, prompt=f"Kettle number {n} leaks.", priority=n % 4) for n in range(24)]
        optimizer.execute(queries)
        mean = {p: sum(q.benchmark["end"] for q in queries if q.priority == p) / 6 for p in range(4)}
        self.assertEqual(sorted(mean, key=mean.get), [3, 2, 1, 0])

    def test_a_query_fails_alone(self):
        flow = support.write("fails.yaml", support.ONE.replace("prompt: Say", "prompt: '{{ row.more.name }}'"))
        queries = Optimizer_v(flow).execute(
            [Query(0, "p", columns={"more": {"name": "x"}}), Query(1, "p", columns={"more": 3})], return_queries=True)
        self.assertEqual([query.status for query in queries], ["ok", "failed"])
        self.assertEqual(queries[1].error["operator"], "a")
        self.assertIsNone(queries[0].error)

    def test_schedule_shows_the_plan_and_exit_ends_it(self):
        optimizer = Optimizer_v(self.one)
        self.assertIn("a", str(optimizer.schedule([Query(0, "p")])))
        optimizer.exit()
        with self.assertRaises(UsageError):
            optimizer.execute([Query(0, "p")])

    def test_percentiles_are_printed(self):
        optimizer = Optimizer_v(self.one)
        optimizer.execute([Query(n, f"Row {n}.") for n in range(3)])
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            optimizer.print_latency_percentiles()
        self.assertEqual([line.split(":")[0] for line in text.getvalue().splitlines()], ["p50", "p90", "p95", "p99"])

    def test_no_queries_are_no_fault(self):
        self.assertEqual(Optimizer_v(self.one).execute([], return_queries=True), [])

    def test_a_bad_workflow_says_where(self):
        flow = support.write("bad.yaml", "start_ops: [a]\nend_ops: [a]\nops:\n  a: {model: m, promt: x}\n")
        with self.assertRaises(WorkflowError) as raised:
            Optimizer_v(flow).execute([Query(0, "p")])
        place = raised.exception.diagnostics[0]
        self.assertEqual((place.file, place.line, place.column), (flow, 4, 17))
        self.assertIn("prompt", place.message)


if __name__ == "__main__":
    support.main()
