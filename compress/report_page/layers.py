# SPDX-License-Identifier: Apache-2.0
"""Pictures and tables of the layers: how far the integers leave the float network, and what each layer alone costs."""

from collections.abc import Sequence
from typing import Any, Final

from compress.quantize.distribution import Histogram
from compress.quantize.fidelity import Fidelity
from compress.quantize.sensitivity import CHOICES, Sensitivity
from compress.report_page.steps import CARD
from compress.report_page.style import CALM, INK, LOUD, PALE, cards, folded, picture, table

__all__ = ["fidelity_section", "histogram_picture", "sensitivity_section"]

WORST: Final = 6
MOST_ROWS: Final = 24
_LABELS: Final = {"4": "4 bits", "8": "8 bits", "float": "float"}
_COLOURS: Final = {"4": LOUD, "8": INK, "float": CALM}
_MARKERS: Final = {"4": "D", "8": "o", "float": "|"}
_SIZES: Final = {"4": 5.0, "8": 5.5, "float": 10.0}
_EDGES: Final = {"4": 0.0, "8": 0.0, "float": 1.8}


def fidelity_section(fidelity: Fidelity) -> str:
    """Return the chart of SQNR, what it says, the histograms of the worst layers, and a table of all."""
    fall, worst = fidelity.first_fall, fidelity.worst(WORST)
    says = (
        f"The first layer that falls far below what it reads is {fall.layer} ({fall.fall_db:.1f} dB lower)."
        if fall is not None
        else "No layer falls far below what it reads: the noise grows evenly."
    )
    last = fidelity.layers[-1]
    names = ", ".join(f"{number} {layer}" for number, (_, layer) in enumerate(_marked(fidelity), 1))
    caption = (
        f"{fidelity.samples} calibration samples. Line: the integer network up to here, {last.sqnr_db:.1f} dB at the "
        f"output. Dots: what the layer adds alone; in red: {names}."
    )
    chart = picture(
        lambda axes: _sqnr(axes, fidelity), height=3.1, label="signal to noise of every layer", caption=caption
    )
    return (
        f'<p>{says}</p><div class="wide">{chart}</div>'
        f"<h3>The layers that add most noise</h3>{cards(_smalls(fidelity, [layer.layer for layer in worst]))}"
        '<p class="quiet">Bars: how often each value occurs (square root). Shaded: beyond the range of the codes.</p>'
        f"{folded('All layers', _fidelity_table(fidelity))}"
    )


def _sqnr(axes: Any, fidelity: Fidelity) -> None:
    layers = fidelity.layers
    places = range(len(layers))
    ceiling = 60.0  # an exact copy has no noise at all
    axes.plot(places, [min(layer.sqnr_db, ceiling) for layer in layers], color=INK, linewidth=1.6, label="up to here")
    own = [min(layer.own_db, ceiling) for layer in layers]
    axes.plot(places, own, "o", color=CALM, markersize=4, label="this layer alone")
    for number, (place, _) in enumerate(_marked(fidelity), 1):
        axes.plot([place], [own[place]], "o", color=LOUD, markersize=5)
        words = {"textcoords": "offset points", "color": LOUD, "ha": "center", "fontsize": 8.5, "fontweight": "bold"}
        axes.annotate(str(number), (place, own[place]), (0, -13), **words)
    axes.set_xlim(-0.8, len(layers) - 0.2)
    axes.set_xlabel("layers, in the order of computation")
    axes.set_ylabel("SQNR, dB")
    axes.grid(axis="y", color=PALE, linewidth=0.7)
    axes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _marked(fidelity: Fidelity) -> list[tuple[int, str]]:
    """Return (place, name) of the layers that are pointed at: the three that add most, and the first that falls."""
    fall = fidelity.first_fall
    named = {layer.layer for layer in (*fidelity.worst(3), *([fall] if fall is not None else []))}
    return [(place, layer.layer) for place, layer in enumerate(fidelity.layers) if layer.layer in named]


def _smalls(fidelity: Fidelity, names: Sequence[str]) -> list[str]:
    """Histograms of the named layers: weights where there are some, then activations."""
    found = []
    for name in names:
        for what, every in (("weights", fidelity.weights), ("output", fidelity.activations)):
            found += [histogram_picture(one, what) for one in every if one.name == name]
    return found


