# SPDX-License-Identifier: Apache-2.0
"""``strop fleet`` against a real server: what a person types, and the one line that a mistake gets."""

import json
import subprocess
import sys

import pytest

from fleet.cli import app
from tests.support.fleet_server import until

pytestmark = pytest.mark.broker


def strop(*words, code=0):
    """Run the command line; return (stdout, stderr) after a check of the exit code."""
    command = [sys.executable, "-c", "from strop.cli import main; main()", "fleet", *map(str, words)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr.decode()
    return done.stdout.decode(), done.stderr.decode().strip()


@pytest.fixture(scope="module")
def fleet(server, tmp_path_factory):
    """A device that runs 1.0.0."""
    device = server.device(tmp_path_factory.mktemp("pi") / "pi", "cli-pi").connect()
    yield server, device
    device.close()


def test_a_rollout_from_the_command_line(fleet, bundles):
    server, device = fleet
    where = ("--data", server.data)
    out, _ = strop("rollout", "start", "digits", "1.0.0", "--wave", "cli-pi", "--soak-s", 0, "--timeout-s", 60, *where)
    rollout = out.split()[1]
    out, _ = strop("rollout", "pause", rollout, *where)
    assert "PAUSED" in out
    strop("rollout", "resume", rollout, *where)
    device.install(device.order())
    out, err = strop("rollout", "watch", rollout, "--json", *where)
    assert json.loads(out)["state"] == "COMPLETED"
    assert err.splitlines()[-1].endswith("1 device updated")
    out, _ = strop("rollout", "show", rollout, *where)
    assert "cli-pi" in out.splitlines()[-1]
    assert "SUCCEEDED" in out
    assert rollout in strop("rollout", "list", *where)[0]
    until(lambda: server.call("GET", "/devices/cli-pi")["in_sync"])
    out, _ = strop("device", "list", *where)
    assert "cli-pi" in out
    assert bundles["1.0.0"][1][:8] in out
    assert "yes" in out


def test_a_draft_goes_its_way_by_verbs(fleet, tmp_path):
    server, _ = fleet
    where = ("--data", server.data)
    plan = tmp_path / "plan.toml"
    plan.write_text('model = "digits"\nversion = "1.1.0"\nneeds_approval = true\n[[wave]]\nquery = "device:nobody"\n')
    out, _ = strop("rollout", "start", "--plan", plan, "--dry-run", *where)
    assert out.splitlines()[0] == "digits 1.1.0 to 0 devices"
    assert "somebody else has to approve it" in out
    rollout = strop("rollout", "start", "--plan", plan, "--draft", *where)[0].split()[1]
    assert "PENDING_APPROVAL" in strop("rollout", "release", rollout, *where)[0]
    _, err = strop("rollout", "approve", rollout, *where, code=1)
    assert "wrote it and may not approve it" in err
    assert "ABORTED" in strop("rollout", "cancel", rollout, "--reason", "a wish", *where)[0]
    assert "above_devices = -1" in strop("rollout", "rules", *where)[0]
    plan.write_text("model = 3\n[[wave]]\nsise = 1\n")
    _, err = strop("rollout", "plan", plan, *where, code=2)
    assert f"{plan}: wave[0]: unknown key 'sise'" in err


READS = (["device", "list"], ["device", "show", "cli-pi"], ["model", "list"], ["rollout", "list"], ["drift"], ["audit"])


@pytest.mark.parametrize("words", READS, ids=" ".join)
def test_everything_reads_and_prints_json(fleet, words, capsys):
    server, _ = fleet
    app([*words, "--data", str(server.data), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)
    app([*words, "--data", str(server.data)], standalone_mode=False)
    assert capsys.readouterr().out.strip()


def test_settings_and_tokens(fleet, tmp_path):
    server, _ = fleet
    out, _ = strop("device", "config", "cli-pi", "source=camera", "heartbeat_s=2.5", "--data", server.data)
    assert '"heartbeat_s": 2.5' in out
    assert '"source": "camera"' in out
    (tmp_path / "token").write_text(server.token)
    remote = ("--server", server.endpoints["http"], "--token-file", tmp_path / "token")
    assert strop("enrol", "new", "--ttl-s", 60, *remote)[0].startswith("strop1.")


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["device", "show", "nobody"], 1, "device 'nobody' is not known"),
        (["device", "config", "cli-pi", "oops"], 2, "'oops' is not KEY=VALUE"),
        (["rollout", "start", "digits", "9.9"], 2, "digits 9.9 is not registered"),
        (["rollout", "start", "digits", "1.0.0", "--wave", "x%"], 2, "'x%' is not a wave"),
        (["rollout", "start", "digits", "1.0.0", "--wave", "nobody"], 1, "device 'nobody' is not enrolled"),
        (["rollout", "start", "digits", "1.0.0", "--probation", "{"], 2, "--probation: not JSON"),
        (["rollout", "abort", "r999"], 1, "rollout 'r999' is not known"),
        (["trust", "/nowhere/root.json"], 2, "/nowhere/root.json: cannot be read"),
        (["model", "add", "/nowhere", "--targets", "/nowhere/t.json"], 2, "cannot be read"),
    ],
)
def test_a_mistake_is_one_line(fleet, words, code, line):
    server, _ = fleet
    _, err = strop(*words, "--data", server.data, code=code)
    assert line in err
    assert len(err.splitlines()) == 1


def test_without_a_server_there_is_one_line_too(tmp_path):
    assert "no fleet server runs on this data folder" in strop("device", "list", "--data", tmp_path, code=1)[1]
    assert "which server?" in strop("device", "list", code=2)[1]
    assert "no answer" in strop("device", "list", "--server", "http://127.0.0.1:9", code=1)[1]


def test_a_bundle_that_was_changed_on_disk_is_refused_by_the_name_of_the_file(fleet, bundles, tmp_path):
    import shutil

    server, _ = fleet
    copy = shutil.copytree(bundles["1.0.0"][0], tmp_path / "b")
    (copy / "model.tflite").write_bytes(b"changed")
    _, err = strop("model", "add", copy, "--targets", server.keys / "targets.json", "--data", server.data, code=1)
    assert "model.tflite" in err
    assert len(err.splitlines()) == 1


def test_init_says_what_comes_next(tmp_path):
    out, _ = strop("init", "--data", tmp_path / "new")
    assert "strop export keys init KEYS --online" in out
    assert json.loads(strop("init", "--data", tmp_path / "new", "--json")[0])["made"] is False
