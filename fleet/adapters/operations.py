# SPDX-License-Identifier: Apache-2.0
"""What an operator or a device may ask of the server, in groups: devices, models, rollouts, captures, identities."""

from collections.abc import Callable

from edge_contract.bench_words import CANCEL, COMMAND
from fleet.adapters.accounts import AccountVerbs
from fleet.adapters.alert_book import AlertVerbs
from fleet.adapters.benchmarks import BenchVerbs
from fleet.adapters.blobs import Blobs
from fleet.adapters.captures import Captures
from fleet.adapters.desk import Addresses, Desk, Trust
from fleet.adapters.device_commands import DeviceCommands
from fleet.adapters.device_verbs import DeviceVerbs
from fleet.adapters.drift_book import DriftBook
from fleet.adapters.group_verbs import GroupVerbs
from fleet.adapters.identities import Identities
from fleet.adapters.letters import LetterVerbs
from fleet.adapters.model_verbs import ModelVerbs
from fleet.adapters.orders import Message
from fleet.adapters.promotion_verbs import PromotionVerbs
from fleet.adapters.retention import RetentionVerbs
from fleet.adapters.rollout_verbs import RolloutVerbs
from fleet.adapters.roster import Roster
from fleet.adapters.rule_book import RuleBook
from fleet.adapters.signals import SignalVerbs
from fleet.adapters.standing_verbs import StandingVerbs
from fleet.adapters.store import Store
from fleet.adapters.twin_verbs import TwinVerbs

__all__ = ["Operations"]


class Operations:
    """The verbs of the fleet server, by subject. Safe to call from any thread; arguments as of ``Desk``."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        trust: Trust,
        *,
        addresses: Addresses,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        publish: Callable[[Message], None],
    ) -> None:
        self.store, self.blobs, self.trust, self.addresses, self.clock = store, blobs, trust, addresses, clock
        self.desk = Desk(
            store, blobs, trust, addresses=addresses, clock=clock, random_bytes=random_bytes, publish=publish
        )
        self.identities = Identities(store, trust.ca, clock, trust.signer.public_key)
        folder = trust.ca.parent / "captures"
        self.captures = Captures(store, folder, trust.signer, clock=clock, random_bytes=random_bytes)
        self.accounts = AccountVerbs(self.desk)
        self.roster = Roster(store)
        self.drift = DriftBook(store, blobs, self.roster, clock, settled_s=1.0 if "://" in store.where else 0.0)
        self.alerts = AlertVerbs(self.desk, self.roster, trust.ca.parent)
        self.signals = SignalVerbs(self.desk, self.roster, self.alerts, trust.ca.parent)
        self.twin = TwinVerbs(self.desk)
        self.groups = GroupVerbs(self.desk, self.twin)
        self.commands = DeviceCommands(self.desk)
        self.captures.on_changed, self.commands.nudges = self.commands.nudge, self.captures.live_for
        self.standings = StandingVerbs(self.desk, self.identities, folder)
        self.devices = DeviceVerbs(self.desk, self.identities, self.twin, self.standings)
        self.promotion = PromotionVerbs(self.desk, RuleBook(trust.ca.parent / "rules.toml"))
        self.releases = self.promotion.releases
        self.desk.book.refusal = self.promotion.refusal
        self.benchmarks = BenchVerbs(self.desk, self.releases.files)
        self.commands.others = dict.fromkeys((COMMAND, CANCEL), self.benchmarks.heard)
        self.commands.at_birth = self.benchmarks.again
        self.models = ModelVerbs(self.desk, self.promotion)
        self.rollouts = RolloutVerbs(self.desk)
        self.retention, self.letters = RetentionVerbs(self.desk), LetterVerbs(self.desk)

    def look_after(self, before: float) -> None:
        """Do what falls due with devices: settings of groups, quarantine of suspects, what is too old to be kept apart.

        Args:
            before: Seconds since 1970; what was kept apart before goes.
        """
        self.twin.settle_all()
        self.benchmarks.step()
        self.standings.sweep()
        self.standings.prune(before)
