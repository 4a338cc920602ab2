# SPDX-License-Identifier: Apache-2.0
"""A wheelhouse without a network: what is installed here is packed into wheels again, and our own wheel is built."""

import base64
import hashlib
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

HOME = Path(__file__).resolve().parents[3]
FOLDERS = ("benchmarks", "compress", "edge_agent", "edge_contract", "export", "fleet", "strop")


def ours(folder: Path, version: str) -> Path:
    """Build the wheel of the repository under a version number."""
    source = folder / f"source-{version}"
    for name in FOLDERS:
        shutil.copytree(HOME / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for name in ("README.md", "LICENSE"):
        shutil.copyfile(HOME / name, source / name)
    for path in (HOME / "pyproject.toml", HOME / "edge_agent" / "config.py"):
        text = path.read_text().replace('"0.1.0"', f'"{version}"')
        (source / path.relative_to(HOME)).write_text(text)
    words = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    subprocess.run([*words, "-w", str(folder / "house"), str(source)], check=True, capture_output=True)
    return next((folder / "house").glob(f"strop-{version}-*.whl"))


def everything(house: Path, *extras: str) -> None:
    """Pack all that ``strop`` with these extras needs."""
    house.mkdir(parents=True, exist_ok=True)
    waiting, done = [("strop", extra) for extra in ("", *extras)], set[tuple[str, str]]()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in done:
            continue
        done.add((name, extra))
        found = metadata.distribution(name)
        if name != "strop" and not any(known == name for known, other in done if other != extra):
            pack(found, house)
        for text in found.requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(needed.name.lower(), other) for other in ("", *needed.extras)]


def pack(found: metadata.Distribution, house: Path) -> Path:
    """Return a wheel of an installed distribution; scripts outside of its packages are left out."""
    wheel = (found.read_text("WHEEL") or "").splitlines()
    tags = [line.removeprefix("Tag: ") for line in wheel if line.startswith("Tag: ")]
    parts = [sorted({tag.split("-")[i] for tag in tags}) for i in range(3)]
    name = (found.metadata["Name"]).replace("-", "_")
    path = house / f"{name}-{found.version}-{'-'.join('.'.join(part) for part in parts)}.whl"
    lines = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in found.files or ():
            inner, real = str(file), Path(str(file.locate()))
            if (
                inner.startswith("..")
                or inner.endswith((".pyc", "RECORD", "INSTALLER", "REQUESTED"))
                or not real.is_file()
            ):
                continue
            data = real.read_bytes()
            archive.writestr(inner, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.append(f'"{inner}",sha256={digest},{len(data)}')
        info = next(str(file).split("/")[0] for file in found.files or () if ".dist-info/" in str(file))
        archive.writestr(f"{info}/RECORD", "\n".join([*lines, f"{info}/RECORD,,"]) + "\n")
    return path
