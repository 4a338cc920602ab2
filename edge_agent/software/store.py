# SPDX-License-Identifier: Apache-2.0
"""Releases of the agent's own software on disk: slots as those of models, and an environment beside each.

A pointer may lead only to a release whose environment is whole. ``launch`` knows the layout.
"""

import contextlib
from pathlib import Path

from edge_agent.adapters.slots import Disk, SlotStore
from edge_agent.core.events import Slots
from edge_agent.software import launch
from edge_contract.messages import SOFTWARE

__all__ = ["ReleaseStore"]


class ReleaseStore(SlotStore):
    """The releases below ``<data>/software``.

    Args:
        data: The data folder.
        disk: How the disk is changed.
    """

    def __init__(self, data: Path, disk: Disk | None = None) -> None:
        super().__init__(data / "software", disk)
        self._data = data

    def is_complete(self, model: str, bundle: str) -> bool:
        """True if wheels and environment are whole; raises SlotError for names that may not become a path."""
        return super().is_complete(model, bundle) and launch.is_whole(self._data, bundle)

    def flip(self, model: str, active: str, standby: str) -> Slots:
        """As ``SlotStore.flip``; on the way back the old release becomes active before it stops being the standby.

        So at every instant one of the two pointers leads to a release that was good, and the launcher finds it.
        """
        if active and active == self._target(model, "standby"):
            self._point(model, "active", active)
        return super().flip(model, active, standby)

    def pin_factory(self, model: str) -> Slots:
        """What was installed on the device is the factory release; it is not ours to pin."""
        return self.read(model)

    def forget(self, model: str, keep: tuple[str, ...] = ()) -> None:
        """Delete releases that no pointer holds and nobody keeps, with their environments.

        Raises:
            OSError: A pointer cannot be read: then nothing is deleted.
        """
        held = {*keep, *(self._held_by(SOFTWARE, pointer) for pointer in ("active", "standby"))}
        super().forget(model, keep)
        folder = self.root / "venvs"
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.name not in held:
                self.remove_venv(path.name)
        with contextlib.suppress(OSError):  # it only says less then
            launch.write(self._data, launch.read(self._data).only(frozenset(held)))

    def remove_venv(self, release: str) -> None:
        """Delete an environment; the mark goes first: half of one must never look like a whole one."""
        path = launch.venv_of(self._data, release)
        mark = path / launch.MARK
        if mark.exists():
            self._disk.unlink(mark)
            self._disk.sync_folder(path)
        self._disk.remove_tree(path)
