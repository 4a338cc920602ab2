# SPDX-License-Identifier: Apache-2.0
"""The loop's first steps: take the signal, ask consenting devices for inputs, bring them here, examine them."""

import base64
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge_contract import canonical, durable
from edge_contract.counts import Counters
from edge_contract.errors import StropError, UsageError
from edge_contract.profile import ReferenceProfile
from edge_contract.summary import decode
from fleet.adapters.unsealing import load_key, new_key, unseal, write_npz
from fleet.client import FleetClient
from strop.loop.model_steps import present_of
from strop.loop.work import Work

if TYPE_CHECKING:
    from strop.loop.present import Present

__all__ = ["SAMPLES", "capture", "close_campaign", "collect", "examine", "open_teacher", "take"]

SAMPLES: Final = "samples.npz"
_KEY: Final = "capture.key"


def take(work: Work) -> str:
    """Hold the signal; raises RegistryError where another loop has it or somebody has closed it."""
    signal = work.take()["signal"]
    return f"{signal['model']} {signal['bundle'][:12]} on {len(signal['devices'])} devices, held as {work.run.id}"


def capture(work: Work) -> str:
    """Open a capture campaign on the signal's devices that allow it, sealed to a key that stays in the run's folder.

    Raises:
        StropError: No device allows captures.
    """
    facts = work.run.facts("capture")
    if "public_key" not in facts:
        (work.run.folder / _KEY).unlink(missing_ok=True)  # made, and never told to anybody
        devices = _consenting(work)
        until = work.wall() + work.config.limits.capture_s
        work.run.note("capture", devices=devices, until=until, public_key=new_key(work.run.folder / _KEY))
    campaign = work.server.do(lambda client: _campaign(work, client) or _start(work, client))
    work.run.note("capture", campaign=campaign["id"])
    return f"campaign {campaign['id']} on {len(campaign['devices'])} devices"


def _consenting(work: Work) -> list[str]:
    shown = work.server.call("GET", work.signal_path())
    devices = [str(name) for name in shown["consenting"]]
    if not devices:
        what = f"none of the {len(shown['running'])} devices that still run the bundle allows captures"
        fix = "at a device: write 'allowed = true' under [capture] in agent.toml, restart the agent, run the loop again"
        raise StropError(what, where=f"signal {work.run.number}", fix=fix)
    return devices


def _campaign(work: Work, client: FleetClient) -> dict[str, Any] | None:
    """Return our campaign, by its key: nobody else has one with it."""
    ours = work.run.facts("capture")["public_key"]
    return next((one for one in client.call("GET", "/captures") if one["public_key"] == ours), None)


def _start(work: Work, client: FleetClient) -> dict[str, Any]:
    facts, wishes, limits = work.run.facts("capture"), work.config.capture, work.config.limits
    policy = {"random": wishes.random, "low_confidence": wishes.low_confidence, "drifted": wishes.drifted}
    document = {
        "devices": facts["devices"],
        "model": work.run.model,
        "policy": policy,
        "max_samples": wishes.per_device,
        "max_bytes": int(wishes.max_mb * 1e6),
        "hours": min(24 * 31.0, limits.capture_s / 3600),
        "public_key": facts["public_key"],
    }
    made: dict[str, Any] = client.call("POST", "/captures", document)
    return made


def collect(work: Work) -> str:
    """Wait until enough inputs came, open them here, and end the campaign on the server.

    Raises:
        StropError: Fewer than ``minimum_inputs`` came in time, or somebody ended the campaign.
    """
    facts = work.run.facts("collect")
    if "captured_sha256" not in facts:
        name = str(work.run.facts("capture")["campaign"])
        _wait_for_inputs(work, name)
        rows = work.server.call("GET", f"/captures/{name}/samples")
        data = _bring(work, name, sorted(rows, key=lambda row: (row["received"], row["device"], row["number"])))
        counts = dict(Counter(str(row["device"]) for row in rows))
        work.run.lineage["captured_sha256"] = data
        work.run.note("collect", captured_sha256=data, samples=len(rows), devices=counts)
    close_campaign(work)
    facts = work.run.facts("collect")
    return f"{facts['samples']} inputs of {len(facts['devices'])} devices, {facts['captured_sha256'][:12]}"


