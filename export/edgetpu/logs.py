# SPDX-License-Identifier: Apache-2.0
"""Compiler logs from public threads as fixtures, and whether the rules answer each of their lines alike.

A log gives counts, not the file. A line is asked of the rules as the plainest operator of its kind that the line
allows: 4-dimensional int8 tensors of batch 1, the version that the log names. A line that speaks of place ("more than
one subgraph") or of a size that the log hides says nothing about a rule, and is counted as such.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import DataError
from edge_contract.fields import Fields
from edge_contract.targets import Target
from export.edgetpu.loader import file_faults
from export.edgetpu.status import (
    FLAT_OUTPUT,
    LIMITATION,
    MAPPED,
    NOT_SUPPORTED,
    ONE_SUBGRAPH,
    PRECISION,
    RANK,
    TYPE,
    VERSION,
)
from export.tflite.model import Operator, Subgraph, TFLiteModel

__all__ = ["AGREES", "DIFFERS", "RUNTIMES", "SILENT", "Row", "ThreadLog", "answer", "load"]

# The runtime number that each compiler writes for by default.
RUNTIMES: Final = {"2": 12, "14": 13, "15": 13, "16": 14}
# The TFLite release in each compiler: the newest that still lacks what its logs say it cannot load.
_LOADERS: Final = {"2": "2.1", "14": "2.3", "15": "2.4", "16": "2.5"}
AGREES, DIFFERS, SILENT = "agrees", "differs", "says nothing of a rule"


@dataclass(frozen=True)
class Row:
    """One line of the compiler's table; ``version`` is 0 where the thread does not give the operator's."""

    operator: str
    count: int
    status: str
    version: int


@dataclass(frozen=True)
class ThreadLog:
    """A quoted log.

    Attributes:
        name: The fixture's file name.
        thread: Where it was quoted, as ``owner/repository#number``.
        compiler: The compiler's version; its default runtime is the log's, unless ``runtime`` says otherwise.
        runtime: Number of the Edge TPU runtime that was aimed at.
        rows: Lines of its table; some threads quote a part.
        failure: Its words when it refused the whole file, with the operator and version they name.
        inferred: The thread tells what happened without quoting these very lines.
    """

    name: str
    thread: str
    compiler: str
    runtime: int
    rows: tuple[Row, ...]
    failure: str
    failed_operator: str
    failed_version: int
    inferred: bool


def load(path: Path) -> ThreadLog:
    """Read one fixture.

    Raises:
        DataError: Not TOML, or a key is missing or of the wrong type.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
    f = Fields(document, str(path), DataError)
    compiler = f.text("compiler")
    return ThreadLog(
        path.stem,
        f.text("thread"),
        compiler,
        f.integer("runtime", RUNTIMES.get(compiler.split(".")[0], 14)),
        tuple(_row(row, f"{path}.rows[{i}]") for i, row in enumerate(f.items("rows", []))),
        f.text("failure", ""),
        f.text("failed_operator", ""),
        f.integer("failed_version", 0),
        f.flag("inferred", False),
    )


def _row(document: Any, where: str) -> Row:
    f = Fields(document, where, DataError)
    return Row(f.text("operator"), f.integer("count", minimum=1), f.text("status"), f.integer("version", 0))


def answer(log: ThreadLog, target: Target) -> Iterator[tuple[str, str]]:
    """Yield (``agrees`` / ``differs`` / ``says nothing of a rule``, line) for each line and failure of a log."""
    for row in log.rows:
        yield _judge(row, log, target), f"{row.operator} {row.count}: {row.status}"
    if log.failed_operator:
        yield _judge_failure(log, target), log.failure


def _judge(row: Row, log: ThreadLog, target: Target) -> str:
    ours = _expected(row, log.runtime, target)
    if row.status in (ONE_SUBGRAPH, RANK):
        return SILENT
    if row.status in (LIMITATION, PRECISION, FLAT_OUTPUT):  # "otherwise supported": the operator must be one of ours
        return AGREES if ours in (MAPPED, LIMITATION) else DIFFERS
    if row.status == TYPE:
        return AGREES if ours == TYPE else SILENT
    return AGREES if ours == row.status else DIFFERS


def _expected(row: Row, runtime: int, target: Target) -> str:
    """What the tables say of the plainest operator of a kind."""
    accelerator = target.accelerator
    if row.operator in ("CUSTOM", "DEQUANTIZE") or accelerator is None:
        return TYPE
    if not accelerator.runs(row.operator, runtime):
        return NOT_SUPPORTED
    most = target.integers["tflite"].operators.get(row.operator, row.version)
    is_resize = row.operator.startswith("RESIZE_") and runtime < 14
    return VERSION if row.version > (2 if is_resize else most) else MAPPED


def _judge_failure(log: ThreadLog, target: Target) -> str:
    """Whether a file with the named operator is predicted to be refused by a compiler of that age, in those words."""
    kind, version = log.failed_operator, log.failed_version
    operator = Operator(0, kind, version, (), (), {}, is_custom=False)
    model = TFLiteModel(3, (Subgraph("", (), (operator,), (), ()),), {}, (), 0, "")
    if target.accelerator is None:
        return SILENT
    loader = replace(target.accelerator, loader=_LOADERS[log.compiler.split(".")[0]])
    faults = file_faults(model, loader)
    return AGREES if any(fault.split(":")[0] in log.failure or log.failure in fault for fault in faults) else DIFFERS
