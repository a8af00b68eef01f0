"""Runs of a workload by Halo and by its peers, each with what it took. scripts/bench peers puts them side by side."""

import dataclasses
import json
import os
import pathlib
import random
import statistics
import subprocess
import threading
import time

from llama_server import LlamaServer, Settings

DRIVER = pathlib.Path(__file__).resolve().parent / "driver.js"
MODES = {"LangGraph + llama-server": "langgraph", "llama-server, operator by operator": "opwise", "llama-server, row by row": "row-by-row"}


class PeakMemory:
    """The most resident memory of all descendants of this process together, in bytes, looked at ten times a second. Pages that two
    processes share count twice."""

    def __enter__(self):
        self.bytes, self.over = 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def watch(self):
        while not self.over.wait(0.1):
            self.bytes = max(self.bytes, self.resident_bytes())

    @staticmethod
    def resident_bytes():
        parents, pages = {}, {}
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rsplit(")", 1)[1].split()
            except OSError:  # it has ended
                continue
            pid = int(stat.parent.name)
            parents[pid], pages[pid] = int(fields[1]), int(fields[21])
        ours = {os.getpid()}
        grown = True
        while grown:
            more = {pid for pid, parent in parents.items() if parent in ours} - ours
            ours, grown = ours | more, bool(more)
        return sum(pages[pid] for pid in ours - {os.getpid()} if pid in pages) * os.sysconf("SC_PAGE_SIZE")


@dataclasses.dataclass
class Workload:
    """One workflow over rows, as every system gets it."""

    name: str
    workflow: dict  # of the ops dialect
    rows: list
    models: dict  # name -> file
    folder: pathlib.Path
    slot_tokens: int = 0  # its longest call, in whole blocks; known after a run with a dump

    def __post_init__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.workflow_path, self.rows_path = self.folder / f"{self.name}.yaml", self.folder / f"{self.name}.jsonl"
        self.workflow_path.write_text(json.dumps(self.workflow, indent=1) + "\n")
        self.rows_path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))


@dataclasses.dataclass
class Run:
    """What one run took."""

    elapsed_s: float  # from the first call to the last answer
    setup_s: float  # before it: servers and models loaded; of Halo, rows read and the batch planned as well
    peak_bytes: int
    tokens: dict  # prompt, reused, computed, output
    calls: int
    outputs: list  # of each row, text by operator
    exact: bool = False  # Halo promises the answers of --naive, bit for bit


