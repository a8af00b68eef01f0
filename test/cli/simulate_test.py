"""`halo simulate`: workflows that ship with Halo on workers that are not there, by a cost profile that lies in a file."""
import json
import os
import unittest

import support
from support import halo, write

WORKFLOW = os.path.join(support.SOURCE, "workflows", "voting_4way_two_models.yaml")
SMALL, LARGE = "Qwen/Qwen3-0.6B", "meta-llama/Llama-3.1-8B-Instruct"
ROWS = 64  # of the shipped input


def costs(name, step_s, weights_bytes):
    """A model whose passes cost so much however many they are for."""
    model = {
        "model": name, "model_digest": f"digest of {name}", "measured": True, "exact": False,
        "weights_bytes": weights_bytes, "kv_token_bytes": 65536,
        "passes": {"batch_tokens": 2048, "long_tokens": 128, "long_together": 4, "sequences": 64},
        "prefill": [{"prompts": 1, "tokens": 1, "base_s": step_s, "context_s": 0},
                    {"prompts": 1, "tokens": 2048, "base_s": 20 * step_s, "context_s": 1e-6}],
        "decode": [{"sequences": 1, "base_s": step_s, "context_s": 1e-7},
                   {"sequences": 64, "base_s": 2 * step_s, "context_s": 1e-6}],
        "relative_error": 0.05}
    for key in ("part_s", "sampling_token_s", "greedy_token_s", "grammar_token_s", "copy_s", "copy_token_s", "spill_s",
                "spill_token_s", "restore_s", "restore_token_s", "room_byte_s"):
        model[key] = 0
    return {**model, "sampling_token_s": 1e-5, "load_s": 2.0}


def profile(*models):
    return json.dumps({"version": 1, "machine": "an accelerator of tomorrow", "threads": 1, "models": list(models)})


