# SPDX-License-Identifier: Apache-2.0
"""Pictures and the page: what is drawn is what was measured, nothing is fetched, and a browser shows it."""

import hashlib
import re
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from benchmarks.pictures import costs, latencies
from benchmarks.pictures.make import pictures_of, report
from benchmarks.pictures.shown import shown_of
from benchmarks.pictures.style import png, svg
from benchmarks.record import Reading
from benchmarks.result import build, load, save
from benchmarks.result.schema import Energy, Prediction
from edge_contract.errors import UsageError
from strop.cli import app
from tests.benchmarks.result.made import ARTIFACT, QUALITY, launch, measurement, plan

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def of(name, folder, *, us=180.0, right=0.9, energy=None, predicted=None, ops=None, **more):
    """Measure a made-up file and keep it: the name decides its bytes."""
    sha = hashlib.sha256(name.encode()).hexdigest()
    whole = measurement(3, runs=100, us=us, **more)
    whole = replace(whole, plan=replace(whole.plan, sha256=sha))
    quality = replace(QUALITY, value=right, ci95=(right - 0.01, right + 0.01), sha256=sha)
    made = build(whole, quality, artifact=replace(ARTIFACT, sha256=sha, name=name, bytes=int(100 * us)))
    made = replace(made, energy=energy, prediction=predicted, ops=ops)
    path = save(made, whole, folder)
    return path, load(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("results")
    ops = {"ops": [{"kind": f"conv{i}", "name": f"layer/{i}", "median_us": 20.0 - i} for i in range(12)]}
    of(
        "net-a",
        place,
        us=180.0,
        right=0.90,
        energy=Energy("ina226", 4.0),
        predicted=Prediction(185.0, 170.0, 200.0, 0.9),
        ops=ops,
    )
    of("net-b", place, us=300.0, right=0.93, energy=Energy("ina226", 8.0), predicted=Prediction(360.0))
    second = 1_000_000_000
    readings = tuple(Reading(7 + i * second, 50.0 + i / 10, (2_400_000,), 0 if i < 90 else 4) for i in range(180))
    starts = tuple(7 + i * second // 5 for i in range(5 * 180))
    one = replace(
        launch(0), stages_ns={"invoke": (10**8,) * 900, "total": (10**8,) * 900}, starts_ns=starts, readings=readings
    )
    whole = replace(measurement(1), plan=plan(scenario="sustained", launches=1), launches=(one,))
    save(build(whole, QUALITY, artifact=ARTIFACT), whole, place)
    whole = measurement(3, runs=50)
    whole = replace(whole, plan=replace(whole.plan, threads=4))
    save(build(whole, QUALITY, artifact=ARTIFACT, emulated=True), whole, place)
    return place


@pytest.fixture(scope="module")
def shown(folder):
    from benchmarks.result.store import load_all

    return shown_of(load_all([folder])[0])


@pytest.fixture(scope="module")
def drawings(shown):
    """Draw each picture once: kind of picture → (picture, SVG of each)."""
    found = {}
    for one in pictures_of(shown):
        found.setdefault(re.sub(r"-[0-9a-f]{12}.*", "", one.name), []).append((one, svg(one)))
    return found


def words(text):
    return re.sub(r"<[^>]+>", " ", text)


def test_names_say_only_what_differs(shown):
    names = [one.name for one in shown]
    assert names == ["digits int8 · single", "digits int8 · sustained", "net-a · single", "net-b · single"]


def test_every_kind_of_picture_is_there(drawings):
    assert set(drawings) == {"quantiles", "ecdf", "pareto", "stages", "sustained", "predicted", "sequence", "operators"}


def test_every_picture_has_labels_with_units(drawings):
    units = {
        "quantiles": "latency, ms",
        "ecdf": "share of the runs",
        "pareto": "top-1 accuracy, %",
        "stages": "ms, one after",
        "sustained": "inferences per second",
        "predicted": "measured p50, ms",
        "sequence": "measured time, s",
        "operators": "µs in one inference",
    }
    for kind, pictures in drawings.items():
        for one, text in pictures:
            assert units[kind] in words(text), one.name
            assert one.label
            assert one.caption.endswith(".")


def test_the_sequence_shows_clock_temperature_and_throttling(shown, drawings):
    (text,) = [words(text) for one, text in drawings["sequence"] if "sustained" in one.name]
    assert "GHz" in text
    assert "°C" in text
    assert "throttled" in text
    cold = replace(shown[-1].launches[0], readings=())
    bare = replace(shown[-1], measurement=replace(shown[-1].measurement, launches=(cold,)))
    assert "tells no clock and no temperature" in latencies.sequence(bare).caption


def test_an_emulated_result_is_in_no_picture_of_time(shown):
    (emulated,) = [one for one in shown if one.result.device.emulated]
    assert pictures_of([emulated]) == []


def test_accuracy_of_other_samples_is_not_laid_beside(shown):
    timed = [one for one in shown if one.result.artifact.name.startswith("net-")]
    assert len(costs.pareto(timed)) == 1
    other = replace(timed[0].result, quality=replace(timed[0].result.quality, data="f" * 64))
    assert costs.pareto([replace(timed[0], result=other), timed[1]]) == []


def test_bubbles_stand_for_energy_where_all_have_it(shown):
    timed = [one for one in shown if one.result.artifact.name.startswith("net-")]
    assert "bubble" in costs.pareto(timed)[0].caption
    without = replace(timed[0], result=replace(timed[0].result, energy=None))
    assert "bubble" not in costs.pareto([without, timed[1]])[0].caption


def test_the_ten_slowest_operators_are_drawn(drawings):
    ((one, text),) = drawings["operators"]
    assert "layer/9" in text
    assert "layer/10" not in text
    assert "10 of 12 operators" in one.caption


def test_predictions_are_counted_within_ten_percent(shown):
    (found,) = costs.predictions(shown)
    assert found.caption.startswith("1 of 2 within ± 10 %")


def test_the_same_results_give_the_same_bytes(drawings):
    ((one, text),) = drawings["predicted"]
    assert svg(one) == text
    assert png(one).startswith(b"\x89PNG")


def test_an_svg_has_only_the_colours_of_the_page(drawings):
    for one, text in (pair for pictures in drawings.values() for pair in pictures):
        assert set(re.findall(r"#[0-9a-f]{6}\b", text)) <= {"#000000"}, one.name


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    """Return the page's file and what was printed."""
    out = tmp_path_factory.mktemp("page") / "page.html"
    return out, report([folder], out=out)


def test_the_page_is_whole_and_strict(page):
    out, said = page
    text = out.read_text("utf-8")
    assert "net-a" in said
    assert "default-src 'none'" in text
    assert not re.search(r"<script|<img|<link|@import|url\((?!#)|src=", text)
    assert not re.search(r'href="(?!#)', text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert "correctness" in text
    assert "strop bench run model.tflite --runtime litert" in text


def test_the_command_checks_and_draws(folder, tmp_path):
    one = next(folder.glob("raspberry*/*single-bare.json"))
    done = CliRunner().invoke(app, ["bench", "report", str(one), "--png", str(tmp_path / "png"), "--check"])
    assert done.exit_code == 0, done.output
    assert "checked: every figure of 1 follows from the raw samples" in done.output
    assert {"quantiles.png", "ecdf.png", "stages.png"} <= {one.name for one in (tmp_path / "png").iterdir()}
    done = CliRunner().invoke(app, ["bench", "report", str(folder), "--json"])
    assert done.output.startswith('[{"schema": "edgebench/1"')


def test_no_result_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="no result; give"):
        report([tmp_path])


@pytest.mark.browser
def test_a_browser_shows_the_page_in_both_themes_and_in_a_narrow_window(page):
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        grounds, heard = {}, []
        for scheme, width in (("light", 1150), ("dark", 1150), ("light", 390)):
            tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            tab.on("console", lambda message: heard.append(message.text))
            tab.on("request", lambda asked: heard.append(asked.url) if not asked.url.startswith("file:") else None)
            tab.goto(page[0].as_uri())
            grounds[scheme] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.locator("svg").count() >= 8
            tab.close()
        browser.close()
    assert heard == []
    assert grounds["light"] != grounds["dark"]
