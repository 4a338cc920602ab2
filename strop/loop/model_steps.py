# SPDX-License-Identifier: Apache-2.0
"""The loop's middle: train again with the teacher's labels, build and sign the bundle, register it."""

import json
import re
from pathlib import Path
from typing import Any, Final

from edge_contract import canonical
from edge_contract.errors import StropError, UsageError
from fleet.client import FleetClient
from strop.loop.journal import runs_in
from strop.loop.work import Work

__all__ = ["bundle", "next_version", "present_of", "register", "retire", "train"]

_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def train(work: Work) -> str:
    """Distil and quantize again by the model's own recipe, on the captured inputs with the teacher's labels.

    Raises:
        StropError: The training failed, forgot more than ``max_forgetting``, gained nothing on the captured inputs, or
            the present model is not the one of the signal's bundle.
    """
    from strop.loop.training import Healing, retrain

    chosen, folder = work.config.model(work.run.model), work.run.folder
    present = present_of(work)
    wishes: dict[str, Any] = {**chosen.healing, "most_forgotten": 100.0 * work.config.limits.max_forgetting}
    healed = retrain(
        present,
        folder / "captured",
        folder / "healed",
        progress=lambda line: work.say(f"train: {line}"),
        healing=Healing(**wishes),
        teacher_weights=chosen.teacher_weights,
    )
    work.check()
    work.run.note("train", **healed.to_json())
    return healed.words


def present_of(work: Work) -> Path:
    """Return the folder of the compressed model that the parent bundle was made of.

    Raises:
        UsageError: The folder that ``loop.toml`` names holds another model.
    """
    parent = work.run.lineage["parent"]
    for run in runs_in(work.config.runs):
        if run.lineage.get("bundle") == parent and run.facts("train").get("run"):
            return Path(run.facts("train")["run"])
    chosen = work.config.model(work.run.model).recipe
    known = work.server.call("GET", "/models")
    lineage = next((one.get("lineage") or {} for one in known if one["bundle"] == parent), {})
    plan = _plan_of(chosen if chosen.is_dir() else chosen.parent)
    if lineage.get("plan") and plan != lineage["plan"]:
        what = f"holds plan {plan[:12] or 'none'}, the devices' bundle {parent[:12]} has {lineage['plan'][:12]}"
        fix = f"let [model.{work.run.model}] recipe name the folder that this bundle was made of"
        raise UsageError(what, where=str(chosen), fix=fix)
    return chosen


def _plan_of(folder: Path) -> str:
    try:
        return str(json.loads((folder / "model.json").read_text(encoding="utf-8")).get("plan", ""))
    except (OSError, ValueError) as error:
        fix = "name the folder that strop compress run wrote"
        raise UsageError(f"no compressed model: {error}", where=str(folder), fix=fix) from error


def bundle(work: Work) -> str:
    """Build the bundle with its lineage (parent, captured inputs, signal), prove it in every runtime, sign it.

    Raises:
        StropError: As ``strop export bundle``: a runtime disagrees, a check fails, a key is missing.
    """
    from export.bundle import material
    from export.keys import teams

    teams.describe(work.config.keys)
    if "version" not in work.run.facts("bundle"):
        work.run.note("bundle", version=work.server.do(lambda client: next_version(client, work)))
    chosen, lineage = work.config.model(work.run.model), work.run.lineage
    out, version = work.run.folder / "bundle", str(work.run.facts("bundle")["version"])
    built = material.bundle(
        Path(work.run.facts("train")["run"]),
        out,
        version=version,
        parent=lineage["parent"],
        pythons=list(chosen.runtime_python),
        overwrite=True,
        targets_named=chosen.targets,
        waived=_waived(work, Path(work.run.facts("train")["run"])),
        loop={"signal": lineage["signal"], "captured": lineage["captured_sha256"]},
    )
    if built.manifest.model != work.run.model:
        what = f"the recipe makes model '{built.manifest.model}', the signal is of '{work.run.model}'"
        raise UsageError(what, where=str(chosen.recipe), fix=f"correct [model.{work.run.model}] in {work.config.path}")
    teams.sign(work.config.keys, out)
    lineage.update(bundle=built.manifest.bundle_id, version=version)
    work.run.note("bundle", bundle=built.manifest.bundle_id)
    return f"{work.run.model} {version}, {built.manifest.bundle_id[:12]}"


def _waived(work: Work, folder: Path) -> tuple[Any, ...]:
    """Return waivers of the checks that failed and that ``loop.toml`` lets fail; a waiver of another one is a slip."""
    from compress import report_files
    from compress.checks.gate import waivers
    from compress.checks.outcome import failed_of

    failed = {one.name for one in failed_of(report_files.read(folder).checks)}
    names = [name for name in work.config.model(work.run.model).waive if name in failed]
    return waivers(names, [f"waived in {work.config.path.name}"] if names else [])


def next_version(client: FleetClient, work: Work) -> str:
    """Return the version after the parent's that is not taken: the last number counts up."""
    known = {one["version"]: one["bundle"] for one in client.call("GET", "/models") if one["model"] == work.run.model}
    parent = next((name for name, found in known.items() if found == work.run.lineage["parent"]), "")
    match = _VERSION.fullmatch(parent)
    if match is None:
        return _free(f"{parent or 'parent'}-healed-{work.run.number}", known)
    major, minor, patch = (int(part) for part in match.groups())
    while f"{major}.{minor}.{patch}" in known:
        patch += 1
    return f"{major}.{minor}.{patch}"


def _free(name: str, known: dict[str, Any]) -> str:
    count = 1
    while (found := name if count == 1 else f"{name}.{count}") in known:
        count += 1
    return found


def register(work: Work) -> str:
    """Upload and register the bundle; one that is registered already is left as it is.

    Raises:
        StropError: The server refuses it.
    """
    folder, found = work.run.folder / "bundle", str(work.run.facts("bundle")["bundle"])
    if canonical.digest((folder / "manifest.json").read_bytes()) != found:
        raise StropError("is not the bundle of this run any more", where=str(folder), fix="run the loop again")
    work.server.do(lambda client: _known(client, found) or client.add_model(folder, _targets(work.config.keys)))
    work.run.note("register", done=True)
    return f"{work.run.model} {work.run.facts('bundle')['version']} is registered"


def _targets(keys: Path) -> Path:
    from export.keys import teams

    if teams.is_team_folder(keys):
        return keys / f"{teams.describe_team(keys)['team']}.json"
    return keys / "targets.json"


def _known(client: FleetClient, bundle_id: str) -> bool:
    return any(one["bundle"] == bundle_id for one in client.call("GET", "/models"))


def retire(work: Work, reason: str) -> None:
    """Take a version that will not be used out of the registry's race; one in production or none is left alone."""
    found = work.run.facts("bundle").get("bundle", "")

    def job(client: FleetClient) -> None:
        if found and _known(client, found):
            version = work.run.facts("bundle")["version"]
            client.call("POST", f"/models/{work.run.model}/versions/{version}/retire", {"reason": reason})

    work.server.do(job)
