# SPDX-License-Identifier: Apache-2.0
"""A model whose file has answered already, in another process: its answers go through the device's own code again."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from numpy.typing import NDArray

from edge_agent.runner.model import Description, Model
from edge_agent.runner.runtimes.lending import Lent
from edge_contract.errors import RuntimeAdapterError
from edge_contract.manifest import TensorSpec
from export.runtimes.execution import Execution

__all__ = ["replayed"]

_HALF: Final = 128  # an execution has signed codes, whatever the file has

Array = NDArray[Any]


class _Replay:
    """A session that gives recorded outputs, one input's after the other's."""

    room: Callable[[], Array] | None = None

    def __init__(self, execution: Execution, outputs: Mapping[str, TensorSpec]) -> None:
        self.runtime, self.version, self.delegate = execution.runtime, execution.version, execution.delegate
        self._found = {spec.name: _in_file(execution.codes[key], spec) for key, spec in outputs.items()}
        self._next = 0

    def run(self, x: Array | None, /) -> dict[str, Array]:
        """Return the next input's outputs, whatever the input is."""
        at, self._next = self._next, self._next + 1
        return {name: rows[at : at + 1] for name, rows in self._found.items()}

    def lend(self, names: Mapping[str, str], /) -> Lent:
        """Refuse: there is no memory of a runtime here."""
        raise RuntimeAdapterError("recorded answers have no memory to lend", where=", ".join(names))


def _in_file(codes: Array, spec: TensorSpec) -> Array:
    """Return an output as the file gives it [N, …]."""
    kept = codes + _HALF if spec.dtype == "uint8" else codes
    return kept.astype(spec.dtype).reshape(len(codes), *spec.shape[1:])


def replayed(execution: Execution, description: Description) -> Model:
    """Return a model that answers as the execution did, in the order of its inputs."""
    return Model(_Replay(execution, description.artefact.keyed()), description)
