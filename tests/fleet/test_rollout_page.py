# SPDX-License-Identifier: Apache-2.0
"""The page of a large rollout: counts by the database, the gate's words and evidence, buttons by state and role."""

import re

import pytest

from benchmarks.fleet.filled import fill, fill_rollout
from edge_contract import canonical
from fleet.adapters import progress, tables
from fleet.core.accounts import Role
from fleet.core.gates import Finding, WaveVerdict
from tests.fleet.test_access import House
from tests.fleet.test_login import HTML, login

COUNT = 1000
PASSWORD = "three grey herons"
VERDICT = WaveVerdict(
    "wait",
    "latency p95 grew by 3 % <so far>; 12 more devices or 2 hours would tell",
    (
        Finding("p95", "wait", 0.031, -0.01, 0.08, 10, 40, "p95 grew by 3.1 %"),
        Finding("crashes", "pass", 0.0, float("-inf"), float("inf"), 10, 40, "no crash"),
    ),
)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("rollout"))
    fill(made.office.store, COUNT, made.office.now)
    fill_rollout(made.office.store, COUNT, made.office.now)

    def judged(db):
        columns = "(number, wave, time, decision, document) VALUES (?,?,?,?,?)"
        values = (1, 4, made.office.now - 60, "wait", canonical.dumps(VERDICT.to_json()))
        db.execute(f"INSERT INTO wave_verdicts {columns}", values)

    made.office.store.write(judged)
    accounts = made.operations.accounts
    accounts.accept(accounts.first_link(), "ada", PASSWORD)
    accounts.accept(accounts.add("vera", Role.VIEWER, "ada"), "", PASSWORD)
    yield made
    made.close()


def page(house, path, who="ada"):
    answer = house.ask("GET", path, cookies=dict(login(house, who).cookies), headers=HTML)
    assert answer.status_code == 200
    return answer.text


def test_the_gate_says_in_words_and_rows_why_a_wave_waits(house):
    text = page(house, "/rollouts/r1")
    assert "gate waits" in text
    assert "latency p95 grew by 3 % &lt;so far&gt;; 12 more devices or 2 hours would tell" in text
    assert "+3.1 %" in text
    assert re.search(r"-1\.0 to\s+\+8\.0 %", text)
    assert re.search(r"−∞ to ∞", text)
    assert text.count('<svg class="bar"') == 2


def test_what_needs_a_look_is_listed_and_the_rest_is_counted(house):
    counted = house.office.store.read(lambda db: progress.counts(db, 1))
    assert sum(sum(buckets.values()) for buckets in counted.values()) == COUNT
    text = page(house, "/rollouts/r1")
    assert f"{counted[4]['failed']} failed" in text
    assert "agreement 0.31 below 0.80" in text
    assert text.count("/devices/cam-") <= 130
    assert f"{counted[3]['succeeded']} succeeded" in text
    more = page(house, "/rollouts/r1?wave=5&bucket=open&page=2")
    assert "page 2 of" in more


@pytest.mark.parametrize(
    "query", ["wave=99&bucket=open", "wave=5&bucket=nonsense", "page=999999", "wave=-1", "page=-5"]
)
def test_odd_addresses_show_the_page(house, query):
    assert "Rollout r1" in page(house, f"/rollouts/r1?{query}")


def test_buttons_are_for_those_who_may_and_for_what_the_state_accepts(house):
    text = page(house, "/rollouts/r1")
    assert {"pause", "cancel", "rollback"} == set(re.findall(r'href="/rollouts/r1/([a-z]+)"', text))
    assert re.findall(r'href="/rollouts/r1/([a-z]+)"', page(house, "/rollouts/r1", "vera")) == []
    cookies = dict(login(house, "vera").cookies)
    assert house.ask("GET", "/rollouts/r1/pause", cookies=cookies, headers=HTML).status_code == 403
    asked = page(house, "/rollouts/r1/cancel")
    assert "Cancel rollout r1 of vision 1.2.0?" in asked
    assert 'name="reason"' in asked


def test_a_confirmed_button_does_it_under_ones_own_name(house):
    cookies = dict(login(house).cookies)
    csrf = re.search(r'name="csrf" value="([0-9a-f]{64})"', page(house, "/rollouts/r1/pause"))[1]
    other = house.ask("POST", "/rollouts/r1/pause", cookies=cookies, data={"csrf": csrf}, headers=HTML)
    assert other.status_code == 403  # the token of another session
    csrf = re.search(r'name="csrf" value="([0-9a-f]{64})"', house.ask("GET", "/me", cookies=cookies).text)[1]
    done = house.ask("POST", "/rollouts/r1/pause", cookies=cookies, data={"csrf": csrf}, headers=HTML)
    assert (done.status_code, done.headers["location"]) == (303, "/rollouts/r1")
    assert house.office.store.read(lambda db: tables.rollout(db, "r1")).state.value == "PAUSED"
    entry = next(e for e in house.office.store.read(tables.all_audit) if e.action == "rollout.pause")
    assert (entry.actor, entry.subject) == ("ada", "r1")
