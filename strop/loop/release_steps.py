# SPDX-License-Identifier: Apache-2.0
"""The loop's end: shadow and canary, the promotion rules, everybody, a look at the healed devices, the signal."""

from collections import Counter
from typing import Any, Final

from edge_contract.errors import RegistryError, RolloutError
from edge_contract.states import RolloutState
from fleet.client import FleetClient
from fleet.core.wave_words import wave_of
from strop.loop.work import Work

__all__ = ["canary", "close", "promote", "rollout", "started", "verify"]

_WAITS: Final = frozenset({"canary_healthy_hours", "canary_devices", "approvals", "latency_ms_at_most"})
"""Conditions of a promotion rule that time or people can still meet."""
_UNDER_WAY: Final = frozenset(
    state.value
    for state in RolloutState
    if state not in (RolloutState.COMPLETED, RolloutState.ABORTED, RolloutState.DENIED, RolloutState.ROLLED_BACK)
)
_MOST_SHADOWS: Final = 5
_SHARE_OF_HEALTHY: Final = 0.8


def canary(work: Work) -> str:
    """Try the bundle beside the active model, then on the canaries; at the end it stands in the channel ``canary``.

    Raises:
        RolloutError: A gate stopped it, a person did, or it did not end in time.
    """
    wishes, plan = work.config.rollout, dict(work.config.rollout.plan)
    if "waves" not in work.run.facts("canary"):
        cohort = work.server.do(lambda client: _cohort(work, client))
        shadow, is_healthy = _shadow(wishes.shadow, cohort)
        trial = {"min_agreement": _SHARE_OF_HEALTHY if is_healthy else 0.0, **plan.get("trial", {})}
        waves = [*shadow, {**_chosen(wishes.canary, cohort, most=1), "name": "canary"}]
        work.run.note("canary", waves=waves, trial=trial)
    facts = work.run.facts("canary")
    more = {"channel": "canary", "shadow": facts["trial"]}
    return _rolled_out(work, "canary", facts["waves"], more)


def _cohort(work: Work, client: FleetClient) -> dict[str, list[str]]:
    """Return the devices that run the parent: those of the signal, and the others."""
    parent, signal = work.run.lineage["parent"], client.call("GET", work.signal_path())
    known = next((one for one in client.call("GET", "/models") if one["bundle"] == parent), None)
    running = sorted(known["running_on"]) if known else []
    drifted = [name for name in signal["consenting"] if name in running]
    drifted += [name for name in signal["running"] if name not in drifted]
    healthy = [name for name in running if name not in signal["signal"]["devices"]]
    return {"drifted": drifted, "healthy": healthy}


def _shadow(words: str, cohort: dict[str, list[str]]) -> tuple[list[dict[str, Any]], bool]:
    """Return the shadow wave, if any, and whether its devices see what the active model knows."""
    if not words:
        return [], True
    if words == "healthy" and not cohort["healthy"]:
        words = "drifted"  # the whole cohort moved: agreement with a model that is wrong there says nothing
    wave = {**_chosen(words, cohort, most=_MOST_SHADOWS), "kind": "shadow", "name": "shadow"}
    return [wave], words == "healthy"


def _chosen(words: str, cohort: dict[str, list[str]], *, most: int) -> dict[str, Any]:
    if words not in cohort:
        return wave_of(words)
    devices = (cohort[words] or cohort["drifted"] or cohort["healthy"])[:most]
    if not devices:
        fix = "look whether they were updated meanwhile: strop fleet model list"
        raise RolloutError("no device runs the parent bundle any more", where="waves", fix=fix)
    return {"devices": devices}


def _rolled_out(work: Work, step: str, waves: list[dict[str, Any]], more: dict[str, Any]) -> str:
    plan = {key: value for key, value in work.config.rollout.plan.items() if key != "trial"}
    # On a drifted device the model before was wrong: agreement with it is no virtue, errors and latency still count.
    plan["probation"] = {"min_agreement": 0.0, **plan.get("probation", {})}
    document = {
        "on_failure": "roll-back",
        **plan,
        **more,
        "model": work.run.model,
        "bundle": work.run.facts("bundle")["bundle"],
        "waves": waves,
    }
    name = work.server.do(lambda client: started(work, client, step) or _start(work, client, step, document))
    if work.run.facts(step).get("rollout") != name:
        work.run.lineage.setdefault("rollouts", []).append(name)
        work.run.note(step, rollout=name)
    found = _ended(work, step, name)
    if found["state"] != "COMPLETED":
        told = next((e["reason"] for e in found["executions"] if e["reason"]), "")
        why = "; ".join(part for part in (found["reason"], told) if part)
        raise RolloutError(f"{found['state']}: {why or 'by a person'}", where=f"rollout {name}")
    counts = [f"{wave['name'] or wave['kind']} {wave['size']}" for wave in found["waves"]]
    return f"rollout {name} COMPLETED: {', '.join(counts)}{'; ' if found['reason'] else ''}{found['reason']}"


