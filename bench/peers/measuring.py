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

from llama_server import LlamaRouter, LlamaServer, Settings

DRIVER = pathlib.Path(__file__).resolve().parent / "driver.js"
MODES = {"LangGraph + llama-server": "langgraph", "llama-server, operator by operator": "opwise", "llama-server, row by row": "row-by-row"}
ROUTER_MODES = {"LangGraph + router": "langgraph", "router, operator by operator": "opwise"}
FEWEST_ROWS = 4  # that say something about a setting


class PeakMemory:
    """The most resident memory of all descendants of this process together but `apart`, in bytes, looked at ten times a second. Pages that
    two processes share count twice."""

    def __init__(self, apart):
        self.apart = {os.getpid(), apart}

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

    def resident_bytes(self):
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
        return sum(pages[pid] for pid in ours - self.apart if pid in pages) * os.sysconf("SC_PAGE_SIZE")


@dataclasses.dataclass
class Workload:
    """One workflow over rows, as every system gets it."""

    name: str
    workflow: dict
    rows: list
    models: dict  # name -> file
    folder: pathlib.Path
    halo_arguments: tuple = ()  # beside those that all workloads have
    service_pid: int | None = None  # of the web service that its tools ask, which counts for nobody's memory
    one_model: bool = False  # memory for one: models take turns
    slot_tokens: int = 0  # its longest call, in whole blocks; known after a run with a dump
    peer_rows: list | None = None  # what the driver gets, if anything but the rows

    @property
    def modes(self):
        """The systems beside Halo, and how the driver calls what they do."""
        return ROUTER_MODES if self.one_model else MODES

    @property
    def model_arguments(self):
        """Of `halo run`."""
        return [part for name, path in self.models.items() for part in ("--model", f"{name}={path}")]

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
    calls: int  # of models
    tool_calls: int
    outputs: list  # of each row, text by operator (of a graph: by the name of its output)
    switches: int  # how often another model took the place of one
    exact: bool = False  # Halo promises the answers of --naive, bit for bit


def greedy(workflow):
    """A shipped workflow as peers can be asked: temperature 0 in all places."""
    ops = {op: {**{key: value for key, value in says.items() if key != "top_p"}, "temperature": 0} for op, says in workflow["ops"].items()}
    return {**{key: value for key, value in workflow.items() if key != "dataset"}, "ops": ops}


