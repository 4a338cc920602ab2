# SPDX-License-Identifier: Apache-2.0
"""Versions with waived checks: a rule may keep them out of a channel, and whoever looks at them reads why."""

import pytest

from edge_contract.errors import RegistryError
from fleet.adapters import version_views
from fleet.core.rules import read_rules
from fleet.web.model_pages import models_of
from tests.support.registry import Registry

WAIVED = {
    "checks": {
        "passed": ["schema", "leakage"],
        "waived": [
            {
                "name": "by-site",
                "kind": "slices",
                "figure": "60.0 % [50.2, 69.1]",
                "limit": "at least 75 %",
                "words": "…",
                "reason": "site b is closed",
            }
        ],
    }
}
RULES = "[[rule]]\nchannel = 'production'\nwaived = false\n"


@pytest.fixture
def registry(tmp_path):
    found = Registry(tmp_path)
    found.rules(RULES)
    return found


def test_a_rule_keeps_waived_checks_out_of_production(registry):
    registry.add("1.0", WAIVED)
    (judged,) = registry.promotion.check("digits", "1.0")
    assert [one["words"] for one in judged["outcomes"]] == ["checks were waived (by-site): not met"]
    with pytest.raises(RegistryError, match=r"checks were waived \(by-site\): not met"):
        registry.releases.set("digits", "production", "1.0", "berta")
    registry.add("1.1", {"checks": {"passed": ["schema"], "waived": []}})
    (judged,) = registry.promotion.check("digits", "1.1")
    assert [one["words"] for one in judged["outcomes"]] == ["no check was waived: met"]


def test_a_rule_that_says_nothing_of_waivers_asks_nothing(registry):
    assert read_rules(RULES, "r")[0].waived is False
    registry.rules("[[rule]]\nchannel = 'production'\nwaived = true\n")
    registry.add("1.0", WAIVED)
    assert registry.promotion.check("digits", "1.0")[0]["outcomes"] == []


def test_a_flag_is_a_flag():
    with pytest.raises(RegistryError, match="waived = 'no'; give true or false"):
        read_rules("[[rule]]\nchannel = 'x'\nwaived = 'no'", "r")


def test_a_version_tells_its_waivers_and_can_be_searched_by_them(registry):
    registry.add("1.0", WAIVED)
    registry.add("1.1", {"checks": {"passed": ["schema"], "waived": []}})
    found = registry.read(version_views.version_json, "digits", "1.0")["checks"]
    assert found["passed"] == ["schema", "leakage"]
    assert found["waived"][0]["reason"] == "site b is closed"
    assert [one["version"] for one in registry.read(version_views.found_by, "waived:by-site")] == ["1.0"]


@pytest.mark.parametrize("said", [None, "x", [1], {"waived": "by-site"}, {"waived": [3], "passed": [4, "a"]}])
def test_a_lineage_of_other_makers_says_nothing(registry, said):
    registry.add("1.0", {"checks": said})
    found = registry.read(version_views.version_json, "digits", "1.0")["checks"]
    assert found["waived"] == []
    assert found["passed"] == (["a"] if isinstance(said, dict) and "passed" in said else [])


def test_the_page_of_models_has_both(registry):
    registry.add("1.0", WAIVED)
    (shown,) = registry.read(models_of, [])["models"]
    assert shown["checks_passed"] == ["schema", "leakage"]
    assert shown["waivers"][0]["name"] == "by-site"
