# SPDX-License-Identifier: Apache-2.0
"""Benchmarks on the fleet: orders, words, results. One at a time on each device, for two would disturb each other.

An order is said on ``cmd/bench/<id>`` with its signed document, again at each birth of the device and once a minute
until it is answered. A withdrawal is ``cmd/bench-cancel/<id>``. Files come by HTTPS; each has its SHA-256 as receipt,
and the device forgets nothing without one.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from edge_contract import canonical
from edge_contract.bench_job import RESULT, BenchOutcome
from edge_contract.bench_words import CANCEL, COMMAND
from edge_contract.errors import ContractError, MessageError, RegistryError, UsageError
from edge_contract.topics import Topic, is_name, topic
from fleet.adapters import bench_rows, device_states, fleet_query, tables
from fleet.adapters.blob_sweep import FileTurns
from fleet.adapters.database import Connection
from fleet.adapters.desk import Desk
from fleet.adapters.orders import Message
from fleet.core import bench
from fleet.core.bench import BenchPart, BenchRun, Model, read_request
from fleet.core.bench_summary import summary
from fleet.core.capture import Refusal

__all__ = ["BenchVerbs"]

AGAIN_S: Final = 60.0
_GONE: Final = Refusal(404, "no such benchmark for this device")


class BenchVerbs:
    """The benchmarks of one server. Safe to use from any thread.

    Args:
        desk: Database, blobs, trust, clock.
        files: Turns at the files that are to be measured.
    """

    def __init__(self, desk: Desk, files: FileTurns) -> None:
        self._desk, self._files = desk, files

    def start(self, document: Any, actor: str) -> dict[str, Any]:
        """Ask every device that fits the query; return the benchmark with its parts.

        Raises:
            UsageError: No device fits, too many do, a file was not uploaded, or as ``read_request``.
            RegistryError: No such model.
        """
        now = self._desk.clock()
        asked = read_request(document, f"b{int(now * 1000):012x}{self._desk.random_bytes(3).hex()}", actor, now)

        def job(db: Connection) -> tuple[dict[str, Any], list[Message]]:
            run = replace(asked, model=self._known(db, asked.model))
            devices, held = fleet_query.matching(db, run.query, now), device_states.quarantined(db)
            _check_count(devices, run.query)
            bench_rows.add_run(db, run)
            messages: list[Message] = []
            for number, device in enumerate(devices):
                part = BenchPart(f"{run.id}-{number}", run.id, device, "queued", "", now, 0.0, now, run.expires_at, {})
                if device in held:
                    part = bench.ended(part, "refused", "the device is in quarantine", now)
                bench_rows.put_part(db, part)
                messages += self._say(db, device, now)
            bench_rows.make_room(db)
            detail = {"query": run.query, "devices": len(devices), "model": run.model.to_json()}
            self._desk.audit(db, actor, "bench.start", run.id, detail)
            return self._shown(db, run), messages

        with self._files.using():  # no sweep between the look at the files and the row that needs them
            return self._desk.do(job)

    def _known(self, db: Connection, model: Model) -> Model:
        for file in model.files:
            if self._desk.blobs.size(file.sha256) != file.size:
                what = f"'{file.name}' is not on the server, or has another size"
                raise UsageError(what, where="benchmark.model", fix=f"PUT /api/v1/blobs/{file.sha256} first")
        return model if model.files else _registered(db, model)

    def _say(self, db: Connection, device: str, now: float, *, again: bool = False) -> list[Message]:
        """Return the order whose turn it is on a device, if any; one that was said already only ``again``."""
        part = bench_rows.first_open(db, device)
        if part is None or part.state not in (("queued", "sent") if again else ("queued",)):
            return []
        bench_rows.put_part(db, replace(part, state="sent", said_at=now))
        order = bench.job_for(bench_rows.known_run(db, part.run), part)
        envelope = self._desk.trust.signer.sign_bytes(order.to_bytes()).to_json()
        return [self._message(device, COMMAND, part.id, canonical.dumps({"v": 1, "order": envelope}))]

    def _message(self, device: str, kind: str, name: str, payload: bytes = b'{"v":1}') -> Message:
        return Message(topic(self._desk.addresses.tenant, device, f"cmd/{kind}/{name}"), payload, retain=False)

    def again(self, db: Connection, device: str) -> list[Message]:
        """Return what a device that has just connected is to hear: withdrawals, and the order whose turn it is."""
        part = bench_rows.first_open(db, device)
        if part is not None and part.state == "cancelling":
            return [self._message(device, CANCEL, part.id)]
        return self._say(db, device, self._desk.clock(), again=True)

    def heard(self, said: Topic, answer: dict[str, Any]) -> Callable[[Connection, float], None]:
        """Return what keeps a device's word on ``cmd/bench/…/result`` or ``cmd/bench-cancel/…/result``."""

        def keep(db: Connection, now: float) -> None:
            part = bench_rows.part(db, said.parts[2], said.device)
            if part is None:
                raise MessageError(f"nobody asked '{said.parts[2][:40]}' of this device", where=str(said)[:200])
            if said.parts[1] == CANCEL and not answer.get("ok"):
                return  # it knows of no such benchmark: its own last word, or the end of its time, comes
            after = bench.heard(part, answer, now)
            if after != part:
                bench_rows.put_part(db, after)

        return keep

    def step(self) -> int:
        """End what is too late, and say what waits for an answer again; called once a minute. Returns the changes."""
        now = self._desk.clock()

        def job(db: Connection) -> tuple[int, list[Message]]:
            changed, messages = 0, list[Message]()
            parts = bench_rows.all_open(db)
            for part in parts:
                if (after := bench.has_ended(part, now)) != part:
                    bench_rows.put_part(db, after)
                    changed += 1
            for device in dict.fromkeys(part.device for part in parts):
                messages += self._due(db, device, now)
            return changed, messages

        return self._desk.do(job) if self._desk.store.read(bench_rows.all_open) else 0

    def _due(self, db: Connection, device: str, now: float) -> list[Message]:
        part = bench_rows.first_open(db, device)
        if part is None or (part.state == "sent" and now - part.said_at < AGAIN_S):
            return []
        return self.again(db, device)

    def cancel(self, run_id: str, actor: str) -> dict[str, Any]:
        """Withdraw a benchmark: what no device has begun ends at once, a device that measures is told to stop.

        Raises:
            UsageError: No such benchmark.
        """
        now = self._desk.clock()

        def job(db: Connection) -> tuple[dict[str, Any], list[Message]]:
            run, messages = bench_rows.known_run(db, run_id), list[Message]()
            parts = [part for part in bench_rows.parts_of(db, run_id) if part.is_open]
            for part in parts:
                bench_rows.put_part(db, _withdrawn(part, actor, now))
                messages += [self._message(part.device, CANCEL, part.id)] if part.state != "queued" else []
                messages += self._say(db, part.device, now)
            if parts:
                self._desk.audit(db, actor, "bench.cancel", run_id, {"devices": len(parts)})
            return self._shown(db, run), messages

        return self._desk.do(job)

    def listed(self) -> list[dict[str, Any]]:
        """Return every benchmark with how its parts stand, the newest first."""

        def read(db: Connection) -> list[dict[str, Any]]:
            counts: dict[str, dict[str, int]] = {}
            for row in db.execute("SELECT run, state, COUNT(*) AS n FROM bench_jobs GROUP BY run, state"):
                counts.setdefault(row["run"], {})[row["state"]] = row["n"]
            return [{**run.to_json(), "states": counts.get(run.id, {})} for run in bench_rows.runs(db)]

        return self._desk.store.read(read)

    def show(self, run_id: str) -> dict[str, Any]:
        """Return a benchmark with each device's part and the summary of its result; raises UsageError for none."""
        return self._desk.store.read(lambda db: self._shown(db, bench_rows.known_run(db, run_id)))

    def _shown(self, db: Connection, run: BenchRun) -> dict[str, Any]:
        parts = bench_rows.parts_of(db, run.id)
        jobs = [{**one.to_json(), "files": sorted(bench_rows.files_of(db, one.id))} for one in parts]
        return {**run.to_json(), "jobs": jobs, "is_open": any(one.is_open for one in parts)}

    def file(self, run_id: str, device: str, name: str) -> bytes:
        """Return a file of a device's result; raises UsageError if there is none."""
        return self._desk.store.read(
            lambda db: bench_rows.payload(db, bench_rows.known_part(db, run_id, device).id, name)
        )

    def wants(self, job: str, device: str, sha256: str) -> bool:
        """True if a device may fetch a plain file: its order is open and names it."""

        def read(db: Connection) -> bool:
            part = bench_rows.part(db, job, device)
            if part is None or not part.is_open:
                return False
            return sha256 in {file.sha256 for file in bench_rows.known_run(db, part.run).model.files}

        return self._desk.store.read(read)

    def take(self, job: str, device: str, name: str, payload: bytes) -> str | Refusal:
        """Store one file of a result and return its SHA-256, the receipt; the same one again changes nothing."""
        digest, now = hashlib.sha256(payload).hexdigest(), self._desk.clock()

        def keep(db: Connection) -> Refusal | None:
            part = bench_rows.part(db, job, device)
            if part is None or not is_name(name):
                return _GONE
            if not part.is_open:
                return _ended(part)
            others = [held for held in bench_rows.files_of(db, job) if held != name]
            if why := bench.why_too_large(name, len(payload), len(others)):
                return Refusal(413, why)
            bench_rows.put_file(db, part, name, digest, payload, now)
            return None

        return self._desk.store.write(keep) or digest

    def end(self, job: str, device: str, payload: bytes) -> str | Refusal:
        """Take a device's last word; what it names must have come before. The receipt is the SHA-256 of the word.

        Raises:
            MessageError: It is none, or of another order.
        """
        outcome, now = BenchOutcome.from_bytes(payload), self._desk.clock()
        if outcome.id != job:
            raise MessageError("is of another order", where="benchmark outcome")

        def keep(db: Connection) -> tuple[Refusal | None, list[Message]]:
            part = bench_rows.part(db, job, device)
            if part is None or not part.is_open:
                return (_GONE if part is None else None if _is_same(part, outcome) else _ended(part)), []
            held = {name: file.sha256 for name, file in bench_rows.files_of(db, job).items()}
            if missing := [name for name, sha256 in outcome.files.items() if held.get(name) != sha256]:
                return Refusal(409, f"'{missing[0]}' has not come yet"), []
            bench_rows.put_part(db, _with_outcome(db, part, outcome, now))
            return None, self._say(db, device, now)

        refused = self._desk.do(keep)
        return refused or hashlib.sha256(payload).hexdigest()


