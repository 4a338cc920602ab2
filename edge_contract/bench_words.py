# SPDX-License-Identifier: Apache-2.0
"""The two types of a benchmark's commands, by themselves: an agent that measures nothing loads no more than this."""

from typing import Final

__all__ = ["CANCEL", "COMMAND"]

COMMAND: Final = "bench"
"""An order: ``{"order": Signed}``."""
CANCEL: Final = "bench-cancel"
"""Its withdrawal."""
