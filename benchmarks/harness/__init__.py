# SPDX-License-Identifier: Apache-2.0
"""The harness that runs on the device: numpy and one runtime, nothing else.

``measure`` carries out a plan; ``launch`` runs one process of it, so that a comparison can lay the launches of two
plans between each other. Both names are loaded when they are asked for: the child process of a launch imports this
package, too, and its start is timed.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.harness.launching import launch
    from benchmarks.harness.measuring import measure

__all__ = ["launch", "measure"]


def __getattr__(name: str) -> Any:
    if name == "launch":
        from benchmarks.harness.launching import launch

        return launch
    if name == "measure":
        from benchmarks.harness.measuring import measure

        return measure
    raise AttributeError(f"module 'benchmarks.harness' has no attribute '{name}'")
