# SPDX-License-Identifier: Apache-2.0
"""Profiles by the real runtimes, of real files."""

import json
from pathlib import Path

import pytest
import typer.testing

from benchmarks.commands.profile_cmd import profile
from benchmarks.ops import profile_of
from benchmarks.ops.running import file_of
from edge_contract.errors import MeasurementError, MissingDependencyError, UsageError
from tests.edge_agent.runner import bundles, tiny


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, net = tmp_path_factory.mktemp("ops"), tiny.make()
    tiny.write_tflite(net, folder / "model.tflite")
    tiny.write_onnx(net, folder / "model.onnx")
    return folder


@pytest.mark.parametrize(
    ("name", "runtime", "kinds"),
    [
        ("model.tflite", "litert", {"conv", "reduce", "dense"}),
        ("model.onnx", "onnxruntime", {"conv", "pool", "dense"}),
    ],
)
def test_a_real_profile_tells_all_operators_and_holds_together(files, name, runtime, kinds) -> None:
    found = profile_of(files / name, runs=30, drop=5)
    assert found.runtime == runtime and found.runs == 30 and found.dropped == 5
    assert kinds <= {op.kind for op in found.ops}, [op.native for op in found.ops]
    assert [op.index for op in found.ops] == list(range(len(found.ops)))
    # A median of sums and a sum of medians: alike where nothing interrupts, and of one size in any case.
    assert 0.3 * found.sum_us < sum(op.median_us for op in found.ops) < 3 * found.sum_us
    assert sum(op.share for op in found.ops) == pytest.approx(1.0, abs=0.01)
    # Nothing is inside of the runtime's own run that is longer than it, but for the clocks' rounding.
    assert found.sum_us <= found.inside_us + len(found.ops) + 2
    assert {op.runs for op in found.ops} == {30}


def test_kernels_of_xnnpack_have_the_names_of_the_file(files) -> None:
    found = profile_of(files / "model.tflite", runs=10, drop=2)
    assert found.delegated == pytest.approx(1.0, abs=0.01)
    conv = next(op for op in found.ops if op.kind == "conv")
    assert conv.inputs[0] == (1, 8, 8, 1) and conv.name


def test_the_command_prints_and_writes(files, tmp_path) -> None:
    app = typer.Typer()
    app.command()(profile)
    out = tmp_path / "ops.json"
    done = typer.testing.CliRunner().invoke(app, [str(files / "model.onnx"), "--runs=5", "--top=2", f"--out={out}"])
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text())["schema"] == "strop.ops/1" and "of the whole" in done.output


def test_what_is_no_model_is_refused(tmp_path) -> None:
    with pytest.raises(UsageError, match="neither"):
        profile_of(tmp_path / "model.bin")
    with pytest.raises(UsageError, match="no such file"):
        profile_of(tmp_path / "model.onnx")
    for name in ("model.onnx", "model.tflite"):
        (tmp_path / name).write_bytes(b"no model at all")
        with pytest.raises(MeasurementError, match=name):
            profile_of(tmp_path / name)


def test_a_runtime_that_is_not_there_and_one_that_dies(files, tmp_path) -> None:
    shadow = tmp_path / "python"
    shadow.write_text("#!/bin/sh\necho 'error: onnxruntime is not installed; pip install onnxruntime' >&2; exit 3\n")
    shadow.chmod(0o755)
    with pytest.raises(MissingDependencyError, match="onnxruntime is not installed"):
        profile_of(files / "model.onnx", python=str(shadow))
    shadow.write_text("#!/bin/sh\nkill -SEGV $$\n")
    with pytest.raises(MeasurementError, match="by signal 11"):
        profile_of(files / "model.onnx", python=str(shadow))


def test_a_provider_that_is_not_here_is_named_with_those_that_are(files) -> None:
    with pytest.raises(MeasurementError, match=r"no execution provider 'hexagon'; one of .*cpu"):
        profile_of(files / "model.onnx", provider="hexagon")


def test_a_bundle_is_named_as_for_a_measurement(tmp_path) -> None:
    bundle = bundles.build(tmp_path / "b")
    assert file_of(Path(f"{bundle}@onnxruntime")) == bundle / "model.onnx"
    assert file_of(bundle / "model.tflite") == bundle / "model.tflite"
    with pytest.raises(UsageError, match="no model"):
        file_of(tmp_path / "nothing")