class Simulate(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.profile = write("profile.json", profile(costs("small", 0.01, 3 << 30), costs("large", 0.02, 8 << 30)))

    def simulate(self, *args, workflow=WORKFLOW):
        return halo("simulate", workflow, "--no-history", *args)

    def given(self, *args, workers=8):
        return ["--profile", self.profile, "--as", f"{SMALL}=small", "--as", f"{LARGE}=large", "--workers", str(workers),
                "--worker-memory", "16G", "--planner", "list", *args]

    def json_of(self, *args, workers=8, workflow=WORKFLOW):
        code, out, error = self.simulate(*self.given("--format", "json", *args, workers=workers), workflow=workflow)
        self.assertEqual((code, error), (0, ""))
        return json.loads(out)

    def check_sums(self, report, workers):
        """What a reader may add up is what stands beside it."""
        self.assertEqual(len(report["workers"]), workers)
        self.assertEqual(report["rows"]["ok"] + report["rows"]["failed"], report["rows"]["total"])
        for worker in report["workers"]:
            self.assertLessEqual(worker["busy_s"] + worker["load_s"], report["elapsed"]["simulated_s"] + 1e-6)
            self.assertLessEqual(worker["peak_memory_bytes"], report["worker_memory_bytes"])
            self.assertAlmostEqual(worker["busy_share"], worker["busy_s"] / report["elapsed"]["simulated_s"])
        inference = [op for op in report["operators"] if op["model"]]
        sums = {"calls": sum(op["calls"] for op in inference), "busy": sum(op["seconds"] for op in inference)}
        self.assertEqual(sum(worker["calls"] for worker in report["workers"]), sums["calls"])
        busy_s = sum(worker["busy_s"] for worker in report["workers"])
        self.assertAlmostEqual(report["engines_busy"]["simulated_s"], busy_s)
        # Copies and moves of KV are passes' but no operator's; each call's share is rounded to a microsecond.
        self.assertLessEqual(sums["busy"], busy_s + 1e-6 * sums["calls"])
        self.assertGreater(sums["busy"], 0.98 * busy_s)
        self.assertAlmostEqual(report["loads"]["simulated_s"], sum(worker["load_s"] for worker in report["workers"]))
        for kind in ("prompt", "reused", "output"):
            self.assertEqual(report["tokens"][kind], sum(op[f"{kind}_tokens"] for op in report["operators"]))
        for op in report["operators"]:
            self.assertEqual(op["instances"], report["rows"]["total"], op["id"])
            self.assertLessEqual(op["merged"], op["instances"])
        for what in ("elapsed", "engines_busy", "loads"):
            self.assertAlmostEqual(report[what]["factor"], report[what]["simulated_s"] / report[what]["estimated_s"])
        self.assertLessEqual(report["lower_bound_s"], report["elapsed"]["estimated_s"] + 1e-9)

    def test_rows_run_and_figures_add_up(self):
        report = self.json_of()
        self.assertEqual(report["rows"], {"total": ROWS, "ok": ROWS, "failed": 0})
        self.assertEqual((report["planner"], report["seed"], report["failures"]), ("list", 0, []))
        self.check_sums(report, 8)
        ids = [op["id"] for op in report["operators"]]
        self.assertEqual(ids, sorted(set(ids), key=ids.index))
        self.assertIn("costs of an accelerator of tomorrow", report["notes"])

    def test_more_workers_take_more_rows_in_less_time_each(self):
        few = self.json_of("--rows", "2000")
        many = self.json_of("--rows", "2000", workers=64)
        for report, workers in ((few, 8), (many, 64)):
            self.assertEqual(report["rows"], {"total": 2000, "ok": 2000, "failed": 0})
            self.check_sums(report, workers)
            # Copies of a row are rows of their own.
            self.assertEqual(sum(op["merged"] for op in report["operators"]), 0)
        self.assertLess(many["elapsed"]["simulated_s"], few["elapsed"]["simulated_s"] / 3)

    def test_equal_options_give_equal_bytes_and_another_seed_does_not(self):
        for form in ("text", "json"):
            code, first, error = self.simulate(*self.given("--seed", "7", "--format", form, workers=64))
            self.assertEqual((code, error), (0, ""))
            self.assertEqual(self.simulate(*self.given("--seed", "7", "--format", form, workers=64))[1], first)
            self.assertNotEqual(self.simulate(*self.given("--seed", "8", "--format", form, workers=64))[1], first)

    def test_rows_are_written_where_that_is_asked_for(self):
        path = os.path.join(support.SCRATCH, "answers.jsonl")
        first = self.json_of("-o", path, "--limit", "5")
        with open(path, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        self.assertEqual([row["status"] for row in rows], ["ok"] * 5)
        self.assertTrue(all(row["outputs"] for row in rows))
        self.assertEqual(self.json_of("--limit", "5"), first, "what is written changes nothing")

    def test_text_is_a_table_that_a_person_can_read(self):
        code, out, error = self.simulate(*self.given())
        self.assertEqual((code, error), (0, ""))
        lines = out.splitlines()
        self.assertEqual(lines[0], "voting_4way_two_models: 64 rows on 8 workers of 16.0 GiB, planner list, seed 0")
        self.assertIn("rows ok 64, failed 0", lines)
        self.assertEqual(len([line for line in lines if line.startswith("  worker ")]), 8)
        self.assertEqual([line for line in lines if line != line.rstrip()], [])
        self.assertIn("note: costs of an accelerator of tomorrow", lines)
        # Many workers alike are summed up.
        lines = self.simulate(*self.given("--limit", "8", workers=64))[1].splitlines()
        self.assertEqual([line.split(":")[0].strip() for line in lines if ": worker " in line],
                         ["most", "middle", "least"])
        self.assertTrue(any(line.endswith("of 64 have no calls") for line in lines), lines)

    def test_long_names_do_not_push_columns_aside(self):
        workflow = os.path.join(support.SOURCE, "workflows", "w5_tpch_trident.yaml")
        rows = os.path.join(support.SOURCE, "workflows", "rows", "w5.jsonl")
        code, out, _ = self.simulate("-i", rows, "--limit", "20", "--profile", self.profile, "--workers", "8",
                                     workflow=workflow)
        self.assertEqual(code, 0, out)
        lines = out.splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("operators"))
        table = lines[start:lines.index("", start)]
        self.assertGreater(len(table), 10)
        end_of_calls = table[0].index("calls") + len("calls")
        for line in table[1:]:
            self.assertRegex(line[:end_of_calls], r"^  \S+ +\d+$")
        self.assertTrue(any("..." in line for line in table))

    def test_models_without_costs_are_named_once(self):
        code, out, _ = self.simulate("--profile", self.profile, "--limit", "4")
        self.assertEqual(code, 0, out)
        notes = [line for line in out.splitlines() if line.startswith("note: ")]
        for words in ("no file is known", "not in the cost profile", "take no memory"):
            about = [note for note in notes if words in note]
            self.assertEqual(len(about), 1, notes)
            self.assertIn(SMALL, about[0])
            self.assertIn(LARGE, about[0])

    def test_tools_that_copies_of_rows_ask_alike_are_said(self):
        workflow = os.path.join(support.SOURCE, "workflows", "w5_tpch_trident.yaml")
        rows = os.path.join(support.SOURCE, "workflows", "rows", "w5.jsonl")
        arguments = ["-i", rows, "--profile", self.profile, "--format", "json", "--planner", "list", "--limit", "20"]
        for more, is_said in (((), False), (("--rows", "200"), True)):
            code, out, error = self.simulate(*arguments, *more, workflow=workflow)
            self.assertEqual((code, error), (0, ""))
            report = json.loads(out)
            tools = [op for op in report["operators"] if not op["model"]]
            said = [note for note in report["notes"] if note.startswith("--rows: ")]
            self.assertEqual(len(said), 1 if is_said else 0, report["notes"])
            if is_said:
                merged, asked = sum(op["merged"] for op in tools), sum(op["instances"] for op in tools)
                self.assertIn(f"{merged} of {asked} tool calls were shared", said[0])

    def test_rows_that_fail_are_shown_and_give_exit_code_3(self):
        workflow = write("fails.yaml", "graph:\n  nodes:\n    - {id: in, type: input, outputs: [prompt]}\n"
                         "    - {id: op, model: m, inputs: [prompt], outputs: [o], prompt: \"{{ prompt.no.such }}\"}\n")
        rows = write("fail_rows.jsonl", "".join(json.dumps({"prompt": f"row {i}"}) + "\n" for i in range(5)))
        code, out, _ = self.simulate("-i", rows, workflow=workflow)
        self.assertEqual(code, 3, out)
        self.assertIn("rows ok 0, failed 5", out)
        self.assertEqual(len([line for line in out.splitlines() if line.startswith("failed: row ")]), 3)

    def test_what_is_wrong_is_said_before_anything_runs(self):
        bad_profile = write("bad.json", '{"version": 1, "machines": "?"}')
        cases = [
            (["--workers", "0"], "--workers: Value 0 not in range 1 to 1024"),
            (["--workers", "1025"], "--workers"),
            (["--profile", "none.json"], "--profile none.json: cannot be read"),
            (["--profile", bad_profile], "machines: unknown key"),
            (["--history", "none.json"], "--history none.json: cannot be read"),
            (["--profile", self.profile, "--as", "small"], "--as: expected NAME=MODEL of the profile, got 'small'"),
            (["--profile", self.profile, "--as", "x=small"], f"--as: no operator of the workflow has the model 'x'; there are {SMALL}, {LARGE}"),
            (["--profile", self.profile, "--as", f"{SMALL}=smal"],
             "the profile has no model 'smal' (did you mean 'small'?)"),
            (["--profile", self.profile, "--as", f"{SMALL}=large", "--worker-memory", "4G"], "--worker-memory: "),
            (["--worker-memory", "much"], "--worker-memory: expected a size such as 512M or 4G, got 'much'"),
            (["--planner", "best"], "no planner is called 'best'"),
            (["--rules-off", "none"], "--rules-off: there is no rule 'none'"),
            (["--rows", "-1"], "--rows"),
            (["--sequences", "0"], "--sequences"),
            (["--format", "yaml"], "--format: yaml not in {text,json}"),
            (["-i", "none.jsonl"], "none.jsonl: cannot read the rows"),
            (["-i", "-"], "-i -: a simulation reads its rows twice"),
            (["-i", "sql:SELECT 1"], "-i sql:...: a simulation reads its rows twice"),
            (["--column", "none"], "no row has the column 'none'"),
            (["--worker", "2", "--wrkers", "3"], "did you mean '--workers'?"),
        ]
        for arguments, said in cases:
            code, out, error = halo("simulate", WORKFLOW, *arguments)
            self.assertEqual((code, out), (2, ""), f"{arguments}: {error}")
            self.assertIn(said, error, arguments)
        self.assertEqual(halo("simulate")[0], 2)
        self.assertEqual(halo("simulate", "none.yaml")[0], 2)

    def test_no_rows_are_no_fault(self):
        report = self.json_of("--limit", "0")
        self.assertEqual(report["rows"], {"total": 0, "ok": 0, "failed": 0})
        self.assertEqual(report["elapsed"]["simulated_s"], 0)
        self.assertEqual(sum(worker["calls"] for worker in report["workers"]), 0)


if __name__ == "__main__":
    unittest.main(argv=["simulate_test"], verbosity=1)
