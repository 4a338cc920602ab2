# SPDX-License-Identifier: Apache-2.0
"""Attention transfer: the student looks where the teacher looks, whatever the number of their channels."""

from torch import Tensor
from torch.nn import functional as F

__all__ = ["attention_loss", "attention_map"]


def attention_map(features: Tensor) -> Tensor:
    """Return where a feature map is large: the sum of squares over channels, at unit length, [N,H·W].

    Args:
        features: [N,C,H,W].

    Example:
        >>> import torch
        >>> attention_map(torch.tensor([[[[1.0, 0.0]], [[1.0, 2.0]]]])).tolist()  # (2, 4) / √20
        [[0.4472135901451111, 0.8944271802902222]]
    """
    return F.normalize(features.square().sum(1).flatten(1), dim=1)


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared distance of the two attention maps, the mean over the batch: 2 - 2·cos of their angle.

    The paper weighs the distance with β/2 of about 10³ divided by the positions; here nothing is divided, and weights
    of 1 to 50 are usual. A teacher's map of another size is averaged to the student's.

    Args:
        student: Features, [N,Cs,H,W].
        teacher: Features, [N,Ct,H',W'].

    Returns:
        A scalar from 0 to 2.

    Example:
        >>> import torch
        >>> left, right = torch.tensor([[[[3.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
        >>> float(attention_loss(left, left)), float(attention_loss(left, right))
        (0.0, 2.0)

    Reference:
        Zagoruyko & Komodakis 2017, "Paying more attention to attention", equation 2 with p = 2 and the map F²sum.
    """
    if teacher.shape[2:] != student.shape[2:]:
        energy = teacher.square().sum(1, keepdim=True)
        teacher = F.adaptive_avg_pool2d(energy, (student.shape[2], student.shape[3])).sqrt()
    return (attention_map(student) - attention_map(teacher)).square().sum(1).mean()
