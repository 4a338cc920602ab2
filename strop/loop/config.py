# SPDX-License-Identifier: Apache-2.0
"""``loop.toml``: which server, which recipe for which model, how long to wait, and where a person is asked."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeVar

from edge_contract.errors import UsageError

__all__ = ["GATES", "Capture", "Limits", "LoopConfig", "ModelConfig", "Rollout", "read_config"]

T = TypeVar("T")

GATES: Final = ("capture", "train", "bundle", "canary", "rollout")
"""Steps before which a person can be asked."""
PLAN_KEYS: Final = frozenset(
    {
        *("soak_s", "timeout_s", "grace_s", "max_failures", "max_failed_share", "min_finished", "finished_share"),
        *("max_wave_failed_share", "min_wave_finished", "retries", "retry_wait_s", "cancel_s", "on_failure"),
        *("gate_timeout_s", "probation", "trial", "rate", "offline", "schedule", "gates", "needs_approval"),
    }
)
"""Words of a rollout's plan that ``[rollout]`` may have; ``trial`` is the plan's table ``shadow``."""

HEALING_KEYS: Final = ("share", "test", "epochs", "learning_rate")


@dataclass(frozen=True)
class Limits:
    """``[limits]``: what is enough, and how long each thing is waited for, in seconds.

    Attributes:
        minimum_inputs: Fewer captured inputs are refused.
        wanted_inputs: So many end the capture before its time.
        max_forgetting: Accuracy that the old test split may lose, a share.
        capture_s, ask_s, rollout_s, promotion_s, verify_s: Longest wait for inputs, a person's answer, the end of a
            rollout, the promotion rules, and the first windows of healed devices.
        server_s: A server that does not answer is asked again for so long.
        poll_s: Between two looks.
    """

    minimum_inputs: int = 200
    wanted_inputs: int = 500
    max_forgetting: float = 0.01
    capture_s: float = 86_400.0
    ask_s: float = 604_800.0
    rollout_s: float = 604_800.0
    promotion_s: float = 604_800.0
    verify_s: float = 7_200.0
    server_s: float = 3_600.0
    poll_s: float = 10.0


@dataclass(frozen=True)
class Capture:
    """``[capture]``: which inputs are asked for; see ``edge_contract.capture.CapturePolicy``.

    Attributes:
        per_device: Most samples of one device.
        max_mb: Most megabytes of one device.
        collect_s: Devices are asked so often to send what they hold.
    """

    random: float = 0.1
    low_confidence: float = 0.0
    drifted: bool = False
    per_device: int = 500
    max_mb: float = 100.0
    collect_s: float = 60.0


@dataclass(frozen=True)
class Rollout:
    """``[rollout]``: the waves, and words of a plan.

    Attributes:
        shadow: ``healthy`` (up to five devices of the cohort that see no drift), ``drifted``, a wave's words, or empty
            for none.
        canary: ``drifted`` (the first device of the signal), ``healthy``, or a wave's words.
        production: The waves of everybody else, in words.
        plan: Words of a rollout's plan, such as ``soak_s``, ``probation``, ``gates``.
    """

    shadow: str = "healthy"
    canary: str = "drifted"
    production: tuple[str, ...] = ("rest",)
    plan: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """``[model.NAME]``: how one model is trained again.

    Attributes:
        recipe: Folder of the compressed model that the bundle was made of. What the loop healed is found in its runs.
        teacher_weights: In place of those that the recipe names.
        healing: ``share``, ``test``, ``epochs``, ``learning_rate``, as ``strop.loop.derived.Healing``.
        targets: As ``strop export bundle --target``.
        runtime_python: As ``--runtime-python``.
        waive: Checks of the recipe that may fail, as ``--waive``.
    """

    recipe: Path
    teacher_weights: Path | None = None
    healing: Mapping[str, float] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    runtime_python: tuple[str, ...] = ()
    waive: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoopConfig:
    """The whole file; relative paths are taken from where it lies.

    Attributes:
        path: The file.
        server, data: The server's address, or its data folder on this machine.
        token_file: The operator's token, for an address.
        keys: Folder that signs bundles.
        runs: Folder of the recorded runs.
        ask: Steps before which a person is asked.
    """

    path: Path
    runs: Path
    keys: Path
    server: str = ""
    data: Path | None = None
    token_file: Path | None = None
    ask: tuple[str, ...] = ()
    limits: Limits = Limits()
    capture: Capture = Capture()
    rollout: Rollout = field(default_factory=Rollout)
    models: Mapping[str, ModelConfig] = field(default_factory=dict)

    def model(self, name: str) -> ModelConfig:
        """Return how a model is trained again; raises UsageError where the file does not say."""
        if name not in self.models:
            raise UsageError(f"no recipe for model '{name}'", where=str(self.path), fix=f"write [model.{name}]")
        return self.models[name]


def read_config(path: Path) -> LoopConfig:
    """Return a loop's configuration.

    Raises:
        UsageError: The file cannot be read, is no TOML, or a key or value is wrong; file and key are named.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path), fix="see docs/loop.md") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"no TOML: {error}", where=str(path)) from error
    return _Reader(path).whole(document)


