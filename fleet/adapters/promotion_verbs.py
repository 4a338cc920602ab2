# SPDX-License-Identifier: Apache-2.0
"""What is asked about promotion: check a version, attach measurements, approve; and the step of the rules."""

import json
import logging
from typing import Any, Final

from edge_contract import canonical
from edge_contract.errors import RegistryError, StropError, UsageError
from fleet.adapters import channels, tables, version_evidence
from fleet.adapters.database import Connection, upsert
from fleet.adapters.desk import Desk
from fleet.adapters.release_verbs import ReleaseVerbs, known_version
from fleet.adapters.rule_book import RuleBook
from fleet.adapters.version_evidence import APPROVAL, MEASUREMENT
from fleet.core.channels import Move
from fleet.core.promotion import Judgement, judge
from fleet.core.registry import ModelVersion
from fleet.core.rules import Rule, rule_for

__all__ = ["PromotionVerbs", "outcomes"]

_log = logging.getLogger("strop.fleet")
_LEAVING: Final = ("demote", "retire")


class PromotionVerbs:
    """Verbs on rules and evidence; each is one transaction with its audit entry.

    Args:
        desk: Database, blobs, clock.
        book: The rules in force.
    """

    def __init__(self, desk: Desk, book: RuleBook) -> None:
        self._desk, self.book = desk, book
        self.releases = ReleaseVerbs(desk, self.refusal)

    def check(self, model: str, version: str) -> list[dict[str, Any]]:
        """Return how a version stands with the rule of each channel, judged now; nothing is stored.

        Raises:
            RegistryError: It is not known, or the rules cannot be read.
        """
        rules = self.book.rules()

        def read(db: Connection) -> list[dict[str, Any]]:
            one = known_version(db, model, version)
            held = channels.channels_of(db, one.bundle)
            found = [self._judged(db, one, rule) for rule in _rules_of(rules, one.model)]
            return [{**judged.to_json(), "standing": judged.channel in held} for judged in found]

        return self._desk.store.read(read)

    def refusal(self, db: Connection, version: ModelVersion, channel: str) -> str:
        """Return why the rules keep a version out of a channel; empty if they do not, or there is no rule."""
        rule = rule_for(self.book.rules(), version.model, channel)
        return self._judged(db, version, rule).unmet if rule else ""

    def approve(self, model: str, version: str, actor: str, *, note: str = "", undo: bool = False) -> list[Move]:
        """Approve a version, or take one's approval back; return the moves that the rules then made.

        Raises:
            RegistryError: It is not known, or who approves is who registered it.
        """

        def job(db: Connection) -> None:
            one = known_version(db, model, version)
            if actor == channels.registered_by(db, one.bundle) and not undo:
                fix = "another person must approve it"
                raise RegistryError(f"'{actor}' registered it", where=f"{model} {one.version}", fix=fix)
            now = self._desk.clock()
            if undo:
                version_evidence.remove(db, one.bundle, APPROVAL, actor)
            else:
                document = {"note": " ".join(note.split())[:500]}
                version_evidence.put(db, one.bundle, APPROVAL, actor, document, actor=actor, now=now)
            detail = {"model": model, "version": one.version, "note": note[:500]}
            self._desk.audit(db, actor, "model.disapprove" if undo else "model.approve", one.bundle, detail)

        self._desk.store.write(job)
        return self.step()

    def attach(self, model: str, version: str, document: Any, actor: str, *, target: str = "") -> list[Move]:
        """Attach a measurement of one of a version's files; one of the same file and target replaces the other.

        Raises:
            RegistryError: The version is not known, or the document is no measurement of one of its files.
        """
        if len(canonical.dumps(document)) > version_evidence.MAX_PROOF_BYTES:
            raise UsageError(f"more than {version_evidence.MAX_PROOF_BYTES} bytes", where="measurement")

        def job(db: Connection) -> None:
            one = known_version(db, model, version)
            found = version_evidence.measurement(one, document, target)
            subject = f"{found.target} {found.source}"
            kept = {"target": found.target, "measurement": document}
            version_evidence.put(db, one.bundle, MEASUREMENT, subject, kept, actor=actor, now=self._desk.clock())
            detail = {"model": model, "version": one.version, "subject": subject, "ms": dict(found.ms)}
            self._desk.audit(db, actor, "model.attach", one.bundle, detail)

        self._desk.store.write(job)
        return self.step()

    def step(self) -> list[Move]:
        """Judge every version that may climb, store outcomes that changed, and move channels; call when evidence came.

        A rules file that cannot be read moves nothing; the log and ``strop fleet rules check`` say why.
        """
        try:
            rules = self.book.rules()
        except StropError as error:
            _log.error("no version is promoted: %s", error)
            return []
        # Judged outside of the writer's thread: files are read, and ten thousand devices may be looked at.
        plans = self._desk.store.read(lambda db: self._plans(db, rules))
        return self._desk.store.write(lambda db: self._apply(db, plans)) if plans else []

    def _plans(self, db: Connection, rules: tuple[Rule, ...]) -> list[tuple[ModelVersion, Judgement]]:
        versions, gone, plans = tables.models(db), channels.retired(db), list[tuple[ModelVersion, Judgement]]()
        for model in sorted({version.model for version in versions}):
            ours = [version for version in versions if version.model == model and version.bundle not in gone]
            for rule in _rules_of(rules, model):
                for version in _climbers(db, ours, model, rule.channel):
                    judged = self._judged(db, version, rule)
                    enters = judged.met and rule.automatic
                    if enters or _words(outcomes(db, version.bundle).get(rule.channel)) != _words(judged.to_json()):
                        plans.append((version, judged))
                    if enters:  # newest first: older ones have nothing to ask for any more
                        break
        return plans

    def _apply(self, db: Connection, plans: list[tuple[ModelVersion, Judgement]]) -> list[Move]:
        made, now = list[Move](), self._desk.clock()
        for version, judged in plans:
            if tables.model(db, version.bundle) is None:
                continue  # deleted meanwhile
            statement = upsert("rule_outcomes", "bundle, channel", "time", "met", "document")
            values = (version.bundle, judged.channel, now, int(judged.met), canonical.dumps(judged.to_json()))
            db.execute(statement, values)
            if judged.met and judged.automatic and self._may_still(db, version, judged.channel):
                words = "; ".join(outcome.words for outcome in judged.outcomes)
                made.append(self.releases.enter_by_rules(db, version, judged.channel, words))
        return made

    def _may_still(self, db: Connection, version: ModelVersion, channel: str) -> bool:
        ours = [one for one in tables.models(db) if one.model == version.model]
        climbers = _climbers(db, ours, version.model, channel)
        return version.bundle in {one.bundle for one in climbers} - channels.retired(db).keys()

    def _judged(self, db: Connection, version: ModelVersion, rule: Rule) -> Judgement:
        asked, now = rule.canary_healthy_hours is not None, self._desk.clock()
        return judge(rule, version_evidence.gather(db, self._desk.blobs, version, now, canary=asked))


