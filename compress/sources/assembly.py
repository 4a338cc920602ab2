# SPDX-License-Identifier: Apache-2.0
"""Build a network from a graph that somebody else wrote down: real PyTorch layers, called in a recorded order."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

__all__ = ["Assembly", "filled"]


class Assembly:
    """Layers and the order in which they are called, one input to one output; ``module`` makes the network.

    Every layer is an ordinary module under its own name, so training, pruning, factorisation and quantization treat
    the network like one that was written by hand.

    Example:
        >>> made = Assembly()
        >>> hidden = made.layer("body.0", nn.Linear(2, 3), made.input)
        >>> net = made.module(made.layer("body.act", nn.ReLU(), hidden))
        >>> [name for name, _ in net.named_modules() if name], tuple(net(torch.zeros(4, 2)).shape)
        (['body', 'body.0', 'body.act'], (4, 3))
    """

    def __init__(self) -> None:
        self.root, self.graph = nn.Module(), fx.Graph()
        self.input = self.graph.placeholder("x")
        self._taken: set[str] = set()

    def free(self, path: str) -> str:
        """Return the path, or the first of ``path_2``, ``path_3``, … that no layer has."""
        found, number = path, 2
        while found in self._taken:
            found, number = f"{path}_{number}", number + 1
        return found

    def layer(self, path: str, module: nn.Module, *inputs: fx.Node) -> fx.Node:
        """Add a layer under a free path and call it."""
        self._taken.add(path)
        self._put(path, module)
        return self.call(path, *inputs)

    def call(self, path: str, *inputs: fx.Node) -> fx.Node:
        """Call a layer that is there already: its weights are shared."""
        return self.graph.call_module(path, inputs)

    def constant(self, path: str, value: Tensor) -> fx.Node:
        """Return a parameter or buffer that no layer owns."""
        if path not in self._taken:
            self._taken.add(path)
            self._put(path, value)
        return self.graph.get_attr(path)

    def function(self, target: Any, *arguments: Any, **words: Any) -> fx.Node:
        """Call a function of tensors."""
        return self.graph.call_function(target, arguments, words)

    def method(self, name: str, *arguments: Any) -> fx.Node:
        """Call a method of the first argument."""
        return self.graph.call_method(name, arguments)

    def _put(self, path: str, value: nn.Module | Tensor) -> None:
        *outer, name = path.split(".")
        place = self.root
        for part in outer:
            if not hasattr(place, part):
                place.add_module(part, nn.Module())
            place = getattr(place, part)
        if isinstance(value, nn.Module):
            place.add_module(name, value)
        elif isinstance(value, nn.Parameter):
            place.register_parameter(name, value)
        else:
            place.register_buffer(name, value)

    def module(self, output: fx.Node) -> fx.GraphModule:
        """Return the network in eval mode; what leads to no output is left out."""
        self.graph.output(output)
        made = fx.GraphModule(self.root, self.graph, "Network")
        made.graph.eliminate_dead_code()
        made.delete_all_unused_submodules()
        made.graph.lint()
        made.recompile()
        return made.eval()


def filled(kind: type[nn.Module], *arguments: Any, values: Mapping[str, Tensor | None], **words: Any) -> nn.Module:
    """Return a layer with its parameters and buffers set, and no random number drawn for them.

    Example:
        >>> filled(nn.Linear, 2, 1, bias=False, values={"weight": torch.tensor([[1.0, 2.0]])}).weight.tolist()
        [[1.0, 2.0]]
    """
    with torch.device("meta"):
        made = kind(*arguments, **words)
    for name, value in values.items():
        if value is None:
            continue
        if name in made._parameters:  # noqa: SLF001  # the public way cannot tell parameters from buffers by name
            setattr(made, name, nn.Parameter(value.detach().clone()))
        else:
            made.register_buffer(name, value.detach().clone())
    return made
