# SPDX-License-Identifier: Apache-2.0
"""``[models.NAME]``: what each lane gets, what it inherits, and what is refused."""

from pathlib import Path

import pytest

from edge_agent.config import load
from edge_agent.lanes_config import LaneConfig
from edge_contract.errors import UsageError

TWO = """
device = "pi"
runtime = "onnxruntime"
threads = 2

[settings]
source = "left"
window_s = 60

[models.digits]

[models.faces]
runtime = "tflite-runtime"
runner_python = "/opt/old/bin/python"
source = "right"
window_inferences = 50
memory_mb = 120

[sources.left]
kind = "replay"
path = "l.npy"
[sources.right]
kind = "replay"
path = "r.npy"
"""


def configured(folder: Path, text: str):
    (folder / "agent.toml").write_text(text)
    return load(folder)


def test_each_table_is_a_lane_that_begins_with_the_words_at_the_top(tmp_path: Path) -> None:
    digits, faces = configured(tmp_path, TWO).lanes
    assert (digits.key, digits.model, digits.runtime, digits.threads) == ("digits", "digits", "onnxruntime", 2)
    assert (digits.settings.source, digits.settings.window_s) == ("left", 60.0)
    assert (faces.runtime, faces.threads, faces.memory_mb) == ("tflite-runtime", 2, 120)
    assert (faces.settings.source, faces.settings.window_inferences, faces.settings.window_s) == ("right", 50, 60.0)
    assert faces.runner_python == "/opt/old/bin/python"


def test_the_settings_source_is_the_first_models_alone_and_model_names_the_first(tmp_path: Path) -> None:
    text = TWO.replace('source = "right"\n', "").replace('device = "pi"', 'device = "pi"\nmodel = "faces"')
    config = configured(tmp_path, text)
    assert [(lane.model, lane.settings.source) for lane in config.lanes] == [("faces", "left"), ("digits", "")]
    assert (config.model, config.runtime) == ("faces", "tflite-runtime")
    assert config.lane("digits").runtime == "onnxruntime"


def test_lanes_share_no_file_and_one_lane_keeps_the_files_that_it_had(tmp_path: Path) -> None:
    lanes = configured(tmp_path, TWO).lanes
    files = [path for lane in lanes for path in (lane.counters(tmp_path), lane.log(tmp_path))]
    assert len(set(files)) == 4
    only = LaneConfig()
    assert only.counters(tmp_path) == tmp_path / "counters.bin"
    assert only.log(tmp_path) == tmp_path / "logs" / "runner.log"
    guest = LaneConfig(model="digits", runner="embedded")
    assert guest.counters(tmp_path) == tmp_path / "run" / "digits.counters"


WRONG = {
    "no name": ('[models."a/b"]', "is no name; use letters"),
    "no table": ("models = 3", "'models' is not a table"),
    "not a table": ("[models]\nfaces = 1", "'faces' is not a table"),
    "unknown key": ("[models.faces]\nheartbeat_s = 1", r"\[models.faces\]: unknown key 'heartbeat_s'"),
    "unknown runtime": ('[models.faces]\nruntime = "torch"', "runtime = 'torch' is unknown"),
    "undeclared source": ('[models.faces]\nsource = "mic"', r"\[models.faces\]: source: 'mic' is not declared"),
    "no such first": ('model = "x"\n[models.faces]', r"model = 'x' has no table; write \[models.x\]"),
    "no memory": ("[models.faces]\nmemory_mb = -1", "memory_mb = -1 is not a whole number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_faulty_table_names_key_and_fix(tmp_path: Path, name: str) -> None:
    text, message = WRONG[name]
    with pytest.raises(UsageError, match=message):
        configured(tmp_path, f'device = "pi"\n{text}\n')
