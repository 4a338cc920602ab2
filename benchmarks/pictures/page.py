# SPDX-License-Identifier: Apache-2.0
"""One page of results: a table, the pictures, then each configuration with its reasons, stages and surroundings.

Nothing is fetched and no script runs: a strict content security policy says so to the browser. Light, dark, on paper.
"""

import html
from collections.abc import Sequence
from typing import Final

from benchmarks.pictures.shown import Shown
from benchmarks.pictures.style import Picture, svg, theme
from benchmarks.result.table import HEAD, command_of, filled, row, stage_rows

__all__ = ["page"]

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE: Final = """
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 78rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .4rem; }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .3rem; overflow-wrap: anywhere; } p { margin: .4rem 0; }
.quiet { color: var(--quiet); font-size: .88rem; }
code { font: .86rem ui-monospace, monospace; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .86rem; margin: .5rem 0; }
th, td { text-align: right; padding: .3rem .4rem; border-bottom: 1px solid var(--pale); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th { font-weight: 600; } thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 11rem; }
.status { font-weight: 600; } .valid { color: var(--good); } .invalid { color: var(--loud); }
.uncontrolled { color: var(--warn); } .correctness { color: var(--quiet); }
figure { margin: 1rem 0; overflow-x: auto; } figcaption { font-size: .88rem; color: var(--quiet); }
svg { width: 100%; height: auto; display: block; min-width: 30rem; }
figure.small svg { max-width: 30rem; min-width: 18rem; } svg text { font-family: system-ui, sans-serif !important; }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--s0); }
ul { margin: .3rem 0; padding-left: 1.2rem; }
dl { display: grid; grid-template-columns: minmax(7rem, auto) 1fr; gap: .15rem 1rem; margin: .5rem 0;
  font-size: .9rem; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
@page { size: A4 landscape; margin: 12mm; }
@media print { body { max-width: none; padding: 0; font-size: 11px; } figure, section { break-inside: avoid; }
  figure, .wide { overflow: visible; } svg { min-width: 0; max-height: 20cm; } table { font-size: 9px; }
  th, td { padding: .15rem .25rem; } }
"""


def page(shown: Sequence[Shown], pictures: Sequence[Picture], title: str) -> str:
    """Return the page; the same results give the same bytes."""
    own = {f"sequence-{one.path.stem}" for one in shown} | {f"operators-{one.path.stem}" for one in shown}
    common = [one for one in pictures if one.name not in own]
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _boards(shown),
        _table(*filled(HEAD, [row(one.name, one.result) for one in shown]), marked=1),
        _legend(shown),
        *[_figure(one) for one in common],
        "<h2>Each configuration</h2>",
        *[_section(one, pictures) for one in shown],
    ]
    head = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{head}<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{html.escape(title)}</title>
