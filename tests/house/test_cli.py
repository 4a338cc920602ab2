# SPDX-License-Identifier: Apache-2.0
"""The one place where errors become lines and exit codes; groups here are small real modules on a path of ours."""

import re
import signal
import subprocess
import sys

import pytest

from edge_contract.errors import MissingDependencyError
from strop import cli

VERBS = """
import typer
from edge_contract.errors import BundleError, RecipeError

app = typer.Typer()

@app.callback()
def _root() -> None: ...

@app.command()
def refuse() -> None:
    raise BundleError("changed", where="model.onnx", fix="build it again")

@app.command()
def mistype() -> None:
    raise RecipeError("unknown key 'epoch'", where="a.toml")

@app.command()
def crash() -> None:
    raise KeyError("two\\nlines")

@app.command()
def late() -> None:
    import a_package_that_nobody_has

@app.command()
def interrupt() -> None:
    raise KeyboardInterrupt

@app.command()
def leave(code: int) -> None:
    raise typer.Exit(code)

@app.command()
def echo(words: list[str]) -> None:
    typer.echo(" ".join(words))
"""


LATE = (
    "error: 'strop bench' needs the package 'a_package_that_nobody_has', which is not installed; "
    "run: pip install 'strop[fleet]'\n"
)


@pytest.fixture
def group(tmp_path, monkeypatch):
    """Mount a group of our own in place of bench."""

    def mount(text, name):
        (tmp_path / f"{name}.py").write_text(text, "utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setitem(cli.GROUPS, "bench", cli.Group(name, "fleet", "A group of the test."))

    return mount


@pytest.fixture
def strop(group, capsys):
    group(VERBS, "verbs_of_the_test")

    def call(*words):
        with pytest.raises(SystemExit) as end:
            cli.main(words)
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return call


@pytest.mark.parametrize(
    ("verb", "code", "line"),
    [
        ("refuse", 1, "error: model.onnx: changed; build it again\n"),
        ("mistype", 2, "error: a.toml: unknown key 'epoch'\n"),
        ("crash", 1, "internal error: KeyError: 'two\\nlines'; run again with --debug\n"),
        ("late", 1, LATE),
        ("interrupt", 130, ""),
    ],
)  # fmt: skip
def test_what_a_verb_raises_is_one_line_and_an_exit_code(strop, verb, code, line):
    assert strop("bench", verb) == (code, "", line)


@pytest.mark.parametrize(
    "words", [("--debug", "bench", "crash"), ("bench", "--debug", "crash"), ("bench", "crash", "--debug")]
)
def test_debug_anywhere_shows_the_traceback(strop, words):
    code, out, err = strop(*words)
    assert (code, out) == (1, "")
    assert "Traceback (most recent call last)" in err
    assert err.endswith("run again with --debug\n")


def test_debug_after_two_dashes_belongs_to_the_verb(strop):
    assert strop("bench", "echo", "--", "--debug", "x") == (0, "--debug x\n", "")


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_verb_may_choose_its_exit_code(strop, code):
    assert strop("bench", "leave", str(code)) == (code, "", "")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("flete",), r"error: strop: No such command 'flete'\.?.*; see 'strop --help'"),
        (("--colour",), r"error: strop: No such option: --colour.*; see 'strop --help'"),
        (("bench", "refusé"), r"error: strop bench: No such command 'refusé'\.?.*; see 'strop bench --help'"),
        (
            ("bench", "leave", "x"),
            r"error: strop bench leave: Invalid value for 'code'.*; see 'strop bench leave --help'",
        ),
        (("bench", "leave"), r"error: strop bench leave: Missing argument '?code'?.*; see 'strop bench leave --help'"),
        (
            ("doctor", "--role", "cook"),
            r"error: strop doctor: unknown role 'cook'; use one of workstation, search, ray, tensorflow, .*",
        ),
    ],
)
def test_wrong_words_are_one_line_and_exit_code_2(strop, words, line):
    code, out, err = strop(*words)
    assert (code, out) == (2, "")
    assert re.fullmatch(line + "\n", err, re.IGNORECASE), err


def test_no_words_at_all_show_the_help(strop):
    code, out, _ = strop()
    assert code == 2
    assert "Usage: strop" in out


def test_the_help_of_a_group_is_that_of_its_module(strop):
    code, out, _ = strop("bench", "--help")
    assert code == 0
    assert all(verb in out for verb in ("refuse", "mistype", "interrupt"))
    assert "Usage: strop bench" in out


def test_a_group_that_needs_a_missing_package_names_the_line(group):
    group("import a_package_that_nobody_has.part\n", "group_without_extra")
    with pytest.raises(MissingDependencyError) as caught:
        cli.load("bench")
    assert caught.value.fix == "run: pip install 'strop[fleet]'"
    assert "'a_package_that_nobody_has'" in caught.value.what


def test_a_module_of_ours_that_is_missing_is_a_fault_and_not_an_extra(group):
    group("import fleet.no_such_module\n", "group_with_a_fault")
    with pytest.raises(ModuleNotFoundError):
        cli.load("bench")


@pytest.mark.parametrize("name", sorted(cli.GROUPS))
def test_every_group_is_mounted_and_shows_its_help(name):
    done = subprocess.run([sys.executable, "-m", "strop", name, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: strop {name}" in done.stdout


def test_a_reader_that_goes_away_is_no_failure_of_ours():
    """As `strop … | head -1` does; the flush at the end must not print a second fault."""
    code = "import sys, typer; from strop import cli\nsys.argv=['strop','doctor']\ncli.main()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() in (0, 1, -signal.SIGPIPE)
    assert errors == ""
