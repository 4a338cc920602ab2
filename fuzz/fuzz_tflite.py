# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing of everything that reads TFLite files of strangers: see README.md beside this file.

Raw bytes by default; with ``--lying`` the bytes steer tests/support/hostile.py, which writes whole files with wrong
fields, and so gets past the reader's first checks.
"""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
with atheris.instrument_imports(include=["export", "edge_contract"]):
    from edge_contract import targets
    from edge_contract.errors import StropError
    from export.edgetpu import preflight
    from export.inspection import tflite
    from export.memory import prediction
    from export.normalise.normaliser import normalise
    from export.tflite.reader import read
    from export.tflite.walk import decode
    from tests.support import trap_files

PI = targets.load("rpi4")


def consumers() -> dict[str, Callable[[bytes], object]]:
    """Whoever is given a stranger's bytes: an answer or a StropError, nothing else."""
    return {
        "describe": lambda data: tflite.facts(read(data, "fuzz")),
        "memory": lambda data: prediction.predict(read(data, "fuzz")),
        "edgetpu": lambda data: preflight.check(read(data, "fuzz")),
        "normalise": lambda data: normalise(data, where="fuzz", target=PI),
    }


def one(data: bytes) -> None:
    """Give one input to every consumer; normalised files must be readable and stay as they are."""
    for name, consume in consumers().items():
        try:
            answer = consume(data)
        except StropError:
            continue
        if name == "normalise":
            once = answer.data  # type: ignore[attr-defined]
            again = normalise(once, where="fuzz", target=PI).data
            if again != once:
                raise AssertionError("normalising twice changed the file")


def seeds() -> list[bytes]:
    """Small files with every trap."""
    files = [trap_files.padded(), trap_files.swish_net(size=4), trap_files.dense_per_channel(signature=True)]
    files += [trap_files.dynamic(kind) for kind in ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")]
    return [case.data for case in files] + [trap_files.outside(files[0].data)]


def lying() -> Callable[[bytes], object]:
    """Let Hypothesis turn the fuzzer's bytes into files with wrong fields."""
    from hypothesis import HealthCheck, given, settings

    from tests.support import hostile

    trees = [decode(data, "seed")[0] for data in seeds()]
    quiet = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
    judged = quiet(given(hostile.lying(trees))(one))
    return judged.hypothesis.fuzz_one_input  # type: ignore[attr-defined, no-any-return]


def choices() -> list[bytes]:
    """Bytes that are long enough to steer Hypothesis through a few edits."""
    return [hashlib.shake_256(b"%d" % seed).digest(1024) for seed in range(64)]


def main() -> None:
    """Write the seeds into the corpus folder, which is the first argument that is no option, and fuzz."""
    arguments = [word for word in sys.argv if word != "--lying"]
    is_lying = len(arguments) < len(sys.argv)
    folders = [word for word in arguments[1:] if not word.startswith("-") and not Path(word).is_file()]
    for index, data in enumerate(choices() if is_lying else seeds()):
        for folder in folders[:1]:
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / f"seed-{index}").write_bytes(data)
    atheris.Setup(arguments, lying() if is_lying else one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
