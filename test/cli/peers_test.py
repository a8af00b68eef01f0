"""The peers of the benchmark ask what Halo asks, and get its answers; the workloads are what they say.

bench/peers/driver.js runs every form of prompt over 3 rows against a real llama-server with exact kernels, and is compared with the
calls of a naive run; so are W1 to W6 with their tools.
"""
import importlib.util
import json
import os
import pathlib
import re
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
import measuring  # noqa: E402
import plot  # noqa: E402
import tool_workloads  # noqa: E402

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


def exact_arguments():
    """The option with which answers are those of the exact kernels, where they are known to be, and a llama-server's environment for them."""
    known = halo("version")[1].rsplit("exact answers", 1)[-1].splitlines()[0].endswith(" yes")
    return ("--deterministic", {"GGML_CPU_EXACT": "1"}) if known else ("--no-deterministic", {})


def start_server(slot_tokens, environment):
    return llama_server.LlamaServer(os.path.join(support.BIN, "llama-server"), model(), llama_server.Settings(1, slots=2), slot_tokens=slot_tokens,
                                    log=os.path.join(support.SCRATCH, "server.log"), limit_s=support.seconds(60), environment=environment)


def drive(test, job):
    done = subprocess.run(["node", DRIVER, write("job.json", json.dumps(job))], capture_output=True, text=True, timeout=support.seconds(120))
    test.assertEqual(done.returncode, 0, done.stderr)
    return json.loads(done.stdout)


