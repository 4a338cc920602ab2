# SPDX-License-Identifier: Apache-2.0
"""From a published image to one board's, as a user types it; read back by mtools, fsck and by ``verify``."""

import datetime as dt
import hashlib
import json
import lzma
import random
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from edge_contract.errors import ImageError, UsageError
from fleet.flash.customisation import Customisation
from fleet.flash.formats import Format
from fleet.flash.image import Made, customise
from fleet.flash.manifest import MANIFEST
from fleet.flash.payload import Payload
from fleet.flash.settings import load
from fleet.flash.verify import look
from strop import cli
from tests.fleet.flash.fake_image import BOOT_AT, BOOT_BYTES, build, fsck, mtype, part_of, run, tool
from tests.fleet.flash.fake_image import KINDS as FAKES
from tests.fleet.flash.test_crypted import KEY

WHEN = dt.datetime(2026, 11, 21, 12, 30, 8, tzinfo=dt.UTC)
PASSWORD, PASSPHRASE = "so geheim 7", "plant passphrase 9"
CA = ssl.DER_cert_to_PEM_cert(b"not a real certificate, but the digest of its bytes counts")
DIGEST = hashlib.sha256(ssl.PEM_cert_to_DER_cert(CA)).hexdigest()
TOKEN = f"strop1.0a0b0c.{'5ec7e7' * 7}.{DIGEST}"
KINDS = ["cloud-init", "cloudinit-rpi", "firstrun", "rpi-preseed"]


def payload(python="3.11", machine="aarch64", **changes):
    """What WHEEL's builder gives, with small files in place of wheels."""
    rng = random.Random(8)
    plan = {"schema": "strop.first-boot/1", "device": "cam-7", "server": "https://fleet:8444", "model": "digits",
            "runtime": "litert", "python": python, "machine": machine, "factory": "ab" * 32, "files": []}  # fmt: skip
    files = {
        "strop/plan.json": json.dumps({**plan, **changes}).encode(),
        "strop/ca.pem": CA.encode(),
        "strop/token": f"{TOKEN}\n".encode(),
        "strop/wheels/strop-0.1.0-py3-none-any.whl": rng.randbytes(90_000),
        "strop/factory/manifest.json": b"{}",
        "strop/first-boot.pyz": rng.randbytes(4000),
    }
    return Payload(files, ("python3 {boot}/strop/first-boot.pyz begin --boot {boot}",))


def full(**changes):
    board = Customisation("cam-7", user="ops", ssh_keys=(KEY,), timezone="Europe/Berlin")
    return Made(board, payload(**changes))


@pytest.fixture
def strop(capsys):
    """Call the command line in this process; return exit code, stdout and stderr."""

    def call(*words):
        with pytest.raises(SystemExit) as end:
            cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return call


@pytest.fixture
def site(tmp_path):
    """A folder with secrets in files, and a site.toml that names them."""
    for name, text in {"ops.password": PASSWORD, "plant.wifi": PASSPHRASE, "ops.pub": KEY}.items():
        (tmp_path / name).write_text(f"{text}\n")
    path = tmp_path / "site.toml"
    path.write_text(
        '[board]\nhostname = "cam-7"\nuser = "ops"\npassword_file = "ops.password"\nssh_keys = ["ops.pub"]\n'
        'locale = "de_DE.UTF-8"\ntimezone = "Europe/Berlin"\nkeyboard = "de"\n'
        '[wifi]\nssid = "plant"\npassword_file = "plant.wifi"\ncountry = "DE"\n'
    )
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_makes_and_verifies_an_image(strop, bases, site, tmp_path, kind):
    """xz, a digest, settings of a file, one option before it; every file equal through mtools, fsck clean."""
    base = tmp_path / f"{kind}.img.xz"
    base.write_bytes(lzma.compress(bases(kind).read_bytes(), preset=0))
    sha = hashlib.sha256(base.read_bytes()).hexdigest()
    out = tmp_path / "card.img"
    words = ("flash", "image", base, "--out", out, "--settings", site, "--hostname", "cam-8", "--sha256", sha)
    code, said, errors = strop(*words)
    assert (code, errors) == (0, ""), errors
    assert "verified   SHA-256 of the published file" in said
    assert fsck(out) == ""
    assert oct(out.stat().st_mode)[-3:] == "600"
    manifest = json.loads(mtype(out, MANIFEST))
    for path, wanted in manifest["files"].items():
        data = mtype(out, path)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (wanted["size"], wanted["sha256"]), path
    code, said, errors = strop("flash", "verify", out)
    assert (code, errors) == (0, ""), said
    words = ["cam-8", "ops (password and 1 SSH key)", "Wi-Fi 'plant' (WPA key, DE)", "de_DE.UTF-8, Europe/Berlin, de"]
    assert [text for text in [*words, f"{kind} (", "good: the board will do this"] if text not in said] == []
    whole = out.read_bytes()
    assert PASSWORD.encode() not in whole
    assert PASSPHRASE.encode() not in whole
    code, said, _ = strop("flash", "image", base, "--out", out, "--settings", site)
    assert (code, said) == (2, "")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_json_tells_everything_and_nothing_secret(strop, bases, site, tmp_path):
    out = tmp_path / "card.img"
    code, said, _ = strop("flash", "image", bases("firstrun"), "--out", out, "--settings", site, "--json")
    made = json.loads(said)
    assert (code, made["format"], made["board"]["wifi"]) == (0, "firstrun", "plant")
    code, told, _ = strop("flash", "verify", out, "--json")
    report = json.loads(told)
    assert (code, report["is_good"], report["faults"], report["board"]["user"]) == (0, True, [], "ops")
    assert report["base"]["name"] == "firstrun.img"
    for secret in (PASSWORD, PASSPHRASE, "$6$", "psk="):
        assert secret not in said + told


