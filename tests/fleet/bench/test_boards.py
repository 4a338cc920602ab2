# SPDX-License-Identifier: Apache-2.0
"""The stopwatch of boards: its settings, whom it refuses, and that nothing is measured twice."""

import pytest

from edge_contract.errors import MeasurementError, UsageError
from strop import boards
from strop.boards import KEPT, Settings, prepare

pytestmark = pytest.mark.broker


def words_of(fleet, query):
    return {"query": query, "server": "", "token_file": None, "data": fleet.data}


def test_settings_travel_by_a_file_without_a_secret(fleet, tmp_path, monkeypatch):
    monkeypatch.delenv(boards.VARIABLE, raising=False)
    with pytest.raises(UsageError, match="--measure-on QUERY"):
        Settings.read()
    with pytest.raises(UsageError, match="no device fits"):
        prepare(words_of(fleet, "device:nobody"), tmp_path)
    made = Settings("device:pc-*", tmp_path, data=fleet.data)
    monkeypatch.setenv(boards.VARIABLE, str(made.write()))
    assert Settings.read() == made
    assert fleet.token not in (tmp_path / boards.SETTINGS).read_text()


def test_a_folder_that_was_measured_on_other_boards_is_refused(fleet, closed, tmp_path, monkeypatch):
    monkeypatch.setenv(boards.VARIABLE, "")
    assert prepare(words_of(fleet, "device:closed"), tmp_path) == "strop.boards:slowest"
    assert prepare(words_of(fleet, "device:closed"), tmp_path) == "strop.boards:slowest"
    with pytest.raises(UsageError, match="measured on 'device:closed'"):
        prepare(words_of(fleet, "device in (closed)"), tmp_path)
    model = tmp_path / "model.tflite"
    model.write_bytes(b"no model")
    with pytest.raises(MeasurementError, match="closed measured nothing: refused"):
        boards._measured(Settings.read(), [model])


def test_what_was_measured_of_the_same_bytes_is_read_again_even_after_half_a_line(tmp_path):
    model = tmp_path / "model.tflite"
    model.write_bytes(b"bytes")
    settings = Settings("all", tmp_path)
    key, found = boards._key(settings, [model]), [{"device": "pi", "median_ms": 2.0}]
    boards._keep(tmp_path / KEPT, key, found)
    with (tmp_path / KEPT).open("a") as file:
        file.write('{"key": "')
    assert boards._kept(tmp_path / KEPT, key) == found
    assert boards._kept(tmp_path / KEPT, boards._key(Settings("tag:lab", tmp_path), [model])) is None
    model.write_bytes(b"other bytes")
    assert boards._kept(tmp_path / KEPT, boards._key(settings, [model])) is None