def greedy_with_lengths(workflow, rows, seed, length_share):
    """A shipped workflow with temperature 0 in all places, and answers of lengths that are drawn for each row and operator: evenly between
    a quarter and all of its max_tokens."""
    bounds = {op: says.get("max_tokens", 256) for op, says in workflow["ops"].items()}
    workflow = greedy(workflow)
    for op, says in workflow["ops"].items():
        says["max_tokens"] = says["min_tokens"] = f"{{{{ row.lengths.{op} }}}}"
    for row in rows:
        draw = random.Random(f"{seed} {row['id']} lengths")
        row["lengths"] = {op: max(1, round(draw.randint(most // 4, most) * length_share)) for op, most in bounds.items()}
    return workflow, rows


def model_operators(workflow):
    """What a workflow of either dialect says of each operator that asks a model."""
    return [node for node in workflow["graph"]["nodes"] if "model" in node] if "graph" in workflow else list(workflow["ops"].values())


def answer_names(workflow):
    """Under which names the answers of models stand in a row's outputs."""
    return [node["outputs"][0] for node in model_operators(workflow)] if "graph" in workflow else list(workflow["ops"])


def with_layout(workflow, layout):
    """The workflow with this layout in all operators that have one to choose."""
    if "graph" in workflow:
        nodes = [{**node, "prompt_layout": layout} if "model" in node else node for node in workflow["graph"]["nodes"]]
        return {"graph": {**workflow["graph"], "nodes": nodes}}

    def changed(says):
        goes_on = says.get("history", "continue" if len(says.get("input_ops", [])) == 1 else "") == "continue"
        return says if goes_on else {**says, "prompt_layout": layout}
    return {**workflow, "ops": {op: changed(says) for op, says in workflow["ops"].items()}}


def run_halo(program, work, threads, *arguments):
    """One run of `halo run` with every operator's answers. Throws RuntimeError if a row failed."""
    out, summary_path = work.folder / f"{work.name}.out.jsonl", work.folder / f"{work.name}.summary.json"
    command = [program, "run", work.workflow_path, "-i", work.rows_path, "-o", out, "--threads", threads, "--seed", 0, "--date", "2026-01-31",
               "--quiet", "--no-history", "--all-outputs", "--summary-json", summary_path, *work.model_arguments, *work.halo_arguments, *arguments]
    with PeakMemory(work.service_pid) as memory:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{work.name}: halo ended with {done.returncode}:\n{done.stderr[-1500:]}")
    summary = json.loads(summary_path.read_text())
    tokens = summary["tokens"]
    names = answer_names(work.workflow)
    outputs = [{name: json.loads(line)["outputs"][name] for name in names} for line in out.read_text().splitlines()]
    calls = lambda of_models: sum(op["calls"] for op in summary["operators"] if (op["kind"] == "llm") == of_models and op["kind"] != "function")
    return Run(summary["elapsed_s"], summary["planning_s"], memory.bytes,
               {"prompt": tokens["prompt"], "reused": tokens["reused"], "computed": tokens["prefilled"] + tokens["recomputed"], "output": tokens["output"]},
               calls(True), calls(False), outputs, summary["model_switches"], summary["deterministic"])


def longest_call(dump):
    """Tokens of the longest prompt and answer of a dump and a little more, in whole blocks of 256."""
    calls = map(json.loads, dump.read_text().splitlines())
    longest = max(len(call["prompt"]) + len(call["output"]) for call in calls if "prompt" in call)
    return (longest + 16 + 255) // 256 * 256


class Servers:
    """What a workload's models are served by: a server each, or one router where there is memory for one; up when entered."""

    def __init__(self, program, work, settings, environment):
        self.program, self.work, self.settings, self.environment = program, work, settings, environment

    def __enter__(self):
        work, self.running = self.work, []
        log = lambda name: work.folder / f"{work.name}.{name}.log"
        try:
            if work.one_model:
                self.running.append(LlamaRouter(self.program, work.models, self.settings, work.slot_tokens, log("router"),
                                                environment=self.environment))
            else:
                for number, path in enumerate(work.models.values()):
                    self.running.append(LlamaServer(self.program, path, self.settings, work.slot_tokens, log(f"server{number}"),
                                                    environment=self.environment))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for server in self.running:
            server.end()

    def urls(self):
        """Of each model."""
        servers = self.running * len(self.work.models) if self.work.one_model else self.running
        return {model: server.url for model, server in zip(self.work.models, servers)}

    def switches(self):
        return self.running[0].switches() if self.work.one_model else 0


def run_peer(program, work, mode, settings, concurrency, rows=None, environment=None):
    """One run by the driver against servers that are started for it, with `environment` beside their own, and end with it; of the first
    `rows` rows, or all. The first error ends it: RuntimeError."""
    job, start = work.folder / f"{work.name}.job.json", time.monotonic()
    with PeakMemory(work.service_pid) as memory, Servers(program, work, settings, environment) as servers:
        setup_s = time.monotonic() - start
        job.write_text(json.dumps({"workflow": work.workflow, "rows": (work.peer_rows or work.rows)[:rows], "mode": mode, "concurrency": concurrency,
                                   "servers": servers.urls()}))
        done = subprocess.run(["node", str(DRIVER), str(job)], capture_output=True, text=True)
        switches = servers.switches()
    if done.returncode != 0:
        raise RuntimeError(f"{work.name}, {mode}: {done.stderr[-1500:]}")
    result = json.loads(done.stdout)
    return Run(result["elapsed_s"], setup_s, memory.bytes, result["tokens"], result["calls"], result["tool_calls"], result["outputs"], switches)


def fastest(candidates, rows, elapsed):
    """The fastest of `candidates` over so many rows; `elapsed(candidate, rows)` gives seconds. Not tried again: those that take 3 times as long
    as the best over a sixteenth of the rows, and those that take 1.5 times as long over a quarter."""
    for share, most in ((16, 3), (4, 1.5)):
        few = rows // share
        if few < FEWEST_ROWS or len(candidates) == 1:
            continue
        least = min(elapsed(one, few) for one in candidates)
        candidates = [one for one in candidates if elapsed(one, few) <= most * least]
    return candidates[0] if len(candidates) == 1 else min(candidates, key=lambda one: elapsed(one, rows))


class Sweep:
    """Finds the best of several settings. `run(mode, settings, concurrency, rows)` gives seconds."""

    def __init__(self, run, rows, say):
        self.run, self.rows, self.say, self.tried = run, rows, say, {}

    def elapsed(self, mode, settings, concurrency, rows):
        key = (mode, settings, concurrency, rows)
        if key not in self.tried:
            self.tried[key] = self.run(*key)
            self.say(f"sweep: {mode}, {concurrency} at once, {settings}, {rows} rows: {self.tried[key]:.2f} s")
        return self.tried[key]

    def best(self, mode, settings, concurrencies):
        candidates = [(one, at_once) for one in settings for at_once in concurrencies]
        return fastest(candidates, self.rows, lambda one, rows: self.elapsed(mode, *one, rows))

    def records(self, mode):
        return [{"settings": str(settings), "concurrency": at_once, "rows": rows, "elapsed_s": taken}
                for (of, settings, at_once, rows), taken in self.tried.items() if of == mode]


def several(settings, **choices):
    """The settings with each of the values that one of them may have."""
    (name, values), = choices.items()
    return [dataclasses.replace(one, **{name: value}) for one in settings for value in values]


def best_settings(sweep, models, threads, concurrencies):
    """The best settings and concurrency of LangGraph, and the best concurrency operator by operator. Servers of `models` have `threads` cores
    between them."""
    # How servers share the cores (the driver takes some, too), how many calls are under way, how slots share the room, what is kept of prompts.
    share = max(1, threads // max(2, models))
    middle = sorted(concurrencies)[len(concurrencies) // 2]
    settings, _ = sweep.best("langgraph", [Settings(threads), Settings(threads, spins=False), Settings(share)], [middle])
    _, concurrency = sweep.best("langgraph", [settings], concurrencies)
    settings, _ = sweep.best("langgraph", several(several([settings], unified=(False, True)), slots=(16, 64)), [concurrency])
    kept = [settings, *several([settings], host_cache_mib=[8192]), *several([settings], reuse_tokens=[256])]
    settings, _ = sweep.best("langgraph", kept, [concurrency])
    # Without LangGraph one server at a time computes.
    alone = settings if models == 1 else dataclasses.replace(settings, threads=threads, spins=True)
    return {"langgraph": sweep.best("langgraph", [settings], concurrencies), "opwise": sweep.best("opwise", [alone], concurrencies),
            "row-by-row": (alone, 1)}


def best_router_settings(sweep, threads, concurrencies, rows):
    """The same where one model is resident, which has all the cores. Many calls at once are few changes of model: the most that won are tried
    beside all rows at once, over all of them."""
    best = {}
    for mode in ROUTER_MODES.values():
        settings, concurrency = sweep.best(mode, several([Settings(threads)], slots=(16, 64)), concurrencies)
        best[mode] = settings, min({concurrency, rows}, key=lambda at_once: sweep.elapsed(mode, settings, at_once, rows))
    return best


def check_answers(program, work, threads, rows, reference):
    """Equal ids and equal kernels have to give equal answers, else the peers are asked something else: RuntimeError. Where Halo's kernels are
    not the exact ones nothing can be demanded."""
    if not reference.exact:
        return
    run = run_peer(program, dataclasses.replace(work, one_model=False), "row-by-row", Settings(threads, slots=1), 1, rows, {"GGML_CPU_EXACT": "1"})
    share = equal_share(run.outputs, reference.outputs)
    if share < 1:
        raise RuntimeError(f"{work.name}: {100 * (1 - share):.1f} % of llama-server's answers to equal ids differ from Halo's")


def equal_share(outputs, reference):
    """Of the answers of `outputs`, those that are the reference's for the same row and operator. A character that the last token leaves
    unfinished is no difference: Halo leaves it out, llama-server writes U+FFFD."""
    pairs = [(answer, theirs[op]) for row, theirs in zip(outputs, reference) for op, answer in row.items()]
    return statistics.fmean(ours.rstrip("\ufffd") == theirs.rstrip("\ufffd") for ours, theirs in pairs)
