"""The peers of the benchmark ask what Halo asks, and get its answers; the workloads are what they say.

bench/peers/driver.js runs every form of prompt over 3 rows against a real llama-server with exact kernels, and is compared with the
calls of a naive run.
"""
import json
import os
import shutil
import subprocess
import sys
import unittest
import xml.etree.ElementTree

import support
from support import halo, model, write

sys.path += [os.path.join(support.SOURCE, "bench", folder) for folder in ("peers", "workloads")]
import generate  # noqa: E402 (their folders are known only now)
import llama_server  # noqa: E402
import plot  # noqa: E402

DRIVER = os.path.join(support.SOURCE, "bench", "peers", "driver.js")


def operator(prompt, length, **more):
    return {"model": "m", "prompt": prompt, "temperature": 0, "max_tokens": length, **more}


# JSON is YAML, too: Halo and the driver read the same file.
WORKFLOW = {"start_ops": ["look", "think", "part"], "end_ops": ["context", "recall", "echo"], "ops": {
    "look": operator("Look at it closely.", 12),
    "think": operator("Think about it.", "{{ row.lengths.think }}", min_tokens="{{ row.lengths.think }}", prompt_layout="context_first"),
    "part": operator("Of {{ row.parts[1] }}, what stands out?", 7),
    # history: continue, since there is one input.
    "again": operator("Say it again.", 9, input_ops=["look"]),
    "context": operator("Now decide.", 8, input_ops=["think", "look"], prompt_layout="context_first"),
    "judge": operator("Judge both.", 8, input_ops=["part", "think"], output_ops=["echo"]),
    "echo": operator("Echo it.", 5),
    "recall": operator("What was said?", 6, input_ops=["again", "look"], history="transcript")}}
ROWS = [{"id": 1, "prompt": ["What is the capital of France?", "And of Spain?"], "parts": ["x", "the river Seine"], "lengths": {"think": 11}},
        {"id": 2, "prompt": "1 + 1 = 2; 10^6", "parts": ["x", "caf\u00e9 na\u00efve \u20ac 100"], "lengths": {"think": 3}},
        {"id": 3, "prompt": "Once more.", "parts": ["x", "two\n\nlines"], "lengths": {"think": 20}}]


def missing():
    """What keeps this from running, or nothing."""
    if shutil.which("node") is None:
        return "node is not installed"
    if not os.path.exists(os.path.join(support.SOURCE, "build", "peers", ".stamp")):
        return "the npm packages are not there: run bench/peers/install"
    if not os.path.exists(os.path.join(support.BIN, "llama-server")):
        return "llama-server is not built: ninja halo_peers"
    return None


