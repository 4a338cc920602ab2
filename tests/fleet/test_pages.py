# SPDX-License-Identifier: Apache-2.0
"""The pages in headless Chromium, on a server whose data came by real MQTT: what a person sees at once."""

import base64
import os
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from edge_contract.verdict import DriftState, judge
from fleet.web.charts import Point, accuracy_bar, drift_chart
from tests.support.fleet_bundle import window
from tests.support.fleet_server import until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def drifting(server, device, bundle, matcher, profile):
    """Eight windows, four of them shifted, with their results and labels."""
    start, state = 1.79e9, DriftState()
    for number in range(1, 9):
        at, shift = start + 20 * number, 0.33 if number > 4 else 0.0
        stamp = {"start_ms": int(at * 1000), "duration_ms": 20_000}
        summary, rows, labels = window(matcher, profile, device.name, bundle, number, seed=number, shift=shift, **stamp)
        verdict, state = judge(profile, summary, state)
        batch = device.rows("result", [{"bundle": bundle, "first": 1, "rows": rows}])
        device.send_batch(replace(batch, rows=tuple(replace(row, time=at + 3) for row in batch.rows)))
        text = base64.b64encode(summary.encode()).decode()
        device.send_batch(device.rows("drift", [{"bundle": bundle, "summary": text, "verdict": verdict.to_json()}]))
        server.call("POST", "/labels", {"device": device.name, "labels": labels})
    device.send_batch(device.rows("alarm", [{"kind": "drift", "bundle": bundle, "verdict": verdict.to_json()}]))


@pytest.fixture(scope="module")
def story(server, bundles, matcher, profile, tmp_path_factory):
    """Three devices: one drifts, one is gone, one failed as the canary of a bad version."""
    folder = tmp_path_factory.mktemp("devices")
    names = ("pi-canary", "pi-gone", "pi-stray")
    devices = {name: server.device(folder / name, name).connect() for name in names}
    waves = [{"devices": ["pi-canary"]}, {"rest": True}]
    for version in ("1.0.0", "1.1.0"):
        order = {"model": "digits", "bundle": bundles[version][1], "waves": waves, "timeout_s": 60}
        rollout = server.call("POST", "/rollouts", order)["id"]
        if version == "1.1.0":
            devices["pi-canary"].fail(devices["pi-canary"].order(), "agreement 0.31 <b>&</b> below 0.80")
            break
        for device in devices.values():
            device.install(device.order())
        until(lambda r=rollout: server.call("GET", f"/rollouts/{r}")["state"] == "COMPLETED")
    drifting(server, devices["pi-stray"], bundles["1.0.0"][1], matcher, profile)
    devices["pi-gone"].vanish()
    until(lambda: not server.call("GET", "/devices/pi-gone")["online"])
    until(lambda: server.call("GET", f"/rollouts/{rollout}")["state"] == "ABORTED")
    yield server, devices, rollout
    for device in devices.values():
        device.close()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(params=[(1280, 800), (390, 844)], ids=["desk", "phone"])
def page(request, browser):
    width, height = request.param
    opened = browser.new_page(viewport={"width": width, "height": height})
    opened.faults, opened.foreign = [], []
    opened.on("pageerror", lambda error: opened.faults.append(str(error)))
    opened.on("console", lambda said: opened.faults.append(said.text) if said.type == "error" else None)
    opened.on("request", lambda asked: opened.foreign.append(asked.url) if "//127.0.0.1" not in asked.url else None)
    yield opened
    assert opened.faults == []
    assert opened.foreign == []
    opened.close()


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def keep(page, name):
    """Leave a picture where STROP_SHOTS says, for a person to look at."""
    if folder := os.environ.get("STROP_SHOTS"):
        width = page.viewport_size["width"]
        page.screenshot(path=str(Path(folder) / f"{name}-{width}.png"), full_page=True)


