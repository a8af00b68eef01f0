"""Answers of earlier runs: what is taken, what is not, files that are not what they should be, several programs at once."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import support
from support import model, write

WORKFLOW = """
start_ops: [first]
end_ops: [last]
ops:
  first: {model: m, prompt: "Say something about it.", max_tokens: 20, output_ops: [last]}
  last: {model: m, prompt: "And now shorter.", max_tokens: 10, temperature: 0, input_ops: [first]}
"""


def lines(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


class Cache(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(dir=support.SCRATCH)
        self.workflow = self.write("flow.yaml", WORKFLOW)
        self.rows = self.write("rows.jsonl", "".join(json.dumps({"id": i, "prompt": f"Row number {i}."}) + "\n" for i in range(20)))
        self.model = ["--model", f"m={model()}"]

    def write(self, name, text):
        return write(os.path.join(os.path.basename(self.folder), name), text)

    def path(self, name):
        return os.path.join(self.folder, name)

    def environment(self):
        kept = {name: value for name, value in support.own_environment().items() if name not in ("HALO_CACHE", "HALO_EPHEMERAL")}
        return kept | {"XDG_CACHE_HOME": self.path("caches")}

    def halo(self, *args, expect=0, env=None):
        done = subprocess.run([support.HALO, *args], capture_output=True, text=True, cwd=self.folder, env=self.environment() | (env or {}),
                              timeout=support.seconds(120), check=False)
        self.assertEqual(done.returncode, expect, done.stderr)
        return done

    def run_it(self, *args, workflow=None, rows=None, env=None, expect=0):
        """Runs; returns how many calls each operator made and how many were taken, and what was said."""
        done = self.halo("run", workflow or self.workflow, "-i", rows or self.rows, "-o", "out.jsonl", "--summary-json", "summary.json",
                         *self.model, *args, env=env, expect=expect)
        summary = json.loads(lines(self.path("summary.json")))
        for op in summary["operators"]:
            self.assertEqual(op["distinct"], op["executed"] + op["cached"] + op["skipped"] + op["unfinished"])
            self.assertEqual(op["logical"], op["merged"] + op["distinct"])
        calls = {op["id"]: op["calls"] for op in summary["operators"]}
        self.taken = {op["id"]: op["from_cache"] for op in summary["operators"]}
        self.assertEqual(summary["cache"]["calls"], sum(self.taken.values()))
        return calls, done.stderr

    def test_the_second_run_makes_no_call(self):
        calls, said = self.run_it()
        self.assertEqual(calls, {"first": 20, "last": 20})
        self.assertNotIn("from the cache", said)
        wanted = lines(self.path("out.jsonl"))
        calls, said = self.run_it()
        self.assertEqual((calls, self.taken), ({"first": 0, "last": 0}, {"first": 20, "last": 20}))
        self.assertRegex(said, r"40 calls were answered from the cache \(\d+ tokens\)")
        self.assertEqual(lines(self.path("out.jsonl")), wanted)
        self.assertTrue(os.path.exists(self.path("caches/halo/answers.db")))
        # What it took is in its journal: it goes on without the cache.
        self.halo("cache", "clear")
        self.halo("retry", "last")
        self.assertEqual(lines(self.path("out.jsonl")), wanted)
        self.assertEqual(json.loads(lines(self.path("runs/last/summary.json")))["summary"]["operators"][0]["calls"], 0)

    def test_what_is_asked_otherwise_is_asked_again(self):
        self.run_it()
        self.assertEqual(self.run_it("--seed", "5")[0]["first"], 20, "other draws")
        self.assertEqual(self.run_it(workflow=self.write("b.yaml", WORKFLOW.replace("something", "anything")))[0], {"first": 20, "last": 20})
        calls, _ = self.run_it(workflow=self.write("c.yaml", WORKFLOW.replace("max_tokens: 10", "max_tokens: 9")))
        self.assertEqual(calls, {"first": 0, "last": 20})
        schema = "temperature: 0, schema: {gbnf: 'root ::= [a-z]+'}"
        calls, _ = self.run_it(workflow=self.write("d.yaml", WORKFLOW.replace("temperature: 0", schema)))
        self.assertEqual(calls, {"first": 0, "last": 20})
        calls, _ = self.run_it(workflow=self.write("e.yaml", WORKFLOW.replace("max_tokens: 20", "max_tokens: 20, top_k: 7")))
        self.assertEqual(calls["first"], 20)
        self.assertEqual(self.run_it("--no-deterministic")[0]["first"], 20, "another rounding")
        other = self.path("other.gguf")
        self.halo("models", "synth", "--shape", "tiny", "--layers", "2", "--seed", "99", "-o", other)
        self.model = ["--model", f"m={other}"]
        self.assertEqual(self.run_it()[0], {"first": 20, "last": 20})
        changed = self.write("changed.jsonl", lines(self.rows).replace("number 7.", "number seven."))
        self.assertEqual(self.run_it(rows=changed)[0], {"first": 1, "last": 1})

    def test_switched_off(self):
        self.run_it()
        for how in (["--no-cache"], ["--cache", "off"], ["--set", "cache=off"], ["--ephemeral"], ["--naive"]):
            self.assertEqual(self.run_it(*how)[0], {"first": 20, "last": 20}, how)
        self.assertEqual(self.run_it(env={"HALO_CACHE": "off"})[0], {"first": 20, "last": 20})
        self.assertEqual(self.run_it("--cache", "elsewhere")[0], {"first": 20, "last": 20})
        self.assertTrue(os.path.exists(self.path("elsewhere/answers.db")))
        self.assertEqual(self.run_it("--ephemeral", "--cache", "elsewhere")[0], {"first": 0, "last": 0})
        off = self.write("off.yaml", WORKFLOW.replace("max_tokens: 20", "max_tokens: 20, cache: off"))
        self.assertEqual(self.run_it(workflow=off)[0], {"first": 20, "last": 0})
        self.assertIn("switched off", self.halo("cache", "stats", "--no-cache", expect=2).stderr)
        self.assertIn("--cache-size", self.halo("cache", "stats", "--cache-size", "12", expect=2).stderr)

    def test_samples_and_votes(self):
        several = self.write("several.yaml", WORKFLOW.replace("max_tokens: 20", "max_tokens: 20, vote: true, samples: 3"))
        self.assertEqual(self.run_it(workflow=several)[0]["first"], 60)
        wanted = lines(self.path("out.jsonl"))
        more = self.write("more.yaml", WORKFLOW.replace("max_tokens: 20", "max_tokens: 20, vote: true, samples: 4"))
        self.assertEqual(self.run_it(workflow=more)[0]["first"], 20, "the fourth of each")
        self.assertEqual(self.run_it(workflow=several)[0], {"first": 0, "last": 0})
        self.assertEqual(lines(self.path("out.jsonl")), wanted)

    def test_explain(self):
        explain = ["cache", "explain", self.workflow, "-i", self.rows, *self.model]
        said = self.halo(*explain).stdout
        self.assertIn("first: 0 of 20 calls are kept\n    20 not kept: nothing like it is kept", said)
        self.assertIn("20 depend on calls that are not kept", said)
        self.run_it()
        self.assertEqual(self.halo(*explain).stdout, "first: 20 of 20 calls are kept\nlast: 20 of 20 calls are kept\n")
        self.assertEqual(self.halo("cache", "explain", "last").stdout, "first: 20 of 20 calls are kept\nlast: 20 of 20 calls are kept\n")
        self.assertIn("20 not kept: differs in: draws; for example row 0", self.halo(*explain, "--seed", "9").stdout)
        hot = self.write("hot.yaml", WORKFLOW.replace("max_tokens: 20", "max_tokens: 20, temperature: 0.9"))
        self.assertIn("differs in: sampling;", self.halo("cache", "explain", hot, "-i", self.rows, *self.model).stdout)
        changed = self.write("changed.jsonl", lines(self.rows).replace("number 7.", "number seven."))
        said = self.halo("cache", "explain", self.workflow, "-i", changed, *self.model).stdout
        self.assertIn("first: 19 of 20 calls are kept\n    1 not kept: differs in: prompt; for example row 7\n", said)
        self.assertEqual(len(os.listdir(self.path("runs"))), 2, "one run and the link to it")

    def test_stats_and_clear(self):
        self.assertIn("no answers are kept yet", self.halo("cache", "stats").stdout)
        self.assertFalse(os.path.exists(self.path("caches")))
        self.run_it()
        self.assertRegex(self.halo("cache", "stats").stdout, r"40 answers of models, 0 results of tools, \d+\.\d MB\nmade from 2\d{3}-")
        self.assertIn("cleared", self.halo("cache", "clear").stdout)
        self.assertRegex(self.halo("cache", "stats").stdout, r"0 answers of models, 0 results of tools")
        self.assertEqual(self.run_it()[0], {"first": 20, "last": 20})

    def test_tools(self):
        program = self.write("work.py", """
