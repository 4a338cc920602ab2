# SPDX-License-Identifier: Apache-2.0
"""All five members of the zoo are on the identity list: not one integer differs in any tensor of any of them."""

import numpy as np
import pytest
import torch

from compress.quantize import integer
from compress.quantize.step import quantize
from export.parity import fidelity
from tests.support.identity import INTEGER_OPERATORS, compare, hidden
from tests.zoo import data
from tests.zoo.models import MEMBERS, load

# member: calibration samples, inputs compared in every tensor, inputs compared in logits and embedding
COUNTS = {
    "mobilenet-v2": (256, 20, 1000),
    "mobilenet-v3": (256, 20, 1000),
    "resnet-8": (256, 20, 1000),
    "ds-cnn": (256, 20, 850),
    "efficientnet-lite0": (64, 2, 10),
}


@pytest.fixture(scope="module", params=MEMBERS)
def member(request):
    name = request.param
    if name.startswith("mobilenet") and not data.FOLDER.exists():
        pytest.skip(f"no Fashion-MNIST: {data.INSTALL}")
    torch.set_num_threads(1)
    samples = data.samples(name, MEMBERS[name].shape, COUNTS[name][0], is_calibration=True)
    return name, quantize(load(name), samples)


def assert_identical(found):
    for tensor, (first, second, third) in found.items():
        assert np.array_equal(first, second), f"ONNX Runtime and LiteRT differ in {tensor}"
        assert np.array_equal(second, third), f"LiteRT and PyTorch differ in {tensor}"


@pytest.mark.slow
def test_no_integer_of_any_tensor_differs(member, tmp_path):
    name, plan = member
    x = data.samples(name, MEMBERS[name].shape, COUNTS[name][1], is_calibration=False)
    found, operators = compare(plan, x, tmp_path, hidden(plan))
    assert sum(first.size for first, _, _ in found.values()) > 1_000_000
    assert set(operators) <= INTEGER_OPERATORS  # no float operator is left in ONNX Runtime's own graph
    assert_identical(found)


@pytest.mark.slow
def test_no_logit_of_many_inputs_differs(member, tmp_path):
    name, plan = member
    x = data.samples(name, MEMBERS[name].shape, COUNTS[name][2], is_calibration=False)
    found, operators = compare(plan, x, tmp_path)
    assert found["logits"][0].size >= 10_000
    assert np.ptp(found["logits"][0]) > 50  # they use the range: equality is not that of constants
    assert set(operators) <= INTEGER_OPERATORS
    assert_identical(found)


# Signal to quantization noise of the logits, in dB; measured 34.4, 29.4, 45.6, 46.0 and 23.4.
LEAST_SQNR = {"mobilenet-v2": 30, "mobilenet-v3": 25, "resnet-8": 40, "ds-cnn": 40, "efficientnet-lite0": 19}


@pytest.mark.slow
def test_integers_are_near_the_float_network(member, record_property):
    name, plan = member
    x = data.samples(name, MEMBERS[name].shape, min(COUNTS[name][2], 100), is_calibration=False)
    with torch.no_grad():
        expected = load(name)(x).numpy()
    found = fidelity.compare(expected, integer.predict(plan, x), where=name)
    record_property("sqnr_db", found.sqnr_db)
    print(f"{name}: {found}")
    assert found.sqnr_db > LEAST_SQNR[name]
