# SPDX-License-Identifier: Apache-2.0
"""Jobs: an order's probation has defaults, and its reports are numbered."""

from edge_contract.jobs import JobStatus, Probation, next_report
from edge_contract.states import Phase, Status


def test_probation_has_defaults_for_what_an_order_leaves_out():
    assert Probation.from_json({}) == Probation()
    assert Probation.from_json({"inferences": 5}).inferences == 5


def test_the_next_report_of_an_order_grows_by_one():
    first = JobStatus("j", "pi", Status.IN_PROGRESS, Phase.ACCEPTED, 4, "", {}, 1.0)
    second = next_report(first, time=2.0, status=Status.FAILED, phase=Phase.FAILED, reason="no space")
    assert (second.seq, second.status, second.reason, second.job_id) == (5, Status.FAILED, "no space", "j")
