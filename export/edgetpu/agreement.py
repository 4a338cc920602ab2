# SPDX-License-Identifier: Apache-2.0
"""How often the Edge TPU prediction is right: ``python -m export.edgetpu.agreement FOLDER…``.

A folder may hold three kinds of evidence, which are counted apart:

- ``*.toml``: lines of compiler logs quoted in public threads (``edgetpu_logs``);
- ``NAME.tflite`` with ``NAME_edgetpu.log``: a file and the compiler's own log of it;
- ``NAME.tflite`` with ``NAME_edgetpu.tflite``: a file before and after compilation; what is left in the second ran
  on the CPU.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_contract import targets
from edge_contract.errors import StropError, UsageError
from export.edgetpu import compiler, logs, preflight
from export.edgetpu.status import MAPPED
from export.tflite import reader
from export.tflite.model import TFLiteModel

__all__ = ["Evidence", "collect", "main"]

_COMPILED = "edgetpu-custom-op"


@dataclass(frozen=True)
class Evidence:
    """One comparison: what kind, of what, how many agree of how many, and what does not."""

    kind: str
    name: str
    agreeing: int
    counted: int
    differences: tuple[str, ...]


def collect(folder: Path) -> Iterator[Evidence]:
    """Yield every comparison that a folder allows.

    Raises:
        ModelError, DataError: A file is damaged.
    """
    for path in sorted(folder.glob("*.toml")):
        yield _quoted(path)
    for path in sorted(folder.glob("*.tflite")):
        log, compiled = path.with_name(f"{path.stem}_edgetpu.log"), path.with_name(f"{path.stem}_edgetpu.tflite")
        if log.exists():
            yield _logged(path, log.read_text("utf-8", errors="replace"))
        elif compiled.exists():
            yield _compiled(path, reader.read_file(compiled))


def _quoted(path: Path) -> Evidence:
    log = logs.load(path)
    answers = list(logs.answer(log, targets.load("coral-usb")))
    counted = [answer for answer, _ in answers if answer != logs.SILENT]
    wrong = tuple(line for answer, line in answers if answer == logs.DIFFERS)
    kind = "line inferred from a thread" if log.inferred else "log line"
    return Evidence(kind, f"{log.name} ({log.thread})", counted.count(logs.AGREES), len(counted), wrong)


def _logged(path: Path, text: str) -> Evidence:
    log = compiler.parse(text)
    runtime = logs.RUNTIMES.get(log.version.split(".")[0])
    report = preflight.check(reader.read_file(path), runtime=runtime)
    found = compiler.compare(report.histogram(), log.rows)
    return Evidence("logged operator", path.name, found.agreeing, found.operators, found.differences)


def _compiled(path: Path, after: TFLiteModel) -> Evidence:
    """A compiled file keeps the operators that run on the CPU; the rest is one custom operator.

    Operators whose results nobody reads are not counted: the compiler drops them.
    """
    before = reader.read_file(path)
    chosen = _live(before)
    left = Counter(o.kind for o in after.main.operators if o.kind != _COMPILED)
    total = Counter(o.kind for o in before.main.operators if o.index in chosen)
    rows = {(kind, MAPPED): total[kind] - min(left[kind], total[kind]) for kind in total}
    rows |= {(kind, "on the CPU"): min(left[kind], total[kind]) for kind in total}
    verdicts = preflight.check(before).operators
    predicted = Counter((v.kind, v.status) for v in verdicts if v.index in chosen)
    found = compiler.compare(predicted, rows)
    return Evidence("compiled operator", path.name, found.agreeing, found.operators, found.differences)


def _live(model: TFLiteModel) -> frozenset[int]:
    """Return the operators on which an output depends."""
    needed, found = set(model.main.outputs), set()
    for operator in reversed(model.main.operators):
        if not needed.isdisjoint(operator.outputs):
            found.add(operator.index)
            needed.update(operator.inputs)
    return frozenset(found)


def main(words: list[str]) -> int:
    """Print each difference and a rate per kind of evidence; returns the exit code."""
    if not words:
        raise UsageError("no folder", where="edgetpu_agreement", fix="name one or more folders")
    found = [evidence for word in words for evidence in collect(Path(word))]
    for evidence in found:
        for difference in evidence.differences:
            print(f"{evidence.name}: {difference}")
    for kind in sorted({evidence.kind for evidence in found}):
        chosen = [evidence for evidence in found if evidence.kind == kind]
        agreeing, counted = sum(e.agreeing for e in chosen), sum(e.counted for e in chosen)
        share = 100 * agreeing / counted if counted else 0.0
        print(f"{kind}: {agreeing} of {counted} agree ({share:.1f} %), from {len(chosen)} sources")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except StropError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
