# SPDX-License-Identifier: Apache-2.0
"""litert-torch: a zoo network as ``float.tflite``, channels last, batch 1."""

from pathlib import Path
from typing import Any

from benchmarks.peers.converters import main

__all__ = ["convert"]


def convert(material: Path, output: Path, setting: dict[str, Any]) -> tuple[str, ...]:
    """Write ``float.tflite``; ``setting`` names the network and its input's shape [C, H, W]."""
    import litert_torch  # type: ignore[import-not-found, unused-ignore]
    import torch

    from tests.zoo.models import load

    torch.set_num_threads(1)
    channels, height, width = setting["shape"]
    model = litert_torch.to_channel_last_io(load(setting["net"]), args=[0])
    litert_torch.convert(model.eval(), (torch.zeros(1, height, width, channels),)).export(str(output / "float.tflite"))
    return ("litert-torch", "torch")


if __name__ == "__main__":
    main(convert, "litert_torch")
