# SPDX-License-Identifier: Apache-2.0
"""Who of a rollout is updated and who is through with it, read look by look: an execution that ended is opened once.

A gate looks every fifteen seconds at rollouts of ten thousand devices. A look reads the names of what has ended; the
documents of those that ended since the last look are opened, and never again.
"""

import json

from edge_contract.states import Status
from fleet.adapters.database import Connection, chunks
from fleet.core.execution import Execution

__all__ = ["Updated"]


class Updated:
    """One rollout's executions that have ended; after a restart they are read again.

    Args:
        number: The rollout's number.
    """

    def __init__(self, number: int) -> None:
        self._number, self._known = number, dict[str, Execution]()
        self.ended = frozenset[str]()
        """Devices whose execution has ended, well or not."""

    def read(self, db: Connection) -> list[Execution]:
        """Return the executions that succeeded after an order, and bring ``ended`` up to date."""
        statement = "SELECT job_id, device, bucket FROM executions WHERE number = ? AND past = 0 AND bucket <> 'open'"
        rows = [tuple(row) for row in db.execute(statement, (self._number,)).fetchall()]
        self.ended = frozenset(device for _, device, _ in rows)
        done = {job for job, _, bucket in rows if bucket in ("succeeded", "regressed")}
        for gone in self._known.keys() - done:
            del self._known[gone]
        new = sorted(done - self._known.keys())
        for marks, values in chunks([(job,) for job in new]):
            listed = marks.replace("(", "").replace(")", "")
            for row in db.execute(f"SELECT document FROM executions WHERE job_id IN ({listed})", values).fetchall():
                one = Execution.from_json(json.loads(bytes(row["document"])))
                self._known[one.job_id] = one
        return [one for one in self._known.values() if one.status is Status.SUCCEEDED and one.issued_at]
