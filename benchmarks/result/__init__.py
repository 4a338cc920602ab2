# SPDX-License-Identifier: Apache-2.0
"""Results of measurements, ``edgebench/1``: built, checked, kept and read. Standard library only."""

from benchmarks.result.build import build
from benchmarks.result.schema import SCHEMA, STATUS, Quality, Reason, Result
from benchmarks.result.store import from_json, load, same_bytes, save, to_json

__all__ = [
    "SCHEMA",
    "STATUS",
    "Quality",
    "Reason",
    "Result",
    "build",
    "from_json",
    "load",
    "same_bytes",
    "save",
    "to_json",
]
