#!/usr/bin/env python3
"""generate.py NAME --rows N -o FOLDER: writes a workload of the benchmark beside peers, FOLDER/NAME.yaml and FOLDER/NAME.jsonl.

  map_reduce     14 experts on one question, and a summary of what they say                          15 calls a row
  debate         3 agents, 2 rounds; in the second each reads what all said in the first              6
  reflection     a report is read, its extraction and its calculation are criticized, a final answer  4
  refinement     a summary that is written again with each of 6 parts of a text                       6
  parallel       7 experts on each of 6 parts, a summary for each expert, one writer                 50
  trading        4 analysts, a debate, a manager, 8 traders with their risk analysts, a fund manager 88

Their shapes are those of Helium's evaluation; texts are made up here. Everything is a function of the name, the number of the row
and --seed: row i is the same in files of any size. No two rows are equal unless --repeat-share says so: that share of rows then has the
texts and lengths of an earlier one. The answer of each operator in each row has a length of its own, in the row's column `lengths`, drawn
evenly between the two bounds that the workload gives (times --length-share); nothing ends earlier or later.

A .yaml file written here is JSON as well, so that programs without a YAML reader can take it.
"""

import argparse
import json
import pathlib
import random
import sys

MODEL = "bench-model"
SYLLABLES = "ba be bo da de di fa fe ga ge ka ki la le lo ma me mi na ne no pa pe ra re ri sa se so ta te ti va ve vo".split()


def words(draw, count):
    """So many made-up words, with a full stop after every dozen."""
    text = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(count)]
    return ". ".join(" ".join(text[at:at + 12]) for at in range(0, count, 12)) + "."


class Workflow:
    """Operators in the order in which they are added, and the bounds of their answers."""

    def __init__(self):
        self.ops, self.bounds = {}, {}

    def add(self, name, instruction, bounds, inputs=()):
        self.ops[name] = {"model": MODEL, "prompt": instruction, "temperature": 0, "input_ops": list(inputs),
                          "max_tokens": f"{{{{ row.lengths.{name} }}}}", "min_tokens": f"{{{{ row.lengths.{name} }}}}"}
        if inputs:
            # Each agent has a system prompt of its own and reads the others' answers.
            self.ops[name]["history"] = "outputs"
        self.bounds[name] = bounds
        return name

    def file(self, name):
        read = {one for op in self.ops.values() for one in op["input_ops"]}
        starts = [one for one, op in self.ops.items() if not op["input_ops"]]
        return {"name": name, "start_ops": starts, "end_ops": [one for one in self.ops if one not in read], "ops": self.ops}


def map_reduce():
    flow = Workflow()
    experts = [flow.add(f"expert_{i}", f"You are expert number {i} of a panel of fourteen. Answer the question from the view of your own field, "
                        "give your reasoning in short steps, and end with the letter of your choice.", (40, 160)) for i in range(1, 15)]
    flow.add("summary", "Fourteen experts have answered a question. Weigh what they say, name the points on which they differ, and give one "
             "final answer.", (60, 200), experts)
    return flow, lambda draw: {"prompt": words(draw, 100)}


def debate():
    flow, agents = Workflow(), ("first", "second", "third")
    opening = [flow.add(f"{agent}_opens", f"You are the {agent} of three agents who debate a question. State your answer and the reasons for it.",
                        (60, 200)) for agent in agents]
    for agent in agents:
        flow.add(f"{agent}_closes", f"You are the {agent} of three agents who debate a question. These are everyone's answers of the first round. "
                 "Use what is right in them, and state your final answer.", (60, 200), opening)
    return flow, lambda draw: {"prompt": words(draw, 100)}


def reflection():
    flow = Workflow()
    flow.add("analyst", "You are a financial analyst. Answer the question about the report, and write down each figure that you use.", (80, 240))
    flow.add("extraction", "You check what was extracted. Compare each figure in the analysis with the report, and correct what is wrong.", (60, 200),
             ["analyst"])
    flow.add("calculation", "You check calculations. Do each step of the criticized analysis again, and correct what is wrong.", (60, 200), ["extraction"])
    flow.add("final", "Write the final answer to the question, with its unit, and nothing else.", (20, 80), ["calculation"])
    return flow, lambda draw: {"prompt": words(draw, 350)}


def refinement():
    flow = Workflow()
    before = []
    for step in range(6):
        text = "Summarize these customer reviews." if step == 0 else "Refine the summary with these further customer reviews."
        before = [flow.add(f"summary_{step + 1}", text, (80, 240), before)]
    return flow, lambda draw: {"prompt": [words(draw, 200) for _ in range(6)]}


