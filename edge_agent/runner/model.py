# SPDX-License-Identifier: Apache-2.0
"""A model file in one runtime that answers raw inputs; ``edge_agent.Model`` is what an application holds of it.

::

    model = Model.open(Path("bundle"), runtime="litert")
    answer = model.infer(image)          # uint8 [H, W] or [H, W, C]
    print(model.labels[answer.cls], answer.confidence)

``infer`` is for classifiers; ``predict`` answers by the model's task: a class, boxes, or every output as real numbers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.answers import Answer, Detections, Inference, Values
from edge_agent.runner.boxes import anchors_of, detect, to_raw
from edge_agent.runner.contents import Contents
from edge_agent.runner.postprocess import CodeSoftmax, decide
from edge_agent.runner.preprocess import apply_batch
from edge_agent.runner.runtimes import Session, open_session
from edge_agent.runner.tensors import Encoder, byte_values, decoder, dequantize, encode
from edge_contract import canonical
from edge_contract import postprocess as postprocesses
from edge_contract.artefact import Artefact, TensorSpec
from edge_contract.errors import BundleError, RuntimeAdapterError, UsageError
from edge_contract.postprocess import Postprocess
from edge_contract.preprocess import Preprocess, Preprocessing

__all__ = ["Answer", "Description", "Detections", "Inference", "Model", "Values"]

Array = NDArray[Any]
Run = Callable[[Array | None], dict[str, Array]]


@dataclass(frozen=True)
class Description:
    """What must be known of a model file to answer raw inputs with it; a manifest says it, or its maker.

    Attributes:
        artefact: The file's tensors.
        preprocess, postprocess, labels: As in the manifest.
        sha256: Of the file.
        bundle, version: Of the bundle; empty when there is none yet.
        task: As in the manifest.
    """

    artefact: Artefact
    preprocess: Preprocessing
    postprocess: str | Postprocess
    labels: tuple[str, ...]
    sha256: str = ""
    bundle: str = ""
    version: str = ""
    task: str = "classification"


class Model:
    """A model file in a runtime, with its preprocessing. Not thread-safe: one per thread.

    Args:
        session: The loaded file.
        description: What it is.
        contents: Its bundle folder, if it lies in one.

    Raises:
        BundleError: A classifier needs as many labels as logits, a detector boxes, scores and anchors that fit.
    """

    def __init__(self, session: Session, description: Description, contents: Contents | None = None) -> None:
        self.session, self.description, self.contents = session, description, contents
        self.artefact, self.labels = description.artefact, description.labels
        self.bundle, self.version = description.bundle, description.version
        self.task, self.keys = description.task, self.artefact.keyed()
        self._encode = Encoder(description.preprocess, self.artefact.input)
        self._post = postprocesses.of(description.postprocess)
        self._run: Run = session.run
        self._roles = [(key, spec.name) for key, spec in self.keys.items()]
        self._is_float = any(spec.dtype == "float32" for spec in self.keys.values())
        self._room = session.room
        if self.task == "classification":
            logits = _logits_of(self.artefact, len(self.labels))
            self._decide = _decider(logits, self._post)
        self._reals: dict[str, Callable[[Array], Array]] = {key: decoder(spec) for key, spec in self.keys.items()}
        self._anchors = _anchors_for(self._post, self.artefact) if self.task == "detection" else None

    @classmethod
    def open(cls, folder: Path, *, runtime: str, threads: int = 1, target: str = "", delegate: str = "") -> "Model":
        """Open a bundle folder's artefact for a runtime, the target's own where there is one.

        ``delegate`` is what ``open_session`` takes.

        Raises:
            BundleError: The folder is no bundle, or its artefact is missing or changed.
            ManifestError: The manifest is malformed, or no artefact claims the runtime.
            MissingDependencyError: The runtime is not installed.
            RuntimeAdapterError: The runtime refuses the artefact.
        """
        contents = Contents.open(Path(folder))
        manifest = contents.manifest
        artefact = manifest.artefact_for(runtime, target)
        description = Description(
            artefact,
            manifest.preprocess,
            manifest.postprocess,
            manifest.labels,
            manifest.file(artefact.path).sha256,
            contents.bundle,
            manifest.version,
            manifest.task,
        )
        session = open_session(contents.path(artefact.path), artefact, runtime, threads, delegate)
        return cls(session, description, contents)

    @classmethod
    def load(cls, path: Path, description: Description, *, runtime: str, threads: int = 1) -> "Model":
        """Open a model file that is in no bundle yet; raises as ``open`` does. Fills in its SHA-256."""
        session = open_session(Path(path), description.artefact, runtime, threads)
        return cls(session, replace(description, sha256=canonical.digest(Path(path).read_bytes())))

    @property
    def dimensions(self) -> dict[str, int]:
        """The number of values per key, such as {"logits": 10, "embedding": 48}."""
        return {key: int(np.prod(spec.shape[1:])) for key, spec in self.keys.items()}

    @property
    def names(self) -> dict[str, str]:
        """Output name in the file → key."""
        return {name: key for key, name in self._roles}

    @property
    def has_logits(self) -> bool:
        """Whether it is a classifier: whether ``infer`` answers, and drift of classes can be seen."""
        return self.task == "classification"

    def encoded(self, raw: Array) -> Array:
        """Return one raw input as the file takes it: preprocessed, quantized, [1, …]; raises DataError."""
        return self._encode(raw)

    def watch(self, wrap: Callable[[Run], Run]) -> None:
        """Put something around the runtime's ``run``, for good."""
        self._run = wrap(self._run)

    @contextmanager
    def running(self, run: Run, room: Callable[[], Array] | None = None) -> Iterator[None]:
        """Use another function for the runtime's ``run`` within the block: to put a clock around it.

        Args:
            run: What runs.
            room: Gives the input's memory that ``run(None)`` reads, where that is another session's.
        """
        before = self._run, self._room
        self._run, self._room = run, room or self._room
        try:
            yield
        finally:
            self._run, self._room = before

    def predict(self, raw: Array, /) -> Answer:
        """Answer one raw input by the model's task; raises as ``infer`` does.

        Returns:
            ``Inference`` of a classifier, ``Detections`` of a detector, ``Values`` of everything else.
        """
        if self.has_logits:
            return self.infer(raw)
        start = perf_counter_ns()
        found = self._run(self._prepared(raw))
        codes = {key: found[name] for key, name in self._roles}
        if self._is_float:
            self._refuse_nan(codes)
        values = {key: dequantize(self.keys[key], code)[0] for key, code in codes.items()}
        flat = {key: code.reshape(-1) for key, code in codes.items()}
        if self.task == "detection":
            return self._detections(np.asarray(raw), values, flat, start)
        return Values(values, flat, (perf_counter_ns() - start) / 1000)

    def infer(self, raw: Array, /) -> Inference:
        """Answer one raw input.

        Args:
            raw: An image [H, W] or [H, W, C], or what the preprocessing takes.

        Raises:
            DataError: The input cannot become one of this model.
            RuntimeAdapterError: The runtime failed, or gave NaN or an infinity.
            UsageError: The model is no classifier.
        """
        if not self.has_logits:
            raise UsageError(f"a model for {self.task} gives no class", where=self.artefact.path, fix="use predict")
        start = perf_counter_ns()
        found = self._run(self._prepared(raw))
        codes = {role: found[name].reshape(-1) for role, name in self._roles}
        if self._is_float:
            self._refuse_nan(codes)
        decided = self._decide(codes["logits"])
        spent_us = (perf_counter_ns() - start) / 1000
        return Inference(decided, codes, self._reals, spent_us, self._post.threshold)

    def infer_codes(self, inputs: Array) -> dict[str, Array]:
        """Return key → the artefact's own outputs, flat [N, K], for float32 model inputs [N, h, w, c].

        Raises:
            DataError: The inputs do not have the artefact's shape.
            RuntimeAdapterError: The runtime failed.
        """
        encoded = encode(self.artefact.input, inputs)
        answers = [self._run(encoded[i : i + 1]) for i in range(len(encoded))]
        return {role: self._stack([answer[name] for answer in answers], role) for role, name in self._roles}

    def infer_raw_codes(self, raw: Array) -> dict[str, Array]:
        """Return what ``infer_codes`` does for raw inputs [N, …]."""
        return self.infer_codes(apply_batch(self.description.preprocess, raw))

    def _prepared(self, raw: Array) -> Array | None:
        """Return a raw input as the file takes it, or None when it stands in the runtime's own memory already."""
        if self._room is not None and self._encode.write(raw, self._room):
            return None
        return self._encode(raw)

    def _detections(self, raw: Array, values: dict[str, Array], codes: dict[str, Array], start: int) -> Detections:
        found = detect(self._post, values["boxes"], values["scores"], values.get("classes"), self._anchors)
        if isinstance(self.description.preprocess, Preprocess):
            found = to_raw(self.description.preprocess, found, *raw.shape[:2])
        return Detections(*found, codes, (perf_counter_ns() - start) / 1000)

    def _stack(self, values: list[Array], role: str) -> Array:
        if not values:
            return np.zeros((0, self.dimensions[role]), self.keys[role].dtype)
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


