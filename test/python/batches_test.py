"""halo.run, halo.explain, halo.simulate: rows and results of all kinds, options, errors, functions, runs that are kept."""
import contextlib
import datetime
import decimal
import gc
import io
import json
import os
import subprocess
import sys
import threading
import time
import types
import unittest
import uuid
import weakref

import support

import halo

try:
    import pandas
except ImportError:
    pandas = None

REVIEW = support.write("review.yaml", support.REVIEW)
ONE = support.write("one.yaml", support.ONE)
PROMPTS = ["The kettle leaks from the lid since Tuesday.", "I like it a lot, but my desk lamp came with a cracked cover."]


class Rows(unittest.TestCase):
    def test_a_list_gives_what_the_program_writes(self):
        rows = [{"id": "a1", "prompt": PROMPTS[0]}, {"prompt": PROMPTS[1]}]
        results = halo.run(REVIEW, rows)
        path = support.write("rows.jsonl", '{"id": "a1", "prompt": "%s"}\n{"prompt": "%s"}\n' % tuple(PROMPTS))
        done = subprocess.run([halo.program(), "run", REVIEW, "-i", path, "--ephemeral", "--quiet"], capture_output=True,
                              text=True, check=True)
        self.assertEqual(list(results), [json.loads(line) for line in done.stdout.splitlines()])
        self.assertEqual(list(results), list(halo.run(REVIEW, path)))
        self.assertEqual(results.status, "ok")
        self.assertEqual(results.summary["rows"]["ok"], 2)

    def test_an_iterator_gives_an_iterator(self):
        results = halo.run(ONE, iter([{"prompt": text} for text in PROMPTS]))
        self.assertIs(iter(results), results)
        self.assertEqual(sorted(row["id"] for row in results), [0, 1])

    def test_other_iterables_give_a_list(self):
        self.assertEqual([row["id"] for row in halo.run(ONE, ({"id": n, "prompt": "p"} for n in ()))], [])
        self.assertEqual([row["id"] for row in halo.run(ONE, {"x": {"id": 7, "prompt": "p"}}.values())], [7])

    def test_nothing_is_no_fault(self):
        self.assertEqual(list(halo.run(ONE, [])), [])

    def test_values_that_json_has_no_word_for(self):
        flow = support.function_flow("echo", ("day", "price", "at", "gone"))
        zone = datetime.timezone(datetime.timedelta(hours=2))
        row = {"day": datetime.date(2026, 1, 31), "price": decimal.Decimal("12.50"), "gone": float("nan"),
               "at": datetime.datetime(2026, 1, 31, 9, 5, tzinfo=zone)}
        seen = []
        halo.run(flow, [row], functions={"echo": lambda **given: seen.append(given)})
        self.assertEqual(seen, [{"day": "2026-01-31", "price": "12.50", "at": "2026-01-31T07:05:00Z", "gone": None}])

    def test_times_numbers_and_sets_are_those_of_tables(self):
        flow = support.function_flow("kept", ("v",))

        def kept(value):
            seen = []
            halo.run(flow, [{"v": value}], functions={"kept": lambda v: seen.append(v)})
            return seen[0]

        for value, wanted in (
            (datetime.timedelta(days=1, hours=2), "P1DT2H"), (datetime.timedelta(), "PT0S"),
            (-datetime.timedelta(minutes=1, microseconds=500_000), "PT-1M-0.5S"),
            (datetime.datetime(2026, 1, 31, 9, 5, 0, 250_000), "2026-01-31T09:05:00.25"), (datetime.time(9, 5), "09:05:00"),
            (uuid.UUID(int=3), "00000000-0000-0000-0000-000000000003"), ({"b", "a", "c"}, ["a", "b", "c"]),
            ({10, 9}, [9, 10]), ((float("nan"), 1), [None, 1]),
            (2**63, 2**63), (2**64, str(2**64)), (-2**63, -2**63), (-2**63 - 1, str(-2**63 - 1)), ([10**30], [str(10**30)]),
        ):
            self.assertEqual(kept(value), wanted)

    @unittest.skipIf(pandas is None, "pandas is not installed")
    def test_times_of_numpy(self):
        flow = support.function_flow("kept", ("v",))
        day = pandas.Timestamp("2026-01-31 09:05")
        for value, wanted in (
            (day.to_datetime64(), "2026-01-31T09:05:00"), (pandas.Series([day, None]).values, ["2026-01-31T09:05:00", None]),
            (pandas.Timedelta("26h").to_timedelta64(), "P1DT2H"),
            (pandas.Series(pandas.to_timedelta(["1s", None])).values, ["PT1S", None]),
            (pandas.Timestamp("2026-01-31 09:05:00.123456789").to_datetime64(), "2026-01-31T09:05:00.123456789"),
        ):
            seen = []
            halo.run(flow, [{"v": value}], functions={"kept": lambda v: seen.append(v)})
            self.assertEqual(seen, [wanted])

    def test_bad_rows_are_all_named_before_anything_runs(self):
        with self.assertRaises(halo.RowsError) as raised:
            halo.run(ONE, [{"prompt": "p"}, {"id": 0, "prompt": "q"}, {"promt": "r"}])
        messages = [each.message for each in raised.exception.diagnostics]
        self.assertEqual(len(messages), 2)
        self.assertIn("already", messages[0])
        self.assertIn("no column 'prompt'", messages[1])
        for rows, said in (([3], "row 1: expected a dict"), ([{"prompt": object()}], "column 'prompt': a row cannot hold a value of the type object"),
                           ([{"prompt": "\ud800"}], "surrogates")):
            with self.assertRaisesRegex(halo.RowsError, said):
                halo.run(ONE, rows)
        circle = {}
        circle["prompt"] = circle
        with self.assertRaises(halo.RowsError):
            halo.run(ONE, [circle])
        for rows in (3, {"prompt": "p"}):
            with self.assertRaises(halo.UsageError):
                halo.run(ONE, rows)

    @unittest.skipIf(pandas is None, "pandas is not installed")
    def test_a_pandas_table_gives_one(self):
        frame = pandas.DataFrame({"prompt": PROMPTS, "n": [1, 2], "day": pandas.to_datetime(["2026-01-31", None])},
                                 index=["x", "y"])
        results = halo.run(REVIEW, frame)
        self.assertIsInstance(results, pandas.DataFrame)
        self.assertEqual(list(results.index), ["x", "y"])
        self.assertEqual(list(results["status"]), ["ok", "ok"])
        self.assertEqual(list(results["reply"]),
                         [row["outputs"]["reply"] for row in halo.run(REVIEW, [{"prompt": p} for p in PROMPTS])])
        self.assertIn("prompt", frame.join(results).columns)

    @unittest.skipIf(pandas is None, "pandas is not installed")
    def test_pandas_values_arrive_as_json_has_them(self):
        flow = support.function_flow("see", ("i", "f", "b", "t", "o"))
        frame = pandas.DataFrame({"i": pandas.array([1, None], dtype="Int64"), "f": [0.5, float("nan")],
                                  "b": [True, False], "t": pandas.to_datetime(["2026-01-31 09:05", None]),
                                  "o": [[1, 2], None]})
        seen = []
        halo.run(flow, frame, functions={"see": lambda **row: seen.append(row)})
        self.assertIn({"i": 1, "f": 0.5, "b": True, "t": "2026-01-31T09:05:00", "o": [1, 2]}, seen)
        self.assertIn({"i": None, "f": None, "b": False, "t": None, "o": None}, seen)


