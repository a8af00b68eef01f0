"""Commands, options, files, streams, signals and exit codes of `halo`, as contract sections 1 and 2 give them."""
import csv
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
import unittest

import support
from support import halo, model, write

WORKFLOW = """
start_ops: [first]
end_ops: [last]
ops:
  first: {model: m, prompt: "Say something about it.", max_tokens: 6, output_ops: [last]}
  last: {model: m, prompt: "And now shorter.", max_tokens: 4, input_ops: [first]}
"""
ROWS = "".join(json.dumps({"id": f"r{i}", "prompt": f"Row number {i} speaks."}) + "\n" for i in range(6))


def rows_of(text):
    return [json.loads(line) for line in text.splitlines()]


class Cli(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.workflow = write("w.yaml", WORKFLOW)
        cls.rows = write("rows.jsonl", ROWS)
        cls.model = ["--model", f"m={model()}", "--worker-memory", "64M", "--kept-memory", "64M"]

    def run_ok(self, *args, **options):
        code, out, error = halo("run", self.workflow, *args, *self.model, **options)
        self.assertEqual(code, 0, error)
        return out, error

    def test_version_names_what_it_is_built_from(self):
        code, out, _ = halo("version")
        self.assertEqual(code, 0)
        self.assertIn("llama.cpp v", out)

    def test_stdout_carries_rows_only_and_in_input_order(self):
        out, error = self.run_ok("-i", self.rows)
        rows = rows_of(out)
        self.assertEqual([row["id"] for row in rows], [f"r{i}" for i in range(6)])
        for row in rows:
            self.assertEqual(list(row), ["id", "status", "outputs", "error", "usage"])
            self.assertEqual(row["status"], "ok")
            self.assertEqual(list(row["outputs"]), ["last"])
        self.assertIn("6 rows: 6 ok, 0 failed", error)

    def test_output_appears_whole_and_summary_adds_up(self):
        out = os.path.join(support.SCRATCH, "out.jsonl")
        summary_path = os.path.join(support.SCRATCH, "summary.json")
        self.run_ok("-i", self.rows, "-o", out, "--summary-json", summary_path, "--all-outputs")
        self.assertFalse(os.path.exists(out + ".part"))
        with open(out, encoding="utf-8") as file:
            self.assertEqual(list(rows_of(file.read())[0]["outputs"]), ["first", "last"])
        with open(summary_path, encoding="utf-8") as file:
            summary = json.load(file)
        self.assertEqual(summary["rows"], {"total": 6, "ok": 6, "failed": 0, "unfinished": 0})
        tokens = summary["tokens"]
        self.assertEqual(tokens["prompt"], tokens["reused"] + tokens["prefilled"])
        for op in summary["operators"]:
            self.assertEqual(op["logical"], op["merged"] + op["distinct"])
            self.assertEqual(op["distinct"], op["executed"] + op["cached"] + op["skipped"] + op["unfinished"])

    def test_equal_rows_give_equal_answers_with_one_call_when_greedy(self):
        workflow = write("greedy.yaml", WORKFLOW.replace("max_tokens", "temperature: 0, max_tokens"))
        rows = write("same.jsonl", '{"prompt": "twin"}\n{"prompt": "twin"}\n')
        code, out, error = halo("run", workflow, "-i", rows, *self.model)
        self.assertEqual(code, 0, error)
        first, second = rows_of(out)
        self.assertEqual(first["outputs"], second["outputs"])
        self.assertEqual((first["id"], second["id"]), (0, 1))

    def test_naive_writes_the_same_rows_shape(self):
        naive = rows_of(self.run_ok("-i", self.rows, "--naive")[0])
        self.assertEqual([row["id"] for row in naive], [f"r{i}" for i in range(6)])

    def test_deterministic_rows_and_logits_are_those_of_naive(self):
        support.exact_answers_or_skip(self)
        dumps, outputs = {}, {}
        for mode, flags in (("reference", ["--naive"]), ("optimized", ["--deterministic"]),
                            ("two at a time", ["--deterministic", "--sequences", "2", "--threads", "1", "--window", "3"])):
            dump = os.path.join(support.SCRATCH, "calls.jsonl")
            summary = os.path.join(support.SCRATCH, "exact.json")
            outputs[mode], _ = self.run_ok("-i", self.rows, "--all-outputs", "--seed", "5", "--dump-prompts", dump,
                                           "--summary-json", summary, *flags)
            with open(dump, encoding="utf-8") as file:
                calls = rows_of(file.read())
            dumps[mode] = {(call["row"], call["operator"]): (call["prompt"], call["output"], call["logits_hash"])
                           for call in calls}
            with open(summary, encoding="utf-8") as file:
                self.assertTrue(json.load(file)["deterministic"], mode)
        self.assertEqual(len(dumps["reference"]), 12)
        for mode in ("optimized", "two at a time"):
            self.assertEqual(dumps[mode], dumps["reference"], mode)
            self.assertEqual(outputs[mode], outputs["reference"], mode)

    def test_answers_that_do_not_fit_are_asked_for_again_as_in_the_reference(self):
        support.exact_answers_or_skip(self)
        text = """
start_ops: [word]
end_ops: [word, after]
ops:
  word: {model: m, prompt: "A word.", temperature: 1, top_p: 1, max_tokens: 4, repair: REPAIR, schema: {type: string, maxLength: 12}}
  after: {model: m, prompt: "And now shorter.", max_tokens: 4, input_ops: [word]}
"""
        rows = write("words.jsonl", "".join(json.dumps({"id": i, "prompt": f"Row {i}"}) + "\n" for i in range(24)))
        seen = {}
        for repair in (0, 2):
            workflow = write(f"repair{repair}.yaml", text.replace("REPAIR", str(repair)))
            for mode in ("--naive", "--deterministic"):
                summary = os.path.join(support.SCRATCH, "repair.json")
                code, out, error = halo("run", workflow, "-i", rows, *self.model, mode, "--no-breaker", "--summary-json", summary)
                self.assertIn(code, (0, 3), error)
                with open(summary, encoding="utf-8") as file:
                    seen[repair, mode] = (rows_of(out), json.load(file)["operators"][0]["calls"])
            self.assertEqual(seen[repair, "--naive"], seen[repair, "--deterministic"])
        fits = {repair: sum(row["status"] == "ok" for row in seen[repair, "--naive"][0]) for repair in (0, 2)}
        self.assertLess(fits[0], 24)
        self.assertGreater(fits[2], fits[0])
        self.assertGreater(seen[2, "--naive"][1], 24)

    def test_misspelt_words_get_a_suggestion(self):
        for arguments, meant in ((["rnu", "x.yaml"], "rnu (did you mean 'run'?)"),
                                 (["run", "x.yaml", "--modle", "a=b"], "--modle (did you mean '--model'?)"),
                                 (["explain", "x.yaml", "--lmit=3"], "--lmit (did you mean '--limit'?)")):
            code, out, error = halo(*arguments)
            self.assertEqual((code, out), (2, ""))
            self.assertIn(meant, error)

    def test_shipped_graphs_ask_and_answer_what_their_ops_twins_do(self):
        folder = os.path.join(support.SOURCE, "workflows")
        names = ["meta-llama/Llama-3.2-3B-Instruct", "meta-llama/Llama-3.2-1B-Instruct",
                 "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-0.6B"]
        models = [part for name in names for part in ("--model", f"{name}={model()}")]
        # The evaluation workloads w1 to w6 are graphs only: they have tools.
        files = sorted(name for name in os.listdir(folder) if name.endswith(".yaml") and not re.match("w[1-6]_", name))
        self.assertEqual(files, sorted(os.listdir(os.path.join(folder, "graph"))))
        for file in files:
            rows = {"multi_turn.yaml": "conversations", "review_extraction_3step.yaml": "reviews",
                    "customer_messages.yaml": "customer_messages"}.get(file, "questions")
            seen = {}
            for dialect in ("", "graph"):
                dump = os.path.join(support.SCRATCH, "calls.jsonl")
                code, out, error = halo("run", os.path.join(folder, dialect, file), "-i", os.path.join(folder, "rows", f"{rows}.jsonl"),
                                        *models, "--worker-memory", "64M", "--limit", "3", "--all-outputs", "--dump-prompts", dump)
                self.assertEqual(code, 0, error)
                with open(dump, encoding="utf-8") as calls:
                    prompts = {(call["row"], call["operator"]): call["prompt"] for call in rows_of(calls.read())}
                seen[dialect] = (prompts, [row["outputs"] for row in rows_of(out)])
            self.assertEqual(seen[""][0], seen["graph"][0], file)
            self.assertEqual(seen[""][1], seen["graph"][1], file)

    def test_deterministic_is_refused_where_it_is_not_known_to_hold(self):
        support.exact_answers_or_skip(self)
        code, out, error = halo("run", self.workflow, "-i", self.rows, *self.model, "--deterministic", "--kv-layout", "unified")
        self.assertEqual((code, out), (2, ""))
        self.assertIn("--deterministic is not known to hold here", error)
        self.assertIn("use split", error)

    def test_rows_come_from_csv_and_go_to_csv(self):
        rows = write("rows.csv", 'id,prompt\na,"one, with a comma"\nb,"two\nlines"\n')
        out = os.path.join(support.SCRATCH, "out.csv")
        self.run_ok("-i", rows, "-o", out)
        with open(out, newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        self.assertEqual([row["id"] for row in table], ["a", "b"])
        self.assertEqual(table[0]["status"], "ok")
        self.assertIn("last", table[0])

    def test_rows_go_to_parquet_and_come_from_parquet_and_sql(self):
        rows = write("in.json", json.dumps([{"id": i, "prompt": f"Row {i}", "tags": [f"t{i}"]} for i in range(5)]))
        first = os.path.join(support.SCRATCH, "first.parquet")
        self.run_ok("-i", rows, "-o", first, "--all-outputs")
        self.assertEqual([name for name in os.listdir(support.SCRATCH) if name.startswith("first.parquet")], ["first.parquet"])
        straight, _ = self.run_ok("-i", first, "--column", "first")
        self.assertEqual([row["id"] for row in rows_of(straight)], list(range(5)))
        spec = "sql:SELECT id, first FROM 'first.parquet' WHERE status = 'ok' ORDER BY id"
        through_sql, _ = self.run_ok("-i", spec, "--column", "first")
        self.assertEqual(through_sql, straight)
        chosen, _ = self.run_ok("-i", "sql:FROM 'first.parquet' SELECT id, first WHERE id >= 3 ORDER BY id DESC",
                                "--column", "first")
        self.assertEqual([row["id"] for row in rows_of(chosen)], [4, 3])

    def test_standard_input_through_a_small_window_to_parquet(self):
        out = os.path.join(support.SCRATCH, "mixed.parquet")
        code, _, error = halo("run", self.workflow, "-i", "-", "-o", out, "--window", "2", *self.model,
                              stdin='{"prompt": "fine"}\nnot json\n' + '{"prompt": "fine too"}\n' * 7)
        self.assertEqual(code, 3, error)
        spec = "sql:SELECT id, coalesce(error_code, status) AS prompt FROM 'mixed.parquet'"
        rows, _ = self.run_ok("-i", spec)
        self.assertEqual([row["id"] for row in rows_of(rows)], ["0", "line:2"] + [str(i) for i in range(2, 9)])

    def test_a_stopped_run_leaves_its_rows_as_lines(self):
        out = os.path.join(support.SCRATCH, "stopped.parquet")
        code, _, _ = halo("run", self.workflow, "-i", "-", "-o", out, "--on-error", "stop", *self.model,
                          stdin='{"prompt": "fine"}\nnot json\n')
        self.assertEqual(code, 4)
        self.assertFalse(os.path.exists(out))
        with open(out + ".part", encoding="utf-8") as file:
            self.assertIn("line:2", [row["id"] for row in rows_of(file.read())])

    def test_an_output_may_not_be_named_like_another_column_of_parquet(self):
        workflow = write("named_id.yaml", WORKFLOW.replace("last", "ID"))
        code, _, error = halo("run", workflow, "-i", self.rows, "-o", "ids.parquet", *self.model)
        self.assertEqual(code, 2)
        self.assertIn("the output 'ID' has the name of another column", error)

    def test_equal_rows_in_every_format_give_equal_answers(self):
        data = [{"id": f"r{i}", "prompt": f"Row number {i} speaks."} for i in range(4)]
        write("same.csv", "id,prompt\n" + "".join(f"{row['id']},{row['prompt']}\n" for row in data))
        write("same.json", json.dumps(data, indent=1))
        lines = write("same_lines.jsonl", "".join(json.dumps(row) + "\n" for row in data))
        expected, _ = self.run_ok("-i", lines)
        for spec in ("same.csv", "same.json", "sql:FROM 'same.csv'", "sql:FROM 'same.json'", "sql:FROM 'same_lines.jsonl'"):
            self.assertEqual(self.run_ok("-i", spec)[0], expected, spec)
        with open(lines, encoding="utf-8") as file:
            self.assertEqual(self.run_ok("-i", "-", stdin=file.read())[0], expected)

    def test_lists_and_structs_of_rows_reach_templates(self):
        workflow = write("structs.yaml", """
start_ops: [only]
end_ops: [only]
ops:
  only: {model: m, prompt: "{{ row.tags[0] }} lives in {{ row.address.city }}", max_tokens: 2, temperature: 0}
""")
        row = {"id": 1, "prompt": "p", "tags": ["Ada", "x"], "address": {"city": "Ulm"}}
        plain = write("plain.yaml", """
start_ops: [only]
end_ops: [only]
ops:
  only: {model: m, prompt: "Ada lives in Ulm", max_tokens: 2, temperature: 0}
""")
        rows = write("structs.jsonl", json.dumps(row) + "\n")
        expected = halo("run", plain, "-i", rows, *self.model)[1]
        sql = ("sql:SELECT 1 AS id, 'p' AS prompt, ['Ada', 'x'] AS tags, {'city': 'Ulm'} AS address")
        for spec in (rows, sql, "sql:FROM 'structs.jsonl'"):
            code, out, error = halo("run", workflow, "-i", spec, *self.model)
            self.assertEqual(code, 0, error)
            self.assertEqual(out, expected, spec)

    def test_sql_may_only_read_what_it_names(self):
        os.makedirs(os.path.join(support.SCRATCH, "sandbox"), exist_ok=True)
        secret = write("sandbox/secret.txt", "hidden\n")
        for sql in (f"COPY (SELECT 1) TO 'sandbox/out.csv'", f"SELECT * FROM read_text('{secret}')", "ATTACH 'sandbox/x.db'",
                    "INSTALL httpfs", "LOAD httpfs", "SET enable_external_access = true",
                    "SELECT * FROM 'https://example.invalid/x.parquet'",
                    "SELECT * FROM enable_logging('QueryLog', storage = 'file', storage_path = 'sandbox/log')",
                    "SELECT * FROM read_csv('sandbox/sec' || 'ret.txt')", "SELECT 1 AS id; SELECT 2 AS id"):
            code, out, error = halo("run", self.workflow, "-i", "sql:" + sql, *self.model)
            self.assertEqual((code, out), (2, ""), sql)
            self.assertTrue(error.startswith("sql: "), error)
            self.assertNotIn("hidden", error)
        self.assertEqual(os.listdir(os.path.join(support.SCRATCH, "sandbox")), ["secret.txt"])

    def test_mistakes_in_sql_are_shown_with_their_place(self):
        code, _, error = halo("run", self.workflow, "-i", "sql:SELECT promt FROM 'rows.jsonl'", *self.model)
        self.assertEqual(code, 2)
        self.assertIn('Referenced column "promt" not found', error)
        self.assertIn("LINE 1: SELECT promt FROM 'rows.jsonl'\n               ^", error)
        code, _, error = halo("run", self.workflow, "-i", "sql:SELECT id FROM 'rows.jsonl'", *self.model)
        self.assertEqual(code, 2)
        self.assertIn("no row has the column 'prompt'; the columns are: id", error)

    def test_a_workflow_cannot_name_sql_as_its_rows(self):
        workflow = write("sql_dataset.yaml", WORKFLOW + "dataset: \"sql:SELECT 'x' AS prompt\"\n")
        code, out, error = halo("run", workflow, *self.model)
        self.assertEqual((code, out), (2, ""), error)

    def test_what_sql_reads_is_never_overwritten(self):
        write("treasure1.jsonl", ROWS)
        code, _, error = halo("run", self.workflow, "-i", "sql:FROM 'treasure*.jsonl'", "-o", "treasure1.jsonl", *self.model)
        self.assertEqual(code, 2)
        self.assertIn("is an input of this run", error)

    def test_broken_parquet_stops_before_anything_runs(self):
        out = os.path.join(support.SCRATCH, "whole.parquet")
        self.run_ok("-i", self.rows, "-o", out)
        with open(out, "rb") as file:
            whole = file.read()
        path = os.path.join(support.SCRATCH, "cut.parquet")
        for broken in (whole[:-10], whole[: len(whole) // 2], b"PAR1", b"", b"not parquet at all, is it?"):
            with open(path, "wb") as file:
                file.write(broken)
            code, stdout, error = halo("run", self.workflow, "-i", path, *self.model)
            self.assertEqual((code, stdout), (2, ""), broken[:20])
            self.assertIn("cut.parquet: ", error)
            self.assertNotIn("/proc/", error)

    def test_a_bad_line_of_standard_input_is_a_failed_row(self):
        code, out, _ = halo("run", self.workflow, "-i", "-", *self.model,
                            stdin='{"prompt": "fine"}\nnot json\n{"prompt": "fine too"}\n')
        self.assertEqual(code, 3)
        self.assertEqual([(row["id"], row["status"]) for row in rows_of(out)],
                         [(0, "ok"), ("line:2", "failed"), (2, "ok")])

    def test_bad_lines_of_a_file_stop_before_anything_runs(self):
        rows = write("bad.jsonl", '{"prompt": "fine"}\nnot json\n{"id": 1}\n[]\n')
        code, out, error = halo("run", self.workflow, "-i", rows, *self.model)
        self.assertEqual((code, out), (2, ""))
        for place in ("bad.jsonl:2", "bad.jsonl:3", "bad.jsonl:4"):
            self.assertIn(place, error)

    def test_empty_input_is_zero_rows(self):
        out, _ = self.run_ok("-i", write("empty.jsonl", ""))
        self.assertEqual(out, "")

    def test_a_workflow_may_name_its_rows_but_only_beside_itself(self):
        folder = os.path.join(support.SCRATCH, "beside")
        os.makedirs(folder, exist_ok=True)

        def run(dataset):
            path = os.path.join(folder, "w.yaml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"dataset: {dataset}\n{WORKFLOW}")
            return halo("run", path, *self.model)

        with open(os.path.join(folder, "here.jsonl"), "w", encoding="utf-8") as file:
            file.write(ROWS)
        code, out, error = run("here.jsonl")
        self.assertEqual((code, len(rows_of(out))), (0, 6), error)
        os.makedirs(os.path.join(folder, "link"), exist_ok=True)
        link = os.path.join(folder, "link", "rows.jsonl")
        if not os.path.islink(link):
            os.symlink(self.rows, link)
        for elsewhere in ("../rows.jsonl", self.rows, "link/rows.jsonl"):
            code, out, error = run(elsewhere)
            self.assertEqual((code, out), (2, ""), elsewhere)
            self.assertIn("outside its folder", error)
        code, _, error = run("org/some-dataset")
        self.assertEqual(code, 2)
        self.assertIn("use -i", error)

    def test_an_input_is_never_overwritten(self):
        rows = write("precious.jsonl", ROWS)
        for flag in ("-o", "--summary-json", "--dump-prompts"):
            for path in (rows, os.path.join(support.SCRATCH, ".", "precious.jsonl")):
                code, _, error = halo("run", self.workflow, "-i", rows, flag, path, *self.model)
                self.assertEqual(code, 2, flag)
                self.assertIn("is an input of this run", error)
        with open(rows, encoding="utf-8") as file:
            self.assertEqual(file.read(), ROWS)

    def test_a_model_is_never_overwritten(self):
        code, _, error = halo("run", self.workflow, "-i", self.rows, "-o", model(), *self.model)
        self.assertEqual(code, 2)
        self.assertIn("tiny.gguf is an input of this run", error)

    def test_what_a_run_writes_is_no_other_file_of_it(self):
        os.makedirs(os.path.join(support.SCRATCH, "own"), exist_ok=True)
        gguf = os.path.join(support.SCRATCH, "own", "own.gguf")
        shutil.copyfile(model(), gguf)
        rows = write("own/rows.jsonl", ROWS)
        other = write("own/other.yaml", "name: other\ndataset: rows.jsonl\n" + WORKFLOW)
        models = write("own/models.yaml", f"m: {gguf}\n")
        part = write("own/out.csv.part", WORKFLOW)
        out = os.path.join(support.SCRATCH, "own", "out.csv")
        new = os.path.join(support.SCRATCH, "own", "new.jsonl")
        query = f"sql:SELECT * FROM '{rows}'"
        cases = [
            ("is an input of this run", [self.workflow, "-i", query, "--summary-json", rows]),
            ("is an input of this run", [self.workflow, "-i", self.rows, "--summary-json", gguf]),
            ("is an input of this run", [self.workflow, "-i", self.rows, "--dump-prompts", models]),
            ("is an input of this run", [other, "--summary-json", rows]),
            ("is an input of this run", [self.workflow, "-i", self.rows, "--also", f"{other}:{rows}", "-o",
                                         os.path.join(support.SCRATCH, "own", "out"), "--summary-json", other]),
            ("written to " + part + " first, which is an input", [part, "-i", self.rows, "-o", out]),
            ("is written by -o too", [self.workflow, "-i", self.rows, "-o", new, "--summary-json", new]),
            ("is written by -o too", [self.workflow, "-i", self.rows, "-o", new, "--dump-prompts", new + ".part"]),
            ("is written by --dump-prompts too", [self.workflow, "-i", self.rows, "--dump-prompts", new,
                                                  "--summary-json", os.path.join(support.SCRATCH, "own", ".", "new.jsonl")]),
        ]
        precious = {path: pathlib.Path(path).read_bytes() for path in (gguf, rows, other, models, part)}
        for message, args in cases:
            code, _, error = halo("run", *args, "--models", models)
            self.assertEqual(code, 2, error)
            self.assertIn(message, error)
            for path, content in precious.items():
                with open(path, "rb") as file:
                    self.assertEqual(file.read(), content, path)
        code, _, error = halo("run", self.workflow, "-i", self.rows, "-o", new, "--dump-prompts", "/dev/null",
                              "--summary-json", "/dev/null", *self.model)
        self.assertEqual(code, 0, error)

    def test_messages_never_get_into_the_results_of_a_run_without_standard_streams(self):
        out = os.path.join(support.SCRATCH, "daemon.jsonl")
        command = [support.HALO, "run", self.workflow, "-i", self.rows, "-o", out, *self.model]
        done = subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command], check=False)
        self.assertEqual(done.returncode, 0)
        with open(out, encoding="utf-8") as file:
            self.assertEqual(len(rows_of(file.read())), 6)
        # What was to go to a standard output that is not there is an error, not lost in silence.
        done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command[:5], *self.model], check=False,
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("standard output: cannot write", done.stderr)

    def test_without_a_folder_for_temporary_files_nothing_is_run_or_written(self):
        out = write("earlier.jsonl", "")
        part = write("earlier.jsonl.part", "what an earlier run left\n")
        code, _, error = halo("run", self.workflow, "-i", self.rows, "-o", out, *self.model,
                              env={"TMPDIR": os.path.join(support.SCRATCH, "nowhere")})
        self.assertEqual(code, 2, error)
        self.assertIn("TMPDIR", error)
        with open(part, encoding="utf-8") as file:
            self.assertEqual(file.read(), "what an earlier run left\n")

    def test_links_in_a_circle_are_no_files(self):
        circle = os.path.join(support.SCRATCH, "circle.jsonl")
        if not os.path.islink(circle):
            os.symlink("circle.jsonl", circle)
        code, _, error = halo("run", write("circle.yaml", f"dataset: circle.jsonl\n{WORKFLOW}"), *self.model)
        self.assertEqual(code, 2, error)
        self.assertIn("'circle.jsonl' is no file in its folder", error)

    def test_limit_takes_the_first_rows(self):
        self.assertEqual(len(rows_of(self.run_ok("-i", self.rows, "--limit", "2")[0])), 2)

    def test_a_missing_column_lists_the_columns(self):
        code, _, error = halo("run", self.workflow, "-i", self.rows, "--column", "text", *self.model)
        self.assertEqual(code, 2)
        self.assertIn("text", error)
        self.assertIn("prompt", error)

    def test_validate_prints_every_fault_with_its_place(self):
        path = write("faults.yaml", "start_ops: [a]\nend_ops: [b]\nops:\n  a: {model: 3, temprature: 1}\n")
        code, _, error = halo("validate", path)
        self.assertEqual(code, 2)
        self.assertIn("did you mean 'temperature'", error)
        self.assertRegex(error, r"faults\.yaml:4:\d+: ")
        self.assertGreaterEqual(len(error.splitlines()), 2)

    def test_answers_with_a_schema_are_values_and_those_of_naive(self):
        support.exact_answers_or_skip(self)
        workflow = write("schema.yaml", '''start_ops: [facts]
end_ops: [facts, verdict]
ops:
  facts:
    model: m
    max_tokens: 200
    schema:
      type: object
      properties:
        name: {type: string, maxLength: 8}
        age: {type: integer, minimum: 18, maximum: 99}
        mood: {enum: [good, bad]}
      required: [name, age, mood]
  verdict: {model: m, prompt: "About {{ facts }}", input_ops: [facts], history: outputs, schema: {gbnf: 'root ::= "yes" | "no"'}}
''')
        outputs = {}
        for mode in ("--deterministic", "--naive"):
            code, out, error = halo("run", workflow, "-i", self.rows, *self.model, mode)
            self.assertEqual(code, 0, error)
            outputs[mode] = rows_of(out)
        self.assertEqual(outputs["--deterministic"], outputs["--naive"])
        for row in outputs["--naive"]:
            facts = row["outputs"]["facts"]
            self.assertEqual(list(facts), ["name", "age", "mood"])
            self.assertLessEqual(len(facts["name"]), 8)
            self.assertTrue(18 <= facts["age"] <= 99 and facts["mood"] in ("good", "bad"), facts)
            self.assertIn(row["outputs"]["verdict"], ("yes", "no"))

    def test_an_answer_cut_before_its_schema_is_complete_fails_its_row(self):
        workflow = write("cut.yaml", '''start_ops: [a]
end_ops: [a]
ops:
  a: {model: m, max_tokens: 3, schema: {type: array, minItems: 9, items: {type: integer}}}
''')
        code, out, _ = halo("run", workflow, "-i", self.rows, *self.model)
        self.assertEqual(code, 3)
        for row in rows_of(out):
            self.assertEqual((row["status"], row["error"]["code"], row["outputs"]), ("failed", "output_cut", {"a": None}))

    def test_unknown_models_are_listed_with_the_places_looked_at(self):
        code, _, error = halo("run", self.workflow, "-i", self.rows)
        self.assertEqual(code, 2)
        self.assertIn("'m'", error)
        self.assertIn("--model", error)

    def test_a_truncated_model_is_refused_by_name(self):
        path = os.path.join(support.SCRATCH, "cut.gguf")
        with open(model(), "rb") as whole, open(path, "wb") as cut:
            cut.write(whole.read()[:100000])
        code, _, error = halo("run", self.workflow, "-i", self.rows, "--model", f"m={path}")
        self.assertEqual(code, 2)
        self.assertIn("cut.gguf", error)

    def test_unknown_options_exit_2(self):
        self.assertEqual(halo("run", self.workflow, "--frobnicate")[0], 2)
        self.assertEqual(halo("nonsense")[0], 2)
        self.assertEqual(halo("--help")[0], 0)

    def test_a_prompt_that_is_too_long_fails_its_row_alone(self):
        rows = write("long.jsonl", json.dumps({"id": "long", "prompt": "word " * 400}) + "\n" + ROWS)
        code, out, error = halo("run", self.workflow, "-i", rows, "--context", "128", *self.model)
        self.assertEqual(code, 3)
        self.assertIn('failed: row "long": first: the prompt has', error)
        results = rows_of(out)
        self.assertEqual(results[0]["status"], "failed")
        self.assertEqual(results[0]["error"]["operator"], "first")
        self.assertIn("too many", results[0]["error"]["message"])
        self.assertEqual({row["status"] for row in results[1:]}, {"ok"})

    def test_explain_runs_nothing(self):
        code, out, _ = halo("explain", self.workflow, "-i", self.rows)
        self.assertEqual(code, 0)
        self.assertIn("begins with that of first", out)

    def test_a_plan_is_explained_in_four_forms_and_analyzed(self):
        arguments = (self.workflow, "-i", self.rows, "--no-history", *self.model)
        plans = {form: halo("explain", *arguments, "--format", form) for form in ("text", "json", "mermaid", "html")}
        for form, (code, out, error) in plans.items():
            self.assertEqual(code, 0, error)
            self.assertEqual(out, halo("explain", *arguments, "--format", form)[1], form)
        self.assertIn("total: engine busy for", plans["text"][1])
        self.assertIn("assumed answers are taken to be half", plans["text"][1])
        plan = json.loads(plans["json"][1])
        self.assertTrue(plan["costs_known"])
        self.assertTrue(plans["mermaid"][1].startswith("flowchart TD\n"))
        self.assertIn("<svg", plans["html"][1])
        code, out, error = halo("explain", *arguments, "--analyze", "--quiet")
        self.assertEqual(code, 0, error)
        self.assertIn("actual  calls", out)
        code, out, error = halo("explain", *arguments, "--analyze", "--quiet", "--workers", "2", "--threads", "2")
        self.assertEqual(code, 0, error)
        self.assertIn("worker 1", out)
        # Now there is a history of it.
        self.assertNotIn("assumed", halo("explain", self.workflow, "-i", self.rows, *self.model)[1])

    def test_a_saved_plan_is_carried_out(self):
        plan = os.path.join(support.SCRATCH, "plan.json")
        arguments = (self.workflow, "-i", self.rows, *self.model)
        with open(plan, "w", encoding="utf-8") as file:
            file.write(halo("explain", *arguments, "--format", "json")[1])
        code, out, error = halo("explain", *arguments, "--diff", plan)
        self.assertEqual(code, 0, error)
        self.assertIn("Both decide the same.", out)
        self.assertIn("rule urgent_first: on: true -> false\n", halo("explain", *arguments, "--rules-off", "urgent_first", "--diff", plan)[1])
        self.assertEqual(halo("explain", *arguments, "--diff", self.rows)[0], 2)
        expected = halo("run", *arguments)[1]
        self.assertEqual(halo("run", *arguments, "--plan", plan)[1], expected)
        self.assertEqual(halo("run", *arguments, "--plan", plan, "--naive")[1], expected)
        self.assertEqual(halo("run", *arguments, "--rules-off", "urgent_first,equal_operators")[1], expected)
        with open(plan, encoding="utf-8") as file:
            large = json.load(file)
        large["workers"] *= 1000
        elsewhere = write("elsewhere.json", json.dumps(large))
        for bad, why in ((["--plan", elsewhere], "each worker needs a thread of its own"),
                         (["--plan", self.rows], "is no plan"), (["--rules-off", "urgent"], "there is no rule 'urgent'"),
                         (["--planner", "fast"], "planner")):
            code, _, error = halo("run", *arguments, *bad)
            self.assertEqual(code, 2, error)
            self.assertIn(why, error)

    def test_a_full_disk_is_an_error_and_exit_1(self):
        out = os.path.join(support.SCRATCH, "full.jsonl")
        if not os.path.islink(out + ".part"):
            os.symlink("/dev/full", out + ".part")
        code, _, error = halo("run", self.workflow, "-i", self.rows, "-o", out, *self.model)
        self.assertEqual(code, 1, error)
        self.assertIn("No space left", error)
        self.assertFalse(os.path.exists(out))

    def test_a_missing_folder_is_found_before_anything_runs(self):
        for flag in ("-o", "--dump-prompts", "--summary-json"):
            code, _, error = halo("run", self.workflow, "-i", self.rows, flag, "/nowhere/x.jsonl", *self.model)
            self.assertEqual(code, 2, flag)
            self.assertIn("/nowhere", error)

    def test_a_client_may_wait_for_each_answer_before_its_next_row(self):
        run = subprocess.Popen([support.HALO, "run", self.workflow, "-i", "-", "-o", "-", "--quiet", *self.model],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(3):
            run.stdin.write(json.dumps({"id": i, "prompt": f"question {i}"}) + "\n")
            run.stdin.flush()
            self.assertEqual(json.loads(run.stdout.readline())["id"], i)
        run.stdin.close()
        self.assertEqual(run.wait(timeout=support.seconds(60)), 0)
        run.stdout.close()

    def test_a_name_cannot_lead_out_of_the_output_folder(self):
        for name in ("../up", "/tmp/else", ".hidden"):
            code, _, error = halo("validate", write("named.yaml", f"name: {name}\n{WORKFLOW}"))
            self.assertEqual(code, 2, name)
            self.assertIn("named.yaml:1:", error)

    def test_standard_input_feeds_one_workflow(self):
        code, _, error = halo("run", self.workflow, "-i", "-", "--also", f"{self.workflow}:-", "-o", support.SCRATCH,
                              *self.model)
        self.assertEqual(code, 2)
        self.assertIn("one workflow only", error)

    def interrupt(self, signals):
        """Signals a long run once its first rows are written."""
        workflow = write("long.yaml", WORKFLOW.replace("max_tokens: 6", "max_tokens: 60, max_batch_size: 1"))
        rows = write("many.jsonl", "".join(json.dumps({"prompt": f"row {i}"}) + "\n" for i in range(3000)))
        out = os.path.join(support.SCRATCH, f"interrupted-{signals[0]}.jsonl")
        run = subprocess.Popen([support.HALO, "run", workflow, "-i", rows, "-o", out, *self.model],
                               stderr=subprocess.PIPE, text=True)
        give_up = time.monotonic() + support.seconds(100)
        while time.monotonic() < give_up and run.poll() is None:
            if os.path.exists(out + ".part") and os.path.getsize(out + ".part") > 0:
                break  # rows are there as they are done
            time.sleep(0.05)
        for number in signals:
            run.send_signal(number)
            time.sleep(0.2)  # two of one kind that are pending at once would be one
        error = run.communicate(timeout=support.seconds(60))[1]
        self.assertFalse(os.path.exists(out), "an unfinished output must not appear under its name")
        return run.returncode, error

    def test_one_signal_drains_and_says_so(self):
        code, error = self.interrupt([signal.SIGINT])
        self.assertEqual(code, 130, error)
        self.assertIn("unfinished", error)

    def test_a_second_signal_ends_at_once(self):
        code, error = self.interrupt([signal.SIGTERM, signal.SIGTERM])
        self.assertEqual(code, 143, error)

    def test_adapters_change_answers_and_are_those_of_naive(self):
        adapter = support.adapter()
        text = """
start_ops: [plain, tuned, half]
end_ops: [plain, tuned, half, last]
ops:
  plain: {model: m, prompt: Go., temperature: 0, max_tokens: 8}
  tuned: {model: m, prompt: Go., temperature: 0, max_tokens: 8, lora_config: {file: adapter.gguf}}
  half: {model: m, prompt: Go., temperature: 0, max_tokens: 8, lora_config: {file: ./adapter.gguf, scale: 0.5}}
  last: {model: m, prompt: On., input_ops: [tuned], max_tokens: 8, lora_config: {file: adapter.gguf}}
"""
        flow = write("lora.yaml", text)
        rows = write("lora.jsonl", "".join(json.dumps({"prompt": f"row {i}"}) + "\n" for i in range(6)))
        results = []
        for how in ([], ["--naive"]):
            code, out, error = halo("run", flow, "-i", rows, "--model", f"m={model()}", *how)
            self.assertEqual(code, 0, error)
            results.append(out)
        answers = [json.loads(line)["outputs"] for line in results[0].splitlines()]
        for one, other in (("plain", "tuned"), ("plain", "half"), ("tuned", "half")):
            self.assertNotEqual([a[one] for a in answers], [a[other] for a in answers])
        if "exact answers yes" in halo("version")[1]:
            self.assertEqual(results[0], results[1])
        self.assertIn("[m + adapter.gguf]", halo("explain", flow)[1])

        # It may lie with the models, but a workflow cannot name what lies elsewhere.
        inner = os.path.join(support.SCRATCH, "inner")
        os.makedirs(inner, exist_ok=True)
        code, _, error = halo("run", write("inner/lora.yaml", text), "-i", rows,
                              "--model", f"m={model()}")
        self.assertEqual(code, 2, error)
        self.assertRegex(error, r"lora.yaml:6:\d+: lora_config: 'adapter.gguf' is no file in the workflow's folder")
        code, _, error = halo("run", os.path.join(inner, "lora.yaml"), "-i", rows, "--model", f"m={model()}",
                              env={"HALO_MODELS": os.path.dirname(adapter)})
        self.assertEqual(code, 0, error)
        outside = write("inner/outside.yaml", """
start_ops: [a]
end_ops: [a]
ops:
  a: {model: m, lora_config: {file: ../adapter.gguf}}
""")
        code, _, error = halo("run", outside, "-i", rows, "--model", f"m={model()}")
        self.assertEqual(code, 2, error)
        self.assertIn("lies outside", error)

    def test_an_adapter_of_another_model_is_refused_by_name(self):
        other = os.path.join(support.SCRATCH, "other.gguf")
        code, _, error = halo("models", "synth", "--shape", "tiny", "--layers", "3", "-o", other)
        self.assertEqual(code, 0, error)
        code, _, error = halo("models", "synth-lora", other, "--rank", "2", "-o",
                              os.path.join(support.SCRATCH, "other-adapter.gguf"))
        self.assertEqual(code, 0, error)
        flow = write("misfit.yaml", """
start_ops: [a]
end_ops: [a]
ops:
  a: {model: m, lora_config: {file: other-adapter.gguf}}
""")
        code, out, error = halo("run", flow, "-i", "-", "--model", f"m={model()}", stdin='{"prompt": "x"}\n')
        self.assertEqual((code, out), (2, ""))
        self.assertIn("other-adapter.gguf: it changes 'blk.2.", error)

    def calibrate(self, *args, **options):
        # As little as can be measured: one round of the fewest points. Threads that wait for each other are slow on a
        # machine that is busy with other tests.
        return halo("calibrate", "--seconds", "0.1", "--threads", "1", *args, **options)

    def test_calibrating_stores_what_a_model_costs_here(self):
        profile = os.path.join(support.SCRATCH, "profiles", "p.json")
        code, out, error = self.calibrate("--model", f"m={model()}", "--profile", profile)
        self.assertEqual(code, 0, error)
        self.assertIn("stored in " + profile, error)
        self.assertRegex(out, r"prefill +prompts +tokens +context +ms +tokens/s")
        with open(profile, encoding="utf-8") as file:
            first = json.load(file)
        self.assertEqual(first["version"], 1)
        self.assertIn(first["machine"], out)
        self.assertEqual(first["threads"], 1)
        self.assertIn(" 1 threads, halo ", first["machine"])
        (measured,) = first["models"]
        self.assertEqual(measured["model"], "m")
        self.assertTrue(measured["measured"])
        self.assertEqual(measured["kv_token_bytes"], 2 * 2 * 64 * 2 * 2)  # layers, KV heads, width, K and V, F16
        self.assertGreater(measured["weights_bytes"], 1 << 20)
        for points in (measured["prefill"], measured["decode"]):
            self.assertGreater(len(points), 3)
            for point in points:
                self.assertGreater(point["base_s"], 0)
        for cost in ("sampling_token_s", "greedy_token_s", "load_s", "copy_token_s", "spill_token_s", "room_byte_s"):
            self.assertGreaterEqual(measured[cost], 0, cost)
            self.assertLess(measured[cost], 1000, cost)
        self.assertGreater(measured["load_s"], 0)

        # Another model joins it; the same one takes its own place, whatever its name.
        other = os.path.join(support.SCRATCH, "other.gguf")
        self.assertEqual(halo("models", "synth", "--shape", "tiny", "--layers", "1", "--seed", "9", "-o", other)[0], 0)
        code, _, error = self.calibrate("--model", f"o={other}", "--model", f"again={model()}", "--profile", profile, "--quiet")
        self.assertEqual((code, error), (0, ""))
        with open(profile, encoding="utf-8") as file:
            second = json.load(file)
        self.assertEqual([entry["model"] for entry in second["models"]], ["again", "o"])
        self.assertEqual(second["models"][0]["model_digest"], measured["model_digest"])
        self.assertNotEqual(second["models"][1]["model_digest"], measured["model_digest"])
        self.assertEqual(os.listdir(os.path.dirname(profile)), ["p.json"])

        # What another machine measured is left alone.
        second["machine"] = "another one"
        write("profiles/p.json", json.dumps(second))
        code, out, error = self.calibrate("--model", f"m={model()}", "--profile", profile)
        self.assertEqual((code, out), (2, ""))
        self.assertIn("was measured on another machine or by another build (another one)", error)
        with open(profile, encoding="utf-8") as file:
            self.assertEqual(json.load(file), second)

    def test_plans_need_no_rows_where_memory_is_given(self):
        flow = write("norows.yaml", "start_ops: [a]\nend_ops: [a]\nops: {a: {model: m, prompt: Go., max_tokens: 4}}\n")
        code, out, error = halo("explain", flow, "--model", f"m={model()}", "--worker-memory", "2G")
        self.assertEqual(code, 0, error)
        self.assertIn("a", out)

    def test_every_command_looks_into_the_hugging_face_cache(self):
        snapshot = pathlib.Path(support.SCRATCH, "hub", "models--org--small", "snapshots", "abc")
        snapshot.mkdir(parents=True)
        shutil.copy(model(), snapshot / "small-Q8_0.gguf")
        env = {"HF_HUB_CACHE": str(snapshot.parents[2])}
        code, out, error = halo("models", "ls", env=env)
        self.assertEqual(code, 0, error)
        self.assertIn(f"org/small\t{snapshot / 'small-Q8_0.gguf'}\n", out)
        code, _, error = self.calibrate("--model", "org/small", "--profile", os.path.join(support.SCRATCH, "hub.json"), env=env)
        self.assertEqual(code, 0, error)
        flow = write("hub.yaml", "start_ops: [a]\nend_ops: [a]\nops: {a: {model: org/small, prompt: Go., max_tokens: 4}}\n")
        rows = write("hub.jsonl", '{"prompt": "x"}\n')
        for args in (["run", flow, "-i", rows], ["simulate", flow, "-i", rows, "--format", "json"]):
            code, out, error = halo(*args, env=env)
            self.assertEqual(code, 0, error)
        self.assertNotIn("a token is four bytes", out + error)

    def test_calibrating_finds_a_place_for_its_profile(self):
        state = os.path.join(support.SCRATCH, "state")
        args = ["--model", f"m={model()}"]
        code, _, error = self.calibrate(*args, env={"XDG_STATE_HOME": state})
        self.assertEqual(code, 0, error)
        (name,) = os.listdir(os.path.join(state, "halo", "profiles"))
        self.assertRegex(name, r"^[0-9a-f]{16}\.json$")
        named = os.path.join(support.SCRATCH, "named.json")
        code, _, error = self.calibrate(*args, env={"XDG_STATE_HOME": state, "HALO_PROFILE": named})
        self.assertEqual(code, 0, error)
        self.assertTrue(os.path.exists(named))
        code, _, error = self.calibrate(*args, env={"XDG_STATE_HOME": "", "HOME": ""})
        self.assertEqual(code, 2)
        self.assertIn("no place for the profile: give --profile FILE", error)

    def test_calibrating_refuses_what_it_cannot_measure_or_store(self):
        code, _, error = self.calibrate("--model", "m=", "--profile", "p.json")
        self.assertEqual(code, 2)
        self.assertIn("--model: expected NAME=FILE.gguf, got 'm='", error)
        code, _, error = self.calibrate("--model", "m=nothing.gguf", "--profile", "p.json")
        self.assertEqual(code, 2)
        self.assertIn("nothing.gguf", error)
        broken = write("broken-profile.json", "{}")
        code, out, error = self.calibrate("--model", f"m={model()}", "--profile", broken)
        self.assertEqual((code, out), (2, ""))
        self.assertIn("broken-profile.json: version: missing", error)
        code, _, error = self.calibrate("--model", f"m={model()}", "--profile", os.path.join(broken, "p.json"))
        self.assertIn("cannot make this folder for profiles", error)
        self.assertEqual(code, 1)

    def test_two_workflows_run_as_one_batch(self):
        other = write("other.yaml", "name: other\n" + WORKFLOW)
        folder = os.path.join(support.SCRATCH, "several")
        self.run_ok("-i", self.rows, "--also", f"{other}:{self.rows}", "-o", folder)
        self.assertEqual(sorted(os.listdir(folder)), ["other.jsonl", "w.jsonl"])


if __name__ == "__main__":
    unittest.main(argv=["cli_test"], verbosity=1)
