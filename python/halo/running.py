"""Runs: a batch at once (`run`), row by row (`stream`, `astream`), a session that takes rows while it goes on."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import itertools
import json
import os
import threading
import weakref
from types import TracebackType
from typing import Any, AsyncIterator, Callable, Dict, Generator, Iterator, List, Mapping, Optional, Sequence, Tuple, Type, Union

from . import _core, _options, _rows
from ._options import Function, PathLike
from ._progress import Display
from .errors import ForkedError, HaloError, InterruptedRun, RowFailed, StoppedError, UsageError

Row = Dict[str, Any]

_MOST_IN_FLIGHT = 4096
"""Rows of an iterator that are taken before their results are."""
_MOST_WAITING = 65536
"""Rows of a session that no operator has begun; `submit` waits for room beyond that."""
_TAKE = 1024
_WAIT_S = 0.1

_live: "weakref.WeakSet[_core.Run]" = weakref.WeakSet()
_collectors: "weakref.WeakSet[threading.Thread]" = weakref.WeakSet()
"""Of sessions: each ends with its run."""


def _end_all() -> None:
    """No thread of a run may look for an interpreter that is gone."""
    for run in list(_live):
        try:
            run.stop(2)
            while not run.join(_WAIT_S):
                pass
        except HaloError:  # a copy of the process, without the threads
            return
    for collector in list(_collectors):
        collector.join()


atexit.register(_end_all)


def tool(function: Optional[Function] = None, *, at_once: int = 1) -> Any:
    """Says how many calls of a function may run side by side (1 by default).

    >>> @tool(at_once=4)
    ... def shout(text: str) -> str:
    ...     return text.upper()
    >>> shout("a"), shout.at_once
    ('A', 4)
    """
    if not isinstance(at_once, int) or at_once < 1:
        raise UsageError(f"at_once: expected a whole number of 1 or more, got {at_once!r}")

    def mark(marked: Function) -> Function:
        setattr(marked, "at_once", at_once)
        return marked

    return mark if function is None else mark(function)


class Results(List[Row]):
    """Finished rows in the order of the input; what the run says of itself is beside them."""

    outcome: Dict[str, Any] = {}
    """How the run ended: ``status``, ``summary`` (every counter), ``notices``, ``failures`` (by operator and code)."""

    @property
    def status(self) -> str:
        """``ok``, or ``rows_failed`` where some did."""
        return str(self.outcome.get("status", ""))

    @property
    def summary(self) -> Dict[str, Any]:
        """What `halo run --summary-json` writes."""
        return dict(self.outcome.get("summary", {}))


def _begin(
    workflows: Sequence[PathLike],
    given: Sequence[_rows.Given],
    functions: Optional[Mapping[str, Function]],
    options: Mapping[str, Any],
    begin: Callable[..., _core.Run] = _core.run,
) -> _core.Run:
    made = _options.make(workflows, [each.path for each in given], options, begin is _core.simulate)
    run = begin(_options.text_of(made), [each.stream for each in given], _options.functions(functions))
    _live.add(run)
    return run


class _Waiting:
    """Takes finished rows and keeps a person informed; Ctrl-C once drains the run, twice gives it up."""

    def __init__(self, run: _core.Run, progress: Optional[bool], least: int = 1) -> None:
        self.run = run
        self.least = least
        """Rows that are waited for, a moment, before some are taken: all at once cost less."""
        self.display = Display(progress)
        self.interrupts = 0

    def take(self) -> _core.FinishedRows:
        """What has finished; nothing after a while in which nothing has."""
        try:
            self.display.show(self.run)
            return self.run.take(_TAKE, self.least, _WAIT_S)
        except KeyboardInterrupt:
            self.interrupts += 1
            self.run.stop(self.interrupts)
            if self.interrupts == 1:
                self.display.say("stopping: calls that run are finished, nothing new is begun; once more to give them up")
            return [], [], [], [], "[]"

    def outcome(self) -> Dict[str, Any]:
        """How it ended. Raises what kept it from running."""
        self.display.close(self.run)
        return dict(json.loads(self.run.outcome()))


def _require_end(outcome: Dict[str, Any], results: Any) -> None:
    """Raises where rows are missing."""
    if outcome.get("status") == "interrupted":
        raise InterruptedRun(results, outcome["run_dir"])
    if outcome.get("status") == "stopped":
        raise StoppedError(f"stopped: {outcome['stop_reason']}", results, outcome["run_dir"])


def _collect(run: _core.Run, given: _rows.Given, progress: Optional[bool], is_table: bool) -> Any:
    waiting = _Waiting(run, progress, least=_TAKE // 2)
    rows: Dict[int, Row] = {}
    while not run.is_over:
        _, indices, _, _, text = waiting.take()
        rows.update(zip(indices, json.loads(text)))
    outcome = waiting.outcome()
    last = max(rows, default=-1)
    ordered: List[Optional[Row]] = [rows.get(index) for index in range(last + 1)]
    results = given.results(ordered)
    if not is_table:
        results = Results(results)
        results.outcome = outcome
    _require_end(outcome, results)
    return results


def run(
    workflow: PathLike,
    rows: Any = None,
    *,
    functions: Optional[Mapping[str, Function]] = None,
    progress: Optional[bool] = None,
    **options: Any,
) -> Any:
    """Runs a workflow over rows and gives their results in the like kind.

    ``rows``: a list of dicts gives `Results`, a list of dicts too; a pandas, Polars or Arrow table a table with a row for
    each of its own; an iterator an iterator, whose rows are taken as results are; a path (or ``"sql:SELECT ..."``) a list;
    nothing: the rows of the workflow's ``dataset``.

    ``functions``: Python functions that the workflow names (``processor: NAME``), called with its inputs by name.
    ``progress``: True or False; by default where standard error is a terminal, and in notebooks.
    Everything else is in docs/python.md, ``models={"name": "file.gguf"}`` above all.

    A row that fails is a result whose ``status`` is ``"failed"``. Raises `HaloError` before anything runs where something
    is wrong with workflow, rows, models or options; `StoppedError` and `InterruptedRun` with the rows that are done.

    >>> import halo
    >>> results = halo.run("review.yaml", [{"id": "a1", "prompt": "The kettle leaks."}])
    >>> results[0]["id"], results[0]["status"], sorted(results[0]["outputs"])
    ('a1', 'ok', ['reply'])
    """
    if hasattr(rows, "__next__"):
        return stream(workflow, rows, functions=functions, progress=progress, **options)
    given = _rows.Given(rows)
    is_table = given.stream is not None and not isinstance(rows, Sequence) and not _is_plain(rows)
    return _collect(_begin([workflow], [given], functions, options), given, progress, is_table)


def _is_plain(rows: Any) -> bool:
    return not (hasattr(rows, "itertuples") or hasattr(rows, "__arrow_c_stream__"))


def resume(
    run_dir: PathLike,
    *,
    functions: Optional[Mapping[str, Function]] = None,
    progress: Optional[bool] = None,
    retry_failed: bool = False,
    **options: Any,
) -> Results:
    """Goes on with a run that was kept (``run_dir``) and gives all of its rows: what is on the disk is not asked again.

    ``functions``: those that the run was begun with, by the same names. ``retry_failed``: failed rows once more.
    """
    asked = _options.make([], [], {**options, "run_dir": run_dir})
    # What nobody says now is what was said when the run began.
    for name in set(asked) - set(options) - {"run_dir", "engine_program", "shipped_models"}:
        del asked[name]
    asked.update(resume=True, retry_failed=retry_failed)
    core = _core.run(_options.text_of(asked), [], _options.functions(functions))
    _live.add(core)
    results = _collect(core, _rows.Given([]), progress, False)
    assert isinstance(results, Results)
    return results


def stream(
    workflow: PathLike,
    rows: Any,
    *,
    functions: Optional[Mapping[str, Function]] = None,
    progress: Optional[bool] = None,
    ordered: bool = False,
    **options: Any,
) -> Generator[Row, None, None]:
    """Results one by one, as rows end (``ordered``: in the order of the input). Rows are taken from any iterable as
    results are, at most 4,096 ahead of them. Whoever stops early ends the run.

    >>> import halo
    >>> rows = ({"prompt": f"The kettle of house {n} leaks."} for n in range(3))
    >>> sorted(row["id"] for row in halo.stream("review.yaml", rows))
    [0, 1, 2]
    """
    given = _rows.Given([])
    given.stream = source = _core.Rows(any_time=True)
    core = _begin([workflow], [given], functions, {"order": "input" if ordered else "completion", **options})
    waiting = _Waiting(core, progress)
    numbered = enumerate(rows, 1)
    in_flight, is_closed = 0, False
    try:
        while not core.is_over:
            for number, row in itertools.islice(numbered, _MOST_IN_FLIGHT - in_flight):
                _rows.add(source, row, number)
                in_flight += 1
            if in_flight < _MOST_IN_FLIGHT and not is_closed:
                source.close()
                is_closed = True
            for row in json.loads(waiting.take()[-1]):
                in_flight -= 1
                yield row
        _require_end(waiting.outcome(), None)
    finally:
        core.stop(2)
        source.close()


async def astream(
    workflow: PathLike,
    rows: Any,
    *,
    functions: Optional[Mapping[str, Function]] = None,
    ordered: bool = False,
    **options: Any,
) -> AsyncIterator[Row]:
    """As `stream`, for ``async for``: the event loop goes on while the core works. ``rows`` may be an asynchronous
    iterable, too.

    >>> import asyncio, halo
    >>> async def ids():
    ...     return [row["id"] async for row in halo.astream("review.yaml", [{"prompt": "It leaks."}])]
    >>> asyncio.run(ids())
    [0]
    """
    given = _rows.Given([])
    given.stream = source = _core.Rows(any_time=True)
    core = _begin([workflow], [given], functions, {"order": "input" if ordered else "completion", **options})
    room = asyncio.Semaphore(_MOST_IN_FLIGHT)

    async def feed() -> None:
        try:
            async for number, row in _enumerate(rows):
                await room.acquire()
                _rows.add(source, row, number)
        finally:
            source.close()

    feeder = asyncio.ensure_future(feed())
    try:
        while not core.is_over:
            if feeder.done():
                feeder.result()  # what it raised
            for row in await _take_async(core):
                room.release()
                yield row
        await feeder
        _require_end(json.loads(core.outcome()), None)
    finally:
        feeder.cancel()
        core.stop(2)
        source.close()


async def _enumerate(rows: Any) -> AsyncIterator[Tuple[int, Any]]:
    if hasattr(rows, "__aiter__"):
        number = 1
        async for row in rows:
            yield number, row
            number += 1
        return
    for number, row in enumerate(rows, 1):
        yield number, row
        if number % _TAKE == 0:
            await asyncio.sleep(0)


async def _take_async(core: _core.Run) -> List[Row]:
    """Waits in the event loop until rows are there, or a while."""
    rows: List[Row] = json.loads(core.take(_TAKE, 1, 0.0)[-1])
    if rows or core.is_over:
        return rows
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(core.fileno(), ready.set)
    try:
        await asyncio.wait_for(ready.wait(), _WAIT_S)
    except asyncio.TimeoutError:
        pass
    finally:
        loop.remove_reader(core.fileno())
    rows = json.loads(core.take(_TAKE, 1, 0.0)[-1])
    return rows


_process = os.getpid()


def _require_own_process() -> None:
    """In a copy of the process nothing ends a wait: the thread that would is not in it."""
    if os.getpid() != _process:
        raise ForkedError()


class Ticket:
    """A row that was submitted to a session, and what comes of it. It can be awaited."""

    def __init__(self, source: _core.Rows, index: int) -> None:
        self._source = source
        self.index = index
        """Of the row among those of its workflow, from 0; its id unless it has one."""
        self._future: "concurrent.futures.Future[Row]" = concurrent.futures.Future()
        self._taken = False

    def done(self) -> bool:
        """True when the row has ended, or never will."""
        return self._future.done()

    def row(self, timeout: Optional[float] = None) -> Row:
        """The finished row, failed or not. Waits ``timeout`` seconds at most, then raises `TimeoutError`."""
        if not self.done():
            _require_own_process()
        try:
            row = self._future.result(timeout)
            self._taken = True
            return row
        except concurrent.futures.TimeoutError:
            raise TimeoutError(f"the row {self.index} has not ended within {timeout} s") from None

    def result(self, timeout: Optional[float] = None) -> Dict[str, Any]:
        """The row's outputs. Raises `RowFailed` where it has failed."""
        row = self.row(timeout)
        if row["status"] != "ok":
            raise RowFailed(row)
        return dict(row["outputs"])

    def cancel(self) -> None:
        """The row fails with the code "cancelled", unless it has ended."""
        if not self.done():
            self._source.cancel(self.index)

    def __await__(self) -> Generator[Any, None, Row]:
        if not self.done():
            _require_own_process()
        row = yield from asyncio.wrap_future(self._future).__await__()
        self._taken = True
        return row


