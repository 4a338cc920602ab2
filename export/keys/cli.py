# SPDX-License-Identifier: Apache-2.0
"""``strop export keys``: the offline signing keys, on the workstation and nowhere else."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edge_contract.errors import MissingDependencyError, UsageError

__all__ = ["app"]

app = typer.Typer(help="Offline signing keys: root and targets of the TUF repository.", no_args_is_help=True)

Keys = Annotated[Path, typer.Argument(help="The keys folder; keep it off the server.", show_default=False)]
Online = Annotated[Path | None, typer.Option("--online", help="The server's online.pub, from <data>/tuf/.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _signing() -> Any:
    try:
        from export.keys import signing
    except ImportError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed", fix="pip install 'strop[workstation]'"
        ) from error
    return signing


def _teams() -> Any:
    _signing()
    from export.keys import teams

    return teams


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _say(report: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
    typer.echo(json.dumps(report, indent=2) if as_json else "\n".join(lines))


@app.command()
def init(
    keys: Keys,
    *,
    online: Online = None,
    root_keys: Annotated[int, typer.Option(help="How many root keys to make.")] = 1,
    threshold: Annotated[int, typer.Option(help="How many of them must sign a root.")] = 1,
    as_json: Json = False,
) -> None:
    """Make root and targets keys, root.json and an empty targets.json."""
    if online is None:
        raise UsageError("--online is missing", fix="give the server's <data>/tuf/online.pub")
    _signing().create_keys(keys, _read(online), root_keys=root_keys, threshold=threshold)
    _say(*_described(keys), as_json=as_json)


@app.command()
def show(keys: Keys, *, as_json: Json = False) -> None:
    """Show roles, versions, expiries and signed bundles."""
    _say(*_described(keys), as_json=as_json)


@app.command()
def rotate(
    keys: Keys,
    *,
    targets: Annotated[bool, typer.Option("--targets", help="Replace the targets key.")] = False,
    root: Annotated[bool, typer.Option("--root", help="Replace every root key.")] = False,
    online: Online = None,
    as_json: Json = False,
) -> None:
    """Write the next root.json and targets.json; without an option only their dates are renewed."""
    online_public = _read(online) if online is not None else None
    _signing().rotate_keys(keys, new_targets=targets, new_root=root, online_public=online_public)
    _say(*_described(keys), as_json=as_json)


@app.command()
def sign(
    keys: Keys,
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.", show_default=False)],
    *,
    as_json: Json = False,
) -> None:
    """Add a bundle to targets.json, or in a team's folder to the team's own metadata."""
    _teams().sign(keys, bundle)
    _say(*_described(keys), as_json=as_json)


@app.command()
def withdraw(
    keys: Keys,
    bundle: Annotated[str, typer.Argument(help="The bundle's id.", show_default=False)],
    *,
    as_json: Json = False,
) -> None:
    """Take a bundle out of targets.json, so that no device can install it any more."""
    signing, teams = _signing(), _teams()
    (teams.withdraw_for_team if teams.is_team_folder(keys) else signing.withdraw_bundle)(keys, bundle)
    _say(*_described(keys), as_json=as_json)


Patterns = Annotated[list[str], typer.Option("--model", help="Pattern on model names, such as 'vision-*'; repeat it.")]
Team = Annotated[str, typer.Argument(metavar="TEAM", help="Small letters, digits and '-'.", show_default=False)]


@app.command()
def team(
    folder: Annotated[Path, typer.Argument(help="The team's own keys folder.", show_default=False)],
    name: Team,
    model: Patterns,
    *,
    as_json: Json = False,
) -> None:
    """Make a team's key, or a new one in place of it; 'delegate' then lets it sign its models."""
    _teams().create_team(folder, name, model)
    _say(*_described(folder), as_json=as_json)


@app.command()
def delegate(
    keys: Keys,
    name: Team,
    model: Patterns,
    public: Annotated[Path, typer.Option("--public", help="The team's <team>.pub.", show_default=False)],
    *,
    as_json: Json = False,
) -> None:
    """Let a team's key sign the models that fit; publish targets.json afterwards."""
    _teams().delegate(keys, name, model, _read(public))
    _say(*_described(keys), as_json=as_json)


@app.command()
def undelegate(keys: Keys, name: Team, *, as_json: Json = False) -> None:
    """Let a team sign nothing any more; publish targets.json afterwards."""
    _teams().delegate(keys, name, [], None)
    _say(*_described(keys), as_json=as_json)


def _described(keys: Path) -> tuple[dict[str, Any], list[str]]:
    if _teams().is_team_folder(keys):
        return _described_team(keys)
    report: dict[str, Any] = _signing().describe_keys(keys)
    lines = [
        f"root.json     version {report['root']['version']}, until {report['root']['expires'][:10]}",
        f"targets.json  version {report['targets']['version']}, until {report['targets']['expires'][:10]}",
    ]
    for name, role in sorted(report["roles"].items()):
        held = sum(role["keys"].values())
        lines.append(f"{name:<12}  {role['threshold']} of {len(role['keys'])} keys must sign, {held} here")
    lines += [f"team          {name} signs {', '.join(one['paths'])}" for name, one in sorted(report["teams"].items())]
    lines += [f"bundle        {b['bundle'][:16]}  {b['model']} {b['version']}" for b in report["bundles"]]
    return report, lines


def _described_team(folder: Path) -> tuple[dict[str, Any], list[str]]:
    report: dict[str, Any] = _teams().describe_team(folder)
    lines = [
        f"team          {report['team']} signs {', '.join(report['models'])}",
        f"{report['team']}.json  version {report['targets']['version']}, until {report['targets']['expires'][:10]}",
    ]
    lines += [f"bundle        {b['bundle'][:16]}  {b['model']} {b['version']}" for b in report["bundles"]]
    return report, lines
