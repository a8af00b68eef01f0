"""Batches of agentic LLM workflows as one query.

    results = halo.run("workflow.yaml", rows, models={"name": "file.gguf"})

docs/python.md has the rest. Importing starts nothing; a process that forks afterwards cannot use the package in its copy
(`ForkedError`).
"""

from . import _core
from ._options import names as option_names
from ._options import program
from .components import Query
from .errors import (
    ConfigError,
    Diagnostic,
    ForkedError,
    HaloError,
    InputOutputError,
    InterruptedRun,
    ModelError,
    RowFailed,
    RowsError,
    StoppedError,
    UnsupportedError,
    UsageError,
    WorkflowError,
)
from .optimizers import Optimizer_v
from .planning import Plan, explain
from .running import Results, Session, Ticket, astream, resume, run, simulate, stream, tool

__version__ = _core.version

__all__ = [
    "ConfigError",
    "Diagnostic",
    "ForkedError",
    "HaloError",
    "InputOutputError",
    "InterruptedRun",
    "ModelError",
    "Optimizer_v",
    "Plan",
    "Query",
    "Results",
    "RowFailed",
    "RowsError",
    "Session",
    "StoppedError",
    "Ticket",
    "UnsupportedError",
    "UsageError",
    "WorkflowError",
    "astream",
    "explain",
    "option_names",
    "program",
    "resume",
    "run",
    "simulate",
    "stream",
    "tool",
]
