// driver.js JOB.json: runs a workload as a peer would, and prints what it took as JSON.
//
// JOB: {"workflow": of the ops dialect, "rows": [...], "servers": {model: url}, "mode", "concurrency", "prompts"}. Modes:
//   langgraph   LangGraph.js over /v1/chat/completions, so many rows at once
//   row-by-row  one request at a time, row by row
//   opwise      operator by operator, so many of its calls at once
// The last two send token ids where a prompt has them (answers of earlier calls), langgraph sends text.
// Prints {"elapsed_s", "outputs": [{operator: text}], "calls", "tokens": {prompt, reused, computed, output}}; with "prompts": true
// also "prompts": [{operator: ids}], not for langgraph.
import { readFileSync } from "node:fs";

import { Server } from "./server.js";
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
async function runRequests({ workflow, rows, servers, order, concurrency, record }) {
  const answers = rows.map(() => ({}));
  for (const group of order(rows.map((_, index) => index), [...workflow.ops.values()])) {
    await inTurns(group, concurrency, async ([index, op]) => {
      const messages = conversation(workflow, op, rows[index], answers[index]);
      const answer = await servers[op.model].complete(messages, lengths(op, rows[index]));
      answers[index][op.id] = answer;
      record(op, answer.used);
    });
  }
  return answers;
}

const ROW_BY_ROW = (rows, ops) => rows.flatMap((row) => ops.map((op) => [[row, op]]));
const OPWISE = (rows, ops) => ops.map((op) => rows.map((row) => [row, op]));

const textsOf = (answers) => answers.map((row) => Object.fromEntries(Object.entries(row).map(([id, { text }]) => [id, text])));

/** The ids of all prompts of a finished run. */
const promptsOf = (workflow, rows, servers, answers) => Promise.all(rows.map(async (row, index) => {
  const entries = [...workflow.ops.values()].map(async (op) => {
    const server = servers[op.model];
    return [op.id, await server.tokenize(await server.prompt(conversation(workflow, op, row, answers[index])))];
  });
  return Object.fromEntries(await Promise.all(entries));
}));

async function main(path) {
  const job = JSON.parse(readFileSync(path, "utf8"));
  const workflow = readWorkflow(job.workflow);
  const servers = Object.fromEntries(Object.entries(job.servers).map(([model, url]) => [model, new Server(url)]));
  const tokens = { prompt: 0, reused: 0, output: 0 };
  let calls = 0;
  const record = (op, used) => {
    calls += 1;
    for (const key of Object.keys(tokens)) tokens[key] += used[key];
  };
  // Loading a package is no part of running a batch.
  const langGraph = job.mode === "langgraph" ? await import("./langgraph.js") : null;
  const start = performance.now();
  const run = {
    langgraph: () => langGraph.runLangGraph(workflow, job.rows, servers, job.concurrency, record),
    "row-by-row": () => runRequests({ workflow, rows: job.rows, servers, order: ROW_BY_ROW, concurrency: 1, record }),
    opwise: () => runRequests({ workflow, rows: job.rows, servers, order: OPWISE, concurrency: job.concurrency, record }),
  }[job.mode];
  if (!run) throw new Error(`no mode ${job.mode}`);
  const answers = await run();
  const result = { elapsed_s: (performance.now() - start) / 1000, calls, tokens: { ...tokens, computed: tokens.prompt - tokens.reused } };
  result.outputs = langGraph ? answers : textsOf(answers);
  if (job.prompts && !langGraph) result.prompts = await promptsOf(workflow, job.rows, servers, answers);
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

main(process.argv[2]).catch((error) => {
  console.error(`driver: ${error.stack}`);
  process.exitCode = 1;
});
