# SPDX-License-Identifier: Apache-2.0
"""The parts of a first boot by themselves: plan, journal, patience, environment, units, the words of the program."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.provision import environment, plan, progress, steps, units
from edge_agent.provision.__main__ import main
from edge_agent.provision.journal import Journal
from edge_agent.provision.place import Place
from edge_contract.errors import BundleError, DownloadError, EnrolmentError, SlotError, StropError, UsageError
from edge_contract.manifest import BundleFile
from edge_contract.renewal import BoardIdentity
from fleet.flash import payload
from tests.edge_agent.provision import card
from tests.edge_agent.software import fakes

BOARD = BoardIdentity.of("10000000a", "m")


@pytest.fixture
def boot(tmp_path, wheelhouse, factory) -> Path:
    settings = payload.Settings("pi-01", wheelhouse=wheelhouse, factory=factory)
    return card.write(tmp_path / "boot", payload.build(settings))


@pytest.fixture
def run(boot, tmp_path):
    return steps.Run(plan.read(boot), Place(tmp_path / "root"), BOARD, lambda _: None)


def test_the_agents_unit_is_the_one_of_the_repository():
    assert (card.HOME / "deploy/systemd/strop-agent.service").read_text() == units.AGENT


def test_a_plan_of_another_board_or_with_damaged_files_is_named(boot):
    found = plan.read(boot)
    other = replace(found, python="3.99", machine="vax")
    with pytest.raises(
        UsageError, match=r"the wheels are for Python 3.99 on vax, this is Python 3\..*write the card again"
    ):
        other.check_machine()
    (boot / "strop/factory/manifest.json").write_bytes(b"{}")
    (boot / "strop/wheels/requirements.txt").unlink()
    assert sorted(found.damaged()) == ["factory/manifest.json", "wheels/requirements.txt"]
    path = boot / "strop/plan.json"
    whole = json.loads(path.read_bytes())
    for spoilt, words in (
        (b"", "cannot be read"), (b"[]", "plan"), (json.dumps({**whole, "schema": "x"}).encode(), "schema"),
        (json.dumps({**whole, "files": [{"path": "../a", "size": 1, "sha256": "a" * 64}]}).encode(), "leaves"),
    ):  # fmt: skip
        path.write_bytes(spoilt)
        with pytest.raises(BundleError, match=words):
            plan.read(boot)
    path.write_text(json.dumps({**whole, "device": ""}))
    with pytest.raises(EnrolmentError, match="is not a device name"):
        plan.read(boot)
    (boot / "strop/device").write_text("pi-77\n")
    assert plan.read(boot).device == "pi-77"
    path.unlink()
    with pytest.raises(BundleError, match="there is no plan for a first boot"):
        plan.read(boot)


def test_the_journal_knows_its_plan_and_its_board(tmp_path):
    book = Journal(tmp_path, "plan", BOARD, lambda: 7.0)
    book.done("user", "made")
    book.done("software", "all")
    book.undone("software")
    again = Journal(tmp_path, "plan", BOARD)
    assert (again.is_done("user"), again.is_done("software"), again.fact("user")) == (True, False, "made")
    assert not again.was_copied
    assert not Journal(tmp_path, "another plan", BOARD).is_done("user")
    copied = Journal(tmp_path, "plan", BoardIdentity.of("10000000b", "m"))
    assert copied.was_copied
    assert not copied.is_done("user")
    for damaged in (b"{", b"[]", b'{"board": 3}', b'{"board": {"soc": 1}}'):
        (tmp_path / "journal.json").write_bytes(damaged)
        assert not Journal(tmp_path, "plan", BOARD).is_done("user")


def carry_out(run, tmp_path, monkeypatch, step, **patience):
    """Carry out one step of our own; return the exit code, the pauses, and what a status program reads."""
    slept: list[float] = []
    monkeypatch.setattr(progress, "STEPS", {"enrol": step})
    book = Journal(tmp_path / "memory", "plan", BOARD)
    code = progress.carry_out(run, book, progress.Patience(**patience), slept.append)
    return code, slept, json.loads((tmp_path / "memory/status.json").read_bytes())


def test_what_fails_is_named_and_tried_again_for_ever_with_a_cap(run, tmp_path, monkeypatch, capsys):
    tries = iter(range(30))

    def step(_: steps.Run) -> str:
        if next(tries) < 20:
            raise DownloadError("no way to the server", where="https://fleet")
        return "enrolled"

    code, slept, status = carry_out(run, tmp_path, monkeypatch, step, first=1.0, cap=4.0)
    assert code == 0
    assert 20 * 0.5 <= sum(slept) <= 20 * 4 + 20
    assert max(slept) <= 1.0
    assert (status["state"], status["done"]["enrol"]) == ("done", "enrolled")
    said = capsys.readouterr().out.splitlines()
    assert sum("enrol: https://fleet: no way to the server" in line for line in said) == 20


def test_a_new_token_ends_the_wait_after_a_refusal(run, tmp_path, monkeypatch):
    def step(_: steps.Run) -> str:
        if not run.plan.token.exists():
            raise EnrolmentError("already used by device 'pi-02'")
        return "enrolled"

    def bring(_: float) -> None:
        run.plan.token.write_text("new")

    monkeypatch.setattr(progress, "STEPS", {"enrol": step})
    book = Journal(tmp_path / "memory", "plan", BOARD)
    assert progress.carry_out(run, book, progress.Patience(), bring) == 0


def test_a_step_that_may_fail_is_left_behind(run, tmp_path, monkeypatch, capsys):
    def step(_: steps.Run) -> str:
        raise StropError("dpkg ended with code 1")

    monkeypatch.setattr(progress, "STEPS", {"coral": step})
    assert progress.carry_out(run, Journal(tmp_path / "m", "plan", BOARD), progress.Patience(is_once=True)) == 0
    assert "coral failed and is left out: dpkg ended with code 1" in capsys.readouterr().out


def entry(path: Path) -> BundleFile:
    from edge_contract.wheel import read

    found = read(path)
    return BundleFile(path.name, found.size, found.sha256)


def made(tmp_path, wheels):
    place = tmp_path / "opt/strop"
    place.parent.mkdir(exist_ok=True)
    words = {"shown": Path("/opt/strop"), "python": card.PYTHON, "tell": lambda _: None}
    environment.build(place, tmp_path, wheels, **words)
    return place, next((place / "lib").glob("python*/site-packages"))


def test_an_environment_has_scripts_data_and_records_and_is_exchanged_as_a_whole(tmp_path):
    files = {
        "a.py": "x = 1\n", "a-1.0.data/scripts/tool": "#!python\nprint(1)\n", "a-1.0.data/purelib/b.py": "",
        "a-1.0.data/data/share/c.txt": "c", "a-1.0.data/headers/d.h": "",
    }  # fmt: skip
    one = entry(fakes.wheel(tmp_path, "a", "1.0", files))
    place, site = made(tmp_path, [one])
    assert (place / "bin/tool").read_text() == "#!/opt/strop/bin/python\nprint(1)\n"
    assert (place / "bin/tool").stat().st_mode & 0o111
    assert (place / "share/c.txt").read_text() == "c"
    assert {path.name for path in site.iterdir()} == {"a.py", "b.py", "a-1.0.dist-info"}
    assert "INSTALLER,," in (site / "a-1.0.dist-info/RECORD").read_text()
    two = entry(fakes.wheel(tmp_path, "b", "2.0", {"only.py": ""}))
    (place.parent / ".strop.new").mkdir()  # what a power cut left
    place, site = made(tmp_path, [two])
    assert not (site / "a.py").exists()
    assert {path.name for path in place.parent.iterdir()} == {"strop"}


def test_a_changed_wheel_and_a_full_disk_leave_the_old_environment(tmp_path, monkeypatch):
    one = entry(fakes.wheel(tmp_path, "a", "1.0", {"a.py": ""}))
    place, site = made(tmp_path, [one])
    other = BundleFile(one.path, one.size, "0" * 64)
    with pytest.raises(BundleError, match="is not the wheel of the plan"):
        made(tmp_path, [other])
    monkeypatch.setattr(
        environment.durable, "sync_file_system", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(SlotError, match="No space left on device; free some space"):
        made(tmp_path, [other := entry(fakes.wheel(tmp_path, "b", "1.0", {"b.py": ""}))])
    assert (site / "a.py").exists()
    assert environment.is_made_of(place, [one])


def test_begin_hands_over_to_systemd_and_status_tells(boot, tmp_path, capsys):
    root = tmp_path / "root"
    where = ["--boot", str(boot), "--root", str(root)]
    assert main(["status", *where]) == 2
    assert main(["begin", *where]) == 0
    unit = (root / "etc/systemd/system" / units.FIRST_BOOT).read_text()
    assert f"ExecStart=/usr/bin/python3 -I /var/lib/strop-first-boot/first-boot.pyz run --boot {boot}" in unit
    program = root / "var/lib/strop-first-boot/first-boot.pyz"
    assert program.read_bytes() == (boot / "strop/first-boot.pyz").read_bytes()
    link = root / "etc/systemd/system/multi-user.target.wants" / units.FIRST_BOOT
    assert link.is_symlink()
    assert main(["begin", *where]) == 0
    Journal(root / "var/lib/strop-first-boot", "plan", BOARD).tell("enrol", "waiting", "no way to the server")
    capsys.readouterr()
    assert main(["status", *where]) == 0
    assert capsys.readouterr().out == "enrol: waiting: no way to the server\n"
    assert main(["status", "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == "enrol"
    assert main(["begin", "--boot", "/nowhere", "--root", str(root)]) == 1
    assert "there is no plan for a first boot" in capsys.readouterr().err


def test_tokens_are_overwritten_before_they_are_removed(run, monkeypatch):
    run.plan.token.write_text("strop1.secret\n")
    seen = []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda self, **how: (seen.append(self.read_bytes()), unlink(self, **how))[1])
    assert "was overwritten and removed" in steps.STEPS["token"](run)
    assert seen == [b"\n" * 14]
    assert steps.STEPS["token"](run) == "no token is on the boot partition"


def test_a_board_in_service_keeps_its_settings_and_coral_gets_its_rule(run):
    run.place.data.mkdir(parents=True)
    (run.place.data / "agent.toml").write_text("mine")
    assert steps.STEPS["settings"](run) == "agent.toml was there and stays"
    coral = replace(run, plan=replace(run.plan, coral=True))
    assert steps.STEPS["coral"](coral) == "udev rule"
    rule = (run.place.rules / "99-strop-coral.rules").read_text()
    assert "18d1" in rule
    assert "1a6e" in rule
