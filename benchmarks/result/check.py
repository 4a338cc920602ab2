# SPDX-License-Identifier: Apache-2.0
"""Compute every figure of a result again from its raw samples, and name each one that they do not support."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.result.build import figures
from benchmarks.result.raw import measurement_of
from benchmarks.result.schema import Result
from benchmarks.result.store import samples_of, to_json
from edge_contract.errors import MeasurementError

__all__ = ["check", "differences"]

_TOLERANCE: Final = 1e-5
"""Relative: the last of seven digits may differ between two machines' arithmetic."""
_RECOMPUTED: Final = (
    "status", "reasons", "device", "runtime", "env", "scenario", "counts", "latency_us", "throughput_ips", "cold",
    "variance", "memory", "timer_ns", "golden", "sustained",
)  # fmt: skip


def check(path: Path, result: Result) -> None:
    """Refuse a result with a figure that its raw samples do not give.

    Raises:
        MeasurementError: A figure differs, or there are no samples to compute it from.
        ContractError: The samples are not those that the result names.
    """
    if result.status == "correctness" and not result.latency_us:
        return  # claims no time, so there is none to support
    data = samples_of(path, result)
    if data is None or result.raw is None:
        what = f"no raw samples ({result.raw.file} is not there)" if result.raw else "no raw samples"
        fix = "copy them beside the result, or measure again"
        raise MeasurementError(f"{what}, so no figure can be computed again", where=path.name, fix=fix)
    measurement = measurement_of(result.record, result.raw, data, path.name)
    again = figures(measurement, result.quality, result.artifact, result.id)
    first, second = to_json(result), to_json(again)
    wrong = [line for key in _RECOMPUTED for line in differences(first.get(key), second.get(key), key)]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        what = f"figures that the raw samples do not give: {'; '.join(wrong[:3])}{more}"
        raise MeasurementError(what, where=path.name, fix="measure again, and leave the file as it is written")


def differences(said: Any, found: Any, path: str) -> Iterator[str]:
    """Yield where two JSON values differ by more than arithmetic does.

    Example:
        >>> list(differences({"p50": 10.0, "n": 3}, {"p50": 12.5, "n": 3}, "invoke"))
        ['invoke.p50 says 10.0, they give 12.5']
    """
    if isinstance(said, dict) and isinstance(found, dict):
        for key in [*said, *(key for key in found if key not in said)]:
            yield from differences(said.get(key), found.get(key), f"{path}.{key}")
    elif isinstance(said, list) and isinstance(found, list) and len(said) == len(found):
        for i, (one, other) in enumerate(zip(said, found, strict=True)):
            yield from differences(one, other, f"{path}[{i}]")
    elif _are_numbers(said, found):
        if abs(said - found) > _TOLERANCE * max(abs(said), abs(found)):
            yield f"{path} says {said}, they give {found}"
    elif said != found:
        yield f"{path} says {_brief(said)}, they give {_brief(found)}"


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in values)


def _brief(value: Any) -> str:
    return "nothing" if value is None else f"{value}"[:60]
