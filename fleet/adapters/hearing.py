# SPDX-License-Identifier: Apache-2.0
"""After a server was deaf, devices get time to say what they could not: an outage of ours is no failure of theirs.

While the server or its broker is away a device may end its order and has nobody to tell. A deadline that passed
meanwhile would count it as failed, stop the rollout, and take back what runs well.
"""

import logging
from dataclasses import replace
from typing import Final

from edge_contract import canonical
from fleet.adapters import tables
from fleet.adapters.database import Connection
from fleet.core.execution import Execution

__all__ = ["HEARING_S", "give_time"]

_log = logging.getLogger("strop.fleet.hearing")

HEARING_S: Final = 300.0
"""The longest pause of an agent between two attempts to connect. The engine cuts it to the order's own time."""


def give_time(db: Connection, now: float) -> int:
    """Move deadlines that have passed, or pass before every device can be back; return how many.

    Args:
        db: A connection inside a transaction.
        now: Seconds since 1970.
    """
    until = now + HEARING_S
    sql = "SELECT document FROM executions WHERE closed = 0 AND past = 0 AND due < ?"
    found = [Execution.from_json(canonical.loads(row["document"])) for row in db.execute(sql, (until,)).fetchall()]
    late = [one for one in found if one.is_open and one.issued_at and one.deadline < until]
    tables.put_executions(db, [replace(one, deadline=until) for one in late])
    if late:
        _log.info("%d orders get time until every device can be heard again", len(late))
    return len(late)
