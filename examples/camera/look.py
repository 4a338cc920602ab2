# SPDX-License-Identifier: Apache-2.0
"""Say what a camera sees, whenever it sees something else: ``python -m examples.camera.look MODEL FRAMES``.

MODEL is the name of the agent's model on this device, or a bundle's folder with a slash in its path. FRAMES is the
number of a camera, a video file, or pictures in a folder such as ``pictures/%03d.jpg``: OpenCV reads them all.
"""

import sys
import time

import cv2

import edge_agent
from edge_contract.errors import DataError


def main(model_name: str, frames: str) -> None:
    camera = cv2.VideoCapture(int(frames) if frames.isdigit() else frames)
    seen = ""
    with edge_agent.Model.open(model_name, hear=lambda event: print(event, file=sys.stderr)) as model:
        while True:
            is_there, picture = camera.read()
            if not is_there:
                break
            try:
                answer = model.infer(picture[..., ::-1], taken_at=time.monotonic())  # OpenCV gives blue first
            except DataError as error:  # a dark, frozen or foreign picture: counted, and nothing to say of it
                print(error, file=sys.stderr)
                continue
            label = model.labels[answer.cls] if answer.is_sure else "?"
            if label != seen:
                print(f"{label} ({answer.confidence:.0%}, {model.version})", flush=True)
            seen = label


if __name__ == "__main__":
    main(*sys.argv[1:])
