# SPDX-License-Identifier: Apache-2.0
"""A plan on disk is the plan in memory, to the bit; anything else is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from compress.quantize import integer
from compress.quantize.plan import Constant, Operation, QuantizationPlan
from compress.quantize.step import quantize
from edge_contract.errors import ModelError


def small_plan():
    torch.manual_seed(5)
    layers = [nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    return quantize(nn.Sequential(*layers), torch.rand(64, 1, 8, 8))


@pytest.fixture(scope="module")
def plan():
    return small_plan()


def with_constant(plan, name, **changes):
    return replace(plan, constants={**plan.constants, name: replace(plan.constants[name], **changes)})


def with_stride(plan, stride):
    first, *rest = plan.operations
    return replace(plan, operations=(replace(first, attributes={**first.attributes, "stride": stride}), *rest))


def test_plan_survives_the_disk_to_the_bit(plan, tmp_path):
    plan.save(tmp_path / "plan.npz")
    again = QuantizationPlan.load(tmp_path / "plan.npz")
    assert again.digest == plan.digest
    assert again.to_json() == plan.to_json()
    assert list(again.outputs) == ["logits", "embedding"]  # the writers keep this order
    for name, constant in plan.constants.items():
        assert constant.codes.dtype == again.constants[name].codes.dtype
        assert np.array_equal(constant.codes, again.constants[name].codes)
        assert np.array_equal(constant.scales, again.constants[name].scales)
    x = torch.rand(9, 1, 8, 8)
    assert np.array_equal(integer.run(plan, x)["logits"], integer.run(again, x)["logits"])


def test_same_model_and_samples_give_the_same_digest_and_the_same_bytes(plan, tmp_path):
    plan.save(tmp_path / "a.npz")
    small_plan().save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


CHANGES = {
    "a weight": lambda p: with_constant(p, "4.weight", codes=p.constants["4.weight"].codes ^ np.int8(1)),
    "a bias": lambda p: with_constant(p, "0.bias", codes=p.constants["0.bias"].codes + np.int32(1)),
    "a weight's scale": lambda p: with_constant(p, "0.weight", scales=p.constants["0.weight"].scales * 2),
    "a stride": lambda p: with_stride(p, (1, 1)),
    "a zero point": lambda p: replace(
        p, activations={**p.activations, p.input: replace(p.activations[p.input], zero_point=7)}
    ),
    "an output": lambda p: replace(p, outputs={"logits": p.outputs["logits"]}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_digest_covers_everything_that_was_decided(plan, change):
    assert CHANGES[change](plan).digest != plan.digest


def test_digest_does_not_cover_what_people_are_told(plan):
    assert replace(plan, notes=("look",), samples=9).digest == plan.digest


def test_activation_and_weight_types_are_stated(plan):
    header = plan.to_json()
    assert {a["bits"] for a in header["activations"]} == {8}
    assert {c["name"]: c["bits"] for c in header["constants"]}["0.bias"] == 32
    assert {c["name"]: c.get("axis") for c in header["constants"]} == {
        "0.weight": 0, "0.bias": 0, "4.weight": None, "4.bias": None,
    }  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY"])
def test_file_that_is_no_plan_is_one_clear_line(tmp_path, content):
    path = tmp_path / "plan.npz"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"plan\.npz: not a quantization plan: .*; quantize the model again"):
        QuantizationPlan.load(path)


def test_missing_file_is_one_clear_line(tmp_path):
    with pytest.raises(ModelError, match=r"not a quantization plan: .*No such file"):
        QuantizationPlan.load(tmp_path / "nothing.npz")


def test_flipped_weight_on_disk_is_noticed(plan, tmp_path):
    plan.save(tmp_path / "plan.npz")
    with np.load(tmp_path / "plan.npz") as archive:
        arrays = dict(archive)
    arrays["constant_0"] = arrays["constant_0"] ^ np.int8(2)
    np.savez(tmp_path / "plan.npz", **arrays)
    with pytest.raises(ModelError, match="the integers do not match the digest"):
        QuantizationPlan.load(tmp_path / "plan.npz")


def test_operation_before_its_input_is_refused(plan):
    with pytest.raises(ModelError, match="operation 'x': input 'later' is not computed before it"):
        replace(plan, operations=(Operation("flatten", "x", ("later",), "y"),))


def test_output_that_nothing_computes_is_refused(plan):
    with pytest.raises(ModelError, match="output 'nowhere' is never computed"):
        replace(plan, outputs={"logits": "nowhere"})


def test_convolution_without_its_weight_is_refused(plan):
    with pytest.raises(ModelError, match="its weight is missing"):
        replace(plan, constants={})


def test_per_tensor_constant_gives_one_scale_per_channel():
    constant = Constant("w", np.zeros((3, 2), np.int8), np.array([0.5], np.float32), None)
    assert constant.channel_scales().tolist() == [0.5, 0.5, 0.5]
