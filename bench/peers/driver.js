// driver.js JOB.json: runs a workload as a peer would, and prints what it took as JSON.
//
// JOB: {"workflow", "rows": [...], "servers": {model: url}, "mode", "concurrency", "prompts"}. Modes:
//   langgraph   LangGraph.js over /v1/chat/completions, so many rows at once
//   row-by-row  one request at a time, row by row
//   opwise      operator by operator, so many of its calls at once; tools of a level before, all together
// The last two send token ids where a prompt has them (answers of earlier calls), langgraph sends text.
// A row's "latencies" ({operator: seconds}) are how long its HTTP calls take at least. Tools are called 32 at once, row by row one at a time.
// Prints {"elapsed_s", "outputs": [{operator or, of a graph, its output's name: text}], "calls", "tool_calls", "tokens": {prompt, reused,
// computed, output}}; with "prompts": true also "prompts": [{the same: ids}], not for langgraph.
import { readFileSync } from "node:fs";

import { Server } from "./server.js";
import { Tools } from "./tools.js";
import { conversation, lengths, readWorkflow } from "./workflow.js";

/** Calls `work` for each of `items`, so many at once, in order. */
async function inTurns(items, concurrency, work) {
  let next = 0;
  const lane = async () => {
    while (next < items.length) await work(items[next++]);
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, items.length) }, lane));
}

/** Answers each row with plain requests: `order` says which calls may be under way together. */
async function runRequests({ workflow, rows, servers, tools, order, concurrency, record }) {
  const answers = rows.map(() => ({}));
  const call = async ([index, op]) => {
    const row = rows[index], known = answers[index];
    if (op.kind !== "llm") {
      known[op.id] = await tools.run(workflow, op, row, known);
      return;
    }
    known[op.id] = await servers[op.model].complete(conversation(workflow, op, row, known), lengths(op, row), op.grammar);
    record(op, known[op.id].used);
  };
  for (const group of order(rows.map((_, index) => index), [...workflow.ops.values()])) {
    // Tools have limits of their own.
    await inTurns(group, group[0][1].kind === "llm" ? concurrency : group.length, call);
  }
  return answers;
}

const ROW_BY_ROW = (rows, ops) => rows.flatMap((row) => ops.map((op) => [[row, op]]));
/** Of each level the tools, all together, then its operators one by one. */
const OPWISE = (rows, ops) => {
  const levels = [...new Set(ops.map((op) => op.depth))].sort((a, b) => a - b).map((depth) => ops.filter((op) => op.depth === depth));
  return levels.flatMap((level) => [level.filter((op) => op.kind !== "llm"), ...level.filter((op) => op.kind === "llm").map((op) => [op])])
    .filter((group) => group.length > 0).map((group) => group.flatMap((op) => rows.map((row) => [row, op])));
};

const modelOps = (workflow) => [...workflow.ops.values()].filter((op) => op.kind === "llm");
const textsOf = (workflow, answers) => answers.map((row) => Object.fromEntries(modelOps(workflow).map((op) => [op.output, row[op.id].text])));

/** The ids of all prompts of a finished run. */
const promptsOf = (workflow, rows, servers, answers) => Promise.all(rows.map(async (row, index) => {
  const entries = modelOps(workflow).map(async (op) => {
    const server = servers[op.model];
    return [op.output, await server.tokenize(await server.prompt(conversation(workflow, op, row, answers[index])))];
  });
  return Object.fromEntries(await Promise.all(entries));
}));

async function main(path) {
  const job = JSON.parse(readFileSync(path, "utf8"));
  const workflow = readWorkflow(job.workflow);
  const servers = Object.fromEntries(Object.entries(job.servers).map(([model, url]) => [model, new Server(url, model)]));
  const tokens = { prompt: 0, reused: 0, output: 0 };
  let calls = 0;
  const record = (op, used) => {
    calls += 1;
    for (const key of Object.keys(tokens)) tokens[key] += used[key];
  };
  // Loading a package is no part of running a batch.
  const langGraph = job.mode === "langgraph" ? await import("./langgraph.js") : null;
  const tools = await Tools.open(job.workflow.graph?.connections);
  const what = { workflow, rows: job.rows, servers, tools, concurrency: job.concurrency, record };
  const start = performance.now();
  const run = {
    langgraph: () => langGraph.runLangGraph(what),
    "row-by-row": () => runRequests({ ...what, order: ROW_BY_ROW }),
    opwise: () => runRequests({ ...what, order: OPWISE }),
  }[job.mode];
  if (!run) throw new Error(`no mode ${job.mode}`);
  const answers = await run();
  const result = { elapsed_s: (performance.now() - start) / 1000, calls, tool_calls: tools.calls, tokens: { ...tokens, computed: tokens.prompt - tokens.reused } };
  result.outputs = textsOf(workflow, answers);
  if (job.prompts && !langGraph) result.prompts = await promptsOf(workflow, job.rows, servers, answers);
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

main(process.argv[2]).catch((error) => {
  console.error(`driver: ${error.stack}`);
  process.exitCode = 1;
});
