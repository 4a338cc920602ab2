# SPDX-License-Identifier: Apache-2.0
"""Do two files that should be the same model compute the same integers?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.material import Material
from benchmarks.peers.rows import PAIRS
from benchmarks.peers.statistics import exact_codes

__all__ = ["compare"]


def compare(material: Material, results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compare the output codes of pairs of files; ``torch`` stands for our own evaluation of our plan."""
    found = []
    for (a, a_kind), (b, b_kind) in PAIRS:
        if a not in results or b not in results:
            continue
        sides = [_codes(material, results[name], kind) for name, kind in ((a, a_kind), (b, b_kind))]
        if sides[0] is not None and sides[1] is not None:
            found.append({"a": f"{a} {a_kind}", "b": f"{b} {b_kind}", **exact_codes(sides[0], sides[1])})
    return found


def _codes(material: Material, result: Mapping[str, Any], kind: str) -> NDArray[np.int16] | None:
    if result.get("error"):
        return None
    path = Path(result["folder"]) / f"codes-{kind}.npy"
    if kind == "torch" and not path.exists():
        import torch

        from compress.quantize import integer
        from compress.quantize.plan import QuantizationPlan

        torch.set_num_threads(1)  # two fight for a shared core
        plan = QuantizationPlan.load(path.with_name("model.plan"))
        np.save(path, integer.run(plan, torch.from_numpy(material.samples.inputs))["logits"])
    return np.asarray(np.load(path), np.int16) if path.exists() else None
