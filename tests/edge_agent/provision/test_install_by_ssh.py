# SPDX-License-Identifier: Apache-2.0
"""``strop agent install`` through a real sshd on loopback, run by this user with keys of its own, into a folder."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_contract.errors import DownloadError, StropError, UsageError
from fleet.flash.payload import Settings
from strop.install import command
from strop.install.remote import Remote
from tests.edge_agent.provision import card

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
pytestmark = pytest.mark.skipif(
    not Path(SSHD).exists() or shutil.which("ssh-keygen") is None, reason="no sshd: apt-get install openssh-server"
)


def keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    """Return an ssh configuration whose host ``board`` is this computer, with a home of its own."""
    folder = tmp_path_factory.mktemp("ssh")
    home = folder / "home"
    home.mkdir()
    for name in ("host", "user", "stranger"):
        keygen(folder / name)
    shutil.copy(folder / "user.pub", folder / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = [
        f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder}/host", f"AuthorizedKeysFile {folder}/authorized",
        "StrictModes no", "UsePAM no", "PasswordAuthentication no", "KbdInteractiveAuthentication no",
        f"PidFile {folder}/pid", f"SetEnv HOME={home}", "PermitRootLogin prohibit-password",
    ]  # fmt: skip
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    public = (folder / "host.pub").read_text().split()[:2]
    (folder / "known").write_text(f"[127.0.0.1]:{port} {' '.join(public)}\n")
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    lines = [
        "Host board stranger", f"  HostName 127.0.0.1\n  Port {port}\n  User {user}", "  IdentitiesOnly yes",
        f"  UserKnownHostsFile {folder}/known", "  GlobalKnownHostsFile /dev/null",
        f"Host board\n  IdentityFile {folder}/user", f"Host stranger\n  IdentityFile {folder}/stranger",
    ]  # fmt: skip
    (folder / "config").write_text("\n".join(lines) + "\n")
    for _ in range(500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)
    yield folder
    child.terminate()
    child.wait(20)


@pytest.fixture
def install(sshd, tmp_path, wheelhouse, factory):
    def run(*words: str, house: Path = wheelhouse, env=None) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "strop", "agent", "install", "--ssh", "board", "--device", "pi-9"]
        given = ["--ssh-config", sshd / "config", "--wheelhouse", house, "--factory", factory]
        where = ["--root", tmp_path / "root"]
        whole = [str(word) for word in (*program, *given, *where, *words)]
        return subprocess.run(whole, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})})

    return run


def test_files_that_are_there_are_not_sent_again(sshd, tmp_path):
    remote = Remote("board", sshd / "config")
    folder = f"{sshd}/home/some 'where"
    remote.send(folder, {"strop/a": b"one", "strop/b c": b"two"})
    there = remote.digests(folder, ["strop/a", "strop/b c", "strop/missing"])
    assert set(there) == {"strop/a", "strop/b c"}
    assert Path(folder, "strop/a").stat().st_mode & 0o777 == 0o600


def test_a_board_that_does_not_know_us_or_that_we_do_not_know_is_refused_in_one_line(sshd, tmp_path):
    with pytest.raises(DownloadError, match="Permission denied"):
        Remote("stranger", sshd / "config").probe()
    (tmp_path / "config").write_text((sshd / "config").read_text().replace(str(sshd / "known"), "/dev/null"))
    with pytest.raises(DownloadError, match=r"[Hh]ost key verification failed"):
        Remote("board", tmp_path / "config").probe()
    with pytest.raises(StropError, match="code 3"):
        Remote("board", sshd / "config").run(["sh", "-c", "exit 3"])
    for target in ("-oProxyCommand=true", "", "a b"):
        with pytest.raises(UsageError, match="is no host"):
            Remote(target)


def test_a_wheelhouse_for_another_board_is_named_before_anything_is_sent(sshd, tmp_path):
    house = card.house(tmp_path / "house")
    index = house / "wheelhouse.json"
    index.write_text(index.read_text().replace('"machine": "', '"machine": "vax-'))
    wish = command.Wish(Settings("pi-9"), wheelhouse=house, root=str(tmp_path))
    with pytest.raises(UsageError, match=r"it is for Python 3\.11 on vax-"):
        command.install(Remote("board", sshd / "config"), wish, lambda _: None)
    assert not (sshd / "home/strop-install").exists()


def test_a_running_board_is_installed_over_ssh_and_goes_on_where_it_was_cut(sshd, install, tmp_path):
    token = f"strop1.0a0b.{'c' * 40}.{'d' * 64}"
    partial = sshd / "home/strop-install/strop/wheels"
    partial.mkdir(parents=True)
    (partial / "requirements.txt").write_text("half")  # what an earlier run left
    cut = install("--server", "https://127.0.0.1:1", env={"STROP_TOKEN": token})
    assert cut.returncode == 1
    assert "looking at the board" in cut.stderr
    assert "golden exact" in cut.stdout
    assert "no way to the server" in cut.stdout
    assert "The factory model goes on" in cut.stdout
    assert token not in cut.stdout + cut.stderr
    there = sshd / "home/strop-install/strop/token"
    assert there.read_text().strip() == token
    assert there.stat().st_mode & 0o777 == 0o600
    done = install()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sending 1 files" in done.stderr  # another plan: no server
    assert "pi-9 is set up" in done.stdout
    assert (tmp_path / "root/opt/strop/bin/python").exists()
    assert not (sshd / "home/strop-install").exists()
