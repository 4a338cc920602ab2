# SPDX-License-Identifier: Apache-2.0
"""A card for tests: a wheelhouse whose one wheel is the repository's own code, with this environment's packages behind
it, a real factory model, and the real first-boot program, run by the system's bare Python into a folder as its root.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

from edge_contract import wheel
from edge_contract.software import here
from fleet.flash import payload
from fleet.flash.wheelhouse import INDEX, REQUIREMENTS, Wheelhouse, WheelhouseFile

HOME = Path(__file__).resolve().parents[3]
PYTHON = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
NUMBERS = ("proc/device-tree/serial-number", "sys/class/dmi/id/product_uuid", "etc/machine-id")
PACKAGES = ("edge_agent", "edge_contract", "strop")

SYSTEMCTL = """#!{python}
# Stands in for systemd: starts what the unit says, below this root.
import os, signal, subprocess, sys, time
root, words = {root!r}, sys.argv[1:]
pid_file = root + "/agent.pid"
open(root + "/systemctl.log", "a").write(" ".join(words) + "\\n")
if words[0] == "restart":
    unit = open(root + "/etc/systemd/system/" + words[-1]).read()
    line = next(l for l in unit.splitlines() if l.startswith("ExecStart=")).removeprefix("ExecStart=")
    try:
        pid = int(open(pid_file).read())
        os.kill(pid, signal.SIGTERM)
        for _ in range(500):
            os.kill(pid, 0)
            time.sleep(0.02)
    except (OSError, ValueError):
        pass
    words = [root + w if w.startswith("/") else w for w in line.split()]
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             start_new_session=True)
    open(pid_file, "w").write(str(child.pid))
"""


def own_wheel(folder: Path, *, with_packages: bool = True) -> Path:
    """Write a wheel of the repository's packages; the packages of this environment are found behind them."""
    info, path = "strop-0.1.0.dist-info", folder / "strop-0.1.0-py3-none-any.whl"
    contents = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: strop\nVersion: 0.1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": b"[console_scripts]\nstrop = strop.cli:main\n",
    }
    if with_packages:
        ours = f"import sys; sys.path.insert(0, {str(HOME)!r})"  # the same sources, with their bytecode: seconds a boot
        contents["strop_behind.pth"] = f"{sysconfig.get_path('purelib')}\n{ours}\n".encode()
    for name in PACKAGES:
        for source in sorted((HOME / name).rglob("*")):
            if source.is_file() and "__pycache__" not in source.parts:
                contents[str(source.relative_to(HOME))] = source.read_bytes()
    record = "".join(f"{name},{wheel.encoded(data)},{len(data)}\n" for name, data in contents.items())
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**contents, f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}.items():
            archive.writestr(name, data)
    return path


def house(folder: Path, wheels: list[Path] | None = None, runtime: str = "litert") -> Path:
    """Write a wheelhouse for this very Python out of wheels in its folder; our own alone if none are given."""
    found = [wheel.read(path) for path in wheels or [own_wheel(folder)]]
    files = tuple(
        WheelhouseFile(w.path.name, w.name, w.version, w.sha256, w.size, w.unpacked, w.unpacked, w.sha256)
        for w in sorted(found, key=lambda w: w.path.name)
    )
    made = Wheelhouse(folder, *here(), runtime, files)
    (folder / REQUIREMENTS).write_bytes(made.requirements())
    (folder / INDEX).write_bytes(made.index())
    return folder


def write(boot: Path, made: payload.Payload) -> Path:
    """Write a payload to a folder that stands for the boot partition."""
    for name, data in made.files.items():
        path = boot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.read_bytes())
    return boot


class Board:
    """A root file system and its boot partition, on the board that runs the test: its agent looks at ``/``."""

    def __init__(self, folder: Path) -> None:
        self.root, self.boot = folder / "root", folder / "boot"
        self.root.mkdir(parents=True)
        for name in NUMBERS:
            with contextlib.suppress(OSError):
                text = Path("/", name).read_bytes()
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                (self.root / name).write_bytes(text)
        self.systemctl = folder / "systemctl"
        self.systemctl.write_text(SYSTEMCTL.format(python=PYTHON, root=str(self.root)))
        self.systemctl.chmod(0o755)

    def be(self, serial: str = "10000000a1b2c3d4", machine: str = "5" * 32) -> None:
        """Take another board's numbers."""
        for name, text in {"proc/device-tree/serial-number": f"{serial}\0", "etc/machine-id": f"{machine}\n"}.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)

    @property
    def data(self) -> Path:
        return self.root / "var/lib/strop"

    @property
    def memory(self) -> Path:
        return self.root / "var/lib/strop-first-boot"

    @property
    def python(self) -> Path:
        return self.root / "opt/strop/bin/python"

    @property
    def status(self) -> dict[str, Any]:
        return dict(json.loads((self.memory / "status.json").read_bytes()))

    @property
    def journal(self) -> dict[str, Any]:
        return dict(json.loads((self.memory / "journal.json").read_bytes()))

    def words(self, *words: str) -> list[str]:
        program = self.boot / "strop" / "first-boot.pyz"
        where = ["--boot", str(self.boot), "--root", str(self.root), "--systemctl", str(self.systemctl)]
        return [PYTHON, "-I", str(program), *(words or ("run", "--once")), *where]

    def first_boot(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL"))}
        return subprocess.run(
            self.words(*words), capture_output=True, text=True, check=False, env={**environ, **(env or {})}, timeout=200
        )

    @property
    def log(self) -> str:
        path = self.data / "logs" / "agent.log"
        return path.read_text() if path.exists() else ""

    def stop_agent(self) -> None:
        path = self.root / "agent.pid"
        if path.exists():
            try:
                os.killpg(int(path.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                return
            path.unlink()

    def copy(self, folder: Path) -> "Board":
        """Return a card with the same bytes, boot partition and all."""
        other = Board(folder)
        shutil.rmtree(other.root)
        shutil.copytree(self.root, other.root, symlinks=True)
        shutil.copytree(self.boot, other.boot)
        return other