class _Tickets:
    """What a session and the thread that collects its rows share; apart from the session, so that one that nobody has
    any more can end."""

    def __init__(self, core: _core.Run) -> None:
        self.core = core
        self.lock = threading.Lock()
        self.open: Dict[Tuple[int, int], Ticket] = {}
        self.early: Dict[Tuple[int, int], Row] = {}
        self.ended: List[Ticket] = []
        self.most_ended = _TAKE
        self.changed = threading.Condition(self.lock)
        self.outcome: Optional[Dict[str, Any]] = None
        self.fault: Optional[BaseException] = None

    def collect(self) -> None:
        """Until the run is over."""
        while not self.core.is_over:
            sources, indices, _, _, text = self.core.take(_TAKE, 1, _WAIT_S)
            rows = json.loads(text)
            with self.changed:
                for key, row in zip(zip(sources, indices), rows):
                    self._end(key, row)
                if rows:
                    self.changed.notify_all()
        fault: Optional[BaseException] = None
        try:
            outcome: Dict[str, Any] = json.loads(self.core.outcome())
            left = StoppedError(f"the session ended before this row: {outcome.get('stop_reason') or outcome['status']}")
        except BaseException as error:  # handed to those who wait for rows
            fault, outcome, left = error, {}, StoppedError(f"the session ended before this row: {error}")
        with self.changed:
            self.outcome, self.fault = outcome, fault
            for ticket in self.open.values():
                ticket._future.set_exception(fault or left)
            self.open.clear()
            self.changed.notify_all()

    def _end(self, key: Tuple[int, int], row: Row) -> None:
        ticket = self.open.pop(key, None)
        if ticket is None:
            self.early[key] = row  # it ended before its ticket was written
            return
        ticket._future.set_result(row)
        self.ended.append(ticket)
        if len(self.ended) > self.most_ended:  # those whose rows were taken need not be kept for `results`
            self.ended = [each for each in self.ended if not each._taken]
            self.most_ended = max(_TAKE, 2 * len(self.ended))

    def add(self, source: int, ticket: Ticket) -> None:
        with self.changed:
            if self.outcome is not None:
                ticket._future.set_exception(self.fault or StoppedError("the session has ended"))
                return
            key = (source, ticket.index)
            self.open[key] = ticket
            if key in self.early:
                self._end(key, self.early.pop(key))
                self.changed.notify_all()


