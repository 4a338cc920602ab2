# SPDX-License-Identifier: Apache-2.0
"""What a bundle says of itself: ``manifest.json``.

The bundle's id is the SHA-256 of the manifest's canonical bytes. The manifest lists every file with its
size and SHA-256, so whoever trusts the id trusts every byte. Times and signatures live outside.
"""

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from edge_contract import canonical
from edge_contract.errors import ContractError, ManifestError
from edge_contract.fields import Fields
from edge_contract.preprocess import POSTPROCESS, Preprocess
from edge_contract.topics import is_name

__all__ = ["FORMATS", "MANIFEST_NAME", "RUNTIMES", "SCHEMA", "Artefact", "BundleFile", "Manifest", "TensorSpec"]

SCHEMA = "strop.bundle/1"
MANIFEST_NAME = "manifest.json"
FORMATS = ("onnx", "tflite")
RUNTIMES = ("onnxruntime", "litert", "tflite-runtime", "edgetpu")
LAYOUTS = ("NHWC", "NCHW", "NC")
MAX_MANIFEST_BYTES = 256 * 1024


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of an artefact.

    Attributes:
        name: Name in the file.
        role: ``input``, ``logits`` or ``embedding``.
        shape: With batch, such as [1, 28, 28, 1]; 0 marks a free dimension.
        dtype: ``int8``, ``uint8`` or ``float32``.
        layout: ``NHWC``, ``NCHW`` or ``NC``.
        scale, zero_point: Real value = scale × (integer - zero_point); scale 0 for float tensors.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    scale: float = 0.0
    zero_point: int = 0
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "name": self.name,
            "role": self.role,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "layout": self.layout,
            "scale": self.scale,
            "zero_point": self.zero_point,
        }

    @classmethod
    def from_json(cls, document: Any, where: str) -> "TensorSpec":
        f = Fields(document, where, ManifestError)
        return cls(
            f.text("name"),
            f.text("role", among=("input", "logits", "embedding")),
            f.integers("shape"),
            f.text("dtype", among=("int8", "uint8", "float32")),
            f.text("layout", among=LAYOUTS),
            f.number("scale", 0.0),
            f.integer("zero_point", 0),
            f.rest(),
        )


@dataclass(frozen=True)
class BundleFile:
    """One file of the bundle: a POSIX path inside it, its size in bytes and its SHA-256."""

    path: str
    size: int
    sha256: str
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {**self.unrecognized, "path": self.path, "size": self.size, "sha256": self.sha256}

    @classmethod
    def from_json(cls, document: Any, where: str) -> "BundleFile":
        f = Fields(document, where, ManifestError)
        path = f.text("path")
        plain = str(PurePosixPath(path)) == path and path != "." and not set(path) & {"\\", "\0"}
        if not plain or path.startswith("/") or ".." in PurePosixPath(path).parts:
            raise ManifestError(f"{path!r} leaves the bundle", where=f"{where}.path", fix="use a relative path")
        if path == MANIFEST_NAME:
            raise ManifestError("the manifest cannot list itself", where=f"{where}.path")
        return cls(path, f.integer("size", minimum=0), f.digest("sha256"), f.rest())


