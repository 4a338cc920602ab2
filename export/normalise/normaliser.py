# SPDX-License-Identifier: Apache-2.0
"""Make a TFLite file of any maker one that every runtime either computes right or refuses.

Stock converters write files that old runtimes load and compute wrong without an error: constants outside the
flatbuffer, operator versions that are too low, weight scales that old kernels do not read. The file is decoded,
rewritten by one pass for each subject (``normalise_*.py``), and encoded with aligned constants; then it is read again
as a stranger would.

Normalising twice changes nothing more, and the same file gives the same bytes.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from edge_contract.targets import Target
from export.normalise.dense import dense_per_tensor, per_channel_dense, warning
from export.normalise.draft import Draft
from export.normalise.gates import split_hard_swish
from export.normalise.lean import drop_copies, drop_notes, drop_unused, shorten_names
from export.normalise.pads import fold_pads
from export.normalise.trailer import archive_behind, move
from export.normalise.versions import set_versions
from export.tflite.encoder import encode
from export.tflite.reader import read
from export.tflite.view import view
from export.tflite.walk import decode

__all__ = ["SOURCE_KEY", "Normalised", "normalise"]

SOURCE_KEY: Final = "strop.source"


@dataclass(frozen=True)
class Normalised:
    """A normalised file.

    Attributes:
        data: Its bytes.
        changes: What was changed, one sentence each; empty if nothing but the layout.
        warnings: What some runtime would still compute wrong, because no target asked for the change.
    """

    data: bytes
    changes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def normalise(data: bytes, *, where: str, target: Target | None = None) -> Normalised:
    """Return a file that computes the same and that runtimes read alike.

    Always: constants inside the flatbuffer and aligned to 16 bytes; honest operator versions; PADs folded into SAME
    convolutions; short names between input and output; unused and repeated data left out; ``strop.source`` in the
    metadata (sha256 of the file given first). With a target also: per-channel int8 FULLY_CONNECTED as 1×1 convolutions
    where the target wants one scale, and int8 HARD_SWISH as ADD and MUL. All but the last keep every integer.

    Args:
        data: A TFLite file.
        where: Its name, for errors.
        target: The computer that it is for; None changes nothing that only some computers want.

    Raises:
        ModelError: The file is damaged, or uses newer fields that rewriting would lose.
    """
    root, walker = decode(data, where)
    view(root, walker, len(data))
    draft = Draft(root, walker, where)
    changes, warnings = _passes(draft, target)
    _note_source(draft, data)
    changes += drop_copies(draft)
    root = draft.finish()
    view(root, walker, len(data))  # what the passes made must hold together too
    out = encode(root, where)
    out += move(archive_behind(data), len(out))
    read(out, where)
    return Normalised(out, tuple(changes), tuple(warnings))


def _passes(draft: Draft, target: Target | None) -> tuple[list[str], list[str]]:
    """Run every pass but the last; the order matters: versions come after whatever adds operators."""
    changes = [f"{draft.outside} constants moved into the flatbuffer"] if draft.outside else []
    changes += fold_pads(draft)
    warnings: list[str] = []
    integers = target.integers.get("tflite") if target else None
    if integers is not None and integers.fully_connected == "tensor":
        told, warnings = dense_per_tensor(draft)
        changes += told
    else:
        left = sum(len(per_channel_dense(draft, graph)) for graph in draft.graphs)
        warnings = [warning(left)] if left else []
    changes += split_hard_swish(draft) if integers is not None else []
    changes += set_versions(draft) + drop_notes(draft) + drop_unused(draft) + shorten_names(draft)
    return changes, warnings


def _note_source(draft: Draft, data: bytes) -> None:
    """Write the digest of the file that was given first."""
    entries = draft.root["metadata"] or []
    if any(entry["name"] == SOURCE_KEY.encode() for entry in entries):
        return
    note = json.dumps({"sha256": hashlib.sha256(data).hexdigest()}, separators=(",", ":")).encode()
    draft.root["metadata"] = [*entries, {"name": SOURCE_KEY.encode(), "buffer": draft.add_buffer(note)}]
