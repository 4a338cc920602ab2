# SPDX-License-Identifier: Apache-2.0
"""The rules file of a fleet server, ``rules.toml``: which conditions a version must meet for a release channel.

::

    [[rule]]
    channel = "production"
    model = "vision-*"
    automatic = true
    accuracy_at_least = 0.915
    [rule.latency_ms_at_most]
    rpi4 = 20.0
"""

import difflib
import fnmatch
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edge_contract.errors import RegistryError
from fleet.core.channels import check_channel

__all__ = ["QUANTILES", "Rule", "read_rules", "rule_for"]

QUANTILES: Final = ("p50", "p90", "p99")


@dataclass(frozen=True)
class Rule:
    """Conditions for one channel; None or empty means that a condition is not asked for.

    Attributes:
        channel: The release channel that is entered.
        model: Shell pattern on model names.
        automatic: A version that meets everything enters the channel by itself.
        accuracy_at_least: Lower end of the 95 % interval, a share.
        accuracy_drop_at_most: Against the version in production, a share.
        other_data: The drop may be taken between accuracies on different data.
        model_bytes_at_most, bundle_bytes_at_most: Size of the largest model file, and of all files.
        parity: Runtimes agree within the bounds of the bundle's ``parity.json``.
        relative_error_at_most: Against the float model, worst of all.
        latency_ms_at_most: Target → milliseconds.
        latency_quantile: Which number of a measurement counts: ``p50``, ``p90`` or ``p99``.
        canary_healthy_hours, canary_devices: In ``canary`` for so long, on so many devices, without trouble.
        approvals: People other than the one who registered it.
        waived: False keeps out a version that ships with waived checks; True and None let it in.
    """

    channel: str
    model: str = "*"
    automatic: bool = False
    accuracy_at_least: float | None = None
    accuracy_drop_at_most: float | None = None
    other_data: bool = False
    model_bytes_at_most: int | None = None
    bundle_bytes_at_most: int | None = None
    parity: bool = False
    relative_error_at_most: float | None = None
    latency_ms_at_most: Mapping[str, float] = field(default_factory=dict)
    latency_quantile: str = "p90"
    canary_healthy_hours: float | None = None
    canary_devices: int = 1
    approvals: int = 0
    waived: bool | None = None

    def to_json(self) -> dict[str, Any]:
        shown = {**vars(self), "latency_ms_at_most": dict(self.latency_ms_at_most)}
        return {key: value for key, value in shown.items() if value not in (None, {})}


def rule_for(rules: Sequence[Rule], model: str, channel: str) -> Rule | None:
    """Return the first rule of a channel whose pattern fits the model.

    Example:
        >>> rules = [Rule("production", "vision-*", approvals=2), Rule("production")]
        >>> rule_for(rules, "vision-1", "production").approvals, rule_for(rules, "audio", "production").approvals
        (2, 0)
    """
    fits = (rule for rule in rules if rule.channel == channel and fnmatch.fnmatchcase(model, rule.model))
    return next(fits, None)


def read_rules(text: str, where: str) -> tuple[Rule, ...]:
    """Return the rules of a file.

    Args:
        text: TOML.
        where: The file's name, for errors.

    Raises:
        RegistryError: Not TOML, an unknown key, or a value of the wrong type or out of range; names file, rule, key.

    Example:
        >>> text = "rule = [{channel = 'production', approval = 2}]"
        >>> read_rules(text, "rules.toml")
        Traceback (most recent call last):
        edge_contract.errors.RegistryError: rules.toml [rule 1]: unknown key 'approval'; write 'approvals'
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RegistryError(f"not TOML: {error}", where=where, fix="see 'strop fleet rules show'") from error
    stray = next((key for key in document if key != "rule"), None)
    tables = document.get("rule", [])
    if stray is not None or not isinstance(tables, list):
        fix = "write each rule as a table [[rule]]"
        raise RegistryError(f"unknown key '{stray or 'rule'}'", where=where, fix=fix)
    return tuple(_rule(table, f"{where} [rule {i}]") for i, table in enumerate(tables, 1))


def _rule(table: Any, where: str) -> Rule:
    if not isinstance(table, Mapping):
        raise RegistryError("not a table", where=where, fix="write [[rule]] and its keys below")
    for key, value in table.items():
        check = _KEYS.get(key)
        if check is None:
            near = difflib.get_close_matches(key, _KEYS, 1)
            fix = f"write '{near[0]}'" if near else f"use one of {', '.join(_KEYS)}"
            raise RegistryError(f"unknown key '{key[:60]}'", where=where, fix=fix)
        if not check[0](value):
            raise RegistryError(f"{key} = {str(value)[:60]!r}", where=where, fix=f"give {check[1]}")
    if "channel" not in table:
        raise RegistryError("key 'channel' is missing", where=where, fix='write channel = "production"')
    given: dict[str, Any] = {key: float(value) if key in _REALS else value for key, value in table.items()}
    return Rule(**given)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_channel(value: Any) -> bool:
    try:
        return isinstance(value, str) and check_channel(value) == value
    except RegistryError:
        return False


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 120


def _are_latencies(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_is_positive(item) for item in value.values())


_SHARE = (_is_share, "a share between 0 and 1, such as 0.915")
_COUNT = (_is_count, "a whole number, 0 or more")
_FLAG = (_is_flag, "true or false")
_KEYS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "channel": (_is_channel, "a channel: small letters, digits and '-'"),
    "model": (_is_text, "a pattern on model names, such as 'vision-*'"),
    "automatic": _FLAG,
    "accuracy_at_least": _SHARE,
    "accuracy_drop_at_most": _SHARE,
    "other_data": _FLAG,
    "model_bytes_at_most": _COUNT,
    "bundle_bytes_at_most": _COUNT,
    "parity": _FLAG,
    "relative_error_at_most": (_is_positive, "a positive number"),
    "latency_ms_at_most": (_are_latencies, "a table of target = milliseconds"),
    "latency_quantile": (lambda value: value in QUANTILES, f"one of {', '.join(QUANTILES)}"),
    "canary_healthy_hours": (_is_positive, "a positive number of hours"),
    "canary_devices": _COUNT,
    "approvals": _COUNT,
    "waived": _FLAG,
}
_REALS: Final = ("accuracy_at_least", "accuracy_drop_at_most", "relative_error_at_most", "canary_healthy_hours")
