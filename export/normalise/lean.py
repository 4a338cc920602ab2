# SPDX-License-Identifier: Apache-2.0
"""Leave out of a file what no runtime reads: unused tensors and constants, second copies, long names, old notes."""

from export.normalise.draft import Draft, Graph, blank
from export.tflite.walk import Table

__all__ = ["drop_copies", "drop_notes", "drop_unused", "shorten_names"]

_REFERENCES = ("inputs", "outputs", "intermediates")


def drop_unused(draft: Draft) -> list[str]:
    """Drop tensors that no operator, input, output or signature names; number the others anew."""
    dropped = 0
    entries_of: dict[int, list[Table]] = {}
    for signature in draft.root["signature_defs"] or []:
        entries = [*(signature["inputs"] or []), *(signature["outputs"] or [])]
        entries_of.setdefault(signature["subgraph_index"], []).extend(entries)
    for index, graph in enumerate(draft.graphs):
        entries = entries_of.get(index, [])
        used = {tensor for op in graph.operators for key in _REFERENCES for tensor in op[key] or ()}
        used |= graph.shown | {entry["tensor_index"] for entry in entries}
        kept = sorted(used - {-1})
        dropped += len(graph.tensors) - len(kept)
        _renumber(graph, entries, {old: new for new, old in enumerate(kept)} | {-1: -1})
        graph.tensors[:] = [graph.tensors[old] for old in kept]
        graph.settle()
    return [f"{dropped} unused tensors left out"] if dropped else []


def _renumber(graph: Graph, entries: list[Table], new: dict[int, int]) -> None:
    for table in (graph.table, *graph.operators):
        for key in _REFERENCES:
            if table.get(key) is not None:
                table[key] = tuple(new[old] for old in table[key])
    for entry in entries:
        entry["tensor_index"] = new[entry["tensor_index"]]


def drop_copies(draft: Draft) -> list[str]:
    """Keep each constant once; buffer 0 stays the empty one, by convention."""
    kept: dict[bytes | None, int] = {None: 0}
    holders = [table for graph in draft.graphs for table in graph.tensors] + (draft.root["metadata"] or [])
    before = {id(draft.buffers[table["buffer"]]) for table in holders if draft.buffers[table["buffer"]]["data"]}
    for table in holders:
        data = draft.buffers[table["buffer"]]["data"]
        table["buffer"] = kept.setdefault(data, len(kept))
    draft.buffers[:] = [blank("Buffer") | {"data": data} for data in kept]
    draft.root["metadata_buffer"] = None  # superseded by metadata before 2020
    copies = len(before) - sum(1 for data in kept if data)
    return [f"{copies} second copies of constants left out"] if copies else []


def shorten_names(draft: Draft) -> list[str]:
    """Give tensors between input and output short names; what a caller names keeps its name."""
    saved = 0
    for graph in draft.graphs:
        shown = graph.shown
        taken = {graph.tensors[index]["name"] for index in shown}
        for index, tensor in enumerate(graph.tensors):
            short = b"t%d" % index
            if index in shown or short in taken or len(tensor["name"] or b"") <= len(short):
                continue
            saved += len(tensor["name"]) - len(short)
            tensor["name"] = short
    return [f"names shortened by {saved} bytes"] if saved else []


def drop_notes(draft: Draft) -> list[str]:
    """Drop ranges seen in calibration, which no runtime reads, and the claim of a minimum runtime, often wrong."""
    ranged = 0
    for graph in draft.graphs:
        for tensor in graph.tensors:
            table = tensor["quantization"]
            if table is not None and (table["min"] or table["max"]):
                table["min"] = table["max"] = None
                ranged += 1
    entries = draft.root["metadata"] or []
    kept = [entry for entry in entries if entry["name"] != b"min_runtime_version"]
    draft.root["metadata"] = kept or None
    told = ["the note 'min_runtime_version' left out"] if len(kept) < len(entries) else []
    return [*told, *([f"calibration ranges of {ranged} tensors left out"] if ranged else [])]
