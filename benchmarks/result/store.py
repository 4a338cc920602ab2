# SPDX-License-Identifier: Apache-2.0
"""Results as files: one folder for each board, one file for each configuration, raw samples beside it.

``results/<board key>/<first 12 of the artefact's SHA-256>-<configuration>.json``: the same configuration of the same
bytes on the same board is the same file, so that git shows what changed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks.plan import BenchPlan
from benchmarks.record import Measurement
from benchmarks.result import codec
from benchmarks.result.raw import pack
from benchmarks.result.schema import SCHEMA, STATUS, Raw, Result
from edge_contract import canonical
from edge_contract.errors import ContractError, MeasurementError

__all__ = [
    "SMALL",
    "file_name",
    "from_json",
    "load",
    "load_all",
    "pretty",
    "same_bytes",
    "samples_of",
    "save",
    "to_json",
]

SMALL: Final = 256 * 1024
"""Raw files above this many bytes end in ``.large.bin``, which benchmarks/results/.gitignore leaves out of git."""
WIDTH: Final = 110
PROFILE: Final = "strop.ops/1"


def to_json(result: Result) -> dict[str, Any]:
    """Return a result as a JSON object, keys in the order of the schema."""
    document: dict[str, Any] = codec.write(result)
    return document


def from_json(document: Any, where: str = "result") -> Result:
    """Read a result.

    Raises:
        ContractError: Another schema, or a key that is missing or of another type; names file and key.
    """
    if not isinstance(document, Mapping):
        raise ContractError(f"expected an object, found {type(document).__name__}", where=where)
    if document.get("schema") != SCHEMA:
        fix = f"read {SCHEMA} with this version"
        raise ContractError(f"schema {document.get('schema')!r} is not known", where=f"{where}: schema", fix=fix)
    found = codec.read(Result, document, where)
    if found.status not in STATUS:
        what = f"unknown value '{found.status}'"
        raise ContractError(what, where=f"{where}: status", fix=f"use one of {', '.join(STATUS)}")
    if found.quality is not None and found.quality.sha256 != found.artifact.sha256:
        what = f"of artefact {found.quality.sha256[:12]}, the result is of {found.artifact.sha256[:12]}"
        raise ContractError(what, where=f"{where}: quality.sha256", fix="measure the quality of the timed bytes")
    return found


def file_name(result: Result) -> str:
    """Return the name of a result's file inside its board's folder."""
    plan = BenchPlan.from_json({**result.record.plan}, "record.plan")
    return f"{result.artifact.sha256[:12]}-{plan.configuration}.json"


def save(result: Result, measurement: Measurement | None, folder: Path, *, name: str = "") -> Path:
    """Write a result and its raw samples and return the path of the result; an older one is replaced whole.

    Args:
        result: What ``build`` made of the measurement.
        measurement: Gives the raw samples; None: of an emulator there are none.
        folder: Of all results; the board's folder is made in it, unless ``name`` is given.
        name: The very file in the folder, such as ``result.json``.

    Raises:
        MeasurementError: The folder cannot be written.
    """
    path = folder / name if name else folder / result.device.key / file_name(result)
    data, columns = (b"", ()) if measurement is None else pack(measurement)
    raw = None
    if columns and result.raw is not None:
        end = ".large.bin" if len(data) > SMALL else ".bin"
        beside = "samples.bin" if name == "result.json" else path.stem + end
        raw = Raw(beside, hashlib.sha256(data).hexdigest(), columns)
    written = replace(result, raw=raw)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if raw is not None:
            _replace(path.parent / raw.file, data)
        _replace(path, (pretty(to_json(written)) + "\n").encode())
    except OSError as error:
        raise MeasurementError(f"cannot be written ({error.strerror})", where=str(path)) from error
    return path


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


def load(path: Path) -> Result:
    """Read a result's file.

    Raises:
        ContractError: Not JSON, another schema, or a key that is missing or of another type.
        MeasurementError: It cannot be read.
    """
    return from_json(_document(path), path.name)


def _document(path: Path) -> Any:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MeasurementError(f"cannot be read ({error.strerror})", where=str(path)) from error
    return canonical.loads(data, where=path.name)


def load_all(paths: Sequence[Path]) -> tuple[list[tuple[Path, Result]], list[dict[str, Any]]]:
    """Read results and operator profiles (``strop.ops/1``); other JSON files of a folder are passed over.

    Args:
        paths: Files, and folders whose files are read in the order of their names.

    Raises:
        ContractError: A file is neither, or a result with a key that is missing or of another type.
        MeasurementError: A file cannot be read.
    """
    results, profiles = list[tuple[Path, Result]](), list[dict[str, Any]]()
    for path in paths:
        for file in sorted(path.rglob("*.json")) if path.is_dir() else [path]:
            document = _document(file)
            schema = document.get("schema") if isinstance(document, Mapping) else None
            if schema == PROFILE:
                profiles.append(dict(document))
            elif schema == SCHEMA or not path.is_dir():
                results.append((file, from_json(document, file.name)))
    return results, profiles


def samples_of(path: Path, result: Result) -> bytes | None:
    """Return the raw samples beside a result's file; None where they are not kept here.

    Raises:
        ContractError: The file's name leaves the folder.
    """
    if result.raw is None:
        return None
    if Path(result.raw.file).name != result.raw.file:
        raise ContractError(f"{result.raw.file!r} leaves the folder", where=f"{path.name}: raw.file")
    beside = path.parent / result.raw.file
    return beside.read_bytes() if beside.is_file() else None


def same_bytes(*results: Result) -> None:
    """Refuse results of different model files.

    Raises:
        MeasurementError: Two artefacts differ; names both.
    """
    for other in results[1:]:
        a, b = results[0].artifact, other.artifact
        if a.sha256 != b.sha256:
            what = f"different artefacts: {_called(a.name, a.sha256)} and {_called(b.name, b.sha256)}"
            fix = "time both and look at their accuracy too: strop bench compare A B"
            raise MeasurementError(what, where="compare results", fix=fix)


def _called(name: str, sha256: str) -> str:
    return f"{name} {sha256[:12]}".strip()


def pretty(value: Any, indent: int = 0) -> str:
    """Return JSON whose short lists and objects stand on one line each: a change is a few lines of a diff.

    Example:
        >>> print(pretty({"a": [1, 2], "b": {}}))
        {"a": [1, 2], "b": {}}
    """
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or len(flat) + indent <= WIDTH:
        return flat
    inner = " " * (indent + 1)
    if isinstance(value, dict):
        lines = [
            f"{inner}{json.dumps(key, ensure_ascii=False)}: {pretty(one, indent + 1)}" for key, one in value.items()
        ]
        return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(inner + pretty(one, indent + 1) for one in value) + "\n" + " " * indent + "]"
