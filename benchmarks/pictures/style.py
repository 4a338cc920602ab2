# SPDX-License-Identifier: Apache-2.0
"""How pictures look: one drawing gives an SVG in the page's own colours, or a PNG on white.

The series' colours are those of Okabe and Ito, which people with any kind of colour vision tell apart; the page has a
lighter set of them for dark ground. A series has a line style of its own as well.
"""

import hashlib
import html
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "BAND",
    "DASHES",
    "INK",
    "LOUD",
    "MARKERS",
    "PALE",
    "PAPER",
    "QUIET",
    "SERIES",
    "Picture",
    "plain_log",
    "png",
    "svg",
    "theme",
    "wrapped",
]

# Stand-ins while drawing; in the SVG each becomes a CSS variable, so that one picture serves light and dark.
INK, QUIET, PALE, BAND, LOUD, PAPER = "#1c2833", "#56646f", "#d4dce2", "#e9eef2", "#b0361e", "#fefefe"
SERIES: Final = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#56b4e9", "#b58900", "#6b4c9a", "#4d4d4d")
DASHES: Final = ("-", "--", "-.", ":", (0, (6, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "p")
_LIGHT: Final = {
    INK: "ink", QUIET: "quiet", PALE: "pale", BAND: "band", LOUD: "loud", PAPER: "paper",
    **{c: f"s{i}" for i, c in enumerate(SERIES)}
}  # fmt: skip
_DARK: Final = {
    "ink": "#e6ecf0", "quiet": "#a3b2bd", "pale": "#3a4853", "band": "#1e2930", "loud": "#ff8f77", "paper": "#12181d",
    "s0": "#5cb3ea", "s1": "#ff9a4d", "s2": "#3fcfa4", "s3": "#e08ad8", "s4": "#9bd6ff", "s5": "#e3c04a",
    "s6": "#b79be6", "s7": "#c4c4c4", "good": "#3fcfa4", "warn": "#e3c04a",
}  # fmt: skip
_NUMBER: Final = re.compile(r"-?\d+\.\d{2,}")


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        name: Of its file, such as ``ecdf``.
        label: What it shows, for those who cannot see it.
        caption: Below it: how to read it.
        draw: Is given a figure, and draws with the colours of this module.
        width, height: Inches.
    """

    name: str
    label: str
    caption: str
    draw: Callable[[Any], None]
    width: float = 8.0
    height: float = 3.4


def theme() -> str:
    """Return the colours as CSS variables: light, dark, and light again on paper."""
    light = "; ".join(f"--{name}: {colour}" for colour, name in _LIGHT.items()) + "; --good: #00704f; --warn: #7d5c00"
    dark = "; ".join(f"--{name}: {colour}" for name, colour in _DARK.items())
    return (
        f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
        f"@media print {{ :root {{ {light} }} }}"
    )


def _settings() -> dict[str, Any]:
    parts = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "xtick.labelcolor")
    return {
        **dict.fromkeys((*parts, "ytick.labelcolor"), INK),
        **dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize"), 9.5),
        **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 9),
        "axes.linewidth": 0.8,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "legend.frameon": False,
        "path.simplify": False,
        "svg.hashsalt": "strop",
        "svg.fonttype": "none",
    }


def _figure(picture: Picture, dpi: int) -> Any:
    from matplotlib.figure import Figure  # without pyplot: no window system, no global state

    figure = Figure(figsize=(picture.width, picture.height), dpi=dpi, layout="constrained")
    picture.draw(figure)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.patch.set_visible(False)
    return figure


def svg(picture: Picture) -> str:
    """Return a picture for the inside of a page; the same picture gives the same text."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with rc_context(_settings()):
        figure, target = _figure(picture, 72), io.StringIO()
        figure.patch.set_visible(False)  # the page's own ground shows through
        FigureCanvasSVG(figure).print_svg(target, metadata={"Date": None})
    return _inline(target.getvalue(), picture)


def png(picture: Picture) -> bytes:
    """Return a picture as PNG on white, 150 dots per inch."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with rc_context(_settings()):
        figure, target = _figure(picture, 150), io.BytesIO()
        figure.patch.set_facecolor("#ffffff")
        FigureCanvasAgg(figure).print_png(target, metadata={"Software": None})
    return target.getvalue()


def _inline(text: str, picture: Picture) -> str:
    """Return an SVG with ids of its own, the page's colours, and no more digits than eyes can see."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'(?<= )(?:d|x|y)="[^"]*"', lambda found: _NUMBER.sub(lambda n: f"{float(n[0]):.1f}", found[0]), text)
    own = hashlib.sha256(f"{picture.name} {picture.label}".encode()).hexdigest()[:6]
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>b{own}-", text)
    for colour, name in _LIGHT.items():
        text = text.replace(colour, f"var(--{name})")
    text = re.sub(r"\s*\n\s*", "\n", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(picture.label)}" ', 1)


def wrapped(name: str, width: int = 36) -> str:
    r"""Return a name on as many lines as it needs, broken between its parts.

    Example:
        >>> wrapped("mobilenet-v2 · int8 · onnxruntime · 4 threads", 24)
        'mobilenet-v2 · int8 ·\nonnxruntime · 4 threads'
    """
    lines = [""]
    for part in name.split(" · "):
        if lines[-1] and len(lines[-1]) + 3 + len(part) > width:
            lines[-1] += " ·"
            lines.append(part)
        else:
            lines[-1] += f" · {part}" if lines[-1] else part
    return "\n".join(lines)


def plain_log(axis: Any, values: Sequence[float]) -> None:
    """Put plain numbers on a logarithmic axis, as many as its width bears."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    spread = max(values) / max(min(values), 1e-12)
    subs: tuple[float, ...] = (1, 2, 5) if spread < 200 else (1, 3) if spread < 5_000 else (1,)
    if spread < 6:
        subs = (1, 1.2, 1.5, 2, 3, 4, 5, 6, 8)
    if spread < 1.8:
        subs = tuple(1 + 0.1 * i for i in range(90))[:: 1 if spread < 1.35 else 2]
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
