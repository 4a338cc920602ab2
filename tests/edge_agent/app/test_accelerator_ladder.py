# SPDX-License-Identifier: Apache-2.0
"""A real agent, a real runner and a delegate in C that hangs: the ladder is climbed, and the CPU's file answers.

No claim about a real TPU: the delegate takes every node over and never comes back.
"""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.adapters.spare import artefacts_for, installed, spare_runtime
from edge_agent.config import load
from edge_agent.wiring import open_lane
from edge_contract.errors import RuntimeAdapterError, UsageError
from edge_contract.manifest import Manifest
from tests.edge_agent.runner import bundles
from tests.support.agent_process import AgentProcess, install, until

GCC = shutil.which("gcc")
TRAP = Path(__file__).parents[1] / "runner" / "trap_delegate.c"
TOML = """
device = "pi"
runtime = "edgetpu"
delegate = "{library}?mode=hang"
invoke_timeout_s = 0.1
cache = 5
restarts = 0
re_enumerate = ["touch", "{mark}"]
[settings]
source = "belt"
[sources.belt]
kind = "replay"
path = "{images}"
rate_hz = 100
loop = true
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trap") / "libtrap.so.1"
    assert GCC, "apt-get install gcc"
    subprocess.run([GCC, "-shared", "-fPIC", "-O1", "-o", path, TRAP], check=True, timeout=60)
    return path


@pytest.fixture(scope="module")
def tpu_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny classifier, whose TFLite file also claims to run on an Edge TPU."""
    folder = bundles.build(tmp_path_factory.mktemp("tpu") / "v1", exact=False)
    artefacts = [
        replace(a, runtimes=("litert", "tflite-runtime", "edgetpu")) if a.format == "tflite" else a
        for a in bundles.manifest_of(folder).artefacts
    ]
    return bundles.seal(folder, artefacts, version="1.0.0")


@pytest.mark.skipif(GCC is None, reason="apt-get install gcc")
def test_the_model_answers_from_the_cpu_after_a_re_enumeration(
    tmp_path: Path, library: Path, tpu_bundle: Path, images: Path
) -> None:
    data, mark = tmp_path / "data", tmp_path / "re-enumerated"
    install(data, tpu_bundle)
    (data / "agent.toml").write_text(TOML.format(library=library, mark=mark, images=images))
    agent = AgentProcess(data)
    try:
        until(lambda: '"delegate":"xnnpack"' in agent.log, "the CPU's model answers")
        said = agent.log
        assert said.count('"code":75,"kind":"runner_exit"') == 2, "a hang, and one more after the command"
        assert "the runner is started with litert" in said
        assert mark.exists(), "the command ran in between"
        assert said.index('"action":"re_enumerate"') < said.index('"action":"use_cpu"')
        assert said.count("times in a row: the CPU takes over") == 1
        assert "rolled_back" not in said
        assert "fell_back" not in said
    finally:
        assert agent.stop() == 0


def test_an_edge_tpu_s_device_also_keeps_the_file_for_the_cpu(tpu_bundle: Path, tmp_path: Path) -> None:
    """As the compiler leaves it: one file for the device, another one for every CPU."""
    manifest = bundles.manifest_of(tpu_bundle)
    plain = next(a for a in manifest.artefacts if a.format == "tflite")
    compiled = replace(plain, path="model_edgetpu.tflite", runtimes=("edgetpu",))
    cpu = replace(plain, runtimes=("litert", "tflite-runtime"))
    both = replace(manifest, artefacts=(compiled, cpu))
    assert [a.path for a in artefacts_for(both, "edgetpu")] == ["model_edgetpu.tflite", plain.path]
    assert [a.path for a in artefacts_for(both, "litert")] == [plain.path]
    alone: Manifest = replace(manifest, artefacts=(compiled,))
    assert artefacts_for(alone, "edgetpu") == (compiled,)
    assert spare_runtime(tpu_bundle, {"litert", "onnxruntime"}) == "litert"
    assert spare_runtime(tpu_bundle, {"onnxruntime"}) == "onnxruntime"
    assert spare_runtime(tpu_bundle, ()) == ""
    assert spare_runtime(tmp_path, {"litert"}) == "", "no bundle at all"


def test_only_what_an_interpreter_has_stands_in() -> None:
    assert installed("/no/such/python") == frozenset()


def test_the_words_of_agent_toml_reach_runner_and_kernel(tmp_path: Path) -> None:
    def lane(words: str):
        (tmp_path / "agent.toml").write_text(f'device = "pi"\nruntime = "edgetpu"\n{words}\n')
        return load(tmp_path).lanes[0]

    own = lane('delegate = "lib.so"\ncache = 7\ninvoke_timeout_s = 2')
    words = own.options(tmp_path / "c")
    assert words[-6:] == ["--delegate", "lib.so", "--cache", "7", "--invoke-timeout", "2"]
    assert own.options(tmp_path / "c", "litert")[-4:] == ["--threads", "1", "--cache", "7"]
    assert own.rungs is not None
    assert (own.rungs.restarts, own.rungs.re_enumerations) == (2, 0)
    for faulty in ('"reset"', '["", 1]', '"usb:1a6e"'):
        with pytest.raises(UsageError, match='write "usb" for a Coral stick'):
            lane(f"re_enumerate = {faulty}")
    usb = lane('re_enumerate = "usb:dead:beef"')
    assert usb.rungs is not None
    assert usb.rungs.re_enumerations == 2
    parts = open_lane(tmp_path, usb, None, lambda _event: None)  # type: ignore[arg-type]  # installs nothing
    with pytest.raises(RuntimeAdapterError, match="no such device on USB"):
        parts.re_enumerate()