@unittest.skipIf(missing(), missing())
class PeersAskTheSame(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        rows = write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
        dump = os.path.join(support.SCRATCH, "calls.jsonl")
        exact = "--deterministic" if halo("version")[1].rsplit("exact answers", 1)[-1].splitlines()[0].endswith(" yes") else "--no-deterministic"
        code, out, error = halo("run", write("forms.yaml", json.dumps(WORKFLOW)), "-i", rows, "--model", f"m={model()}", "--naive", exact,
                                "--threads", "1", "--all-outputs", "--dump-prompts", dump, "--worker-memory", "64M")
        assert code == 0, error
        cls.answers = [json.loads(line)["outputs"] for line in out.splitlines()]
        cls.prompts = [{} for _ in ROWS]
        with open(dump, encoding="utf-8") as file:
            for call in map(json.loads, file):
                cls.prompts[int(call["row"]) - 1][call["operator"]] = call["prompt"]
        cls.server = llama_server.LlamaServer(
            os.path.join(support.BIN, "llama-server"), model(), llama_server.Settings(1, slots=2), slot_tokens=1024,
            log=os.path.join(support.SCRATCH, "server.log"), limit_s=support.seconds(60),
            environment={"GGML_CPU_EXACT": "1"} if exact == "--deterministic" else {})

    @classmethod
    def tearDownClass(cls):
        cls.server.end()

    def drive(self, mode, **more):
        job = {"workflow": WORKFLOW, "rows": ROWS, "servers": {"m": self.server.url}, "mode": mode, "concurrency": 2, **more}
        done = subprocess.run(["node", DRIVER, write("job.json", json.dumps(job))], capture_output=True, text=True,
                              timeout=support.seconds(120))
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_requests_have_the_ids_and_answers_of_a_naive_run(self):
        for mode in ("row-by-row", "opwise"):
            with self.subTest(mode):
                result = self.drive(mode, prompts=True)
                for row, (prompts, answers) in enumerate(zip(self.prompts, self.answers)):
                    for op in WORKFLOW["ops"]:
                        self.assertEqual(result["prompts"][row][op], prompts[op], f"row {row}, {op}")
                        self.assertEqual(result["outputs"][row][op], answers[op], f"row {row}, {op}")
                self.assertEqual(result["calls"], len(ROWS) * len(WORKFLOW["ops"]))
                self.assertEqual(result["tokens"]["prompt"], sum(len(prompt) for row in self.prompts for prompt in row.values()))

    def test_langgraph_asks_the_same_text(self):
        """First answers are equal. Later prompts are too, but text of a random model may have other ids than those that were sampled."""
        result = self.drive("langgraph")
        for row, answers in enumerate(self.answers):
            self.assertEqual(sorted(result["outputs"][row]), sorted(WORKFLOW["ops"]))
            for op in ("look", "think", "part"):
                self.assertEqual(result["outputs"][row][op], answers[op], f"row {row}, {op}")
        self.assertEqual(result["calls"], len(ROWS) * len(WORKFLOW["ops"]))

    def test_langgraph_makes_calls_of_equal_rows_once(self):
        # A chain, since LangGraph 1.4.10 leaves out nodes of a step when it may run one at a time.
        chain = {**WORKFLOW, "ops": {op: WORKFLOW["ops"][op] for op in ("look", "again")}}
        result = self.drive("langgraph", workflow=chain, rows=[ROWS[0], {**ROWS[0], "id": 9}], concurrency=1)
        self.assertEqual(result["calls"], 2)
        self.assertEqual(result["outputs"][0], result["outputs"][1])
        with self.assertRaisesRegex(AssertionError, "left out"):
            self.drive("langgraph", concurrency=1)

    def test_what_peers_cannot_do_is_refused(self):
        for change in ({"temperature": 0.7}, {"schema": {}}, {"min_tokens": 3}):
            ops = {**WORKFLOW["ops"], "look": {**WORKFLOW["ops"]["look"], **change}}
            job = write("refused.json", json.dumps({"workflow": {**WORKFLOW, "ops": ops}, "rows": ROWS, "servers": {"m": self.server.url},
                                                    "mode": "row-by-row", "concurrency": 1}))
            done = subprocess.run(["node", DRIVER, job], capture_output=True, text=True, timeout=support.seconds(60))
            self.assertEqual(done.returncode, 1, change)
            self.assertIn(next(iter(change)), done.stderr)


class GeneratedWorkloads(unittest.TestCase):
    def test_calls_of_a_row_are_those_of_the_evaluation_they_come_from(self):
        counts = {name: len(generate.generate(name, 1)[0]["ops"]) for name in generate.WORKLOADS}
        self.assertEqual(counts, {"map_reduce": 15, "debate": 6, "reflection": 4, "refinement": 6, "parallel": 50, "trading": 88})

    def test_halo_takes_them(self):
        for name in generate.WORKLOADS:
            workflow, _ = generate.generate(name, 1)
            code, _, error = halo("validate", write(f"{name}.yaml", json.dumps(workflow)))
            self.assertEqual(code, 0, error)

    def test_a_row_is_the_same_in_files_of_any_size(self):
        for name in generate.WORKLOADS:
            self.assertEqual(generate.generate(name, 2)[1], generate.generate(name, 5)[1][:2])
            self.assertNotEqual(generate.generate(name, 2)[1], generate.generate(name, 2, seed=1)[1])

    def test_rows_repeat_at_the_rate_that_is_asked_for(self):
        for share, least, most in ((0, 200, 200), (0.5, 80, 120)):
            _, rows = generate.generate("debate", 200, repeat_share=share)
            distinct = len({json.dumps({**row, "id": None}) for row in rows})
            self.assertTrue(least <= distinct <= most, distinct)
            self.assertEqual(len({row["id"] for row in rows}), 200)


class Compare(unittest.TestCase):
    def compare(self, before, after):
        paths = []
        for name, seconds in (("before", before), ("after", after)):
            record = {"workload": "debate", "system": "Halo", "median_s": sorted(seconds)[1], "elapsed_s": seconds}
            paths.append(write(f"{name}.json", json.dumps({"records": [record]})))
        bench = [sys.executable, os.path.join(support.SOURCE, "scripts", "bench"), "compare", *paths]
        done = subprocess.run(bench, capture_output=True, text=True, timeout=support.seconds(60))
        return done.returncode, done.stdout

    def test_only_what_is_beyond_the_spread_is_a_regression(self):
        self.assertEqual(self.compare([1.0, 1.1, 1.2], [1.15, 1.3, 1.4])[0], 0)
        self.assertEqual(self.compare([1.0, 1.1, 1.2], [0.5, 0.6, 0.7])[0], 0)
        code, text = self.compare([1.0, 1.1, 1.2], [1.3, 1.4, 1.5])
        self.assertEqual(code, 1)
        self.assertIn("| 1.273 | slower |", text)


class Plot(unittest.TestCase):
    def test_bars_are_as_long_as_the_logarithm_says(self):
        records = [{"workload": "a<b", "system": system, "median_s": 2 * ratio, "ratio_to_halo": ratio, "lower_bound_s": 1}
                   for system, ratio in (("Halo", 1), ("one", 2), ("two", 4))]
        tree = xml.etree.ElementTree.fromstring(plot.ratio_plot(records, "of three & more"))
        bars = [float(each.get("width")) for each in tree.iter("{http://www.w3.org/2000/svg}rect") if each.find("*") is not None]
        self.assertEqual(len(bars), 3)
        # From half of Halo's time, where the bound lies.
        self.assertAlmostEqual(bars[1], 2 * bars[0], delta=0.2)
        self.assertAlmostEqual(bars[2], 3 * bars[0], delta=0.2)
        texts = [each.text for each in tree.iter("{http://www.w3.org/2000/svg}text")]
        self.assertIn("a<b", texts)
        self.assertTrue({"2.0 s", "2.00", "4.00"} <= set(texts), texts)


if __name__ == "__main__":
    unittest.main(argv=["peers_test"], verbosity=1)
