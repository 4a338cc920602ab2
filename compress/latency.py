# SPDX-License-Identifier: Apache-2.0
"""How long each layer of a network takes at other widths: a table that ``compress.stopwatch`` measured on the target.

Between measured widths the table is bilinear in the inputs and outputs, as the number of products is.
"""

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from compress.prune.layers import LAYERS, is_depthwise, widths
from edge_contract.errors import MeasurementError

__all__ = ["SCHEMA", "LatencyTable", "Place", "Points", "Site", "Widths", "places"]

SCHEMA: Final = "strop.latency-table/1"
Widths = tuple[int, int]
"""(inputs, outputs) of a layer; a depthwise layer has its channels twice."""
Points = Mapping[Widths, float]


@dataclass(frozen=True, order=True)
class Site:
    """A layer without its widths.

    Attributes:
        kind: Class of the module.
        kernel, stride, padding, dilation: As the module has them; empty for a linear layer.
        is_depthwise: One filter for each channel.
        size: Of the input behind its channels, [H, W]; of a linear layer what stands before its features.
    """

    kind: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    is_depthwise: bool
    size: tuple[int, ...]

    def __str__(self) -> str:
        words = [self.kind, "×".join(map(str, self.kernel)), "depthwise" if self.is_depthwise else ""]
        stride = "" if set(self.stride) <= {1} else f"stride {'×'.join(map(str, self.stride))}"
        size = f"on {'×'.join(map(str, self.size))}" if self.size else ""
        return " ".join(word for word in (*words, stride, size) if word)


@dataclass(frozen=True)
class Place:
    """One layer of a network: where it is, what it is, how wide, and the module itself."""

    name: str
    site: Site
    widths: Widths
    module: nn.Module


@torch.no_grad()
def places(model: nn.Module, example: Tensor) -> tuple[Place, ...]:
    """Return every convolution and linear layer in the order of the forward pass.

    Example:
        >>> [place] = places(nn.Sequential(nn.Conv2d(3, 8, 3, 2)), torch.zeros(1, 3, 9, 9))
        >>> str(place.site), place.widths
        ('Conv2d 3×3 stride 2×2 on 9×9', (3, 8))
    """
    names = {module: name for name, module in model.named_modules()}
    found: list[Place] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], _: Any) -> None:
        found.append(Place(names[module], _site(module, inputs[0]), widths(module), module))

    hooks = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, LAYERS)]
    was_training = model.training
    try:
        model.eval()(example)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return tuple(found)


def _site(module: nn.Module, x: Tensor) -> Site:
    if isinstance(module, nn.Linear):
        return Site("Linear", (), (), (), (), is_depthwise=False, size=tuple(x.shape[1:-1]))
    kernel, stride, padding, dilation = (
        tuple(getattr(module, key)) for key in ("kernel_size", "stride", "padding", "dilation")
    )
    kind, size = type(module).__name__, tuple(x.shape[2:])
    return Site(kind, kernel, stride, padding, dilation, is_depthwise=is_depthwise(module), size=size)


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of layers at measured widths.

    Attributes:
        grids: By site and full widths, then by (inputs, outputs).
        rest_ms: What the measured network took beyond its layers.
        about: Where and how it was measured, in words.
    """

    grids: Mapping[tuple[Site, Widths], Points]
    rest_ms: float = 0.0
    about: str = ""

    def layer_ms(self, site: Site, inputs: float, outputs: float, *, where: str = "latency") -> float:
        """Return a layer's milliseconds at any widths up to the measured ones; below the narrowest in proportion.

        Raises:
            MeasurementError: The table has no such layer, or it is wider than any that was measured.

        Example:
            >>> site = Site("Linear", (), (), (), (), is_depthwise=False, size=())
            >>> table = LatencyTable({(site, (8, 8)): {(4, 4): 4.0, (8, 4): 6.0, (4, 8): 8.0, (8, 8): 12.0}})
            >>> table.layer_ms(site, 6, 6), table.layer_ms(site, 4, 2)
            (7.5, 2.0)
        """
        points = self._covering(site, inputs, outputs, where)
        columns, rows = sorted({i for i, _ in points}), sorted({o for _, o in points})
        if site.is_depthwise:
            return _line([(o, points[o, o]) for o in rows], outputs)
        return _line([(o, _line([(i, points[i, o]) for i in columns], inputs)) for o in rows], outputs)

    def _covering(self, site: Site, inputs: float, outputs: float, where: str) -> Points:
        """Return the smallest grid of this site that reaches these widths."""
        mine = {widest: points for (other, widest), points in self.grids.items() if other == site}
        if not mine:
            fix = "build the table on this network"
            raise MeasurementError(f"the latency table has no {site}", where=where, fix=fix)
        reaching = [widest for widest in mine if inputs <= widest[0] and outputs <= widest[1]]
        if not reaching:
            widest = max(mine)
            what = f"{inputs:g}→{outputs:g} channels of {site}, which was measured up to {widest[0]}→{widest[1]}"
            raise MeasurementError(what, where=where, fix="build the table on the unpruned network")
        return mine[min(reaching, key=lambda widest: widest[0] * widest[1])]

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        layers = [
            {**asdict(site), "widest": list(widest), "points": [[i, o, ms] for (i, o), ms in sorted(points.items())]}
            for (site, widest), points in sorted(self.grids.items(), key=lambda item: item[0])
        ]
        return {"schema": SCHEMA, "about": self.about, "rest_ms": self.rest_ms, "layers": layers}

    @classmethod
    def from_json(cls, document: Any) -> "LatencyTable":
        """Return the table in a JSON object.

        Raises:
            MeasurementError: It is none.
        """
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise MeasurementError("no latency table", where="schema", fix=f"give a file of schema {SCHEMA}")
        try:
            grids = dict(_grid_from_json(layer) for layer in document["layers"])
            return cls(grids, float(document["rest_ms"]), str(document["about"]))
        except (KeyError, TypeError, ValueError) as error:
            fix = "build the table again"
            raise MeasurementError(f"a damaged latency table: {error}", where="layers", fix=fix) from error

    def save(self, path: Path) -> None:
        """Write it as a JSON file."""
        path.write_text(json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "LatencyTable":
        """Return the table in a file.

        Raises:
            MeasurementError: The file is not there, or holds no table.
        """
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            fix = "build one with compress.stopwatch.build"
            raise MeasurementError(f"cannot be read: {error}", where=str(path), fix=fix) from error


def _grid_from_json(layer: Mapping[str, Any]) -> tuple[tuple[Site, Widths], Points]:
    words: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in layer.items()}
    inputs, outputs = words.pop("widest")
    points = {(int(i), int(o)): float(ms) for i, o, ms in words.pop("points")}
    return (Site(**words), (int(inputs), int(outputs))), points


def _line(points: Sequence[tuple[int, float]], at: float) -> float:
    """Interpolate between sorted points; left of them in proportion, for no channels cost nothing."""
    place = bisect_left(points, at, key=lambda point: point[0])
    right_at, right = points[min(place, len(points) - 1)]
    if place == 0:
        return right * at / right_at
    left_at, left = points[place - 1]
    return left + (right - left) * (at - left_at) / (right_at - left_at)
