# SPDX-License-Identifier: Apache-2.0
"""torchao's pt2e flow with litert-torch's own quantizer, per channel, to TFLite."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.converters import main

__all__ = ["convert"]


def convert(material: Path, output: Path, setting: dict[str, Any]) -> tuple[str, ...]:
    """Write ``model.tflite``; ``setting`` names the network and its input's shape [C, H, W]."""
    import litert_torch  # type: ignore[import-not-found, unused-ignore]
    import torch
    from litert_torch.quantize.pt2e_quantizer import (  # type: ignore[import-not-found, unused-ignore]
        PT2EQuantizer,
        get_symmetric_quantization_config,
    )
    from litert_torch.quantize.quant_config import QuantConfig  # type: ignore[import-not-found, unused-ignore]
    from torchao.quantization.pt2e.quantize_pt2e import (  # type: ignore[import-not-found, unused-ignore]
        convert_pt2e,
        prepare_pt2e,
    )

    from tests.zoo.models import load

    torch.set_num_threads(1)
    channels, height, width = setting["shape"]
    example = (torch.zeros(1, height, width, channels),)
    model = litert_torch.to_channel_last_io(load(setting["net"]), args=[0]).eval()
    chosen = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(torch.export.export(model, example).module(), chosen)
    samples = np.load(material / "calibration.npy").transpose(0, 2, 3, 1)
    with torch.no_grad():
        for sample in samples:
            prepared(torch.from_numpy(np.ascontiguousarray(sample[None])))
    graph = convert_pt2e(prepared, fold_quantize=False)
    found = litert_torch.convert(graph, example, quant_config=QuantConfig(pt2e_quantizer=chosen))
    found.export(str(output / "model.tflite"))
    return ("litert-torch", "torchao", "torch")


if __name__ == "__main__":
    main(convert, "litert_torch", "torchao.quantization.pt2e.quantize_pt2e")
