"""Runs that are kept: their folders, what is left after an end of any kind, resume and retry."""
import json
import os
import shutil
import signal
import stat
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
  last: {model: m, prompt: "And now shorter.", max_tokens: 10, input_ops: [first]}
"""


def lines(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


class Durable(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(dir=support.SCRATCH)
        self.workflow = self.write("flow.yaml", WORKFLOW)
        self.rows = self.write("rows.jsonl", "".join(json.dumps({"id": i, "prompt": f"Row number {i}."}) + "\n" for i in range(60)))
        self.model = ["--model", f"m={model()}"]
        # Small batches, so that rows end one after the other.
        self.small = ["--sequences", "4", "--worker-memory", "64M", "--kept-memory", "64M", "--threads", "1"]

    def write(self, name, text):
        return write(os.path.join(os.path.basename(self.folder), name), text)

    def environment(self):
        return {name: value for name, value in support.own_environment().items() if name != "HALO_EPHEMERAL"}

    def halo(self, *args, expect=0, **options):
        done = subprocess.run([support.HALO, *args], capture_output=True, text=True, cwd=self.folder, env=self.environment(),
                              timeout=support.seconds(120), check=False, **options)
        self.assertEqual(done.returncode, expect, done.stderr)
        return done

    def start(self, *args, **options):
        options = {"stderr": subprocess.PIPE, **options}
        run = subprocess.Popen([support.HALO, *args], text=True, cwd=self.folder, env=self.environment(), **options)
        self.addCleanup(run.kill)
        return run

    def path(self, name):
        return os.path.join(self.folder, name)

    def wait_for_rows(self, run, path, count):
        limit = time.monotonic() + support.seconds(100)
        while time.monotonic() < limit and run.poll() is None:
            if os.path.exists(path) and lines(path).count("\n") >= count:
                return
            time.sleep(0.005)
        self.fail(f"there were never {count} rows: {run.stderr.read()}")

    def undisturbed(self, *args):
        self.halo("run", self.workflow, "-i", self.rows, "-o", "wanted.jsonl", "--ephemeral", *self.small, *self.model, *args)
        return lines(self.path("wanted.jsonl"))

    def counts(self, *names):
        with open(self.path("summary.json"), encoding="utf-8") as file:
            summary = json.load(file)
        self.assertEqual(summary["rows"]["total"], summary["rows"]["ok"] + summary["rows"]["failed"] + summary["rows"]["unfinished"])
        for op in summary["operators"]:
            self.assertEqual(op["distinct"], op["executed"] + op["cached"] + op["skipped"] + op["unfinished"])
        return [{op["id"]: op[name] for op in summary["operators"]} for name in names]

    def test_a_run_is_a_folder(self):
        self.halo("run", self.workflow, "-i", self.rows, "-o", "out.jsonl", *self.model)
        last = os.path.realpath(self.path("runs/last"))
        self.assertEqual(stat.S_IMODE(os.stat(last).st_mode), 0o700)
        self.assertEqual(sorted(os.listdir(last)), ["failed.jsonl", "journal.db", "lock", "manifest.json", "plan.json", "report.html", "summary.json"])
        manifest = json.loads(lines(os.path.join(last, "manifest.json")))
        self.assertEqual(manifest["inputs"][0]["text"], WORKFLOW)
        self.assertEqual(manifest["working_folder"], self.folder)
        self.assertRegex(manifest["options"]["date"], r"^\d{4}-\d\d-\d\d$")
        self.assertEqual(len(manifest["models"][0]["digest"]), 32)
        listed = self.halo("runs", "ls").stdout
        self.assertIn("finished, 60 of 60 rows", listed)
        self.assertIn(os.path.basename(last), listed)
        self.assertIn("out.jsonl", self.halo("runs", "show", "last").stdout)
        self.assertIn("nothing is left to do", self.halo("resume", "last").stderr)

    def test_runs_are_deleted(self):
        same = ["run", self.workflow, "-i", self.rows, *self.small, *self.model]
        self.halo(*same, "-o", "one.jsonl")
        one = os.path.realpath(self.path("runs/last"))
        self.halo(*same, "-o", "two.jsonl", "--trace", "two.json")
        two = os.path.realpath(self.path("runs/last"))
        self.assertEqual(os.readlink(os.path.join(two, "trace.json")), self.path("two.json"))
        self.halo(*same, "-o", "three.jsonl", "--budget", "calls=30", expect=4)
        three = os.path.realpath(self.path("runs/last"))
        self.assertIn("name runs, or say --older-than", self.halo("runs", "rm", expect=2).stderr)
        self.assertIn("stopped by a limit; --force", self.halo("runs", "rm", os.path.basename(one), "last", expect=2).stderr)
        self.assertTrue(os.path.exists(one), "all of them, or none")
        self.assertEqual(self.halo("runs", "rm", "--older-than", "1").stdout, "")
        done = self.halo("runs", "rm", "--older-than", "0")
        self.assertIn("stays: stopped by a limit", done.stderr)
        self.assertEqual(done.stdout.count("deleted "), 2)
        self.assertEqual((os.path.exists(one), os.path.exists(two), os.path.exists(three)), (False, False, True))
        self.assertEqual(os.path.realpath(self.path("runs/last")), three)
        self.halo("runs", "rm", "last", "--force")
        self.assertEqual(os.listdir(self.path("runs")), [])
        self.halo(*same, "-o", "three.jsonl")

    def test_a_budget_in_money(self):
        self.write("models.yaml", f"m: {{file: {model()}, price: {{prompt: 2, output: 10}}}}\n")
        self.model = ["--models", "models.yaml"]
        wanted = self.undisturbed()
        run = ["run", self.workflow, "-i", self.rows, "-o", "out.jsonl", *self.small]
        refused = self.halo(*run, "--model", f"m={model()}", "--budget", "cost=1", expect=2)
        self.assertIn("no model of the run has a price", refused.stderr)
        stopped = self.halo(*run, *self.model, "--budget", "cost=0.01", "--summary-json", "summary.json", expect=4)
        self.assertIn("stopped: the budget of 0.01 for tokens is spent", stopped.stderr)
        self.assertRegex(stopped.stderr, r"next: halo resume \S+ --budget cost=0.02\n$")
        first = json.loads(lines(self.path("summary.json")))
        self.assertLessEqual(first["cost"], 0.01)
        self.assertAlmostEqual(first["cost"], (2 * first["tokens"]["prompt"] + 10 * first["tokens"]["output"]) * 1e-6)
        self.halo("resume", "last", "--budget", "cost=5", "--summary-json", "summary.json")
        second = json.loads(lines(self.path("summary.json")))
        self.assertAlmostEqual(second["cost"], first["cost"] + sum(op["cost"] for op in second["operators"]))
        self.assertEqual(lines(self.path("out.jsonl")), wanted)
        # The project's settings win over the models' file.
        self.write("halo.yaml", "prices: {m: {prompt: 0, output: 1}}\n")
        self.halo(*run, *self.model, "--summary-json", "summary.json")
        third = json.loads(lines(self.path("summary.json")))
        self.assertAlmostEqual(third["cost"], third["tokens"]["output"] * 1e-6)
        self.write("halo.yaml", "prices: {m: {prompt: much}}\n")
        self.assertIn("for a million tokens", self.halo(*run, *self.model, expect=2).stderr)

    def test_seconds_are_those_of_all_parts(self):
        run = ["run", self.workflow, "-i", self.rows, "-o", "out.jsonl", *self.small, *self.model]
        stopped = self.halo(*run, "--budget", "seconds=0.2", expect=4)
        self.assertRegex(stopped.stderr, r"next: halo resume \S+ --budget seconds=1\n$")
        refused = self.halo("resume", "last", expect=2)
        self.assertRegex(refused.stderr, r"the budget of 0.2 s is spent: the run has taken \d+\.\d s\. Give it a larger one: --budget seconds=1\n")
        self.halo("resume", "last", "--budget", "seconds=600")

    def test_a_budget_is_that_of_all_parts(self):
        wanted = self.undisturbed()
        stopped = self.halo("run", self.workflow, "-i", self.rows, "-o", "out.jsonl", *self.small, *self.model, "--budget", "calls=50", expect=4)
        self.assertRegex(stopped.stderr, r"next: halo resume \S+ --budget calls=100\n$")
        part = lines(self.path("out.jsonl.part"))
        again = self.halo("resume", "last", expect=2)
        self.assertIn("the budget of 50 calls is spent: 50 are. Give the run a larger one: --budget calls=100", again.stderr)
        self.assertEqual(lines(self.path("out.jsonl.part")), part)
        self.halo("resume", "last", "--budget", "calls=120", "--summary-json", "summary.json")
        self.assertEqual(lines(self.path("out.jsonl")), wanted)
        calls, cached = self.counts("calls", "cached")
        self.assertEqual((sum(calls.values()), sum(cached.values())), (70, 50))

    def test_nothing_is_left_of_what_could_not_begin(self):
        self.halo("run", self.workflow, "-i", self.rows, "-o", "out.jsonl", expect=2)  # no model
        self.assertFalse(os.path.exists(self.path("runs")))
        self.halo("run", self.workflow, "-i", self.rows, "--ephemeral", *self.model)
        self.assertFalse(os.path.exists(self.path("runs")))

    def test_a_folder_that_cannot_be_made_is_no_reason_not_to_run(self):
        self.write("runs", "a file")
        done = self.halo("run", self.workflow, "-i", self.rows, "--limit", "2", *self.model)
        self.assertEqual(done.stdout.count("\n"), 2)
        self.assertIn("this run cannot be resumed", done.stderr)
        self.halo("run", self.workflow, "-i", self.rows, "--run-dir", "runs/own", *self.model, expect=2)

    def test_killed_and_resumed(self):
        wanted = self.undisturbed()
        run = self.start("run", self.workflow, "-i", self.rows, "-o", "out.jsonl", *self.small, *self.model)
        self.wait_for_rows(run, self.path("out.jsonl.part"), 8)
        run.kill()
        run.communicate()
        part = lines(self.path("out.jsonl.part"))
        self.assertIn("broken off", self.halo("runs", "ls").stdout)
        self.halo("resume", "last", "--summary-json", "summary.json")
        self.assertEqual(lines(self.path("out.jsonl")), wanted)
        self.assertTrue(wanted.startswith(part[:part.rfind("\n") + 1]))
        executed, cached = self.counts("executed", "cached")
        self.assertGreaterEqual(cached["last"], part.count("\n"), "what was published had been committed")
        self.assertEqual(executed["last"] + cached["last"], 60)
        self.assertIn("finished, 60 of 60 rows", self.halo("runs", "ls").stdout)

    def test_a_signal_names_the_command_that_goes_on(self):
        wanted = self.undisturbed()
        run = self.start("run", self.workflow, "-i", self.rows, "-o", "out.jsonl", *self.small, *self.model)
        self.wait_for_rows(run, self.path("out.jsonl.part"), 4)
        run.send_signal(signal.SIGTERM)
        error = run.communicate()[1]
        self.assertEqual(run.returncode, 143)
        command = [line for line in error.splitlines() if line.startswith("next: halo ")][0].split()[2:]
        self.halo("runs", "ls")
        # From anywhere: the run knows where it was begun.
        subprocess.run([support.HALO, command[0], os.path.join(self.folder, command[1])], cwd="/", env=self.environment(), check=True,
                       capture_output=True)
        self.assertEqual(lines(self.path("out.jsonl")), wanted)

    def test_standard_input_is_kept(self):
        wanted = self.undisturbed()
        run = self.start("run", self.workflow, "-i", "-", "-o", "out.jsonl", *self.small, *self.model, stdin=subprocess.PIPE)
        run.stdin.write(lines(self.rows))
        run.stdin.flush()
        self.wait_for_rows(run, self.path("out.jsonl.part"), 4)
        run.kill()
        run.communicate()
        done = self.halo("resume", "last")
        self.assertIn("standard input is what had been read of it", done.stderr)
        self.assertEqual(lines(self.path("out.jsonl")), wanted)

    def test_standard_output_gets_the_rest(self):
        wanted = self.undisturbed()
        with open(self.path("begun.jsonl"), "w", encoding="utf-8") as out:
            run = self.start("run", self.workflow, "-i", self.rows, *self.small, *self.model, stdout=out)
            self.wait_for_rows(run, self.path("begun.jsonl"), 6)
            run.send_signal(signal.SIGINT)
            run.communicate()
        begun = lines(self.path("begun.jsonl"))
        self.assertLess(begun.count("\n"), 60)
        self.assertEqual(begun + self.halo("resume", "last").stdout, wanted)

    def test_the_same_again_offers_to_go_on(self):
        same = ["run", self.workflow, "-i", self.rows, "-o", "out.jsonl", *self.small, *self.model]
        run = self.start(*same)
        self.wait_for_rows(run, self.path("out.jsonl.part"), 2)
        self.assertIn("another process is running the same thing", self.halo(*same, expect=2).stderr)
        run.kill()
        run.communicate()
        part = lines(self.path("out.jsonl.part"))
        error = self.halo(*same, expect=2).stderr
        self.assertIn("halo resume runs/", error)
        self.assertIn("--new", error)
        self.assertEqual(lines(self.path("out.jsonl.part")), part, "it is left as it was")
        first = os.path.realpath(self.path("runs/last"))
        self.halo(*same, "--new")
        self.assertNotEqual(os.path.realpath(self.path("runs/last")), first)
        self.assertTrue(os.path.exists(os.path.join(first, "manifest.json")))

    def test_a_file_has_one_writer(self):
        wanted = self.undisturbed()
        run = self.start("run", self.workflow, "-i", "-", "-o", "out.jsonl", *self.small, *self.model, stdin=subprocess.PIPE)
        run.stdin.write(lines(self.rows))
        run.stdin.flush()  # and is not closed: more may come
        self.wait_for_rows(run, self.path("out.jsonl.part"), 2)
        begun = sorted(os.listdir(self.path("runs")))
        other = self.write("other.yaml", WORKFLOW)
        for keeps in ([], ["--ephemeral"]):
            refused = self.halo("run", other, "-i", self.rows, "-o", "out.jsonl", *self.small, *self.model, *keeps, expect=2)
            self.assertIn("out.jsonl.part: another run writes to this file", refused.stderr)
        self.assertEqual(sorted(os.listdir(self.path("runs"))), begun, "nothing is left of what could not begin")
        error = run.communicate()[1]
        self.assertEqual(run.returncode, 0, error)
        self.assertEqual(lines(self.path("out.jsonl")), wanted)

    def test_a_part_that_cannot_begin_changes_nothing(self):
        workflow = self.write("least.yaml", WORKFLOW.replace("max_tokens: 20", 'max_tokens: 20, min_tokens: "{{ row.least }}"'))
        self.write("rows.jsonl", "".join(json.dumps({"id": i, "prompt": f"Row {i}.", "least": i if i != 3 else "x"}) + "\n" for i in range(60)))
        self.halo("run", workflow, "-i", self.rows, "-o", "out.jsonl", *self.small, *self.model, "--budget", "calls=20", expect=4)
        last = os.path.realpath(self.path("runs/last"))
        names = ("failed.jsonl", "summary.json", "manifest.json", "report.html")
        before = [lines(os.path.join(last, name)) for name in names]
        refused = self.halo("resume", "last", expect=2)
        self.assertNotIn("next:", refused.stderr, "the same command would be refused again")
        self.assertEqual([lines(os.path.join(last, name)) for name in names], before)
        self.assertIn("stopped by a limit", self.halo("runs", "ls").stdout)

    def test_a_run_may_be_moved(self):
        wanted = self.undisturbed()
        self.halo("run", self.workflow, "-i", f"sql:SELECT id, prompt FROM '{self.rows}' ORDER BY id", "-o", "out.jsonl", *self.small, *self.model,
                  "--budget", "calls=30", expect=4)
        shutil.move(os.path.realpath(self.path("runs/last")), self.path("elsewhere"))
        self.halo("resume", "elsewhere", "--budget", "calls=300")
        self.assertEqual(lines(self.path("out.jsonl")), wanted)
        self.assertIn("nothing is left to do", self.halo("resume", "elsewhere").stderr)

    def test_a_change_asks_again_what_it_reaches(self):
        self.halo("run", self.workflow, "-i", self.rows, "-o", "out.jsonl", *self.model)
        self.write("flow.yaml", WORKFLOW.replace("And now shorter.", "And now longer."))
        done = self.halo("resume", "last", "--summary-json", "summary.json")
        self.assertIn("'last' is asked again where its prompts differ: it has changed", done.stderr)
        executed, cached = self.counts("executed", "cached")
        self.assertEqual((executed, cached), ({"first": 0, "last": 60}, {"first": 60, "last": 0}))
        self.assertEqual(lines(self.path("out.jsonl")), self.undisturbed("--no-history"))

        changed = lines(self.rows).replace("Row number 7.", "Row number seven.")
        self.write("rows.jsonl", changed)
        done = self.halo("resume", "last", "--summary-json", "summary.json")
        self.assertIn("rows.jsonl has changed", done.stderr)
        executed = self.counts("executed")[0]
        self.assertEqual(executed, {"first": 1, "last": 1})
        self.assertEqual(lines(self.path("out.jsonl")), self.undisturbed())

        other = self.path("tiny.gguf")
        shutil.copy(model(), other)
        self.halo("run", self.workflow, "-i", self.rows, "-o", "other.jsonl", "--model", f"m={other}")
        self.halo("models", "synth", "--shape", "tiny", "--layers", "2", "--seed", "99", "-o", other)
        done = self.halo("resume", "last", "--summary-json", "summary.json")
        self.assertIn("is another file than before", done.stderr)
        self.assertEqual(self.counts("executed")[0], {"first": 60, "last": 60})

    def test_retry(self):
        program = self.write("work.py", """
