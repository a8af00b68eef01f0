"""The first Halo's example, with the model that comes with Halo."""

import pathlib

from halo.components import Query
from halo.optimizers import Optimizer_v

queries = [
    Query(id=0, prompt="The kettle leaks from the lid since Tuesday. I am very angry about this."),
    Query(id=1, prompt="I like it a lot, but my desk lamp came with a cracked cover."),
]

optimizer = Optimizer_v(pathlib.Path(__file__).with_name("review.yaml"))
queries = optimizer.execute(queries, return_queries=True)
for query in queries:
    print(query.id, query.status, query.op_output["reply"])
optimizer.print_latency_percentiles()
