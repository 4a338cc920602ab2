# SPDX-License-Identifier: Apache-2.0
"""Small models of every task over arithmetic that a reader can follow, in the device's own ``Model``."""

import numpy as np

from edge_agent.runner.model import Description, Model
from edge_agent.runner.task_counts import TaskObserver, telling
from edge_contract.artefact import Artefact, TensorSpec
from edge_contract.boxes import Boxes
from edge_contract.postprocess import Postprocess
from edge_contract.preprocess import Preprocess
from edge_contract.series import Series
from edge_contract.summary import DriftSummary

SIDE = 8
PIXELS = SIDE * SIDE
_WEIGHTS = np.random.default_rng(1).normal(size=(PIXELS, 12)) / SIDE
_BASIS = np.linalg.qr(np.random.default_rng(2).normal(size=(PIXELS, 20)))[0]
MANIFEST_TASKS = {"detect": "detection", "regress": "regression", "anomaly": "anomaly", "segment": "segmentation"}


class Arithmetic:
    """A session whose model is a function of the input [1, …]."""

    room, runtime, version, delegate = None, "arithmetic", "1", "cpu"

    def __init__(self, function):
        self.run = function


def spec(name, role, shape, layout="NC", dtype="float32", scale=0.0, zero=0):
    return TensorSpec(name, role, shape, dtype, layout, scale, zero)


IMAGE = spec("x", "input", (1, SIDE, SIDE, 1), "NHWC")


def make(task, outputs, function, labels=(), *, source=IMAGE, preprocess=None, postprocess="none"):
    artefact = Artefact("m", "onnx", ("onnxruntime",), "t", "float32", "", source, outputs)
    description = Description(artefact, preprocess or Preprocess(scale=1 / 255), postprocess, labels, task=task)
    return Model(Arithmetic(function), description)


def _detector():
    def answer(x):
        grey = x[0, ..., 0]
        boxes = np.zeros((1, SIDE, 4), np.float32)
        boxes[0, :, 2:] = 0.1 + 0.4 * grey[4, :, None]
        cats = np.minimum(grey[0], grey[1])
        return {"b": boxes, "s": np.stack([cats, grey[2] * grey[3]], -1)[None].astype(np.float32)}

    outputs = (spec("b", "boxes", (1, SIDE, 4)), spec("s", "scores", (1, SIDE, 2)))
    return make("detection", outputs, answer, ("cat", "dog"), postprocess=Postprocess("none", 0.5, boxes=Boxes("xyxy")))


def regression(outputs=3):
    weights = _WEIGHTS[:, :outputs]
    shown = (spec("y", "output", (1, outputs)),)
    return make("regression", shown, lambda x: {"y": (x.reshape(1, -1) @ weights).astype(np.float32)})


def _anomaly():
    keep = _BASIS @ _BASIS.T
    shown = (spec("y", "output", IMAGE.shape, "NHWC"),)
    return make("anomaly", shown, lambda x: {"y": (x.reshape(1, -1) @ keep).reshape(x.shape).astype(np.float32)})


def _segmentation():
    def answer(x):
        grey = x[0, ..., 0] - 0.5
        return {"y": (6 * np.stack([grey, -grey, 0.5 - np.abs(grey)], -1))[None].astype(np.float32)}

    shown = (spec("y", "output", (1, SIDE, SIDE, 3), "NHWC"),)
    return make("segmentation", shown, answer, ("sky", "road", "tree"))


def series_model(sensors=3, length=20):
    source = spec("x", "input", (1, length, sensors), "NWC")
    shown = (spec("y", "output", (1, 1)),)
    answer = lambda x: {"y": x.reshape(1, -1)[:, :1].astype(np.float32)}  # noqa: E731
    return make("regression", shown, answer, source=source, preprocess=Series(sensors, length, length))


MODELS = {"detect": _detector, "regress": regression, "anomaly": _anomaly, "segment": _segmentation}


def images(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)


def count(model, profile, raw, **how):
    """Return the counters of raw inputs, as the runner counts them."""
    observer, tell = TaskObserver(profile, **how), telling(model, profile)
    for one in raw:
        observer.see(one)
        observer.take(tell(one, model.predict(one)), one, 1000.0)
    return observer.counters()


def summary(profile, counters, window=1):
    return DriftSummary("11" * 8, "22" * 16, profile.crc, "33" * 4, window, 1_700_000_000_000, 60_000, counters)
