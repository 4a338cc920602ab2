# SPDX-License-Identifier: Apache-2.0
"""``make demo``: the whole story on this machine, with real parts.

A teacher is trained and distilled into a small int8 model; three devices get it by waves; one loses its
network, one loses its data's distribution, and a bad update is stopped by the first device that tries it.
What happened is printed, written to ``summary.json`` and drawn in ``report.html``.
"""

import argparse
import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from edge_contract.errors import StropError, UsageError
from examples.digits import chapters, story_report
from examples.digits.stage import Stage

__all__ = ["main", "tell"]

ROOT = Path(__file__).resolve().parents[2]
MARK = ".strop-demo"


def tell(work: Path, console: Console, *, keep: bool = False, http_port: int = 0) -> dict[str, Any]:
    """Tell the whole story in a folder and return its facts.

    Args:
        work: Empty or new folder for everything: checkpoints, bundles, keys, the server's and devices' data.
        console: Where the story is printed.
        keep: Leave the server and the devices running until Ctrl-C.
        http_port: Port of the web page; 0 takes a free one.

    Raises:
        StropError: A step of the story did not do what it claims.
    """
    facts: dict[str, Any] = {"timings_s": {}}
    with Stage(work, console, http_port=http_port) as stage:
        for number, (title, chapter) in enumerate(chapters.CHAPTERS, 1):
            console.rule(f"[bold]{number}. {title}", align="left")
            started = time.monotonic()
            chapter(stage, facts)
            facts["timings_s"][title] = round(time.monotonic() - started, 1)
        _finish(stage, facts, console)
        if keep:
            _keep(stage, facts, console)
    return facts


def _finish(stage: Stage, facts: dict[str, Any], console: Console) -> None:
    (stage.work / "summary.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    report = stage.work / "report.html"
    report.write_text(story_report.page(facts))
    console.rule("[bold]What happened", align="left")
    console.print(summary_table(facts))
    total = sum(facts["timings_s"].values())
    console.print(f"The story took {total:.0f} s. Pictures: {report}")


def summary_table(facts: dict[str, Any]) -> Table:
    """Return the claims of the story, each with what was seen."""
    table = Table("claim", "seen", show_lines=False)
    for claim, seen in chapters.claims(facts):
        table.add_row(claim, seen)
    return table


def _empty_stage(work: Path) -> None:
    mark = work / MARK
    if work.exists() and any(work.iterdir()) and not mark.exists():
        raise UsageError("the folder holds something else", where=str(work), fix="name a new one with --work")
    shutil.rmtree(work, ignore_errors=True)  # a story starts on an empty stage
    work.mkdir(parents=True)
    mark.touch()


def _keep(stage: Stage, facts: dict[str, Any], console: Console) -> None:
    console.print(f"\nThe server and its devices go on: open [bold]{facts['page']}[/bold]; Ctrl-C ends everything.")
    try:
        while True:
            stage.check_alive()
            time.sleep(1.0)
    except KeyboardInterrupt:
        console.print("Stopping.")


def main() -> int:
    """Run the demo from the command line."""
    parser = argparse.ArgumentParser(prog="demo", description="The whole story on this machine, with real parts.")
    parser.add_argument("--work", type=Path, default=ROOT / "demo-out", help="folder for everything it makes")
    parser.add_argument("--keep", action="store_true", help="leave the server, its page and the devices running")
    parser.add_argument("--http-port", type=int, default=0, help="port of the web page (default: a free one)")
    parser.add_argument("--debug", action="store_true", help="show a traceback")
    options = parser.parse_args()
    console = Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stop from outside ends the devices too
    try:
        _empty_stage(options.work)
        tell(options.work, console, keep=options.keep, http_port=options.http_port)
    except StropError as error:
        if options.debug:
            raise
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
