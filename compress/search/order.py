# SPDX-License-Identifier: Apache-2.0
"""Which candidate of a grid comes first: the one that a predictor expects to be the fastest.

The cheapest trials come first because each finished one stops those that cost more and answer worse.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from compress.search.space import Choice, varied
from edge_contract.errors import StropError

if TYPE_CHECKING:
    from compress.predictors import Predictor

__all__ = ["MOST", "cheapest_first", "grid"]

MOST: Final = 64
"""Candidates for which a forecast is made before the first trial: each costs a dry run, some seconds."""
Place = dict[str, int]
"""Key of a choice → the place of its value."""


def grid(choices: Sequence[Choice]) -> Iterator[Place]:
    """Yield every combination, the last choice varying fastest.

    Example:
        >>> list(grid([Choice("a", (1, 2)), Choice("b", ("x", "y"))]))[1]
        {'a': 0, 'b': 1}
    """
    for point in itertools.product(*[range(len(choice.values)) for choice in choices]):
        yield dict(zip([choice.key for choice in choices], point, strict=True))


def cheapest_first(
    document: Mapping[str, Any], path: Path, choices: Sequence[Choice], predictor: str, weights: Path | None
) -> list[Place]:
    """Return a grid in the order of its forecasts; candidates without one keep their order and come last.

    Args:
        document: The recipe, as ``tomllib`` reads it.
        path: Where it lies.
        choices: What varies.
        predictor: As in ``Task``.
        weights: The teacher's, as in ``pipeline.run``.

    Raises:
        RecipeError, MeasurementError: The predictor cannot be loaded.
    """
    from compress import predictors

    places = list(grid(choices))
    asked = predictors.load(predictor)
    if asked is None or len(places) > MOST:
        return places
    texts = [_text(document, path, choices, place) for place in places]
    ms = [_expected(text, path, asked, weights) for text in texts]
    return [place for _, place in sorted(zip(ms, places, strict=True), key=lambda pair: pair[0])]


def _text(document: Mapping[str, Any], path: Path, choices: Sequence[Choice], place: Place) -> str:
    import tomli_w

    chosen = {choice.key: choice.values[place[choice.key]] for choice in choices}
    return tomli_w.dumps(varied(document, chosen, where=path.name))


def _expected(text: str, path: Path, asked: "Predictor", weights: Path | None) -> float:
    """Return the milliseconds that are expected; infinity for what a trial will refuse by itself, and say why."""
    from compress import recipe
    from compress.dry_run import dry_model
    from compress.search.watch import foreseen
    from compress.threads import threads

    try:
        read = recipe.parse(text, path)
        with threads(read.threads):
            forecast = foreseen(read, dry_model(read, weights), asked)
    except StropError:
        return math.inf
    return math.inf if forecast is None else forecast.ms
