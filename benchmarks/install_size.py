# SPDX-License-Identifier: Apache-2.0
"""What an agent takes on a board's disk, per Python and runtime: ``python -m benchmarks.install_size``.

Each wheelhouse is made by ``strop flash wheelhouse`` (by pip's indexes, or ``--from``), or given, and installed
by the code of the first boot into a folder here; then its files are counted. Bytecode comes on the board, of what the
agent imports alone: give ``--installed DIR`` for a folder ``/opt/strop`` in which that has happened.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_agent.provision import environment
from edge_contract.manifest import BundleFile

__all__ = ["Size", "main", "measure", "size_of"]

KINDS: Final = (("3.11", "litert"), ("3.13", "litert"), ("3.11", "onnxruntime"), ("3.13", "onnxruntime"))
GOAL_MB: Final = 80.0
_BLOCK: Final = 4096


@dataclass(frozen=True)
class Size:
    """A folder's files: how many, their bytes, and the bytes of the 4096-byte blocks that they occupy."""

    files: int
    size: int
    blocks: int


def size_of(folder: Path) -> Size:
    """Return what the files below a folder take; links and folders themselves are not counted.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a").write_bytes(bytes(5000))
        ...     size_of(Path(folder))
        Size(files=1, size=5000, blocks=8192)
    """
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return Size(len(sizes), sum(sizes), sum(-(-size // _BLOCK) * _BLOCK for size in sizes))


def measure(wheelhouse: Path) -> dict[str, Any]:
    """Install a wheelhouse into a folder and return what it takes.

    Raises:
        StropError: A wheel is damaged.
    """
    index = json.loads((wheelhouse / "wheelhouse.json").read_bytes())
    wheels = [BundleFile(one["file"], one["size"], one["sha256"]) for one in index["wheels"]]
    with tempfile.TemporaryDirectory(prefix="strop-size-") as folder:
        place = Path(folder, "strop")
        environment.build(place, wheelhouse, wheels, shown=place, python=sys.executable, tell=lambda _: None)
        found = size_of(place)
    return {
        "python": index["python"], "machine": index["machine"], "runtime": index["runtime"], "wheels": len(wheels),
        "download": sum(one["size"] for one in index["wheels"]),
        "original": sum(one["original_unpacked"] for one in index["wheels"]),
        "files": found.files, "installed": found.size, "on_disk": found.blocks,
    }  # fmt: skip


def _made(python: str, runtime: str, folder: Path, more: Sequence[str]) -> Path:
    out = folder / f"{python}-{runtime}"
    words = ["--python", python, "--arch", "aarch64", "--runtime", runtime, "--out", str(out), *more]
    subprocess.run(
        [sys.executable, "-m", "strop", "flash", "wheelhouse", *words, "--json"], check=True, stdout=subprocess.DEVNULL
    )
    return out


def _line(row: dict[str, Any]) -> str:
    sizes = [row[key] / 1e6 for key in ("download", "original", "installed", "on_disk")]
    what = f"| {row['python']} | {row['machine']} | {row['runtime']} | {row['wheels']} |"
    return what + "".join(f" {size:.1f} |" for size in sizes) + (" yes |" if sizes[3] <= GOAL_MB else " no |")


def main(words: Sequence[str] | None = None) -> int:
    """Print a table, or JSON; exit code 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.install_size", description=__doc__)
    parser.add_argument("--wheelhouse", type=Path, action="append", help="measure this one; may be repeated")
    parser.add_argument("--installed", type=Path, action="append", default=[], help="measure an installed /opt/strop")
    parser.add_argument("--from", dest="source", help="folder of wheels for 'strop flash wheelhouse'")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="strop-wheelhouses-") as folder:
        more = ["--from", given.source] if given.source else []
        made = given.wheelhouse or [_made(*kind, Path(folder), more) for kind in KINDS if not given.installed]
        rows = [measure(path) for path in made]
    installed = {str(path): vars(size_of(path)) for path in given.installed}
    if given.json:
        print(json.dumps({"wheelhouses": rows, "installed": installed}, indent=2))
        return 0
    if rows:
        print("| Python | machine | runtime | wheels | download MB | originals unpacked MB | installed MB "
              f"| on disk MB | at most {GOAL_MB:g} |\n|---|---|---|---:|---:|---:|---:|---:|---|")  # fmt: skip
    print("\n".join([*map(_line, rows), *(f"{path}: {found['size'] / 1e6:.1f} MB in {found['files']} files, "
          f"{found['blocks'] / 1e6:.1f} MB on disk" for path, found in installed.items())]))  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
