// llama-server over HTTP.
import http from "node:http";

const agent = new http.Agent({ keepAlive: true });

/** fetch() as the OpenAI client wants it, over node:http: Node's own gives a request up after five minutes without an answer,
 * which a long queue before a slow machine takes. */
export function patientFetch(url, init = {}) {
  const { method = "GET", headers = {}, body } = init;
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, agent, headers: Object.fromEntries(new Headers(headers)) }, (answer) => {
      const chunks = [];
      answer.on("data", (chunk) => chunks.push(chunk));
      answer.on("error", reject);
      answer.on("end", () => resolve(new Response(Buffer.concat(chunks), { status: answer.statusCode, headers: answer.headers })));
    });
    request.on("error", (error) => {
      // The server closed an idle connection just as it was taken again: nothing has been asked yet.
      if (request.reusedSocket && error.code === "ECONNRESET") resolve(patientFetch(url, init));
      else reject(error);
    });
    request.end(body);
  });
}

async function post(url, body) {
  const answer = await patientFetch(url, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const text = await answer.text();
  if (answer.status !== 200) throw new Error(`${url}: status ${answer.status}: ${text.slice(0, 300)}`);
  return JSON.parse(text);
}

// Private use: no row and no template has them, no template trims them.
const hole = (index) => `\uE000${index}\uE001`;
const HOLES = /\uE000(\d+)\uE001/;

/** One model behind its server, or behind a router, which goes by its name. */
export class Server {
  constructor(url, model) {
    this.url = url;
    this.model = model;
    this.skeletons = new Map(); // roles -> what the chat template writes around the messages
  }

  /** Texts and, at odd places, numbers of messages: the chat template around messages of these roles. */
  skeleton(roles) {
    const key = roles.join();
    if (!this.skeletons.has(key)) {
      const messages = roles.map((role, index) => ({ role, content: hole(index) }));
      this.skeletons.set(key, post(`${this.url}/apply-template`, { model: this.model, messages }).then((answer) => answer.prompt.split(HOLES)));
    }
    return this.skeletons.get(key);
  }

  /** The prompt as texts and ids, neighbouring texts as one: what stands between two answers is tokenized in one piece, and
   * answers keep their ids. The server takes such a list. */
  async prompt(messages) {
    const prompt = [];
    const add = (piece) => {
      if (piece.ids) prompt.push(...piece.ids);
      else if (typeof prompt.at(-1) === "string") prompt.push(prompt.pop() + piece);
      else if (piece !== "") prompt.push(piece);
    };
    (await this.skeleton(messages.map((message) => message.role))).forEach((part, place) => {
      if (place % 2 === 0) add(part);
      else messages[Number(part)].content.forEach(add);
    });
    return prompt.length === 1 ? prompt[0] : prompt;
  }

  /** {text, ids} of the greedy answer, and what it took. `ids` are without the end token. `grammar`: GBNF that it keeps to, or nothing. */
  async complete(messages, [least, most], grammar) {
    const answer = await post(`${this.url}/completion`, {
      model: this.model, prompt: await this.prompt(messages), n_predict: most, ignore_eos: endsOnlyByLength(least, most), temperature: 0,
      cache_prompt: true, return_tokens: true, grammar });
    const ids = answer.stop_type === "eos" ? answer.tokens.slice(0, -1) : answer.tokens;
    const { prompt_n: computed, cache_n: reused, predicted_n: output } = answer.timings;
    return { text: answer.content, ids, used: { prompt: computed + reused, reused, output } };
  }

  /** Token ids of a prompt as `prompt` gives it. */
  async tokenize(prompt) {
    return (await post(`${this.url}/tokenize`, { model: this.model, content: prompt, add_special: true, parse_special: true })).tokens;
  }
}

/** True if the answer has one length, false if its end is the model's. Throws for what llama-server cannot be asked. */
export function endsOnlyByLength(least, most) {
  if (least !== 0 && least !== most) throw new Error(`min_tokens ${least} below max_tokens ${most}: llama-server has no such setting`);
  return least === most;
}
