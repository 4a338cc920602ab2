# SPDX-License-Identifier: Apache-2.0
"""What a bundle says of itself: ``manifest.json``.

The bundle's id is the SHA-256 of the manifest's canonical bytes. The manifest lists every file with its
size and SHA-256, so whoever trusts the id trusts every byte. Times and signatures live outside.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from edge_contract import canonical
from edge_contract import postprocess as answers
from edge_contract import preprocess as inputs
from edge_contract.artefact import DTYPES, FORMATS, LAYOUTS, ROLES, RUNTIMES, Artefact, TensorSpec
from edge_contract.errors import ContractError, ManifestError
from edge_contract.fields import Fields
from edge_contract.input_contract import InputContract
from edge_contract.postprocess import Postprocess
from edge_contract.preprocess import Preprocessing
from edge_contract.topics import is_name

__all__ = [
    "DTYPES",
    "FORMATS",
    "LAYOUTS",
    "MANIFEST_NAME",
    "ROLES",
    "RUNTIMES",
    "SCHEMA",
    "TASKS",
    "Artefact",
    "BundleFile",
    "Manifest",
    "TensorSpec",
]

SCHEMA = "strop.bundle/1"
MANIFEST_NAME = "manifest.json"
TASKS = ("classification", "detection", "regression", "other", "anomaly", "segmentation")
_NEEDED = {"classification": ("logits",), "detection": ("boxes", "scores")}
"""Roles that a task's answer is made of; the others give every output as it is."""
MAX_MANIFEST_BYTES = 256 * 1024


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
class Manifest:
    """A whole manifest.

    Attributes:
        model: Name of the model, a topic name.
        version: Free text that people read, such as ``1.2.0``.
        task: ``classification``, ``detection``, ``regression``, ``anomaly`` (gives the input again, or a score),
            ``segmentation`` (gives a map of classes) or ``other``.
        preprocess: How raw input becomes model input.
        postprocess: What is done with the outputs: one of ``softmax``, ``sigmoid``, ``argmax``, ``none``, or more in a
            ``Postprocess``.
        labels: Class names in the order of the logits or scores; without "background". May be empty where there are
            no classes.
        artefacts: One model file per runtime and target.
        golden: Path of the golden description (JSON): inputs, and outputs per artefact and runtime.
        profiles: Reference profile's path per artefact path (computed on that artefact's runtime).
        lineage: Digests and facts: recipe, data, code, teacher, accuracy with interval, parent bundle.
        files: Every file of the bundle, sorted by path.
        input_contract: What raw inputs must be, beyond shape and type; None in bundles that do not say.
    """

    model: str
    version: str
    task: str
    preprocess: Preprocessing
    postprocess: str | Postprocess
    labels: tuple[str, ...]
    artefacts: tuple[Artefact, ...]
    golden: str
    profiles: dict[str, str]
    lineage: dict[str, Any]
    files: tuple[BundleFile, ...]
    unrecognized: dict[str, Any] = field(default_factory=dict, compare=False)
    input_contract: InputContract | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, unknown fields included."""
        expected = {} if self.input_contract is None else {"input_contract": self.input_contract.to_json()}
        return {
            **self.unrecognized,
            "schema": SCHEMA,
            "model": self.model,
            "version": self.version,
            "task": self.task,
            "preprocess": self.preprocess.to_json(),
            "postprocess": self.postprocess if isinstance(self.postprocess, str) else self.postprocess.to_json(),
            "labels": list(self.labels),
            "artefacts": [artefact.to_json() for artefact in self.artefacts],
            "golden": self.golden,
            "profiles": dict(self.profiles),
            "lineage": self.lineage,
            "files": [entry.to_json() for entry in self.files],
            **expected,
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

    def artefact_for(self, runtime: str, target: str = "") -> Artefact:
        """Return the first artefact that claims a runtime; the first of them that was made for the target, if any was.

        Raises:
            ManifestError: No artefact claims the runtime.
        """
        able = [artefact for artefact in self.artefacts if runtime in artefact.runtimes]
        if able:
            return next((artefact for artefact in able if artefact.target == target), able[0])
        claimed = sorted({name for artefact in self.artefacts for name in artefact.runtimes})
        where = f"manifest of {self.model} {self.version}"
        raise ManifestError(f"no artefact for runtime '{runtime}'", where=where, fix=f"it has {', '.join(claimed)}")

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Return the manifest in canonical bytes.

        Raises:
            ManifestError: Malformed, of another schema, not canonical, a model name that may not stand in a topic,
                a path that leaves the bundle, a file that stands twice or inside another file, a path that no
                file entry backs, a profile of no artefact, labels that do not fit the logits, or outputs and
                post-processing that do not fit the task.
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
            task=f.text("task", among=TASKS),
            preprocess=inputs.parse(f.object("preprocess"), "manifest.preprocess"),
            postprocess=_postprocess(f, document.get("postprocess")),
            labels=f.texts("labels"),
            artefacts=tuple(
                Artefact.from_json(a, f"manifest.artefacts[{i}]") for i, a in enumerate(f.items("artefacts"))
            ),
            golden=f.text("golden"),
            profiles=profiles,
            lineage=f.object("lineage", {}),
            files=files,
            input_contract=_contract(f, document),
            unrecognized=f.rest(),
        )
        manifest._check_names()
        manifest._check_task()
        manifest._check_paths()
        return manifest

    def _check_names(self) -> None:
        if not is_name(self.model):  # it becomes a folder on the device and a word in URLs
            fix = "use letters, digits, '.', '_' and '-', at most 63"
            raise ManifestError(f"{self.model!r} is not a model name", where="manifest.model", fix=fix)
        for artefact in self.artefacts:
            classes = self._classes(artefact)
            if self.labels and classes not in (None, len(self.labels)):
                what = f"{len(self.labels)} labels for {classes} {self._scored} of {artefact.path!r}"
                raise ManifestError(what, where="manifest.labels")

    @property
    def _scored(self) -> str:
        """The role whose last dimension counts the classes."""
        return "scores" if self.task == "detection" else "logits"

    def _classes(self, artefact: Artefact) -> int | None:
        """Return how many classes an artefact tells apart; None where its shapes do not say."""
        spec = artefact.output(self._scored)
        if spec is None or not spec.shape or artefact.output("classes") is not None:
            return None
        return spec.shape[-1] - answers.of(self.postprocess).background if spec.shape[-1] else None

    def _check_task(self) -> None:
        for i, artefact in enumerate(self.artefacts):
            for role in _NEEDED.get(self.task, ()):
                if artefact.output(role) is None:
                    where = f"manifest.artefacts[{i}].outputs"
                    raise ManifestError(f"no output has the role '{role}'", where=where)
        has_boxes = answers.of(self.postprocess).boxes is not None
        if has_boxes != (self.task == "detection"):
            what = f"task '{self.task}' {'with' if has_boxes else 'without'} boxes"
            fix = "say how boxes are decoded, or use another task" if not has_boxes else "use task 'detection'"
            raise ManifestError(what, where="manifest.postprocess", fix=fix)

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


def _postprocess(fields: Fields, value: Any) -> str | Postprocess:
    """Read a word or an object; which of the two it was is kept, because the bundle's id depends on it."""
    if isinstance(value, Mapping):
        return Postprocess.from_json(fields.object("postprocess"), "manifest.postprocess")
    return fields.text("postprocess", among=answers.POSTPROCESS)


def _contract(fields: Fields, document: Mapping[str, Any]) -> InputContract | None:
    """Read the table that came later: a bundle from before has none, and keeps its id."""
    if "input_contract" not in document:
        return None
    return InputContract.from_json(fields.object("input_contract"), "manifest.input_contract")
