# SPDX-License-Identifier: Apache-2.0
"""Stories of rollouts, and what must be true after each of them, whoever was killed meanwhile."""

import time
from dataclasses import dataclass, field

from edge_contract.states import Status
from fleet.adapters.stores import open_store
from tests.fleet.crash.rig import NAMES, PATIENCE_S, VERSIONS, CrashStage
from tests.fleet.crash.witness import FAILING, GOOD, STUCK, Temper
from tests.support.fleet_server import until

ENDED = ("COMPLETED", "ABORTED", "ROLLED_BACK")
TERMINAL = {status.value for status in Status} - {Status.QUEUED.value, Status.IN_PROGRESS.value}
WAVES = ({"devices": ["d0"]}, {"devices": ["secure", "d1"]}, {"rest": True})


@dataclass(frozen=True)
class End:
    """How a story ended: the rollout's state, of each device its execution, and who runs the new bundle.

    A status that a race between devices decides is missing.
    """

    state: str
    statuses: dict[str, str]
    new: frozenset[str]


@dataclass(frozen=True)
class Story:
    """A rollout, how its devices behave, and how it ends if nobody is killed.

    Attributes:
        end: As the long test sees it happen undisturbed, too.
        tempers: Of the devices that are not good.
        more: Of the request.
    """

    end: End
    tempers: dict[str, Temper] = field(default_factory=dict)
    more: dict[str, object] = field(default_factory=dict)


def _completed(**others: str) -> End:
    statuses = dict.fromkeys(NAMES, "SUCCEEDED") | others
    return End("COMPLETED", statuses, frozenset(NAMES) - set(others))


NOBODY = frozenset[str]()
STORIES = {
    "good": Story(_completed()),
    "canary fails": Story(End("ABORTED", {"d0": "FAILED"}, NOBODY), {"d0": FAILING}),
    "one is forgiven": Story(_completed(d1="FAILED"), {"d1": FAILING}, {"max_failures": 1}),
    "rolled back": Story(End("ROLLED_BACK", {"d2": "FAILED"}, NOBODY), {"d2": FAILING}, {"on_failure": "roll-back"}),
    "short": Story(_completed(), more={"timeout_s": 7.0, "grace_s": 1.0}),
    "stuck": Story(_completed(d1="TIMED_OUT"), {"d1": STUCK}, {"max_failures": 1, "timeout_s": 12.0, "grace_s": 1.0}),
}


class Play:
    """Plays stories on a stage and judges each."""

    def __init__(self, stage: CrashStage) -> None:
        self.stage, self.at = stage, 0

    def play(self, name: str, kills=()) -> None:
        """Play a story with kills at moments (seconds after its start, victim), judge it, and set all back."""
        story, stage = STORIES[name], self.stage
        old = VERSIONS[self.at]
        for device, temper in story.tempers.items():
            stage.devices[device].temper = temper
        stage.gather()
        for device in stage.devices.values():
            device.is_calm = False
        begun = time.monotonic()
        rollout = self._start(VERSIONS[1 - self.at], story)
        for moment, victim in kills:
            time.sleep(max(0.0, begun + moment - time.monotonic()))
            stage.kill(victim)
        shown = self._ended(rollout)
        self._settle()
        self._judge(shown, story, stage.bundles[old])
        for device in stage.devices.values():
            device.temper = GOOD
        self._onwards(shown["state"])

    def _start(self, version: str, story: Story) -> str:
        document = {"model": "digits", "bundle": self.stage.bundles[version], "waves": list(WAVES), "soak_s": 0.3}
        return self.stage.ask("POST", "/rollouts", {"timeout_s": 90.0, **document, **story.more})["id"]

    def _ended(self, rollout: str):
        deadline = time.monotonic() + PATIENCE_S
        while (shown := self.stage.ask("GET", f"/rollouts/{rollout}"))["state"] not in ENDED:
            assert time.monotonic() < deadline, (shown, self.stage.kills[-3:], self.stage.log)
            self.stage.gather()
            time.sleep(0.4)
        return shown

    def _settle(self) -> None:
        """Let every device be silent and have its acknowledgements, and let the server know what each runs."""
        stage = self.stage
        for device in stage.devices.values():
            device.is_calm = True
        until(lambda: all(d.is_settled for d in stage.devices.values()), self._words("acknowledgements"), PATIENCE_S)

    def _words(self, what: str) -> str:
        return f"{what} after kills {self.stage.kills[-3:]}"

    def _judge(self, shown, story: Story, old: str) -> None:
        stage = self.stage
        executions = shown["executions"]
        statuses = {one["device"]: one["status"] for one in executions if one["device"] in story.end.statuses}
        new = frozenset(name for name, device in stage.devices.items() if device.running != old)
        assert End(shown["state"], statuses, new) == story.end, (shown, stage.kills[-4:], stage.log)
        assert {one["status"] for one in executions} <= TERMINAL, shown
        assert len({one["device"] for one in executions}) == len(executions), shown
        assert not [words for device in stage.devices.values() for words in device.wrong]
        assert stage.ask("GET", "/audit")["broken_at"] is None
        self._books()

    def _books(self) -> None:
        """Each row that was made is there once; the server knows what runs; nothing could not be read."""
        stage = self.stage
        store = open_store(stage.data, stage.database)
        try:
            rows = "SELECT device, class, COUNT(*), MIN(seq), MAX(seq) FROM telemetry GROUP BY device, class"
            stored = {(row[0], row[1]): tuple(row)[2:] for row in store.read(lambda db: db.execute(rows).fetchall())}
            each = "SELECT device, COUNT(*), COUNT(DISTINCT ref) FROM results GROUP BY device"
            results = {row[0]: tuple(row)[1:] for row in store.read(lambda db: db.execute(each).fetchall())}
            letters = store.read(lambda db: db.execute("SELECT reason FROM dead_letters").fetchall())
        finally:
            store.close()
        for name, device in stage.devices.items():
            made, answers = device.made, device.answers_made
            found = stored[name, "metric"], stored[name, "result"], results[name]
            assert found == ((made, 1, made), (answers, 1, answers), (answers, answers)), self._words(name)
        assert [row[0] for row in letters] == [], self._words("dead letters")

    def _onwards(self, state: str) -> None:
        """Bring every device to one version, so that the next story begins as this one did."""
        running = {device.running for device in self.stage.devices.values()}
        if len(running) > 1 or state == "COMPLETED":
            self.at = 1 - self.at
        if len(running) > 1:
            shown = self._ended(self._start(VERSIONS[self.at], STORIES["good"]))
            assert shown["state"] == "COMPLETED", shown
