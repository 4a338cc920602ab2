# SPDX-License-Identifier: Apache-2.0
"""Answer a file of raw images once: what ``strop agent predict`` does."""

from pathlib import Path
from typing import Any

from edge_contract.errors import DataError, MissingDependencyError, SlotError, UsageError

__all__ = ["answers"]


def _folder(data: Path | None, bundle: Path | None, runtime: str) -> tuple[Path, str, str]:
    """Return the bundle's folder, the runtime, and its delegate.

    Raises:
        UsageError: Neither or both were named.
        SlotError: The data folder has no active model.
    """
    from edge_agent.adapters.slots import SlotStore
    from edge_agent.config import load

    if (data is None) == (bundle is None):
        raise UsageError("name either --data or --bundle")
    if bundle is not None:
        return bundle, runtime, ""
    assert data is not None
    config, store = load(data), SlotStore(data / "models")
    for model in [lane.model for lane in config.lanes if lane.model] or store.models():
        active = store.read(model).active
        if active:
            own = config.lane(model)
            return store.folder(model, active), own.runtime, own.delegate
    raise SlotError(
        "there is no active model", where=str(data), fix="roll a bundle out to this device, or use --bundle"
    )


def answers(file: Path, *, data: Path | None, bundle: Path | None, runtime: str) -> list[dict[str, Any]]:
    """Return one answer per raw input: index and latency, and of a classifier class, label and confidence.

    Raises:
        DataError: The file is no array of images.
        UsageError, SlotError, BundleError, RuntimeAdapterError: As the words and the bundle deserve.
    """
    folder, runtime, delegate = _folder(data, bundle, runtime)
    try:
        import numpy as np
    except ImportError as error:
        raise MissingDependencyError("numpy is not installed", fix="pip install 'strop[agent-litert]'") from error
    from edge_agent import Model
    from edge_agent.runner.answers import facts
    from edge_agent.runner.preprocess import is_single

    try:
        raw = np.load(file, allow_pickle=False)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(file), fix="give an .npy file") from error
    except (ValueError, EOFError) as error:  # numpy's own words advise to unpickle it, which we never would
        raise DataError("not an .npy file of numbers", where=str(file), fix="save it with numpy.save") from error
    model = Model.open(folder, runtime=runtime, delegate=delegate)
    rows = raw[None] if is_single(model.description.preprocess, raw) else raw
    return [{"index": i, **facts(model.predict(one), model.labels)} for i, one in enumerate(rows)]
