"""Batches of queries, the seed's way."""

from __future__ import annotations

import json
import time
from typing import Any, List, Mapping, Optional, Sequence, Union

from . import _core, _rows
from ._options import Function, PathLike
from .components import Query
from .errors import UsageError
from .planning import Plan, explain
from .running import _begin, _require_end, _Waiting


def _row_of(query: Query) -> dict[str, Any]:
    return {**query.columns, "id": query.id, "prompt": query.prompt}


class Optimizer_v:
    """Runs batches of queries through a workflow.

    ``config``: path of the workflow. Options are those of `halo.run`.

    >>> from halo.components import Query
    >>> optimizer = Optimizer_v("review.yaml")
    >>> queries = optimizer.execute([Query(id=0, prompt="The kettle leaks.")], return_queries=True)
    >>> queries[0].status, sorted(queries[0].op_output)
    ('ok', ['extract', 'reply'])
    >>> optimizer.exit()
    """

    def __init__(
        self,
        config: PathLike,
        *,
        functions: Optional[Mapping[str, Function]] = None,
        progress: Optional[bool] = None,
        **options: Any,
    ) -> None:
        self._config = config
        self._functions = functions
        self._progress = progress
        self._options = options
        self._latencies: List[float] = []
        self._is_over = False

    def schedule(self, queries: Sequence[Query]) -> Plan:
        """The plan for these queries; runs nothing."""
        self._require_open()
        return explain(self._config, [_row_of(query) for query in queries], functions=self._functions, **self._options)

    def execute(self, queries: Sequence[Query], return_queries: bool = False) -> Union[List[Query], float]:
        """Runs the batch. Gives the queries, each with what came of it, or the seconds that it took.

        Queries of higher priority are begun first, and so end earlier. A query that fails has the status "failed" and does
        not disturb the others. Raises as `halo.run` does; queries that are done then have their results.
        """
        self._require_open()
        source = _core.Rows(any_time=False)
        for number, query in enumerate(queries, 1):
            _rows.add(source, _row_of(query), number, query.priority)
        source.close()
        given = _rows.Given([])
        given.stream = source
        started = time.monotonic()
        options = {"order": "completion", "all_outputs": True, **self._options, "column": "prompt"}
        waiting = _Waiting(_begin([self._config], [given], self._functions, options), self._progress)
        for query in queries:
            query.status, query.op_output, query.error, query.benchmark = "unfinished", {}, None, {}
        while not waiting.run.is_over:
            _, indices, opened, ended, text = waiting.take()
            for index, row, start, end in zip(indices, json.loads(text), opened, ended):
                self._finish(queries[index], row, start, end)
        _require_end(waiting.outcome(), list(queries))
        elapsed = time.monotonic() - started
        return list(queries) if return_queries else elapsed

    def _finish(self, query: Query, row: Mapping[str, Any], opened: float, ended: float) -> None:
        query.status = row["status"]
        query.op_output = row["outputs"]
        query.error = row["error"]
        query.benchmark = {"start": opened, "end": ended, "latency": ended - opened, **row["usage"]}
        self._latencies.append(ended)

    def print_latency_percentiles(self, percentiles: Sequence[float] = (50, 90, 95, 99)) -> None:
        """Prints how long after the start of its batch a query had ended, over all queries so far.

        >>> Optimizer_v("review.yaml").print_latency_percentiles()
        no query has ended yet
        """
        if not self._latencies:
            print("no query has ended yet")
            return
        ordered = sorted(self._latencies)
        for percentile in percentiles:
            place = min(len(ordered) - 1, max(0, -(-len(ordered) * percentile // 100) - 1))
            print(f"p{percentile:g}: {ordered[int(place)]:.3f} s")

    def exit(self) -> None:
        """No more batches. Engines end with each batch, so that nothing is left running."""
        self._is_over = True

    def _require_open(self) -> None:
        if self._is_over:
            raise UsageError("the optimizer has exited")