def test_secrets_come_from_the_environment_and_are_not_on_the_command_line(strop, bases, tmp_path, monkeypatch):
    monkeypatch.setenv("STROP_USER_PASSWORD", PASSWORD)
    monkeypatch.setenv("STROP_WIFI_PASSWORD", PASSPHRASE)
    out = tmp_path / "card.img"
    words = ("--hostname", "cam-7", "--user", "ops", "--wifi-ssid", "plant", "--wifi-country", "DE")
    code, _, _ = strop("flash", "image", bases("rpi-preseed"), "--out", out, *words)
    assert code == 0
    assert look(out).facts["board"]["password"] is True
    help_text = strop("flash", "image", "--help")[1]
    assert "--password " not in help_text
    assert "--token " not in help_text
    for words in (("--wifi-password", "x"), ("--user-password", "x"), ("--token", "x")):
        code, _, errors = strop("flash", "image", "base", "--out", out, *words)
        assert code == 2
        assert "No such option" in errors


def test_the_same_input_gives_the_same_image(fresh, tmp_path):
    images = [fresh("cloudinit-rpi", name) for name in ("a.img", "b.img")]
    for image in images:
        customise(image, full(python="3.13"), when=WHEN, instance="strop-1")
    assert images[0].read_bytes() == images[1].read_bytes()
    customise(fresh("cloudinit-rpi", "c.img"), full(python="3.13"), when=WHEN)
    assert (tmp_path / "c.img").read_bytes() != images[0].read_bytes()  # an instance of its own


@pytest.mark.parametrize("kind", KINDS)
def test_verify_says_what_the_agent_will_do(fresh, kind):
    python = {"cloud-init": "3.12", "firstrun": "3.11"}.get(kind, "3.13")
    image = fresh(kind)
    customise(image, full(python=python), when=WHEN)
    report = look(image)
    text = report.to_text()
    assert report.faults == []
    assert f"device 'cam-7', litert, Python {python} on aarch64" in text
    assert "'digits', bundle abababababababab…" in text
    assert "https://fleet:8444" in text
    assert f"0a0b0c, one use, for the CA {DIGEST[:16]}…" in text
    assert "5ec7e7" not in text
    assert "5ec7e7" not in json.dumps(report.to_json())
    assert b"5ec7e7" not in mtype(image, MANIFEST)
    assert mtype(image, "strop/first-boot.sh").decode().count("first-boot.pyz begin") == 1


def test_a_card_is_made_for_another_device_from_the_same_image(fresh):
    """A batch copies an image and customises it again: same format, other name, other instance."""
    image = fresh("firstrun")
    first = customise(image, full(), when=WHEN)
    second = customise(image, Made(Customisation("cam-8"), payload()), when=WHEN)
    assert first.instance != second.instance
    assert look(image).facts["board"]["hostname"] == "cam-8"
    assert mtype(image, "cmdline.txt").count(b"systemd.run=") == 1
    assert fsck(image) == ""


