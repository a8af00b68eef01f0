"""What can go wrong, as exceptions.

A row that fails is no exception: it comes back with ``status`` ``"failed"`` and what went wrong. Exceptions are for what
keeps a run from beginning or from coming to its end.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Optional, Sequence, Tuple


@dataclasses.dataclass(frozen=True)
class Diagnostic:
    """One thing that is wrong at one place.

    >>> print(Diagnostic("flow.yaml", 3, 5, "unknown key 'promt'"))
    flow.yaml:3:5: unknown key 'promt'
    """

    file: str
    line: int
    """From 1; 0 where it is not known."""
    column: int
    """From 1; 0 where it is not known."""
    message: str

    def __str__(self) -> str:
        place = self.file
        for number in (self.line, self.column):
            if number > 0:
                place += f":{number}"
        return f"{place}: {self.message}" if place else self.message


class HaloError(Exception):
    """Everything that Halo raises. ``code`` is a short stable word, ``diagnostics`` has every fault that was found.

    >>> error = error_of("rows", "rows:2: no", [("rows", 2, 0, "no")])
    >>> (type(error).__name__, error.code, error.diagnostics[0].line)
    ('RowsError', 'rows', 2)
    """

    code = "failed"

    def __init__(self, message: str = "", diagnostics: Sequence[Diagnostic] = ()) -> None:
        super().__init__(message)
        self.diagnostics: Tuple[Diagnostic, ...] = tuple(diagnostics)


class UsageError(HaloError, ValueError):
    """An argument or an option."""

    code = "usage"


class WorkflowError(HaloError, ValueError):
    """A workflow file."""

    code = "workflow"


class RowsError(HaloError, ValueError):
    """Rows: malformed ones, ids that are there twice, missing columns."""

    code = "rows"


class ModelError(HaloError):
    """A model's name or its file."""

    code = "model"


class ConfigError(HaloError):
    """A setting, or something of this machine that cannot be had."""

    code = "config"


class InputOutputError(HaloError, OSError):
    """Reading or writing, and engines that could not go on."""

    code = "io"

    def __init__(self, message: str = "", diagnostics: Sequence[Diagnostic] = ()) -> None:
        HaloError.__init__(self, message, diagnostics)

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class UnsupportedError(HaloError):
    """Valid, and not built yet."""

    code = "unsupported"


class ForkedError(HaloError):
    """Halo was imported before the process forked: its threads are not in the copy."""

    code = "forked"

    def __init__(self) -> None:
        super().__init__(
            "halo was imported before this process was forked, and cannot be used in the copy: import it after the fork, or "
            "start processes with multiprocessing.get_context('spawn')"
        )

    def __reduce__(self) -> Tuple[Any, ...]:
        # Pools of processes hand exceptions on by pickling them, and hang where that goes wrong.
        return type(self), ()


class StoppedError(HaloError):
    """A limit has ended the run before all rows were done: ``max_failures``, a budget, the breaker.

    ``results`` has the rows that are done; ``run_dir`` the folder from which `halo.resume` goes on, if the run is kept.
    """

    code = "stopped"

    def __init__(self, message: str, results: Any = None, run_dir: str = "") -> None:
        super().__init__(message)
        self.results = results
        self.run_dir = run_dir


class InterruptedRun(KeyboardInterrupt):
    """Ctrl-C: calls that ran were finished, the rest was left. Like `StoppedError`, it has what is done."""

    code = "interrupted"

    def __init__(self, results: Any = None, run_dir: str = "") -> None:
        super().__init__("the run was interrupted")
        self.results = results
        self.run_dir = run_dir


class RowFailed(HaloError):
    """Raised by `Ticket.result` for a row that has failed. ``row`` is the row as it came back."""

    code = "row_failed"

    def __init__(self, row: dict[str, Any]) -> None:
        error = row.get("error") or {}
        super().__init__(f"{error.get('operator', '')}: {error.get('message', '')} ({error.get('code', '')})")
        self.row = row

    def __reduce__(self) -> Tuple[Any, ...]:
        return type(self), (self.row,)


_BY_CODE = {
    kind.code: kind
    for kind in (UsageError, WorkflowError, RowsError, ModelError, ConfigError, InputOutputError, UnsupportedError)
}


def error_of(
    code: str, message: str, diagnostics: Optional[Sequence[Tuple[str, int, int, str]]] = None
) -> HaloError:
    """The exception for an error of the core; called by it."""
    return _BY_CODE.get(code, HaloError)(message, [Diagnostic(*each) for each in diagnostics or ()])
