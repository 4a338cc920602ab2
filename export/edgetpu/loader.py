# SPDX-License-Identifier: Apache-2.0
"""Why the Edge TPU compiler would refuse a whole file: what its own interpreter, of 2021, cannot load.

Its words are given as it prints them, so that a person can search for them.
"""

from typing import Final

from edge_contract.accelerators import Accelerator
from export.check.versions import first_release, numbers, reads
from export.tflite.model import Operator, TFLiteModel

__all__ = ["file_faults"]

_FLOW: Final = ("IF", "WHILE", "CALL", "CALL_ONCE")


def file_faults(model: TFLiteModel, accelerator: Accelerator) -> tuple[str, ...]:
    """Return the faults of a file as a whole, each once."""
    graph = model.main
    faults = [_version(operator, accelerator) for operator in graph.operators]
    if not graph.operators:
        faults.append("the file has no operator")
    if len(model.subgraphs) > 1 or any(operator.kind in _FLOW for operator in graph.operators):
        faults.append(f"control flow: {len(model.subgraphs)} subgraphs where the compiler takes one")
    if any(tensor.is_external for tensor in graph.tensors):
        faults.append("constants lie outside the flatbuffer, where loaders of 2021 do not look: normalise the file")
    if any(operator.is_custom and operator.kind.startswith("Flex") for operator in graph.operators):
        faults.append("Regular TensorFlow ops are not supported by this interpreter")
    if any(operator.is_custom and operator.kind == "edgetpu-custom-op" for operator in graph.operators):
        faults.append("the file is compiled for the Edge TPU already")
    return tuple(dict.fromkeys(fault for fault in faults if fault))


def _version(operator: Operator, accelerator: Accelerator) -> str:
    """An operator or a version of one that came after the compiler's interpreter."""
    kind, version, loader = operator.kind, operator.version, accelerator.loader
    if operator.is_custom or reads(loader, kind, version):
        return ""
    born = first_release(kind, 1)
    if born is not None and numbers(born) > numbers(loader):
        return f"Op builtin_code out of range: {kind} came with TFLite {born}, after the compiler's {loader}"
    return f"Didn't find op for builtin opcode '{kind}' version '{version}'"