def patch(image, path, data):
    source = image.with_name("patch")
    source.write_bytes(data)
    run("mcopy", "-o", "-i", f"{image}@@{BOOT_AT}", source, f"::{path}")


def drop(image, path):
    run("mdel", "-i", f"{image}@@{BOOT_AT}", f"::{path}")


LINE = b"console=tty1 root=PARTUUID=1-02 rootwait"


@pytest.mark.parametrize(
    ("kind", "harm", "words"),
    [
        ("firstrun", lambda i: patch(i, "strop/ca.pem", b"x"), "strop/ca.pem: is not what was written"),
        ("firstrun", lambda i: drop(i, "strop/first-boot.pyz"), "strop/first-boot.pyz: no such file"),
        ("firstrun", lambda i: patch(i, "cmdline.txt", LINE), "starts nothing instead of /boot/firmware/firstrun.sh"),
        ("firstrun", lambda i: patch(i, "cmdline.txt", b"root=x\nquiet\n"), "cmdline.txt: has 2 lines"),
        ("firstrun", lambda i: patch(i, "strop/plan.json", b"7"), "strop/plan.json is damaged"),
        ("firstrun", lambda i: drop(i, "firstrun.sh"), "nothing is set up: there is no firstrun.sh"),
        ("firstrun", lambda i: drop(i, "strop/token"), "no token: it can never enrol"),
        ("firstrun", lambda i: patch(i, "strop/token", b"strop1.zz"), "this is not an enrolment token"),
        ("firstrun", lambda i: patch(i, "strop/manifest.json", b"{"), "strop/manifest.json: is damaged"),
        ("firstrun", lambda i: patch(i, "strop/plan.json", b"{"), "strop/plan.json is damaged"),
        ("cloudinit-rpi", lambda i: patch(i, "cmdline.txt", LINE + b" ds=nocloud;i=other"), "name different instances"),
        ("cloudinit-rpi", lambda i: patch(i, "user-data", b"hostname: x\n"), "does not begin with #cloud-config"),
        ("cloudinit-rpi", lambda i: patch(i, "user-data", b"#cloud-config\nhostname: x\n"), "not written by Strop"),
        ("cloudinit-rpi", lambda i: drop(i, "strop/first-boot.sh"), "runs strop/first-boot.sh, which is not there"),
        ("rpi-preseed", lambda i: patch(i, "rpi-preseed.toml", b"= x"), "rpi-preseed.toml cannot be read here"),
        ("rpi-preseed", lambda i: patch(i, "cmdline.txt", LINE + b" systemd.run=/boot/x.sh"), "starts /boot/x.sh"),
        ("rpi-preseed", lambda i: patch(i, "cmdline.txt", b"quiet"), "names no root file system"),
        (
            "rpi-preseed",
            lambda i: patch(i, "rpi-preseed.toml", b'config_version = "1.0"\n[system]\nhostname = "cam-9"\n'),
            "hostname is 'cam-9', the card was made for 'cam-7'",
        ),
    ],
)
def test_verify_finds_what_was_changed_afterwards(fresh, strop, kind, harm, words):
    image = fresh(kind)
    customise(image, full(python="3.11" if kind == "firstrun" else "3.13"), when=WHEN)
    harm(image)
    code, said, _ = strop("flash", "verify", image)
    assert code == 1
    assert words in said, said
    assert "not good: see the faults" in said


def test_older_files_that_may_be_read_besides_are_told(fresh):
    image = fresh("firstrun")
    customise(image, full(), when=WHEN)
    patch(image, "userconf.txt", b"pi:x")
    report = look(image)
    assert report.faults == []
    assert report.remarks == ["userconf.txt is there, too; images of Raspberry Pi read it besides"]


def test_a_token_of_another_server_is_found(fresh):
    image = fresh("firstrun")
    customise(image, full(), when=WHEN)
    patch(image, "strop/token", f"strop1.0a.{'5e' * 20}.{'0' * 64}\n".encode())
    assert "token and ca.pem are of different servers" in look(image).faults


def test_verify_of_an_untouched_image_says_that_nothing_is_set_up(bases):
    report = look(bases("firstrun"))
    assert report.faults == ["nothing is set up: there is no firstrun.sh"]
    assert "no manifest of strop flash: the files were compared with nothing" in report.remarks


BIG = Payload({"strop/big": bytes(40 << 20)})