def started(work: Work, client: FleetClient, step: str) -> str:
    """Return the rollout that a step has started, empty if it has not; a process may have died before it noted it."""
    facts = work.run.facts(step)
    if facts.get("rollout"):
        return str(facts["rollout"])
    if "before" not in facts:  # nothing was asked for yet
        return ""
    ours = work.run.facts("bundle")["bundle"]
    found = [one["id"] for one in client.call("GET", "/rollouts") if one["bundle"] == ours]
    return next((name for name in found if name not in facts["before"]), "")


def _start(work: Work, client: FleetClient, step: str, document: dict[str, Any]) -> str:
    if "before" not in work.run.facts(step):
        ours = [one["id"] for one in client.call("GET", "/rollouts") if one["bundle"] == document["bundle"]]
        work.run.note(step, before=ours)
    return str(client.call("POST", "/rollouts", document)["id"])


def _ended(work: Work, step: str, name: str) -> dict[str, Any]:
    """Return a rollout once it has ended; a person who pauses it or has to approve it is waited for."""
    said = ""

    def probe() -> dict[str, Any] | None:
        nonlocal said
        found: dict[str, Any] = work.server.call("GET", f"/rollouts/{name}?bucket=failed&limit=3")
        waves = ", ".join(f"{wave['name'] or wave['kind']} {wave['state'].lower()}" for wave in found["waves"])
        text = f"{step}: rollout {name} {found['state']}; {waves}{'; ' if found['reason'] else ''}{found['reason']}"
        if text != said:
            work.say(text)
            said = text
        return None if found["state"] in _UNDER_WAY else found

    return work.wait(f"the end of rollout {name}", probe, work.until(step, work.config.limits.rollout_s))


def promote(work: Work) -> str:
    """Wait until the promotion rules let the version into production.

    Raises:
        RegistryError: A condition is not met that neither time nor people can change, or the time is over.
    """
    model, version, said = work.run.model, work.run.facts("bundle")["version"], ""

    def probe() -> str | None:
        nonlocal said
        rules = work.server.call("GET", f"/models/{model}/versions/{version}/check")
        rule = next((one for one in rules if one["channel"] == "production"), None)
        unmet = [one for one in rule["outcomes"] if not one["met"]] if rule else []
        if hopeless := [one["words"] for one in unmet if one["rule"] not in _WAITS]:
            fix = f"see strop fleet model check {model} {version}, and rules.toml of the server"
            raise RegistryError("; ".join(hopeless), where=f"the rules of production, {model} {version}", fix=fix)
        if not unmet:
            return f"{len(rule['outcomes'])} conditions of production are met" if rule else "production has no rule"
        text = f"promote: {'; '.join(one['words'] for one in unmet)}"
        if text != said:
            work.say(text)
            said = text
        return None

    return work.wait("the promotion rules", probe, work.until("promote", work.config.limits.promotion_s))


def rollout(work: Work) -> str:
    """Bring the bundle to everybody who runs the model, then let it stand in ``production``; raises as ``canary``."""
    words = work.config.rollout.production
    names = [f"production {i}" for i in range(1, len(words) + 1)] if len(words) > 1 else ["production"]
    waves = [{**_everybody(work, one), "name": name} for one, name in zip(words, names, strict=True)]
    return _rolled_out(work, "rollout", waves, {"channel": "production"})


def _everybody(work: Work, words: str) -> dict[str, Any]:
    """Return a wave; ``rest`` means those that have the model, not those that never did."""
    wave = wave_of(words)
    return {"query": f"model:{work.run.model}"} if wave == {"rest": True} else wave


def verify(work: Work) -> str:
    """Look at the first windows of the healed devices; what they say is recorded, and stops nothing any more."""
    new, until = work.run.facts("bundle")["bundle"], work.until("verify", work.config.limits.verify_s)
    found = dict[str, dict[str, Any]]()

    def probe() -> bool | None:
        shown = work.server.call("GET", work.signal_path())["now"]
        found.update({one["device"]: one for one in shown if one["running"] == one["bundle"] == new})
        return True if len(found) >= len(shown) or work.wall() >= until else None

    work.wait("windows of the healed devices", probe, until + work.config.limits.poll_s + 60.0)
    work.run.note("verify", devices=list(found.values()))
    levels = Counter(one["level"] for one in found.values())
    told = [one["estimated_accuracy"] for one in found.values() if one["estimated_accuracy"] is not None]
    parts = [f"{len(found)} of {len(work.run.signal['devices'])} devices judged"]
    parts += [f"{count} {level}" for level, count in levels.most_common()]
    parts += [f"estimated accuracy {100 * sum(told) / len(told):.1f} %"] if told else []
    return ", ".join(parts)


def close(work: Work) -> str:
    """Close the signal as handled, with what came of it."""
    words = (
        f"healed by {work.run.model} {work.run.facts('bundle')['version']} ({work.run.id}): "
        f"{work.run.step('verify').get('words', '')}"
    )

    def job(client: FleetClient) -> str:
        shown = client.call("GET", work.signal_path())
        if shown["state"] != "open":  # by us before a restart, or by somebody else: the devices are healed all the same
            return str(shown["reason"])
        document = {"outcome": "handled", "reason": words, "holder": work.run.id}
        return str(client.call("POST", work.signal_path("close"), document)["reason"])

    return work.server.do(job)
