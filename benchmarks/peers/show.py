# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.peers.show``: write the tables of ``docs/peers.md`` from a results file.

Without a file, the newest of ``results/`` by the day in its name. What stands between a ``<!-- peers: NAME -->`` and
the next ``<!-- /peers -->`` is replaced; all other words of the page are people's.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks.machine import Machine
from benchmarks.peers import store
from benchmarks.peers.agents import FOLDER as AGENTS
from benchmarks.peers.agents import table as agents_table
from benchmarks.peers.environments import ROOT
from benchmarks.peers.run import RESULTS
from benchmarks.peers.tables import accuracy_table, flatness_table, markdown, noise_table, pairs_table
from edge_contract.errors import StropError, UsageError

__all__ = ["PAGE", "blocks", "filled", "main", "newest"]

PAGE: Final = ROOT / "docs/peers.md"
_BLOCK: Final = re.compile(r"(<!-- peers: (?P<name>[^>]+?) -->\n).*?(<!-- /peers -->)", re.DOTALL)


def newest(folder: Path = RESULTS) -> Path:
    """Return the results file of the last day.

    Raises:
        UsageError: There is none.
    """
    found = sorted(folder.glob("*.json"), key=lambda path: (path.stem[-10:], path.stem))
    if not found:
        raise UsageError("no results file", where=str(folder), fix="python -m benchmarks.peers.run --net mobilenet-v2")
    return found[-1]


def blocks(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the generated text of each block by name."""
    nets = document["nets"]
    found = {net: markdown(accuracy_table(net, entry)) for net, entry in nets.items()}
    found |= {f"pairs of {net}": markdown(pairs_table(net, entry)) for net, entry in nets.items()}
    found["noise"], found["flatness"] = markdown(noise_table(nets)), markdown(flatness_table(nets))
    found["agents"] = markdown(agents_table(store.read_json(newest(AGENTS))))
    commands = "\n".join(document["commands"])
    found["machine"] = f"{Machine(**document['machine'])}\n\n```text\n{commands}\n```"
    return found


def filled(page: str, document: Mapping[str, Any]) -> str:
    """Return a page with its blocks written anew.

    Raises:
        UsageError: A block that the results file knows nothing about.
    """
    known = blocks(document)

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in known:
            raise UsageError(f"the results say nothing about '{name}'", where="peers.md", fix="run its network's rows")
        return f"{match[1]}{known[name]}\n{match[3]}"

    return _BLOCK.sub(block, page)


def main(
    results: Annotated[Path | None, typer.Argument(help="A results file; without it the newest.")] = None,
    page: Annotated[Path, typer.Option(help="The page to write.")] = PAGE,
) -> None:
    """Write the tables of the page."""
    chosen = results or newest()
    page.write_text(filled(page.read_text(encoding="utf-8"), store.read_json(chosen)), encoding="utf-8")
    typer.echo(f"{page} from {chosen.name}")


def _run() -> int:
    try:
        typer.run(main)
    except StropError as error:
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(_run())
