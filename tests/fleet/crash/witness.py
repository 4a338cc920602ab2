# SPDX-License-Identifier: Apache-2.0
"""A device of the swarm that keeps books: what it made, what was acknowledged, which orders it heard."""

from dataclasses import dataclass, field

from benchmarks.fleet.swarm.device import SimDevice, Temper
from edge_contract.batches import TelemetryAck, TelemetryBatch, TelemetryRow, encode_batch
from edge_contract.jobs import JobDocument

AGAIN_S = 0.8
"""A row without an acknowledgement is sent again after that, not after the half minute of the swarm's."""

BATCH_S = 0.4
GOOD = Temper("good", install_s=0.3)
FAILING = Temper("failing", install_s=0.3, fails=True)
STUCK = Temper("stuck", install_s=1e9)


@dataclass
class Witness(SimDevice):
    """Makes metric rows and results until it is told to be calm; says again what nobody acknowledged."""

    is_calm: bool = False
    answers: dict[int, TelemetryRow] = field(default_factory=dict)
    answers_made: int = 0
    answers_at: float = 0.0
    orders: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def tick(self, now, *, is_online):
        for seq in [seq for seq, at in self.said_at.items() if now - at > AGAIN_S]:
            del self.said_at[seq]
        said = super().tick(now, is_online=is_online)
        if is_online and self.answers and now - self.answers_at > AGAIN_S:
            self.answers_at = now
            rows = tuple(self.answers.values())
            batch = TelemetryBatch(self.name, self.boot, "result", rows[0].seq - 1, rows)
            said.append(self._say("tm/result", encode_batch(batch)))
        return said

    def connected(self, now):
        self.answers_at = 0.0
        return super().connected(now)

    def _make(self, now):
        if self.is_calm:
            return
        super()._make(now)
        if self.running:
            self.answers_made += 1
            body = {"bundle": self.running, "rows": [[f"s{self.answers_made}", self.answers_made % 10, 0.5]]}
            self.answers[self.answers_made] = TelemetryRow(self.answers_made, now, body)

    def _ack(self, ack: TelemetryAck):
        made = {"metric": self.made, "result": self.answers_made}.get(ack.cls, 0)
        if ack.boot == self.boot and ack.up_to_seq > made:
            self.wrong.append(f"{ack.cls} up to {ack.up_to_seq} acknowledged, and {made} made")
        if ack.cls == "result":
            for seq in [seq for seq in self.answers if seq <= ack.up_to_seq]:
                del self.answers[seq]
        return super()._ack(ack)

    def _ordered(self, order: JobDocument, now: float):
        if order.kind == "install" and order.job_id not in self.orders:
            self.orders.append(order.job_id)
        return super()._ordered(order, now)

    @property
    def is_settled(self) -> bool:
        """Everything that it made was acknowledged."""
        return not self.unsent and not self.answers
