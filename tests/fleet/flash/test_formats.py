# SPDX-License-Identifier: Apache-2.0
"""Which first-boot format an image reads, and what is written in each; checked by cloud-init, a shell and TOML."""

import json
import os
import shutil
import subprocess
import tomllib

import pytest

from edge_contract.errors import ImageError, UsageError
from fleet.flash import cmdline, render_cloud, render_script, render_toml
from fleet.flash.crypted import hash_password, wpa_key
from fleet.flash.customisation import Customisation, Wifi
from fleet.flash.formats import Detected, Format, detect
from fleet.flash.payload import Payload
from fleet.flash.render import render
from fleet.flash.system import System
from tests.fleet.flash.test_crypted import KEY

HASH = hash_password('it\'s "geheim" $HOME `id`', "saltsaltsalt")
BOARD = Customisation(
    "cam-7", user="ops", password_hash=HASH, ssh_keys=(KEY, KEY + "2 $(reboot) 'x'"), ssh_password=True,
    wifi=Wifi('plant "7" \\ $x', wpa_key("x", "passphrase"), "DE", is_hidden=True),
    locale="de_DE.UTF-8", timezone="Europe/Berlin", keyboard="de",
)  # fmt: skip
PAYLOAD = Payload({"strop/plan.json": b"{}"}, ("test -f {boot}/strop/plan.json", "echo 'ran {boot}' >>{boot}/log"))
LINE = b"console=serial0,115200 root=PARTUUID=1-02 rootwait quiet\n"


class Boot:
    """The few files of a boot partition that a detection asks for."""

    def __init__(self, files=(), label="bootfs"):
        self.files = dict(files)
        self.layout = type("Layout", (), {"label": label})()
        self.region = type("Region", (), {"name": "pi.img"})()

    def find(self, name):
        return self.files.get(name)

    def read(self, name, most=0):
        return self.files[name]


def issue(date):
    return {"issue.txt": f"Raspberry Pi reference {date}\nGenerated using pi-gen".encode()}


SEEDS = {"user-data": b"#cloud-config", "meta-data": b"x"}
SYSTEMD = System(has_systemd=True)
CLOUD = System(has_systemd=True, has_cloud_init=True)
PRESEED = System(has_systemd=True, has_preseed=True, mount="/boot/firmware")


@pytest.mark.parametrize(
    ("files", "label", "system", "found", "mount"),
    [
        (SEEDS, "system-boot", None, "cloud-init", "/boot/firmware"),
        ({}, "CIDATA", CLOUD, "cloud-init", "/boot/firmware"),
        (SEEDS | issue("2025-11-24"), "bootfs", CLOUD, "cloudinit-rpi", "/boot/firmware"),
        (SEEDS | issue("2025-11-24"), "bootfs", None, "cloudinit-rpi", "/boot/firmware"),
        (issue("2024-07-04"), "bootfs", SYSTEMD, "firstrun", "/boot/firmware"),
        (issue("2023-05-03"), "boot", None, "firstrun", "/boot"),
        (issue("2025-10-01"), "bootfs", None, "firstrun", "/boot/firmware"),
        (issue("2025-12-04"), "bootfs", SYSTEMD, "firstrun", "/boot/firmware"),
        (issue("2026-06-16"), "bootfs", PRESEED, "rpi-preseed", "/boot/firmware"),
        (SEEDS | issue("2026-06-16"), "bootfs", PRESEED, "rpi-preseed", "/boot/firmware"),
        (SEEDS | issue("2024-07-04"), "bootfs", SYSTEMD, "firstrun", "/boot/firmware"),
    ],
)  # fmt: skip
def test_the_format_is_found(files, label, system, found, mount):
    seen = detect(Boot(files, label), system)
    assert (seen.format, seen.mount) == (found, mount)
    assert seen.evidence[0]


@pytest.mark.parametrize(
    ("files", "system", "words"),
    [
        ({}, None, "its root cannot be read"),
        ({}, SYSTEMD, "cloud-init, rpi-preseed and systemd in its root"),
        (issue("2026-06-16"), None, "is not known"),
        (SEEDS, SYSTEMD, r"user-data, meta-data is there, but no cloud-init"),
        (
            SEEDS | issue("2026-06-16"),
            System(has_systemd=True, has_preseed=True, has_cloud_init=True),
            "marks of several first-boot formats",
        ),
    ],
)
def test_an_unknown_or_ambiguous_image_is_refused_and_a_person_may_decide(files, system, words):
    with pytest.raises(ImageError, match=words) as caught:
        detect(Boot(files), system)
    assert "--format" in str(caught.value)
    assert detect(Boot(files), system, Format.FIRSTRUN).format is Format.FIRSTRUN