def _wait_for_inputs(work: Work, name: str) -> None:
    limits, until = work.config.limits, float(work.run.facts("capture")["until"])
    seen, asked = -1, -work.config.capture.collect_s

    def probe() -> bool | None:
        nonlocal seen, asked
        held, live = work.server.do(lambda client: _held(work, client, name))
        if seen < 0 or held - seen >= max(1, limits.wanted_inputs // 10):
            work.say(f"collect: {held} of {limits.wanted_inputs} inputs")
            seen = held
        is_over = not live or work.wall() >= until
        if held >= limits.wanted_inputs or (is_over and held >= limits.minimum_inputs):
            return True
        if is_over:
            why = "the campaign was ended" if not live and work.wall() < until else "the time is over"
            what = f"{held} inputs came, at least {limits.minimum_inputs} are needed: {why}"
            raise StropError(what, where=f"campaign {name}", fix="raise limits.capture_s or capture.random")
        if work.server.monotonic() - asked >= work.config.capture.collect_s:
            asked = work.server.monotonic()
            work.server.call("POST", f"/captures/{name}/collect")
        return None

    work.wait("inputs", probe, until + 60.0)


def _held(work: Work, client: FleetClient, name: str) -> tuple[int, bool]:
    found = _campaign(work, client)
    if found is None:
        raise StropError("it was deleted", where=f"campaign {name}", fix="run the loop again")
    return int(found["samples"]), bool(found["live"])


def _bring(work: Work, name: str, rows: list[dict[str, Any]]) -> str:
    """Fetch, open and write the samples; return the file's SHA-256. What is here since before a restart stays."""
    folder, sealed = work.run.folder / "captured", work.run.folder / "sealed"
    for made in (folder, sealed):
        made.mkdir(exist_ok=True, mode=0o700)
    key = load_key(work.run.folder / _KEY)

    def opened() -> Iterator[tuple[dict[str, Any], bytes]]:
        for row in rows:
            yield unseal(_sealed(work, name, row, sealed), key)

    write_npz(folder / SAMPLES, opened())
    durable.write(folder / "campaign.json", canonical.dumps({"campaign": name, "samples": rows}))
    return canonical.digest((folder / SAMPLES).read_bytes())


def _sealed(work: Work, name: str, row: dict[str, Any], folder: Path) -> bytes:
    path = folder / f"{row['device']}_{row['number']}"
    if path.exists() and canonical.digest(data := path.read_bytes()) == row["sha256"]:
        return data
    fetched = work.server.do(lambda client: client.fetch(f"/captures/{name}/samples/{row['device']}/{row['number']}"))
    path.write_bytes(fetched)  # torn by a power cut it has another digest, and is fetched again
    return fetched


def close_campaign(work: Work) -> None:
    """End our campaign on the server, delete what it holds there, and the key here. Twice changes nothing."""
    facts = work.run.facts("capture")
    if "public_key" in facts and not facts.get("closed"):

        def job(client: FleetClient) -> None:
            found = _campaign(work, client)
            if found is not None:
                client.call("POST", f"/captures/{found['id']}/stop")
                client.call("DELETE", f"/captures/{found['id']}")

        work.server.do(job)
        work.run.note("capture", closed=True)
    (work.run.folder / _KEY).unlink(missing_ok=True)
    shutil.rmtree(work.run.folder / "sealed", ignore_errors=True)


def examine(work: Work) -> str:
    """Refuse a set that is tiny, poisoned, or unlike the drift that asked for it; raises DataError."""
    from strop.loop.captured import examine as look

    profile, drifted = _reference(work)
    found = look(
        work.run.folder / "captured",
        profile,
        minimum=work.config.limits.minimum_inputs,
        present=open_teacher(work),
        drifted=drifted,
        cohort=len(work.run.facts("capture")["devices"]),
    )
    work.run.note("examine", **found.to_json())
    return "; ".join(found.words)


def open_teacher(work: Work) -> "Present | None":
    """Return the present model and its teacher, against which the set is held."""
    from strop.loop.present import open_present

    weights = work.config.model(work.run.model).teacher_weights
    folder = present_of(work)
    return open_present(folder if folder.is_dir() else folder.parent, weights)


def _reference(work: Work) -> tuple[ReferenceProfile | None, Counters | None]:
    """Return the profile of the devices' bundle, and the counters of the windows that alarmed, added up."""
    try:
        data = work.server.do(lambda client: client.fetch(work.signal_path("profile")))
        told = work.server.call("GET", work.signal_path("windows"))["summaries"]
    except UsageError as error:
        work.say(f"examine: without the drifted windows ({error})")
        return None, None
    profile = ReferenceProfile.from_bytes(data)
    summaries = [decode(base64.b64decode(one)) for one in told]
    counted = [one.counters for one in summaries if one.profile_crc == profile.crc]
    return profile, reduce(Counters.merge, counted) if counted else None
