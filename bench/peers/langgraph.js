// LangGraph.js driving llama-server: a node for each operator, outputs as state, nodes cached, rows as a batch.
import { createRequire } from "node:module";

import { endsOnlyByLength, patientFetch } from "./server.js";
import { conversation, lengths, textOf } from "./workflow.js";

// bench/peers/install puts them there.
const packages = createRequire(new URL("../../build/peers/package.json", import.meta.url));
const { Annotation, END, START, StateGraph } = packages("@langchain/langgraph");
const { InMemoryCache } = packages("@langchain/langgraph-checkpoint");
const { ChatOpenAI } = packages("@langchain/openai");

/** Chat models by model, length and grammar, since these belong to a ChatOpenAI. */
class ChatModels {
  constructor(servers) {
    this.servers = servers;
    this.models = new Map();
  }

  get({ model, grammar }, [least, most]) {
    const key = JSON.stringify([model, least, most, grammar]);
    if (!this.models.has(key)) {
      this.models.set(key, new ChatOpenAI({
        model, temperature: 0, maxTokens: most, maxRetries: 0, apiKey: "none",
        modelKwargs: { ignore_eos: endsOnlyByLength(least, most), grammar },
        configuration: { baseURL: `${this.servers[model].url}/v1`, fetch: patientFetch } }));
    }
    return this.models.get(key);
  }
}

function toolNode(workflow, op, tools) {
  return async ({ row, outputs }) => ({ outputs: { [op.id]: await tools.run(workflow, op, row, outputs) } });
}

function modelNode(workflow, op, chats, record) {
  return async ({ row, outputs }) => {
    const messages = conversation(workflow, op, row, outputs).map(({ role, content }) => ({ role, content: textOf(content) }));
    const answer = await chats.get(op, lengths(op, row)).invoke(messages);
    const usage = answer.usage_metadata;
    record(op, { prompt: usage.input_tokens, reused: usage.input_token_details?.cache_read ?? 0, output: usage.output_tokens });
    return { outputs: { [op.id]: { text: answer.content } } };
  };
}

/** Answers each row: [{operator: {text}}]. The cache's key is a node's state, rows without their ids: equal rows may share. */
export async function runLangGraph({ workflow, rows, servers, tools, concurrency, record }) {
  const chats = new ChatModels(servers);
  const State = Annotation.Root({
    row: Annotation(),
    outputs: Annotation({ reducer: (before, more) => ({ ...before, ...more }), default: () => ({}) }),
  });
  const graph = new StateGraph(State);
  for (const op of workflow.ops.values()) {
    graph.addNode(op.id, op.kind === "llm" ? modelNode(workflow, op, chats, record) : toolNode(workflow, op, tools), { cachePolicy: {} });
  }
  for (const op of workflow.ops.values()) graph.addEdge(op.inputs.length > 0 ? op.inputs : START, op.id);
  const read = new Set([...workflow.ops.values()].flatMap((op) => op.inputs));
  for (const id of workflow.ops.keys()) if (!read.has(id)) graph.addEdge(id, END);
  const app = graph.compile({ cache: new InMemoryCache() });
  // One step for each level of the graph.
  const config = { maxConcurrency: concurrency, recursionLimit: workflow.ops.size + 2 };
  const states = await app.batch(rows.map(({ id, ...row }) => ({ row })), config);
  // With maxConcurrency 1 LangGraph 1.4.10 runs the first node of a step only, and says nothing.
  for (const { outputs } of states) {
    const missing = [...workflow.ops.keys()].filter((id) => !(id in outputs));
    if (missing.length > 0) throw new Error(`LangGraph left out ${missing.join(", ")}`);
  }
  return states.map((state) => state.outputs);
}
