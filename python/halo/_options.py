"""What a run is told: names of docs/python.md, and what the machine and the environment add, as the program `halo` does."""

from __future__ import annotations

import inspect
import json
import os
import pathlib
import traceback
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Union

from . import _core, _rows
from .errors import UsageError

Function = Callable[..., Any]
PathLike = Union[str, "os.PathLike[str]"]

# Where the compiled module is: the sources beside it may be links.
_HERE = pathlib.Path(str(_core.__file__)).parent
_PATHS = ("models_file", "models_folder", "profile", "history", "plan", "trace", "report", "dump_prompts", "run_dir")
_SIZES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _size(name: str, value: Any) -> int:
    """Bytes: a number, or "2G"."""
    if isinstance(value, int):
        return value
    text = str(value).upper().rstrip("B").rstrip("I")
    digits = text.rstrip("KMGT")
    try:
        return int(float(digits) * _SIZES[text[len(digits) :]])
    except (ValueError, KeyError):
        raise UsageError(f"{name}: expected bytes as a number, or a size such as '2G', got {value!r}") from None


def _failures(options: Dict[str, Any]) -> None:
    """``max_failures``: rows, or a share such as "5%"."""
    given = options.pop("max_failures", None)
    if isinstance(given, str) and given.endswith("%"):
        try:
            options["max_failures_share"] = float(given[:-1]) / 100
        except ValueError:
            raise UsageError(f"max_failures: expected rows, or a share such as '5%', got {given!r}") from None
    elif given is not None:
        options["max_failures"] = given


def _number_of(name: str, options: Dict[str, Any]) -> None:
    text = os.environ.get(f"HALO_{name.upper()}")
    if text == "auto" and name == "workers":
        options.setdefault(name, text)
    elif text and name not in options:
        try:
            options[name] = int(text)
        except ValueError:
            raise UsageError(f"HALO_{name.upper()}: expected a whole number, got {text!r}") from None


def _hub() -> str:
    if os.environ.get("HF_HUB_CACHE"):
        return os.environ["HF_HUB_CACHE"]
    if os.environ.get("HF_HOME"):
        return os.path.join(os.environ["HF_HOME"], "hub")
    return os.path.expanduser("~/.cache/huggingface/hub")


def _profiles() -> str:
    """Where `halo calibrate` keeps what it has measured: a file, or a folder of them, ending in "/"; "" without a home."""
    if os.environ.get("HALO_PROFILE"):
        return os.environ["HALO_PROFILE"]
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.expanduser("~/.local/state")
    if not os.path.isabs(state):
        return ""
    return os.path.join(state, "halo", "profiles", "")


def absolute(name: str, path: Any) -> str:
    """An absolute path; ``name`` is what it is given for."""
    if not isinstance(path, (str, os.PathLike)):
        raise UsageError(f"{name}: expected the path of a file or folder, got {path!r}")
    return str(os.path.abspath(os.fspath(path)))


