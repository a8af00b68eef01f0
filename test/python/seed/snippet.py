from halo.components import Query

queries = [
    Query(
        id = 0,
        prompt = "What is the capital of France?",
    ),
    Query(
        id = 1,
        prompt = "What is the capital of Japan?",
    ),
]

from halo.optimizers import Optimizer_v

optimizer = Optimizer_v(YAML_CONFIG_PATH)
queries = optimizer.execute(queries, return_queries=True)
