# SPDX-License-Identifier: Apache-2.0
"""Forms of the page: a rollout's pace, windows, devices that are away and channel; open tokens are taken back."""

import html
import re

import pytest

from benchmarks.fleet.filled import fill
from edge_contract import canonical
from fleet.adapters import channels, tables
from fleet.core.pace import pace_words
from fleet.core.registry import ModelVersion
from tests.fleet.test_access import House
from tests.fleet.test_login import HTML, csrf_in, login
from tests.fleet.test_waivers import WAIVED
from tests.support.registry import contents_of, manifest_of

PASSWORD = "three grey herons"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("forms"))
    fill(made.office.store, 20, made.office.now)
    contents = contents_of("1.2.0")
    manifest = manifest_of("vision", "1.2.0", contents, WAIVED)
    for data in [*contents.values(), manifest.to_bytes()]:
        made.operations.blobs.put(canonical.digest(data), [data])
    version = ModelVersion("vision", "1.2.0", manifest.bundle_id, manifest, made.office.now)
    made.office.store.write(lambda db: tables.put_model(db, version))
    accounts = made.operations.accounts
    accounts.accept(accounts.first_link(), "ada", PASSWORD)
    made.cookies = dict(login(made).cookies)
    made.csrf = csrf_in(made.ask("GET", "/me", cookies=made.cookies).text)
    yield made
    made.close()


def sent(house, path, **fields):
    answer = house.ask("POST", path, cookies=house.cookies, headers=HTML, data={"csrf": house.csrf, **fields})
    return answer, " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def newest(house):
    return house.office.store.read(tables.models)[0]


PACE = {
    "per_minute": "10",
    "double_after": "5",
    "most": "40",
    "windows": "Mon-Fri 22:00-05:00\n\nSat 00:00-24:00 ",
    "clock": "device",
    "offline": "skip",
    "away_h": "12",
}


def planned(house, **fields):
    return sent(house, "/rollouts/new", bundle=newest(house).bundle, waves="1\nrest", go="plan", **fields)


def test_the_plan_says_its_pace_in_words_and_starts_with_it(house):
    answer, text = planned(house, **PACE)
    assert answer.status_code == 200, text
    assert "Orders to 10 devices a minute, 2 times as many after each 5 successes, never more than 40" in text
    assert "Orders leave within Mon-Fri 22:00-05:00, Sat 00:00-24:00 by each device's clock" in text
    assert "Devices not seen for 12 h are skipped" in text
    assert 'name="per_minute" inputmode="decimal" value="10"' in answer.text
    seen = re.search(r'name="seen" value="([0-9a-f]{64})"', answer.text)[1]
    fields = {"bundle": newest(house).bundle, "waves": "1\nrest", **PACE}
    answer, text = sent(house, "/rollouts/new", go="start", seen=seen, **fields)
    assert answer.status_code == 303, text
    name = answer.headers["location"].removeprefix("/rollouts/")
    limits = house.office.store.read(lambda db: tables.rollout(db, name)).limits
    assert (limits.rate.per_minute, limits.rate.factor, limits.rate.after, limits.rate.most) == (10, 2, 5, 40)
    assert (limits.schedule.windows, limits.schedule.clock) == (("Mon-Fri 22:00-05:00", "Sat 00:00-24:00"), "device")
    assert (limits.offline.policy, limits.offline.after_s) == ("skip", 43_200)
    shown = house.ask("GET", f"/rollouts/{name}", cookies=house.cookies, headers=HTML).text
    assert "orders to 10 devices a minute" in shown
    house.operations.rollouts.change(name, "abort", "ada")


def test_a_plan_without_pace_is_as_it_was(house):
    answer, text = planned(house, offline="wait", away_h="24", clock="utc")
    assert answer.status_code == 200
    assert "devices a minute," not in text
    assert pace_words(house.operations.rollouts.plan(
        {"model": newest(house).model, "bundle": newest(house).bundle, "waves": [{"rest": True}]}, "ada"
    )["limits"]) == []  # fmt: skip


