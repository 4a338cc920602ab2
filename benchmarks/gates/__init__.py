# SPDX-License-Identifier: Apache-2.0
"""Validity gates: may the figures of a measurement be believed, and if not, why, and what is to be done?

A Finding of status ``invalid`` says that the times are not those of the artefact on this board; ``uncontrolled`` that
something which could not be held still took part; ``flag`` that a reader must know something.
"""

from benchmarks.gates.checks import check
from benchmarks.gates.finding import STATUSES, Finding

__all__ = ["STATUSES", "Finding", "check"]