def _by_name(name: str, given: Any, example: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise UsageError(f"{name}: expected a dict such as {example}, got {given!r}")
    return given


def _word(value: Any) -> Any:
    """For JSON: numbers of numpy and paths; anything else as the core's message shows it when it refuses it."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if hasattr(value, "item") else repr(value)


def text_of(made: Mapping[str, Any]) -> str:
    """Options as the core takes them."""
    try:
        return json.dumps(made, default=_word)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"options: {error}") from None


def _rows_of(path: str) -> str:
    return path if path in ("", "-") or path.startswith("sql:") else absolute("rows", path)


def program() -> str:
    """The program `halo` that came with the package: it hosts the engines, so that a crash of one ends no interpreter.

    >>> import os
    >>> os.access(program(), os.X_OK)
    True
    """
    return str(_HERE / "_halo" / "bin" / "halo")


def _from_environment(options: Dict[str, Any], simulated: bool) -> None:
    for name in ("threads", "workers", "sequences", "seed"):
        _number_of(name, options)
    options.setdefault("models_folder", os.environ.get("HALO_MODELS", ""))
    options.setdefault("hugging_face_cache", _hub())
    options["shipped_models"] = str(_HERE / "_halo" / "share" / "halo" / "models")
    own = _profiles()
    if simulated:
        if own.endswith(os.sep):
            own = os.path.join(own, _core.profile_name(os.cpu_count() or 1))
        own = own if os.path.exists(own) else ""
    elif options.setdefault("workers", "auto") == "auto":
        options["workers"] = 0
    if "profile" not in options and own:
        options["profile"] = own
    if "history" not in options and options.get("profile"):
        options["history"] = os.path.join(os.path.dirname(options["profile"]), "history.json")


def make(
    workflows: Sequence[PathLike], rows: Sequence[Optional[str]], given: Mapping[str, Any], simulated: bool = False
) -> Dict[str, Any]:
    """The options of a run as the core takes them."""
    options = {name: value for name, value in given.items() if value is not None}
    if "inputs" in options or "engine_program" in options:
        raise UsageError("inputs and engine_program are set by the package")
    options["inputs"] = [
        {"workflow": absolute("workflow", workflow), "rows": _rows_of(path or "")} for workflow, path in zip(workflows, rows)
    ]
    models = _by_name("models", options.get("models", {}), "{'name': 'file.gguf'}")
    options["models"] = {name: absolute(f"models['{name}']", file) for name, file in models.items()}
    _from_environment(options, simulated)
    for name in _PATHS:
        if options.get(name):
            folder = os.sep if str(options[name]).endswith(os.sep) else ""
            options[name] = absolute(name, options[name]) + folder
    for name in ("worker_memory", "kept_memory", "kept_disk"):
        if name in options:
            options[name] = _size(name, options[name])
    for name in ("allow", "rules_off"):
        if name in options:
            options[name] = [options[name]] if isinstance(options[name], str) else _words(name, options[name])
    _failures(options)
    return finish(options)


def _words(name: str, given: Any) -> List[str]:
    if not isinstance(given, Iterable) or not all(isinstance(word, str) for word in given):
        raise UsageError(f"{name}: expected words such as {{'one', 'other'}}, got {given!r}")
    return sorted(given)


def finish(options: Dict[str, Any]) -> Dict[str, Any]:
    """Where engines live: a child process each, unless ``engine_process="in"``."""
    where = options.pop("engine_process", os.environ.get("HALO_ENGINE_PROCESS", "child"))
    if where not in ("child", "in"):
        raise UsageError(f"engine_process: expected 'child' or 'in', got {where!r}")
    options["engine_program"] = program() if where == "child" else ""
    return options


class FunctionFailed(Exception):
    """What went wrong in a function, as the row that it fails says it."""


def _told(error: BaseException) -> str:
    """The exception and the line that raised it, without the folder, so that rows are the same wherever they are run."""
    said = "".join(traceback.format_exception_only(type(error), error)).strip()
    raised = error.__traceback__.tb_next if error.__traceback__ is not None else None  # the first is the adapter's
    if raised is None:
        return said
    while raised.tb_next is not None:
        raised = raised.tb_next
    return f"{said} ({os.path.basename(raised.tb_frame.f_code.co_filename)}:{raised.tb_lineno})"


def _takes_config(function: Function) -> bool:
    try:
        return "config" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # one of Python's own that does not say
        return False


def _adapter(function: Function) -> Callable[[str], str]:
    """A function of JSON texts that calls `function` with the inputs by name. What it raises is a FunctionFailed."""
    takes_config = _takes_config(function)

    def call(text: str) -> str:
        asked = json.loads(text)
        more = {"config": asked["config"]} if takes_config and "config" not in asked["inputs"] else {}
        try:
            value = function(**asked["inputs"], **more)
        except BaseException as error:  # nobody else sees it: an exit, too, ends this call alone
            said = _told(error)
        else:
            try:
                given = _rows.json_of(value)
                given.encode()  # halves of surrogate pairs have no bytes
                return given
            except (TypeError, ValueError, RecursionError) as error:
                said = f"TypeError: its value is no JSON: {error}"
        raise FunctionFailed(said.encode(errors="backslashreplace").decode())

    return call


def functions(given: Optional[Mapping[str, Function]]) -> Dict[str, Any]:
    """Functions of Python as the core calls them; ``function.at_once`` (see `halo.tool`) may run side by side."""
    made: Dict[str, Any] = {}
    for name, function in _by_name("functions", {} if given is None else given, "{'name': function}").items():
        if not callable(function):
            raise UsageError(f"functions: '{name}' is no function")
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):
            raise UsageError(
                f"functions: '{name}' is an async function: give one that waits for it, such as "
                f"lambda **inputs: asyncio.run({name}(**inputs))"
            )
        made[name] = (_adapter(function), int(getattr(function, "at_once", 1)))
    return made


def names() -> List[str]:
    """What `halo.run` and the others take by name, besides what they say themselves."""
    own = {"inputs", "engine_program", "resume", "retry_failed", "shipped_models", "max_failures_share"}
    return sorted(set(_core.option_names()) - own | {"engine_process"})
