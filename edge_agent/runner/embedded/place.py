# SPDX-License-Identifier: Apache-2.0
"""What a name leads to: the agent's data folder, its runtime, and the slots of the model."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.config import load
from edge_agent.embedding import DATA_FOLDER
from edge_contract.errors import SlotError, UsageError
from edge_contract.topics import is_name

__all__ = ["ENVIRONMENT", "Place", "data_folder", "is_model_name"]

ENVIRONMENT: Final = "STROP_DATA"
POINTERS: Final = ("active", "standby", "factory")
"""In the order in which a model is looked for that passes its self-test."""


def is_model_name(where: str | Path) -> bool:
    """Tell a model's name from a folder: a path, or a text with a slash, is a folder.

    Example:
        >>> is_model_name("digits"), is_model_name("./digits"), is_model_name(Path("digits"))
        (True, False, False)
    """
    return isinstance(where, str) and is_name(where) and where not in (".", "..")


def data_folder(given: str | Path | None) -> Path:
    """Return the agent's data folder: the argument, else $STROP_DATA, else /var/lib/strop.

    Raises:
        UsageError: There is no such folder.
    """
    folder = Path(given or os.environ.get(ENVIRONMENT) or DATA_FOLDER)
    if not folder.is_dir():
        fix = f"enrol this device, set {ENVIRONMENT}, or give data= or a bundle's folder as a Path"
        raise UsageError("there is no agent's data folder", where=str(folder), fix=fix)
    return folder.resolve()


@dataclass(frozen=True)
class Place:
    """A model's slots in a data folder.

    Attributes:
        data: The data folder.
        model: Name of the model.
        runtime, threads: As agent.toml says.
        delegate: As ``open_session`` takes it.
    """

    data: Path
    model: str
    runtime: str
    threads: int
    delegate: str = ""

    @classmethod
    def find(
        cls, model: str, data: str | Path | None, runtime: str = "", threads: int = 0, delegate: str = ""
    ) -> "Place":
        """Return where a model lies; ``runtime`` and ``threads`` overrule agent.toml.

        Raises:
            UsageError: No data folder, or no agent.toml that can be read (needed only without a runtime).
        """
        folder = data_folder(data)
        if runtime:
            return cls(folder, model, runtime, threads or 1, delegate)
        lane = load(folder).lane(model)
        return cls(folder, model, lane.runtime, threads or lane.threads, delegate or lane.delegate)

    def slot(self, pointer: str) -> Path | None:
        """Return the slot that a pointer leads to, None where it leads nowhere: one system call."""
        folder = self.data / "models" / self.model
        try:
            return folder / "slots" / Path(os.readlink(folder / pointer)).name  # noqa: PTH115 - 2 µs, pathlib takes 12
        except OSError:
            return None

    def candidates(self) -> list[Path]:
        """Return the slots to try, the active one first, each once.

        Raises:
            SlotError: The model has none.
        """
        found = [slot for slot in map(self.slot, POINTERS) if slot is not None]
        if not found:
            where = f"model '{self.model}' in {self.data}"
            raise SlotError("there is no active model", where=where, fix="roll a bundle out to this device")
        return list(dict.fromkeys(found))