def greedy_with_lengths(workflow, rows, seed, length_share):
    """A shipped workflow with temperature 0 in all places, and answers of lengths that are drawn for each row and operator: evenly between
    a quarter and all of its max_tokens."""
    bounds = {op: says.get("max_tokens", 256) for op, says in workflow["ops"].items()}
    ops = {}
    for op, says in workflow["ops"].items():
        kept = {key: value for key, value in says.items() if key not in ("top_p", "temperature")}
        length = f"{{{{ row.lengths.{op} }}}}"
        ops[op] = {**kept, "temperature": 0, "max_tokens": length, "min_tokens": length}
    for row in rows:
        draw = random.Random(f"{seed} {row['id']} lengths")
        row["lengths"] = {op: max(1, round(draw.randint(most // 4, most) * length_share)) for op, most in bounds.items()}
    return {**{key: value for key, value in workflow.items() if key != "dataset"}, "ops": ops}, rows


def with_layout(workflow, layout):
    """The workflow with this layout in all operators that have one to choose."""
    def changed(says):
        goes_on = says.get("history", "continue" if len(says.get("input_ops", [])) == 1 else "") == "continue"
        return says if goes_on else {**says, "prompt_layout": layout}
    return {**workflow, "ops": {op: changed(says) for op, says in workflow["ops"].items()}}


def run_halo(program, work, threads, *arguments):
    """One run of `halo run` with every operator's answers. Throws RuntimeError if a row failed."""
    out, summary_path = work.folder / f"{work.name}.out.jsonl", work.folder / f"{work.name}.summary.json"
    models = [part for name, path in work.models.items() for part in ("--model", f"{name}={path}")]
    command = [program, "run", work.workflow_path, "-i", work.rows_path, "-o", out, "--threads", threads, "--seed", 0, "--date", "2026-01-31",
               "--quiet", "--no-history", "--all-outputs", "--summary-json", summary_path, *models, *arguments]
    with PeakMemory() as memory:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{work.name}: halo ended with {done.returncode}:\n{done.stderr[-1500:]}")
    summary = json.loads(summary_path.read_text())
    tokens = summary["tokens"]
    return Run(summary["elapsed_s"], summary["planning_s"], memory.bytes,
               {"prompt": tokens["prompt"], "reused": tokens["reused"], "computed": tokens["prefilled"] + tokens["recomputed"], "output": tokens["output"]},
               sum(op["calls"] for op in summary["operators"]), [json.loads(line)["outputs"] for line in out.read_text().splitlines()],
               summary["deterministic"])


def longest_call(dump):
    """Tokens of the longest prompt and answer of a dump and a little more, in whole blocks of 256."""
    calls = map(json.loads, dump.read_text().splitlines())
    longest = max(len(call["prompt"]) + len(call["output"]) for call in calls)
    return (longest + 16 + 255) // 256 * 256


def run_peer(program, work, mode, settings, concurrency, rows=None, environment=None):
    """One run by the driver against servers that are started for it, with `environment` beside their own, and end with it; of the first
    `rows` rows, or all. The first error ends it: RuntimeError."""
    job = work.folder / f"{work.name}.job.json"
    servers, start = {}, time.monotonic()
    with PeakMemory() as memory:
        try:
            for number, (model, path) in enumerate(work.models.items()):
                servers[model] = LlamaServer(program, path, settings, work.slot_tokens, work.folder / f"{work.name}.server{number}.log",
                                             environment=environment)
            setup_s = time.monotonic() - start
            job.write_text(json.dumps({"workflow": work.workflow, "rows": work.rows[:rows], "mode": mode, "concurrency": concurrency,
                                       "servers": {model: server.url for model, server in servers.items()}}))
            done = subprocess.run(["node", str(DRIVER), str(job)], capture_output=True, text=True)
        finally:
            for server in servers.values():
                server.end()
    if done.returncode != 0:
        raise RuntimeError(f"{work.name}, {mode}: {done.stderr[-1500:]}")
    result = json.loads(done.stdout)
    return Run(result["elapsed_s"], setup_s, memory.bytes, result["tokens"], result["calls"], result["outputs"])


def sweep(run, models, threads, concurrencies, say):
    """The best settings and concurrency of LangGraph, and the best concurrency operator by operator; with all that was tried. Servers of
    `models` have `threads` cores between them. `run(mode, settings, concurrency)` gives seconds."""
    tried = {}

    def elapsed(mode, settings, concurrency):
        key = (mode, settings, concurrency)
        if key not in tried:
            tried[key] = run(*key)
            say(f"sweep: {mode}, {concurrency} at once, {settings}: {tried[key]:.2f} s")
        return tried[key]

    best_of = lambda mode, settings: min(concurrencies, key=lambda concurrency: elapsed(mode, settings, concurrency))
    fastest = lambda several: min(several, key=lambda one: elapsed("langgraph", one, concurrency))
    concurrency = sorted(concurrencies)[len(concurrencies) // 2]
    # How servers share the cores (the driver takes some, too), how many calls are under way, how slots share the room, what is kept of prompts.
    share = max(1, threads // max(2, models))
    settings = fastest([Settings(threads), Settings(threads, spins=False), Settings(share)])
    concurrency = best_of("langgraph", settings)
    settings = fastest([dataclasses.replace(settings, slots=slots, unified=unified) for unified in (False, True) for slots in (16, 64)])
    settings = fastest([settings, dataclasses.replace(settings, host_cache_mib=8192), dataclasses.replace(settings, reuse_tokens=256)])
    # Without LangGraph one server at a time computes.
    alone = settings if models == 1 else dataclasses.replace(settings, threads=threads, spins=True)
    best = {"langgraph": (settings, best_of("langgraph", settings)), "opwise": (alone, best_of("opwise", alone)), "row-by-row": (alone, 1)}
    return best, [{"mode": mode, "settings": str(one), "concurrency": at_once, "elapsed_s": taken} for (mode, one, at_once), taken in tried.items()]


def check_answers(program, work, threads, rows, reference):
    """Equal ids and equal kernels have to give equal answers, else the peers are asked something else: RuntimeError. Where Halo's kernels are
    not the exact ones nothing can be demanded."""
    if not reference.exact:
        return
    run = run_peer(program, work, "row-by-row", Settings(threads, slots=1), 1, rows, {"GGML_CPU_EXACT": "1"})
    share = equal_share(run.outputs, reference.outputs)
    if share < 1:
        raise RuntimeError(f"{work.name}: {100 * (1 - share):.1f} % of llama-server's answers to equal ids differ from Halo's")


def equal_share(outputs, reference):
    """Of the answers of `outputs`, those that are the reference's for the same row and operator. A character that the last token leaves
    unfinished is no difference: Halo leaves it out, llama-server writes U+FFFD."""
    pairs = [(answer, theirs[op]) for row, theirs in zip(outputs, reference) for op, answer in row.items()]
    return statistics.fmean(ours.rstrip("\ufffd") == theirs.rstrip("\ufffd") for ours, theirs in pairs)