class Options(unittest.TestCase):
    def test_unknown_ones_are_refused_with_what_was_meant(self):
        with self.assertRaisesRegex(halo.UsageError, "no option 'thread'.*threads"):
            halo.run(ONE, [], thread=2)
        with self.assertRaisesRegex(halo.UsageError, "threads: this option takes no string"):
            halo.run(ONE, [], threads="two")
        with self.assertRaisesRegex(halo.UsageError, "worker_memory"):
            halo.run(ONE, [], worker_memory="much")
        self.assertIn("models", halo.option_names())
        for options, said in (
            ({"function": {"f": print}}, "no option 'function'.*functions"), ({"prgress": True}, "progress"),
            ({"seed": 1.5}, "seed: this option takes no number such as 1.5"), ({"seed": -1}, "seed"), ({"seed": 2**64}, "seed"),
            ({"threads": 0}, "threads: expected a number from 1 to 1024, got 0"), ({"threads": 2**40}, "threads"),
            ({"threads": True}, "threads: this option takes no boolean"), ({"limit": -1}, "limit"), ({"naive": 1}, "naive"),
            ({"budget": {"calls": -1}}, "budget"), ({"budget": {"seconds": "1"}}, "budget"), ({"seed": object()}, "seed"),
            ({"models": "m.gguf"}, "models: expected a dict"), ({"models": {"m": 3}}, r"models\['m'\]: expected the path"),
            ({"trace": 3}, "trace: expected the path"), ({"functions": [print]}, "functions: expected a dict"),
            ({"allow": 3}, "allow: expected words"),
        ):
            with self.assertRaisesRegex(halo.UsageError, said):
                halo.run(ONE, [], **options)
        with self.assertRaisesRegex(halo.UsageError, "workflow: expected the path"):
            halo.run({"ops": {}}, [])

    def test_missing_files_and_models_are_errors_of_their_own_kind(self):
        with self.assertRaises(halo.WorkflowError):
            halo.run("nowhere.yaml", [])
        flow = support.write("other.yaml", support.ONE.replace("halo-demo", "somebody/else"))
        with self.assertRaisesRegex(halo.ModelError, "somebody/else"):
            halo.run(flow, [{"prompt": "p"}])

    def test_naive_runs_and_options_give_the_same(self):
        rows = [{"prompt": text} for text in PROMPTS]
        wanted = list(halo.run(REVIEW, rows))
        for options in ({"naive": True}, {"workers": 2}, {"engine_process": "in"}, {"order": "completion"}):
            self.assertEqual(list(halo.run(REVIEW, rows, **options)), wanted, options)

    def test_a_limit_ends_a_run_with_what_is_done(self):
        with self.assertRaises(halo.StoppedError) as raised:
            halo.run(ONE, [{"prompt": f"row {n}"} for n in range(8)], budget={"calls": 3}, sequences=1)
        self.assertEqual(len(raised.exception.results), 3)
        self.assertIn("calls", str(raised.exception))