import json, os, sys
for line in sys.stdin:
    t = json.loads(line)["inputs"]["t"]
    with open("asked", "a") as log: log.write(str(t) + "\\n")
    if t % 5 == 3 and not os.path.exists("mended"): print(json.dumps({"error": "not yet"}), flush=True)
    else: print(json.dumps(t * 2), flush=True)
""")
        workflow = self.write("tools.yaml", f"""
graph:
  nodes:
    - {{id: rows, type: input, outputs: [t]}}
    - {{id: x, type: processor, processor: exec, inputs: [t], retry: {{max: 0}}, config: {{command: [python3, {program}]}}}}
""")
        rows = self.write("numbers.jsonl", "".join(json.dumps({"t": i}) + "\n" for i in range(20)))
        self.halo("run", workflow, "-i", rows, "-o", "out.jsonl", "--allow", "exec", expect=3)
        failed = [json.loads(line) for line in lines(self.path("runs/last/failed.jsonl")).splitlines()]
        self.assertEqual(failed, [{"id": i, "t": i} for i in (3, 8, 13, 18)])
        self.assertEqual(lines(self.path("asked")).count("\n"), 20)
        # They can be given again, as rows of another run.
        self.halo("run", workflow, "-i", "runs/last/failed.jsonl", "--ephemeral", "--allow", "exec", expect=3)
        os.remove(self.path("asked"))

        self.halo("retry", "last", expect=3)
        self.assertEqual(sorted(map(int, lines(self.path("asked")).split())), [3, 8, 13, 18])
        self.write("mended", "")
        os.remove(self.path("asked"))
        self.halo("retry", "last")
        self.assertEqual(sorted(map(int, lines(self.path("asked")).split())), [3, 8, 13, 18])
        got = [json.loads(line) for line in lines(self.path("out.jsonl")).splitlines()]
        self.assertEqual([row["outputs"]["x"] for row in got], [i * 2 for i in range(20)])
        self.assertEqual(lines(self.path("runs/last/failed.jsonl")), "")

    def test_passwords_are_not_kept(self):
        workflow = self.write("db.yaml", """
