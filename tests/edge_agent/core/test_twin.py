# SPDX-License-Identifier: Apache-2.0
"""Settings from the server: which are taken, which are refused and reported, and what survives."""

import pytest

from edge_agent.core.effects import KeepRow
from edge_agent.core.twin import Settings, Twin, apply_desired, merge
from edge_contract.messages import DesiredState
from tests.support.device_sim import Device

SOURCES = frozenset({"test", "other"})

REFUSED = {
    "unknown word": ({"colour": "red"}, "colour", "unknown setting"),
    "undeclared source": ({"source": "mic"}, "source", "'mic' is not declared in agent.toml (declared: other, test)"),
    "no text": ({"source": 3}, "source", "3 is not text"),
    "no count": ({"window_inferences": 0.5}, "window_inferences", "is not a count"),
    "true is no count": ({"window_inferences": True}, "window_inferences", "is not a count"),
    "too short": ({"heartbeat_s": 0}, "heartbeat_s", "0 is not between 0.5 and 86400 seconds"),
    "no number": ({"window_s": "soon"}, "window_s", "expected a number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_word_that_does_not_fit_is_refused_alone(name: str) -> None:
    config, key, reason = REFUSED[name]
    settings, ignored = merge(Settings(), {**config, "window_s": config.get("window_s", 120)}, SOURCES)
    assert reason in ignored[key]
    assert list(ignored) == [key]
    assert settings.window_s == (3600.0 if key == "window_s" else 120.0)


def test_a_lower_or_equal_version_is_ignored() -> None:
    twin, settings = apply_desired(
        Twin(), DesiredState(3, {}, {"source": "test"}), {"digits": Settings()}, SOURCES
    ) or (None, None)
    assert twin is not None
    assert settings == [Settings(source="test")]
    for version in (3, 2, 0):
        assert (
            apply_desired(twin, DesiredState(version, {}, {"source": "other"}), {"digits": Settings()}, SOURCES) is None
        )


def test_a_word_that_the_server_takes_back_falls_back_to_agent_toml() -> None:
    device = Device()
    device.run(2)
    device.want(1, source="other")
    device.run(3)
    assert device.state.first.runner.source == "other"
    device.want(2)
    device.run(3)
    assert device.state.first.runner.source == "test"


def test_settings_survive_a_power_cut_without_network() -> None:
    device = Device()
    device.run(2)
    device.want(5, source="other", heartbeat_s=60, colour="red")
    device.run(3)
    device.online = False
    device.power_cycle()
    device.retained.clear()
    device.run(5)
    assert device.state.first.settings.heartbeat_s == 60.0
    assert device.state.first.runner.source == "other"
    device.online = True
    device.run(3)
    reported = device.server.reported
    assert reported is not None
    assert reported.desired_version == 5
    assert reported.config["ignored"] == {"colour": "unknown setting"}


def test_a_source_that_fails_is_reported_and_the_other_one_goes_on() -> None:
    device = Device()
    device.run(3)
    from edge_agent.core.events import RunnerSaid

    device._feed(RunnerSaid(device.now(), {"event": "source_failed", "name": "test", "reason": "no such file"}))
    device.run(3)
    assert device.server.reported is not None
    assert device.server.reported.config["ignored"] == {"source": "no such file"}
    assert "source_failed" in [body["kind"] for body in device.server.bodies("alarm")]


def test_a_report_is_sent_at_once_on_change_and_else_with_the_heartbeat() -> None:
    device = Device()
    device.run(30)
    said = [channel for channel, _ in device.server.said if channel == "twin/reported"]
    device.run(30)
    after = [channel for channel, _ in device.server.said if channel == "twin/reported"]
    assert len(after) - len(said) == 3
    device.want(1, source="other")
    device.run(1)
    assert device.server.reported is not None
    assert device.server.reported.desired_version == 1


def test_without_a_link_metric_rows_cover_a_minute_and_none_is_missing_afterwards() -> None:
    device = Device()
    device.run(20)
    device.online = False
    device.run(5)
    device.trace.clear()
    device.run(240)
    kept = [effect for effect in device.trace if isinstance(effect, KeepRow) and effect.cls == "metric"]
    assert len(kept) == 4, "one a minute, not one every ten seconds"
    device.online = True
    device.run(30)
    counted = sum(body.get("n", 0) for body in device.server.bodies("metric"))
    assert counted >= 0.9 * 290, "each row counts since the one before"
    said = [channel for channel, _ in device.server.said if channel == "twin/reported"]
    device.run(30)
    assert [channel for channel, _ in device.server.said].count("twin/reported") - len(said) == 3
