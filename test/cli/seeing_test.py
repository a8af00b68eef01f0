"""What a person sees of a run: bars on a terminal, lines and JSON elsewhere, the end, the report; and the limits that end a run."""
import collections
import fcntl
import html.parser
import http.server
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
import unittest

import support
from support import halo, model, write

SLOW_S = 0.12


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen = set()

    def log_message(self, *_):
        pass

    def do_GET(self):
        time.sleep(SLOW_S)
        body = b'{"answer": 1}'
        is_busy = "busy" in self.path and self.path not in Handler.seen
        Handler.seen.add(self.path)
        self.send_response(429 if is_busy else 404 if "bad" in self.path else 200)
        if is_busy:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except BrokenPipeError:
            pass  # the run gave the call up, as it should


def graph(port, nodes):
    """Operators one after another, each a web call that takes a while."""
    text = f"graph:\n  allow_hosts: [{{host: 127.0.0.1, concurrency: 4}}]\n  nodes:\n    - {{id: in, type: input, outputs: [q]}}\n"
    for i in range(nodes):
        text += (f'    - {{id: step{i}, type: http, url: "http://127.0.0.1:{port}/{i}", params: {{q: "{{{{ q }}}}"}}'
                 + (f", inputs: [step{i - 1}]" if i > 0 else "") + "}\n")
    return text


class Screen:
    """As much of a terminal as the display uses. Lines that no longer fit are broken anew, as terminals do."""

    def __init__(self, lines, columns):
        self.lines, self.columns = lines, columns
        self.rows, self.at, self.column = [""], 0, 0
        self.widest, self.most_bars = 0, 0
        self.seen = set()

    def feed(self, text):
        for part in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|[^\x1b]+", text):
            if part.startswith("\x1b["):
                self.control(part[2:-1], part[-1])
            else:
                for letter in part:
                    self.put(letter)
        self.look()

    def control(self, argument, letter):
        if letter == "A":
            self.at = max(0, self.at - int(argument or 1))
        elif letter == "J":
            self.rows = self.rows[:self.at] + [self.rows[self.at][:self.column]]
        elif letter != "m":
            raise AssertionError(f"unknown control {argument}{letter}")

    def put(self, letter):
        if letter == "\r":
            self.column = 0
        elif letter == "\n":
            self.at += 1
            if self.at == len(self.rows):
                self.rows.append("")
        else:
            if self.column == self.columns:
                self.put("\r"), self.put("\n")
            row = self.rows[self.at].ljust(self.column)
            self.rows[self.at] = row[:self.column] + letter + row[self.column + 1:]
            self.column += 1
            self.widest = max(self.widest, self.column)

    def look(self):
        self.most_bars = max(self.most_bars, sum(row.startswith("total") for row in self.rows))
        self.seen.update(self.rows)

    def resize(self, lines, columns):
        rows = []
        for i, row in enumerate(self.rows):
            if i == self.at:
                at = len(rows)
            rows += [row[k:k + columns] for k in range(0, max(1, len(row)), columns)]
        self.rows, self.at, self.lines, self.columns, self.widest = rows, at, lines, columns, 0