import json, sys
for line in sys.stdin:
    t = json.loads(line)["inputs"]["t"]
    with open("asked", "a") as log: log.write("x")
    print(json.dumps({"error": "no"} if t == 3 else t * 2), flush=True)
""")
        with open(self.path("sales.csv"), "w", encoding="utf-8") as file:
            file.write("t,amount\n" + "".join(f"{t},{t * 10}\n" for t in range(20)))
        flow = f"""
graph:
  connections: {{shop: {{files: {{sales: sales.csv}}}}}}
  nodes:
    - {{id: rows, type: input, outputs: [t]}}
    - {{id: x, type: processor, processor: exec, inputs: [t], coalesce: true, retry: {{max: 0}}, config: {{command: [python3, {program}]}}}}
    - {{id: q, type: db_query, connection: shop, sql: "SELECT amount FROM sales WHERE t = :t", parameters: {{t: "{{{{ t }}}}"}}, inputs: [t],
       outputs: [sum], CACHE}}
"""
        plain, timed = self.write("plain.yaml", flow.replace(", CACHE", "")), self.write("timed.yaml", flow.replace("CACHE", "cache: 3600"))
        rows = self.write("numbers.jsonl", "".join(json.dumps({"t": i}) + "\n" for i in range(10)))
        self.model = []
        allow = ["--allow", "exec"]
        self.assertEqual(self.run_it(*allow, workflow=plain, rows=rows, expect=3)[0], {"x": 10, "q": 10})
        self.assertEqual(lines(self.path("asked")), "x" * 10)
        # Errors are asked again, reads without a time, too.
        self.assertEqual(self.run_it(*allow, workflow=plain, rows=rows, expect=3)[0], {"x": 1, "q": 10})
        self.assertEqual(self.run_it(*allow, workflow=timed, rows=rows, expect=3)[0], {"x": 1, "q": 10})
        self.assertEqual(self.run_it(*allow, workflow=timed, rows=rows, expect=3)[0], {"x": 1, "q": 0})
        brief = self.write("brief.yaml", flow.replace("CACHE", "cache: 0.001"))
        self.assertEqual(self.run_it(*allow, workflow=brief, rows=rows, expect=3)[0], {"x": 1, "q": 10}, "too old")
        self.write("work.py", lines(program) + "# another program\n")
        self.assertEqual(self.run_it(*allow, workflow=timed, rows=rows, expect=3)[0], {"x": 10, "q": 0})

    def test_files_that_are_no_cache(self):
        os.makedirs(self.path("caches/halo"))
        with open(self.path("caches/halo/answers.db"), "wb") as file:
            file.write(os.urandom(9999))
        calls, said = self.run_it()
        self.assertEqual(calls, {"first": 20, "last": 20})
        self.assertIn("answers.db.damaged", said)
        self.assertEqual(self.run_it()[0], {"first": 0, "last": 0})
        calls, said = self.run_it("--cache", self.rows)
        self.assertEqual(calls, {"first": 20, "last": 20})
        self.assertIn("answers are not kept for later runs", said)

    def test_two_programs_at_once(self):
        command = [support.HALO, "run", self.workflow, "-i", self.rows, "--new", *self.model]
        runs = [subprocess.Popen([*command, "-o", f"out{i}.jsonl"], cwd=self.folder, env=self.environment(), stderr=subprocess.PIPE, text=True)
                for i in range(2)]
        for run in runs:
            _, error = run.communicate(timeout=support.seconds(120))
            self.assertEqual(run.returncode, 0, error)
            self.assertNotIn("not kept", error)
        self.assertEqual(lines(self.path("out0.jsonl")), lines(self.path("out1.jsonl")))
        self.assertEqual(self.run_it()[0], {"first": 0, "last": 0})
        self.assertEqual(lines(self.path("out.jsonl")), lines(self.path("out0.jsonl")))

    def test_killed_while_it_keeps(self):
        many = self.write("many.jsonl", "".join(json.dumps({"id": i, "prompt": f"Row number {i}."}) + "\n" for i in range(200)))
        wanted_calls, _ = self.run_it("--no-cache", rows=many)
        wanted = lines(self.path("out.jsonl"))
        run = subprocess.Popen([support.HALO, "run", self.workflow, "-i", many, "-o", "killed.jsonl", *self.model, "--sequences", "8"],
                               cwd=self.folder, env=self.environment(), stderr=subprocess.DEVNULL)
        part = self.path("killed.jsonl.part")
        limit = time.monotonic() + support.seconds(60)
        while time.monotonic() < limit and not (os.path.exists(part) and lines(part).count("\n") > 20):
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        run.wait()
        calls, said = self.run_it(rows=many)
        self.assertNotIn("damaged", said)
        self.assertLess(calls["first"], wanted_calls["first"])
        self.assertEqual(lines(self.path("out.jsonl")), wanted)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
