# SPDX-License-Identifier: Apache-2.0
"""Releases of a few lines: wheels named ``strop`` that stand in for new versions of the agent.

``real`` gives the repository's own code under another version number, by a path file, so that an environment takes a
second to build; a fault may be patched into it. ``small`` is a program of its own that only does what a test asks.
"""

import base64
import hashlib
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_contract.manifest import MANIFEST_NAME
from edge_contract.software import SoftwareManifest, here
from export.software import release
from export.software.wheels import read_all

HOME = Path(__file__).resolve().parents[3]
KIND = release.Kind(*here())

FAULTS = {
    "": "",
    "dies at import": "import os\nos._exit(3)\n",
    "hangs at import": "import time\ntime.sleep(600)\n",
    "cannot connect": "from edge_agent.adapters import mqtt\nmqtt.Link.start = lambda self: None\n",
    "its loop hangs": "from edge_agent import app\nimport time\napp.App.loop = lambda self: time.sleep(600)\n",
    "dies after a while": (
        "from edge_agent import app\nimport os, time\ntick = app.App._tick\n"
        "def late(self, now):\n    tick(self, now)\n    if self.link and self.state.is_connected: os._exit(9)\n"
        "app.App._tick = late\n"
    ),
    "reads no model": (
        "from edge_agent.adapters import runner_process\nsend = runner_process.RunnerProcess.send\n"
        "def broken(self, words):\n    send(self, {**words, 'folder': '/nowhere'} if 'folder' in words else words)\n"
        "runner_process.RunnerProcess.send = broken\n"
    ),
}
"""What is wrong → what is run at the start of the release's interpreter, unless it only examines itself."""


def wheel(
    folder: Path,
    name: str,
    version: str,
    files: Mapping[str, str],
    *,
    tag: str = "py3-none-any",
    needs: Sequence[str] = (),
) -> Path:
    """Write a wheel whose record is right."""
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
    contents = {
        **files,
        f"{info}/METADATA": "\n".join(lines) + "\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in contents.items())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for inner, text in contents.items():
            archive.writestr(inner, text)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


TRUST = """
import json
from edge_agent.adapters.trust import SignedBlob, TrustHelper
from edge_contract.jobs import JobDocument, Signed

def refresh(self, url, targets, **_):
    found = json.loads((self._data / "signed.json").read_text())
    return {sha256: SignedBlob(size, {}) for sha256, size in found.items()}

def verify_job(self, payload, device, **_):
    return JobDocument.from_bytes(Signed.from_bytes(payload).payload)

TrustHelper.refresh, TrustHelper.verify_job = refresh, verify_job
"""
"""What is signed is stated by a table in the data folder; the real trust helper has its own tests."""

PROGRAM = """
import sys
sys.path[:0] = [{home!r}]
if "edge_agent" in sys.orig_argv:
    from pathlib import Path
    from edge_agent import config
    config.AGENT_VERSION = {version!r}
{trust}
    told = Path(sys.orig_argv[sys.orig_argv.index("--data") + 1], "fault")
    fault = told.read_text() if {may_fail} and "--check" not in sys.orig_argv and told.exists() else ""
    exec({faults!r}[fault])
"""


def program(version: str, *, may_fail: bool = True) -> dict[str, str]:
    """Return the files that make an environment run the repository's code as another version.

    What is wrong with it stands in ``fault`` in the data folder.
    """
    trust = "".join(f"    {line}\n" for line in TRUST.splitlines())
    text = PROGRAM.format(home=str(HOME), version=version, trust=trust, may_fail=may_fail, faults=FAULTS)
    return {"strop_fake.py": text, "strop_fake.pth": f"{sysconfig.get_path('purelib')}\nimport strop_fake\n"}


def real(folder: Path, version: str) -> Path:
    """Return a release of the repository's own code that says it is another version."""
    return bundle(folder, [wheel(folder / "house", "strop", version, program(version))])


def installed(folder: Path) -> Path:
    """Return the interpreter of the software that is installed on the device: an environment with the same code."""
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    for name, text in program("0.1.0", may_fail=False).items():
        (packages / name).write_text(text)
    return folder / "bin" / "python"


def small(folder: Path, version: str, program: str) -> Path:
    """Return a release whose ``edge_agent`` is one program; it passes every self-test."""
    start = (
        "import json, sys\n"
        f"if '--check' in sys.argv:\n    print(json.dumps({{'version': {version!r}}}))\n    raise SystemExit(0)\n"
    )
    files = {"edge_agent/__init__.py": "", "edge_agent/__main__.py": start + program}
    return bundle(folder, [wheel(folder / "house", "strop", version, files)])


def bundle(folder: Path, wheels: Sequence[Path]) -> Path:
    """Return the release's folder."""
    out = folder / "release"
    shutil.rmtree(out, ignore_errors=True)
    release.write(release.plan(read_all(wheels[0].parent), [KIND]), out)
    return out


def manifest(folder: Path) -> SoftwareManifest:
    return SoftwareManifest.from_bytes((folder / MANIFEST_NAME).read_bytes())