def rendered(kind, board=BOARD, payload=PAYLOAD, line=LINE):
    return render(Detected(Format(kind), "/boot/firmware", ()), board, payload, instance="strop-1", line=line)


@pytest.mark.parametrize("kind", list(Format))
def test_the_command_line_stays_one_line_and_keeps_its_words(kind):
    files = rendered(kind)
    text = files.get("cmdline.txt", LINE).decode()
    assert text.count("\n") == 1
    assert text.startswith("console=serial0,115200 root=PARTUUID=1-02 rootwait quiet")
    again = rendered(kind, line=files.get("cmdline.txt", LINE))
    assert again.get("cmdline.txt", LINE).decode() == text  # twice is once


def test_a_command_line_of_two_lines_is_refused():
    with pytest.raises(ImageError, match="has 2 lines"):
        cmdline.words_of(b"root=x\nquiet\n")
    with pytest.raises(ImageError, match="not text"):
        cmdline.words_of(b"\xff\xfe")


def test_cloud_init_finds_its_files_valid(tmp_path):
    tool = shutil.which("cloud-init")
    if tool is None:
        pytest.skip("cloud-init is missing; run: apt-get install cloud-init")
    path = tmp_path / "user-data"
    path.write_bytes(rendered("cloudinit-rpi")["user-data"])
    done = subprocess.run([tool, "schema", "-c", str(path)], capture_output=True, text=True, check=False)
    assert "Valid cloud-config" in done.stdout + done.stderr, done.stdout + done.stderr
    assert done.returncode == 0


def test_cloud_files_are_yaml_and_say_what_was_wanted():
    yaml = pytest.importorskip("yaml")
    files = rendered("cloud-init", board=Customisation("gerät-x".replace("ä", "a"), wifi=Wifi("Café 😀", "", "FR")))
    network = yaml.safe_load(files["network-config"])["network"]
    assert network["wifis"]["wlan0"]["access-points"] == {"Café 😀": {"auth": {"key-management": "none"}}}
    full = rendered("cloudinit-rpi")
    user = yaml.safe_load(full["user-data"])
    assert user["users"][0]["passwd"] == HASH
    assert user["users"][0]["ssh_authorized_keys"] == list(BOARD.ssh_keys)
    assert user["runcmd"] == [["systemctl", "enable", "--now", "ssh"], ["sh", "/boot/firmware/strop/first-boot.sh"]]
    assert yaml.safe_load(full["meta-data"])["instance-id"] == "strop-1"
    assert full["cmdline.txt"].endswith(b" ds=nocloud;i=strop-1\n")
    points = yaml.safe_load(full["network-config"])["network"]["wifis"]["wlan0"]["access-points"]
    assert points == {BOARD.wifi.ssid: {"password": BOARD.wifi.key, "hidden": True}}
    assert "network-config" not in rendered("cloud-init", board=Customisation("x"))


def test_rpi_preseed_is_toml_of_known_keys_and_its_readers_two_escapes():
    text = rendered("rpi-preseed")["rpi-preseed.toml"].decode()
    found = tomllib.loads(text)
    assert found["config_version"] == "1.0"
    assert found["user"] == {"name": "ops", "password": HASH, "password_encrypted": True, "groups": ["sudo"]}
    assert found["wlan"]["ssid"] == BOARD.wifi.ssid
    assert found["locale"] == {
        "keymap": "de", "timezone": "Europe/Berlin", "locales": ["de_DE.UTF-8"], "lang": "de_DE.UTF-8",
    }  # fmt: skip
    assert found["runcmd"] == {"early": ["sh /boot/firmware/strop/first-boot.sh"], "early_cmd_timeout": 25}
    assert "\\u" not in text
    assert "cmdline.txt" not in rendered("rpi-preseed")
    with pytest.raises(UsageError, match="cannot be written"):
        render_toml.preseed_toml(Customisation("x"), ["two\nlines"])


def test_custom_toml_leaves_to_a_script_what_it_has_no_key_for():
    files = rendered("custom.toml")
    found = tomllib.loads(files["custom.toml"].decode())
    assert found["config_version"] == 1
    assert set(found) == {"config_version", "system", "user", "ssh", "wlan", "locale"}
    script = files["firstrun.sh"].decode()
    assert "locale-gen" in script
    assert "strop/first-boot.sh" in script
    assert "userconf" not in script  # init_config would skip the user if it were
    assert HASH not in script
    only = rendered("custom.toml", board=Customisation("cam-7"), payload=Payload())
    assert set(only) == {"custom.toml"}


