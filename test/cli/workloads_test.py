"""The six evaluation workloads (docs/workloads.md), run whole: data made by halo-workload, its web service answering, DuckDB below.

`workloads_test.py BIN SOURCE --update` rewrites the golden plans in test/cli/golden."""
import json
import os
import re
import subprocess
import sys
import unittest

import support
from support import halo, model

# From section 8 of the evaluation: operators, LLM calls, queries, HTTP calls, rules; and what tools wait for.
WORKLOADS = {
    "w1_imdb_diamond": ("imdb", 17, 8, 7, 2, 0, "keyword_planner"),
    "w2_imdb_triplechain": ("imdb", 13, 10, 2, 1, 0, "keyword_planner"),
    "w3_finewiki_longchain": ("wiki", 15, 9, 4, 2, 0, None),
    "w4_finewiki_bridge": ("wiki", 12, 9, 2, 1, 0, None),
    "w5_tpch_trident": ("tpch", 17, 7, 7, 2, 1, "rule_param_extractor"),
    "w6_tpch_fanout": ("tpch", 22, 9, 10, 2, 1, "rule_param_extractor"),
}
MODELS = ("openai/gpt-oss-20b", "Qwen/Qwen3-14B", "Qwen/Qwen3-32B")
ROWS = 64
NAIVE_ROWS = 8
WORKLOAD = os.path.join(support.BIN, "halo-workload")
GOLDEN = os.path.join(support.SOURCE, "test", "cli", "golden")
UPDATE = "--update" in sys.argv


def workload(*args):
    done = subprocess.run([WORKLOAD, *args], capture_output=True, text=True, timeout=support.seconds(120), cwd=support.SCRATCH)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read_rows(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


class Service:
    """halo-workload serve on a free port."""

    def __init__(self, *databases):
        self.process = subprocess.Popen([WORKLOAD, "serve", "--port", "0", *databases], stdout=subprocess.PIPE, text=True,
                                        cwd=support.SCRATCH)
        line = self.process.stdout.readline()
        self.port = re.search(r":(\d+)", line).group(1)

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=support.seconds(30))
        self.process.stdout.close()


def copy_workflows(port):
    """The workloads with the port of a service of the test's own: theirs would be taken where two tests run side by side."""
    for name in WORKLOADS:
        with open(os.path.join(support.SOURCE, "workflows", f"{name}.yaml"), encoding="utf-8") as file:
            support.write(f"{name}.yaml", file.read().replace("127.0.0.1:8765", f"127.0.0.1:{port}"))


def run_workload(test, name, out, *args, rows=ROWS, source=None):
    """Runs a copied workload; its rows and its summary."""
    summary = os.path.join(support.SCRATCH, f"{out}.json")
    source = source or os.path.join(support.SOURCE, "workflows", "rows", f"{name[:2]}.jsonl")
    models = [part for name in MODELS for part in ("--model", f"{name}={model()}")]
    code, _, error = halo("run", f"{name}.yaml", "-i", source, "--limit", str(rows), "-o", f"{out}.jsonl", "--summary-json", summary,
                          "--all-outputs", *models, "--worker-memory", "256M", "--allow", "net", "--set", "latency_scale=0.001", *args,
                          timeout=300)
    test.assertEqual(code, 0, error)
    with open(summary, encoding="utf-8") as file:
        return read_rows(os.path.join(support.SCRATCH, f"{out}.jsonl")), json.load(file)