@unittest.skipIf(missing(), missing())
class PeersAskTheSame(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        rows = write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
        dump = os.path.join(support.SCRATCH, "calls.jsonl")
        exact, environment = exact_arguments()
        code, out, error = halo("run", write("forms.yaml", json.dumps(WORKFLOW)), "-i", rows, "--model", f"m={model()}", "--naive", exact,
                                "--threads", "1", "--all-outputs", "--dump-prompts", dump, "--worker-memory", "64M")
        assert code == 0, error
        cls.answers = [json.loads(line)["outputs"] for line in out.splitlines()]
        cls.prompts = [{} for _ in ROWS]
        with open(dump, encoding="utf-8") as file:
            for call in map(json.loads, file):
                cls.prompts[int(call["row"]) - 1][call["operator"]] = call["prompt"]
        cls.server = start_server(1024, environment)

    @classmethod
    def tearDownClass(cls):
        cls.server.end()

    def drive(self, mode, **more):
        return drive(self, {"workflow": WORKFLOW, "rows": ROWS, "servers": {"m": self.server.url}, "mode": mode, "concurrency": 2, **more})

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

    def test_a_router_answers_for_models_that_take_turns(self):
        other = {**WORKFLOW["ops"]["again"], "model": "bench/other"}
        chain = {**WORKFLOW, "ops": {"look": WORKFLOW["ops"]["look"], "again": other}}
        for mode, switches in (("opwise", 1), ("row-by-row", 2 * len(ROWS) - 1)):
            with self.subTest(mode):
                router = llama_server.LlamaRouter(
                    os.path.join(support.BIN, "llama-server"), {"m": model(), "bench/other": model()}, llama_server.Settings(1, slots=2), slot_tokens=1024,
                    log=pathlib.Path(support.SCRATCH, f"router-{mode}.log"), limit_s=support.seconds(60), environment=exact_arguments()[1])
                try:
                    result = self.drive(mode, workflow=chain, servers={"m": router.url, "bench/other": router.url})
                    self.assertEqual(router.switches(), switches)
                finally:
                    router.end()
                for row, answers in enumerate(self.answers):
                    self.assertEqual(result["outputs"][row], {op: answers[op] for op in chain["ops"]})

    def test_what_peers_cannot_do_is_refused(self):
        for change in ({"temperature": 0.7}, {"schema": {}}, {"min_tokens": 3}):
            ops = {**WORKFLOW["ops"], "look": {**WORKFLOW["ops"]["look"], **change}}
            job = write("refused.json", json.dumps({"workflow": {**WORKFLOW, "ops": ops}, "rows": ROWS, "servers": {"m": self.server.url},
                                                    "mode": "row-by-row", "concurrency": 1}))
            done = subprocess.run(["node", DRIVER, job], capture_output=True, text=True, timeout=support.seconds(60))
            self.assertEqual(done.returncode, 1, change)
            self.assertIn(next(iter(change)), done.stderr)


def missing_for_tools():
    if not os.path.exists(os.path.join(support.SOURCE, "build", "peers", "node_modules", "@duckdb", "node-api")):
        return missing() or "the npm packages are of an earlier lock file: run bench/peers/install"
    return missing() or ("python3 has no module yaml" if importlib.util.find_spec("yaml") is None else None)


@unittest.skipIf(missing_for_tools(), missing_for_tools())
class PeersAskToolsTheSame(unittest.TestCase):
    """W1 to W6 as the benchmark has them: databases, a web service, a rule. The last of 3 rows asks what the first does."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(support.SCRATCH)
        cls.workload = os.path.join(support.BIN, "halo-workload")
        subprocess.run([cls.workload, "generate", "--dataset", "all", "--scale", "0.01", "--seed", "1", "--duckdb", support.SCRATCH], check=True,
                       capture_output=True)
        databases = [part for name in ("imdb", "wiki", "tpch") for part in (f"--{name}", f"duckdb:{cls.folder / name}.duckdb")]
        cls.service = subprocess.Popen([cls.workload, "serve", "--port", "0", *databases], stdout=subprocess.PIPE, text=True)
        cls.port = int(re.search(r":(\d+)", cls.service.stdout.readline()).group(1))
        cls.exact, environment = exact_arguments()
        cls.server = start_server(4096, environment)

    @classmethod
    def tearDownClass(cls):
        cls.server.end()
        cls.service.terminate()
        cls.service.wait(timeout=support.seconds(30))
        cls.service.stdout.close()

    def inputs(self, path):
        """The workflow and its rows."""
        import yaml
        workflow = tool_workloads.without_schemas(yaml.safe_load(path.read_text()), self.folder, self.port)
        tool_workloads.rows_of(self.workload, path.stem, 2, self.folder / "tool_rows.jsonl")
        rows = [json.loads(line) for line in (self.folder / "tool_rows.jsonl").read_text().splitlines()]
        rows.append({**rows[0], "id": "again"})
        tool_workloads.add_lengths(workflow, rows, seed=0, length_share=0.5)
        return workflow, rows

    def naive(self, workflow, rows, models):
        """What each row was answered, the ids it was asked, and every call of the dump."""
        dump, named = self.folder / "tool_calls.jsonl", [part for name in models for part in ("--model", f"{name}={model()}")]
        code, out, error = halo("run", write("tools.yaml", json.dumps(workflow)), "-i", write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows)),
                                "--naive", self.exact, "--threads", "1", "--all-outputs", "--dump-prompts", str(dump), "--worker-memory", "256M",
                                "--allow", "net", "--set", "latency_scale=0", *named)
        self.assertEqual(code, 0, error)
        calls = [json.loads(line) for line in dump.read_text().splitlines()]
        return [json.loads(line)["outputs"] for line in out.splitlines()], calls

    def compare(self, path):
        workflow, rows = self.inputs(path)
        models = list(dict.fromkeys(node["model"] for node in measuring.model_operators(workflow)))
        answers, calls = self.naive(workflow, rows, models)
        names = dict(zip((node["id"] for node in measuring.model_operators(workflow)), measuring.answer_names(workflow)))
        prompts = {(call["row"], names[call["operator"]]): call["prompt"] for call in calls if "prompt" in call}
        asked_of_tools = {(call["target"], call["request"]) for call in calls if call["kind"] in ("sql", "http")}
        for mode in ("row-by-row", "opwise", "langgraph"):
            result = drive(self, {"workflow": workflow, "rows": rows, "servers": dict.fromkeys(models, self.server.url), "mode": mode, "concurrency": 2,
                                  "prompts": mode != "langgraph"})
            for row, outputs, theirs in zip(rows, result["outputs"], answers):
                self.assertEqual(sorted(outputs), sorted(names.values()))
                for name in names.values() if mode != "langgraph" else ():
                    self.assertEqual(outputs[name], theirs[name], f"{mode}, row {row['id']}, {name}")
            for row, of_row in zip(rows, result.get("prompts", [])):
                for name, ids in of_row.items():
                    self.assertEqual(ids, prompts[row["id"], name], f"{mode}, row {row['id']}, {name}")
            # Of equal requests one is made. LangGraph's answers may lead to others.
            if mode != "langgraph":
                self.assertEqual(result["tool_calls"], len(asked_of_tools), mode)

    def test_ids_and_answers_are_those_of_a_naive_run(self):
        paths = sorted(pathlib.Path(support.SOURCE, "workflows").glob("w[1-6]_*.yaml"))
        self.assertEqual(len(paths), 6)
        for path in paths:
            with self.subTest(path.stem):
                self.compare(path)

    def test_what_a_tool_refuses_ends_the_run(self):
        path = next(pathlib.Path(support.SOURCE, "workflows").glob("w3_*.yaml"))
        workflow, rows = self.inputs(path)
        for node in workflow["graph"]["nodes"]:
            if node.get("type") == "http":
                node["params"] = {"unknown": "{{ user_query }}"}
        servers = {node["model"]: self.server.url for node in measuring.model_operators(workflow)}
        job = {"workflow": workflow, "rows": rows, "servers": servers, "mode": "opwise", "concurrency": 2}
        done = subprocess.run(["node", DRIVER, write("job.json", json.dumps(job))], capture_output=True, text=True, timeout=support.seconds(60))
        self.assertEqual(done.returncode, 1)
        self.assertIn("status 400", done.stderr)


class ToolWorkloads(unittest.TestCase):
    def test_rows_that_ask_the_same_have_the_same_lengths(self):
        workflow = {"graph": {"nodes": [{"id": "a", "min_tokens": "drawn"}, {"id": "b"}]}}
        rows = [{"id": i, "user_query": text} for i, text in enumerate(["x", "y", "x"])]
        tool_workloads.add_lengths(workflow, rows, seed=0, length_share=1)
        self.assertEqual([list(row["lengths"]) for row in rows], [["a"]] * 3)
        self.assertEqual(rows[0]["lengths"], rows[2]["lengths"])
        self.assertTrue(all(16 <= row["lengths"]["a"] <= 64 for row in rows))

    def test_a_call_that_was_not_made_waits_as_long_as_the_one_that_was(self):
        call = {"kind": "http", "operator": "ask", "request": "same"}
        calls = [{**call, "row": "1", "merged": False, "latency_s": 2.5}, {**call, "row": "2", "merged": True}, {"kind": "sql", "row": "1"}]
        rows = tool_workloads.add_latencies([{"id": 1}, {"id": "2"}], calls)
        self.assertEqual([row["latencies"] for row in rows], [{"ask": 2.5}] * 2)


class Sweep(unittest.TestCase):
    def test_what_loses_a_short_trial_is_not_tried_again(self):
        seconds, tried = {"slow": 40, "slower": 20, "near": 11, "best": 10}, []

        def elapsed(candidate, rows):
            tried.append((candidate, rows))
            # Over a few rows the one that is best over many is not.
            return seconds[candidate] * rows * (1.2 if candidate == "best" and rows < 64 else 1)

        self.assertEqual(measuring.fastest(list(seconds), 64, elapsed), "best")
        self.assertEqual({one for one, rows in tried if rows == 4}, set(seconds))
        self.assertEqual({one for one, rows in tried if rows == 16}, {"slower", "near", "best"})
        self.assertEqual({one for one, rows in tried if rows == 64}, {"near", "best"})
        self.assertEqual(measuring.fastest(["slow", "best"], 8, lambda one, rows: seconds[one]), "best")


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
