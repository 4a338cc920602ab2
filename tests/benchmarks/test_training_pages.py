# SPDX-License-Identifier: Apache-2.0
"""The tables of the README and of docs/compression.md are those of the committed results."""

import pytest

from benchmarks.training.show import PAGES, between, table


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_shows_what_was_measured(page):
    text = page.read_text(encoding="utf-8")
    assert between(text, table()) == text, "run: python -m benchmarks.training.show"


def test_table_names_day_machine_versions_and_command():
    text = table()
    for words in ("make trainings", "torch 2.13.0", "cores", "92.90 %", "top-1"):
        assert words in text