class Workloads(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        data = os.path.join(support.SCRATCH, "data")
        workload("generate", "--dataset", "all", "--scale", "0.01", "--seed", "1", "--duckdb", data + "/")
        cls.service = Service(*(part for name in ("imdb", "wiki", "tpch")
                                for part in (f"--{name}", f"duckdb:{data}/{name}.duckdb")))
        copy_workflows(cls.service.port)

    @classmethod
    def tearDownClass(cls):
        cls.service.stop()

    def test_every_row_is_ok_and_equal_to_the_reference(self):
        support.exact_answers_or_skip(self)
        for name, (_, operators, llm, sql, http, rules, _) in WORKLOADS.items():
            with self.subTest(name):
                rows, summary = run_workload(self, name, name, "--deterministic")
                self.assertEqual(summary["rows"], {"total": ROWS, "ok": ROWS, "failed": 0, "unfinished": 0})
                kinds = [operator["kind"] for operator in summary["operators"]]
                self.assertEqual(len(kinds), operators)
                self.assertEqual([kinds.count(kind) for kind in ("llm", "sql", "http", "function")], [llm, sql, http, rules])
                self.assertEqual(len(summary["tools"]), sql + http + rules)
                naive, _ = run_workload(self, name, f"{name}-naive", "--deterministic", "--naive", rows=NAIVE_ROWS)
                self.assertEqual(rows[:NAIVE_ROWS], naive)

    def test_rules_and_planners_change_no_row(self):
        support.exact_answers_or_skip(self)
        code, plan, error = halo("explain", "w5_tpch_trident.yaml", "--format", "json", "--no-history")
        self.assertEqual(code, 0, error)
        rules = [rule["name"] for rule in json.loads(plan)["rules"]]
        self.assertIn("urgent_first", rules)
        ways = [("--rules-off", rule) for rule in rules] + [("--planner", name) for name in ("dp", "beam", "list", "milp")]
        for number, name in enumerate(WORKLOADS):
            expected, _ = run_workload(self, name, f"{name}-rules", "--deterministic", rows=4)
            # Each way on one workload, and all rules off on every one.
            for way in [("--rules-off", ",".join(rules)), *ways[number::len(WORKLOADS)]]:
                with self.subTest(f"{name} {' '.join(way)}"):
                    rows, _ = run_workload(self, name, f"{name}-off", "--deterministic", *way, rows=4)
                    self.assertEqual(rows, expected)

    def test_plans_and_the_earliest_start_of_each_tool(self):
        for name, (*_, rules, before) in WORKLOADS.items():
            with self.subTest(name):
                workflows = os.path.join(support.SOURCE, "workflows")
                code, plan, error = halo("explain", os.path.join(workflows, f"{name}.yaml"), "-i",
                                         os.path.join(workflows, "rows", f"{name[:2]}.jsonl"), "--no-history")
                self.assertEqual(code, 0, error)
                golden = os.path.join(GOLDEN, f"explain_{name}.txt")
                if UPDATE:
                    os.makedirs(GOLDEN, exist_ok=True)
                    with open(golden, "w", encoding="utf-8") as file:
                        file.write(plan)
                with open(golden, encoding="utf-8") as file:
                    self.assertEqual(plan, file.read())
                starts = re.findall(r"^ *\d+  (SQL|HTTP|FN) .*\n(?: {7}asks .*\n)? {7}starts  (.*)$", plan, re.MULTILINE)
                wanted = f"after {before}" if before else "with its row"
                self.assertEqual({start for kind, start in starts if kind != "FN"}, {wanted})
                self.assertEqual({start for kind, start in starts if kind == "FN"}, {"with its row"} if rules else set())

    def test_repeated_parameters_ask_once_and_sharing_changes_nothing(self):
        rows = os.path.join(support.SCRATCH, "repeats.jsonl")
        workload("rows", "--workload", "w6", "--count", "1000", "--repeat-share", "0.9", "--seed", "3", "-o", rows)
        shared, summary = run_workload(self, "w6_tpch_fanout", "shared", source=rows, rows=1000)
        queries = [operator for operator in summary["operators"] if operator["kind"] == "sql"]
        self.assertEqual(sum(query["logical"] for query in queries), 10 * 1000)
        self.assertEqual(sum(query["calls"] for query in queries), self.distinct_statements(shared))
        few = 60
        alone, summary = run_workload(self, "w6_tpch_fanout", "alone", "--set", "tool_cache=off", source=rows, rows=few)
        queries = [operator for operator in summary["operators"] if operator["kind"] == "sql"]
        self.assertEqual(sum(query["calls"] for query in queries), 10 * few)
        self.assertEqual(alone, shared[:few])

    def distinct_statements(self, rows):
        """W6 asks five texts, each twice under two names, with the parameters that each reads."""
        reads = {"nation_revenue": ("year", "segment"), "brand_volume_share": ("year", "brand"),
                 "return_revenue_by_nation": ("year", "segment"), "brand_inventory_by_supplier_nation": ("brand",),
                 "discounted_revenue": ("year", "qty", "discount_lo", "discount_hi")}
        return len({(text, tuple(str(row["outputs"]["tpch_params"][name]) for name in names))
                    for row in rows for text, names in reads.items()})


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