class _Reader:
    """Reads tables of one file; each fault names file and key."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path.resolve().parent

    def whole(self, document: dict[str, Any]) -> LoopConfig:
        tables = {key: self._table(document.pop(key, {}), key) for key in ("limits", "capture", "rollout", "model")}
        known = ("server", "data", "token_file", "keys", "runs", "ask")
        self._known(document, known, "")
        ask = self._texts(document.get("ask", []), "ask")
        for name in ask:
            if name not in GATES:
                raise self._fault(f"unknown step '{name}'", "ask", f"use {', '.join(GATES)}")
        if bool(document.get("server")) == bool(document.get("data")):
            raise self._fault("which server?", "server", "give one of server (with token_file) and data")
        models = {
            name: self._model(self._table(table, f"model.{name}"), name) for name, table in tables["model"].items()
        }
        if not models:
            raise self._fault("no model", "model", "write [model.NAME] with its recipe")
        return LoopConfig(
            path=self.path,
            runs=self._path(document, "runs", "runs"),
            keys=self._path(document, "keys", "keys"),
            server=self._text(document, "server"),
            data=self._path(document, "data") if document.get("data") else None,
            token_file=self._path(document, "token_file") if document.get("token_file") else None,
            ask=ask,
            limits=self._numbers(Limits, tables["limits"], "limits"),
            capture=self._numbers(Capture, tables["capture"], "capture"),
            rollout=self._rollout(tables["rollout"]),
            models=models,
        )

    def _model(self, table: dict[str, Any], name: str) -> ModelConfig:
        where, lists = f"model.{name}", ("targets", "runtime_python", "waive")
        self._known(table, ("recipe", "teacher_weights", "healing", *lists), where)
        if not table.get("recipe"):
            raise self._fault("no recipe", where, 'write recipe = "FOLDER"')
        healing = self._table(table.get("healing", {}), f"{where}.healing")
        self._known(healing, HEALING_KEYS, f"{where}.healing")
        weights = self._path(table, "teacher_weights") if table.get("teacher_weights") else None
        read = [self._texts(table.get(key, []), f"{where}.{key}") for key in lists]
        return ModelConfig(self._path(table, "recipe"), weights, healing, *read)

    def _rollout(self, table: dict[str, Any]) -> Rollout:
        own = ("shadow", "canary", "production")
        self._known(table, (*own, *sorted(PLAN_KEYS)), "rollout")
        usual = Rollout()
        return Rollout(
            self._text(table, "shadow", usual.shadow),
            self._text(table, "canary", usual.canary),
            self._texts(table.get("production", list(usual.production)), "rollout.production"),
            {key: value for key, value in table.items() if key not in own},
        )

    def _numbers(self, kind: Callable[..., T], table: dict[str, Any], where: str) -> T:
        """Return a dataclass of numbers and flags, each of the type of its default and from 0 on."""
        usual: dict[str, Any] = {one.name: one.default for one in fields(kind)}  # type: ignore[arg-type]
        self._known(table, tuple(usual), where)
        for key, value in table.items():
            is_flag = isinstance(usual[key], bool)
            is_right = isinstance(value, bool) if is_flag else isinstance(value, (int, float)) and value >= 0
            if not is_right or (isinstance(value, bool) and not is_flag):
                wanted = "true or false" if is_flag else "a number from 0 on"
                raise self._fault(f"{value!r:.40} is not {wanted}", f"{where}.{key}")
            if isinstance(usual[key], int) and not isinstance(value, int):
                raise self._fault(f"{value!r:.40} is not a whole number", f"{where}.{key}")
        return kind(**{key: type(usual[key])(value) for key, value in table.items()})

    def _table(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._fault("expected a table", where, f"write [{where}]")
        return value

    def _known(self, table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
        if unknown := sorted(set(table) - set(keys)):
            raise self._fault(f"unknown key '{unknown[0]}'", where, f"use {', '.join(keys)}")

    def _text(self, table: Mapping[str, Any], key: str, default: str = "") -> str:
        value = table.get(key, default)
        if not isinstance(value, str):
            raise self._fault(f"{value!r:.40} is not a text", key)
        return value

    def _texts(self, value: Any, where: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self._fault("expected a list of texts", where)
        return tuple(value)

    def _path(self, table: Mapping[str, Any], key: str, default: str = "") -> Path:
        return self.folder / Path(self._text(table, key, default)).expanduser()

    def _fault(self, what: str, where: str, fix: str = "") -> UsageError:
        return UsageError(what, where=f"{self.path}{f': {where}' if where else ''}", fix=fix)