def histogram_picture(histogram: Histogram, what: str) -> str:
    """Return one small histogram with the chosen range marked."""

    def draw(axes: Any) -> None:
        edges = [histogram.low + i * histogram.width for i in range(len(histogram.counts) + 1)]
        heights = [count**0.5 for count in histogram.counts]
        axes.stairs(heights, edges, fill=True, color=CALM, linewidth=0)
        low, high = histogram.range_low, histogram.range_high
        left, right = min(edges[0], low), max(edges[-1], high)
        pad = 0.02 * (right - left)
        for start, end in ((left - pad, low), (high, right + pad)):
            if end > start:
                axes.axvspan(start, end, color=LOUD, alpha=0.16, linewidth=0)
        for end in (low, high):
            axes.axvline(end, color=LOUD, linewidth=1)
        axes.set_xlim(left - pad, right + pad)
        axes.set_ylim(0, 1.05 * max(heights, default=1.0) or 1.0)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=5)
        axes.set_title(f"{histogram.name}: {what}", fontsize=9, loc="left", fontweight="bold")

    return picture(draw, width=CARD, height=1.35, label=f"histogram of {histogram.name}, {what}")


def _fidelity_table(fidelity: Fidelity) -> str:
    weights, outputs = ({one.name: one for one in every} for every in (fidelity.weights, fidelity.activations))
    head = [
        "layer",
        "kind",
        "SQNR, dB",
        "alone, dB",
        "fall, dB",
        "cosine",
        "largest error, steps of codes",
        "clipped, %",
    ]
    rows = [
        [
            layer.layer,
            layer.kind,
            f"{layer.sqnr_db:.1f}",
            f"{layer.own_db:.1f}",
            f"{layer.fall_db:+.1f}",
            f"{layer.cosine:.5f}",
            f"{layer.largest_steps:.1f}",
            f"{100 * layer.clipped:.3f}",
            _range(weights.get(layer.layer)),
            _range(outputs.get(layer.layer)),
        ]
        for layer in fidelity.layers
    ]
    return table([*head, "weights: seen / range", "output: seen / range"], rows, words=2)


def _range(histogram: Histogram | None) -> str:
    if histogram is None:
        return "–"
    seen, chosen = (
        f"{histogram.low:.3g} … {histogram.high:.3g}",
        f"{histogram.range_low:.3g} … {histogram.range_high:.3g}",
    )
    return f"{seen} / {chosen}"


def sensitivity_section(sensitivity: Sensitivity) -> str:
    """Return the chart of what each layer alone costs, the most sensitive first, and the table of all layers."""
    choices = [choice for choice in CHOICES if choice in sensitivity.layers[0].effects]
    ranked = sensitivity.ranked(choices[0])[:MOST_ROWS]
    more = len(sensitivity.layers) - len(ranked)

    def draw(axes: Any) -> None:
        floor = 1e-8
        for y, layer in enumerate(reversed(ranked)):
            losses = [max(layer.effects[choice].kl, floor) for choice in choices]
            axes.plot([min(losses), max(losses)], [y, y], color=PALE, linewidth=2, zorder=1)
            for choice, loss in zip(choices, losses, strict=True):
                words = {"label": _LABELS[choice]} if not y else {}
                look = {"color": _COLOURS[choice], "markersize": _SIZES[choice], "markeredgewidth": _EDGES[choice]}
                axes.plot([loss], [y], _MARKERS[choice], **look, **words)
        axes.set_xscale("log")
        axes.set_yticks(range(len(ranked)), [layer.layer for layer in reversed(ranked)])
        axes.set_ylim(-0.7, len(ranked) - 0.3)
        axes.set_xlabel("KL divergence from the float network, nats")
        axes.grid(axis="x", color=PALE, linewidth=0.7)
        axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    caption = f"{sensitivity.samples} validation samples; one layer quantized at a time, all others float."
    caption += f" The {len(ranked)} most sensitive of {len(sensitivity.layers)} layers." if more > 0 else ""
    height = 0.21 * len(ranked) + 0.95
    chart = picture(draw, height=height, label="what each layer alone costs", caption=caption)
    inside = _sensitivity_table(sensitivity, choices)
    return f'<div class="wide">{chart}</div>{folded("All layers", inside)}'


def _sensitivity_table(sensitivity: Sensitivity, choices: Sequence[str]) -> str:
    head = ["layer", "kind", "parameters"]
    for choice in choices:
        head += [f"{_LABELS[choice]}: KL", "SQNR, dB", "points [95 %]"]
    rows = []
    for layer in sensitivity.layers:
        row = [layer.layer, layer.kind, str(layer.parameters)]
        for choice in choices:
            effect = layer.effects[choice]
            change = "–" if effect.change is None else str(effect.change).replace(" points", "")
            row += [f"{effect.kl:.2e}", f"{effect.sqnr_db:.1f}", change]
        rows.append(row)
    return table(head, rows, words=2)
