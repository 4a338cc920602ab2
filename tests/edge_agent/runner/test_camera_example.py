# SPDX-License-Identifier: Apache-2.0
"""The camera program of examples/camera runs: on a video file, on pictures in a folder, and over an agent's slots."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_agent.counters import CounterFile
from edge_agent.embedding import counters_path
from edge_agent.runner import golden
from edge_agent.runner.model import Description, Model
from edge_contract.manifest import MANIFEST_NAME, Manifest
from edge_contract.preprocess import Preprocess
from tests.edge_agent.runner import bundles, tiny
from tests.support.agent_process import install

cv2 = pytest.importorskip("cv2", reason="pip install opencv-python-headless")
ROOT = Path(__file__).resolve().parents[3]
PREPROCESS = Preprocess(resize=(tiny.SIDE, tiny.SIDE), scale=1 / 255)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The tiny classifier behind a resize, so that it takes pictures of any size."""
    folder = tmp_path_factory.mktemp("camera") / "bundle"
    (folder / "golden").mkdir(parents=True)
    artefact = tiny.write_tflite(tiny.make(2), folder / "model.tflite")
    model = Model.load(
        folder / "model.tflite", Description(artefact, PREPROCESS, "softmax", bundles.LABELS), runtime="litert"
    )
    raw = tiny.images(12, seed=9)
    np.save(folder / "golden/inputs.npy", raw)
    np.save(folder / "golden/logits.npy", np.array([model.infer(one).codes["logits"] for one in raw], np.int16))
    bundles.write_golden(folder, [golden.record(model, raw)])
    bundles.seal(folder, [artefact], version="1.0.0", preprocess=PREPROCESS)
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A film of thirty pictures, each shown for two frames, 64 × 48."""
    path = tmp_path_factory.mktemp("camera") / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for picture in np.repeat(tiny.images(30, seed=5), 2, axis=0):
        writer.write(cv2.cvtColor(cv2.resize(picture, (64, 48)), cv2.COLOR_GRAY2BGR))
    writer.release()
    return path


def look(*words, data=None):
    command = [sys.executable, "-m", "examples.camera.look", *map(str, words)]
    env = {"PATH": "/usr/bin:/bin", "STROP_DATA": str(data or "")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def expected(bundle, video):
    """What the same frames give without the program."""
    model, film, said = Model.open(bundle, runtime="litert"), cv2.VideoCapture(str(video)), []
    while True:
        is_there, picture = film.read()
        if not is_there:
            return [label for at, label in enumerate(said) if at == 0 or said[at - 1] != label]
        said.append(model.labels[model.infer(np.ascontiguousarray(picture[..., ::-1])).cls])


def test_it_says_what_a_film_shows_by_a_bundle_s_folder(bundle, video):
    said = look(f"{bundle}/", video)
    assert [line.split()[0] for line in said] == expected(bundle, video)
    assert len(said) > 3
    assert all(re.fullmatch(r"\w+ \(\d+%, 1\.0\.0\)", line) for line in said)


def test_it_counts_what_it_sees_by_the_agent_s_model(bundle, tmp_path):
    """Pictures in a folder, and a data folder as an agent keeps it."""
    (tmp_path / "agent.toml").write_text(
        'device = "pi"\nruntime = "litert"\nrunner = "embedded"\nmodel = "compass"\n', encoding="utf-8"
    )
    install(tmp_path, bundle)
    for i, picture in enumerate(tiny.images(7, seed=6)):
        cv2.imwrite(str(tmp_path / f"{i:03}.png"), picture)
    assert look("compass", tmp_path / "%03d.png", data=tmp_path)
    reading = CounterFile(counters_path(tmp_path, "compass")).read()
    assert reading.counters.n_infer == 7
    assert reading.bundle == Manifest.from_bytes((bundle / MANIFEST_NAME).read_bytes()).bundle_id


def test_it_is_about_twenty_lines():
    code = (ROOT / "examples/camera/look.py").read_text(encoding="utf-8")
    body = code[code.index("def main") : code.index("if __name__")]
    assert len([line for line in body.splitlines() if line.strip()]) <= 20