def _rules_of(rules: tuple[Rule, ...], model: str) -> list[Rule]:
    """The rule of each channel that binds a model, in the order of the file."""
    names = dict.fromkeys(rule.channel for rule in rules)
    found = (rule_for(rules, model, channel) for channel in names)
    return [rule for rule in found if rule is not None]


def _climbers(db: Connection, ours: list[ModelVersion], model: str, channel: str) -> list[ModelVersion]:
    """Versions that the rules may bring into a channel, newest first.

    Not what is older than what stands there, and not what a person took out of it: rules never undo a person's word.
    """
    held = channels.bundle_of(db, model, channel)
    since = next((one.registered_at for one in ours if one.bundle == held), float("-inf"))
    out = {move.old for move in channels.moves(db, model, channel) if move.verb in _LEAVING}
    newer = [one for one in ours if one.registered_at > since and one.bundle != held and one.bundle not in out]
    return sorted(newer, key=lambda one: (one.registered_at, one.version), reverse=True)


def outcomes(db: Connection, bundle: str) -> dict[str, Any]:
    """Return channel → the stored judgement of a version, as it was when it last changed."""
    rows = db.execute("SELECT channel, document FROM rule_outcomes WHERE bundle = ? ORDER BY channel", (bundle,))
    return {row["channel"]: json.loads(row["document"]) for row in rows}


def _words(document: dict[str, Any] | None) -> list[str]:
    """The sentences of a judgement: what changes only behind the last digit shown is no change."""
    return [outcome["words"] for outcome in document["outcomes"]] if document else []
