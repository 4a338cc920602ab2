# SPDX-License-Identifier: Apache-2.0
"""``strop loop``: heal a model from its drift signal to production; see how a run stands; answer at a gate."""

import getpass
import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_contract.errors import UsageError

__all__ = ["app"]

app = typer.Typer(
    name="loop", help="Let the fleet heal itself: drift, capture, teacher, recipe, rollout.", no_args_is_help=True
)

Config = Annotated[Path, typer.Option("--config", help="Settings of the loop.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run.", show_default=False)]
Step = Annotated[str, typer.Argument(help="The step that asks, such as train.", show_default=False)]
By = Annotated[str, typer.Option("--by", help="Who answers; the name of your login without it.")]
Note = Annotated[str, typer.Option("--note", help="Why.")]


def _say(text: str) -> None:
    typer.echo(f"{time.strftime('%H:%M:%S')}  {text}", err=True)


@app.command("run")
def run(
    config: Config = Path("loop.toml"),
    *,
    signal: Annotated[int, typer.Option("--signal", min=0, help="Take this signal; 0 waits for the next.")] = 0,
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and take each signal that comes.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with runs that were interrupted.")] = False,
    ask: Annotated[str, typer.Option("--ask", help="Ask a person before these steps, such as train,rollout.")] = "",
    as_json: Json = False,
) -> None:
    """Take a signal and heal its model: capture, train, bundle, shadow, canary, production. Exit code 1 if it fails."""
    from strop.loop import starting
    from strop.loop.config import read_config
    from strop.loop.server import Server

    if watch and (signal or resume):
        raise UsageError("--watch takes every signal, and resumes by itself", where="strop loop run")
    settings = starting.asking(read_config(config), ask)
    server = Server(settings, _say)
    if resume:
        runs = iter(starting.resumed(settings, signal))
    elif signal:
        runs = iter([starting.begin(settings, server, signal)])
    else:
        runs = starting.watched(settings, server, _say)
    for one in runs:
        ended = starting.worked(settings, server, one, _say)
        if watch and ended.state == "failed":
            _say(f"signal {ended.number} stays open: {ended.document['reason']}")
            continue
        found = starting.outcome(ended)
        typer.echo(json.dumps(found, indent=1) if as_json else f"{found['state']}: {found['reason']}")
        if not (watch or resume):
            return


@app.command("status")
def status(
    folder: Annotated[Path | None, typer.Argument(metavar="RUN", help="Folder of one run; all without it.")] = None,
    *,
    config: Config = Path("loop.toml"),
    as_json: Json = False,
) -> None:
    """Show the runs, or one with its steps, times and lineage."""
    from strop.loop.config import read_config
    from strop.loop.journal import Run, runs_in
    from strop.loop.text import one_run, table_of_runs

    if folder is not None:
        found = Run(folder)
        shown: Any = {"run": str(folder), **found.document}
        typer.echo(json.dumps(shown, indent=1) if as_json else one_run(found))
        return
    runs = runs_in(read_config(config).runs)
    documents = [{"run": str(one.folder), **one.document} for one in runs]
    typer.echo(json.dumps(documents, indent=1) if as_json else table_of_runs(runs))


def _answer(folder: Path, step: str, word: str, by: str, note: str) -> None:
    from strop.loop.journal import Run

    who = by or getpass.getuser()
    Run(folder).say(step, word, who, note)
    done = "approved" if word == "approve" else "denied"
    typer.echo(f"{step} of {folder} is {done} by {who}")


@app.command("approve")
def approve(folder: RunFolder, step: Step, by: By = "", note: Note = "") -> None:
    """Let a run go through a gate; also before it stands there."""
    _answer(folder, step, "approve", by, note)


@app.command("deny")
def deny(folder: RunFolder, step: Step, by: By = "", note: Note = "") -> None:
    """Stop a run at a gate: it ends as failed, and its signal stays open with the reason."""
    _answer(folder, step, "deny", by, note)