<style>{theme()}{_STYLE}</style></head>
<body>{"".join(f"{part}{chr(10)}" for part in parts if part)}</body></html>
"""


def _boards(shown: Sequence[Shown]) -> str:
    boards = {f"{one.result.device.board}, {one.result.device.arch}, {one.result.device.os}": None for one in shown}
    return f'<p class="quiet">{"<br>".join(html.escape(board) for board in boards)}</p>'


def _legend(shown: Sequence[Shown]) -> str:
    stages = {"invoke": "the model alone", "total": "the whole way of an answer"}
    used = [f"{stage}: {stages[stage]}" for stage in stages if any(one.stage == stage for one in shown)]
    words = (
        f"Times in microseconds ({'; '.join(used)}). In brackets the 95 % interval of the median; ≤: an upper bound "
        "with 99 % confidence. A dash: not measured, not claimed, or more than the number of runs supports. Cold: from "
        "the start of the process to the first answer. Runs: launches × runs of each."
    )
    return f'<p class="quiet">{html.escape(words)}</p>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, marked: int = -1) -> str:
    def cell(i: int, text: str) -> str:
        kind = f' class="status {html.escape(text)}"' if i == marked else ""
        return f"<td{kind}>{html.escape(text)}</td>"

    body = "".join(f"<tr>{''.join(cell(i, text) for i, text in enumerate(one))}</tr>" for one in rows)
    names = "".join(f"<th>{html.escape(one)}</th>" for one in head)
    return f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(picture: Picture, *, level: int = 2) -> str:
    title = picture.label[0].upper() + picture.label[1:]
    kind = ' class="small"' if picture.width < 6 else ""
    heading = f"<h{level}>{html.escape(title)}</h{level}>" if level == 2 else ""
    return f"{heading}<figure{kind}>{svg(picture)}<figcaption>{html.escape(picture.caption)}</figcaption></figure>"


def _section(one: Shown, pictures: Sequence[Picture]) -> str:
    result = one.result
    drawn = [p for p in pictures if p.name in (f"sequence-{one.path.stem}", f"operators-{one.path.stem}")]
    reasons = "".join(
        f'<li><span class="status {html.escape(r.status)}">{html.escape(r.kind)}</span>: {html.escape(r.words)}</li>'
        for r in result.reasons
    )
    stages = ("stage", "runs", "min", "p50, µs [95 %]", "p90 (≤ 99 %)", "p99 (≤ 99 %)", "max")
    parts = [
        f'<h3>{html.escape(one.name)} <span class="status {html.escape(result.status)}">{result.status}</span></h3>',
        f"<ul>{reasons}</ul>" if reasons else "",
        *[_figure(picture, level=3) for picture in drawn],
        _table(*filled(stages, stage_rows(result))) if result.latency_us else "",
        _facts(one),
    ]
    return f"<section>{''.join(parts)}</section>"


def _facts(one: Shown) -> str:
    """What it was measured with, as pairs; what is not known is left out."""
    result = one.result
    env, runtime, cold = result.env, result.runtime, result.cold
    pairs = {
        "file": f"{result.artifact.format}, {result.artifact.bytes:,} bytes, SHA-256 {result.artifact.sha256}",
        "runtime": f"{runtime.name} {runtime.version}; {', '.join(runtime.provider) or 'its own kernels'}; "
        f"{runtime.threads} thread(s), {100 * runtime.delegated_ops:.0f} % of the operators delegated",
        "answers": _answers(one),
        "cold start": f"process {cold.process_ms:.4g}, import {cold.import_ms:.4g}, load {cold.load_ms:.4g}, "
        f"first inference {cold.first_infer_ms:.4g} ms"
        if cold
        else "",
        "spread": f"between launches {100 * result.variance.between_launch:.2g} %, within "
        f"{100 * result.variance.within:.2g} %, neighbouring runs correlate {result.variance.acf1:.2f}"
        if result.variance
        else "",
        "clock": f"{env.clock_khz['min'] / 1e6:.3g} to {env.clock_khz['max'] / 1e6:.3g} GHz"
        if env.clock_khz
        else "not told",
        "governor": env.governor or "not told",
        "temperature": f"{env.temp_c['start']:.1f} at the start, {env.temp_c['max']:.1f} °C at most"
        if env.temp_c
        else "not told",
        "throttling bits": env.throttled,
        "load before": "; ".join((f"{env.load1:.2f}", *env.busy)),
        "warm-up": f"{result.counts.warmup} runs; {result.counts.steady} of {result.counts.launches} launches steady",
        "timer": f"{result.timer_ns:.0f} ns in each timed call" if result.timer_ns else "",
        "started": result.started,
        "again": command_of(result),
    }
    cells = "".join(
        f"<dt>{key}</dt><dd>{f'<code>{html.escape(value)}</code>' if key == 'again' else html.escape(value)}</dd>"
        for key, value in pairs.items()
        if value
    )
    return f"<details><summary>How it was measured</summary><dl>{cells}</dl></details>"


def _answers(one: Shown) -> str:
    golden = {"same": "golden answers the same", "differs": "GOLDEN ANSWERS DIFFER", "none": "no golden answers"}
    found = one.result.quality
    if found is None:
        return f"{golden[one.result.golden]}; quality not known"
    source = "measured here" if found.source == "samples" else "as the bundle says"
    value = f"{found.metric} {found.value:.4f} on {found.n} samples"
    return f"{golden[one.result.golden]}; {value}, {source}, in {found.runtime}"