@pytest.mark.parametrize("kind", ["firstrun", "custom.toml"])
def test_scripts_are_syntax_for_the_boards_shell(kind, tmp_path):
    path = tmp_path / "firstrun.sh"
    path.write_bytes(rendered(kind)["firstrun.sh"])
    done = subprocess.run(["sh", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def board_folder(tmp_path):
    """Return a folder with programs of its own that note how they were called, and a boot partition."""
    boot, programs = tmp_path / "boot", tmp_path / "bin"
    (boot / "strop").mkdir(parents=True)
    programs.mkdir()
    names = "systemctl usermod useradd groupmod chpasswd locale-gen raspi-config rfkill sync install chown getent id"
    for name in names.split():
        hears = f"[ {name} != chpasswd ] || cat >>{tmp_path}/passwords"
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/calls\n{hears}\n')
        (programs / name).chmod(0o755)
    return boot, programs


def test_firstrun_runs_to_its_end_and_deletes_itself_and_its_words(tmp_path):
    """The script itself, its paths below a folder of ours, on this machine's dash and sed."""
    boot, programs = board_folder(tmp_path)
    files = render(Detected(Format.FIRSTRUN, str(boot), ()), BOARD, PAYLOAD, instance="i", line=LINE)
    for path, data in files.items():
        (boot / path).write_bytes(data)
    script = files["firstrun.sh"].decode()
    for folder in ("/etc/", "/var/", "/usr/share/"):
        script = script.replace(folder, f"{tmp_path}/root{folder}")
    for folder in (
        "etc/ssh",
        "etc/default",
        "etc/NetworkManager/system-connections",
        "etc/sudoers.d",
        "var/log",
        "usr/share",
    ):
        (tmp_path / "root" / folder).mkdir(parents=True)
    (tmp_path / "root/etc/hostname").write_text("raspberrypi\n")
    (tmp_path / "root/etc/hosts").write_text("127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n")
    (tmp_path / "root/etc/default/keyboard").write_text('XKBLAYOUT="gb"\n')
    (tmp_path / "root/etc/locale.gen").write_text("# de_DE.UTF-8 UTF-8\n# fr_FR.UTF-8 UTF-8\n")
    (boot / "firstrun.sh").write_text(script)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["dash", str(boot / "firstrun.sh")], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (boot / "cmdline.txt").read_bytes() == LINE
    assert not (boot / "firstrun.sh").exists()
    root = tmp_path / "root/etc"
    assert (root / "hostname").read_text() == "cam-7\n"
    assert "127.0.1.1\tcam-7" in (root / "hosts").read_text()
    assert (root / "default/keyboard").read_text() == 'XKBLAYOUT="de"\n'
    assert (root / "locale.gen").read_text() == "de_DE.UTF-8 UTF-8\n# fr_FR.UTF-8 UTF-8\n"
    connection = root / "NetworkManager/system-connections/strop.nmconnection"
    assert f"psk={BOARD.wifi.key}" in connection.read_text()
    assert oct(connection.stat().st_mode)[-3:] == "600"
    assert (tmp_path / "passwords").read_text() == f"ops:{HASH}\n"
    assert "systemctl enable ssh" in (tmp_path / "calls").read_text()
    log = (tmp_path / "root/var/log/strop-firstrun.log").read_text()
    assert BOARD.wifi.key not in log
    assert HASH not in log
    assert (boot / "log").read_text() == f"ran {boot}\n"


def test_the_agents_lines_run_where_the_card_is_mounted_and_stop_at_the_first_failure(tmp_path):
    boot = tmp_path / "mount point" / "boot"
    (boot / "strop").mkdir(parents=True)
    script = boot / "strop" / "first-boot.sh"
    script.write_bytes(
        render_script.begin_script(["echo '{boot}' >'{boot}/seen'", "false", "echo never >'{boot}/seen'"])
    )
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (boot / "seen").read_text() == f"{boot}\n"


def test_odd_network_names_are_bytes_for_network_manager():
    text = render_script.firstrun(Customisation("x", wifi=Wifi("Café;#", "", "FR")), "/boot", "").decode()
    assert "ssid=67;97;102;195;169;59;35;" in text
    assert "wifi-security" not in text


def test_json_is_what_cloud_init_reads_first():
    head, _, body = render_cloud.user_data(BOARD, []).partition(b"\n")
    assert head == b"#cloud-config"
    assert json.loads(body)["hostname"] == "cam-7"