def _check_count(devices: list[str], query: str) -> None:
    if not devices:
        raise UsageError("no device fits", where=f"query {query!r:.200}", fix="strop fleet device list")
    if len(devices) > bench.MAX_DEVICES:
        what = f"{len(devices)} devices fit, at most {bench.MAX_DEVICES} measure at once"
        raise UsageError(what, where=f"query {query!r:.200}", fix="narrow it, such as with 'and tag:lab'")


def _registered(db: Connection, model: Model) -> Model:
    """Return the registered version that is meant; of a name alone the newest one."""
    versions = [one for one in tables.models(db) if model.bundle in ("", one.bundle)]
    if model.name:
        versions = [one for one in versions if one.model == model.name and model.version in ("", one.version)]
    if not versions:
        named = f"{model.name} {model.version}".strip() or model.bundle[:12]
        raise RegistryError(f"model '{named}' is not registered", where="benchmark", fix="strop fleet model list")
    newest = max(versions, key=lambda one: one.registered_at)
    return Model(newest.model, newest.version, newest.bundle)


def _withdrawn(part: BenchPart, actor: str, now: float) -> BenchPart:
    if part.state in ("queued", "sent"):
        return bench.ended(part, "cancelled", f"by {actor}", now)
    return replace(part, state="cancelling", why=f"by {actor}", changed_at=now)


def _ended(part: BenchPart) -> Refusal:
    return Refusal(409, f"the benchmark has ended: {part.state}")


def _is_same(part: BenchPart, outcome: BenchOutcome) -> bool:
    """True for a last word that was taken already and whose receipt got lost."""
    return part.facts.get("outcome") == canonical.digest(outcome.to_bytes())


def _with_outcome(db: Connection, part: BenchPart, outcome: BenchOutcome, now: float) -> BenchPart:
    facts: dict[str, Any] = {**outcome.facts, "outcome": canonical.digest(outcome.to_bytes())}
    state, why = "done" if outcome.ok else "failed", outcome.why
    if outcome.ok:
        try:
            document = json.loads(bench_rows.payload(db, part.id, RESULT))
            facts["summary"] = summary(document)
        except (ContractError, UsageError, ValueError, RecursionError) as error:
            state, why = "failed", f"its result cannot be read: {error}"
    if part.state == "cancelling" and not outcome.ok:
        state = "cancelled"
    return replace(bench.ended(part, state, why, now), facts=facts)
