# SPDX-License-Identifier: Apache-2.0
"""Every output of many artefacts by the runner's own path: ``python -m tests.machines.answers JOBS.json``.

One process for all, because each start of an emulated Python costs two seconds.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner.runtimes import open_session
from edge_agent.runner.tensors import encode, signed
from edge_contract import canonical
from edge_contract.manifest import Artefact

__all__ = ["answers", "main"]

Codes = dict[str, NDArray[np.int8]]


def answers(path: Path, artefact: Artefact, runtime: str, inputs: NDArray[np.float32]) -> tuple[dict[str, str], Codes]:
    """Return who computed, and name → signed codes [N, ...] of each output, for float32 inputs [N, h, w, c]."""
    session = open_session(path, artefact, runtime)
    encoded = encode(artefact.input, inputs)
    rows = [session.run(encoded[i : i + 1]) for i in range(len(encoded))]
    codes = {spec.name: np.concatenate([signed(row[spec.name]) for row in rows]) for spec in artefact.outputs}
    return {"runtime": runtime, "version": session.version, "delegate": session.delegate}, codes


def _run(job: Mapping[str, Any]) -> dict[str, str]:
    artefact = Artefact.from_json(job["artefact"], "artefact")
    facts, codes = answers(Path(job["path"]), artefact, job["runtime"], np.load(job["inputs"]))
    np.savez(job["outputs"], **codes)  # type: ignore[arg-type]  # its stub takes every keyword for allow_pickle
    return facts


def main(jobs: Path) -> None:
    """Run the jobs of a file in their order; print one JSON line for each."""
    for job in canonical.loads(jobs.read_bytes(), where=str(jobs)):
        print(json.dumps(_run(job)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
