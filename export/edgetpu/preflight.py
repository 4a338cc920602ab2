# SPDX-License-Identifier: Apache-2.0
"""The Edge TPU pre-flight: predict, for any TFLite file, which operators Coral's compiler will map.

It is a prediction and says so: the compiler is closed, its last version is of July 2021. The rules are Coral's
documented ones, what compiler logs in public threads show, and what published files before and after compilation
show; docs/targets.md says which is which and how often the prediction was right.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Final

from edge_contract import targets
from edge_contract.accelerators import Accelerator
from edge_contract.errors import TargetError
from edge_contract.targets import Target
from export.edgetpu import general as edgetpu_general
from export.edgetpu import rules
from export.edgetpu.cache import Cache, cache_of
from export.edgetpu.loader import file_faults
from export.edgetpu.partition import first_piece
from export.edgetpu.rewrites import advice
from export.edgetpu.site import Site
from export.edgetpu.status import MAPPED, ONE_SUBGRAPH, Finding, OperatorVerdict
from export.memory import prediction
from export.memory.macs import macs
from export.tflite.model import Subgraph, TFLiteModel

__all__ = ["NOTE", "TpuReport", "check"]

NOTE: Final = "a prediction, not the compiler: run edgetpu_compiler for the answer"
_ORDER: Final = ("cpu", "risk", "likely")


@dataclass(frozen=True)
class TpuReport:
    """What the Edge TPU compiler is predicted to say of a file.

    Attributes:
        runtime: Number of the runtime library that was aimed at.
        operators: One verdict per operator, in the file's order.
        faults: Why the compiler would refuse the whole file; then nothing is mapped.
        cache: Parameters on the chip and over the cable.
        activation_bytes: Largest activations that live at once.
        confidence: ``high``, ``medium`` or ``low``.
        doubts: What lowers the confidence, in words.
    """

    runtime: int
    operators: tuple[OperatorVerdict, ...]
    faults: tuple[str, ...]
    cache: Cache
    activation_bytes: int
    confidence: str
    doubts: tuple[str, ...]

    @property
    def mapped(self) -> int:
        """Operators predicted on the Edge TPU."""
        return sum(operator.is_mapped for operator in self.operators)

    @property
    def mapped_macs(self) -> float:
        """Share of the multiplications that run on the Edge TPU, 0 to 1."""
        total = sum(operator.macs for operator in self.operators)
        return sum(o.macs for o in self.operators if o.is_mapped) / total if total else 0.0

    def histogram(self) -> dict[tuple[str, str], int]:
        """Return (operator, status) → count, the table that the compiler prints."""
        return dict(Counter((operator.kind, operator.status) for operator in self.operators))

    def first_cut(self) -> OperatorVerdict | None:
        """The first operator that stays on the CPU for a reason of its own; None if there is none."""
        return next((o for o in self.operators if not o.is_mapped and o.status != ONE_SUBGRAPH), None)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "note": NOTE,
            "runtime": self.runtime,
            "mapped": self.mapped,
            "cpu": len(self.operators) - self.mapped,
            "mapped_macs": self.mapped_macs,
            "faults": list(self.faults),
            "confidence": self.confidence,
            "doubts": list(self.doubts),
            "cache": self.cache.to_json(),
            "activation_bytes": self.activation_bytes,
            "operators": [operator.to_json() for operator in self.operators],
        }


def check(model: TFLiteModel, target: Target | None = None, *, runtime: int | None = None) -> TpuReport:
    """Predict what the Edge TPU compiler maps of a model.

    Args:
        model: Any TFLite file, as ``flatbuffer.read`` gives it.
        target: A target with an accelerator; the Coral USB stick without it.
        runtime: Aim at an older runtime library (10 to 14), as the compiler's ``--min_runtime_version`` does.

    Raises:
        TargetError: The target has no Edge TPU.
    """
    target = target or targets.load("coral-usb")
    accelerator = _accelerator(target)
    aimed = accelerator.runtime if runtime is None else runtime
    graph = model.main
    raw = tuple(_verdict(Site(operator, graph, aimed), target) for operator in graph.operators)
    faults = file_faults(model, accelerator)
    verdicts = _cut(graph, raw) if not faults else _refused(raw, faults[0])
    peak = prediction.predict(model).peak_activation_bytes
    mapped = [verdict for verdict in verdicts if verdict.is_mapped]
    cache = cache_of(sum(verdict.parameter_bytes for verdict in mapped), peak, accelerator)
    doubts = _doubts(verdicts, cache, peak, accelerator)
    return TpuReport(aimed, verdicts, faults, cache, peak, _confidence(verdicts, doubts), doubts)


def _accelerator(target: Target) -> Accelerator:
    if target.accelerator is None:
        raise TargetError(f"target '{target.name}' has no Edge TPU", fix="use coral-usb or coral-devboard")
    return target.accelerator


def _verdict(site: Site, target: Target) -> OperatorVerdict:
    """What is said of one operator by itself; where it stands in the graph comes later."""
    general = edgetpu_general.first_finding(site, target)
    found = [general] if general else rules.findings(site)
    worst = min(found, key=lambda finding: _ORDER.index(finding.verdict), default=Finding("mapped", "", ""))
    operator = site.operator
    status = worst.status if worst.verdict == "cpu" else MAPPED
    text = _advice(site, worst)
    size = sum(len(tensor.data) for tensor in site.inputs() if tensor.data is not None)
    multiplications = macs(operator, site.graph)
    return OperatorVerdict(
        operator.index,
        operator.kind,
        operator.version,
        worst.verdict,
        status,
        worst.detail,
        multiplications,
        size,
        text,
    )


def _advice(site: Site, found: Finding) -> str:
    if found.verdict not in ("cpu", "risk"):
        return ""
    if found.advice is not None:
        return found.advice
    return advice(site.operator.kind, found.status, is_custom=site.operator.is_custom)


def _cut(graph: Subgraph, raw: tuple[OperatorVerdict, ...]) -> tuple[OperatorVerdict, ...]:
    """Leave on the CPU what could be mapped but lies outside the one piece."""
    piece = first_piece(graph, [verdict.is_mapped for verdict in raw])
    return tuple(
        replace(v, verdict="cpu", status=ONE_SUBGRAPH, detail="behind an operator on the CPU", advice="")
        if v.is_mapped and position not in piece
        else v
        for position, v in enumerate(raw)
    )


def _refused(raw: tuple[OperatorVerdict, ...], fault: str) -> tuple[OperatorVerdict, ...]:
    """A file that the compiler does not load runs on the CPU as a whole."""
    return tuple(
        replace(v, verdict="cpu", status=ONE_SUBGRAPH, detail=f"the whole file is refused: {fault}")
        if v.is_mapped
        else v
        for v in raw
    )


def _doubts(
    verdicts: tuple[OperatorVerdict, ...], cache: Cache, peak: int, accelerator: Accelerator
) -> tuple[str, ...]:
    counts = Counter(verdict.verdict for verdict in verdicts)
    found = []
    if counts["risk"]:
        found.append(f"{counts['risk']} operators may stay on the CPU, see their notes")
    if counts["likely"]:
        found.append(f"{counts['likely']} operators are mapped by rules that Coral does not document")
    if peak > accelerator.sram_kib * 1024 // 2:
        text = f"activations of {peak} bytes at once: the compiler may give up ('large activation tensors in model')"
        found.append(text)
    if cache.colour != "green":
        found.append(f"{cache.parameter_bytes} bytes of parameters: how many stay on the chip is the compiler's choice")
    return tuple(found)


def _confidence(verdicts: tuple[OperatorVerdict, ...], doubts: tuple[str, ...]) -> str:
    """Low where an operator's place is open, medium where a rule is not documented or memory is tight, else high."""
    if any(verdict.verdict == "risk" for verdict in verdicts) or any("large activation" in doubt for doubt in doubts):
        return "low"
    return "medium" if doubts else "high"
