# SPDX-License-Identifier: Apache-2.0
"""Pages say what the code does: commands exist, generated parts are today's, links lead somewhere."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_contract import diagrams, topics
from strop import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/vectors/*.md")])


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text):
    lines = [line for block in blocks(text, "sh") for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


STROP = [words[1:] for page in PAGES for words in commands(page.read_text("utf-8")) if words[0] == "strop"]


GROUP = re.compile(r" COMMAND \[ARGS\]| \[COMMAND\] \[ARGS\]")  # the second one does something without a verb too


@cache
def told(*names):
    """Return what ``strop NAMES --help`` prints; asked in this process, for one of its own takes half a second."""
    environment = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    return CliRunner().invoke(cli.app, [*names, "--help"], prog_name="strop", env=environment).stdout


def help_of(words):
    """Return the help of the verb that the words begin with, and how many words its name takes."""
    text, names = "", []
    for word in words:
        if word.startswith("-"):
            break
        said = told(*names, word)
        if f"Usage: strop {' '.join([*names, word])} " not in said:
            break
        names.append(word)
        text = said
        if not GROUP.search(text):
            break
    return text, len(names)


def test_the_readme_has_enough_commands_to_follow():
    assert [words[0] for words in STROP].count("fleet") > 3
    assert {"compress", "export", "agent", "bench"} <= {words[0] for words in STROP}


@pytest.mark.slow
@pytest.mark.parametrize("words", STROP, ids=" ".join)
def test_a_command_of_a_page_is_one_that_strop_takes(words):
    text, names = help_of(words)
    assert text, "no such group or verb"
    assert " COMMAND [ARGS]" not in text, "the verb is missing or unknown"
    options = [word.split("=")[0] for word in words[names:] if word.startswith("--")]
    assert [option for option in options if option not in text] == []


def test_the_two_commands_of_the_readme_are_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    promised = [words for words in commands(README) if words[0] == "make"]
    assert [words[1] for words in promised] == ["demo", "test"]
    for words in promised:
        assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE)
    for verb in re.findall(r"`make ([a-z-]+)", README):
        assert re.search(rf"^{verb}:", makefile, re.MULTILINE), verb


def test_python_of_the_readme_compiles():
    assert blocks(README, "python")
    for block in blocks(README, "python"):
        compile(block, "README.md", "exec")


def test_generated_pages_are_today_s():
    assert (ROOT / "docs/states.md").read_text("utf-8") == diagrams.page(), "run: make docs"
    assert diagrams.with_targets(README) == README, "run: make docs"
    assert "`rpi4`" in README


def test_the_page_of_topics_lists_each_channel_and_who_speaks():
    rows = re.findall(r"^\| `([^`]+)` \| (\w+)", (ROOT / "docs/topics.md").read_text("utf-8"), re.MULTILINE)
    assert {channel for channel, _ in rows} == set(topics.CHANNELS)
    assert {channel for channel, speaker in rows if speaker == "server"} == set(topics.DOWN)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?://)([^)#]+)[^)]*\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_decision_is_numbered_and_states_its_price():
    pages = sorted((ROOT / "docs/adr").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    assert len(pages) >= 9
    for page in pages:
        text = page.read_text("utf-8")
        assert text.startswith(f"# ADR {int(page.name[:4])}: ")
        price = text.partition("\n## Price\n")[2].strip()
        assert len(price) > 100, page.name


def test_every_folder_stands_in_the_readme_and_in_the_architecture():
    architecture = (ROOT / "docs/architecture.md").read_text("utf-8")
    packages = [path.parent.name for path in ROOT.glob("*/__init__.py")]
    assert len(packages) == 7
    for name in [*packages, "examples"]:
        assert f"`{name}/`" in README
        assert f"\n{name}/ " in architecture


def test_words_that_are_used_are_defined():
    text = (ROOT / "docs/terminology.md").read_text("utf-8")
    for word in ("teacher", "student", "plan", "bundle", "manifest", "slot", "outbox", "probation", "wave", "soak"):
        assert re.search(rf"^\| \*\*[^|]*\b{word}\b", text, re.MULTILINE), word
