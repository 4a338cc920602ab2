# SPDX-License-Identifier: Apache-2.0
"""A model that answers raw inputs: ``edge_agent.Model``.

::

    model = edge_agent.Model.open(Path("bundle"), runtime="litert")
    answer = model.infer(image)          # uint8 [H, W] or [H, W, C]
    print(model.labels[answer.cls], answer.confidence)
"""

from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.contents import Contents
from edge_agent.runner.postprocess import decide
from edge_agent.runner.preprocess import apply_batch
from edge_agent.runner.runtimes import Session, open_session
from edge_agent.runner.tensors import Encoder, dequantize, encode
from edge_contract import canonical
from edge_contract.errors import BundleError, RuntimeAdapterError
from edge_contract.manifest import Artefact, TensorSpec
from edge_contract.preprocess import Preprocess

__all__ = ["Description", "Inference", "Model"]

Array = NDArray[Any]


class Inference(NamedTuple):
    """One answer. A named tuple: it is made in a third of a frozen dataclass's time, on every inference.

    Attributes:
        cls: Index of the class, into ``Model.labels``.
        confidence: See ``postprocess.decide``.
        logits: Real values [K], float32.
        embedding: Real values [D], float32; None where the artefact shows none.
        codes: role → the artefact's own integers (or floats) [K], [D].
        latency_us: From the raw input to the answer.
    """

    cls: int
    confidence: float
    logits: Array
    embedding: Array | None
    codes: dict[str, Array]
    latency_us: float


@dataclass(frozen=True)
class Description:
    """What must be known of a model file to answer raw inputs with it; a manifest says it, or its maker.

    Attributes:
        artefact: The file's tensors.
        preprocess, postprocess, labels: As in the manifest.
        sha256: Of the file.
        bundle, version: Of the bundle; empty when there is none yet.
    """

    artefact: Artefact
    preprocess: Preprocess
    postprocess: str
    labels: tuple[str, ...]
    sha256: str = ""
    bundle: str = ""
    version: str = ""


class Model:
    """A model file in a runtime, with its preprocessing. Not thread-safe: one per thread.

    Args:
        session: The loaded file.
        description: What it is.
        contents: Its bundle folder, if it lies in one.

    Raises:
        BundleError: As many labels as logits there must be.
    """

    def __init__(self, session: Session, description: Description, contents: Contents | None = None) -> None:
        self.session, self.description, self.contents = session, description, contents
        self.artefact, self.labels = description.artefact, description.labels
        self.bundle, self.version = description.bundle, description.version
        self._encode = Encoder(description.preprocess, self.artefact.input)
        self._postprocess, self._run = description.postprocess, session.run
        self._logits = _logits_of(self.artefact, len(self.labels))
        self._embedding = self.artefact.output("embedding")
        specs = [self._logits, *([] if self._embedding is None else [self._embedding])]
        self._roles = [(spec.role, spec.name) for spec in specs]
        self._is_float = any(spec.dtype == "float32" for spec in specs)

    @classmethod
    def open(cls, folder: Path, *, runtime: str, threads: int = 1) -> "Model":
        """Open a bundle folder's artefact for a runtime.

        Raises:
            BundleError: The folder is no bundle, or its artefact is missing or changed.
            ManifestError: The manifest is malformed, or no artefact claims the runtime.
            MissingDependencyError: The runtime is not installed.
            RuntimeAdapterError: The runtime refuses the artefact.
        """
        contents = Contents.open(Path(folder))
        manifest = contents.manifest
        artefact = manifest.artefact_for(runtime)
        description = Description(
            artefact,
            manifest.preprocess,
            manifest.postprocess,
            manifest.labels,
            manifest.file(artefact.path).sha256,
            contents.bundle,
            manifest.version,
        )
        return cls(open_session(contents.path(artefact.path), artefact, runtime, threads), description, contents)

    @classmethod
    def load(cls, path: Path, description: Description, *, runtime: str, threads: int = 1) -> "Model":
        """Open a model file that is in no bundle yet; raises as ``open`` does. Fills in its SHA-256."""
        session = open_session(Path(path), description.artefact, runtime, threads)
        return cls(session, replace(description, sha256=canonical.digest(Path(path).read_bytes())))

    @property
    def dimensions(self) -> dict[str, int]:
        """The number of values per role, such as {"logits": 10, "embedding": 48}."""
        specs = [self._logits, *([] if self._embedding is None else [self._embedding])]
        return {spec.role: int(np.prod(spec.shape[1:])) for spec in specs}

    def infer(self, raw: Array, /) -> Inference:
        """Answer one raw input.

        Args:
            raw: [H, W] or [H, W, C], uint8 or what the preprocessing takes.

        Raises:
            DataError: The input cannot become one of this model.
            RuntimeAdapterError: The runtime failed, or gave NaN or an infinity.
        """
        start = perf_counter_ns()
        found = self._run(self._encode(raw))
        codes = {role: found[name].reshape(-1) for role, name in self._roles}
        if self._is_float:
            self._refuse_nan(codes)
        logits = dequantize(self._logits, codes["logits"])
        embedding = None if self._embedding is None else dequantize(self._embedding, codes["embedding"])
        best, confidence = decide(self._postprocess, logits)
        return Inference(best, confidence, logits, embedding, codes, (perf_counter_ns() - start) / 1000)

    def infer_codes(self, inputs: Array) -> dict[str, Array]:
        """Return role → the artefact's own outputs [N, ...] for float32 model inputs [N, h, w, c].

        Raises:
            DataError: The inputs do not have the artefact's shape.
            RuntimeAdapterError: The runtime failed.
        """
        encoded = encode(self.artefact.input, inputs)
        answers = [self._run(encoded[i : i + 1]) for i in range(len(encoded))]
        return {role: self._stack([answer[name] for answer in answers], role) for role, name in self._roles}

    def infer_raw_codes(self, raw: Array) -> dict[str, Array]:
        """Return what ``infer_codes`` does for raw inputs [N, H, W] or [N, H, W, C]."""
        return self.infer_codes(apply_batch(self.description.preprocess, raw))

    def _stack(self, values: list[Array], role: str) -> Array:
        spec = self._logits if role == "logits" else self.artefact.output(role)
        if not values and spec is not None:
            return np.zeros((0, self.dimensions[role]), spec.dtype)
        return np.stack([value.reshape(-1) for value in values])

    def _refuse_nan(self, codes: dict[str, Array]) -> None:
        for role, values in codes.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                where = f"{self.artefact.path} in {self.session.runtime}"
                raise RuntimeAdapterError(f"the {role} are not finite", where=where)


def _logits_of(artefact: Artefact, labels: int) -> TensorSpec:
    spec = artefact.output("logits")
    if spec is None:
        raise BundleError("no output has the role 'logits'", where=artefact.path)
    count = int(np.prod(spec.shape[1:]))
    if count != labels:
        raise BundleError(f"{count} logits and {labels} labels", where=artefact.path, fix="build the bundle again")
    return spec
