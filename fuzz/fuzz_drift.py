# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing of what reads drift from a device: see README.md beside this file.

The first byte says what the others are: a summary's body (its checksum is made to fit), a profile, counters of a
journal, or a counter file. What is read must be written again as it was, and a window that is read must be judged or
refused.
"""

import contextlib
import sys
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
with atheris.instrument_imports(include=["edge_agent.counters", "edge_contract"]):
    from edge_agent.counters import CounterFile
    from edge_contract.counts import Counters
    from edge_contract.errors import ProfileError, StropError, SummaryError
    from edge_contract.findings import DriftState
    from edge_contract.profile import ReferenceProfile
    from edge_contract.summary import decode
    from edge_contract.verdict import judge

FOLDER = Path(tempfile.mkdtemp(prefix="strop-fuzz-"))
PROFILE = ReferenceProfile.from_bytes((ROOT / "tests/vectors/drift/profile.json").read_bytes())


def summary(data: bytes) -> None:
    """A summary or a SummaryError, and of a summary a verdict or a StropError."""
    with contextlib.suppress(SummaryError):
        found = decode(data + zlib.crc32(data).to_bytes(4, "little"))
        assert decode(found.encode()) == found
        with contextlib.suppress(StropError):
            judge(PROFILE, replace(found, profile_crc=PROFILE.crc), DriftState())


def profile(data: bytes) -> None:
    """A profile or one of two errors."""
    with contextlib.suppress(ProfileError, SummaryError):
        found = ReferenceProfile.from_bytes(data)
        assert ReferenceProfile.from_bytes(found.to_bytes()) == found


def journal(data: bytes) -> None:
    """Counters or a SummaryError."""
    numbers = [int.from_bytes(data[i : i + 2], "little", signed=True) for i in range(0, len(data), 2)]
    with contextlib.suppress(SummaryError):
        found = Counters.from_list(numbers)
        assert Counters.from_list(found.to_list()) == found


def counter_file(data: bytes) -> None:
    """A reading or nothing."""
    path = FOLDER / "counters.bin"
    path.write_bytes(data)
    CounterFile(path).read()


KINDS = (summary, profile, journal, counter_file)


def one(data: bytes) -> None:
    """Take one input."""
    if data:
        KINDS[data[0] % len(KINDS)](data[1:])


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
