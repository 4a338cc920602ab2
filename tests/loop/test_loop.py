# SPDX-License-Identifier: Apache-2.0
"""``strop loop run`` against a real server: every way in which it can fail, and that it heals through any interruption.

The tests of this file share one server and follow each other: each failure leaves the signal open for the next test,
and the last one heals.
"""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from edge_contract.errors import DataError, RegistryError, StropError, UsageError
from strop.loop import capture_steps, engine, journal, starting
from strop.loop.cli import app
from strop.loop.engine import go_on
from strop.loop.journal import STEPS, Run, runs_in
from strop.loop.work import Work
from tests.support.fleet_server import until
from tests.support.loop_world import World, state_of


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    if shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None:
        pytest.skip("no mosquitto: apt-get install mosquitto")
    made = World(tmp_path_factory.mktemp("world"))
    try:
        yield made.open()
    finally:
        made.close()


@pytest.fixture
def world(opened, monkeypatch):
    """The server and its devices, with small steps in the place of those that need a trained model."""
    steps = {**engine._DO, "train": opened.small_train, "bundle": opened.small_bundle}
    monkeypatch.setattr(engine, "_DO", steps)
    monkeypatch.setattr(capture_steps, "open_teacher", lambda _work: None)
    opened.fresh()
    return opened


def worked(world, config, run):
    return starting.worked(config, world.loop_server(config), run, world.say)


def failed(world, config):
    """Run the loop on the open signal; return the run, which failed."""
    server = world.loop_server(config)
    run = worked(world, config, starting.begin(config, server, world.signal()))
    assert run.state == "failed", world.said
    shown = world.server.call("GET", f"/drift/signals/{run.number}")
    assert (shown["state"], shown["held"]) == ("open", False)
    assert shown["reason"] == run.document["reason"]
    assert run.document["left"] == []
    assert world.campaigns() == []
    assert not (run.folder / "capture.key").exists()
    return run


def back(world):
    """Return whether every device runs what it ran before."""
    return all(actor.device.slots.running == world.parent for actor in world.actors.values())


def test_where_nobody_allows_captures_the_loop_is_polite(world):
    stray = world.actors["pi-stray"]
    stray.features, stray.allows = ("shadow-trial",), False
    stray.report()
    number = world.signal()
    until(lambda: not world.server.call("GET", f"/drift/signals/{number}")["consenting"], "the device's word")
    run = failed(world, world.config())
    assert "none of the 2 devices that still run the bundle allows captures" in run.document["reason"]
    assert "allowed = true" in run.document["reason"]
    assert [name for name, state in state_of(run).items() if state == "done"] == ["take"]
    with pytest.raises(StropError, match=r"signal-\d+, step capture: .*signal \d+ stays open"):
        starting.outcome(run)
    stray.features, stray.allows = ("shadow-trial", "captures"), True
    stray.report()
    until(lambda: world.server.call("GET", f"/drift/signals/{number}")["consenting"] == ["pi-stray"], "its word")


def test_too_few_inputs_in_time_end_the_campaign(world):
    world.per_look = 0
    run = failed(world, world.config(limits={"capture_s": 0.5}))
    assert "0 inputs came, at least 16 are needed: the time is over" in run.document["reason"]
    assert state_of(run)["collect"] == "failed"


def test_a_campaign_that_a_person_deletes_ends_the_run(world):
    world.per_look = 0

    def delete():
        for one in world.campaigns():
            world.server.call("DELETE", f"/captures/{one['id']}")

    world.hooks = [delete]
    assert "it was deleted" in failed(world, world.config()).document["reason"]


def test_a_set_that_is_refused_trains_nothing(world, monkeypatch):
    raw, _ = world.matcher.draw(1, seed=5)
    monkeypatch.setattr(world.matcher, "draw", lambda n, **_: (np.repeat(raw, n, axis=0), np.zeros(n, int)))
    run = failed(world, world.config())
    assert "are alike" in run.document["reason"]
    assert (state_of(run)["examine"], state_of(run)["train"]) == ("failed", "pending")


def test_a_training_that_misses_its_gates_ships_nothing(world, monkeypatch):
    def forget(_work):
        raise DataError("healing forgot 3.20 points, more than 1", where="healed")

    monkeypatch.setitem(engine._DO, "train", forget)
    run = failed(world, world.config())
    assert run.document["reason"].startswith("healed: healing forgot")
    assert "bundle" not in run.lineage


def test_a_person_can_say_no_and_the_answer_is_kept(world):
    config = world.config(ask=("train",))

    def deny():
        (run,) = [one for one in runs_in(config.runs) if one.state == "asking"] or [None]
        if run is not None and run.answer("train") is None:
            done = CliRunner().invoke(app, ["deny", str(run.folder), "train", "--by", "ada", "--note", "wrong camera"])
            assert done.exit_code == 0, done.output

    world.hooks = [deny]
    run = failed(world, config)
    assert "denied by ada: wrong camera" in run.document["reason"]
    assert any("strop loop approve" in line for line in world.said)
    with pytest.raises(UsageError, match="it is failed"):
        run.say("train", "approve", "bob", "")


