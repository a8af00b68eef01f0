"""W1 to W6 as all systems get them beside each other: the shipped workflows without schemas, and their rows.

A schema is kept to in another way by each system (white space, the order of what is tried), so that answers and their lengths would
differ. Here each answer is free text whose length is a column of the row, as of all other workloads; it goes on under the name of the
node's first output. One answer steers the tools, the keyword of W1 and W2: all systems choose it from the same 40 words by the same
GBNF. Results of tools are cut to rows and characters as ever, not to tokens, since counting those takes another request of a peer.
"""

import copy
import random
import subprocess

# The longest note of the schemas is 48 characters in 20 of JSON.
MOST_TOKENS = 64
MOST_KEYWORD_TOKENS = 16
ANY_TOKENS = 1 << 20
KEYWORDS = 40  # different ones, of W1 and W2


def words_grammar(words):
    return "root ::= " + " | ".join(f'"{word}"' for word in words)


def free_node(node):
    """An inference node without its schema; what further outputs it had is gone."""
    kept = {key: value for key, value in node.items() if key not in ("schema", "max_tokens")}
    words = node["schema"]["properties"][node["outputs"][0]].get("enum")
    if words:
        length = {"max_tokens": MOST_KEYWORD_TOKENS, "schema": {"gbnf": words_grammar(words)}}
    else:
        length = {key: f"{{{{ row.lengths.{node['id']} }}}}" for key in ("max_tokens", "min_tokens")}
    queries = {"db_queries": [{**query, "prompt_tokens": ANY_TOKENS} for query in node["db_queries"]]} if "db_queries" in node else {}
    return {**kept, **queries, "outputs": node["outputs"][:1], "temperature": 0, **length}


def without_schemas(workflow, data, port):
    """The workflow over the databases in the folder `data` and the service at `port`."""
    graph = copy.deepcopy(workflow["graph"])
    graph.pop("defaults")
    gone = {name for node in graph["nodes"] if "model" in node for name in node["outputs"][1:]}
    nodes = []
    for node in graph["nodes"]:
        if node.get("type") == "http":
            node = {**node, "url": node["url"].replace(":8765", f":{port}"), "prompt_tokens": ANY_TOKENS}
        elif "model" in node:
            node = free_node({**node, "inputs": [name for name in node["inputs"] if name not in gone]})
        nodes.append(node)
    connections = {name: f"duckdb:{data / name}.duckdb" for name in graph["connections"]}
    return {"graph": {**graph, "connections": connections, "allow_hosts": [f"127.0.0.1:{port}"], "nodes": nodes}}


def rows_of(program, stem, count, path, repeat_share=0, seed=0, data_seed=1):
    """So many rows, made by halo-workload: that share asks for what an earlier row asks for, of W1 and W2 as many as their keywords need."""
    least = max(0, count - KEYWORDS) if stem[:2] in ("w1", "w2") else 0
    repeats = max(least, round(repeat_share * count))
    subprocess.run([program, "rows", "--workload", stem[:2], "--count", str(count), "--repeat-share", str(repeats / count), "--seed", str(seed),
                    "--data-seed", str(data_seed), "-o", str(path)], check=True, capture_output=True)


def add_lengths(workflow, rows, seed, length_share):
    """Draws the length of each free answer, evenly between a quarter of MOST_TOKENS and all of it; rows that ask the same get the same."""
    drawn = [node["id"] for node in workflow["graph"]["nodes"] if "min_tokens" in node]
    for row in rows:
        draw = random.Random(f"{seed} {row['user_query']} lengths")
        row["lengths"] = {node: max(1, round(draw.randint(MOST_TOKENS // 4, MOST_TOKENS) * length_share)) for node in drawn}


def add_latencies(rows, calls):
    """Gives each row the latencies that Halo drew for its HTTP calls in a run with this dump; of equal calls the one that was made."""
    calls = [call for call in calls if call.get("kind") == "http"]
    drawn = {call["request"]: call["latency_s"] for call in calls if not call["merged"]}
    of_row = {}
    for call in calls:
        of_row.setdefault(call["row"], {})[call["operator"]] = drawn[call["request"]]
    return [{**row, "latencies": of_row.get(str(row["id"]), {})} for row in rows]
