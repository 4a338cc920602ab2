# SPDX-License-Identifier: Apache-2.0
"""``[models.NAME]`` of ``agent.toml``: each model with its own runner, runtime, source and limits.

Without such a table the words at the top of the file are the one lane's. With them they are what each table begins
with, and the first table (or the one that ``model`` names) is the device's first model.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from edge_agent import toml_words as words
from edge_agent.core.ladder import Rungs
from edge_agent.core.settings import Settings
from edge_agent.core.twin import LANE_WORDS, merge
from edge_agent.embedding import counters_path
from edge_contract.errors import UsageError
from edge_contract.manifest import RUNTIMES
from edge_contract.topics import is_name

__all__ = ["LANE_KEYS", "LaneConfig", "read"]

_RUN_KEYS: Final = ("runtime", "runner", "runner_python", "threads", "memory_mb")
LANE_KEYS: Final = (*_RUN_KEYS, "delegate", "cache", "invoke_timeout_s", "restarts", "re_enumerate")
_RUNNERS: Final = ("process", "embedded")
_USB: Final = re.compile(r"usb(:[0-9a-f]{4}:[0-9a-f]{4})?")


@dataclass(frozen=True)
class LaneConfig:
    """One model's part of the configuration.

    Attributes:
        key: Empty for the one lane of a device without ``[models.NAME]``, else the model's name.
        model: Name of the model; empty: the first order names it.
        runtime: One of ``RUNTIMES``.
        runner: ``process``: a child of the agent infers; ``embedded``: an application that opens the model by its name.
        runner_python: Interpreter of the runner; tflite-runtime needs one of its own.
        threads: Threads of the runtime.
        memory_mb: A runner that takes more is ended and started again, 0 for no limit.
        settings: In force until the server says otherwise.
        delegate: The Edge TPU's library, or an execution provider of onnxruntime.
        cache: So many answers are kept for inputs that come again.
        invoke_timeout_s: Longest time of one inference; None: the runner's own default, 0: any.
        restarts: So often a failing accelerator's runner is only started again; then it is re-enumerated as often.
        re_enumerate: How: the words of a command, or one word ``usb`` or ``usb:VENDOR:PRODUCT``; empty: not at all.
    """

    key: str = ""
    model: str = ""
    runtime: str = "litert"
    runner: str = "process"
    runner_python: str = sys.executable
    threads: int = 1
    memory_mb: int = 0
    settings: Settings = field(default_factory=Settings)
    delegate: str = ""
    cache: int = 0
    invoke_timeout_s: float | None = None
    restarts: int = Rungs.restarts
    re_enumerate: tuple[str, ...] = ()

    @property
    def rungs(self) -> Rungs | None:
        """How patient the reset ladder is; None where there is no accelerator, or its process is not ours."""
        if self.runtime != "edgetpu" or self.runner != "process":
            return None
        return Rungs(self.restarts, max(1, self.restarts) if self.re_enumerate else 0)

    def options(self, counters: Path, runtime: str = "") -> list[str]:
        """Return the options of the runner process; ``runtime`` stands in for the accelerator, without its delegate."""
        told = {
            "--runtime": runtime or self.runtime,
            "--counters": str(counters),
            "--threads": str(self.threads),
            "--delegate": "" if runtime else self.delegate,
            "--cache": str(self.cache or ""),
            "--invoke-timeout": "" if runtime or self.invoke_timeout_s is None else f"{self.invoke_timeout_s:g}",
        }
        return [word for option, value in told.items() if value for word in (option, value)]

    def counters(self, data: Path, model: str = "") -> Path:
        """Return where this lane's inferences are counted; ``model`` is its name if the configuration has none."""
        if self.runner == "embedded":
            return counters_path(data, self.model or model)
        return data / (f"counters-{self.key}.bin" if self.key else "counters.bin")

    def log(self, data: Path) -> Path:
        """Return the file of the runner's stderr."""
        return data / "logs" / (f"runner-{self.key}.log" if self.key else "runner.log")


def read(
    document: Mapping[str, Any], settings: Settings, sources: frozenset[str], path: Path
) -> tuple[LaneConfig, ...]:
    """Return the lanes, the first model's first.

    Raises:
        UsageError: A name, a key or a value that does not fit.
    """
    tables = words.table(document, "models", path)
    model = words.name(document, "model", "", path, may_be_empty=True)
    if not tables:
        return (_lane("", model, document, settings, path),)
    if model and model not in tables:
        raise UsageError(f"model = '{model}' has no table", where=str(path), fix=f"write [models.{model}]")
    order = sorted(tables, key=lambda name: name != model)  # stable: the others stay as they stand
    top = {key: document[key] for key in LANE_KEYS if key in document}
    known = [(name, {**top, **_checked(name, tables, path)}) for name in order]
    return tuple(
        _lane(name, name, table, _own(table, _start(settings, i), sources, f"{path} [models.{name}]"), path)
        for i, (name, table) in enumerate(known)
    )


def _start(settings: Settings, i: int) -> Settings:
    """``source`` of ``[settings]`` is the first model's alone: one camera feeds one model unless somebody says so."""
    return settings if i == 0 else replace(settings, source="")


def _checked(name: str, tables: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    if not is_name(name):
        raise UsageError(f"[models.{name}] is no name", where=str(path), fix="use letters, digits, '.', '_' and '-'")
    table = words.table(tables, name, path)
    words.known(table, (*LANE_KEYS, *LANE_WORDS), f"{path} [models.{name}]")
    return table


def _own(table: Mapping[str, Any], settings: Settings, sources: frozenset[str], where: str) -> Settings:
    found, ignored = merge(settings, {key: table[key] for key in LANE_WORDS if key in table}, sources)
    for key, reason in ignored.items():
        raise UsageError(f"{key}: {reason}", where=where)
    return found


def _lane(key: str, model: str, table: Mapping[str, Any], settings: Settings, path: Path) -> LaneConfig:
    runtime = _among(table, "runtime", RUNTIMES, "litert", path)
    runner = _among(table, "runner", _RUNNERS, "process", path)
    if runner == "embedded" and not model:
        raise UsageError("an embedded runner without a model", where=str(path), fix='write model = "NAME"')
    python = words.text(table, "runner_python", "", path) or sys.executable
    threads, memory = words.whole(table, "threads", 1, 1, path), words.whole(table, "memory_mb", 0, 0, path)
    return LaneConfig(
        *(key, model, runtime, runner, python, threads, memory, settings),
        delegate=words.text(table, "delegate", "", path),
        cache=words.whole(table, "cache", 0, 0, path),
        invoke_timeout_s=words.number(table, "invoke_timeout_s", None, path),
        restarts=words.whole(table, "restarts", LaneConfig.restarts, 0, path),
        re_enumerate=_re_enumerate(table, path),
    )


def _re_enumerate(table: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Return a command's words, or the one word that names a device on USB."""
    found = table.get("re_enumerate", [])
    if isinstance(found, str) and _USB.fullmatch(found):
        return (found,)
    if isinstance(found, list) and all(isinstance(word, str) and word for word in found):
        return tuple(found)
    fix = 'write "usb" for a Coral stick, "usb:VENDOR:PRODUCT", or a command as ["program", "word"]'
    raise UsageError(f"re_enumerate = {found!r:.60} is neither a device nor a command", where=str(path), fix=fix)


def _among(table: Mapping[str, Any], key: str, known: tuple[str, ...], default: str, path: Path) -> str:
    found = words.text(table, key, default, path)
    if found not in known:
        raise UsageError(f"{key} = {found!r} is unknown", where=str(path), fix=f"use one of {', '.join(known)}")
    return found
