# SPDX-License-Identifier: Apache-2.0
"""The null calibration plot: how many windows without drift have a p-value up to p."""

import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["calibration_plot"]


def calibration_plot(curves: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write the empirical distribution functions of p-values, both axes logarithmic; below the diagonal is cautious.

    Args:
        curves: Legend → p-values.
        path: An SVG file; the same curves give the same bytes.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "strop", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6.4, 5.2), layout="constrained")
        axes = figure.subplots()
        axes.plot([1e-3, 1], [1e-3, 1], color="grey", linewidth=1, linestyle="--", label="as promised")
        axes.fill_between([0.008, 0.0125], 0.003, 0.02, color="grey", alpha=0.25, label="aim at 1 %")
        for name, p in curves.items():
            axes.step(np.sort(p), np.arange(1, len(p) + 1) / len(p), where="post", linewidth=1.2, label=name)
        axes.set(
            xscale="log", yscale="log", xlim=(1e-3, 1), ylim=(3e-4, 1), xlabel="nominal p", ylabel="share of windows"
        )
        axes.legend(fontsize=7)
        axes.grid(visible=True, alpha=0.3)
        drawn = StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    path.write_text(_shorter(drawn.getvalue()), encoding="utf-8")


def _shorter(svg: str) -> str:
    """Return a drawing with one digit behind the point: a tenth of a pixel, and half the bytes.

    Example:
        >>> _shorter("L 12.345678 0.99999")
        'L 12.3 0.9'
    """
    return re.sub(r"(\d+\.\d)\d+", r"\1", svg)