graph:
  connections: {db: "postgres://localhost/x"}
  nodes:
    - {id: rows, type: input, outputs: [t]}
    - {id: q, type: db_query, connection: db, sql: "SELECT 1 AS one", outputs: [one]}
""")
        url = "postgres://someone:s3cret@127.0.0.1:1/x"
        rows = self.write("one.jsonl", '{"t": 1}\n')
        done = subprocess.run([support.HALO, "run", workflow, "-i", rows, "-o", "out.jsonl", "--connect", f"db={url}"], text=True,
                              capture_output=True, cwd=self.folder, env=self.environment(), check=False)
        if not os.path.exists(self.path("runs/last")):
            self.fail(done.stderr)
        for name in os.listdir(self.path("runs/last")):
            with open(os.path.join(self.path("runs/last"), name), "rb") as file:
                self.assertNotIn(b"s3cret", file.read(), name)
        error = self.halo("retry", "last", expect=2).stderr
        self.assertIn("--connect", error)

    def test_runs_of_older_versions_go_on(self):
        """Kept in the repository, one for each format: every answer comes from its journal."""
        kept = os.path.join(support.SOURCE, "test", "cli", "kept_runs")
        for name in sorted(os.listdir(kept)):
            folder = self.path(name)
            shutil.copytree(os.path.join(kept, name), folder)
            for file in ("manifest.json", "plan.json", "journal.db"):
                os.makedirs(os.path.join(folder, "run"), exist_ok=True)
                os.rename(os.path.join(folder, file), os.path.join(folder, "run", file))
            manifest = os.path.join(folder, "run", "manifest.json")
            text = json.loads(lines(manifest))
            text["working_folder"] = folder
            self.write(os.path.join(name, "run", "manifest.json"), json.dumps(text))
            self.halo("resume", os.path.join(folder, "run"), "--summary-json", "summary.json")
            self.assertEqual(lines(os.path.join(folder, "out.jsonl")), lines(os.path.join(folder, "wanted.jsonl")))
            self.assertEqual(self.counts("calls")[0], {"extract": 0, "reply": 0})

    def test_damaged_folders(self):
        self.halo("run", self.workflow, "-i", self.rows, "-o", "out.jsonl", "--limit", "3", *self.model)
        last = os.path.realpath(self.path("runs/last"))
        with open(os.path.join(last, "journal.db"), "wb") as file:
            file.write(b"no journal" * 1000)
        os.remove(os.path.join(last, "summary.json"))
        self.assertIn("journal.db", self.halo("resume", "last", expect=2).stderr)
        self.write("runs/last/manifest.json", "{")
        self.assertIn("manifest.json", self.halo("resume", "last", expect=2).stderr)
        self.assertIn("damaged", self.halo("runs", "ls").stdout)
        self.assertIn("there is no such run", self.halo("resume", "nothing", expect=2).stderr)

    def test_a_damaged_summary_hides_no_other_run(self):
        same = ["run", self.workflow, "-i", self.rows, "--limit", "3", *self.small, *self.model]
        self.halo(*same, "-o", "one.jsonl")
        self.halo(*same, "-o", "two.jsonl")
        whole = json.loads(lines(self.path("runs/last/summary.json")))
        for damaged in ({"state": "finished", "finished": True, "summary": 3}, {**whole, "finished": "yes"}, {**whole, "state": 5}):
            self.write("runs/last/summary.json", json.dumps(damaged))
            listed = self.halo("runs", "ls").stdout.splitlines()
            self.assertIn("finished, 3 of 3 rows", listed[0])
            self.assertIn("broken off", listed[1])
            self.assertIn("broken off", self.halo("runs", "show", "last").stdout)
            self.halo("resume", "last")
            self.assertIn("finished, 3 of 3 rows", self.halo("runs", "ls").stdout.splitlines()[1])
        for damaged in ({"rows": {"ok": "a"}}, {"rows": 3}, {**whole["summary"], "rows": {"ok": "a"}}):
            self.write("runs/last/summary.json", json.dumps({**whole, "summary": damaged}))
            listed = self.halo("runs", "ls").stdout.splitlines()
            self.assertIn("finished, 3 of 3 rows", listed[0])
            self.assertEqual(len(listed), 2)
            self.assertIn("summary.json: is damaged", self.halo("runs", "show", "last", expect=1).stderr)

    def test_a_later_part_is_shown_as_the_first(self):
        self.halo("run", self.workflow, "-i", self.rows, "-o", "out.jsonl", *self.small, *self.model, "--budget", "calls=30",
                  "--report", "page.html", "--report-samples", "2", expect=4)
        first = lines(self.path("page.html"))
        self.assertIn("Row number 1.", first)
        done = self.halo("resume", "last", "--budget", "calls=300", "--log-format", "json")
        events = [json.loads(line) for line in done.stderr.splitlines()]
        self.assertIn("page.html", [event.get("path") for event in events])
        page = lines(self.path("page.html"))
        self.assertNotEqual(page, first, "it is about the last part")
        self.assertIn("Row number 1.", page)
        self.assertIn("Row number 1.", lines(self.path("runs/last/report.html")))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
