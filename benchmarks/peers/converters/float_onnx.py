# SPDX-License-Identifier: Apache-2.0
"""PyTorch's own exporter: a zoo network as ``float.onnx``, batch 1, opset 18."""

from pathlib import Path
from typing import Any

from benchmarks.peers.converters import main

__all__ = ["convert"]


def convert(material: Path, output: Path, setting: dict[str, Any]) -> tuple[str, ...]:
    """Write ``float.onnx``; ``setting`` names the network and its input's shape."""
    import torch

    from tests.zoo.models import load

    torch.set_num_threads(1)
    example = torch.zeros(1, *setting["shape"])
    path = str(output / "float.onnx")
    torch.onnx.export(load(setting["net"]), (example,), path, dynamo=True, opset_version=18, external_data=False)
    return ("torch", "onnx", "onnxscript")


if __name__ == "__main__":
    main(convert, "torch", "onnx")