class Session:
    """A run that goes on until it is closed: rows are submitted while it runs, and come back as they end. Models are loaded
    once.

    ``workflows``: one path, or several, which share models and calls. Options are those of `run`.

    >>> import halo
    >>> with halo.Session("review.yaml") as session:
    ...     urgent = session.submit({"prompt": "The kettle leaks."}, priority=5)
    ...     sorted(urgent.result())
    ['reply']
    """

    def __init__(
        self,
        workflows: Union[PathLike, Sequence[PathLike]],
        *,
        functions: Optional[Mapping[str, Function]] = None,
        **options: Any,
    ) -> None:
        several = isinstance(workflows, Sequence) and not isinstance(workflows, str)
        paths: List[Any] = list(workflows) if several else [workflows]  # type: ignore[arg-type]
        self._workflows = [_options.absolute("workflow", path) for path in paths]
        self._submitted = 0
        self._sources = [_core.Rows(any_time=True) for _ in self._workflows]
        given = []
        for source in self._sources:
            each = _rows.Given([])
            each.stream = source
            given.append(each)
        core = _begin(self._workflows, given, functions, {"order": "completion", "stop_when_all_fail": False, **options})
        self._tickets = _Tickets(core)
        self._thread = threading.Thread(target=self._tickets.collect, name="halo-session", daemon=True)
        _collectors.add(self._thread)
        self._thread.start()
        self._finalizer = weakref.finalize(self, _give_up, core, self._sources)

    def submit(
        self,
        workflow: Any,
        row: Optional[Mapping[str, Any]] = None,
        *,
        priority: int = 0,
        timeout: Optional[float] = None,
    ) -> Ticket:
        """Adds a row: ``submit(workflow, row)``, or ``submit(row)`` where the session has one workflow. Rows of higher
        priority go first; a row that takes longer than ``timeout`` seconds fails (None: no limit). Waits where 65,536 rows
        have not begun."""
        if row is None:
            if len(self._workflows) > 1:
                raise UsageError("submit: say for which workflow, as in submit(workflow, row)")
            number, row = 0, workflow
        else:
            path = _options.absolute("workflow", workflow)
            if path not in self._workflows:
                raise UsageError(f"submit: the session has no workflow {workflow!r}: name it when the session is made")
            number = self._workflows.index(path)
        source = self._sources[number]
        self._submitted += 1
        while not source.wait_below(_MOST_WAITING, _WAIT_S):
            if self._tickets.outcome is not None:
                break  # nobody takes them any more
        ticket = Ticket(source, _rows.add(source, row, self._submitted, priority, 0.0 if timeout is None else timeout))
        self._tickets.add(number, ticket)
        return ticket

    def results(self) -> Iterator[Ticket]:
        """Tickets as their rows end, each once, until none is open. Those whose rows were taken before are left out."""
        tickets = self._tickets
        while True:
            _require_own_process()
            with tickets.changed:
                while not tickets.ended and tickets.open and tickets.outcome is None:
                    tickets.changed.wait(_WAIT_S)
                if not tickets.ended:
                    return
                ended, tickets.ended = tickets.ended, []
            yield from (ticket for ticket in ended if not ticket._taken)

    def progress(self) -> Dict[str, Any]:
        """Where the run stands; empty before it has begun."""
        return dict(json.loads(self._tickets.core.progress() or "{}"))

    @property
    def outcome(self) -> Dict[str, Any]:
        """As `Results.outcome`, once the session has ended; empty before."""
        return self._tickets.outcome or {}

    def close(self) -> None:
        """No more rows come; returns when all have ended. Raises what ended the run early."""
        for source in self._sources:
            source.close()
        try:
            while self._thread.is_alive():
                self._thread.join(_WAIT_S)
        except KeyboardInterrupt:
            self.stop()
            raise
        self._finalizer.detach()
        if self._tickets.fault is not None:
            raise self._tickets.fault

    def stop(self, give_up: bool = False) -> None:
        """Nothing new is begun; ``give_up``: what runs is ended, too. Tickets without a result raise `StoppedError`."""
        self._tickets.core.stop(2 if give_up else 1)

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if kind is None:
            self.close()
            return
        self.stop(give_up=True)
        for source in self._sources:
            source.close()
        self._thread.join()


def _give_up(core: _core.Run, sources: List[_core.Rows]) -> None:
    """Nobody has the session any more."""
    try:
        core.stop(2)
        for source in sources:
            source.close()
    except HaloError:  # a copy of the process
        pass


def simulate(workflow: PathLike, rows: Any = None, *, progress: Optional[bool] = None, **options: Any) -> Any:
    """As `run`, on simulated workers in virtual time: answers are made up, nothing is loaded or asked (docs/simulation.md).

    The report is the ``outcome`` of the results. ``costs_as``, ``repeat_to_rows``, ``workers`` and ``profile`` are those of
    ``halo simulate --as``, ``--rows``, ``--workers`` and ``--profile``.

    >>> import halo
    >>> results = halo.simulate("review.yaml", [{"prompt": "The kettle leaks."}], workers=4)
    >>> len(results), results.outcome["rows"]["ok"]
    (1, 1)
    """
    given = _rows.Given(rows)
    is_table = given.stream is not None and not isinstance(rows, Sequence) and not _is_plain(rows)
    core = _begin([workflow], [given], None, options, _core.simulate)
    return _collect(core, given, progress, is_table)
