# SPDX-License-Identifier: Apache-2.0
"""Facts of devices that are read when somebody asks: one by one for a few, all at once for many."""

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, TypeVar

__all__ = ["LazyMap", "LazySet"]

V = TypeVar("V")

_FEW: Final = 64
"""So many single reads cost about as much as reading all of ten thousand devices."""


class LazyMap(Mapping[str, V]):
    """Name → value, read from where it is kept.

    Args:
        one: The value of one name, None if it has none.
        every: All of them.

    Example:
        >>> known = {"a": 1, "b": 2}
        >>> lazy = LazyMap(known.get, lambda: known)
        >>> lazy["a"], lazy.get("c"), len(lazy)
        (1, None, 2)
    """

    def __init__(self, one: Callable[[str], V | None], every: Callable[[], Mapping[str, V]]) -> None:
        self._one, self._every = one, every
        self._known: dict[str, V | None] = {}
        self._all: Mapping[str, V] | None = None

    def _found(self, name: str) -> V | None:
        if self._all is None and name not in self._known:
            if len(self._known) >= _FEW:
                return self._everything().get(name)
            self._known[name] = self._one(name)
        return self._known[name] if self._all is None else self._all.get(name)

    def _everything(self) -> Mapping[str, V]:
        if self._all is None:
            self._all = self._every()
        return self._all

    def __getitem__(self, name: str) -> V:
        found = self._found(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._everything())

    def __len__(self) -> int:
        return len(self._everything())


class LazySet(AbstractSet[str]):
    """Names, read from where they are kept; as ``LazyMap``.

    Example:
        >>> lazy = LazySet(lambda name: name == "a", lambda: frozenset("a"))
        >>> "a" in lazy, "b" in lazy, list(lazy)
        (True, False, ['a'])
    """

    def __init__(self, one: Callable[[str], bool], every: Callable[[], AbstractSet[str]]) -> None:
        self._map = LazyMap[bool](lambda name: one(name) or None, lambda: dict.fromkeys(every(), True))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._map.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._map)

    def __len__(self) -> int:
        return len(self._map)
