# SPDX-License-Identifier: Apache-2.0
"""The closed vocabulary of post-processing that travels with a model: from its outputs to an answer.

Where one word says it all, the manifest holds that word: ``softmax``, ``sigmoid``, ``argmax`` or ``none``. Else it
holds an object, a ``Postprocess``: a threshold, and for detection how boxes are decoded and which of them stay
(``edge_contract.boxes``). The one numpy implementation is ``edge_agent.runner.postprocess`` and ``.boxes``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_contract.closed import refuse_unknown
from edge_contract.errors import ManifestError, StropError
from edge_contract.fields import Fields

if TYPE_CHECKING:
    from edge_contract.boxes import Boxes, Suppression

__all__ = ["POSTPROCESS", "Postprocess", "of"]

POSTPROCESS = ("softmax", "argmax", "none", "sigmoid")


@dataclass(frozen=True)
class Postprocess:
    """What is done with a model's outputs.

    Attributes:
        scores: ``softmax``, ``sigmoid``, ``none`` (the model already gives probabilities) or, without boxes and
            threshold, ``argmax`` (the values mean nothing but their order).
        threshold: A classification below it is unsure; a box below it is dropped. 0 for none.
        background: The first column of the scores is "nothing" and no class of its own. Boxes only.
        boxes: How boxes are decoded; None for everything but detection.
        suppression: Which boxes go; None where the model has already done it.

    Example:
        >>> of("softmax").threshold, Postprocess("sigmoid", 0.5).to_json()
        (0.0, {'scores': 'sigmoid', 'threshold': 0.5})
    """

    scores: str = "softmax"
    threshold: float = 0.0
    background: bool = False
    boxes: "Boxes | None" = None
    suppression: "Suppression | None" = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object; what is at its default is left out."""
        document: dict[str, Any] = {"scores": self.scores}
        if self.threshold:
            document["threshold"] = self.threshold
        if self.background:
            document["background"] = True
        if self.boxes is not None:
            document["boxes"] = self.boxes.to_json()
        if self.suppression is not None:
            document["suppression"] = self.suppression.to_json()
        return document

    @classmethod
    def from_json(
        cls, document: Any, where: str = "postprocess", error: type[StropError] = ManifestError
    ) -> "Postprocess":
        """Return the description in an object.

        Raises:
            StropError: (as ``error``) a field of the wrong type or out of range, a step that needs boxes without them,
                or an unknown key.
        """
        fields = Fields(document, where, error)
        scores, threshold = fields.text("scores", "softmax", among=POSTPROCESS), fields.number("threshold", 0.0)
        if not 0 <= threshold <= 1:
            raise error(f"{threshold:g} is not in 0 to 1", where=f"{where}.threshold")
        background = fields.flag("background", False)
        _check(document, where, error)
        boxes, suppression = _boxes(fields, document) if "boxes" in document else (None, None)
        refuse_unknown(fields)
        return cls(scores, threshold, background, boxes, suppression)


def _boxes(fields: Fields, document: Mapping[str, Any]) -> "tuple[Boxes, Suppression | None]":
    """Read boxes and suppression. Imported here: a control process that serves classifiers never needs them."""
    from edge_contract.boxes import Boxes, Suppression

    where, error = fields.where, fields.error
    boxes = Boxes.from_json(fields.object("boxes"), f"{where}.boxes", error)
    if "suppression" not in document:
        return boxes, None
    return boxes, Suppression.from_json(fields.object("suppression"), f"{where}.suppression", error)


def _check(document: Mapping[str, Any], where: str, error: type[StropError]) -> None:
    for key in ("background", "suppression"):
        if key in document and "boxes" not in document:
            raise error("there are no 'boxes'", where=f"{where}.{key}", fix=f"add boxes, or leave {key} out")
    if document.get("scores") == "argmax" and ("threshold" in document or "boxes" in document):
        fix = "use softmax, sigmoid or none"
        raise error("'argmax' gives no score to compare", where=f"{where}.scores", fix=fix)


def of(value: "str | Postprocess") -> Postprocess:
    """Return what a manifest's ``postprocess`` means, whichever way it is spelled."""
    return Postprocess(value) if isinstance(value, str) else value
