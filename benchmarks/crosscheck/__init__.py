# SPDX-License-Identifier: Apache-2.0
"""Other people's stopwatches beside ours: a build flag, a delegate or a thread count that differs shows up here."""

from benchmarks.crosscheck.compare import CrossCheck, check
from benchmarks.crosscheck.tools import TOOLS, Tool, find

__all__ = ["TOOLS", "CrossCheck", "Tool", "check", "find"]
