// The `ops` dialect, read again for the peers: which operator waits for which, and the conversation that each call asks
// (contract 3.1); graph.js reads the other one. It knows what the benchmark's workloads use: no schemas, samples or conditions, and of templates only paths
// such as {{ row.chunks[2] }} and {{ row.lengths.judge }}.
import { graphConversation, readGraph } from "./graph.js";

const PATH = /\{\{\s*([\w.[\]]+)\s*\}\}/g;
const KNOWN = new Set(["model", "prompt", "input_ops", "output_ops", "temperature", "top_p", "max_tokens", "min_tokens", "history",
  "prompt_layout"]);

/** What an expression such as `row.chunks[2]` names in `values`. Throws where it names nothing. */
function lookUp(path, values) {
  const keys = path.replaceAll("]", "").split(/[.[]/);
  const value = keys.reduce((at, key) => at?.[key], values);
  if (value === undefined) throw new Error(`the row has no ${path}`);
  return value;
}

const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));
const fill = (template, values) => template.replace(PATH, (_, path) => shown(lookUp(path, values)));

/** Operators of the ops dialect, each with its inputs in order. */
function readOps(file) {
  const ops = new Map(Object.entries(file.ops).map(([id, op]) => [id, { ...op, id, kind: "llm", output: id, inputs: [...(op.input_ops ?? [])] }]));
  for (const op of ops.values()) {
    const unknown = Object.keys(file.ops[op.id]).filter((key) => !KNOWN.has(key));
    if (unknown.length > 0) throw new Error(`operator ${op.id}: the peers cannot be asked for ${unknown.join(", ")}`);
    if (op.temperature !== 0) throw new Error(`operator ${op.id}: temperature 0 is needed, since draws differ`);
    for (const next of op.output_ops ?? []) {
      if (!ops.get(next).inputs.includes(op.id)) ops.get(next).inputs.push(op.id);
    }
  }
  for (const op of ops.values()) {
    op.history ??= op.inputs.length === 1 ? "continue" : "outputs";
    op.prompt_layout ??= "instruction_first";
  }
  return { ops: [...ops.values()], column: file.column ?? "prompt" };
}

/** Operators by id, tools among them (`kind`: llm, sql, http or function), each with those that it waits for (`inputs`), its depth (edges
 * of the longest path to it) and defaults filled in; in an order in which inputs come first. Throws for what the peers cannot be asked. */
export function readWorkflow(file) {
  const { ops, ...more } = file.graph ? readGraph(file.graph) : readOps(file);
  const ordered = new Map();
  while (ordered.size < ops.length) {
    const ready = ops.filter((op) => !ordered.has(op.id) && op.inputs.every((id) => ordered.has(id)));
    if (ready.length === 0) throw new Error("the operators wait for each other, or for one that is not there");
    for (const op of ready) ordered.set(op.id, op);
  }
  for (const op of ordered.values()) op.depth = Math.max(0, ...op.inputs.map((id) => ordered.get(id).depth + 1));
  return { ops: ordered, ...more };
}

/** Tokens that the call makes: [least, most]. */
export function lengths(op, row) {
  const number = (value) => Number(typeof value === "string" ? fill(value, { row }) : value);
  return [number(op.min_tokens ?? 0), number(op.max_tokens ?? 256)];
}

/** Parts of a message with blank lines between them. A part is a list of texts and answers ({text, ids}). */
const join = (parts) => parts.filter((part) => part.length > 0).flatMap((part, i) => (i > 0 ? ["\n\n", ...part] : part));

/** What a list of texts and answers reads like. */
export const textOf = (content) => content.map((piece) => piece.text ?? piece).join("");

function rowPrompt(workflow, op, row) {
  const prompt = row[workflow.column];
  return [shown(Array.isArray(prompt) ? prompt[Math.min(op.depth, prompt.length - 1)] : prompt)];
}

function block(workflow, op, parent, row, answers) {
  const before = op.history !== "transcript" ? [] : [
    ...conversation(workflow, workflow.ops.get(parent), row, answers).flatMap(
      (message) => [`${message.role}:\n`, textOf(message.content), "\n\n"]),
    "assistant:\n"];
  return [`### ${parent}\n`, ...before, answers[parent]];
}

/** The messages that `op` is asked for `row`: [{role, content}], content a list of texts and of earlier answers. `answers`: by
 * operator, {text} and, where they are known, {ids} without the end token. */
export function conversation(workflow, op, row, answers) {
  if (op.blocks) return graphConversation(workflow, op, row, answers);
  const instruction = op.prompt ? [fill(op.prompt, { row, ...answers })] : [];
  if (op.history === "continue") {
    const [parent] = op.inputs;
    const next = Array.isArray(row[workflow.column]) ? rowPrompt(workflow, op, row) : [];
    return [...conversation(workflow, workflow.ops.get(parent), row, answers), { role: "assistant", content: [answers[parent]] },
      { role: "user", content: join([next, instruction]) }];
  }
  const context = [rowPrompt(workflow, op, row), ...op.inputs.map((parent) => block(workflow, op, parent, row, answers))];
  if (op.prompt_layout === "context_first") return [{ role: "user", content: join([...context, instruction]) }];
  const system = instruction.length > 0 ? [{ role: "system", content: instruction }] : [];
  return [...system, { role: "user", content: join(context) }];
}
