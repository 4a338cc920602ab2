# SPDX-License-Identifier: Apache-2.0
"""When a rollout needs a second person: ``rollouts.toml`` of the data folder says so.

needs_approval = false      # true: each rollout
above_devices = 100         # those to more devices than this
models = ["brakes"]         # those of these models
"""

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from edge_contract.errors import ContractError, RolloutError
from edge_contract.fields import Fields

__all__ = ["ApprovalRules"]


@dataclass(frozen=True)
class ApprovalRules:
    """Which rollouts wait for somebody other than their author; -1: their size does not matter."""

    always: bool = False
    above_devices: int = -1
    models: tuple[str, ...] = ()

    def ask(self, model: str, devices: Collection[str]) -> bool:
        """Return whether a rollout of a model to these devices needs approval.

        Example:
            >>> ApprovalRules(above_devices=1).ask("digits", ["a"]), ApprovalRules(models=("digits",)).ask("digits", [])
            (False, True)
        """
        is_large = 0 <= self.above_devices < len(devices)
        return self.always or is_large or model in self.models

    def to_json(self) -> dict[str, Any]:
        return {"needs_approval": self.always, "above_devices": self.above_devices, "models": list(self.models)}

    @classmethod
    def from_toml(cls, text: str, where: str) -> "ApprovalRules":
        """Return the rules of a file.

        Raises:
            RolloutError: No TOML, an unknown key, or a value of the wrong type; it names file and key.
        """
        try:
            f = Fields(tomllib.loads(text), where, ContractError)
            rules = cls(
                f.flag("needs_approval", default=False),
                f.integer("above_devices", -1, minimum=0),
                f.texts("models", []),
            )
            if rest := sorted(f.rest()):
                fix = "use needs_approval, above_devices, models"
                raise RolloutError(f"unknown key '{rest[0]}'", where=where, fix=fix)
        except tomllib.TOMLDecodeError as error:
            raise RolloutError(f"no TOML: {error}", where=where) from error
        except ContractError as error:
            raise RolloutError(error.what, where=error.where, fix=error.fix) from error
        return rules
