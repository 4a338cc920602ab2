# SPDX-License-Identifier: Apache-2.0
"""Printed labels: every code on the page, as a browser draws it, is read back by a camera's library."""

import shutil

import pytest

from fleet.flash.labels import page
from fleet.flash.roster import Row

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROWS = [
    *(Row(f"cam-{n:02}", token="SECRET", token_id=f"t{n}", labels="site=a lab") for n in range(8)),
    Row("a" * 63, note="<b>north</b> & south"),
]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
def test_every_code_is_read_back_as_its_device(tmp_path):
    cv2 = pytest.importorskip("cv2")
    from playwright.sync_api import sync_playwright

    (tmp_path / "labels.html").write_text(page(ROWS, title="all & <each>"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(viewport={"width": 800, "height": 400}, device_scale_factor=3)
        foreign = []
        opened.on("request", lambda asked: foreign.append(asked.url))
        opened.goto((tmp_path / "labels.html").as_uri())
        for number, label in enumerate(opened.locator("article").all()):
            label.screenshot(path=str(tmp_path / f"{number}.png"))
        heights = opened.evaluate("[...document.querySelectorAll('article')].map(a => a.scrollHeight - a.clientHeight)")
        browser.close()
    pictures = [cv2.imread(str(tmp_path / f"{number}.png")) for number in range(len(ROWS))]
    assert [cv2.QRCodeDetector().detectAndDecode(one)[0] for one in pictures] == [row.name for row in ROWS]
    assert set(heights) == {0}, "nothing is cut off"
    assert len(foreign) == 1, "only the page itself"


def test_a_label_tells_no_token_and_takes_no_markup():
    text = page(ROWS, title="all & <each>")
    assert "SECRET" not in text
    assert "&lt;b&gt;north&lt;/b&gt; &amp; south" in text
    assert "<title>all &amp; &lt;each&gt;</title>" in text
    assert text.count("<svg") == len(ROWS)
    assert "<script" not in text