def _decider(spec: TensorSpec, post: Postprocess) -> Callable[[Array], tuple[int, float]]:
    """Return what gives (class, confidence) of a file's logits [K]."""
    if spec.dtype in ("int8", "uint8") and post.scores == "softmax":
        return CodeSoftmax(byte_values(spec))
    real = decoder(spec)
    return lambda codes: decide(post.scores, real(codes))


def _anchors_for(post: Postprocess, artefact: Artefact) -> NDArray[np.float32] | None:
    """Return the anchors of a detector for its input; its outputs must have as many rows, and columns for each box."""
    boxes, scores = artefact.output("boxes"), artefact.output("scores")
    if post.boxes is None or boxes is None or scores is None:
        raise BundleError("a detector needs boxes, scores and their description", where=artefact.path)
    wanted = 4 + 2 * post.boxes.keypoints
    if len(boxes.shape) != 3 or boxes.shape[2] < wanted:
        what = f"boxes of shape {list(boxes.shape)}, not [1, N, {wanted} or more]"
        raise BundleError(what, where=artefact.path, fix="correct the order or the keypoints of postprocess.boxes")
    if post.boxes.anchors is None:
        return None
    height, width = _input_size(artefact.input)
    found = anchors_of(post.boxes.anchors, height, width)
    if len(found) != boxes.shape[1]:
        what = f"{len(found)} anchors for {boxes.shape[1]} boxes"
        raise BundleError(what, where=artefact.path, fix="correct the layers of postprocess.boxes.anchors")
    return found


def _input_size(spec: TensorSpec) -> tuple[int, int]:
    """Return (height, width) of an image input."""
    if len(spec.shape) != 4:
        raise BundleError(f"anchors for an input of shape {list(spec.shape)}", where=spec.name, fix="give an image")
    height, width = spec.shape[2:] if spec.layout == "NCHW" else spec.shape[1:3]
    return height, width
