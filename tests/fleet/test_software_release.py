# SPDX-License-Identifier: Apache-2.0
"""Releases of the agent's own software at the server: registered as they are, ordered on a channel of their own."""

from dataclasses import replace

import pytest

from edge_contract import canonical
from edge_contract.errors import ManifestError, RegistryError
from edge_contract.jobs import JobDocument, JobStatus, Signed
from edge_contract.messages import JOB_PER_MODEL, SELF_UPDATE, SOFTWARE, ModelState, ReportedState
from edge_contract.states import Phase, Status
from export.keys import signing
from fleet.adapters import tables
from tests.edge_agent.software import fakes
from tests.fleet.test_operations import ROOT, Office

OLD = "a" * 64


class Fleet(Office):
    """An office that takes releases, too: their wheels lie in a folder of their own."""

    def register(self, folder):
        targets = signing.sign_bundle(self.folder / "keys", folder)
        for path in (p for p in folder.rglob("*") if p.is_file()):
            data = path.read_bytes()
            self.operations.models.put_blob(canonical.digest(data), [data], "op")
        return self.operations.models.register(fakes.manifest(folder).bundle_id, targets, "op")


@pytest.fixture
def office(tmp_path, bundles):
    """An office with a release of the agent beside its models."""
    made = Fleet(tmp_path / "office", bundles)
    made.ids["agent"] = made.register(fakes.real(tmp_path / "agent", "0.2.0")).bundle
    yield made
    made.store.close()


def says(office, device, *features, running=""):
    states = {"digits": ModelState(OLD, OLD, "", "", "0.9")}
    if SELF_UPDATE in features:
        states[SOFTWARE] = ModelState(running, running, "", "", "0.1.0")
    report = ReportedState(device, "b", 0, states, {}, {}, {}, office.now, features=(JOB_PER_MODEL, *features))
    office.hear(device, "twin/reported", report)


def standing(office, device):
    """Channel → model of the order that stands there last."""
    last = {m.topic.removeprefix(f"{ROOT}/{device}/"): m.payload for m in office.sent if f"/{device}/job/" in m.topic}
    return {c: JobDocument.from_bytes(Signed.from_bytes(p).payload).model if p else "" for c, p in last.items()}


def roll_out(office, model, bundle):
    document = {"model": model, "bundle": bundle, "waves": [{"rest": True}]}
    return office.operations.rollouts.start(document, "op").id


def test_only_who_can_update_itself_is_asked_and_only_on_the_channel_for_it(office):
    for name in ("new", "old"):
        office.enrolled(name)
    says(office, "new", SELF_UPDATE)
    says(office, "old")
    rollout = roll_out(office, SOFTWARE, office.ids["agent"])
    assert standing(office, "new") == {"job/software": SOFTWARE}
    assert standing(office, "old") == {}
    office.operations.rollouts.tick()
    found = office.store.read(lambda db: tables.executions(db, tables.rollout(db, rollout).number))["old"]
    assert (found.status, found.reason) == (Status.REMOVED, "its agent cannot update itself")

    # An order for a model goes where it went before.
    roll_out(office, "digits", office.ids["1.0.0"])
    assert standing(office, "new") == {"job/software": SOFTWARE, "job/next/digits": "digits", "job/next": "digits"}


def test_a_release_is_registered_once_and_the_one_that_runs_is_the_proof(office, tmp_path):
    version = office.store.read(lambda db: tables.model(db, office.ids["agent"]))
    assert (version.model, version.version, version.to_json()["artefacts"]) == (SOFTWARE, "0.2.0", [])
    assert [entry["path"] for entry in version.to_json()["files"]] == ["wheels/strop-0.2.0-py3-none-any.whl"]
    with pytest.raises(RegistryError, match="already bundle"):
        office.register(fakes.small(tmp_path / "other", "0.2.0", ""))
    folder = fakes.small(tmp_path / "later", "0.9.0", "")
    later = replace(fakes.manifest(folder), minimum_protocol=7)
    (folder / "manifest.json").write_bytes(later.to_bytes())
    with pytest.raises(ManifestError, match="it speaks protocol 7 or newer, this side speaks 1"):
        office.register(folder)

    office.enrolled("pi")
    says(office, "pi", SELF_UPDATE)
    rollout = roll_out(office, SOFTWARE, office.ids["agent"])
    job = JobDocument.from_bytes(Signed.from_bytes(office.sent[-1].payload).payload)
    report = JobStatus(job.job_id, "pi", Status.SUCCEEDED, Phase.DONE, 9, "", {}, office.now)
    office.hear("pi", f"job/{job.job_id}/status", report)
    assert office.state(rollout) == "RUNNING"
    says(office, "pi", SELF_UPDATE, running=office.ids["agent"])
    office.operations.rollouts.tick()
    found = office.store.read(lambda db: tables.executions(db, tables.rollout(db, rollout).number))["pi"]
    assert found.status is Status.SUCCEEDED
