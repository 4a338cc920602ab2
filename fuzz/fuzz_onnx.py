# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing of the reader of strangers' ONNX files: see README.md beside this file."""

import contextlib
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
with atheris.instrument_imports(include=["export", "edge_contract"]):
    from edge_contract.errors import StropError
    from export.inspection import onnx
    from export.onnx import reader


def one(data: bytes) -> None:
    """An answer or a StropError, nothing else."""
    with contextlib.suppress(StropError):
        onnx.facts(reader.read(data, where="fuzz"))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
