# SPDX-License-Identifier: Apache-2.0
"""Words that an operator writes: plan files, waves, limits; each slip gets one line that names file and key."""

import pytest

from edge_contract.errors import RolloutError, UsageError
from fleet.commands.rollout_plan import moment, plan_text, read_plan_file
from fleet.commands.rollout_text import shown
from fleet.core.limits import Limits, Offline, Rate, Schedule
from fleet.core.rollout import new_rollout, read_plan
from fleet.core.waves import build_waves

BUNDLE = "a" * 64
PLAN = """
model = "digits"
version = "1.1.0"
soak_s = 600
retries = 2
max_failed_share = 0.05
min_finished = 20
on_failure = "roll-back"
channel = "production"
needs_approval = true

[rate]
per_minute = 50
factor = 2
after = 100

[schedule]
start_at = 2026-11-27T22:00:00+01:00
windows = ["Mon-Fri 22:00-05:00"]
clock = "device"

[shadow]
inferences = 1000
min_s = 3600
timeout_s = 86400

[[wave]]
name = "shadow"
kind = "shadow"
query = "board:rpi5"
count = 5

[[wave]]
name = "canary"
percent = 1

[[wave]]
rest = true
"""


def written(tmp_path, text):
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return path


def test_a_plan_file_says_what_the_api_understands(tmp_path):
    document = read_plan_file(written(tmp_path, PLAN))
    document.pop("version")
    request = read_plan({**document, "bundle": BUNDLE})
    limits = request.limits
    assert (limits.rate, limits.max_failures) == (Rate(50.0, 2.0, 100), -1)
    assert limits.schedule == Schedule(1795813200.0, 0.0, ("Mon-Fri 22:00-05:00",), "device")
    assert limits.shadow.min_s == 3600.0
    assert (request.channel, request.needs_approval) == ("production", True)
    waves = build_waves(request.waves, ["a", "b", "c"], lambda _query: ["b", "c"])
    assert [(w.name, w.kind, w.devices) for w in waves] == [
        ("shadow", "shadow", ("b", "c")),
        ("canary", "install", ("a",)),
        ("", "install", ("b", "c")),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model = ", r"plan.toml: no TOML"),
        ('modle = "digits"', r"plan.toml: unknown key 'modle'; use cancel_s"),
        ("[[wave]]\ncuont = 1", r"plan.toml: wave\[0\]: unknown key 'cuont'"),
        ("wave = 3", r"plan.toml: wave: expected tables; write \[\[wave\]\]"),
        ("rate = 50", r"plan.toml: rate: expected a table; write \[rate\]"),
        ("[schedule]\nstart_at = 2026-11-27T22:00:00", r"plan.toml: schedule.start_at: .* does not say its offset"),
        ('[schedule]\nend_at = "tomorrow"', r"plan.toml: schedule.end_at: 'tomorrow' is not a time"),
    ],
)
def test_a_slip_in_a_plan_names_file_and_key(tmp_path, text, words):
    with pytest.raises(UsageError, match=words):
        read_plan_file(written(tmp_path, text))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rate": {"per_minute": 0}}, "rollout.rate: per_minute must be positive"),
        ({"rate": {"per_minute": 1, "burst": 2}}, "rollout.rate: unknown field 'burst'"),
        ({"offline": {"policy": "skip"}}, "rollout.offline: after_s goes with policy 'skip'"),
        ({"schedule": {"windows": ["22-05"]}}, r"rollout.schedule.windows\[0\]: '22-05' is not a window"),
        ({"schedule": {"start_at": 5, "end_at": 5}}, "rollout.schedule: end_at is not after start_at"),
        ({"max_failed_share": 2}, "rollout.max_failed_share: is not a share"),
        ({"finished_share": 0}, "rollout.finished_share: must be above 0"),
        ({"retries": -1}, "rollout.retries: -1 is below 0"),
        ({"on_failure": "panic"}, "rollout.on_failure: unknown value 'panic'"),
        ({"shadow": {"inferneces": 3}}, "rollout.shadow: unknown field 'inferneces'"),
        ({"shadow": {"min_s": 700}}, "rollout.shadow: min_s is not below timeout_s"),
        ({"gates": {"alpha": 3}}, "rollout.gates: alpha = 3 is not above 0"),
        ({"max_failures": -1}, "rollout.max_failures: -1 is below 0"),
    ],
)
def test_a_slip_in_a_limit_names_its_field(change, words):
    with pytest.raises(RolloutError, match=words):
        read_plan({"model": "digits", "bundle": BUNDLE, **change})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"query": ""}, r"rollout.waves\[0\]: query = '' is not a wave"),
        ({"rest": True, "count": 1}, "expected"),
        ({"count": 1, "kind": "dark"}, r"rollout.waves\[0\].kind: unknown value 'dark'"),
        ({"count": 1, "soak_s": -1}, r"rollout.waves\[0\].soak_s: must not be negative"),
        ({"rest": False}, "rest = False is not a wave"),
        ({"query": "site:a"}, "cannot be asked here"),
    ],
)
def test_a_wave_that_is_none_is_refused(spec, words):
    with pytest.raises(RolloutError, match=words):
        build_waves([spec], ["a"])


def test_limits_survive_a_round_trip_and_those_of_the_version_before_mean_what_they_meant():
    limits = Limits(rate=Rate(5.0), offline=Offline("skip", 60.0), schedule=Schedule(1.0, 2.0), gates={"alpha": 0.01})
    assert Limits.from_json(limits.to_json()) == limits
    old = {"soak_s": 5.0, "timeout_s": 60.0, "grace_s": 1.0, "max_failures": 2, "probation": {}}
    assert Limits.from_json(old) == Limits(5.0, 60.0, 1.0, 2)


def test_times_are_never_guessed():
    assert moment(5, "x") == 5.0
    with pytest.raises(UsageError, match="True is not a time"):
        moment(True, "x")


def test_plans_and_rollouts_in_lines_of_text():
    waves = build_waves([{"count": 1, "kind": "shadow"}, {"rest": True}], ["a", "b"])
    document = new_rollout(1, ("digits", "1.1.0", BUNDLE), waves, Limits(), now=0.0).to_json()
    plan = {**document, "devices": 2, "absent": {"b": "the device is quarantined"}, "needs_approval": True}
    text = plan_text({**plan, "channel": "production"})
    assert "1     shadow   -     1: a" in text
    assert "b: the device is quarantined" in text
    assert "stands in 'production'" in text
    for wave, trial in zip(
        document["waves"], ({"compared": 9, "agreement": 0.5, "latency_ratio": 2.0}, None), strict=True
    ):
        wave.update(size=1, counts={"open": 1}, trial=trial)
    text = shown({**document, "executions": []})
    assert "wave 1: 50.0 % of 9 inputs agree, 2.00 times the active latency" in text
    assert "1 at work" in text
