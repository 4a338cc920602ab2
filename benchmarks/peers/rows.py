# SPDX-License-Identifier: Apache-2.0
"""The rows: which tool, in which environment, with which setting. A new row is a new line here."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from edge_contract.errors import UsageError

__all__ = ["MEMORY_LIMIT_MIB", "NETS", "Net", "PAIRS", "ROWS", "Row", "chosen"]

MEMORY_LIMIT_MIB: Final = 8_000  # a conversion that wants more than a workstation has is stopped, and said to be so


@dataclass(frozen=True)
class Row:
    """One quantizer with one setting.

    Attributes:
        name: How it is asked for and cached.
        title: How the tables call it.
        converter: Module in ``benchmarks.peers.converters``.
        environment: Where that module runs.
        start: What it starts from: a float file of the material, or ``torch``.
        setting: Handed to the converter.
    """

    name: str
    title: str
    converter: str
    environment: str
    start: str
    setting: dict[str, Any] = field(default_factory=dict)

    @property
    def digest_text(self) -> str:
        """What the row's result depends on, as far as this table knows."""
        return json.dumps({key: value for key, value in asdict(self).items() if key != "title"}, sort_keys=True)


@dataclass(frozen=True)
class Net:
    """A network of the zoo: its input [C, H, W], and timed calls of a speed row."""

    shape: tuple[int, int, int]
    calls: int


NETS: Final = {
    "mobilenet-v2": Net((1, 28, 28), 2000),
    "mobilenet-v3": Net((1, 28, 28), 2000),
    "efficientnet-lite0": Net((3, 224, 224), 300),
}


def _ours(name: str, title: str, **setting: Any) -> Row:
    return Row(name, title, "ours", "main", "torch", setting)


def _ort(name: str, title: str, activation: str, method: str, **more: Any) -> Row:
    setting = {"activation": activation, "method": method, **more}
    return Row(name, f"ONNX Runtime {title}", "ort", "main", "float.onnx", setting)


def _nncf(name: str, title: str, **setting: Any) -> Row:
    return Row(name, f"NNCF {title}", "nncf_onnx", "nncf", "float.onnx", setting)


def _aeq(name: str, title: str, ranges: str) -> Row:
    return Row(name, f"ai-edge-quantizer {title}", "aeq", "google", "float.tflite", {"ranges": ranges})


_ALL: Final = (
    _ours("ours", "Strop, default"),
    _ours("ours-minmax", "Strop, min/max", options={"observer": "min-max"}),
    _ours("ours-percentile", "Strop, percentile 99.999", options={"observer": "percentile", "percentile": 99.999}),
    _ours("ours-squared", "Strop, squared error", options={"observer": "squared-error"}),
    _ours("ours-adaptive", "Strop, adaptive rounding", options={"rounding": "adaptive"}),
    _ort("ort-u8-minmax", "U8S8 MinMax", "uint8", "MinMax"),
    _ort("ort-u8-percentile", "U8S8 Percentile 99.999", "uint8", "Percentile", percentile=99.999),
    _ort("ort-u8-percentile-64", "U8S8 Percentile, 64 samples", "uint8", "Percentile", percentile=99.999, samples=64),
    _ort("ort-s8-minmax", "S8S8 MinMax", "int8", "MinMax"),
    _ort("ort-s8-percentile", "S8S8 Percentile 99.999", "int8", "Percentile", percentile=99.999),
    _nncf("nncf-default", "default"),
    _nncf("nncf-mixed", "mixed preset", preset="mixed"),
    _nncf("nncf-plain", "no bias correction", disable_bias_correction=True),
    _nncf("nncf-bias", "full bias correction", fast_bias_correction=False),
    _aeq("aeq-default", "default", "default"),
    _aeq("aeq-minmax", "true min/max", "min-max"),
    Row("pt2e", "torchao pt2e + LiteRT quantizer", "pt2e", "google", "torch"),
)
ROWS: Final = {row.name: row for row in _ALL}

# Two files that should hold the same integers: row and format of each.
PAIRS: Final = (
    (("ours", "onnx"), ("ours", "tflite")),
    (("ours", "onnx"), ("ours", "torch")),
    (("ort-u8-minmax", "onnx"), ("aeq-minmax", "tflite")),
    (("ort-u8-minmax", "onnx"), ("aeq-default", "tflite")),
    (("ort-u8-minmax", "onnx"), ("pt2e", "tflite")),
)


def chosen(names: Iterable[str]) -> list[Row]:
    """Return rows in table order for names, or first words of names (``ort`` for all four), or ``all``.

    Raises:
        UsageError: A name that no row has.

    Example:
        >>> [row.name for row in chosen(["aeq", "ours"])]
        ['ours', 'ours-minmax', 'ours-percentile', 'ours-squared', 'ours-adaptive', 'aeq-default', 'aeq-minmax']
    """
    wanted = set(names)
    groups = {name.partition("-")[0] for name in ROWS}
    if unknown := wanted - groups - set(ROWS) - {"all"}:
        fix = f"use {', '.join(sorted(groups))}, all, or one of {', '.join(ROWS)}"
        raise UsageError(f"unknown row '{min(unknown)}'", where="--rows", fix=fix)
    return [row for row in _ALL if "all" in wanted or {row.name, row.name.partition("-")[0]} & wanted]
