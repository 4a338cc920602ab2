# SPDX-License-Identifier: Apache-2.0
"""Wrong words: exit code 2, the verb, what is wrong, and where to read on."""

import pytest

from tests.bad_input.refusals import unchanged

WRONG = [
    (("flet",), "strop: No such command 'flet'", "strop --help"),
    (("fleet", "rollouts"), "strop fleet: No such command 'rollouts'", "strop fleet --help"),
    (("fleet", "rollout", "stop"), "strop fleet rollout: No such command 'stop'", "strop fleet rollout --help"),
    (("fleet", "serve"), "strop fleet serve: Missing option '--data'", "strop fleet serve --help"),
    (("fleet", "device", "list"), "which server?", "--data FOLDER"),
    (("agent", "run"), "strop agent run: Missing option '--data'", "strop agent run --help"),
    (("agent", "predict", "x.npy"), "name either --data or --bundle",),
    (("export", "bundle", "."), "strop export bundle: Missing option '--version'", "strop export bundle --help"),
    (("compress", "run", "a.toml"), "strop compress run: Missing option '--out'", "strop compress run --help"),
    (("doctor", "--role", "cook"), "strop doctor: unknown role 'cook'", "workstation"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "parts"), [(words, parts) for words, *parts in WRONG], ids=lambda v: " ".join(v))
def test_wrong_words_are_named_with_the_place_that_knows_better(within, words, parts):
    with unchanged(within.folder):
        within.refuses(2, *parts, words=words)


def test_debug_shows_where_a_refusal_came_from(strop):
    ended = strop.run("fleet", "device", "list", "--debug")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("Traceback (most recent call last):\n")
    assert "in connect" in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("error: which server?")