class Plans(unittest.TestCase):
    def test_explain_runs_nothing_and_shows_itself(self):
        plan = halo.explain(REVIEW, [{"prompt": text} for text in PROMPTS])
        self.assertIn("extract", str(plan))
        self.assertIn("<iframe", plan._repr_html_())
        self.assertNotIn('"', plan._repr_html_().split('srcdoc="')[1].split('" sandbox')[0])
        self.assertIn("extract", plan.mermaid)
        self.assertIsInstance(plan.data, dict)

    def test_without_rows(self):
        self.assertIn("reply", str(halo.explain(REVIEW)))

    def test_simulations(self):
        results = halo.simulate(REVIEW, [{"prompt": text} for text in PROMPTS], workers=3)
        self.assertEqual([row["status"] for row in results], ["ok", "ok"])
        self.assertEqual(results.outcome["rows"]["ok"], 2)


class Functions(unittest.TestCase):
    def test_functions_are_tools(self):
        def twice(n, config):
            return {"value": n * config["factor"]}

        flow = support.write("twice.yaml", """\
graph:
  nodes:
    - {id: rows, type: input, outputs: [n]}
    - {id: f, type: processor, processor: twice, inputs: [n], outputs: [x], config: {factor: 2}}
""")
        results = halo.run(flow, [{"n": 4}], functions={"twice": twice})
        self.assertEqual(results[0]["outputs"]["x"], {"value": 8})

    def test_what_they_raise_fails_the_row(self):
        flow = support.function_flow("picky")

        def picky(n):
            if n == 2:
                raise ValueError("not two")
            return object() if n == 3 else n

        rows = halo.run(flow, [{"n": n} for n in range(4)], functions={"picky": picky}, stop_when_all_fail=False)
        self.assertEqual([row["status"] for row in rows], ["ok", "ok", "failed", "failed"])
        self.assertEqual(rows[2]["error"]["code"], "function_failed")
        line = picky.__code__.co_firstlineno + 2
        self.assertEqual(rows[2]["error"]["message"], f"picky: ValueError: not two (batches_test.py:{line})")
        self.assertIn("picky: TypeError: its value is no JSON: a row cannot hold", rows[3]["error"]["message"])
        for broken, said in ((lambda n: "\ud800", "surrogates"), (lambda n: sys.exit(3), "SystemExit: 3 (batches"),
                             (lambda m: m, "unexpected keyword argument 'n'"), (int, "TypeError: ")):
            row = halo.run(flow, [{"n": 1}], functions={"picky": broken})[0]
            self.assertIn(said, row["error"]["message"])
            self.assertNotIn("_options.py", row["error"]["message"])

    def test_what_they_give_is_as_values_of_rows(self):
        flow = support.function_flow("give")
        row = halo.run(flow, [{"n": 1}], functions={
            "give": lambda n: {"day": datetime.date(2026, 1, 31), "all": {1}, "nothing": float("nan"), "pair": (1, 2)}})[0]
        self.assertEqual(row["outputs"]["x"], {"day": "2026-01-31", "all": [1], "nothing": None, "pair": [1, 2]})

    def test_async_ones_are_refused(self):
        async def wait(n):
            return n

        with self.assertRaisesRegex(halo.UsageError, "'wait' is an async function"):
            halo.run(support.function_flow("wait"), [{"n": 1}], functions={"wait": wait})

    def test_a_slow_one_does_not_stall_the_engine(self):
        # The function waits until every row has been answered by the model: with an engine that waited for it, it would
        # wait for ever.
        flow = support.write("slow.yaml", """\
graph:
  nodes:
    - {id: rows, type: input, outputs: [prompt]}
    - {id: slow, type: processor, processor: slow, inputs: [prompt], outputs: [x]}
    - {id: a, model: halo-demo, prompt: "{{ prompt }}", max_tokens: 4, temperature: 0, outputs: [y]}
    - {id: told, type: processor, processor: told, inputs: [y], outputs: [z]}
""")
        answered = threading.Semaphore(0)

        def slow(prompt):
            for _ in range(4):
                self.assertTrue(answered.acquire(timeout=60))
            for _ in range(4):
                answered.release()
            return "waited"

        results = halo.run(flow, [{"prompt": f"row {n}"} for n in range(4)],
                           functions={"slow": slow, "told": lambda y: answered.release()})
        self.assertEqual([row["status"] for row in results], ["ok"] * 4)

    def test_they_may_run_side_by_side(self):
        flow = support.function_flow("meet")
        barrier = threading.Barrier(3, timeout=60)

        @halo.tool(at_once=3)
        def meet(n):
            barrier.wait()
            return n

        results = halo.run(flow, [{"n": n} for n in range(3)], functions={"meet": meet})
        self.assertEqual([row["outputs"]["x"] for row in results], [0, 1, 2])

    def test_the_limit_of_a_call_begins_when_it_does(self):
        flow = support.write("limited.yaml", """\
graph:
  nodes:
    - {id: rows, type: input, outputs: [n]}
    - {id: f, type: processor, processor: limited, inputs: [n], outputs: [x], timeout_s: 2}
""")
        # One at a time: the last ones wait for longer than their limit.
        rows = halo.run(flow, [{"n": n} for n in range(12)], functions={"limited": lambda n: time.sleep(0.25)})
        self.assertEqual([row["status"] for row in rows], ["ok"] * 12)
        hold = threading.Event()
        with halo.Session(flow, functions={"limited": lambda n: hold.wait(60)}) as session:
            self.assertEqual(session.submit({"n": 1}).row(timeout=60)["error"]["code"], "timeout")
            hold.set()

    def test_they_go_when_the_run_is_over(self):
        flow = support.function_flow("held")

        class Held:
            def __call__(self, n):
                return n

        held = Held()
        held.itself = held  # a cycle, which the collector must find
        gone = weakref.ref(held)
        results = halo.run(flow, [{"n": 1}], functions={"held": held})
        self.assertEqual(results.status, "ok")
        del held
        gc.collect()
        self.assertIsNone(gone())

    def test_names_of_halos_own_are_taken(self):
        with self.assertRaisesRegex(halo.UsageError, "comes with Halo"):
            halo.run(ONE, [], functions={"join": print})