@pytest.mark.browser
@pytest.mark.broker
def test_the_overview_shows_at_once_who_drifts_and_which_rollout_stopped_and_why(story, page):
    server, _, rollout = story
    page.goto(server.endpoints["http"])
    attention = page.locator(".attention")
    assert attention.bounding_box()["y"] < page.viewport_size["height"] / 2
    text = attention.inner_text()
    assert "pi-stray drifts" in text
    assert "not valid" in text or re.search(r"estimated accuracy \d+\.\d %", text)
    assert re.search(r"true \d+\.\d %", text)
    assert f"Rollout {rollout} of digits 1.1.0 stopped" in text
    assert "pi-canary rolled back: agreement 0.31 <b>&</b> below 0.80" in text  # as text, never as markup
    rows = page.locator("table.devices tbody tr")
    assert rows.count() == 3
    stray = rows.filter(has_text="pi-stray")
    assert "drift alarm" in stray.inner_text()
    assert "level-alarm" in stray.get_attribute("class")
    assert "1.0.0" in stray.inner_text()
    assert "offline" in rows.filter(has_text="pi-gone").inner_text()
    assert "online" in rows.filter(has_text="pi-canary").inner_text()
    stopped = page.locator(".rollouts > .aborted").inner_text()
    assert "failed" in stopped
    assert "skipped" in stopped
    assert fits(page)
    keep(page, "overview")


@pytest.mark.browser
@pytest.mark.broker
def test_the_device_page_tells_what_moved_and_when(story, page):
    server, _, _ = story
    page.goto(server.endpoints["http"])
    page.get_by_role("link", name="pi-stray").first.click()
    assert page.locator("h1").inner_text() == "pi-stray"
    assert page.locator(".moved li").count() >= 1
    assert page.locator("svg.chart .dot").count() == 8
    assert page.locator("svg.chart .true-dot").count() == 8
    assert page.locator("svg.chart .dot.alarm").count() >= 2
    assert "drift" in page.locator(".events tr.alarm").inner_text()
    assert page.locator("meter").count() == 7
    assert fits(page)
    keep(page, "device")


@pytest.mark.browser
@pytest.mark.broker
def test_the_rollout_page_names_the_device_its_phase_and_the_reason(story, page):
    server, _, rollout = story
    page.goto(f"{server.endpoints['http']}/rollouts/{rollout}")
    assert "pi-canary rolled back: agreement" in page.locator(".banner").inner_text()
    row = page.locator("tbody tr").filter(has_text="pi-canary").inner_text()
    assert "rolled back" in row
    assert "not touched" in page.locator("main").inner_text()
    assert fits(page)
    keep(page, "rollout")


@pytest.mark.browser
@pytest.mark.broker
def test_models_and_audit_are_readable(story, page):
    server, _, _ = story
    page.goto(f"{server.endpoints['http']}/models")
    assert "digits 1.0.0" in page.locator("main").inner_text()
    assert fits(page)
    keep(page, "models")
    page.goto(f"{server.endpoints['http']}/audit")
    assert page.locator(".chip.ok").inner_text() == "chain holds"
    assert fits(page)
    keep(page, "audit")


@pytest.mark.browser
@pytest.mark.broker
def test_the_page_follows_what_happens_without_a_reload(story, page):
    server, devices, _ = story
    page.goto(f"{server.endpoints['http']}/devices/pi-canary")
    page.evaluate("window.untouched = true")
    device = devices["pi-canary"]
    device.inferences += 12345
    device.report()
    page.locator("td", has_text=f"{device.inferences:,}".replace(",", " ")).wait_for(timeout=15_000)
    assert page.evaluate("window.untouched")


def shape(markup):
    return ET.fromstring(str(markup))


def test_pictures_are_well_formed_and_stay_inside_their_frame():
    points = [
        Point("ok", 0.95, 0.9, 1.0, None, True, "one"),
        Point("insufficient", None, None, None, 0.5, False, "<two>"),
        Point("alarm", 0.1, 0.0, 0.3, 0.05, False, "three"),
    ]
    chart = shape(drift_chart(points, 0.97))
    _, _, width, height = map(float, chart.get("viewBox").split())
    for circle in chart.iter("circle"):
        assert 0 <= float(circle.get("cx")) <= width
        assert 0 <= float(circle.get("cy")) <= height
    assert [t.text.split(":")[0] for t in chart.iter("title")] == ["one", "<two>", "three"]
    bar = shape(accuracy_bar(0.5, 0.4, 0.6, 0.3, 0.9))
    assert {child.get("class") for child in bar} == {"track", "band", "reference", "true", "estimated"}
    assert len(list(shape(accuracy_bar(None, None, None, None, None)))) == 1


def test_a_chart_of_nothing_is_no_fault():
    assert shape(drift_chart([], None)).tag == "svg"
