# SPDX-License-Identifier: Apache-2.0
"""Functions by name: ``module:callable``; every wrong name is one line about the recipe."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compress.recipe_table import nearest
from edge_contract.errors import RecipeError, StropError

__all__ = ["call", "holding", "resolve"]


@contextmanager
def _importable(folder: Path, module: str) -> Iterator[None]:
    """Let a module be found in the current folder, as ``python -m`` does, beside the recipe, and above it."""
    places = dict.fromkeys((Path.cwd(), folder.resolve(), *holding(folder.resolve(), module)))
    added = [str(path) for path in places if str(path) not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for path in added:
            sys.path.remove(path)


def holding(folder: Path, module: str) -> tuple[Path, ...]:
    """Return the nearest folder above a recipe in which a module of that name lies, none if there is none.

    A recipe in a package names its modules as they name each other, and runs from any folder.

    Example:
        >>> here = Path(__file__).parent
        >>> [path == here.parents[1] for path in holding(here, "compress.sources.names")], holding(here, "json.decoder")
        ([True], ())
    """
    inside = Path(*module.split("."))
    wanted = (inside.with_suffix(".py"), inside / "__init__.py")
    return tuple(place for place in folder.parents if any((place / path).is_file() for path in wanted))[:1]


def resolve(reference: str, *, where: str, key: str, folder: Path) -> Callable[..., Any]:
    """Return the callable behind ``module:callable``.

    Raises:
        RecipeError: No such module or name, or it cannot be called; names file, key, value and the nearest name.
    """
    module_name, _, name = reference.partition(":")
    try:
        with _importable(folder, module_name):
            found: Any = importlib.import_module(module_name)
    except StropError:
        raise
    except ModuleNotFoundError as error:
        fix = "check the spelling, or run in the folder that holds it"
        if error.name and not module_name.startswith(error.name):
            fix = f"install {error.name}, which it imports"
        raise RecipeError(f"key '{key}': no module {error.name!r} for {reference!r}", where=where, fix=fix) from error
    except Exception as error:
        what = f"key '{key}': importing {module_name!r} failed: {type(error).__name__}: {error}"
        raise RecipeError(what, where=where, fix="correct the module") from error
    for part in name.split("."):
        if not hasattr(found, part):
            public = [word for word in dir(found) if not word.startswith("_")]
            what = f"key '{key}': {module_name!r} has no {part!r}"
            raise RecipeError(what, where=where, fix=nearest(part, public))
        found = getattr(found, part)
    if not callable(found):
        raise RecipeError(f"key '{key}': {reference!r} cannot be called", where=where, fix="name a function")
    return found  # type: ignore[no-any-return]


def call(function: Callable[..., Any], reference: str, where: str, error_type: type[StropError]) -> Any:
    """Return what a function without arguments returns; whatever it raises becomes one line."""
    try:
        return function()
    except StropError:
        raise
    except Exception as error:
        what = f"{reference}() failed: {type(error).__name__}: {error}"
        raise error_type(what, where=where, fix="correct the function; it is called without arguments") from error
