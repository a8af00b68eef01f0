"""What a batch is made of."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Union


@dataclasses.dataclass
class Query:
    """One row of a batch, and afterwards what came of it.

    >>> query = Query(id=0, prompt="What is the capital of France?", priority=2)
    >>> (query.status, query.op_output)
    ('pending', {})
    """

    id: Union[int, str]
    """Distinct within a batch."""
    prompt: Union[str, List[str]]
    """What the operators read; of a list operator by operator, one element a step."""
    priority: int = 0
    """Queries of higher priority are begun first."""
    columns: Dict[str, Any] = dataclasses.field(default_factory=dict)
    """Further values that templates may read as ``{{ row.NAME }}``."""

    op_output: Dict[str, Any] = dataclasses.field(default_factory=dict)
    """What each operator answered; null for one that was skipped."""
    status: str = "pending"
    """``pending``, ``ok``, ``failed``, or ``unfinished`` where the run ended before it."""
    error: Any = None
    """What failed: operator, code and message; null for a query that is ok."""
    benchmark: Dict[str, float] = dataclasses.field(default_factory=dict)
    """Seconds from the run's start: ``start`` (its first operator could begin), ``end`` (its last had ended), and between
    them ``latency``. Also ``prompt_tokens`` and ``output_tokens``."""
