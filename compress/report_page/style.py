# SPDX-License-Identifier: Apache-2.0
"""How a page looks: colours for light and dark, tables, and pictures as inline SVG in the page's own colours."""

import hashlib
import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

__all__ = [
    "CALM",
    "INK",
    "LOUD",
    "PALE",
    "PAPER",
    "QUIET",
    "cards",
    "document",
    "folded",
    "kilobytes",
    "picture",
    "table",
]

# Stand-ins while drawing; in the SVG each becomes a CSS variable, so that one picture serves light and dark.
INK, QUIET, CALM, LOUD, PALE, PAPER = "#1d2b36", "#5b6b76", "#2f6f9f", "#b3402f", "#d7e3ec", "#fefefe"
_NAMES: Final = {INK: "ink", QUIET: "quiet", CALM: "calm", LOUD: "loud", PALE: "pale", PAPER: "paper"}
_DARK: Final = {INK: "#e4ebf0", QUIET: "#9db0bd", CALM: "#79b8e6", LOUD: "#f08d79", PALE: "#33434f", PAPER: "#11181e"}
_STYLE: Final = """
body { font: 15px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 66rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.6rem 0 .3rem; } h3 { font-size: 1rem; }
p { margin: .4rem 0; } .quiet { color: var(--quiet); font-size: .88rem; }
.kept { color: var(--calm); } .missed { color: var(--loud); font-weight: 600; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .93rem; margin: .6rem 0; }
th, td { text-align: right; padding: .3rem .45rem; border-bottom: 1px solid var(--pale); white-space: nowrap; }
th { font-weight: 600; } th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; }
td.note { text-align: left; color: var(--quiet); font-size: .85rem; white-space: normal; overflow-wrap: anywhere; }
tr.noted td { border-bottom: none; } .word { text-align: left; } td.word { white-space: normal; min-width: 8rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.tile { border: 1px solid var(--pale); border-radius: .5rem; padding: .6rem .8rem; }
.tile b { display: block; font-size: 1.35rem; font-weight: 600; } .tile span { color: var(--quiet); font-size: .82rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 16.5rem), 1fr)); gap: .6rem 1.2rem; }
.cards.large { grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
figure { margin: .6rem 0; } figcaption { font-size: .88rem; color: var(--quiet); }
svg { width: 100%; height: auto; display: block; } svg text { font-family: system-ui, sans-serif !important; }
.wide > figure { min-width: 34rem; } details { margin: .6rem 0; } summary { cursor: pointer; color: var(--calm); }
"""


def _palette(colours: dict[str, str]) -> str:
    inside = "; ".join(f"--{_NAMES[stand_in]}: {colour}" for stand_in, colour in colours.items())
    return f":root {{ {inside} }}"


def document(title: str, body: str) -> str:
    """Return a whole page."""
    light, dark = _palette({colour: colour for colour in _NAMES}), _palette(_DARK)
    dark = f"@media (prefers-color-scheme: dark) {{ {dark} }}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{html.escape(title)}</title>
<style>{light} {dark}{_STYLE}</style></head>
<body>{body}</body></html>
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = (), *, words: int = 1) -> str:
    """Return a table of texts, the first columns (``words`` of them) to the left, each row's note below it."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="word"' if 0 < i < words else "" for i in range(len(cells))]
        return "".join(f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))

    body = []
    for i, row in enumerate(rows):
        note = notes[i] if i < len(notes) else ""
        body.append(f"<tr{' class=noted' if note else ''}>{line(row, 'td')}</tr>")
        if note:
            body.append(f'<tr><td class="note" colspan="{len(head)}">{html.escape(note)}</td></tr>')
    names = line(head, "th")
    return f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def kilobytes(value: float) -> str:
    """Return a number of KB as a page shows it.

    Example:
        >>> kilobytes(22.524), kilobytes(18524.032)
        ('22.5', '18,524')
    """
    return f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def folded(summary: str, inside: str) -> str:
    """Return something that opens on a click; without scripts."""
    return f"<details><summary>{html.escape(summary)}</summary>{inside}</details>"


def cards(pictures: Sequence[str], *, kind: str = "") -> str:
    """Return small (or ``large``) pictures side by side, as many in a row as the screen has room for."""
    found = [picture for picture in pictures if picture]
    return f'<div class="{f"cards {kind}".strip()}">{"".join(found)}</div>' if found else ""


def picture(draw: Callable[[Any], None], *, width: float = 8.0, height: float, label: str, caption: str = "") -> str:
    """Return a figure with one picture.

    Args:
        draw: Is given matplotlib's axes and draws with the colours of this module.
        width, height: Inches at 72 points each; the page scales the picture to its room.
        label: What it shows, for those who cannot see it; different for every picture of a page.
        caption: Below it.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    words = {f"{name}.{part}": INK for name, part in (("text", "color"), ("axes", "labelcolor"), ("axes", "edgecolor"))}
    ticks = {f"{axis}tick.{part}": INK for axis in "xy" for part in ("color", "labelcolor")}
    sizes = {
        "font.size": 9,
        "axes.labelsize": 9,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "legend.fontsize": 8.5,
    }
    # A fixed salt and no date: the same report draws the same bytes.
    fixed = {"svg.hashsalt": "strop", "svg.fonttype": "none", "axes.linewidth": 0.8, "legend.frameon": False}
    with rc_context({**words, **ticks, **sizes, **fixed}):
        figure = Figure(figsize=(width, height), dpi=72, layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        for patch in (figure.patch, axes.patch):
            patch.set_visible(False)  # the page's own ground shows through
        target = io.StringIO()
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None})  # savefig would draw everything twice
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{_inline(target.getvalue(), label)}{below}</figure>"


def _inline(svg: str, label: str) -> str:
    """Return an SVG for the inside of a page: its own ids, the page's colours, no more digits than eyes can see."""
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", text)
    own = hashlib.sha256(label.encode()).hexdigest()[:6]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>s{own}-", text)
    for colour, name in _NAMES.items():
        text = text.replace(colour, f"var(--{name})")
    text = re.sub(r"\s*\n\s*", "\n", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1)