def test_a_canary_that_fails_goes_back_and_the_version_is_retired(world):
    world.actors["pi-stray"].fails = True
    run = failed(world, world.config())
    assert "9 of 20 inferences failed" in run.document["reason"]
    assert state_of(run)["canary"] == "failed"
    assert back(world)
    (ours,) = [one for one in world.server.call("GET", "/models") if one["bundle"] == run.lineage["bundle"]]
    assert ours["retired"]
    assert ours["channels"] == []
    rollout = world.server.call("GET", f"/rollouts/{run.lineage['rollouts'][0]}")
    assert rollout["state"] in ("ABORTED", "ROLLED_BACK")


def test_rules_that_refuse_take_the_canaries_back(world):
    rules = world.server.data / "rules.toml"
    before = rules.read_text()
    rules.write_text(before + "model_bytes_at_most = 100\n")
    try:
        run = failed(world, world.config())
    finally:
        rules.write_text(before)
    assert "> 100 bytes: not met" in run.document["reason"]
    assert (state_of(run)["canary"], state_of(run)["promote"]) == ("done", "failed")
    until(lambda: world.sleep(0.05) or back(world), "the canary goes back")
    assert not any(one["channels"] for one in world.server.call("GET", "/models") if one["version"] != "1.0.0")


def test_a_second_loop_is_refused_and_a_dismissed_signal_ends_a_run(world):
    config, number = world.config(ask=("train",)), world.signal()
    server = world.loop_server(config)

    def meddle():
        if any("may the model be trained" in line for line in world.said) and not found:
            other = world.config(runs=world.folder / "other")
            with pytest.raises(RegistryError, match="works on it"):
                starting.begin(other, world.loop_server(other), number)
            with pytest.raises(UsageError, match="a run for signal"):
                starting.begin(config, server, number)
            (run,) = [one for one in runs_in(config.runs) if one.state == "asking"]
            with pytest.raises(StropError, match="another process works on this run"), run.held():
                pass
            document = {"outcome": "dismissed", "reason": "a dirty lens"}
            found.append(world.server.call("POST", f"/drift/signals/{number}/close", document))
            lease._renew()

    found, leases = [], []
    original = engine.Lease.__enter__
    try:
        engine.Lease.__enter__ = lambda self: leases.append(self) or original(self)
        world.hooks = [lambda: leases and meddle_with(leases[-1])]

        def meddle_with(one):
            nonlocal lease
            lease = one
            meddle()

        lease = None
        run = worked(world, config, starting.begin(config, server, number))
    finally:
        engine.Lease.__enter__ = original
    assert run.state == "failed"
    assert "it is dismissed: a dirty lens" in run.document["reason"]
    assert world.campaigns() == []


class Died(BaseException):
    """The process was killed."""


def test_it_heals_though_it_dies_at_every_write_and_does_nothing_twice(world, monkeypatch):
    """Each write of ``run.json`` is the last thing that a process does: once it dies before it, once after it."""
    config, number = world.config(), world.signal()
    server = world.loop_server(config)
    folder = starting.begin(config, server, number).folder
    written, saved = {}, journal.durable.write

    def deadly(path, data, **more):
        if path.name == "run.json":
            document = json.loads(data)
            known = [[one["state"], *one.get("facts", ())] for one in document["steps"]]
            key = json.dumps([document["state"], known])
            count = written[key] = written.get(key, 0) + 1
            if count == 1:
                raise Died
            saved(path, data, **more)
            if count == 2:
                raise Died
            return
        saved(path, data, **more)

    monkeypatch.setattr(journal.durable, "write", deadly)
    deaths = 0
    while True:
        run = Run(folder)
        try:
            go_on(Work(run, config, server, world.say))
            break
        except Died:
            deaths += 1
            assert deaths < 200
    monkeypatch.setattr(journal.durable, "write", saved)
    assert (run.state, run.document["reason"][:6]) == ("healed", "healed"), run.document["reason"]
    assert deaths > 20
    assert set(state_of(run).values()) == {"done"}
    healed = run.lineage["bundle"]
    assert [actor.device.slots.running for actor in world.actors.values()] == [healed] * 3
    entries = [
        e for e in world.server.call("GET", "/audit?limit=1000")["entries"] if e["time"] >= run.document["created_at"]
    ]
    actions = [e["action"] for e in entries]
    for action in ("capture.start", "capture.delete", "model.add", "signal.take", "signal.handled"):
        assert actions.count(action) == 1, action
    assert len(run.lineage["rollouts"]) == 2
    assert actions.count("rollout.start") == 2
    shown = world.server.call("GET", f"/drift/signals/{number}")
    assert (shown["state"], shown["reason"].startswith("healed by digits 1.0.")) == ("handled", True)
    (ours,) = [one for one in world.server.call("GET", "/models") if one["bundle"] == healed]
    assert set(ours["channels"]) >= {"canary", "production"}
    assert ours["lineage"]["parent"] == world.parent
    assert ours["lineage"]["loop"] == {"signal": number, "captured": run.lineage["captured_sha256"]}
    with np.load(run.folder / "captured" / "samples.npz") as found:
        index = [json.loads(str(line)) for line in found["index"]]
        assert len(index) == run.facts("collect")["samples"] >= 20
        assert {one["device"] for one in index} == {"pi-stray"}
        assert found[index[0]["name"]].shape == (14, 14)
    assert not (run.folder / "capture.key").exists()
    assert (run.folder.stat().st_mode & 0o777, (run.folder / "captured").stat().st_mode & 0o777) == (0o700, 0o700)
    status = CliRunner().invoke(app, ["status", str(run.folder)])
    assert "healed" in status.output
    assert all(name in status.output for name in STEPS)
