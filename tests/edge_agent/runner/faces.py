# SPDX-License-Identifier: Apache-2.0
"""MediaPipe's short-range face detector and basic-pitch as bundles: what their authors' graphs say, in our words."""

from pathlib import Path

import numpy as np

from edge_agent.runner import golden
from edge_agent.runner.model import Description, Model
from edge_contract.artefact import Artefact, TensorSpec
from edge_contract.audio import Audio
from edge_contract.boxes import AnchorLayer, Anchors, Boxes, Suppression
from edge_contract.postprocess import Postprocess
from edge_contract.preprocess import Preprocess
from tests.edge_agent.runner import bundles
from tests.zoo import third_party

ONE = (1.0, 1.0)
ANCHORS = Anchors((AnchorLayer(8, (ONE,) * 2), AnchorLayer(16, (ONE,) * 6)))
POSTPROCESS = Postprocess(
    "sigmoid",
    threshold=0.5,
    boxes=Boxes("xywh", (128.0,) * 4, ANCHORS, keypoints=6),
    suppression=Suppression(iou=0.3, most=10),
)
PREPROCESS = Preprocess("rgb", (128, 128), mean=(127.5,), std=(127.5,), method="bilinear-antialias", fit="letterbox")


def _float(name: str, role: str, shape: tuple[int, ...], layout: str) -> TensorSpec:
    return TensorSpec(name, role, shape, "float32", layout)


def face_file() -> tuple[Path, Description]:
    """Return the detector's file and its description; skips the test where it was not fetched."""
    path = third_party.path("mediapipe", "face_detection_short_range.tflite")
    outputs = (
        _float("regressors", "boxes", (1, 896, 16), "NC"),
        _float("classificators", "scores", (1, 896, 1), "NC"),
    )
    source = _float("input", "input", (1, 128, 128, 3), "NHWC")
    artefact = Artefact(path.name, "tflite", ("litert",), "rpi4", "float32", "", source, outputs)
    return path, Description(artefact, PREPROCESS, POSTPROCESS, ("face",), task="detection")


def face_model() -> Model:
    path, description = face_file()
    return Model.load(path, description, runtime="litert")


def pitch_model() -> Model:
    """Return basic-pitch: 43 844 samples at 22 050 Hz → three maps of 172 frames."""
    path = third_party.path("basic-pitch", "nmp.tflite")
    source = _float("serving_default_input_2:0", "input", (1, 43844, 1), "NWC")
    widths = {"StatefulPartitionedCall:0": 264, "StatefulPartitionedCall:1": 88, "StatefulPartitionedCall:2": 88}
    outputs = tuple(_float(name, "output", (1, 172, width), "NC") for name, width in widths.items())
    artefact = Artefact(path.name, "tflite", ("litert",), "rpi4", "float32", "", source, outputs)
    description = Description(artefact, Audio(22050, 43844, 43844), "none", (), task="other")
    return Model.load(path, description, runtime="litert")


def bundle(folder: Path, model: Model, path: Path, raw: np.ndarray) -> Path:
    """Write a bundle around a float model, with its own answers as golden outputs."""
    (folder / "golden").mkdir(parents=True)
    (folder / path.name).write_bytes(path.read_bytes())
    answers = [np.concatenate([code.reshape(-1) for code in model.predict(one).codes.values()]) for one in raw]
    np.save(folder / "golden/inputs.npy", raw)
    np.save(folder / "golden/logits.npy", np.array(answers, np.float32))
    bundles.write_golden(folder, [golden.record(model, raw)], tolerance=1e-3)
    described = model.description
    return bundles.seal(
        folder,
        [described.artefact],
        version="1.0.0",
        labels=described.labels,
        task=described.task,
        preprocess=described.preprocess,
        postprocess=described.postprocess,
    )
