"""Rows of all kinds into streams of the core, and results into the like kind."""

from __future__ import annotations

import datetime
import decimal
import itertools
import json
import json.encoder
import math
import sys
import uuid
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

from . import _core
from .errors import RowsError, UsageError

Row = Dict[str, Any]

_AT_ONCE = 1024
"""Rows that are given to the core together."""


def _plain(value: Any) -> Any:
    """What JSON has no word for, as the core shows such values of Parquet files: dates, times and durations as ISO texts,
    decimals with all their digits; numbers and lists of numpy."""
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas: nothing is there
        return None
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return _iso(value.astimezone(datetime.timezone.utc).replace(tzinfo=None).isoformat()) + "Z"
    if isinstance(value, datetime.time) and value.tzinfo is not None:
        return value.isoformat()
    if isinstance(value, (datetime.date, datetime.time)):
        return _iso(value.isoformat())
    if isinstance(value, datetime.timedelta):
        return _duration(value)
    if isinstance(value, decimal.Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, (set, frozenset)):
        # In an order that is the same in every process.
        return sorted(value, key=lambda each: (type(each).__name__, each if isinstance(each, (int, float)) else 0, str(each)))
    if isinstance(value, uuid.UUID):
        return str(value)
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return _of_numpy(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a row cannot hold a value of the type {type(value).__name__}")


def _iso(text: str) -> str:
    """Without the zeros at the end of a fraction, and without zone."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def _duration(value: datetime.timedelta) -> str:
    """ISO 8601.

    >>> _duration(datetime.timedelta(days=1, hours=2, milliseconds=500))
    'P1DT2H0.5S'
    """
    micros = value // datetime.timedelta(microseconds=1)
    sign, micros = ("-", -micros) if micros < 0 else ("", micros)
    days, micros = divmod(micros, 86_400_000_000)
    hours, micros = divmod(micros, 3_600_000_000)
    minutes, micros = divmod(micros, 60_000_000)
    seconds = _iso(f"{micros // 1_000_000}.{micros % 1_000_000:06}")
    date = f"{sign}{days}D" if days else ""
    parts = ((str(hours), "H"), (str(minutes), "M"), (seconds, "S"))
    time = "".join(f"{sign}{amount}{unit}" for amount, unit in parts if amount != "0")
    return "P" + date + ("T" + time if time else "" if date else "T0S")


def _of_numpy(value: Any) -> Any:
    """Scalars and arrays. Their own `tolist` gives numbers for times of nanoseconds."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind == "M":
        return _each(lambda text: None if text == "NaT" else _iso(text), value.astype(str).tolist())
    if kind == "m":
        return value.astype("timedelta64[us]").tolist()
    return _finite(value.tolist())


def _each(make: Callable[[Any], Any], value: Any) -> Any:
    return [_each(make, each) for each in value] if isinstance(value, list) else make(value)


def _finite(value: Any) -> Any:
    """NaN is how tables say that nothing is there; JSON has no other numbers than finite ones."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return value


def _encoder() -> Callable[[Any], str]:
    """As `json.dumps`, which makes an encoder for each call; that takes as long as a short row does."""
    parts: Any = json.encoder
    make = getattr(parts, "c_make_encoder", None)
    if make is None:  # another Python than CPython
        return json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, default=_plain).encode
    chunks = make(None, _plain, parts.encode_basestring, None, ":", ",", False, False, False)
    return lambda row: "".join(chunks(row, 0))


_encode = _encoder()


def json_of(value: Any) -> str:
    """A value as JSON. Raises TypeError, ValueError or RecursionError where there is no JSON for it.

    >>> json_of({"day": datetime.date(2026, 1, 31), "gone": float("nan")})
    '{"day":"2026-01-31","gone":null}'
    """
    try:
        return _encode(value)
    except ValueError:  # a number that is not finite
        return _encode(_finite(value))


def encode(row: Mapping[str, Any], number: int) -> str:
    """A row as JSON. ``number`` (from 1) is for messages."""
    if not isinstance(row, Mapping):
        raise RowsError(f'row {number}: expected a dict such as {{"prompt": ...}}, got a {type(row).__name__}')
    try:
        return json_of(row if isinstance(row, dict) else dict(row))
    except (TypeError, ValueError, RecursionError) as error:
        raise RowsError(f"row {number}: {_column_at_fault(row)}{error}") from None


def _column_at_fault(row: Mapping[str, Any]) -> str:
    for name, value in row.items():
        try:
            json_of(value)
        except (TypeError, ValueError, RecursionError):
            return f"column {str(name)!r}: "
    return ""  # it is a name


def add(stream: _core.Rows, row: Mapping[str, Any], number: int, priority: int = 0, timeout: float = 0.0) -> int:
    """Adds a row, the ``number``th (from 1, for messages), to a stream; returns its index."""
    text = encode(row, number)
    try:
        return stream.add(text, priority, timeout)
    except UnicodeEncodeError as error:
        raise RowsError(f"row {number}: {error}") from None
    except TypeError:
        raise UsageError(
            f"row {number}: expected a whole number of 32 bits as priority and seconds as timeout, got {priority!r} and "
            f"{timeout!r}"
        ) from None


def add_all(stream: _core.Rows, rows: Iterable[Mapping[str, Any]]) -> None:
    """As `add`, for all of them."""
    numbered = enumerate(rows, 1)
    while chunk := list(itertools.islice(numbered, _AT_ONCE)):
        texts = [encode(row, number) for number, row in chunk]
        try:
            stream.add_all(texts)
        except UnicodeEncodeError as error:
            number = next(number for (number, _), text in zip(chunk, texts) if not is_unicode(text))
            raise RowsError(f"row {number}: {error}") from None


def is_unicode(text: str) -> bool:
    """False for halves of surrogate pairs, which UTF-8 has no bytes for."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _columns_of(results: Sequence[Optional[Row]], outputs: Sequence[str]) -> List[Tuple[str, List[Any]]]:
    """Results as columns, the same as in the files that `halo run` writes."""

    def of_error(key: str) -> List[Any]:
        return [(row.get("error") or {}).get(key) if row else None for row in results]

    def of_usage(key: str) -> List[Any]:
        return [row["usage"][key] if row else None for row in results]

    columns: List[Tuple[str, List[Any]]] = [("id", [row["id"] if row else None for row in results])]
    columns.append(("status", [row["status"] if row else "unfinished" for row in results]))
    for name in outputs:
        columns.append((name, [row["outputs"].get(name) if row else None for row in results]))
    columns += [(f"error_{key}", of_error(key)) for key in ("operator", "code", "message")]
    return columns + [(key, of_usage(key)) for key in ("prompt_tokens", "output_tokens")]


def _outputs_of(results: Sequence[Optional[Row]]) -> List[str]:
    names: Dict[str, None] = {}
    for row in results:
        if row:
            names.update(dict.fromkeys(row["outputs"]))
    return list(names)


def arrow_table(results: Sequence[Optional[Row]]) -> _core.ArrowTable:
    """Results as a table of the Arrow C data interface. Values that are no text are compact JSON; an id is a number if all
    ids are."""
    columns: List[Any] = []
    for name, values in _columns_of(results, _outputs_of(results)):
        if name.endswith("_tokens") or (name == "id" and all(type(v) is int for v in values)):
            columns.append((name, values))
            continue
        columns.append(
            (name, [v if v is None or isinstance(v, str) else json.dumps(v, separators=(",", ":")) for v in values])
        )
    return _core.ArrowTable(columns)


class Given:
    """Rows as somebody gave them, and how their results are given back."""

    def __init__(self, rows: Any) -> None:
        self.path: Optional[str] = None
        """A file of rows, or a query, that the core reads itself."""
        self.iterator: Optional[Iterator[Any]] = None
        """Rows that come one by one."""
        self.stream: Optional[_core.Rows] = None
        """All rows, closed."""
        self._results: Callable[[List[Optional[Row]]], Any] = _without_gaps
        self._take(rows)

    def _take(self, rows: Any) -> None:
        if rows is None:
            self.path = ""
        elif isinstance(rows, str) or hasattr(rows, "__fspath__"):
            self.path = str(rows)
        elif _is_pandas(rows):
            self._take_pandas(rows)
        elif hasattr(rows, "__arrow_c_stream__"):
            self._take_arrow(rows)
        elif isinstance(rows, Mapping):
            raise UsageError("rows: expected a list of rows, a table or an iterator, got one dict: put it into a list")
        elif isinstance(rows, Sequence):
            self._fill(rows)
        elif hasattr(rows, "__next__"):
            self.iterator = iter(rows)
        elif hasattr(rows, "__iter__"):
            self._fill(rows)
        else:
            raise UsageError(f"rows: expected a list of dicts, an iterator or a table, got a {type(rows).__name__}")

    def _fill(self, rows: Any) -> None:
        self.stream = _core.Rows(any_time=False)
        add_all(self.stream, rows)
        self.stream.close()

    def _take_pandas(self, frame: Any) -> None:
        names = [str(name) for name in frame.columns]
        if len(set(names)) < len(names):
            raise RowsError("the table has two columns of one name")
        self._fill(dict(zip(names, map(_cell, values))) for values in frame.itertuples(index=False, name=None))
        index = frame.index

        def like(results: List[Optional[Row]]) -> Any:
            columns = dict(_columns_of(results, _outputs_of(results)))
            return type(frame)(columns, index=index[: len(results)])

        self._results = like

    def _take_arrow(self, table: Any) -> None:
        self.stream = _core.Rows(any_time=False)
        self.stream.add_arrow(table.__arrow_c_stream__())
        self.stream.close()
        module = type(table).__module__.partition(".")[0]

        def like(results: List[Optional[Row]]) -> Any:
            made = arrow_table(results)
            # Whoever gave a table of theirs has the library loaded.
            library: Any = sys.modules.get(module)
            if module == "polars":
                return library.DataFrame(made)
            if module == "pyarrow":
                return library.table(made)
            return made

        self._results = like

    def results(self, rows: List[Optional[Row]]) -> Any:
        """Results in the kind of the rows. A row without one (the run ended before it) is None."""
        return self._results(rows)


def _without_gaps(rows: List[Optional[Row]]) -> List[Row]:
    return [row for row in rows if row is not None]


def _is_pandas(rows: Any) -> bool:
    return type(rows).__module__.partition(".")[0] == "pandas" and hasattr(rows, "itertuples")


def _cell(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
