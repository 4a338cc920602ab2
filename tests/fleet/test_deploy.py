# SPDX-License-Identifier: Apache-2.0
"""What lies in deploy/ fits the program: every metric, option, port and file that it names is there."""

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("strop-fleet*.service"))


def exported():
    """Every metric's name that the server may export."""
    names = set(re.findall(r'"(strop_[a-z_]+)"', (ROOT / "fleet/web/metrics.py").read_text()))
    bumped = set()
    for path in (ROOT / "fleet").rglob("*.py"):
        bumped |= set(re.findall(r'bump\(db, "([a-z_]+)"', path.read_text()))
    return names | {f"strop_ingest_{name}_total" for name in bumped}


def named(text):
    return set(re.findall(r"strop_[a-z_]+", text))


def test_rules_and_dashboard_ask_only_for_metrics_that_are_exported():
    rules = [line for line in (DEPLOY / "prometheus/strop.rules.yml").read_text().splitlines() if "expr:" in line]
    panels = json.loads((DEPLOY / "grafana/strop-fleet.json").read_text())["panels"]
    asked = named("\n".join(rules)) | {n for p in panels for t in p["targets"] for n in named(t["expr"])}
    assert len(rules) >= 8
    assert len(asked) >= 9
    assert asked <= exported()


def options(verb):
    from typer.main import get_command

    from fleet.cli import app

    return {text for one in get_command(app).commands[verb].params for text in one.opts}


def used(text):
    """Return (verb, option) of each command line."""
    for verb, words in re.findall(r"\b(serve|worker) (--[^\n]+(?:\n +--[^\n]+)*)", text):
        for option in re.findall(r"--[a-z-]+", words):
            yield verb, option


@pytest.mark.parametrize("path", [*UNITS, DEPLOY / "compose/compose.yaml"], ids=lambda path: path.name)
def test_options_in_units_and_compose_are_those_of_the_program(path):
    asked = set(used(path.read_text()))
    assert asked
    for verb, option in asked:
        assert option in options(verb), f"{verb} {option}"


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_are_hardened_and_come_back(unit):
    found = configparser.RawConfigParser(strict=False)
    found.optionxform = str
    found.read(unit)
    service = found["Service"]
    assert (service["Restart"], service["ProtectSystem"], service["NoNewPrivileges"]) == ("always", "strict", "yes")
    assert service["StateDirectory"] == "strop-fleet"
    if shutil.which("systemd-analyze"):
        told = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
        said = [line for line in told.stderr.splitlines() if unit.stem.rstrip("@") in line and "/opt/strop" not in line]
        assert [line for line in said if "Unknown" in line or "Failed to parse" in line] == []


def test_compose_waits_for_the_database_and_opens_no_more_than_it_must():
    yaml = pytest.importorskip("yaml", reason="pip install pyyaml")
    services = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())["services"]
    assert set(services) == {"postgres", "fleet", "worker", "prometheus", "grafana"}
    assert "ports" not in services["postgres"]
    assert services["fleet"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert services["grafana"]["ports"] == ["127.0.0.1:3000:3000"]
    from fleet.config import FleetConfig

    config = FleetConfig()
    opened = {int(words.split(":")[1]) for words in services["fleet"]["ports"]}
    assert opened == {config.http_port, config.device_port, config.enrol_port, config.mqtt_port}
