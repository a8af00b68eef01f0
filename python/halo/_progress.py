"""What a person sees while a run goes on: a line on a terminal, a bar in a notebook, nothing elsewhere."""

from __future__ import annotations

import html
import json
import sys
import time
from typing import Any, Optional

from . import _core

_EVERY_S = 0.25


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def _duration(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02}"


def describe(progress: Any) -> str:
    """One line.

    >>> describe({"rows_total": 10, "rows_ok": 3, "rows_failed": 1, "calls_done": 9, "output_tokens": 80,
    ...           "elapsed_s": 61, "left_s": 90})
    '4 of 10 rows, 1 failed, 9 calls, 80 tokens, 1:01, about 1:30 left'
    """
    done = progress["rows_ok"] + progress["rows_failed"]
    total = f" of {progress['rows_total']}" if progress["rows_total"] >= 0 else ""
    parts = [f"{done}{total} rows"]
    if progress["rows_failed"]:
        parts.append(f"{progress['rows_failed']} failed")
    parts += [f"{progress['calls_done']} calls", f"{progress['output_tokens']} tokens", _duration(progress["elapsed_s"])]
    if progress["left_s"] >= 0:
        parts.append(f"about {_duration(progress['left_s'])} left")
    return ", ".join(parts)


class Display:
    """Shows the progress of a run. ``wanted``: None for a terminal or a notebook only."""

    def __init__(self, wanted: Optional[bool]) -> None:
        self._notebook: Any = None
        self._in_notebook = wanted is not False and _in_notebook()
        self._on_terminal = wanted is True or (wanted is None and sys.stderr is not None and sys.stderr.isatty())
        self._next = 0.0
        self._width = 0
        self._news = 0

    def show(self, run: _core.Run) -> None:
        """Called often; shows something four times a second."""
        if not (self._in_notebook or self._on_terminal) or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY_S
        text = run.progress()
        if not text:
            return
        progress = json.loads(text)
        if self._in_notebook:
            self._show_bar(progress)
        else:
            for news in progress["news"][self._news :]:
                self._write(news + "\n")
            self._news = len(progress["news"])
            self._write(describe(progress))

    def say(self, text: str) -> None:
        """A message between."""
        if self._on_terminal or self._in_notebook:
            self._write(text + "\n")

    def close(self, run: _core.Run) -> None:
        """The last line stays."""
        self._next = 0.0
        self.show(run)
        if self._width:
            sys.stderr.write("\n")
            self._width = 0

    def _write(self, text: str) -> None:
        line = "\r" + text.rstrip("\n").ljust(self._width)
        self._width = 0 if text.endswith("\n") else len(text)
        sys.stderr.write(line + ("\n" if text.endswith("\n") else ""))
        sys.stderr.flush()

    def _show_bar(self, progress: Any) -> None:
        display: Any = sys.modules["IPython"].display
        total = progress["rows_total"]
        done = progress["rows_ok"] + progress["rows_failed"]
        value = f' value="{done}" max="{max(1, total)}"' if total >= 0 else ""
        bar = display.HTML(f"<progress{value}></progress> {html.escape(describe(progress))}")
        if self._notebook is None:
            self._notebook = display.display(bar, display_id=True)
        else:
            self._notebook.update(bar)
