// The tools of a workflow for the peers: DuckDB in this process, HTTP, regex_param_extractor. Equal calls are made once, 32 at most are
// under way at each database or host; both are what Halo does. Results become text as prompts show them (contract 3.2).
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

import { valuesOf } from "./graph.js";
import { extractByRegex } from "./regex_extractor.js";
import { patientFetch } from "./server.js";

const packages = createRequire(new URL("../../build/peers/package.json", import.meta.url));
const AT_ONCE = 32;
const SHOWN_ROWS = 5, SHOWN_CHARS = 400;

// A number of a JSON text, as it stands there: before it is written again its quotes go. 8.0 would become 8 otherwise.
const NUMBER = "\uE002";
const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value).replace(new RegExp(`"${NUMBER}([^"]*)"`, "g"), "$1"));
const parsed = (json) => JSON.parse(json.replace(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g, (token) => (token[0] === '"' ? token : `"${NUMBER}${token}"`)));

function cutText(text) {
  const letters = [...text];
  return letters.length <= SHOWN_CHARS ? text : `${letters.slice(0, SHOWN_CHARS).join("")}...(${letters.length - SHOWN_CHARS} more characters)`;
}

/** What stands for elements that are left out; it has the keys of its neighbours. */
function leftOut(neighbour, count) {
  const note = `(${count} more not shown)`;
  if (neighbour === null || typeof neighbour !== "object" || Array.isArray(neighbour)) return note;
  return Object.fromEntries(Object.keys(neighbour).map((key, i) => [key, i === 0 ? note : "..."]));
}

function cut(value) {
  if (typeof value === "string") return cutText(value);
  if (Array.isArray(value)) {
    const list = value.slice(0, SHOWN_ROWS).map(cut);
    return value.length > SHOWN_ROWS ? [...list, leftOut(list.at(-1), value.length - SHOWN_ROWS)] : list;
  }
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).flatMap(([key, inner]) => {
    const rows = key === "rows" && Array.isArray(inner) && inner.length > SHOWN_ROWS;
    return rows ? [[key, inner.slice(0, SHOWN_ROWS).map(cut)], ["rows_shown", `${SHOWN_ROWS} of ${inner.length}`]] : [[key, cut(inner)]];
  }));
}

/** So many at once, the others wait in order. */
class Places {
  constructor(count) {
    this.free = count;
    this.waiting = [];
  }

  async with(work) {
    if (this.free > 0) this.free -= 1;
    else await new Promise((resolve) => this.waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.waiting.shift();
      if (next) next();
      else this.free += 1;
    }
  }
}

/** A double as prompts show it: 8.0, 0.05. */
function doubleText(number) {
  const size = Math.abs(number);
  if (!Number.isFinite(number) || size >= 1e15 || (size > 0 && size < 1e-4)) throw new Error(`${number} has a form that is not known here`);
  return Number.isInteger(number) ? `${number}.0` : `${number}`;
}

const timestampText = (value) => {
  const [date, time] = value.toString().split(" ");
  return `${date}T${time.includes(".") ? time.replace(/\.?0+$/, "") : time}`;
};

/** A database's values: whole numbers and doubles as numbers, decimals exact and dates ISO as text. */
function columnValue(type, value) {
  if (value === null || typeof value === "string" || typeof value === "boolean") return value;
  if (type === "DOUBLE") return NUMBER + doubleText(value);
  if (typeof value === "bigint" || typeof value === "number") return `${NUMBER}${value}`;
  if (type === "TIMESTAMP") return timestampText(value);
  if (type === "DATE" || type.startsWith("DECIMAL")) return value.toString();
  throw new Error(`a column of type ${type} has a form that is not known here`);
}

/** A DuckDB file with connections, and statements on them, that are used again. */
class Database {
  static async open(url) {
    const { DuckDBInstance } = packages("@duckdb/node-api");
    const database = new Database();
    database.instance = await DuckDBInstance.create(url.replace(/^duckdb:/, ""), { access_mode: "READ_ONLY", threads: "1" });
    database.idle = []; // [{connection, statements: text -> prepared}]
    return database;
  }

