#!/usr/bin/env python3
"""python_rows.py BUILD [ROWS] [TURNS]: rows in and out through Python and through the command line, on simulated workers.

Both read ROWS rows (100,000), plan, schedule and simulate one workflow, and give every row back: `halo simulate` from and to a file
of JSON lines, Python from a list of dicts to a list of dicts. In turns, since the machine's speed changes; medians of the pairs' ratios, of time on the
wall, and of processor time, which others on the machine disturb less.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

BUILD = os.path.abspath(sys.argv[1])
ROWS = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
TURNS = int(sys.argv[3]) if len(sys.argv) > 3 else 3
FLOW = """\
start_ops: [draft]
end_ops: [review]
ops:
  draft: {model: m, prompt: "Answer the question of the customer.", max_tokens: 32, output_ops: [review]}
  review: {model: m, prompt: "Say it in one sentence.", max_tokens: 16}
"""
PROGRAM = """\
import json, sys, time
import halo
with open(sys.argv[2]) as file:
    rows = [json.loads(line) for line in file]
begin, used = time.monotonic(), time.process_time()
results = halo.simulate(sys.argv[1], rows, workers=8, use_history=False, profile=None, progress=False)
elapsed, used = time.monotonic() - begin, time.process_time() - used
assert len(results) == len(rows) and results[-1]["status"] == "ok", results.outcome
with open(sys.argv[3], "w") as file:
    for row in results:
        file.write(json.dumps(row, separators=(",", ":"), ensure_ascii=False) + "\\n")
print(elapsed, used)
"""


def main():
    with tempfile.TemporaryDirectory() as folder:
        flow, rows, program = (os.path.join(folder, name) for name in ("flow.yaml", "rows.jsonl", "program.py"))
        with open(flow, "w") as file:
            file.write(FLOW)
        with open(program, "w") as file:
            file.write(PROGRAM)
        with open(rows, "w") as file:
            for n in range(ROWS):
                text = f"Order {n} has not come although it was promised for yesterday, and nobody answers."
                file.write(json.dumps({"id": f"r{n}", "prompt": text, "customer": n % 977, "country": "FR"}) + "\n")
        environment = {**os.environ, "PYTHONPATH": os.path.join(BUILD, "python"), "XDG_STATE_HOME": folder}
        outputs = [os.path.join(folder, "cli.jsonl"), os.path.join(folder, "python.jsonl")]
        command, python = [], []  # (time on the wall, processor time)
        for _ in range(TURNS):
            begin, used = time.monotonic(), os.times()
            subprocess.run([os.path.join(BUILD, "bin", "halo"), "simulate", flow, "-i", rows, "-o", outputs[0],
                            "--workers", "8", "--no-history"], check=True, capture_output=True, env=environment)
            after = os.times()
            command.append((time.monotonic() - begin, after.children_user + after.children_system
                            - used.children_user - used.children_system))
            done = subprocess.run([sys.executable, program, flow, rows, outputs[1]], check=True, capture_output=True,
                                  text=True, env=environment)
            python.append(tuple(map(float, done.stdout.split())))
            with open(outputs[0]) as one, open(outputs[1]) as other:
                assert all(json.loads(a) == json.loads(b) for a, b in zip(one, other, strict=True)), "other results"
        for number, what in enumerate(("time on the wall", "processor time")):
            ratios = [p[number] / c[number] for p, c in zip(python, command)]
            print(f"{ROWS} rows, {what}: command line {statistics.median(c[number] for c in command):.2f} s, "
                  f"Python {statistics.median(p[number] for p in python):.2f} s, ratio {statistics.median(ratios):.3f} "
                  f"({', '.join(f'{ratio:.3f}' for ratio in ratios)})")


if __name__ == "__main__":
    main()