def run_on_terminal(arguments, lines=24, columns=80, env=None, resize=None, rows_too=False):
    """Runs halo with standard error on a terminal, and standard output if `rows_too`. `resize`: (seconds, lines, columns). Returns (code, screen, all of it)."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = support.own_environment()
    environment.update({"TERM": "xterm", "LC_ALL": "C.UTF-8"})
    environment.pop("NO_COLOR", None)
    environment.update(env or {})
    process = subprocess.Popen([support.HALO, *arguments], stdin=subprocess.DEVNULL, stdout=slave if rows_too else subprocess.DEVNULL, stderr=slave,
                               env=environment, cwd=support.SCRATCH)
    os.close(slave)
    screen, everything, left = Screen(lines, columns), "", b""
    begin = time.monotonic()
    while True:
        if resize and time.monotonic() - begin > resize[0]:
            fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", resize[1], resize[2], 0, 0))
            screen.resize(*resize[1:])
            resize = None
        if not select.select([master], [], [], 0.05)[0]:
            continue
        try:
            data = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        left += data
        text = left.decode("utf-8", errors="ignore")
        left = b"" if text.encode() == left else left[len(text.encode()):]
        everything += text
        screen.feed(text)
    os.close(master)
    return process.wait(timeout=support.seconds(60)), screen, everything


class Seeing(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        cls.port = cls.server.server_address[1]
        threading.Thread(target=cls.server.serve_forever, daemon=True).start()
        cls.rows = write("seen.jsonl", "".join(json.dumps({"q": f"row {i}"}) + "\n" for i in range(24)))
        cls.two = write("two.yaml", graph(cls.port, 2))
        cls.run_two = ["run", cls.two, "-i", cls.rows, "--allow", "net"]

    @classmethod
    def tearDownClass(cls):
        cls.server.shutdown()

    def test_a_terminal_shows_bars_that_are_drawn_in_place_and_taken_away(self):
        code, screen, text = run_on_terminal(self.run_two)
        self.assertEqual(code, 0, text)
        self.assertEqual(screen.most_bars, 1)
        self.assertTrue(any(re.match(r"step1 +[█-▏ ]+ \d+/24  \d+ in flight", row) for row in screen.seen), text)
        self.assertTrue(any(row.startswith("rows ") and " ok" in row and "in flight" in row for row in screen.seen), text)
        self.assertFalse([row for row in screen.rows if row.startswith("total")])
        self.assertIn("24 rows: 24 ok, 0 failed", "\n".join(screen.rows))
        self.assertIn("\x1b[36m", text)

    def test_a_narrow_terminal_is_never_overrun(self):
        for columns in (30, 12):
            code, screen, text = run_on_terminal([*self.run_two, "--limit", "8"], columns=columns)
            self.assertEqual(code, 0)
            bars = [row for row in screen.seen if row.startswith("total")]
            self.assertTrue(bars, text)
            self.assertEqual(screen.most_bars, 1)
            self.assertLess(max(len(row) for row in bars), columns)

    def test_a_terminal_that_changes_its_size_is_left_clean(self):
        for size in ((24, 34), (9, 100)):
            code, screen, text = run_on_terminal(self.run_two, resize=(0.8, *size))
            self.assertEqual(code, 0)
            self.assertFalse([row for row in screen.rows if row.startswith(("total", "step0", "in flight"))
                              and "█" in row], "\n".join(screen.rows))

    def test_operators_that_do_not_fit_are_counted(self):
        many = write("many.yaml", graph(self.port, 20))
        code, screen, text = run_on_terminal(["run", many, "-i", self.rows, "--allow", "net", "--limit", "4"], lines=12)
        self.assertEqual(code, 0)
        self.assertTrue(any(re.match(r"and \d+ more operators", row) for row in screen.seen), text)
        drawn = re.split(r"\x1b\[J", text)
        self.assertLessEqual(max(part.count("\n") for part in drawn[:-1]), 11)

    def test_no_colours_no_blocks_and_no_display_where_they_are_not_wanted(self):
        code, screen, text = run_on_terminal([*self.run_two, "--limit", "8"], env={"NO_COLOR": "1", "LC_ALL": "C"})
        self.assertEqual(code, 0)
        self.assertNotRegex(text, r"\x1b\[[0-9;]*m")
        self.assertTrue(any(re.match(r"total +[#.]+ ", row) for row in screen.seen), text)
        code, screen, text = run_on_terminal([*self.run_two, "--limit", "8"], rows_too=True)
        self.assertEqual(len([row for row in text.splitlines() if row.startswith('{"id":')]), 8)
        self.assertNotIn("\x1b", text)
        for arguments, env in (([], {"TERM": "dumb"}), (["--quiet"], {}), (["--log-format", "json"], {})):
            code, screen, text = run_on_terminal([*self.run_two, "--limit", "4", *arguments], env=env)
            self.assertEqual(code, 0)
            self.assertNotIn("\x1b", text)

    def test_a_display_says_what_the_run_waits_for(self):
        limited = write("limited.yaml", graph(self.port, 1).replace("concurrency: 4", "requests_per_second: 8"))
        code, screen, text = run_on_terminal(["run", limited, "-i", self.rows, "--allow", "net"])
        self.assertEqual(code, 0, text)
        self.assertTrue(any(re.match(r"waiting for a host's requests_per_second \(\d+ calls?\)", row) for row in screen.seen), text)
        busy = write("busy.yaml", graph(self.port, 1).replace("/0", "/busy").replace("params", "retry: {max: 1}, params"))
        code, screen, text = run_on_terminal(["run", busy, "-i", self.rows, "--allow", "net", "--limit", "3"])
        self.assertEqual(code, 0, text)
        self.assertTrue(any(re.match(r"waiting for a rate limit \(3 calls later, the first in [01] s\)", row)
                            for row in screen.seen), text)

    def test_a_json_log_is_one_object_a_line_to_the_end(self):
        bad = write("bad.yaml", graph(self.port, 1).replace("/0", "/bad"))
        code, _, error = halo("run", bad, "-i", self.rows, "--allow", "net", "--limit", "3", "--log-format", "json", "-o", "log.jsonl")
        self.assertEqual(code, 3)
        events = [json.loads(line) for line in error.splitlines()]
        for event in events:
            self.assertRegex(event["time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
            self.assertIn(event["level"], ("info", "warning", "error"))
        by_name = {event["event"]: event for event in events}
        self.assertEqual(by_name["progress"]["rows"]["total"], 3)
        self.assertEqual(by_name["summary"]["summary"]["rows"]["failed"], 3)
        failure = by_name["failure"]
        self.assertEqual((failure["operator"], failure["rows"], failure["example_row"]), ("step0", 3, 0))
        self.assertEqual(by_name["next"]["command"], "grep '\"status\":\"failed\"' log.jsonl")
        # A fault before the run is an event, too.
        code, _, error = halo("run", "not-there.yaml", "-i", self.rows, "--log-format", "json")
        self.assertEqual(code, 2)
        self.assertEqual(json.loads(error)["level"], "error")

    def test_what_others_say_cannot_move_the_cursor(self):
        rows = write("nasty.jsonl", '{"id": "a\\u001b[2J\\u009b1A\\nfailed: 9 rows", "q": "x"}\n')
        bad = write("bad.yaml", graph(self.port, 1).replace("/0", "/bad"))
        code, _, error = halo("run", bad, "-i", rows, "--allow", "net")
        self.assertEqual(code, 3)
        self.assertNotIn("\x1b", error)
        self.assertNotIn("\x9b", error)
        self.assertEqual(len([line for line in error.splitlines() if line.startswith("failed: ")]), 1)

    def test_files_of_others_cannot_move_the_cursor_either(self):
        nasty = "a\x1b]0;title\x07\u202eb\u2066"
        shown = "a?]0;title??b?"
        workflow = write("nasty.yaml", json.dumps({"start_ops": ["a"], "end_ops": ["a"], "ops": {"a": {"model": "m", "prompt": "x", nasty: 1}}}))
        for command in (["validate", workflow], ["run", workflow, "-i", write("r.jsonl", "{}\n")]):
            code, _, error = halo(*command)
            self.assertEqual(code, 2)
            self.assertIn(f"unknown key '{shown}'", error)
        manifest = {"format": 1, "created": 1, "parts": 1, "in_runs": True, "working_folder": nasty, "same": "", "models": [],
                    "options": {"output": nasty}, "inputs": []}
        os.makedirs(os.path.join(support.SCRATCH, "runs", "theirs"), exist_ok=True)
        write("runs/theirs/manifest.json", json.dumps(manifest))
        for command in (["runs", "ls"], ["runs", "show", "theirs"], ["resume", "theirs"]):
            _, out, error = halo(*command)
            self.assertIn(shown, out + error)
            self.assertNotRegex(out + error, "[\x1b\x07\u202e\u2066]")

    def test_failures_are_told_in_groups_with_an_example(self):
        bad = write("bad.yaml", graph(self.port, 1).replace("/0", "/bad"))
        code, _, error = halo("run", bad, "-i", self.rows, "--allow", "net", "--limit", "5")
        self.assertEqual(code, 3)
        self.assertRegex(error, r"failed: 5 rows: step0: \w+; for example row 0: ")

    def test_a_budget_ends_a_run_that_can_go_on(self):
        code, out, error = halo(*self.run_two, "--budget", "calls=10")
        self.assertEqual(code, 4, error)
        self.assertIn("stopped: the budget of 10 calls is spent", error)
        self.assertRegex(error, r"next: \S*halo run \S+two.yaml .*--budget calls=10\n$")
        code, _, error = halo(*self.run_two, "--budget", "seconds=0.3")
        self.assertEqual(code, 4, error)
        self.assertIn("stopped: the budget of 0.3 s is spent", error)
        self.assertEqual(halo(*self.run_two, "--budget", "calls=48,seconds=600")[0], 0)
        for wrong in ("calls", "calls=-1", "calls=1.5", "money=3", "tokens=x"):
            code, _, error = halo(*self.run_two, "--budget", wrong)
            self.assertEqual(code, 2)
            self.assertIn("--budget: expected ", error)

    def test_a_breaker_ends_a_run_in_which_nothing_works(self):
        bad = write("bad.yaml", graph(self.port, 1).replace("/0", "/bad"))
        rows = write("hopeless.jsonl", '{"q": "x"}\n' * 120)
        run = ["run", bad, "-i", rows, "--allow", "net", "--summary-json", "broken.json"]
        code, _, error = halo(*run)
        self.assertEqual(code, 4, error)
        self.assertIn("stopped: the first 20 rows all failed alike: step0: ", error)
        with open(os.path.join(support.SCRATCH, "broken.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file)["stopped"]["by"], "all_fail")
        self.assertEqual(halo(*run, "--no-breaker")[0], 3)

    def test_a_row_may_have_a_deadline(self):
        code, _, error = halo(*self.run_two, "--limit", "2", "--row-timeout", "0.15")
        self.assertEqual(code, 3, error)
        self.assertIn("deadline", error)

    def test_the_end_says_where_the_time_went(self):
        code, _, error = halo(*self.run_two, "--limit", "4")
        self.assertEqual(code, 0, error)
        self.assertRegex(error, r"slowest: step\d .* s \(\d+ %\), step\d ")


class Page(html.parser.HTMLParser):
    """Tags and text of a page, and whether every tag that was opened is closed."""

    VOID = {"meta", "link", "br", "rect", "path", "line", "img"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.attributes = [], collections.Counter(), "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.attributes += attributes
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags[tag] += 1
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


class Report(unittest.TestCase):
    WORKFLOW = """
