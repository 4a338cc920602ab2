# SPDX-License-Identifier: Apache-2.0
"""No model answers a real input before it proved itself: opened, of the right id, and through its golden inputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.runner import golden
from edge_agent.runner.commands import Load
from edge_agent.runner.model import Model
from edge_agent.runner.watchdog import Watchdog
from edge_contract.errors import BundleError, ProfileError, StropError
from edge_contract.profile import ReferenceProfile
from edge_contract.tasks import task_of

__all__ = ["Settings", "load_failed", "loaded", "proved", "reference", "words"]


@dataclass(frozen=True)
class Settings:
    """How a runner was started.

    Attributes:
        runtime: Name of the runtime.
        counters: Counter file to write; None counts nothing.
        threads: For one inference.
        target: Of several artefacts, the one for this target is taken.
        cache: Most answers in the result cache; 0 for none.
        delegate: As ``open_session`` takes it.
        sample_hz: Inferences a second that are counted, at random moments, unless the source says otherwise; 0: all.
    """

    runtime: str
    counters: Path | None
    threads: int = 1
    target: str = ""
    cache: int = 0
    delegate: str = ""
    sample_hz: float = 0.0


def proved(command: Load, settings: Settings, dog: Watchdog | None = None) -> tuple[Model, golden.GoldenResult]:
    """Return a model that passed its golden self-test, and how; ``dog`` watches each of its inferences from now on.

    Raises:
        BundleError: Another bundle than the folder's name says, or the self-test failed; else as ``Model.open`` raises.
    """
    how = {"threads": settings.threads, "target": settings.target, "delegate": settings.delegate}
    model = Model.open(command.folder, runtime=settings.runtime, **how)  # type: ignore[arg-type]  # mixed on purpose
    if dog is not None:
        model.watch(dog.watched)
    if command.expected not in ("", model.bundle):
        what = f"the folder holds bundle {model.bundle[:12]}…, not the one that it is named by"
        raise BundleError(what, where=str(command.folder))
    tested = golden.check(model)
    if not tested.is_ok:
        raise BundleError(f"golden self-test failed: {tested.detail}", where=str(command.folder))
    return model, tested


def reference(model: Model) -> ReferenceProfile:
    """Return the model's reference profile, or a blank one; it must fit what the model gives.

    Raises:
        ProfileError: It is of other classes, or of another embedding.
    """
    task = task_of(model.task)
    labels = model.labels if model.has_logits else ("any",)  # one class for all answers: its channels stand still
    profile = model.contents.profile(model.artefact.path) if model.contents is not None else None
    if profile is None:
        return ReferenceProfile.blank(labels, task)
    if profile.task != task:
        what = f"the reference profile is of task '{profile.task}', the model's is '{task}'"
        raise ProfileError(what, where=model.artefact.path)
    if profile.labels != labels:
        raise ProfileError("the reference profile has other classes than the manifest", where=model.artefact.path)
    wanted, given = profile.projection, model.dimensions
    if wanted.source in ("embedding", "logits") and wanted.dimension != given.get(wanted.source, 0):
        what = f"the reference profile wants {wanted.dimension} values of the {wanted.source}, the artefact has {given}"
        raise ProfileError(what, where=model.artefact.path)
    return profile


def words(error: Exception) -> str:
    r"""Return one line: our own errors speak for themselves, foreign ones with their class.

    Example:
        >>> words(ValueError("two\nlines"))
        'ValueError: two lines'
    """
    text = str(error) if isinstance(error, StropError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]


def loaded(role: str, model: Model, how: str, spent_s: float) -> dict[str, Any]:
    """Return the event that says that a model holds a role."""
    facts = {"role": role, "bundle": model.bundle, "version": model.version, "golden": how}
    return {"event": "loaded", **facts, "delegate": model.session.delegate, "load_ms": round(spent_s * 1000, 1)}


def load_failed(command: Load, error: Exception) -> dict[str, Any]:
    """Return the event that says that it does not, and why; what held it before goes on."""
    return {"event": "load_failed", "role": command.role, "bundle": command.name, "reason": words(error)}