WRONG = {
    "a rate that is a word": ({"per_minute": "fast"}, "'fast' is not a number of devices a minute"),
    "a rate of nothing": ({"per_minute": "0"}, "per_minute must be positive"),
    "growth without a rate": ({"double_after": "5"}, "a rate that grows needs one to begin with"),
    "half a device": ({"per_minute": "1", "double_after": "2.5"}, "'2.5' is not a number of devices"),
    "a window that is none": ({"windows": "at night"}, "rollout.schedule.windows[0]"),
    "hours that are a word": ({"offline": "skip", "away_h": "long"}, "'long' is not a number of hours"),
    "no hours": ({"offline": "skip", "away_h": "0"}, "after_s goes with policy 'skip'"),
    "a policy of ones own": ({"offline": "pray"}, "pray"),
    "soak": ({"soak_min": "soon"}, "'soon' is not a number of minutes"),
    "failures": ({"max_failures": "some"}, "'some' is not a number of devices"),
    "a channel that is none": ({"channel": "Pro duction"}, "is not a channel name"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_slip_is_shown_above_the_form_and_nothing_is_lost(house, case):
    fields, words = WRONG[case]
    answer, text = planned(house, **fields)
    assert answer.status_code == 400
    assert words in text
    key, value = next(iter(fields.items()))
    assert html.escape(value) in answer.text or key == "offline"


# --- the channel of a plan ---


def test_a_plan_says_that_the_rules_of_its_channel_are_not_met(house):
    _, text = planned(house, channel="production")
    assert "channel The rules of production are not met now:" in text
    assert "If they are not met at the end, the devices keep the version and the channel stays." in text
    _, text = planned(house, channel="site-b")
    assert "At the end it stands in site-b." in text


def ended(house, channel):
    """A rollout to no device ends at once."""
    version = newest(house)
    document = {"model": version.model, "bundle": version.bundle, "channel": channel}
    waves = [{"query": "device:nobody-at-all"}]
    name = house.operations.rollouts.start({**document, "waves": waves}, "ada").id
    house.operations.rollouts.tick()
    return house.office.store.read(lambda db: tables.rollout(db, name))


def test_at_the_end_the_rules_are_asked_and_a_refusal_is_told(house):
    found = ended(house, "production")
    assert found.state.value == "COMPLETED"
    assert "; not in production, its rules are not met: " in found.reason
    assert house.office.store.read(lambda db: channels.bundle_of(db, found.model, "production")) != found.bundle
    entry = next(e for e in house.office.store.read(tables.all_audit) if e.action == "channel.refused")
    assert (entry.actor, entry.subject, entry.detail["channel"]) == ("engine", found.id, "production")


def test_a_channel_without_rules_is_set(house):
    found = ended(house, "site-c")
    assert "rules are not met" not in found.reason
    assert house.office.store.read(lambda db: channels.bundle_of(db, found.model, "site-c")) == found.bundle


# --- tokens ---


def test_open_tokens_are_listed_without_their_secret_and_can_be_taken_back(house):
    answer, text = sent(house, "/enrol", name="cam-7", life="3600")
    token = re.search(r"strop1\.\S+?(?=')", html.unescape(answer.text))[0]
    record = house.operations.devices.tokens()[0]
    assert record.wishes.name == "cam-7"
    page = house.ask("GET", "/enrol", cookies=house.cookies, headers=HTML).text
    assert record.id in page and "cam-7" in page
    assert token not in page
    answer, _ = sent(house, f"/enrol/{record.id}/revoke")
    assert (answer.status_code, answer.headers["location"]) == (303, "/enrol")
    page = house.ask("GET", "/enrol", cookies=house.cookies, headers=HTML).text
    assert record.id not in page
    assert "No token is open." in page
    answer, text = sent(house, "/enrol/nothing/revoke")
    assert answer.status_code == 400
    assert "no token and no batch is called 'nothing'" in text


def test_settings_of_a_query_are_one_transaction(house):
    """A fault in the middle leaves no device changed, and no audit entry."""
    twin = house.operations.twin

    def broken(*_):
        raise RuntimeError("the disk is gone")

    before, twin.settle = twin.settle, broken
    try:
        with pytest.raises(RuntimeError):
            twin.set_where("device:*", {"heartbeat_s": 77}, "ada")
    finally:
        twin.settle = before
    kept = house.office.store.read(lambda db: db.execute("SELECT document FROM device_config").fetchall())
    assert not any("77" in bytes(row["document"]).decode() for row in kept)
    assert not any(e.action == "device.config" for e in house.office.store.read(tables.all_audit))


def test_the_page_of_models_shows_which_checks_were_waived_and_why(house):
    text = " ".join(
        re.sub(r"<[^>]+>", "", house.ask("GET", "/models", cookies=house.cookies, headers=HTML).text).split()
    )
    assert "1 check waived" in text
    assert "Check by-site failed and was waived: 60.0 % [50.2, 69.1], asked at least 75 %." in text
    assert "Reason: site b is closed" in text
    assert "Checks passed: schema, leakage" in text
