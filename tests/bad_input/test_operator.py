# SPDX-License-Identifier: Apache-2.0
"""What an operator may get wrong: model, version, waves, names, the token, the server's address."""

import os

import pytest

from tests.bad_input.refusals import unchanged
from tests.support.agent_process import free_port

START = ("fleet", "rollout", "start")

WRONG = {
    "unknown model": (2, (*START, "digit", "1.0.0"), "digit 1.0.0 is not registered; ", "strop fleet model list"),
    "unknown version": (2, (*START, "compass", "9.9"), "compass 9.9 is not registered; ", "strop fleet model list"),
    "wave of no number": (2, (*START, "compass", "1.0.0", "--wave", "ten%"), "'ten%' is not a wave; write 1, 50%"),
    "wave of too many": (1, (*START, "compass", "1.0.0", "--wave", "150%"), "150"),
    "wave of none": (1, (*START, "compass", "1.0.0", "--wave", "0"), "0"),
    "wave of a stranger": (1, (*START, "compass", "1.0.0", "--wave", "pi-99"), "pi-99"),
    "wave with a gap": (2, (*START, "compass", "1.0.0", "--wave", "pi-01,"), "'pi-01,' is not a wave"),
    "probation no JSON": (2, (*START, "compass", "1.0.0", "--probation", "{"), "--probation: not JSON"),
    "probation unknown": (1, (*START, "compass", "1.0.0", "--probation", '{"inference": 3}'), "inference"),
    "probation no object": (1, (*START, "compass", "1.0.0", "--probation", "[]"), "probation"),
    "negative soak": (1, (*START, "compass", "1.0.0", "--soak-s=-1"), "soak_s"),
    "unknown rollout": (1, ("fleet", "rollout", "pause", "r99"), "r99", "not known"),
    "unknown device": (1, ("fleet", "device", "show", "pi-99"), "pi-99", "not known"),
    "config of a stranger": (2, ("fleet", "device", "config", "pi-99", "heartbeat_s=5"), "'pi-99' is not enrolled"),
    "config no setting": (2, ("fleet", "device", "config", "pi-01", "heartbeat_s"), "'heartbeat_s' is not KEY=VALUE"),
    "removing a stranger": (2, ("fleet", "device", "remove", "pi-99"), "'pi-99' is not enrolled"),
    "token without life": (1, ("fleet", "enrol", "new", "--ttl-s", "0"), "a token cannot live for 0"),
    "root that is none": (1, ("fleet", "trust", os.devnull), "root.json: not TUF metadata"),
    "root that is nowhere": (2, ("fleet", "trust", "nowhere.json"), "nowhere.json: cannot be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_word_is_one_line_and_changes_nothing(within, fleet, case):
    code, words, *parts = WRONG[case]
    with unchanged(fleet.state, within.folder):
        within.refuses(code, *parts, words=(*words, *fleet.words()))


@pytest.mark.parametrize("case", ["unknown version", "wave of no number", "wave of a stranger"])
def test_so_does_the_program(strop, fleet, case):
    code, words, *parts = WRONG[case]
    with unchanged(fleet.state, strop.folder):
        strop.refuses(code, *parts, words=(*words, *fleet.words()))


def test_a_wrong_operator_token_changes_nothing(within, fleet, tmp_path):
    (tmp_path / "token").write_text("0" * 64)
    server = ("--server", fleet.endpoints["http"], "--token-file", tmp_path / "token")
    verbs = (
        ("fleet", "enrol", "new"),
        ("fleet", "device", "remove", "pi-01"),
        ("fleet", "model", "add", fleet.bundle, "--targets", fleet.targets),
        (*START, "compass", "1.0.0"),
    )
    with unchanged(fleet.state):
        for words in verbs:
            within.refuses(1, "operator's token is missing or wrong", "operator.token", words=(*words, *server))


def test_a_server_that_is_not_there_is_named(strop):
    address = f"http://127.0.0.1:{free_port()}"
    line = strop.refuses(1, address, "strop fleet serve", words=("fleet", "device", "list", "--server", address))
    assert "refused" in line


@pytest.mark.parametrize("address", ["127.0.0.1:80", "ftp://127.0.0.1", "http://[::1"])
def test_an_address_that_is_none_is_named(within, address):
    within.refuses(1, address, words=("fleet", "device", "list", "--server", address))


def test_a_data_folder_that_nobody_serves_gets_the_line_that_serves_it(strop, tmp_path):
    with unchanged(tmp_path):
        line = strop.refuses(1, str(tmp_path), "no fleet server runs", words=("fleet", "drift", "--data", tmp_path))
    assert f"strop fleet serve --data {tmp_path}" in line
