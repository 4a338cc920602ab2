# SPDX-License-Identifier: Apache-2.0
"""The page of a run: one file that asks for nothing, shows everything, and is the same bytes every time."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from compress.report_page import page
from compress.report_page.pareto import front
from compress.report_page.style import INK, picture
from tests.support.reports import full_report


@pytest.fixture(scope="module")
def text():
    return page(full_report())


class Tags(HTMLParser):
    """Opened and closed tags match, and no id is given twice."""

    def __init__(self):
        super().__init__()
        self.open, self.ids = [], []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_well_formed(text):
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert len(tags.ids) == len(set(tags.ids))


def test_every_picture_is_an_image_with_a_name_of_its_own(text):
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    for one in pictures:
        ET.fromstring(one)
        used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', one))
        assert used <= set(re.findall(r'\bid="([^"]+)"', one))
    labels = re.findall(r'role="img" aria-label="([^"]*)"', text)
    assert len(labels) == len(pictures) == len(set(labels))


def test_page_asks_for_nothing_from_elsewhere(text):
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)", text)
    for word in ("@import", "<script", "<link", "<metadata", "url(http"):
        assert word not in text


def test_every_colour_of_a_picture_is_one_of_the_page(text):
    body = text[text.index("<body>") :]
    assert not set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{3,6})", body))
    assert INK not in body
    assert "prefers-color-scheme: dark" in text
    assert set(re.findall(r"var\(--(\w+)\)", body)) <= {"ink", "quiet", "calm", "loud", "pale", "paper"}


SAYS = {
    "tiles": ["92.5 %", "<b>2.50</b><span>points dropped", "0.4 KB", "6.0 × less", "7 k"],
    "steps": ["1. train (labels)", "2. prune (taylor)", "3. quantize (static-int8)", "zipped", "peak KB"],
    "budget": ['<li class="kept">size_kb: 0.4 ≤ 1</li>', '<li class="missed">max_drop: 2.5 &gt; 1</li>'],
    "pareto": ["accuracy against weights, KB", "accuracy against MACs, thousands", "the 2 trials of the search"],
    "ladder": ["3 attempts; the best is adaptive rounding (layer by layer): +0.50 points", "92.5 [88.0, 95.4]"],
    "fidelity": ["The first layer that falls far below what it reads is head (8.5 dB lower)", "0.99110", "0.200"],
    "histograms": ["histogram of head, weights", "histogram of head, output", "-0.5 … 0.375 / -0.5 … 0.5"],
    "sensitivity": ["what each layer alone costs", "3.00e-03", "4 bits: KL"],
    "notes": ["<li>only 20 calibration samples</li>"],
}


@pytest.mark.parametrize("part", SAYS)
def test_page_says(text, part):
    for words in SAYS[part]:
        assert words in text


def test_layer_names_are_escaped(text):
    assert "pool&lt;1&gt;" in text and "pool<1>" not in text


def test_page_is_the_same_bytes_for_the_same_report(text):
    assert page(full_report()) == text


BARE = {
    "without steps": {"steps": ()},
    "without a test": {"test": (), "change": None},
    "without trials": {"trials": (), "budget": (), "notes": ()},
}


@pytest.mark.parametrize("name", BARE)
def test_page_of_a_run_that_has_less_can_be_drawn(name):
    text = page(replace(full_report(), **BARE[name]))
    assert text.endswith("</html>\n")
    assert ("The budget was missed, so the test split was not read." in text) == (name == "without a test")


def test_page_calls_the_metric_what_it_is():
    """Agreement is no accuracy; a test split with labels is measured by them all the same."""
    text = page(replace(full_report(), metric="agreement", test_metric="top1"))
    assert text.count("agreement on the validation split") == 2
    assert text.count("top-1 [95 %]") == 1 + len(re.findall("<th[^>]*>tried</th><th>top-1", text))


def test_a_gain_is_no_negative_drop():
    report = full_report()
    text = page(replace(report, steps=(*report.steps[:-1], replace(report.steps[-1], drop=-0.83))))
    assert "<b>0.83</b><span>points gained" in text


def test_many_notes_are_folded():
    text = page(replace(full_report(), notes=tuple(f"layer {i}: grown" for i in range(9))))
    assert "<summary>9 notes</summary><ul><li>layer 0: grown</li>" in text


def test_page_of_a_model_that_only_entered():
    report = full_report()
    assert "entering" in page(replace(report, steps=report.steps[:1]))


def test_front_keeps_what_nothing_beats():
    assert front([(3.0, 0.9), (1.0, 0.8), (2.0, 0.7), (1.0, 0.85), (3.0, 0.95)]) == [(1.0, 0.85), (3.0, 0.95)]


def test_two_pictures_of_one_page_share_no_ids():
    first, second = (picture(lambda axes: axes.plot([1, 2]), height=1.0, label=label) for label in ("one", "two"))
    assert not set(re.findall(r'\bid="([^"]+)"', first)) & set(re.findall(r'\bid="([^"]+)"', second))
