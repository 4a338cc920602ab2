# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.coverage``: simulate, print the table, keep it as ``results.json`` beside this file."""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.coverage.gates import seen
from benchmarks.coverage.intervals import cover
from benchmarks.coverage.verdicts import false_alarms, needs, slow_downs
from benchmarks.coverage.worlds import WORLDS
from benchmarks.machine import describe

RESULTS: Final = Path(__file__).with_name("results.json")
SIZES: Final = ((3, 50), (10, 100), (20, 100), (10, 500))


def measure(simulations: int, tell: Any) -> dict[str, Any]:
    """Return everything that is printed."""
    cells = []
    for launches, runs in SIZES:
        for world in WORLDS:
            tell(f"{launches} launches of {runs} runs, {world.name}")
            cells += [one.to_json() for one in cover(world, launches, runs, simulations)]
    tell("A/A comparisons")
    alarms = [one.to_json() for one in false_alarms(simulations)]
    tell("slow-downs of 5 %")
    slow = [one.to_json() for one in slow_downs(max(simulations // 2, 10))]
    tell("launches that are needed")
    more = [one.to_json() for one in needs(max(simulations // 2, 10))]
    tell("gates")
    gates = [one.to_json() for one in seen(max(simulations // 5, 10))]
    return {"intervals": cells, "aa": alarms, "slow_downs": slow, "needs": more, "gates": gates}


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def lines(found: Mapping[str, Any]) -> list[str]:
    """Return what was found as tables of Markdown."""
    head = ["method", "launches × runs", *(world.name for world in WORLDS)]
    out = ["Held, % (in brackets: how often it was printed at all, where not always)", ""]
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for one in found["intervals"]:
        printed = "" if one["given"] > 0.9995 else f" ({_share(one['given'])})"
        key = f"{one['method']} {100 * one['nominal']:.0f} %", f"{one['launches']} × {one['runs']}"
        groups.setdefault(key, {})[one["world"]] = _share(one["held"]) + printed
    out += _table(head, ([*key, *(row[world.name] for world in WORLDS)] for key, row in groups.items()))
    out += ["A/A comparisons of ten launches with ten, %", ""]
    rows = (
        [
            one["world"],
            "unknown" if one["floor"] is None else _share(one["floor"]),
            *(_share(one["shares"].get(kind, 0.0)) for kind in ("REGRESSION", "IMPROVED")),
            _share(one["held"]),
        ]
        for one in found["aa"]
    )
    out += _table(["world", "noise floor, %", "REGRESSION", "IMPROVED", "interval held"], rows)
    out += ["Slow-downs that were found, %", ""]
    rows = (
        [
            _share(one["floor"]),
            f"{100 * (one['ratio'] - 1):.0f}",
            str(one["launches"]),
            _share(one["shares"].get("REGRESSION", 0.0)),
        ]
        for one in found["slow_downs"]
    )
    out += _table(["noise floor, %", "slower by, %", "launches of each", "REGRESSION"], rows)
    out += ["Decided, or ruled out, with as many more launches as were asked for, %", ""]
    rows = (
        [
            f"{one['ratio']:.2f}",
            _share(one["asked"]),
            "–" if one["median"] is None else f"{one['median']:.0f}",
            _share(one["decided"]),
        ]
        for one in found["needs"]
    )
    out += _table(["true ratio", "asked", "median k", "decided"], rows)
    out += ["Gates on ten launches of 200 runs, % of the measurements", ""]
    rows = ([one["world"], *(_share(one[name]) for name in ("trend", "drift", "modes"))] for one in found["gates"])
    out += _table(["world", "trend where there is none", "trend of 10 %", "two speeds 15 % apart"], rows)
    return out


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description="Coverage by simulation.")
    parser.add_argument("--simulations", type=int, default=2000, help="of each cell of the interval table")
    parser.add_argument("--show", action="store_true", help="print the kept result, simulate nothing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--keep", type=Path, default=RESULTS, help="where the result is kept")
    options = parser.parse_args(arguments)
    if options.show:
        document = json.loads(options.keep.read_text(encoding="utf-8"))
    else:
        document = {
            "schema": "strop.coverage/1",
            "command": f"python -m benchmarks.coverage --simulations {options.simulations}",
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": asdict(describe()),
            "simulations": options.simulations,
            "found": measure(options.simulations, lambda line: print(line, file=sys.stderr, flush=True)),
        }
        options.keep.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.json:
        print(json.dumps(document, ensure_ascii=False))
        return 0
    print(f"{document['command']}: {document['date'][:10]}, {document['simulations']} simulations of each cell\n")
    print("\n".join(lines(document["found"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