  async query(sql, values) {
    const lane = this.idle.pop() ?? { connection: await this.instance.connect(), statements: new Map() };
    if (!lane.statements.has(sql)) lane.statements.set(sql, await lane.connection.prepare(sql));
    const statement = lane.statements.get(sql);
    statement.bind(values);
    const result = await statement.runAndReadAll();
    this.idle.push(lane);
    const names = result.columnNames(), types = result.columnTypes().map(String);
    const rows = result.getRows().map((row) => Object.fromEntries(row.map((value, i) => [names[i], columnValue(types[i], value)])));
    return { rows, rowcount: `${NUMBER}${rows.length}` };
  }
}

/** What a template of one path stands for, or a value that is none. */
function evaluated(template, values) {
  if (typeof template !== "string" || !template.includes("{{")) return template;
  const path = /^\{\{\s*([\w.]+)\s*\}\}$/.exec(template);
  const value = path?.[1].split(".").reduce((at, key) => at?.[key], values);
  if (value === undefined) throw new Error(`${template} has no value`);
  return value;
}

/** A parameter as DuckDB takes it. Decimals and dates are text, which the queries cast. */
function bound(type, value) {
  if (type === "int") return BigInt(value);
  if (type === "float") return Number(value);
  return String(value);
}

const encoded = (value) => encodeURIComponent(value).replace(/[!'()*]/g, (mark) => `%${mark.charCodeAt(0).toString(16).toUpperCase()}`);

/** Makes the calls of a run. `calls`: those that were made. */
export class Tools {
  /** `connections`: names and duckdb:PATH. */
  static async open(connections = {}) {
    const tools = new Tools();
    tools.databases = {};
    for (const [name, url] of Object.entries(connections)) tools.databases[name] = await Database.open(url);
    tools.places = new Map(); // of each target
    tools.known = new Map(); // request -> answer
    tools.calls = 0;
    return tools;
  }

  /** {text, and of functions value}: what the tool `op` gives for a row. A row's `latencies` say how long a host takes at least. */
  run(workflow, op, row, answers) {
    const values = valuesOf(workflow, op, row, answers);
    return { sql: () => this.ask(op, values), http: () => this.get(op, values, row.latencies?.[op.id] ?? 0),
      function: () => this.extract(op, values) }[op.kind]();
  }

  /** The answer to a request, made now or by whoever asked first. */
  once(target, request, make) {
    const key = `${target}\n${request}`;
    if (!this.places.has(target)) this.places.set(target, new Places(AT_ONCE));
    if (!this.known.has(key)) {
      this.calls += 1;
      this.known.set(key, this.places.get(target).with(make).then((value) => ({ text: asText(cut(value)) })));
    }
    return this.known.get(key);
  }

  ask(op, values) {
    const sql = op.sql.replace(/(?<![:\w]):([A-Za-z_]\w*)/g, "$$$1");
    const named = Object.entries(op.parameters).map(([name, template]) => [name, bound(op.types[name], evaluated(template, values))]);
    const request = `${sql}\n${named.map(([name, value]) => `${name}=${value}`).join("\n")}`;
    return this.once(op.connection, request, () => this.databases[op.connection].query(sql, Object.fromEntries(named)));
  }

  get(op, values, latency_s) {
    const query = Object.entries(op.params).map(([name, template]) => `${encoded(name)}=${encoded(evaluated(template, values))}`);
    const url = `${op.url}?${query.join("&")}`;
    return this.once(new URL(op.url).host, url, async () => {
      const [answer] = await Promise.all([patientFetch(url), sleep(1000 * latency_s)]);
      const text = await answer.text();
      if (answer.status !== 200) throw new Error(`${url}: status ${answer.status}: ${text.slice(0, 300)}`);
      return parsed(text);
    });
  }

  async extract(op, values) {
    if (op.processor !== "regex_param_extractor") throw new Error(`${op.id}: the peers have no processor ${op.processor}`);
    const value = extractByRegex(op.config, Object.values(values)[0]);
    return { text: JSON.stringify(value), value };
  }
}
