# SPDX-License-Identifier: Apache-2.0
"""The script for boards that fetch their first boot: run by a real shell, from a real web server."""

import functools
import http.server
import os
import subprocess
import threading

import pytest

from edge_contract.errors import UsageError
from edge_contract.software import here
from fleet.flash import payload
from fleet.flash import script as scripts
from strop.install import command
from tests.edge_agent.provision import card


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}/strop.tar"
    server.shutdown()
    server.server_close()
    thread.join()


def run(text, tmp_path, *words, **env):
    (tmp_path / "install.sh").write_text(text)
    (tmp_path / "token").write_text("strop1.0a.b.c\n")
    where = {"STROP_FOLDER": str(tmp_path / "there"), "STROP_WORDS": f"--root {tmp_path / 'root'}"}
    given = words or ("pi-01", tmp_path / "token")
    return subprocess.run(
        ["sh", str(tmp_path / "install.sh"), *map(str, given)],
        capture_output=True, text=True, check=False, env={**os.environ, **where, **env},
    )  # fmt: skip


def test_a_board_fetches_checks_and_begins_and_foreign_bytes_are_never_used(site, tmp_path):
    folder, url = site
    house = card.house(tmp_path / "house")
    text = command.printed(payload.Settings("", is_generic=True), house, folder / "strop.tar", url)
    assert subprocess.run(["sh", "-n"], input=text, text=True, check=False).returncode == 0
    whole = (folder / "strop.tar").read_bytes()
    (folder / "strop.tar").write_bytes(whole[:-600] + b"evil" + whole[-596:])
    refused = run(text, tmp_path)
    assert refused.returncode == 1
    assert "is not the archive that this script was made for; nothing was installed" in refused.stderr
    assert not (tmp_path / "there/strop").exists()
    (folder / "strop.tar").write_bytes(whole)
    done = run(text, tmp_path, STROP_WORDS="--help")  # the program is reached; what it does has tests of its own
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("usage: first-boot.pyz")
    assert (tmp_path / "there/strop/device").read_text() == "pi-01\n"
    assert (tmp_path / "there/strop/token").stat().st_mode & 0o777 == 0o600


def test_the_script_names_what_is_missing(tmp_path):
    text = scripts.script(b"", "https://fleet/strop.tar", *here())
    assert "usage: sh install.sh DEVICE TOKEN_FILE" in run(text, tmp_path, "pi-01").stderr
    assert "no token there" in run(text, tmp_path, "pi-01", "/nowhere").stderr
    other = scripts.script(b"", "https://fleet/strop.tar", "3.13", "vax")
    assert "the archive is for 3.13 vax" in run(other, tmp_path).stderr
    with pytest.raises(UsageError, match="is no address to fetch from"):
        scripts.script(b"", "file:///etc/passwd", *here())
    with pytest.raises(UsageError, match="may carry no token"):
        scripts.archive(payload.Payload({"strop/token": b"secret"}))
    with pytest.raises(UsageError, match="needs --wheelhouse"):
        command.printed(payload.Settings("", is_generic=True), None, None, "")
