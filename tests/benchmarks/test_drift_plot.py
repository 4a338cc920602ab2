# SPDX-License-Identifier: Apache-2.0
"""The null calibration plot: every curve is drawn, and the same curves give the same bytes."""

from xml.etree import ElementTree as ET

import numpy as np

from benchmarks.drift.plot import calibration_plot
from benchmarks.drift.results import RESULTS

SVG = "{http://www.w3.org/2000/svg}"


def words(path):
    """Return the texts of a drawing."""
    return {"".join(text.itertext()).strip() for text in ET.parse(path).iter(f"{SVG}text")}


def test_curves_are_drawn_with_their_names_and_reproducibly(tmp_path):
    curves = {f"n = {n}": np.random.default_rng(n).random(50) for n in (64, 200)}
    for name in ("one.svg", "two.svg"):
        calibration_plot(curves, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert {"n = 64", "n = 200", "as promised", "aim at 1 %", "nominal p"} <= words(tmp_path / "one.svg")


def test_the_committed_plot_shows_both_data_sets():
    found = words(RESULTS / "null-calibration.svg")
    assert any(text.startswith("fashion") for text in found)
    assert any(text.startswith("digits") for text in found)
