# SPDX-License-Identifier: Apache-2.0
"""Drift as the operator sees it: pages, API, command line, metrics and export, over one real server's devices."""

import base64
import csv
import importlib.util
import re
import time
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from edge_contract.errors import UsageError
from fleet.commands.drift_cmd import drift
from fleet.commands.drift_files import write_rows
from fleet.web.drift_charts import Strip, effect_bar, effect_words, strips
from tests.support.fleet_bundle import window
from tests.support.fleet_server import until

NAMES = ("cam-1", "cam-2", "cam-3")


def told(device, bundle, matcher, profile, at, shift, seed):
    """Send one window of an hour that ended a while ago; what was seen depends on the seed, never on the clock."""
    number = int(at // 3600)
    summary, _, _ = window(
        matcher, profile, device.name, bundle, number, seed=seed + 10 * int(device.name[-1]), shift=shift,
        start_ms=int(1000 * (at - 3600)), duration_ms=3_600_000,
    )  # fmt: skip
    text = base64.b64encode(summary.encode()).decode()
    batch = device.rows("drift", [{"bundle": bundle, "summary": text}])
    device.send_batch(replace(batch, rows=tuple(replace(row, time=at) for row in batch.rows)))


@pytest.fixture(scope="module")
def town(server, bundles, matcher, profile, tmp_path_factory):
    """Three devices, five hours each; the second one's lens got dirty three hours ago."""
    folder, now = tmp_path_factory.mktemp("town"), time.time()
    devices = [server.device(folder / name, name).connect() for name in NAMES]
    for device in devices:
        for back in range(5, 0, -1):
            shift = 0.33 if device.name == "cam-2" and back <= 3 else 0.0
            told(device, bundles["1.0.0"][1], matcher, profile, now - 3600 * back + 1800, shift, back)
    until(lambda: seen(server).get("devices") == 3, "the cohort")
    yield server
    for device in devices:
        device.close()


def seen(server, query=""):
    found = server.call("GET", f"/drift/cohorts{query}")["cohorts"]
    return found[0] if found else {}


def strop(server, *words):
    return CliRunner().invoke(drift, [*words, "--data", str(server.data)])


def test_the_api_names_the_device_that_differs_and_since_when(town):
    one = seen(town)
    assert (one["kind"], one["model"], one["version"]) == ("differ", "digits", "1.0.0")
    assert [device["device"] for device in one["odd"]] == ["cam-2"]
    assert one["odd"][0]["level"] == "ALARM"
    assert one["inputs"] == {"learning": 3}
    assert {channel["name"] for channel in one["channels"]} >= {"class", "energy", "input"}
    hours = town.call("GET", f"/drift/cohorts/{one['bundle']}")["hours"]
    assert len(hours) in (5, 6)
    assert hours[0]["p95_us"] > hours[0]["p50_us"] > 0
    some = seen(town, "?where=device:cam-1")
    assert (some["devices"], some["kind"]) == (1, "calm")
    town.call("POST", "/devices/labels", {"where": "device:cam-1", "put": {"floor": "cellar"}})
    floors = town.call("GET", "/drift/cohorts?by=floor")["cohorts"]
    assert {cohort["value"]: cohort["devices"] for cohort in floors} == {"cellar": 1, "–": 2}
    assert town.send("GET", "/api/v1/drift/cohorts?by=a%20b").status_code == 400
    assert town.send("GET", "/api/v1/drift/cohorts/feed").status_code == 404


def test_the_pages_say_it_in_words_and_draw_it(town):
    page = town.send("GET", "/drift").text
    assert "cam-2 differs from the cohort; the others agree" in page
    assert "hours of the day are being learned" in page
    detail = re.search(r'href="(/drift/cohort\?[^"]+)"', page).group(1).replace("&amp;", "&")
    shown = town.send("GET", detail).text
    assert "Devices that differ from the others" in shown
    chart = re.search(r'<svg class="chart strips".*?</svg>', shown, re.DOTALL).group(0)
    assert "oldest hour left" in ET.fromstring(chart).get("aria-label")
    assert town.send("GET", "/drift/cohort?bundle=feed").status_code == 404
    by_site = town.send("GET", "/drift?by=site").text
    assert '<a href="/drift?by=site" aria-current="true">' in by_site
    assert "cam-2 differs from the cohort" in by_site, "no site is a site, too"
    device = town.send("GET", "/devices/cam-2").text
    assert "<b>Differs</b> from the 3 devices of its version" in device
    assert "Window by window" in device


def test_the_command_line_lists_cohorts_devices_and_exports(town, tmp_path):
    table = strop(town).stdout
    assert re.search(r"digits 1\.0\.0 +3 +differ .*cam-2", table)
    assert "cam-2" in strop(town, "devices").stdout
    done = strop(town, "export", str(tmp_path / "w.csv"), "--json")
    assert '"rows": 15' in done.stdout, done.output
    with (tmp_path / "w.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["device"] for row in rows} == set(NAMES)
    odd = [float(row["energy_effect"]) for row in rows if row["device"] == "cam-2"]
    assert max(odd) > 10 * max(0.01, *(float(row["energy_effect"]) for row in rows if row["device"] == "cam-1"))
    assert sum(map(int, rows[0]["energy_counts"].split())) == 200
    assert rows[0]["inputs"] == "learning"
    few = strop(town, "export", str(tmp_path / "f.csv"), "--where", "device:cam-1", "--since", "3", "--json")
    assert '"rows": 3' in few.stdout, few.output
    wrong = strop(town, "export", str(tmp_path / "w.xls"))
    assert "unknown format 'xls'" in str(wrong.exception)


def test_prometheus_gets_sums_of_models(town):
    lines = town.send("GET", "/metrics").text.splitlines()
    assert 'strop_drift_devices{model="digits",version="1.0.0",level="ALARM"} 1' in lines
    assert 'strop_cohort_outliers{model="digits",version="1.0.0"} 1' in lines
    assert 'strop_cohort_moved{model="digits",version="1.0.0"} 0' in lines
    assert any(line.startswith("strop_cohort_effect{") and 'channel="energy"' in line for line in lines)


ROWS = [{"device": f"d{i}", "n": i, "p": None if i % 2 else 0.5, "counts": [i, 2 * i]} for i in range(5)]


def test_parquet_comes_back_as_it_went_or_says_what_is_missing(tmp_path):
    out = tmp_path / "w.parquet"
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(UsageError, match=r"pyarrow, which is not installed; pip install 'strop\[parquet\]'"):
            write_rows(ROWS, out)
        assert list(tmp_path.iterdir()) == []
        return
    pandas = pytest.importorskip("pandas")
    assert write_rows(ROWS, out) == (5, "parquet")
    found = pandas.read_parquet(out)
    assert found["device"].tolist() == [row["device"] for row in ROWS]
    assert [list(counts) for counts in found["counts"]] == [row["counts"] for row in ROWS]
    assert found["p"].isna().tolist() == [False, True, False, True, False]


def test_csv_is_read_by_pandas_and_runs_nothing_in_a_spreadsheet(tmp_path):
    pandas = pytest.importorskip("pandas")
    rows = [{**row, "device": "=1+1"} if row["n"] == 3 else row for row in ROWS]
    assert write_rows(rows, tmp_path / "w.csv") == (5, "csv")
    found = pandas.read_csv(tmp_path / "w.csv")
    assert found["device"][3] == "'=1+1"
    assert found["counts"][2] == "2 4"
    assert write_rows([], tmp_path / "none.csv") == (0, "csv")
    with pytest.raises(UsageError, match="cannot be written"):
        write_rows(ROWS, tmp_path / "no" / "w.csv")


def test_strips_tell_everything_without_colour():
    points = [
        Strip(
            1.79e9 + 3600 * i,
            "warn" if i else "ok",
            {"energy": 0.04 * i, "a<b": 1.0},
            frozenset({"energy"} if i else ()),
        )
        for i in range(3)
    ]
    points[2] = replace(points[2], p50_us=900.0, p95_us=1200.0, temperature_c=51.0)
    picture = ET.fromstring(strips(points, 'two & "three"'))
    assert (picture.get("role"), picture.get("aria-label")) == ("img", 'two & "three"')
    texts = [one.text for one in picture.iter("text")]
    assert texts[:4] == ["energy", "0.3 σ", "a<b", "1.0 σ"]
    assert {"latency", "1.2 ms", "temperature", "51 °C", "level"} <= set(texts)
    assert len([one for one in picture.iter("path") if one.get("class") == "mark"]) == 2
    titles = [one.text for one in picture.iter("title")]
    assert sum(", moved" in text for text in titles) == 2
    assert strips([], "nothing") == ""
    assert ET.fromstring(strips([Strip(0.0, "insufficient", {})], "one")).tag == "svg"
    assert "moved" in effect_bar(2.0, True)
    assert effect_words(0.05) == "0.2 σ, slight"
