# SPDX-License-Identifier: Apache-2.0
"""Labels to print: one for each device, with its name in words and as a QR code (ISO/IEC 18004), on A4 or Letter.

One self-contained page; a browser prints it. A label holds no token: it stays on the board for years.
"""

import html
import io
from collections.abc import Iterable
from string import Template
from typing import Final

from edge_contract.errors import MissingDependencyError
from fleet.flash.roster import Row

__all__ = ["page"]

_PAGE: Final = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
@page { margin: 8mm }
body { margin: 0; font: 9pt/1.25 "DejaVu Sans", Arial, sans-serif; color: #000; background: #fff }
main { display: grid; grid-template-columns: repeat(auto-fill, 62mm); gap: 2mm }
article { box-sizing: border-box; width: 62mm; height: 29mm; padding: 1.5mm; border: .2mm dashed #999; display: flex;
  gap: 2mm; align-items: center; overflow: hidden; break-inside: avoid }
svg { width: 25mm; height: 25mm; flex: none }
h2 { font-size: 11pt; margin: 0 0 .5mm; overflow-wrap: anywhere }
h2.long { font-size: 7pt }
p { margin: 0; font-size: 8pt; overflow-wrap: anywhere }
</style></head><body><main>
$labels
</main></body></html>
""")


def page(rows: Iterable[Row], *, title: str = "Labels") -> str:
    """Return the page of all labels.

    Raises:
        MissingDependencyError: The package segno, which draws the codes, is not installed.

    Example:
        >>> "cam-1" in page([Row("cam-1", labels="site=a")])
        True
    """
    return _PAGE.substitute(title=html.escape(title), labels="\n".join(_label(row) for row in rows))


def _label(row: Row) -> str:
    words = "".join(f"<p>{html.escape(text)}</p>" for text in (row.labels, row.note, row.token_id) if text)
    size = ' class="long"' if len(row.name) > 24 else ""
    return f"<article>{_code(row.name)}<div><h2{size}>{html.escape(row.name)}</h2>{words}</div></article>"


def _code(text: str) -> str:
    try:
        import segno
    except ImportError as error:
        fix = "run: pip install 'strop[flash]'"
        raise MissingDependencyError("labels need the package 'segno', which is not installed", fix=fix) from error
    drawn = io.BytesIO()
    segno.make(text, error="m", micro=False).save(
        drawn, kind="svg", xmldecl=False, svgns=True, omitsize=True, title=text, border=4
    )
    return drawn.getvalue().decode().strip()