@dataclass(frozen=True)
class Artefact:
    """One model file for one runtime and target.

    Attributes:
        path: The file in the bundle.
        format: ``onnx`` or ``tflite``.
        runtimes: The runtimes that it was run in, such as ("litert", "tflite-runtime").
        target: Name of the target, such as ``rpi4`` or ``generic-x86``.
        precision: ``int8`` or ``float32``.
        plan_digest: Digest of the QuantizationPlan, empty for float.
        input: The one input.
        outputs: Logits, and the embedding if the model shows one.
    """

    path: str
    format: str
    runtimes: tuple[str, ...]
    target: str
    precision: str
    plan_digest: str
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def output(self, role: str) -> TensorSpec | None:
        """Return the output of a role, or None."""
        return next((spec for spec in self.outputs if spec.role == role), None)

    def to_json(self) -> dict[str, Any]:
        return {
            **self.unrecognized,
            "path": self.path,
            "format": self.format,
            "runtimes": list(self.runtimes),
            "target": self.target,
            "precision": self.precision,
            "plan_digest": self.plan_digest,
            "input": self.input.to_json(),
            "outputs": [spec.to_json() for spec in self.outputs],
        }

    @classmethod
    def from_json(cls, document: Any, where: str) -> "Artefact":
        f = Fields(document, where, ManifestError)
        runtimes = f.texts("runtimes")
        for name in runtimes:
            if name not in RUNTIMES:
                fix = f"use one of {', '.join(RUNTIMES)}"
                raise ManifestError(f"unknown runtime {name!r}", where=f"{where}.runtimes", fix=fix)
        outputs = [TensorSpec.from_json(o, f"{where}.outputs[{i}]") for i, o in enumerate(f.items("outputs"))]
        if not any(spec.role == "logits" for spec in outputs):
            raise ManifestError("no output has the role 'logits'", where=f"{where}.outputs")
        return cls(
            f.text("path"),
            f.text("format", among=FORMATS),
            runtimes,
            f.text("target"),
            f.text("precision", among=("int8", "float32")),
            f.text("plan_digest", ""),
            TensorSpec.from_json(f.object("input"), f"{where}.input"),
            tuple(outputs),
            f.rest(),
        )