def same(path, before):
    return hashlib.sha256(path.read_bytes()).hexdigest() == before


@pytest.mark.parametrize(
    ("kind", "made", "words"),
    [
        ("unknown", full(), "which first-boot format it reads is not known"),
        ("firstrun", full(python="3.13"), r"the wheelhouse is for python 3.13, the image has 3.11; .*--python 3.11"),
        ("firstrun", full(machine="armv7l"), r"for machine armv7l, the image has aarch64; .*--arch aarch64"),
        ("firstrun", Made(Customisation("x"), BIG), "the boot partition is full: .* more bytes"),
        ("firstrun", Made(Customisation("x"), Payload({"strop/a:b": b""})), "leave out ':'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_the_first_byte(fresh, kind, made, words):
    image = fresh(kind)
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    with pytest.raises((ImageError, UsageError), match=words):
        customise(image, made, when=WHEN)
    assert same(image, before)


def test_an_image_that_another_tool_customised_is_refused(fresh):
    image = fresh("cloudinit-rpi")
    patch(image, "firstrun.sh", b"#!/bin/sh\n")
    with pytest.raises(ImageError, match=r"firstrun.sh of another customisation is there"):
        customise(image, full(python="3.13"), when=WHEN)


def test_a_person_may_name_the_format(fresh):
    image = fresh("unknown")
    customise(image, Made(Customisation("cam-7"), format=Format.CLOUD_INIT), when=WHEN)
    report = look(image)
    assert report.faults == []
    assert "the image does not show which format it reads; the card was made by --format" in report.remarks
    image = fresh("firstrun", "toml.img")
    made = Made(Customisation("cam-7", locale="de_DE.UTF-8", keyboard="de"), payload(), Format.CUSTOM_TOML)
    customise(image, made, when=WHEN)
    report = look(image)
    assert report.faults == []
    assert report.facts["board"]["locale"] == "de_DE.UTF-8"


def test_a_failed_image_leaves_nothing(strop, bases, tmp_path):
    out = tmp_path / "card.img"
    code, _, errors = strop("flash", "image", bases("unknown"), "--out", out, "--hostname", "x")
    assert code == 1
    assert errors.startswith("error: unknown.img partition 1: which first-boot format")
    cut = tmp_path / "cut.img"
    cut.write_bytes(bases("firstrun").read_bytes()[: 10 << 20])
    code, _, errors = strop("flash", "image", cut, "--out", out, "--hostname", "x")
    what = "cut.img: partition 1 ends at byte 14680064, the image has 10485760; the image is cut short: fetch it again"
    assert (code, errors) == (1, f"error: {what}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.img"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[board]\nhostname = "x"\npassword = "geheim"\n', "does not belong into a settings file; write password_file"),
        ('[fleet]\ntoken = "strop1"\n', "'token' does not belong into a settings file; write token_file"),
        ('[board]\nhost = "x"\n', "unknown key 'host'; use hostname,"),
        ('[boards]\nhostname = "x"\n', "unknown table 'boards'; use board,"),
        ("[board]\nhostname = 7\n", "hostname = 7 is of the wrong kind; write a str"),
        ('[board]\nhostname = "x"\nssh_keys = "a.pub"\n', "is of the wrong kind; write a list"),
        ("[board\n", "is no TOML"),
        ("[board]\n", "no host name; add --hostname NAME"),
        ('[board]\nhostname = "x"\n[image]\nformat = "raspbian"\n', "unknown format 'raspbian'; use cloud-init,"),
        ('[board]\nhostname = "x"\nuser = "ops"\npassword_file = "none"\n', "none: cannot be read"),
        ('[board]\nhostname = "x"\nuser = "ops"\nssh_keys = ["key"]\n', "is a private key; name key.pub"),
        ('[board]\nhostname = "x"\n[fleet]\nserver = "https://f:1"\n', "a fleet server without an agent to install"),
        ('[board]\nhostname = "x"\nuser = "o"\npassword_file = "two"\n', "is to hold one line, the secret"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_wrong_words_and_show_no_secret(tmp_path, text, words):
    (tmp_path / "key").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n")
    (tmp_path / "two").write_text("geheim\ngeheim\n")
    path = tmp_path / "site.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load(path)
    assert words in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_a_token_in_place_of_its_file_is_refused_and_not_repeated(tmp_path):
    with pytest.raises(UsageError, match="this is a token and not a file with one") as caught:
        load(None, {"board.hostname": "x", "fleet.token_file": Path(TOKEN), "agent.wheelhouse": tmp_path})
    assert "5ec7e7" not in str(caught.value)


def test_a_batch_names_its_devices_itself(site):
    text = site.read_text().replace('hostname = "cam-7"\n', "")
    site.write_text(text)
    found = load(site, is_named=False)
    boards = [found.for_device(name).customisation for name in ("cam-1", "cam-2")]
    assert [board.hostname for board in boards] == ["cam-1", "cam-2"]
    assert boards[0].password_hash == boards[1].password_hash  # hashed once


@pytest.mark.long
def test_memory_does_not_grow_with_the_image(tmp_path):
    """Images of 60 and 300 MB, unpacked by a process of its own: its peak is the same and below 60 MB."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom fleet.flash.base import Checks, unpack\n"
        "from fleet.flash.streams import Source\n"
        "unpack(Source(Path(sys.argv[1]), with_programs=sys.argv[2] == 'yes'), Path(sys.argv[3]), Checks())\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    peaks = {}
    block = random.Random(1).randbytes(100_000) * 10  # packs fast, and unpacks as fast as any
    for megabytes in (60, 300):
        path = tmp_path / f"{megabytes}.xz"
        encoder = lzma.LZMACompressor(preset=1)
        path.write_bytes(b"".join(encoder.compress(block) for _ in range(megabytes)) + encoder.flush())
        for programs in ("yes", "no"):
            words = [sys.executable, "-c", code, str(path), programs, str(tmp_path / "out.img")]
            done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
            peaks[megabytes, programs] = int(done.stdout)
            (tmp_path / "out.img").unlink()
    print(f"\npeak of our process in KB: {peaks}")
    assert max(peaks.values()) < 60_000
    assert peaks[300, "yes"] < peaks[60, "yes"] + 4000
    assert peaks[300, "no"] < peaks[60, "no"] + 4000


@pytest.mark.parametrize("kind", KINDS)
def test_the_payload_goes_into_the_root_when_asked(fresh, kind):
    python = {"cloud-init": "3.12", "firstrun": "3.11"}.get(kind, "3.13")
    image = fresh(kind)
    made = Made(Customisation("cam-7", locale="C.UTF-8"), payload(python=python), on_root=True)
    manifest = customise(image, made, when=WHEN)
    home = "/var/lib/strop-card/strop"
    assert fsck(image) == ""
    root_at = BOOT_AT + BOOT_BYTES[FAKES[kind].bits]
    root = image.with_name("root.ext4")
    root.write_bytes(part_of(image, 2))
    done = subprocess.run([tool("e2fsck"), "-fn", str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    stat = run("debugfs", "-R", f"stat {home}/token", root)
    assert "Mode:  0600" in stat
    wheel = f"{home}/wheels/strop-0.1.0-py3-none-any.whl"
    done = subprocess.run([tool("debugfs"), "-R", f"cat {wheel}", str(root)], capture_output=True, check=False)
    assert hashlib.sha256(done.stdout).hexdigest() == manifest.files[wheel].sha256
    names = {"cloud-init": "user-data", "cloudinit-rpi": "user-data", "firstrun": "firstrun.sh"}
    assert f"{home}/first-boot.sh".encode() in mtype(image, names.get(kind, "rpi-preseed.toml"))
    report = look(image)
    assert report.faults == []
    assert "device 'cam-7', litert" in report.to_text()
    run("debugfs", "-w", "-R", f"rm {home}/first-boot.pyz", f"{image}?offset={root_at}")
    assert any("first-boot.pyz: no such file" in fault for fault in look(image).faults)


def test_an_image_with_gpt_is_customised(tmp_path):
    image = build(tmp_path, "cloud-init", gpt=True)
    customise(image, full(python="3.12"), when=WHEN)
    report = look(image)
    assert (report.faults, report.remarks) == ([], [])
    assert "GPT, boot FAT16" in report.to_text()


def test_a_full_root_is_refused_before_the_first_byte(fresh):
    image = fresh("firstrun")
    before = hashlib.sha256(image.read_bytes()).hexdigest()
    made = Made(Customisation("x"), Payload({"strop/big": bytes(9 << 20)}), on_root=True)
    with pytest.raises(ImageError, match=r"the root file system is full: .* more bytes are needed"):
        customise(image, made, when=WHEN)
    assert same(image, before)
