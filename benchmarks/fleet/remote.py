# SPDX-License-Identifier: Apache-2.0
"""Measure on boards of a fleet: name or upload a model, start a benchmark, wait for each board, keep the results.

One board that fails, refuses or never answers is named; the others' results are kept. Ctrl-C withdraws the benchmark.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from benchmarks.result import Result, from_json, to_json
from benchmarks.result.store import file_name, pretty
from benchmarks.result.table import HEAD, aligned, row
from edge_contract import canonical
from edge_contract.bench_job import RESULT, SUFFIXES
from edge_contract.errors import ContractError, MeasurementError, StropError, UsageError
from edge_contract.manifest import MANIFEST_NAME, Manifest
from edge_contract.topics import is_name
from fleet.client import FleetClient, connect

__all__ = ["Asked", "Part", "ask", "client_for", "model_words", "run_on", "table", "uploaded", "withdrawn"]

LOOK_S: Final = 1.0
TRIES: Final = 30
"""So many looks in a row may find no server before waiting ends; the benchmark itself goes on."""
_HERE: Final = ("artefact", "sha256", "format", "bundle", "bundle_digest", "data", "label", "target")
_OF_THE_DEVICE: Final = ("runtime", "delegate")
_MOST_FILE: Final = 500_000_000
Tell = Callable[[str], object]


@dataclass(frozen=True)
class Asked:
    """What a benchmark on a fleet is to be.

    Attributes:
        query: Which devices.
        model: As the server's request names it: ``model_words``, or ``{"files": [...]}``.
        plan: Fields of ``BenchPlan``, without what each device fills in.
        hours: What has not begun after so many hours is not begun.
        max_seconds, max_bytes: Bounds for each device.
    """

    query: str
    model: Mapping[str, Any]
    plan: Mapping[str, Any] = field(default_factory=dict)
    hours: float = 2.0
    max_seconds: float = 1800.0
    max_bytes: int = 200_000_000

    def to_json(self) -> dict[str, Any]:
        """Return the request."""
        return {**vars(self), "model": dict(self.model), "plan": dict(self.plan)}


@dataclass(frozen=True)
class Part:
    """What one device gave.

    Attributes:
        device: Its name.
        state: ``done``, ``failed``, ``refused``, ``cancelled`` or ``expired``.
        why: In words, where there is something to say.
        summary: Median and its interval in milliseconds, board, status, reasons; empty without a result.
        files: Names of the files that came.
    """

    device: str
    state: str
    why: str
    summary: Mapping[str, Any]
    files: tuple[str, ...]

    @classmethod
    def of(cls, job: Mapping[str, Any]) -> "Part":
        """Return the part that the server's answer tells."""
        return cls(job["device"], job["state"], job["why"], job["facts"].get("summary", {}), tuple(job["files"]))


def client_for(data: Path | None, server: str, token_file: Path | None) -> FleetClient:
    """Return a client of the fleet's server; raises UsageError when none is named, StoreError when none runs."""
    return connect(data, server, token_file)


def model_words(text: str) -> dict[str, Any]:
    """Return how a request names a registered model: ``NAME``, ``NAME:VERSION`` or a bundle's id.

    Example:
        >>> model_words("digits:1.2.0")
        {'name': 'digits', 'version': '1.2.0'}
    """
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return {"bundle": text}
    name, _, version = text.partition(":")
    return {"name": name, "version": version}


def uploaded(client: FleetClient, path: Path, name: str = "") -> dict[str, Any]:
    """Upload a plain file if the server lacks it; return it as a request names it.

    Raises:
        UsageError: It cannot be read, is too large, or its name cannot travel.
        StropError: The server refuses.
    """
    name = name or path.name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not is_name(name) or not 0 < len(content) <= _MOST_FILE:
        fix = "use letters, digits, '.', '_' and '-', and at most 500 MB"
        raise UsageError(f"'{name}' with {len(content)} bytes cannot be sent", where=str(path), fix=fix)
    sha256 = hashlib.sha256(content).hexdigest()
    client.call("PUT", f"/blobs/{sha256}", content=content)
    return {"name": name, "sha256": sha256, "size": len(content)}


def ask(client: FleetClient, asked: Asked, tell: Tell = lambda line: None) -> tuple[str, list[Part]]:
    """Start a benchmark and wait until every part has ended; return its id and the parts.

    Raises:
        UsageError, RegistryError: The server refuses the request.
        MeasurementError: The server does not answer any more; the benchmark goes on without us.
        KeyboardInterrupt: Withdrawn.
    """
    begun = client.call("POST", "/benchmarks", asked.to_json())
    run = str(begun["id"])
    tell(f"benchmark {run} on {', '.join(job['device'] for job in begun['jobs'])}")
    try:
        return run, list(_watched(client, run, tell))
    except KeyboardInterrupt:
        withdrawn(client, run)
        raise


def withdrawn(client: FleetClient, run: str) -> None:
    """Withdraw a benchmark."""
    client.call("POST", f"/benchmarks/{run}/cancel")


def _watched(client: FleetClient, run: str, tell: Tell) -> Iterator[Part]:
    told: dict[str, str] = {}
    silent = 0
    while True:
        try:
            found = client.call("GET", f"/benchmarks/{run}")
            silent = 0
        except StropError as error:
            silent += 1
            if silent >= TRIES:
                fix = f"strop fleet bench show {run}"
                raise MeasurementError(f"the server is away: {error}", where=f"benchmark {run}", fix=fix) from error
            time.sleep(LOOK_S)
            continue
        for job in found["jobs"]:
            words = f"{job['device']}: {job['state']}{': ' + job['why'] if job['why'] else ''}"
            if told.get(job["device"]) != words:
                told[job["device"]] = words
                tell(words)
        if not found["is_open"]:
            yield from map(Part.of, found["jobs"])
            return
        time.sleep(LOOK_S)


