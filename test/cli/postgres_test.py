"""Workflows that ask a real PostgreSQL: the six workloads, checks against the live catalogue, plan hints, and a server that goes away."""
import json
import os
import subprocess
import sys
import time
import unittest

import support
import workloads_test
from support import halo, write


class Server:
    """test/support/postgres_server.py, by its pipe."""

    def __init__(self, *args):
        self.process = subprocess.Popen([sys.executable, os.path.join(support.SOURCE, "test", "support", "postgres_server.py"), *args],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()

    def tell(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self):
        self.process.stdin.close()
        self.process.wait(timeout=support.seconds(60))
        self.process.stdout.close()


def rows_of(text):
    return [json.loads(line) for line in text.splitlines()]


class Postgres(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        workloads_test.workload("generate", "--dataset", "all", "--scale", "0.01", "--seed", "1", "--postgres", cls.server.url)
        cls.service = workloads_test.Service(*(part for name in ("imdb", "wiki", "tpch") for part in (f"--{name}", cls.server.url)))
        workloads_test.copy_workflows(cls.service.port)
        cls.four = write("four.jsonl", "".join(json.dumps({"t": text}) + "\n" for text in "abcd"))

    @classmethod
    def tearDownClass(cls):
        cls.service.stop()
        cls.server.end()

    def graph(self, nodes):
        lines = "\n".join("    " + line for line in nodes.strip("\n").split("\n"))
        return write("asked.yaml", "graph:\n  connections: {db: \"postgres://nobody@127.0.0.1:1/none\"}\n  nodes:\n"
                                   f"    - {{id: in, type: input, outputs: [t]}}\n{lines}\n")

    def ask(self, nodes, *args, url=None, expect=0):
        code, out, error = halo("run", self.graph(nodes), "-i", self.four, "--all-outputs", "--connect", f"db={url or self.server.url}",
                                *args)
        self.assertEqual(code, expect, error)
        return rows_of(out), error

    def test_workloads(self):
        support.exact_answers_or_skip(self)
        for name, (database, *_) in workloads_test.WORKLOADS.items():
            with self.subTest(name):
                connect = ("--deterministic", "--connect", f"{database}={self.server.url}")
                rows, summary = workloads_test.run_workload(self, name, f"{name}-postgres", *connect)
                self.assertEqual(summary["rows"], {"total": 64, "ok": 64, "failed": 0, "unfinished": 0})
                naive, _ = workloads_test.run_workload(self, name, f"{name}-postgres-naive", "--naive", *connect, rows=4)
                self.assertEqual(rows[:4], naive)

    def test_statements_are_checked_against_the_live_catalogue(self):
        workflow = self.graph('- {id: x, type: db_query, sql: "SELECT n_nmae FROM nation WHERE n_name = :t", parameters: {t: "{{ t }}"}}')
        code, _, error = halo("validate", workflow, "--connect", "--allow", "net")
        self.assertEqual(code, 2)
        self.assertIn("connection 'db'", error)
        code, _, error = halo("validate", workflow, f"--connect=db={self.server.url}")
        self.assertEqual(code, 2)
        self.assertIn("n_nmae", error)
        good = self.graph('- {id: x, type: db_query, sql: "SELECT n_name FROM nation WHERE n_name = :t", parameters: {t: "{{ t }}"}}')
        self.assertEqual(halo("validate", good, f"--connect=db={self.server.url}")[0], 0)

    def test_plan_hints_are_applied(self):
        node = ('- {{id: x, type: db_query, sql: "EXPLAIN SELECT * FROM orders WHERE o_orderkey = 1", '
                'plans: [{{id: hinted, settings: {{enable_indexscan: "off", enable_bitmapscan: "{}"}}}}]}}')
        plans = [json.dumps(self.ask(node.format(bitmap), "--limit", "1")[0][0]["outputs"]) for bitmap in ("on", "off")]
        self.assertNotEqual(plans[0], plans[1])
        self.assertIn("Seq Scan", plans[1])

    def test_of_several_plans_the_cheapest_is_run(self):
        slow, quick = '{id: slow, settings: {enable_indexscan: "off", enable_bitmapscan: "off"}}', '{id: quick, settings: {enable_seqscan: "off"}}'
        for plans in (f"{slow}, {quick}", f"{quick}, {slow}"):
            workflow = self.graph('- {id: x, type: db_query, sql: "SELECT o_custkey FROM orders WHERE o_orderkey = :t", '
                                  f'parameters: {{t: 1}}, param_types: {{t: int}}, plans: [{plans}]}}')
            connect = ("--connect", f"db={self.server.url}")
            code, out, error = halo("explain", workflow, "-i", self.four, *connect, "--ask-databases", "--no-history")
            self.assertEqual(code, 0, error)
            self.assertIn("it runs under plan 'quick' of 2, the cheapest by EXPLAIN", out)
            self.assertIn("units of PostgreSQL's EXPLAIN", out)
            code, out, error = halo("explain", workflow, "-i", self.four, *connect, "--analyze", "--quiet")
            self.assertEqual(code, 0, error)
            self.assertIn("it runs under plan 'quick' of 2", out)
        # The run is under it: a function that says it depends on nothing tells of the settings that it sees.
        self.ask('- {id: x, type: db_query, effect: write, sql: "CREATE FUNCTION seen() RETURNS text LANGUAGE sql IMMUTABLE AS '
                 '$$ SELECT current_setting(\'enable_seqscan\') $$"}', "--limit", "1")
        told = ('- {id: x, type: db_query, sql: "SELECT seen() AS s FROM orders WHERE o_orderkey = 1", plans: [' + f"{slow}, {quick}" + ']}')
        for how in ((), ("--naive",)):
            rows, _ = self.ask(told, "--limit", "1", *how)
            self.assertEqual(rows[0]["outputs"]["x"]["rows"], [{"s": "off"}])

    def test_what_is_volatile_is_made_for_each_row(self):
        nodes = """
- {id: shared, type: db_query, sql: "SELECT count(*) FROM nation"}
- {id: clock, type: db_query, sql: "SELECT pg_catalog.clock_timestamp()::text"}
- {id: text, type: db_query, sql: "SELECT 'now()', $$random()$$ /* nextval('s') /* nested */ */"}
"""
        summary = os.path.join(support.SCRATCH, "volatile.json")
        self.ask(nodes, "--summary-json", summary)
        with open(summary, encoding="utf-8") as file:
            calls = {operator["id"]: operator["calls"] for operator in json.load(file)["operators"]}
        self.assertEqual(calls, {"shared": 1, "clock": 4, "text": 1})

    def test_a_server_that_is_down_fails_the_rows_that_ask_it(self):
        node = '- {id: x, type: db_query, sql: "SELECT :t", parameters: {t: "{{ t }}"}, when: "t == \'b\'", retry: {max: 1, backoff_s: 0}}'
        rows, error = self.ask(node, url="postgres://nobody@127.0.0.1:1/none", expect=3)
        self.assertEqual([row["status"] for row in rows], ["ok", "failed", "ok", "ok"])
        self.assertEqual(rows[1]["error"]["code"], "connection")
        self.assertIn("tried again when rows need them", error)

    def test_a_server_that_dies_in_the_middle_fails_what_it_had(self):
        server = Server()
        try:
            workflow = self.graph("""
- {id: x, type: db_query, sql: "SELECT pg_sleep(CASE :t WHEN 'a' THEN 0 ELSE 60 END), :t AS t", parameters: {t: "{{ t }}"}, param_types: {t: text}, retry: {max: 0}}
- {id: y, type: processor, processor: join, inputs: [t]}
""")
            process = subprocess.Popen([support.HALO, "run", workflow, "-i", self.four, "--all-outputs", "--quiet", "--order", "completion",
                                        "--connect", f"db={server.url}"], stdout=subprocess.PIPE, text=True, cwd=support.SCRATCH)
            first = json.loads(process.stdout.readline())
            self.assertEqual(first["status"], "ok")
            self.assertEqual(server.tell("stop"), "stopped")
            rest = rows_of(process.stdout.read())
            process.stdout.close()
            self.assertEqual(process.wait(timeout=support.seconds(60)), 3)
            self.assertEqual({(row["status"], row["error"]["code"]) for row in rest}, {("failed", "connection")})
            self.assertEqual(len(rest), 3)
            self.assertEqual(sorted(row["outputs"]["y"] for row in rest), ["b", "c", "d"])
        finally:
            server.end()

    def test_no_session_is_left(self):
        for _ in range(2):
            self.ask('- {id: x, type: db_query, sql: "SELECT :t", parameters: {t: "{{ t }}"}}')
        limit = time.monotonic() + support.seconds(60)
        left = None
        while left != 1 and time.monotonic() < limit:
            rows, _ = self.ask('- {id: x, type: db_query, sql: "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = \'halo\'"}',
                               "--limit", "1")
            left = rows[0]["outputs"]["x"]["rows"][0]["n"]
        self.assertEqual(left, 1, "only the session that asks")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
