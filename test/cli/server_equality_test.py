"""Token ids and greedy answers equal those of llama-server built from the same source.

Every call of a naive run is sent to the server again: the prompt's text must give the same ids, and the ids must give the same
greedy answer.
"""
import json
import os
import socket
import subprocess
import time
import unittest
import urllib.request

import support
from support import adapter, halo, model, write

WORKFLOW = """
start_ops: [a]
end_ops: [b]
ops:
  a: {model: m, prompt: "Look at it closely.", temperature: 0, max_tokens: 12, output_ops: [b]}
  b: {model: m, prompt: "Say it again.", temperature: 0, max_tokens: 12, input_ops: [a]}
"""
ADAPTED = WORKFLOW.replace("output_ops", "lora_config: {file: adapter.gguf, scale: 0.75}, output_ops")
TEXTS = ["What is the capital of France?", "caf\u00e9 na\u00efve \u20ac 100", "   spaces\n\n\tand tabs  ", "1 + 1 = 2; 10^6",
         "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8", "\U0001F600 emoji \U0001F680"]


class Equality:
    """Against the server with the kernels that the class names."""

    @classmethod
    def setUpClass(cls):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            cls.port = probe.getsockname()[1]
        environment = {name: value for name, value in os.environ.items() if name != "GGML_CPU_EXACT"}
        cls.server = subprocess.Popen(
            [os.path.join(support.BIN, "llama-server"), "-m", model(), "--host", "127.0.0.1", "--port", str(cls.port),
             "--lora", adapter(), "-np", "1", "-c", "2048", "-t", "2", "-fa", "on", "--cache-ram", "0", "--no-webui"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**environment, **cls.SERVER_ENVIRONMENT})
        give_up = time.monotonic() + support.seconds(60)
        while True:
            try:
                if cls.post("/tokenize", {"content": "x"}):
                    return
            except OSError:
                if time.monotonic() > give_up or cls.server.poll() is not None:
                    raise
                time.sleep(0.1)

    @classmethod
    def tearDownClass(cls):
        cls.server.terminate()
        cls.server.wait(timeout=support.seconds(30))

    @classmethod
    def post(cls, path, body):
        request = urllib.request.Request(f"http://127.0.0.1:{cls.port}{path}", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=support.seconds(60)) as answer:
            return json.load(answer)

    def test_ids_and_greedy_answers(self):
        self.compare(WORKFLOW, {"a": 0, "b": 0})

    def test_answers_with_an_adapter(self):
        plain = self.compare(WORKFLOW, {"a": 0, "b": 0})
        self.assertNotEqual(self.compare(ADAPTED, {"a": 0.75, "b": 0}), plain)

    def compare(self, workflow, scales):
        """Runs the workflow, compares its calls with the server's; returns the answers of `a`."""
        rows = write("eq.jsonl", "".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS))
        dump = os.path.join(support.SCRATCH, "calls.jsonl")
        code, out, error = halo("run", write("eq.yaml", workflow), "-i", rows, "--model", f"m={model()}", "--naive",
                                self.HALO_FLAG, "--threads", "2", "--dump-prompts", dump, "--worker-memory", "64M")
        self.assertEqual(code, 0, error)
        with open(dump, encoding="utf-8") as file:
            calls = [json.loads(line) for line in file]
        self.assertEqual(len(calls), 2 * len(TEXTS))
        for call in calls:
            answer = self.post("/completion", {"prompt": call["prompt"], "n_predict": 12, "temperature": 0,
                                               "return_tokens": True, "cache_prompt": False,
                                               "lora": [{"id": 0, "scale": scales[call["operator"]]}]})
            self.assertEqual(answer["tokens"], [t for t in call["output"]], call["operator"])
            text = self.post("/detokenize", {"tokens": call["prompt"]})["content"]
            if call["operator"] == "a":
                # A first turn is one text; tokenized whole it gives the same ids.
                ids = self.post("/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]
                self.assertEqual(ids, call["prompt"])
        return [call["output"] for call in calls if call["operator"] == "a"]


class StockKernels(Equality, unittest.TestCase):
    SERVER_ENVIRONMENT = {}
    HALO_FLAG = "--no-deterministic"


class ExactKernels(Equality, unittest.TestCase):
    SERVER_ENVIRONMENT = {"GGML_CPU_EXACT": "1"}
    HALO_FLAG = "--deterministic"

    def setUp(self):
        support.exact_answers_or_skip(self)


if __name__ == "__main__":
    unittest.main(argv=["server_equality_test"], verbosity=1)
