#!/usr/bin/env python3
"""The peer: continuous batching of the transformers library, on a Llama of random weights (bfloat16) on the GPU.

Prints {"overall_tokens_per_s", "library"}: prompt and output tokens of all requests over the time from the first to the last.
Ends with 3 and a line that says why where the library, torch or a GPU is missing.
"""
import argparse
import json
import random
import sys
import time

NOT_HERE = 3

try:
    import torch
    import transformers
except ImportError as error:
    print(f"not installed: {error.name}", file=sys.stderr)
    sys.exit(NOT_HERE)


def make_model(flags):
    config = transformers.LlamaConfig(
        num_hidden_layers=flags.layers, hidden_size=flags.width, num_attention_heads=flags.heads, num_key_value_heads=flags.kv_heads,
        intermediate_size=flags.feed_forward, vocab_size=flags.vocabulary, tie_word_embeddings=flags.tied,
        max_position_embeddings=8192, attn_implementation="sdpa_paged")
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        return transformers.LlamaForCausalLM(config).eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("layers", "width", "heads", "kv-heads", "feed-forward", "vocabulary", "requests", "prompt", "output"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--tied", action="store_true", help="the output matrix is that of the embeddings")
    flags = parser.parse_args()
    if not torch.cuda.is_available():
        print("torch finds no GPU", file=sys.stderr)
        return NOT_HERE
    model = make_model(flags)
    if not hasattr(model, "generate_batch"):
        print(f"transformers {transformers.__version__} has no continuous batching", file=sys.stderr)
        return NOT_HERE
    draw = random.Random(1)
    prompts = [[draw.randrange(flags.vocabulary) for _ in range(flags.prompt)] for _ in range(flags.requests)]
    # No end token: every answer has its full length, as it has in the other systems.
    length = transformers.GenerationConfig(max_new_tokens=flags.output, do_sample=False, eos_token_id=-1, pad_token_id=0)
    with torch.inference_mode():
        model.generate_batch(inputs=prompts[:2], generation_config=length)  # warms up
        start = time.monotonic()
        answers = model.generate_batch(inputs=prompts, generation_config=length)
        elapsed_s = time.monotonic() - start
    made = sum(len(answer.generated_tokens) for answer in answers.values())
    if made != flags.requests * flags.output:
        print(f"{made} tokens came back, not {flags.requests * flags.output}", file=sys.stderr)
        return 1
    print(json.dumps({"overall_tokens_per_s": (flags.requests * flags.prompt + made) / elapsed_s,
                      "library": f"transformers {transformers.__version__}"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