def parallel():
    flow, summaries = Workflow(), []
    for expert in range(1, 8):
        parts = [flow.add(f"expert_{expert}_part_{part}", f"You are expert number {expert} on products. List what matters to your field in these "
                          f"reviews:\n{{{{ row.parts[{part}] }}}}", (30, 120)) for part in range(6)]
        summaries.append(flow.add(f"summary_{expert}", f"You are expert number {expert} on products. Summarize your findings of six parts.", (60, 160),
                                  parts))
    flow.add("writer", "Write a report on the product from the summaries of seven experts.", (100, 300), summaries)
    return flow, lambda draw: {"prompt": words(draw, 12), "parts": [words(draw, 150) for _ in range(6)]}


def trading():
    flow, reports, sources = Workflow(), [], 0
    for analyst, count in (("market", 4), ("sentiment", 2), ("news", 5), ("fundamentals", 3)):
        read = []
        for _ in range(count):
            read.append(flow.add(f"{analyst}_source_{len(read) + 1}", f"You work for the {analyst} analyst. Note what matters for the stock in this "
                                 f"source:\n{{{{ row.sources[{sources}] }}}}", (30, 100)))
            sources += 1
        reports.append(flow.add(f"{analyst}_report", f"You are the {analyst} analyst. Write a report from your notes.", (80, 200), read))
    said = []
    for turn in (1, 2):
        for side in ("bull", "bear"):
            said.append(flow.add(f"{side}_{turn}", f"You argue as the {side} about the stock, round {turn}. Read the reports and what was said so far.",
                                 (60, 160), reports + said))
    manager = flow.add("manager", "You are the research manager. Decide between bull and bear, and write an investment plan.", (80, 200), reports + said[2:])
    judges = []
    for trader in range(1, 9):
        plan = flow.add(f"trader_{trader}", f"You are trader number {trader}. Turn the plan into an order that fits your style.", (40, 120), [manager])
        risks = [plan]
        for turn in (1, 2):
            risks = [plan, *(flow.add(f"{view}_risk_{trader}_{turn}", f"You judge risks as the {view} analyst, round {turn}. Say what to change in the "
                                      "order.", (40, 120), risks) for view in ("risky", "safe", "neutral"))]
        judges.append(flow.add(f"judge_{trader}", "You judge the debate on risks. Give the final order.", (30, 80), risks))
    flow.add("fund_manager", "You manage the fund. Choose among the orders of eight traders and give the reasons.", (80, 200), judges)
    return flow, lambda draw: {"prompt": words(draw, 20), "sources": [words(draw, 120) for _ in range(sources)]}


WORKLOADS = {make.__name__: make for make in (map_reduce, debate, reflection, refinement, parallel, trading)}


def drawn_lengths(bounds, seed, name, length_share):
    """Tokens of each operator's answer in one row; at least one."""
    draw = random.Random(f"{seed} {name} lengths")
    return {op: max(1, round(draw.randint(low, high) * length_share)) for op, (low, high) in bounds.items()}


def with_repeats(rows, share, seed):
    """The rows, of which each but the first is with this probability an earlier one under its own id."""
    result = []
    for row in rows:
        draw = random.Random(f"{seed} {row['id']} repeats")
        repeats = result and draw.random() < share
        result.append({**draw.choice(result), "id": row["id"]} if repeats else row)
    return result


def generate(name, count, seed=0, repeat_share=0.0, length_share=1.0):
    """A workflow of the `ops` dialect, and its rows."""
    flow, row_of = WORKLOADS[name]()
    rows = [{"id": f"{name}-{i}", **row_of(random.Random(f"{seed} {name} {i}")),
             "lengths": drawn_lengths(flow.bounds, seed, f"{name} {i}", length_share)} for i in range(count)]
    return flow.file(name), with_repeats(rows, repeat_share, seed)


def write(workflow, rows, folder, stem):
    """Writes both files; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    workflow_path, rows_path = folder / f"{stem}.yaml", folder / f"{stem}.jsonl"
    workflow_path.write_text(json.dumps(workflow, indent=1) + "\n")
    rows_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return workflow_path, rows_path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=WORKLOADS)
    parser.add_argument("--rows", type=int, default=64, help="rows (64)")
    parser.add_argument("--seed", type=int, default=0, help="of texts and lengths (0)")
    parser.add_argument("--repeat-share", type=float, default=0.0, help="rows that repeat an earlier one (0)")
    parser.add_argument("--length-share", type=float, default=1.0, help="answers are so much of their length (1)")
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True, help="folder")
    flags = parser.parse_args()
    workflow, rows = generate(flags.name, flags.rows, flags.seed, flags.repeat_share, flags.length_share)
    write(workflow, rows, flags.output, flags.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
