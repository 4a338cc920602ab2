# SPDX-License-Identifier: Apache-2.0
"""Teams in the TUF repository: which one signed, for which models its signature is good, what devices may trust of it.

The fleet's targets delegate ``models/<pattern>/*`` to a team's key; ``edge_contract.delegations`` has the names.
"""

from collections.abc import Mapping
from typing import Any

from tuf.api.metadata import Metadata, Targets

from edge_contract import delegations
from edge_contract.errors import SignatureError
from fleet.adapters.tuf_checks import parse, refuse_expired, teams_of, verify

__all__ = ["checked_team", "signer_of", "teams_shown", "trusted", "vouched"]

Teams = Mapping[str, Metadata[Targets]]


def checked_team(data: bytes, name: str, judge: Targets, published: int, now: float) -> Metadata[Targets]:
    """Return a team's targets that may follow version ``published`` (0: none yet).

    Args:
        data: The team's metadata.
        name: The team.
        judge: The fleet's targets, which delegate to it.
        published: Version that devices see now.
        now: Seconds since 1970.

    Raises:
        SignatureError: Not signed by the team's key, not newer, expired, or naming a file that the team may not sign.
    """
    where = f"{name}.json"
    found = parse(Targets, data, where)
    verify(judge, name, found, where)
    if found.signed.version <= published:
        fix = "sign again, starting from the published one"
        raise SignatureError(f"version {found.signed.version} is not newer than {published}", where=where, fix=fix)
    refuse_expired(found.signed, now, where)
    if found.signed.delegations is not None:
        raise SignatureError("a team cannot delegate further", where=where)
    role = teams_of(judge)[name]
    for path, target in found.signed.targets.items():
        said = delegations.split(path)
        if said is None or said[1] != target.hashes.get("sha256"):
            raise SignatureError(f"target '{path[:80]}' is not models/<model>/<its SHA-256>", where=where)
        if not delegations.may_sign(role.paths or [], said[0]):
            fix = "let the team that has this model sign it, or the fleet's own keys"
            raise SignatureError(f"team '{name}' may not sign model '{said[0]}'", where=where, fix=fix)
    return found


def signer_of(targets: Targets, data: bytes) -> str:
    """Return the team that signed these bytes by the keys that targets name; empty if none of them did."""
    return next((team for team in teams_of(targets) if _has_signed(targets, team, data)), "")


def _has_signed(targets: Targets, team: str, data: bytes) -> bool:
    try:
        verify(targets, team, parse(Targets, data, team), team)
    except SignatureError:
        return False
    return True


def trusted(targets: Targets | None, teams: Teams) -> dict[str, Metadata[Targets]]:
    """Return the published metadata that the key which the present targets name has signed."""
    if targets is None:
        return {}
    named = teams_of(targets)
    return {team: one for team, one in teams.items() if team in named and _has_signed(targets, team, one.to_bytes())}


def vouched(targets: Targets | None, teams: Teams) -> frozenset[str]:
    """Return the SHA-256 of every file that the fleet or a team has signed and may sign."""
    names = {path.removeprefix("blobs/") for path in targets.targets} if targets else set[str]()
    roles = teams_of(targets)
    for team, one in trusted(targets, teams).items():
        said = filter(None, map(delegations.split, one.signed.targets))
        names |= {sha256 for model, sha256 in said if delegations.may_sign(roles[team].paths or [], model)}
    return frozenset(names)


def teams_shown(targets: Targets | None, teams: Teams) -> dict[str, Any]:
    """Return for people what each team may sign, and what of it is published."""
    known = trusted(targets, teams)
    return {
        team: {
            "models": [str(path).split("/")[1] for path in role.paths or []],
            "version": known[team].signed.version if team in known else 0,
            "expires": known[team].signed.expires.timestamp() if team in known else 0,
        }
        for team, role in teams_of(targets).items()
    }
