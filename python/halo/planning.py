"""Plans, to read."""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, Optional

from . import _core, _options, _rows
from ._options import Function, PathLike


class Plan:
    """What a run would do, and what it would cost; made by `explain`. Notebooks show it as a page, ``print`` as text."""

    def __init__(self, text: str, page: str, data: Dict[str, Any], mermaid: str) -> None:
        self.text = text
        self.html = page
        """A whole page."""
        self.data = data
        """The plan as `halo run --plan` reads it."""
        self.mermaid = mermaid
        """A diagram."""

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<halo.Plan of {len(self.text.splitlines())} lines>"

    def _repr_html_(self) -> str:
        # In a frame of its own: a page's styles must not reach the notebook's.
        page = self.html.replace("&", "&amp;").replace('"', "&quot;")
        return f'<iframe srcdoc="{page}" sandbox="allow-scripts" style="width:100%;height:600px;border:0"></iframe>'


def explain(
    workflow: PathLike, rows: Any = None, *, functions: Optional[Mapping[str, Function]] = None, **options: Any
) -> Plan:
    """The plan of a run: calls after sharing, tokens, seconds, what runs when. Runs nothing.

    >>> import halo
    >>> plan = halo.explain("review.yaml", [{"prompt": "The kettle leaks."}])
    >>> "extract" in str(plan)
    True
    """
    given = _rows.Given(rows)
    made = _options.make([workflow], [given.path], options)
    text, page, data, mermaid = _core.explain(
        _options.text_of(made), [given.stream], _options.functions(functions), ["text", "html", "json", "mermaid"]
    )
    return Plan(text, page, json.loads(data), mermaid)
