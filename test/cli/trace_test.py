"""What --trace writes, read as a viewer reads it, beside the summary of the same run."""
import collections
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import unittest

import support
from support import halo, model, write

GRAPH = """
graph:
  connections: {words: {files: {words: words.csv}}}
  allow_hosts: [127.0.0.1]
  nodes:
    - {id: in, type: input, outputs: [t]}
    - {id: told, type: db_query, connection: words, sql: "SELECT count(*) AS n FROM words WHERE word <> :t", parameters: {t: "{{ t }}"}}
    - {id: asked, type: http, url: "http://127.0.0.1:PORT/echo", params: {q: "{{ t }}"}, retry: {max: 2, backoff_s: 0.01}}
    - {id: first, model: m, inputs: [t], prompt: "Say something about {{ t }}.", max_tokens: 12, outputs: [said]}
    - {id: last, model: m, inputs: [said, told, asked], prompt: "{{ said }} {{ told }} {{ asked }} Secret-0f3.", max_tokens: 9}
"""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen = collections.Counter()

    def log_message(self, *_):
        pass

    def do_GET(self):
        Handler.seen[self.path] += 1
        is_first = Handler.seen[self.path] == 1 and self.path.endswith("row-3")
        body = b'{"answer": 1}'
        self.send_response(503 if is_first else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


class Trace:
    """A trace by names of processes and threads."""

    def __init__(self, path):
        self.document = read(path)
        self.events = self.document["traceEvents"]
        processes = {event["pid"]: event["args"]["name"] for event in self.of("M") if event["name"] == "process_name"}
        threads = {event["tid"]: event["args"]["name"] for event in self.of("M") if event["name"] == "thread_name"}
        self.lanes = collections.defaultdict(list)
        for event in self.of("X"):
            self.lanes[processes[event["pid"]], threads[event["tid"]]].append((event["ts"], event["ts"] + event["dur"], event))

    def of(self, *types):
        return [event for event in self.events if event["ph"] in types]

    def spans(self, process, thread):
        return [event for (p, t), spans in self.lanes.items() if p.startswith(process) and t.startswith(thread)
                for _, _, event in spans]


class TraceTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        write("words.csv", "word,n\nalpha,1\nbeta,2\n")
        cls.workflow = write("traced.yaml", GRAPH.replace("PORT", str(cls.server.server_address[1])))
        cls.rows = write("traced.jsonl", "".join(json.dumps({"id": f"r{i}", "t": f"row-{i}"}) + "\n" for i in range(24)))
        cls.model = ["--model", f"m={model()}", "--worker-memory", "64M", "--kept-memory", "64M", "--sequences", "8"]
        cls.path = os.path.join(support.SCRATCH, "trace.json")

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()
        cls.server.server_close()

    def run_traced(self, *args):
        summary = os.path.join(support.SCRATCH, "traced.summary.json")
        begin = time.monotonic()
        Handler.seen.clear()
        code, out, error = halo("run", self.workflow, "-i", self.rows, *self.model, "--allow", "net", "--trace", self.path,
                                "--summary-json", summary, *args)
        self.assertEqual(code, 0, error)
        return Trace(self.path), read(summary), (time.monotonic() - begin) * 1e6, out

    def check(self, trace, summary, elapsed_us):
        for lane, spans in trace.lanes.items():
            spans.sort(key=lambda span: span[:2])
            for before, after in zip(spans, spans[1:]):
                self.assertLessEqual(before[1], after[0], f"{lane}: {before} {after}")
        for event in trace.of("X", "i", "C"):
            self.assertGreaterEqual(event["ts"], 0)
            self.assertLessEqual(event["ts"] + event.get("dur", 0), elapsed_us)
        calls = collections.Counter(event["name"] for process in ("worker", "tools") for event in trace.spans(process, "")
                                    if "operator" in event.get("args", {}))
        self.assertEqual(dict(calls), {operator["id"]: operator["calls"] for operator in summary["operators"]})
        passes = trace.spans("worker", "passes")
        tokens = summary["tokens"]
        self.assertEqual(sum(e["args"]["tokens"] for e in passes if e["name"] == "prefill"), tokens["prefilled"] + tokens["recomputed"] + tokens["ahead"])
        # The first token of an answer comes of the pass over its prompt.
        llm_calls = sum(operator["calls"] for operator in summary["operators"] if operator["kind"] == "llm")
        self.assertEqual(sum(e["args"]["tokens"] for e in passes if e["name"] == "decode"), tokens["output"] - llm_calls)
        self.assertEqual(sum(engine["steps"] for engine in summary["engine"]), len(passes))
        copies = collections.Counter(event["name"] for event in trace.spans("worker", "copies"))
        self.assertEqual((copies["spill"], copies["restore"]), (summary["kv"]["spills"], summary["kv"]["restores"]))
        self.assertEqual(len([e for e in trace.of("i") if e["name"] == "row written"]), summary["rows"]["total"])
        self.assertEqual(sum(e["args"]["rows"] for e in trace.of("i") if e["name"] == "rows opened"), summary["rows"]["total"])
        counters = {event["name"] for event in trace.of("C")}
        self.assertEqual(counters, {"rows open", "calls in flight", "running sequences", "KV tokens"})
        self.assertEqual([e["args"]["value"] for e in trace.of("C") if e["name"] == "rows open"][-1], 0)
        self.assertEqual(trace.document["otherData"], {"events_left_out": "0"})

    def test_calls_passes_copies_and_tools_are_there_once_on_lanes_of_their_own(self):
        for where in ("child", "in"):
            with self.subTest(where):
                trace, summary, elapsed_us, _ = self.run_traced("--engine-process", where)
                self.check(trace, summary, elapsed_us)
                self.assertEqual(len(trace.spans("worker", "model")), 2)  # loaded, laid out
                failed = [e for e in trace.spans("tools", "http") if e["args"].get("failed")]
                self.assertEqual(len(failed), 1)
                self.assertTrue(trace.spans("tools", "sql"))

    def test_it_changes_no_answer_and_tells_none(self):
        _, _, _, traced = self.run_traced()
        code, plain, error = halo("run", self.workflow, "-i", self.rows, *self.model, "--allow", "net")
        self.assertEqual(code, 0, error)
        self.assertEqual(traced, plain)
        with open(self.path, encoding="utf-8") as file:
            text = file.read()
        for secret in ("Secret-0f3", "row-3", "echo", "SELECT"):
            self.assertNotIn(secret, text)

    def has_passes(self):
        if not os.path.exists(self.path):
            return False
        with open(self.path, encoding="utf-8") as file:
            return '"name":"decode"' in file.read()

    def test_a_run_that_is_ended_at_any_moment_leaves_a_trace_that_opens(self):
        rows = write("many.jsonl", "".join(json.dumps({"id": i, "t": f"row-{i}"}) + "\n" for i in range(3000)))
        for ends in ([signal.SIGINT], [signal.SIGINT] * 3, [signal.SIGKILL]):
            with self.subTest(ends):
                if os.path.exists(self.path):
                    os.remove(self.path)
                run = subprocess.Popen([support.HALO, "run", self.workflow, "-i", rows, *self.model, "--allow", "net", "--trace", self.path],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=support.SCRATCH)
                give_up = time.monotonic() + support.seconds(60)
                while not self.has_passes():
                    self.assertLess(time.monotonic(), give_up)
                    time.sleep(0.05)
                for end in ends:
                    run.send_signal(end)
                run.communicate(timeout=support.seconds(60))
                self.assertNotEqual(run.returncode, 0)
                self.assertGreater(len(Trace(self.path).spans("worker", "passes")), 0)

    def test_faults_of_the_file(self):
        begin = ("run", self.workflow, "-i", self.rows, *self.model, "--allow", "net", "--trace")
        code, _, error = halo(*begin, os.path.join(support.SCRATCH, "no", "trace.json"))
        self.assertEqual(code, 2, error)
        self.assertIn("--trace", error)
        code, _, error = halo(*begin, self.rows)
        self.assertEqual(code, 2, error)
        self.assertIn("is an input of this run", error)
        code, _, error = halo(*begin, "/dev/full")
        self.assertEqual(code, 2, error)
        self.assertIn("No space left", error)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