@dataclass(frozen=True)
class Manifest:
    """A whole manifest.

    Attributes:
        model: Name of the model, a topic name.
        version: Free text that people read, such as ``1.2.0``.
        task: ``classification`` (others follow).
        preprocess: How raw input becomes model input.
        postprocess: One of ``softmax``, ``argmax``, ``none``.
        labels: Class names in the order of the logits.
        artefacts: One model file per runtime and target.
        golden: Path of the golden description (JSON): inputs, and outputs per artefact and runtime.
        profiles: Reference profile's path per artefact path (computed on that artefact's runtime).
        lineage: Digests and facts: recipe, data, code, teacher, accuracy with interval, parent bundle.
        files: Every file of the bundle, sorted by path.
    """

    model: str
    version: str
    task: str
    preprocess: Preprocess
    postprocess: str
    labels: tuple[str, ...]
    artefacts: tuple[Artefact, ...]
    golden: str
    profiles: dict[str, str]
    lineage: dict[str, Any]
    files: tuple[BundleFile, ...]
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, unknown fields included."""
        return {
            **self.unrecognized,
            "schema": SCHEMA,
            "model": self.model,
            "version": self.version,
            "task": self.task,
            "preprocess": self.preprocess.to_json(),
            "postprocess": self.postprocess,
            "labels": list(self.labels),
            "artefacts": [artefact.to_json() for artefact in self.artefacts],
            "golden": self.golden,
            "profiles": dict(self.profiles),
            "lineage": self.lineage,
            "files": [entry.to_json() for entry in self.files],
        }

    def to_bytes(self) -> bytes:
        """Return the canonical bytes, whose SHA-256 is the bundle's id."""
        return canonical.dumps(self.to_json())

    @property
    def bundle_id(self) -> str:
        """The bundle's id: SHA-256 of the canonical bytes."""
        return canonical.digest(self.to_bytes())

    def file(self, path: str) -> BundleFile:
        """Return the entry of a path.

        Raises:
            ManifestError: The bundle has no such file.
        """
        for entry in self.files:
            if entry.path == path:
                return entry
        raise ManifestError(f"the bundle has no file {path!r}", where=f"manifest of {self.model} {self.version}")

    def artefact_for(self, runtime: str) -> Artefact:
        """Return the first artefact that claims a runtime.

        Raises:
            ManifestError: No artefact claims it.
        """
        for artefact in self.artefacts:
            if runtime in artefact.runtimes:
                return artefact
        claimed = sorted({name for artefact in self.artefacts for name in artefact.runtimes})
        where = f"manifest of {self.model} {self.version}"
        raise ManifestError(f"no artefact for runtime '{runtime}'", where=where, fix=f"it has {', '.join(claimed)}")

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Return the manifest in canonical bytes.

        Raises:
            ManifestError: Malformed, of another schema, not canonical, a model name that may not stand in a topic,
                a path that leaves the bundle, a file that stands twice or inside another file, a path that no
                file entry backs, a profile of no artefact, or labels that do not fit the logits.
        """
        if len(data) > MAX_MANIFEST_BYTES:
            raise ManifestError(f"{len(data)} bytes, more than {MAX_MANIFEST_BYTES}", where="manifest")
        try:
            document = canonical.loads(data, where="manifest")
            is_canonical = canonical.dumps(document) == data
        except ContractError as error:
            raise ManifestError(error.what, where="manifest") from error
        manifest = cls.from_json(document)
        if not is_canonical:
            raise ManifestError("the bytes are not canonical JSON", where="manifest", fix="build the bundle again")
        return manifest

    @classmethod
    def from_json(cls, document: Any) -> "Manifest":
        """Return the manifest in a decoded JSON object; raises ManifestError as ``from_bytes`` does."""
        f = Fields(document, "manifest", ManifestError)
        schema = f.text("schema")
        if schema != SCHEMA:
            raise ManifestError(f"schema {schema!r} is not {SCHEMA!r}", where="manifest.schema", fix="update Strop")
        files = tuple(BundleFile.from_json(e, f"manifest.files[{i}]") for i, e in enumerate(f.items("files")))
        profiles = f.object("profiles", {})
        manifest = cls(
            model=f.text("model"),
            version=f.text("version"),
            task=f.text("task", among=("classification",)),
            preprocess=Preprocess.from_json(f.object("preprocess"), "manifest.preprocess"),
            postprocess=f.text("postprocess", among=POSTPROCESS),
            labels=f.texts("labels"),
            artefacts=tuple(
                Artefact.from_json(a, f"manifest.artefacts[{i}]") for i, a in enumerate(f.items("artefacts"))
            ),
            golden=f.text("golden"),
            profiles=profiles,
            lineage=f.object("lineage", {}),
            files=files,
            unrecognized=f.rest(),
        )
        manifest._check_names()
        manifest._check_paths()
        return manifest

    def _check_names(self) -> None:
        if not is_name(self.model):  # it becomes a folder on the device and a word in URLs
            fix = "use letters, digits, '.', '_' and '-', at most 63"
            raise ManifestError(f"{self.model!r} is not a model name", where="manifest.model", fix=fix)
        for artefact in self.artefacts:
            logits = artefact.output("logits")
            classes = logits.shape[-1] if logits is not None and logits.shape else 0
            if self.labels and classes not in (0, len(self.labels)):
                what = f"{len(self.labels)} labels for {classes} logits of {artefact.path!r}"
                raise ManifestError(what, where="manifest.labels")

    def _check_paths(self) -> None:
        paths = [entry.path for entry in self.files]
        doubled = next((p for i, p in enumerate(paths) if p in paths[:i]), None)
        if doubled is not None:
            raise ManifestError(f"file {doubled!r} stands twice", where="manifest.files")
        for path in paths:
            inside = next((str(p) for p in PurePosixPath(path).parents if str(p) in paths), None)
            if inside is not None:
                raise ManifestError(f"{inside!r} is a file and a folder", where="manifest.files")
        if not self.artefacts:
            raise ManifestError("no artefact", where="manifest.artefacts")
        named = [a.path for a in self.artefacts] + [self.golden, *self.profiles.values()]
        stray = next((path for path in self.profiles if path not in [a.path for a in self.artefacts]), None)
        if stray is not None:
            raise ManifestError(f"{stray!r} is no artefact", where="manifest.profiles")
        for path in named:
            if path not in paths:
                raise ManifestError(f"file {path!r} is named but not listed", where="manifest.files")
