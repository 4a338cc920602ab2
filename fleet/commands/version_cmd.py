# SPDX-License-Identifier: Apache-2.0
"""``strop fleet model show | lineage | search | diff | check | approve | attach`` and ``strop fleet rules …``."""

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from edge_contract.errors import UsageError
from fleet.client import connect
from fleet.commands.options import Data, Json, Server, TokenFile, percent, print_answer, table
from fleet.commands.release_cmd import Model, Version, version_path

__all__ = ["VERBS", "rules"]

rules = typer.Typer(help="Promotion rules: what a version must show for a channel.", no_args_is_help=True)


def _digest(text: str) -> str:
    return text[:12] or "–"


def _accuracy(found: dict[str, Any]) -> str:
    low = found.get("accuracy_low")
    return percent(found.get("accuracy")) + (f" (≥ {percent(low)})" if low is not None else "")


def show(
    model: Model, version: Version, data: Data = None, server: Server = "", token_file: TokenFile = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Show one version: files, channels, accuracy, evidence, and where it is in use."""
    found = connect(data, server, token_file).call("GET", version_path(model, version))
    score = found["accuracy"]
    said = f"{percent(score['value'])} [{percent(score['low'])}, {percent(score['high'])}]" if score else "–"
    rows = [
        ["bundle", found["bundle"]],
        ["size", f"{found['size']} bytes in {len(found['files'])} files"],
        ["accuracy", f"{said} of {score['samples']} {score['split']} samples" if score else said],
        ["parent", found["parent"] or "–"],
        ["registered by", found["registered_by"] or "–"],
        ["channels", ", ".join(found["channels"]) or "–"],
        ["in use", "; ".join(found["uses"]) or "nowhere"],
    ]
    checks = found["checks"]
    rows += [["checks passed", ", ".join(checks["passed"])]] if checks["passed"] else []
    for one in checks["waived"]:
        words = f"{one['name']}, {one['figure']}, asked {one['limit']}: {one['reason']}"
        rows.append(["check waived", words])
    rows += [["retired", found["retired"]["reason"] or "yes"]] if found["retired"] else []
    rows += [[one["kind"], f"{one['subject']} by {one['actor']}"] for one in found["evidence"]]
    print_answer(found, as_json, table(rows))


def lineage(
    model: Model, version: Version, data: Data = None, server: Server = "", token_file: TokenFile = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Show where a version comes from and what came from it."""
    found = connect(data, server, token_file).call("GET", version_path(model, version, "/lineage"))
    first = min(one["depth"] for one in found)
    lines = []
    for one in found:
        mark = "▶ " if one["depth"] == 0 else "  "
        name = f"{one['model']} {one['version']}" if one["known"] else "not registered"
        said = f"{mark}{'  ' * (one['depth'] - first)}{name}  {one['bundle'][:12]}"
        if one["known"]:
            digests = "  ".join(f"{key} {_digest(one[key])}" for key in ("recipe", "data", "teacher", "code"))
            held = f"  in {', '.join(one['channel'])}" if one["channel"] else ""
            said += f"  {_accuracy(one)}  {digests}{held}"
        lines.append(said)
    print_answer(found, as_json, "\n".join(lines))


def search(
    query: Annotated[str, typer.Argument(help="Such as 'recipe:fa0c7d83 and size<50000 and precision:int8'.")],
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Find versions by their facts: digests of the lineage, sizes, precision, target, accuracy, channel."""
    found = connect(data, server, token_file).call("GET", f"/versions?q={quote(query, safe='')}")
    rows = [["MODEL", "VERSION", "BUNDLE", "BYTES", "PRECISION", "ACCURACY", "RECIPE", "DATA", "CHANNELS"]]
    for one in found:
        names = [one["model"], one["version"], one["bundle"][:12], str(one["size"]), ",".join(one["precision"])]
        digests = [_digest(one["recipe"]), _digest(one["data"])]
        rows.append([*names, _accuracy(one), *digests, ", ".join(one["channel"]) or "–"])
    print_answer(found, as_json, table(rows))


def diff(
    model: Model,
    old: Annotated[str, typer.Argument(metavar="OLD")],
    new: Annotated[str, typer.Argument(metavar="NEW")],
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Show what differs between two versions of a model."""
    path = f"/models/{quote(model, safe='')}/diff?old={quote(old, safe='')}&new={quote(new, safe='')}"
    found = connect(data, server, token_file).call("GET", path)
    rows = [["WHAT", old, new]]
    rows += [[key, _shown(a), _shown(b)] for key, (a, b) in found["facts"].items()]
    rows += [[path, _bytes(a), _bytes(b) + (", changed" if a == b else "")] for path, (a, b) in found["files"].items()]
    parity = [f"{p['pairs']} pairs, {p['max_steps']} steps at most" if p else "–" for p in found["parity"]]
    rows += [["parity", *parity]] if parity[0] != parity[1] else []
    rows += [[f"profile of {name}", *map(_profile, pair)] for name, pair in found["profiles"].items()]
    text = f"{table(rows)}\na device with {old} has {found['kept']} bytes of {new} already"
    print_answer(found, as_json, text)


def _bytes(count: int) -> str:
    return f"{count} bytes" if count else "–"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:12] or "–"


def _profile(said: dict[str, Any] | None) -> str:
    if not said:
        return "–"
    return f"{said['sha256'][:8]}, {said.get('samples', '?')} samples, accuracy {percent(said.get('accuracy'))}"


def check(
    model: Model, version: Version, data: Data = None, server: Server = "", token_file: TokenFile = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Judge a version by the rules: each condition in words. Exit code 1 if no channel's rule is met."""
    found = connect(data, server, token_file).call("GET", version_path(model, version, "/check"))
    lines = [] if found else ["no rule binds this model"]
    for one in found:
        state = "stands there" if one["standing"] else "met" if one["met"] else "not met"
        how = ", by itself" if one["automatic"] else ""
        lines += [f"{one['channel']}: {state}{how}", *(f"  {outcome['words']}" for outcome in one["outcomes"])]
    print_answer(found, as_json, "\n".join(lines))
    if found and not any(one["met"] or one["standing"] for one in found):
        raise typer.Exit(1)


def approve(
    model: Model,
    version: Version,
    note: Annotated[str, typer.Option("--note", help="What was looked at.")] = "",
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Take the approval back.")] = False,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Approve a version, as somebody other than the one who registered it."""
    document = {"note": note, "undo": undo}
    answer = connect(data, server, token_file).call("POST", version_path(model, version, "/approve"), document)
    print_answer(answer, as_json, _moved(f"{model} {version} {'is not' if undo else 'is'} approved", answer))


def attach(
    model: Model,
    version: Version,
    measurement: Annotated[Path, typer.Argument(help="A measurement, of the form edgebench/1.")],
    target: Annotated[str, typer.Option("--target", help="Its target, where the board does not tell.")] = "",
    *,
    data: Data = None,
    server: Server = "",
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Attach a latency measurement of one of a version's model files."""
    try:
        document = json.loads(measurement.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(measurement)) from error
    body = {"target": target, "measurement": document}
    answer = connect(data, server, token_file).call("POST", version_path(model, version, "/measurements"), body)
    print_answer(answer, as_json, _moved(f"attached {measurement} to {model} {version}", answer))


def _moved(words: str, answer: dict[str, Any]) -> str:
    return "\n".join([words, *(f"by the rules, it is {move['channel']} now" for move in answer["moves"])])


@rules.command("show")
def rules_show(data: Data = None, server: Server = "", token_file: TokenFile = None, as_json: Json = False) -> None:
    """Print the rules in force, as their file says them."""
    found = connect(data, server, token_file).call("GET", "/rules")
    where = f"the packaged default; {found['file']} would replace it" if found["default"] else found["file"]
    print_answer(found, as_json, f"# {where}\n{found['text'].rstrip()}")


@rules.command("check")
def rules_check(
    file: Annotated[Path, typer.Argument(help="A rules.toml, before it goes into the data folder.")],
    as_json: Json = False,
) -> None:
    """Read a rules file and say what is wrong with it; needs no server."""
    from fleet.adapters.rule_book import RuleBook

    if not file.is_file():
        raise UsageError("no such file", where=str(file))
    found = RuleBook(file).rules()
    lines = [f"{file}: {len(found)} rules"]
    for rule in found:
        asked = sorted(rule.to_json().keys() - {"channel", "model", "automatic"})
        lines.append(f"{rule.channel} of {rule.model}{', by itself' if rule.automatic else ''}: {', '.join(asked)}")
    print_answer([rule.to_json() for rule in found], as_json, "\n".join(lines))


VERBS = (show, lineage, search, diff, check, approve, attach)
