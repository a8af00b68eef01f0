// The `graph` dialect, read again for the peers (contract 3.2): which operator waits for which, and the conversation that each call
// asks. It knows what W1 to W6 use: inference nodes with declared inputs, embedded queries, HTTP calls, one processor; no edges, loops,
// conditions or several outputs, and of templates only paths.

const READ = {
  input: ["outputs"],
  inference: ["model", "system_prompt", "inputs", "outputs", "db_queries", "temperature", "max_tokens", "min_tokens", "schema", "prompt_layout"],
  http: ["url", "params", "latency_s", "coalesce", "prompt_tokens"],
  processor: ["processor", "inputs", "outputs", "config"],
};
const READ_OF_QUERY = ["name", "connection", "sql", "parameters", "param_types", "prompt_tokens"];

function refuseOthers(where, value, known) {
  const unknown = Object.keys(value).filter((key) => !known.includes(key));
  if (unknown.length > 0) throw new Error(`${where}: the peers cannot be asked for ${unknown.join(", ")}`);
}

/** First names of the paths in templates anywhere in `value`. */
function namesRead(value) {
  if (typeof value === "string") return [...value.matchAll(/\{\{\s*(\w+)/g)].map((match) => match[1]);
  return value && typeof value === "object" ? Object.values(value).flatMap(namesRead) : [];
}

function grammarOf(node) {
  if (!node.schema) return undefined;
  refuseOthers(`node ${node.id}, schema`, node.schema, ["gbnf"]);
  return node.schema.gbnf;
}

function inferenceOps(node) {
  if (node.temperature !== 0) throw new Error(`node ${node.id}: temperature 0 is needed, since draws differ`);
  const queries = (node.db_queries ?? []).map((query) => {
    refuseOthers(`query ${query.name}`, query, READ_OF_QUERY);
    return { id: `${node.id}__pre__${query.name}`, kind: "sql", output: query.name, reads: namesRead(query.parameters),
      connection: query.connection, sql: query.sql.duckdb ?? query.sql, parameters: query.parameters ?? {}, types: query.param_types ?? {} };
  });
  if (node.outputs.length !== 1) throw new Error(`node ${node.id}: the peers cannot be asked for several outputs`);
  const blocks = [...node.inputs, ...queries.map((query) => query.output)];
  return [...queries, { id: node.id, kind: "llm", output: node.outputs[0], reads: blocks, blocks, model: node.model, system: node.system_prompt,
    max_tokens: node.max_tokens, min_tokens: node.min_tokens, grammar: grammarOf(node), prompt_layout: node.prompt_layout ?? "instruction_first" }];
}

const OPS_OF = {
  inference: inferenceOps,
  http: (node) => [{ id: node.id, kind: "http", output: node.id, reads: namesRead(node.params), url: node.url, params: node.params ?? {} }],
  processor: (node) => [{ id: node.id, kind: "function", output: node.outputs[0], reads: node.inputs, processor: node.processor, config: node.config }],
};

/** Operators of a graph, tools among them, each with the operators that it waits for (`inputs`); and the columns of the rows that names
 * stand for. Throws for what the peers cannot be asked. */
export function readGraph(graph) {
  refuseOthers("graph", graph, ["name", "connections", "allow_hosts", "nodes"]);
  const ops = [], columns = new Set();
  for (const node of graph.nodes) {
    const { id, type = "inference", ...says } = node;
    if (!(type in READ)) throw new Error(`node ${id}: the peers have no nodes of type ${type}`);
    refuseOthers(`node ${id}`, says, READ[type]);
    if (type === "input") node.outputs.forEach((name) => columns.add(name));
    else ops.push(...OPS_OF[type](node));
  }
  const producers = new Map(ops.map((op) => [op.output, op.id]));
  for (const op of ops) {
    for (const name of op.reads) if (!producers.has(name) && !columns.has(name)) throw new Error(`${op.id}: nothing gives ${name}`);
    op.inputs = [...new Set(op.reads.filter((name) => producers.has(name)).map((name) => producers.get(name)))];
  }
  return { ops, names: { producers, columns } };
}

const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/** What a block shows: a column, an answer (with its ids), or a tool's result as text. */
function blockOf(workflow, name, row, answers) {
  const producer = workflow.names.producers.get(name);
  const answer = producer === undefined ? { text: shown(row[name]) } : answers[producer];
  return [`### ${name}\n`, answer.ids ? answer : answer.text];
}

/** The messages that an inference node is asked, as `conversation` of workflow.js gives them. */
export function graphConversation(workflow, op, row, answers) {
  const blocks = op.blocks.flatMap((name, i) => [...(i > 0 ? ["\n\n"] : []), ...blockOf(workflow, name, row, answers)]);
  if (op.prompt_layout === "context_first") return [{ role: "user", content: [...blocks, "\n\n", op.system] }];
  return [{ role: "system", content: [op.system] }, { role: "user", content: blocks }];
}

/** Values of names for the templates of tools: columns and tools' values as they are, answers as text. */
export function valuesOf(workflow, op, row, answers) {
  return Object.fromEntries(op.reads.map((name) => {
    const producer = workflow.names.producers.get(name);
    if (producer === undefined) return [name, row[name]];
    return [name, answers[producer].value ?? answers[producer].text];
  }));
}
