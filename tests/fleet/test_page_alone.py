# SPDX-License-Identifier: Apache-2.0
"""A newcomer with the page alone: comes in, enrols devices, rolls out, finds the one that drifts, rolls back."""

import re

import pytest

from edge_agent.adapters.enrol import enrol
from tests.fleet.test_page_tls import first_link
from tests.fleet.test_pages import CHROMIUM, FLAGS, drifting, fits, keep
from tests.support.fleet_server import SimulatedDevice, until

pytestmark = [pytest.mark.browser, pytest.mark.broker]


@pytest.fixture
def page():
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page(viewport={"width": 1280, "height": 800})
        opened.faults = []
        opened.on("pageerror", lambda error: opened.faults.append(str(error)))
        opened.on("console", lambda said: opened.faults.append(said.text) if said.type == "error" else None)
        yield opened
        assert opened.faults == []
        browser.close()


def come_in(page, server):
    page.goto(first_link(server))
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill("three grey herons")
    page.get_by_label("The same again").fill("three grey herons")
    page.get_by_role("button", name="Make the account").click()
    assert page.locator("header").get_by_text("ada").is_visible()


def enrol_by_form(page, server, folder, name):
    """Make a token with the page, and paste what it says on the device."""
    page.get_by_role("link", name="Devices", exact=True).click()
    page.get_by_role("link", name="Enrol a device").click()
    page.get_by_label("Name of the device").fill(name)
    page.get_by_role("button", name="Make a token").click()
    told = page.locator(".paste").inner_text()
    token, url, named = re.search(r"echo '(\S+)'.*--server (\S+) .*--device (\S+)", told, re.DOTALL).groups()
    assert named == name
    enrol(folder, url, token, name)
    return SimulatedDevice(server, folder, name).connect()


def take_back_a_token(page):
    """Make one token too many, find it in the list, and take it back."""
    page.get_by_role("link", name="Devices", exact=True).click()
    page.get_by_role("link", name="Enrol a device").click()
    page.get_by_role("button", name="Make a token").click()
    page.get_by_role("link", name="Another device").click()
    keep(page, "alone-tokens")
    page.get_by_role("button", name=re.compile("Take back token")).click()
    page.get_by_text("No token is open.").wait_for()


def roll_out(page, version, waves, **pace):
    page.get_by_role("link", name="Rollouts", exact=True).click()
    page.get_by_role("link", name="Start a rollout").click()
    label = page.locator("option", has_text=version).get_attribute("value")
    page.get_by_label("Model").select_option(label)
    page.get_by_label("Waves, one a line").fill("\n".join(waves))
    page.get_by_label("Soak, minutes").fill("0")
    page.get_by_label("Judge each wave").uncheck()
    if pace:
        page.get_by_text("Pace, maintenance windows").click()
        for label, value in pace.items():
            page.get_by_label(label.replace("_", " ")).fill(value)
        page.get_by_label("A device that is away").select_option("skip")
    page.get_by_role("button", name="Show the plan").click()
    keep(page, f"alone-plan-{version}")
    page.get_by_role("button", name=re.compile("Start it")).click()
    return page.locator("h1").inner_text().split()[1]


def test_a_newcomer_does_it_all_with_the_page_alone(new_server, page, bundles, matcher, profile, tmp_path):
    server = new_server()
    server.trust()
    for version in ("1.0.0", "1.1.0"):
        server.register(bundles[version][0])
    come_in(page, server)
    keep(page, "alone-first")
    devices = [enrol_by_form(page, server, tmp_path / name, name) for name in ("cam-1", "cam-2")]
    try:
        take_back_a_token(page)
        first = roll_out(page, "1.0.0", ["1", "rest"])
        for device in devices:
            device.install(device.order())
        page.locator(".head .chip", has_text="completed").wait_for(timeout=20_000)  # the page follows by itself
        pace = {"Devices_a_minute": "600", "Orders_leave_only": "00:00-24:00", "Channel_that": "production"}
        second = roll_out(page, "1.1.0", ["cam-1", "rest"], **pace)
        for device in devices:
            device.install(device.order())
        page.locator(".head .chip", has_text="completed").wait_for(timeout=20_000)

        drifting(server, devices[1], bundles["1.1.0"][1], matcher, profile)
        page.get_by_role("link", name="Fleet", exact=True).click()
        page.locator(".attention").get_by_role("link", name="cam-2").click(timeout=20_000)
        assert page.locator(".moved li").count() >= 1
        assert fits(page)
        keep(page, "alone-drift")

        page.get_by_role("link", name=second, exact=True).first.click()
        page.get_by_role("link", name="Roll back").click()
        page.get_by_label("Reason").fill("drift on cam-2")
        keep(page, "alone-confirm")
        page.get_by_role("button", name="Roll back the rollout").click()
        for device in devices:
            job = device.order()
            assert job.bundle == bundles["1.0.0"][1]
            device.install(job)
        page.goto(f"{server.endpoints['http']}/rollouts/{second}")
        page.locator(".head .chip", has_text="rolled back").wait_for(timeout=20_000)
        keep(page, "alone-back")
        page.get_by_role("link", name="Audit", exact=True).click()
        text = page.locator("main").inner_text()
        assert "rollout.rollback" in text
        assert re.search(r"ada\s+rollout\.start", text)
        assert first != second
        until(lambda: all(server.call("GET", f"/devices/{d.name}")["in_sync"] for d in devices), "the fleet in sync")
    finally:
        for device in devices:
            device.close()


def test_a_keyboard_alone_reaches_everything(new_server, page):
    server = new_server()
    page.goto(server.endpoints["http"])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")
    page.goto(f"{server.endpoints['http']}/devices")
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.outerHTML.slice(0, 60)"))
    every = page.locator("a[href], button, input:not([type=hidden]), select, textarea, summary").count()
    assert len(set(reached)) >= every - 1
    nameless = page.evaluate(
        "[...document.querySelectorAll('a, button, input:not([type=hidden])')].filter(one => "
        "!(one.textContent.trim() || one.labels?.length || one.getAttribute('aria-label'))).length"
    )
    assert nameless == 0
