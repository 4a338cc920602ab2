# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.zoo.matrix``: write the table of networks and methods into docs/compression.md.

``REFUSED`` says which method refuses which network in which words; everything else works. ``test_matrix.py`` tries
every cell, and that the page shows this table.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from tests.zoo.cases import CASES
from tests.zoo.methods import METHODS

__all__ = ["PAGE", "REFUSED", "between", "main", "refusal", "table"]

PAGE: Final = Path(__file__).parents[2] / "docs" / "compression.md"
FIRST, LAST = "<!-- matrix: python -m tests.zoo.matrix -->", "<!-- /matrix -->"
WORKS: Final = "✓"
_PLANNED: Final = ("quantize static-int8*", "quantize qat-int8")
_LAYERED: Final = ("distill features", "distill attention", "distill combined")
_SPATIAL: Final = ("factorize spatial-svd", "factorize tucker-2")

REFUSED: Final[Sequence[tuple[Sequence[str], Sequence[str], str]]] = (
    (_LAYERED, ("vit", "lstm", "gru", "autoencoder"), "its output is no feature map [N,C,H,W]; name a convolution"),
    (("distill relational", "distill contrastive"), ("unet",), "no linear layer is called, so there is no embedding"),
    (("distill mutual",), ("vit",), "a Vit does not know how to draw its weights"),
    (("prune *",), ("lstm",), "layer: pruning does not handle LSTM: its gates share one hidden state"),
    (("prune *",), ("gru",), "layer: pruning does not handle GRU: its gates share one hidden state"),
    (("prune bn-scale",), ("mobilenet-v3", "vit", "unet"), "no batch normalisation follows this layer"),
    (("factorize spatial-svd",), ("conv1d",), "takes apart k×k convolutions alone"),
    (_SPATIAL, ("lstm", "gru", "autoencoder", "efficientnet-lite0"), "takes apart k×k convolutions alone"),
    (_PLANNED, ("vit",), "layer 'blocks.0.first': LayerNorm has no integer form"),
    (_PLANNED, ("lstm",), "layer 'layer': LSTM has no integer form"),
    (_PLANNED, ("gru",), "layer 'layer': GRU has no integer form"),
    (_PLANNED, ("autoencoder",), "a network of flat inputs takes 'dynamic-int8' or 'weight-only-int8'"),
    (_PLANNED, ("unet",), "layer 'up': operator aten.conv_transpose2d.input cannot become integers"),
    (("quantize dynamic-int8",), ("unet",), "dynamic-int8 leaves convolutions and GRU cells in float"),
)
"""(methods, networks, words of the error)."""


def refusal(method: str, network: str) -> str:
    """Return the words in which a method refuses a network, nothing where it works.

    Example:
        >>> refusal("prune taylor", "lstm")[:26], refusal("prune taylor", "vit")
        ('layer: pruning does not ha', '')
    """
    for methods, networks, words in REFUSED:
        if network in networks and any(fnmatchcase(method, pattern) for pattern in methods):
            return words
    return ""


def table(methods: Mapping[str, object] = METHODS) -> str:
    """Return the matrix as Markdown: a mark where a method works, else the number of a line below the table."""
    found: list[str] = []
    lines = [_row("", *CASES), "|---" * (1 + len(CASES)) + "|"]
    for method in methods:
        cells = []
        for network in CASES:
            words = refusal(method, network)
            if words and words not in found:
                found.append(words)
            cells.append(str(1 + found.index(words)) if words else WORKS)
        lines.append(_row(method, *cells))
    return "\n".join([*lines, "", *(f"{number}. “… {words} …”" for number, words in enumerate(found, 1))])


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def between(text: str, new: str) -> str:
    """Return a page with what stands between the marks replaced."""
    before, _, rest = text.partition(FIRST)
    _, _, after = rest.partition(LAST)
    return f"{before}{FIRST}\n{new}\n{LAST}{after}"


def main(page: Path = PAGE) -> None:
    """Write the page."""
    page.write_text(between(page.read_text(encoding="utf-8"), table()), encoding="utf-8")
    print(table())


if __name__ == "__main__":
    main()