def run_on(
    query: str,
    model: str,
    chosen: Mapping[str, Any],
    *,
    server: str = "",
    token_file: Path | None = None,
    data: Path | None = None,
    out: Path | None = None,
    tell: Tell = print,
    named: Tell = lambda line: print(line, file=sys.stderr),
    hours: float = 2.0,
) -> list[Result]:
    """Measure a model on the devices that fit a query and return their results.

    Args:
        query: Such as ``board:rpi5 and tag:lab``.
        model: A bundle's folder, a model file, or a registered ``NAME:VERSION``.
        chosen: Fields of ``BenchPlan`` as on the command line; None is left out.
        server, token_file, data: The fleet's server, as other commands name it.
        out: Folder of results, one folder for each board; None keeps nothing.
        tell: Hears one line for each step.
        named: Hears a line for each device that gave no result, and where each result lies.
        hours: What has not begun after so many hours is not begun.

    Raises:
        UsageError: Words that only a device can decide, or as ``ask``.
        MeasurementError: No device gave a result; names the first reason.
    """
    client, plan = client_for(data, server, token_file), _plan(chosen)
    samples = Path(chosen["data"]) if chosen.get("data") else None
    asked = Asked(query, _model(client, model, samples, plan), plan, hours=hours)
    run, parts = ask(client, asked, tell)
    results = [one for part in parts if (one := _result(client, run, part, tell)) is not None]
    if not results:
        what = f"no device gave a result: {parts[0].device}: {parts[0].state}: {parts[0].why}"
        raise MeasurementError(what, where=f"benchmark {run}", fix=f"strop fleet bench show {run}")
    if out is not None:
        _keep(client, run, results, out, named)
    for part in parts:
        if part.state != "done":
            named(f"{part.device} gave no result: {part.state}: {part.why}")
    return [result for _, result in results]


def _plan(chosen: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in chosen.items() if value not in (None, "")}
    if wrong := [name for name in _OF_THE_DEVICE if name in given]:
        fix = "leave it out: a device measures in the runtime of its own agent.toml"
        raise UsageError(f"--{wrong[0]} with --on", where="strop bench run", fix=fix)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in given.items() if name not in _HERE}


def _model(client: FleetClient, model: str, samples: Path | None, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the request names a model; what the server does not know as a bundle is uploaded."""
    path = Path(model)
    if not path.exists():
        return model_words(model)
    paths = [path]
    if path.is_dir():
        bundle = _bundle_id(path)
        if any(one["bundle"] == bundle for one in client.call("GET", "/models")) and samples is None:
            return {"bundle": bundle}
        if plan.get("mode") == "realistic":
            what = "it is not registered, and a bare file has no preprocessing"
            raise UsageError(what, where=model, fix="register it: strop fleet model add; or --mode bare")
        paths = _artefacts(path)
    files = [uploaded(client, one) for one in paths]
    return {"files": [*files, uploaded(client, samples)] if samples is not None else files}


def _bundle_id(folder: Path) -> str:
    try:
        return canonical.digest((folder / MANIFEST_NAME).read_bytes())
    except OSError as error:
        fix = "give a bundle's folder or a model file"
        raise UsageError(f"no readable {MANIFEST_NAME}", where=str(folder), fix=fix) from error


def _artefacts(folder: Path) -> list[Path]:
    """Return the first artefact of each kind of file."""
    manifest = Manifest.from_bytes((folder / MANIFEST_NAME).read_bytes())
    known = {suffix for suffixes in SUFFIXES.values() for suffix in suffixes}
    found: dict[str, Path] = {}
    for artefact in manifest.artefacts:
        path = folder / artefact.path
        if path.suffix in known:
            found.setdefault(path.suffix, path)
    return list(found.values())


def _result(client: FleetClient, run: str, part: Part, tell: Tell) -> tuple[Part, Result] | None:
    if part.state != "done":
        return None
    content = client.fetch(f"/benchmarks/{run}/results/{part.device}/{RESULT}")
    try:
        return part, from_json(json.loads(content), f"{part.device}: {RESULT}")
    except (ContractError, ValueError) as error:
        tell(f"{part.device}: its result cannot be read: {error}")
        return None


def _keep(client: FleetClient, run: str, found: list[tuple[Part, Result]], out: Path, tell: Tell) -> None:
    """Write each result into its board's folder; two boards of one kind get a folder each."""
    keys = [result.device.key for _, result in found]
    for part, result in found:
        key = result.device.key if keys.count(result.device.key) == 1 else f"{result.device.key}-{part.device}"
        path = out / key / file_name(result)
        path.parent.mkdir(parents=True, exist_ok=True)
        if result.raw is not None and result.raw.file in part.files:
            raw = client.fetch(f"/benchmarks/{run}/results/{part.device}/{result.raw.file}")
            if hashlib.sha256(raw).hexdigest() != result.raw.sha256:
                raise MeasurementError("the raw samples are others than the result says", where=part.device)
            name = f"{path.stem}.bin"
            (path.parent / name).write_bytes(raw)
            result = replace(result, raw=replace(result.raw, file=name))
        path.write_text(pretty(to_json(result)) + "\n", encoding="utf-8")
        tell(f"{part.device}: {path}")


def table(results: Sequence[Result]) -> str:
    """Return results as the table that every benchmark prints, a row for each board."""
    return aligned(HEAD, [row(one.device.board, one) for one in results])