class Progress(unittest.TestCase):
    def test_a_terminal_shows_a_line(self):
        shown = io.StringIO()
        with contextlib.redirect_stderr(shown):
            halo.run(ONE, [{"prompt": "p"}], progress=True)
            before = shown.getvalue()
            halo.run(ONE, [{"prompt": "p"}], progress=False)
            halo.run(ONE, [{"prompt": "p"}])  # this is no terminal
        self.assertIn("1 of 1 rows", before)
        self.assertIn("1 of 1 rows", before.rsplit("\r", 1)[1], "the last line stays")
        self.assertTrue(before.endswith("\n"))
        self.assertEqual(shown.getvalue(), before)

    def test_a_notebook_shows_a_bar(self):
        shown = []

        class Handle:
            def update(self, what):
                shown.append(what)

        def display(what, display_id):
            shown.append(what)
            return Handle()

        notebook = types.ModuleType("IPython")
        notebook.get_ipython = lambda: types.SimpleNamespace(config={"IPKernelApp": {}})
        notebook.display = types.SimpleNamespace(HTML=str, display=display)
        sys.modules["IPython"] = notebook
        self.addCleanup(sys.modules.pop, "IPython")
        halo.run(ONE, [{"prompt": "p"}])
        self.assertIn('<progress value="1" max="1">', shown[-1])


class KeptRuns(unittest.TestCase):
    def test_a_run_with_functions_goes_on_from_python_only(self):
        flow = support.function_flow("count")
        calls = []
        folder = os.path.join(support.SCRATCH, "kept")
        with self.assertRaises(halo.StoppedError) as raised:
            halo.run(flow, [{"n": n} for n in range(6)], functions={"count": lambda n: calls.append(n)}, run_dir=folder,
                     budget={"calls": 2})
        self.assertEqual(raised.exception.run_dir, folder)
        with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
            self.assertIn('"count"', file.read())
        done = subprocess.run([halo.program(), "resume", folder], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("'count', a function of the program that began the run", done.stderr)
        results = halo.resume(folder, functions={"count": lambda n: calls.append(n)}, budget={"calls": 100})
        self.assertEqual([row["id"] for row in results], list(range(6)))
        self.assertEqual(sorted(calls), list(range(6)), "what is kept is not asked again")


if __name__ == "__main__":
    support.main()
