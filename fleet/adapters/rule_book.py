# SPDX-License-Identifier: Apache-2.0
"""The rules file on disk: ``<data>/rules.toml``, or the packaged ``fleet/rules.toml`` where there is none."""

import threading
from importlib import resources
from pathlib import Path

from edge_contract.errors import RegistryError
from fleet.core.rules import Rule, read_rules

__all__ = ["MAX_RULES_BYTES", "RuleBook"]

MAX_RULES_BYTES = 256 * 1024


class RuleBook:
    """Reads the file again whenever it has changed. Safe to use from any thread.

    Args:
        path: The operator's file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        self._read: tuple[tuple[int, int] | None, tuple[Rule, ...]] | None = None

    @property
    def is_default(self) -> bool:
        """True while the packaged rules are in force."""
        return not self.path.exists()

    def text(self) -> str:
        """Return the file's text; raises RegistryError where it cannot be read."""
        try:
            if self.is_default:
                return resources.files("fleet").joinpath("rules.toml").read_text(encoding="utf-8")
            data = self.path.read_bytes()
            if len(data) > MAX_RULES_BYTES:
                raise RegistryError(f"{len(data)} bytes, at most {MAX_RULES_BYTES}", where=str(self.path))
            return data.decode()
        except (OSError, UnicodeDecodeError) as error:
            raise RegistryError(f"cannot be read: {error}", where=str(self.path), fix="write it as UTF-8") from error

    def rules(self) -> tuple[Rule, ...]:
        """Return the rules in force; raises RegistryError with file, rule and key where they cannot be read."""
        with self._lock:
            stamp = self._stamp()
            if self._read is None or self._read[0] != stamp:
                self._read = stamp, read_rules(self.text(), "fleet/rules.toml" if stamp is None else str(self.path))
            return self._read[1]

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size
