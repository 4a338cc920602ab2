# SPDX-License-Identifier: Apache-2.0
"""One identity, one board: the rule, the quarantine, permissions, and what the server notices by itself."""

import shutil
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.adapters import binding
from edge_agent.adapters.enrol import enrol
from edge_contract.messages import Birth
from edge_contract.renewal import BoardIdentity
from fleet.core.identity import DeviceIdentity, hear_board, hear_boot

PI, OTHER = BoardIdentity.of("10000000a1b2c3d4", "m-1"), BoardIdentity.of("10000000ffffffff", "m-1")


def board(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return binding.read_board(root)


BOARDS = {
    "a Raspberry Pi": (
        {"proc/device-tree/serial-number": "10000000a1b2c3d4\0", "etc/machine-id": "m-1\n"},
        PI,
    ),
    "an old Raspberry Pi kernel": (
        {"proc/cpuinfo": "Model : x\nSerial\t\t: 10000000a1b2c3d4\n", "etc/machine-id": "m-1"},
        PI,
    ),
    "a board without a serial": ({"etc/machine-id": "m-1"}, BoardIdentity.of("", "m-1")),
    "a serial of zeros": ({"proc/cpuinfo": "Serial : 0000000000000000\n"}, BoardIdentity()),
    "a PC whose maker wrote no number": (
        {"sys/class/dmi/id/product_uuid": "03000200-0400-0500-0006-000700080009"},
        BoardIdentity(),
    ),
    "a system that was not yet set up": ({"etc/machine-id": "uninitialized\n"}, BoardIdentity()),
    "nothing": ({}, BoardIdentity()),
}


@pytest.mark.parametrize("case", BOARDS)
def test_a_board_tells_its_serial_and_machine_id(tmp_path, case):
    files, expected = BOARDS[case]
    assert board(tmp_path, files) == expected


RULE = {
    "the same board": (PI, PI, True),
    "another SoC with the copied machine id": (PI, OTHER, False),
    "the same SoC, installed anew": (PI, BoardIdentity.of("10000000a1b2c3d4", "m-2"), True),
    "no serial any more, same machine id": (PI, BoardIdentity.of("", "m-1"), True),
    "no serial any more, another machine id": (PI, BoardIdentity.of("", "m-2"), False),
    "nothing any more": (PI, BoardIdentity(), True),
    "nothing ever": (BoardIdentity(), PI, True),
    "two machines without a serial": (BoardIdentity.of("", "m-1"), BoardIdentity.of("", "m-2"), False),
}


@pytest.mark.parametrize("case", RULE)
def test_the_rule(case):
    one, two, is_same = RULE[case]
    assert one.is_same_board(two) is is_same
    assert two.is_same_board(one) is is_same


@given(*[st.sampled_from(["", "a", "b"])] * 4)
def test_a_board_is_itself_and_the_rule_has_no_sides(a, b, c, d):
    one, two = BoardIdentity.of(a, b), BoardIdentity.of(c, d)
    assert one.is_same_board(one)
    assert one.is_same_board(two) == two.is_same_board(one)


# On the device.


@pytest.fixture
def identity(tmp_path):
    folder = tmp_path / "identity"
    folder.mkdir(mode=0o700)
    (folder / "device.key").write_bytes(b"key")
    (folder / "device.key").chmod(0o600)
    binding.bind(folder, PI)
    return folder


def test_on_its_own_board_nothing_is_said(tmp_path, identity):
    assert binding.at_start(tmp_path, PI) == []
    assert binding.at_start(tmp_path / "nobody", PI) == []


def test_on_another_board_the_identity_is_put_aside_and_never_deleted(tmp_path, identity):
    for number in (1, 2):
        ((level, line),) = binding.at_start(tmp_path, OTHER)
        assert level == "error"
        assert f"put aside as identity.quarantined-{number}; enrol this board with a token of its own" in line
        assert (tmp_path / f"identity.quarantined-{number}" / "device.key").read_bytes() == b"key"
        assert not identity.exists()
        shutil.copytree(tmp_path / f"identity.quarantined-{number}", identity)


def test_an_identity_of_before_is_bound_at_its_first_start(tmp_path, identity):
    (identity / "binding.json").unlink()
    assert binding.at_start(tmp_path, PI) == []
    assert binding.bound_to(identity) == PI
    (identity / "binding.json").write_bytes(b"torn")
    assert binding.at_start(tmp_path, PI) == []


def test_a_system_installed_anew_is_bound_to_its_new_machine_id(tmp_path, identity):
    again = BoardIdentity.of("10000000a1b2c3d4", "m-2")
    assert binding.at_start(tmp_path, again) == []
    assert binding.bound_to(identity) == again
    assert binding.at_start(tmp_path, BoardIdentity.of("10000000a1b2c3d4", "")) == []
    assert binding.bound_to(identity) == again


def test_keys_that_others_can_read_are_closed_and_it_is_said(tmp_path, identity):
    (identity / "keys").mkdir()
    (identity / "keys" / "device.key").write_bytes(b"k")
    for path, mode in [(identity, 0o755), (identity / "device.key", 0o644), (identity / "keys" / "device.key", 0o640)]:
        path.chmod(mode)
    said = [line for _, line in binding.at_start(tmp_path, PI)]
    assert any("identity/device.key was open to others (mode 644)" in line for line in said)
    assert stat.S_IMODE(identity.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in identity.rglob("*.key"))
    assert binding.at_start(tmp_path, PI) == []


def test_an_enrolment_binds_to_the_board_and_tells_the_server(fleet, device):
    assert binding.bound_to(device / "identity") == binding.read_board()
    assert binding.at_start(device) == []
    shutil.move(device / "identity", device / "elsewhere")
    enrol(device, fleet.enrol_url, fleet.new_token(), "pi-01")


# On the server.


def heard(*boots):
    identity = DeviceIdentity()
    for boot in boots:
        identity = hear_boot(identity, boot, 7.0)
    return identity


@given(st.lists(st.integers(0, 10**9), unique=True, max_size=30), st.integers(1, 5))
def test_restarts_however_many_are_no_clone(boots, repeats):
    assert heard(*(str(b) for b in boots for _ in range(repeats))).suspected_at == 0.0


def test_one_late_packet_of_a_start_that_ended_is_no_clone_but_taking_turns_is():
    assert heard("a", "b", "a", "b").evidence  # back, and back again
    assert not heard("a", "b", "a").evidence
    assert not heard("a", "b", "a", "c", "d", "c", "e").evidence
    assert heard("a", "b", "a", "b", "a", "b").evidence == heard("a", "b", "a", "b").evidence


def test_another_board_is_a_clone_and_the_first_one_that_tells_is_the_owner():
    owner = hear_board(DeviceIdentity(), PI, 1.0)
    assert owner.board == PI
    assert hear_board(owner, PI, 2.0) == owner
    clone = hear_board(owner, OTHER, 3.0)
    assert (clone.suspected_at, clone.board) == (3.0, PI)
    assert clone.evidence == ("another board uses this identity: its SoC serial is not the enrolled one",)
    assert hear_board(clone, OTHER, 9.0) == clone
    assert hear_board(owner, BoardIdentity(), 3.0) == owner


def test_what_the_server_noticed_survives_the_database():
    clone = hear_board(hear_board(heard("a", "b", "a", "b"), PI, 1.0), OTHER, 3.0)
    assert DeviceIdentity.from_json(clone.to_json()) == clone


def test_a_birth_of_another_board_is_audited_once(fleet, device):
    def birth(boot, identity):
        said = Birth("pi-01", boot, 1, "0.1", "litert", "2", {"identity": identity}, 1.0)
        fleet.store.write(lambda db: fleet.identities.heard(db, "pi-01", said.boot, said.board, 5.0))

    birth("b1", binding.read_board().to_json())
    assert fleet.shown("pi-01")["clone"]["suspected"] is False
    for _ in range(3):
        birth("b2", OTHER.to_json())
    assert fleet.shown("pi-01")["clone"]["suspected"] is True
    rows = fleet.store.read(lambda db: db.execute("SELECT action FROM audit").fetchall())
    assert [row["action"] for row in rows] == ["device.clone_suspected"]
