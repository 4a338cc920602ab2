# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing of whoever applies patches: see README.md beside this file.

The bytes are the operations and the streams of a patch whose container is sound, so that they get past its first
checks; every eighth input is taken as a whole patch file instead.
"""

import contextlib
import hashlib
import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
with atheris.instrument_imports(include=["edge_agent", "edge_contract"]):
    import zstandard

    from edge_agent.delta.apply import Wanted, apply
    from edge_agent.delta.container import Header
    from edge_contract.errors import StropError

BASE = bytes(i * i % 251 for i in range(3000))
TARGET = BASE[:1000] + b"something else" + BASE[900:]
FOLDER = Path(tempfile.mkdtemp(prefix="strop-fuzz-"))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _patch(data: bytes) -> bytes:
    """Return a patch between the two files with these operations and streams."""
    size = data[0] * 4
    control, rest = data[1 : 1 + size], data[1 + size :]
    streams = [zstandard.compress(control), rest, *[zstandard.compress(rest)] * 4]
    raw = [len(control), *[len(rest)] * 5]
    entries = tuple(zip(map(len, streams), raw, strict=True))
    header = Header("tensors", _sha256(BASE), _sha256(TARGET), len(BASE), len(TARGET), entries)
    return header.to_bytes() + b"".join(streams)


def one(data: bytes) -> None:
    """The file that was promised or a StropError, nothing else, and never half a file."""
    if not data:
        return
    (FOLDER / "patch").write_bytes(data if data[0] % 8 == 7 else _patch(data))
    (FOLDER / "base").write_bytes(BASE)
    out = FOLDER / "out"
    with contextlib.suppress(StropError):
        apply(FOLDER / "base", FOLDER / "patch", out, Wanted(_sha256(BASE), _sha256(TARGET), len(TARGET)))
        assert out.read_bytes() == TARGET
        out.unlink()
    assert not out.exists()


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
