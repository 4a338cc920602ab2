# SPDX-License-Identifier: Apache-2.0
"""docs/benchmarking.md: its commands run, and what it says of reasons and columns is what the code says."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import results_page
from benchmarks.result.store import load_all
from edge_agent.runner.model import Model
from strop.cli import app
from tests.edge_agent.runner import bundles, tiny

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/benchmarking.md").read_text("utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LINES = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines() if line]
SHORT = ["--runs", "30", "--seconds", "0"]
QUICK = {"run": [*SHORT, "--launches", "1", "--cooldown", "0"], "compare": [*SHORT, "--launches", "3"]}
QUICK["aa"] = [*SHORT, "--launches", "3"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder as the page supposes it: a bundle ``my-model`` and labelled samples ``test.npz``."""
    folder = tmp_path_factory.mktemp("page")
    bundle = bundles.build(folder / "my-model")
    images, model = tiny.images(20, seed=5), Model.open(bundle, runtime="litert")
    np.savez(folder / "test.npz", x=images, y=np.array([model.infer(one).cls for one in images]))
    return folder


def run(words):
    done = CliRunner().invoke(app, [*words[1:], *QUICK.get(words[2], [])])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_row_with_one_command_and_the_page_of_it(place, monkeypatch):
    monkeypatch.chdir(place)
    said = run(LINES[0])
    assert "100.00 [" in said
    assert "again: strop bench run" in said
    reports = [words for words in LINES if words[:3] == ["strop", "bench", "report"]]
    assert len(reports) == 2
    for words in reports:
        run(words)
    assert "<svg" in (place / "page.html").read_text("utf-8")
    assert {"quantiles.png", "ecdf.png"} <= {path.name for path in (place / "pictures").iterdir()}


@pytest.mark.long
@pytest.mark.parametrize(
    "words", [words for words in LINES[1:] if words[:2] == ["strop", "bench"] and words[2] != "report"], ids=" ".join
)
def test_the_other_commands_run_too(place, monkeypatch, words):
    monkeypatch.chdir(place)
    run(words)


def test_the_rows_of_this_repository_are_measured_by_a_command_that_is_there(capsys):
    (words,) = [words for words in LINES if words[0] == "python"]
    from benchmarks import results_here

    assert words[:3] == ["python", "-m", "benchmarks.results_here"]
    with pytest.raises(SystemExit) as end:
        results_here.main([*words[3:], "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert all(word in said for word in words[3:] if word.startswith("--"))


def test_the_committed_results_are_supported_and_their_page_is_of_today():
    assert results_page.PAGE.read_text("utf-8") == results_page.page(), "run: python -m benchmarks.results_page"


def test_the_committed_results_lie_under_their_own_names():
    for path, result in load_all([results_page.RESULTS])[0]:
        from benchmarks.result.store import file_name

        assert (path.parent.name, path.name) == (result.device.key, file_name(result))


def test_every_reason_of_the_gates_is_on_the_page():
    sources = [*(ROOT / "benchmarks/gates").glob("*.py"), ROOT / "benchmarks/result/build.py"]
    kinds = {
        kind for path in sources for kind in re.findall(r'(?:Finding|Reason)\(\s*"([a-z-]+)"', path.read_text("utf-8"))
    }
    assert {"throttled", "governor", "quality", "golden"} <= kinds
    assert [kind for kind in sorted(kinds - {"launches", "emulated"}) if f"`{kind}`" not in PAGE] == []
