# SPDX-License-Identifier: Apache-2.0
"""Leave a module unloaded until somebody asks for something in it.

paho imports ``urllib.request`` for websockets through a proxy, which no agent uses: 1.9 MB of 30. The standard
library's own LazyLoader loads, until Python 3.12, as soon as a second module imports the same name.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

__all__ = ["postpone"]


class _Later(ModuleType):
    """Stands for a module; the first attribute that it has not loads the real one into its place."""

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        name = self.__name__
        if sys.modules.get(name) is self:
            del sys.modules[name]
        real = importlib.import_module(name)
        self.__dict__.update(real.__dict__)
        return getattr(real, attribute)


def postpone(name: str) -> None:
    """Let ``import name`` cost nothing until something in the module is used; nothing where it is loaded already.

    Example:
        >>> import sys
        >>> is_here = sys.modules.pop("wave", None)
        >>> postpone("wave")
        >>> import wave
        >>> type(wave).__name__, wave.open.__name__, type(sys.modules["wave"]).__name__
        ('_Later', 'open', 'module')
    """
    if name in sys.modules:
        return
    parent, _, own = name.rpartition(".")
    module = _Later(name)
    sys.modules[name] = module
    if parent:
        setattr(importlib.import_module(parent), own, module)
