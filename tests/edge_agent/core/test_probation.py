# SPDX-License-Identifier: Apache-2.0
"""Evidence → judgement, case by case."""

import pytest

from edge_agent.core.probation import Evidence, judge
from edge_contract.jobs import Probation

RULES = Probation(inferences=100, timeout_s=60.0, max_error_rate=0.05, max_latency_ratio=3.0, min_agreement=0.9)

CASES: dict[str, tuple[Evidence, bool | None, str]] = {
    "nothing yet": (Evidence(), None, ""),
    "enough, no previous model": (Evidence(good=100), True, ""),
    "enough, but nothing compared yet": (Evidence(good=100, has_shadow=True), None, ""),
    "enough and agreed": (Evidence(good=100, has_shadow=True, compared=100, agreed=95), True, ""),
    "agreement just at the rule": (Evidence(good=100, has_shadow=True, compared=100, agreed=90), True, ""),
    "agreement below it": (Evidence(good=100, has_shadow=True, compared=100, agreed=89), False, "89.0% of 100"),
    "bad early": (Evidence(good=20, has_shadow=True, compared=20, agreed=9), False, "45.0% of 20"),
    "not yet bad": (Evidence(good=20, has_shadow=True, compared=20, agreed=10), None, ""),
    "the previous model failed on some": (
        Evidence(good=100, has_shadow=True, compared=60, agreed=60, unanswered=40),
        True,
        "",
    ),
    "errors within the rule": (Evidence(good=100, errors=5), True, ""),
    "errors beyond it": (Evidence(good=30, errors=6), False, "6 of 36 inferences failed"),
    "crashes forgiven": (Evidence(good=100, crashes=1), True, ""),
    "crashes beyond": (Evidence(crashes=2), False, "crashed 2 times, more than 1"),
    "slow": (Evidence(good=80, median_us=400.0, baseline_us=100.0), False, "4.00 times"),
    "as fast as before": (Evidence(good=100, median_us=120.0, baseline_us=100.0), True, ""),
    "latency not known yet": (Evidence(good=100, baseline_us=100.0), None, ""),
    "no baseline": (Evidence(good=100, median_us=900.0), True, ""),
    "out of time": (Evidence(good=99, waited_s=60.0), False, "only 99 of 100 inferences in 60 s"),
    "out of time, nothing compared": (
        Evidence(good=200, has_shadow=True, waited_s=61.0),
        False,
        "only 200 of 100 inferences, 0 compared in 60 s",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_judgement(name: str) -> None:
    seen, healthy, reason = CASES[name]
    assert judge(RULES, seen)[0] is healthy
    assert reason in judge(RULES, seen)[1]


def test_switched_off_rules_judge_nothing() -> None:
    rules = Probation(inferences=10, min_agreement=0.0, max_latency_ratio=0.0)
    seen = Evidence(good=10, has_shadow=True, compared=10, agreed=0, median_us=900.0, baseline_us=1.0)
    assert judge(rules, seen) == (True, "")


def test_the_figures_say_what_was_measured() -> None:
    seen = Evidence(good=10, has_shadow=True, compared=8, agreed=6, median_us=150.0, baseline_us=100.0, waited_s=2.0)
    assert seen.figures() == {
        "inferences": 10,
        "errors": 0,
        "crashes": 0,
        "probation_s": 2.0,
        "p50_us": 150.0,
        "latency_ratio": 1.5,
        "compared": 8,
        "agreement": 0.75,
    }