name: "<b>bold & 'new'"
start_ops: [first]
end_ops: [last]
ops:
  first: {model: m, prompt: "Tell <script>alert(1)</script> of it.", max_tokens: 6, output_ops: [last]}
  last: {model: m, prompt: "And now shorter.", max_tokens: 4, input_ops: [first]}
"""

    @classmethod
    def setUpClass(cls):
        cls.workflow = write("report.yaml", cls.WORKFLOW)
        cls.rows = write("report.jsonl", "".join(json.dumps({"id": f"<i>{i}", "prompt": f"Secret </pre> {i}"}) + "\n"
                                                 for i in range(5)) + '{"id": "long", "prompt": "' + "word " * 3000 + '"}\n')

    def report(self, *flags):
        path = os.path.join(support.SCRATCH, "report.html")
        code, _, error = halo("run", self.workflow, "-i", self.rows, "--model", f"m={model()}", "--worker-memory", "64M",
                              "--context", "2048", "--report", path, *flags)
        self.assertEqual(code, 3, error)
        self.assertIn(f"wrote {path}", error)
        with open(path, encoding="utf-8") as file:
            return file.read()

    def test_it_is_one_file_that_fetches_nothing_and_runs_nothing(self):
        text = self.report()
        page = Page(text)
        self.assertEqual(page.open, [])
        self.assertEqual((page.tags["script"], page.tags["b"] > 0, page.tags["link"], page.tags["img"]), (0, True, 0, 0))
        self.assertNotRegex(text, r"https?://")
        self.assertIn("default-src 'none'", text)
        self.assertFalse([value for name, value in page.attributes if name.startswith("on")])
        ids = {value for name, value in page.attributes if name == "id"}
        links = {value[1:] for name, value in page.attributes if name == "href"}
        self.assertEqual(links, ids)
        self.assertEqual(ids, {"failures", "operators", "timeline", "histograms", "sharing", "plan"})

    def test_it_shows_what_happened_and_names_stay_text(self):
        page = Page(self.report())
        self.assertIn("Run of <b>bold & 'new'", page.text)
        self.assertIn('row "long"', page.text)
        self.assertIn("too many", page.text)
        for word in ("worker 0: m", "Prompt tokens of a call", "Seconds of a model's call", "prompt tokens were there already",
                     "off by", "some rows failed"):
            self.assertIn(word, page.text)
        # What rows and models say is shown only when it is asked for.
        self.assertNotIn("Secret", page.text)

    def test_rows_are_shown_when_asked_for(self):
        page = Page(self.report("--report-samples", "2"))
        self.assertIn('row "<i>0"', page.text)
        self.assertIn("Secret </pre> 1", page.text)
        self.assertIn("<script>alert(1)</script>", page.text)
        self.assertNotIn("Secret </pre> 2", page.text)
        self.assertEqual((page.tags["details"], page.tags["script"]), (2, 0))

    def test_a_path_that_cannot_be_written_is_found_before_anything_runs(self):
        code, _, error = halo("run", self.workflow, "-i", self.rows, "--model", f"m={model()}", "--report", "no/such/r.html")
        self.assertEqual(code, 2)
        self.assertIn("--report", error)
        code, _, error = halo("run", self.workflow, "-i", self.rows, "--model", f"m={model()}", "--report", self.rows)
        self.assertEqual(code, 2)
        self.assertIn("is an input of this run", error)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
