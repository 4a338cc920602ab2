# SPDX-License-Identifier: Apache-2.0
"""What the Edge TPU compiler said in public threads is predicted for rebuilt files, line by line."""

import pytest

from edge_contract import targets
from export.edgetpu import agreement, logs, preflight
from export.edgetpu import compiler as edgetpu_compiler
from export.tflite import reader
from tests.export.edgetpu_cases import CASES, MAPPED, log_of


def predict(name):
    build, compiler, rows = CASES[name]
    runtime = logs.RUNTIMES[compiler.split(".")[0]]
    return preflight.check(reader.read(build(), name), runtime=runtime), rows


@pytest.mark.parametrize("name", CASES)
def test_a_rebuilt_file_gives_the_compilers_table(name):
    report, rows = predict(name)
    assert report.faults == ()
    assert report.histogram() == rows


def test_a_transpose_in_front_costs_all_but_two_of_155_operators():
    report, _ = predict("transposes-342")
    assert (report.mapped, len(report.operators)) == (2, 155)
    cut = report.first_cut()
    assert (cut.index, cut.kind) == (2, "TRANSPOSE")
    assert "channels last" in cut.advice
    assert report.mapped_macs == 0


def test_a_dilated_depthwise_convolution_is_mapped_from_runtime_13_on():
    build, _, _ = CASES["atrous-75"]
    model = reader.read(build(), "deeplab")
    assert preflight.check(model, runtime=12).mapped == 26
    assert preflight.check(model, runtime=13).mapped == 113


def test_the_cases_are_evidence_that_the_agreement_command_reads(tmp_path, capsys):
    build, compiler, rows = CASES["leaky-tiny-yolo"]
    (tmp_path / "net.tflite").write_bytes(build())
    (tmp_path / "net_edgetpu.log").write_text(log_of(compiler, rows))
    assert agreement.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == "logged operator: 5 of 5 agree (100.0 %), from 1 sources\n"


def test_a_compiler_that_says_otherwise_is_a_difference_with_both_numbers(tmp_path, capsys):
    build, compiler, rows = CASES["leaky-tiny-yolo"]
    (tmp_path / "net.tflite").write_bytes(build())
    other = {(kind, MAPPED): sum(n for (k, _), n in rows.items() if k == kind) for kind, _ in rows}
    (tmp_path / "net_edgetpu.log").write_text(log_of(compiler, other))
    agreement.main([str(tmp_path)])
    printed = capsys.readouterr().out
    assert "net.tflite: CONV_2D: predicted 1 of 2 mapped, the compiler 2 of 2\n" in printed
    assert "logged operator: 2 of 5 agree (40.0 %), from 1 sources\n" in printed


def test_a_compiled_file_tells_what_was_left_to_the_cpu(tmp_path, capsys):
    # What Coral's compiler leaves: one custom operator, and behind it what runs on the CPU.
    from tests.export.edgetpu_cases import Net

    build, _, _ = CASES["leaky-tiny-yolo"]
    (tmp_path / "net.tflite").write_bytes(build())
    after = Net((1, 32, 32, 8)).add("LEAKY_RELU", version=2, options="LeakyReluOptions", alpha=0.1)
    pool = {"filterHeight": 2, "filterWidth": 2, "strideH": 2, "strideW": 2}
    after.add("MAX_POOL_2D", (1, 16, 16, 8), version=2, options="Pool2DOptions", **pool).conv(16)
    (tmp_path / "net_edgetpu.tflite").write_bytes(after.finish())
    agreement.main([str(tmp_path)])
    assert capsys.readouterr().out == "compiled operator: 5 of 5 agree (100.0 %), from 1 sources\n"


def test_a_target_without_edge_tpu_is_named():
    with pytest.raises(Exception, match="target 'rpi4' has no Edge TPU; use coral-usb or coral-devboard"):
        preflight.check(reader.read(CASES["batch-30"][0](), "net"), targets.load("rpi4"))


def test_comparing_counts_both_sides_of_each_kind():
    ours = {("ADD", MAPPED): 3, ("ADD", "Operation not supported"): 1}
    theirs = {("ADD", MAPPED): 2, ("ADD", "More than one subgraph is not supported"): 2}
    found = edgetpu_compiler.compare(ours, theirs)
    assert (found.agreeing, found.operators) == (3, 4)
    assert found.differences == ("ADD: predicted 3 of 4 mapped, the compiler 2 of 4",)
