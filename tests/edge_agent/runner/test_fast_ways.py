# SPDX-License-Identifier: Apache-2.0
"""What was made faster says the same, bit for bit, as the plain way that it stands for."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_agent.runner.features import Pixels, input_statistics, stride_for
from edge_agent.runner.model import Model
from edge_agent.runner.observe import BATCH, Observer
from edge_agent.runner.postprocess import CodeSoftmax, decide
from edge_agent.runner.preprocess import apply
from edge_agent.runner.tensors import Encoder, byte_values, decoder, encode
from edge_contract.errors import DataError
from edge_contract.manifest import TensorSpec
from edge_contract.preprocess import Preprocess
from edge_contract.profile import ReferenceProfile
from tests.edge_agent.runner import bundles, tiny
from tests.support.digits import answers, digits, profile

NAMES = tuple("abcdefghij")


# decide


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@given(data=st.data(), scale=st.floats(2**-9, 2.0, width=32), zero=st.integers(-128, 127))
def test_the_table_of_exponentials_decides_as_the_real_values_do(dtype, data, scale, zero):
    spec = TensorSpec("x", "logits", (1, 4), np.dtype(dtype).name, "NC", scale, zero + 128 * (dtype is np.uint8))
    codes = data.draw(arrays(dtype, st.integers(1, 300)))
    quick, real = CodeSoftmax(byte_values(spec)), decoder(spec)
    for one in (codes, codes[::-1]):
        assert quick(one) == decide("softmax", real(one))


# the input


@pytest.mark.parametrize("planar", [True, False])
@pytest.mark.parametrize("colour", ["gray", "rgb", "bgr"])
@pytest.mark.parametrize(("dtype", "zero"), [("uint8", 0), ("int8", -128)])
def test_written_in_place_is_what_the_encoder_gives(planar, colour, dtype, zero):
    depth = 1 if colour == "gray" else 3
    p = Preprocess(colour=colour, crop=(5, 4), centre=(0.9,))
    spec = TensorSpec(
        "x", "input", (1, depth, 5, 4) if planar else (1, 5, 4, depth), dtype, "NCHW" if planar else "NHWC", 1.0, zero
    )
    encoder, rng = Encoder(p, spec), np.random.default_rng(1)
    for shape in ((9, 8, 3), (9, 8), (6, 7, 3), (6, 7, 1)):
        raw, room = rng.integers(0, 256, shape, dtype=np.uint8), np.zeros(spec.shape, dtype)
        fits = (len(shape) == 3 and shape[2] == 3) == (depth == 3)
        assert encoder.write(raw, lambda room=room: room) == fits, shape
        if fits:
            assert room.tobytes() == encode(spec, apply(p, raw)[None]).tobytes(), shape


def test_what_is_no_copy_of_bytes_is_not_written_in_place():
    spec = TensorSpec("x", "input", (1, 5, 4, 3), "int8", "NHWC", 1.0, -128)

    def never():
        raise AssertionError("the room is touched")

    raw = np.zeros((5, 4, 3), np.uint8)
    encoder = Encoder(Preprocess(colour="rgb"), spec)
    for other in (raw.astype(np.float32), raw[::-1], np.asfortranarray(raw), np.zeros((9, 9, 3), np.uint8)):
        assert not encoder.write(other, never)
    scaled = Encoder(Preprocess(colour="rgb", scale=0.5), spec)  # a byte becomes another one: by a table
    resized = Encoder(Preprocess(colour="rgb", resize=(5, 4)), spec)
    assert not scaled.write(raw, never)
    assert not resized.write(np.zeros((10, 8, 3), np.uint8), never)
    assert not Encoder(Preprocess(), TensorSpec("x", "input", (1, 5, 4, 1), "float32", "NHWC")).write(
        raw[..., 0], never
    )


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_answers_of_the_runtime_s_own_memory_are_those_of_a_copy(runtime, tmp_path):
    model = Model.open(bundles.build(tmp_path / "b"), runtime=runtime)
    copied = {raw.tobytes(): model.session.run(np.array(model.encoded(raw))) for raw in tiny.images(20, seed=5)}
    given_answers = [(raw, model.infer(raw)) for raw in tiny.images(20, seed=5)]
    for raw, answer in given_answers:  # all of them after the last one: none is overwritten
        for key, name in ((key, spec.name) for key, spec in model.keys.items()):
            assert answer.codes[key].tobytes() == copied[raw.tobytes()][name].tobytes()
        assert answer.logits.dtype == np.float32
        assert (answer.cls, answer.confidence) == decide("softmax", answer.logits)
        assert pickle.loads(pickle.dumps(answer)).embedding.tolist() == answer.embedding.tolist()


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_an_exception_that_somebody_keeps_holds_no_memory_of_the_runtime(runtime, tmp_path):
    model = Model.open(bundles.build(tmp_path / "b"), runtime=runtime)
    good, kept = tiny.images(1)[0], []
    for bad in (np.zeros((9, 8), np.uint8), np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), object)):
        model.infer(good)
        try:
            model.infer(bad)
        except (DataError, ValueError, TypeError) as error:
            kept.append(error)
    assert len(kept) >= 2
    assert model.infer(good).logits.shape == (4,)


# the statistics


def plain_statistics(images):
    """The formulas as the reference profiles of older bundles were made with."""
    gray = images
    if images.ndim == 4 and images.shape[3] >= 3:
        gray = ((images[..., :3] @ np.array([77, 150, 29], dtype=np.uint16)) >> 8).astype(np.uint8)
    elif images.ndim == 4:
        gray = images[..., 0]
    pixels, flat = gray.shape[1] * gray.shape[2], gray.reshape(len(gray), -1)
    real = flat.astype(np.float32)
    mean = real.mean(axis=1)
    contrast = np.sqrt(np.maximum((real * real).mean(axis=1) - mean * mean, 0.0))
    plane = real.reshape(gray.shape)
    steps = np.abs(np.diff(plane, axis=1)).sum(axis=(1, 2)) + np.abs(np.diff(plane, axis=2)).sum(axis=(1, 2))
    values = np.stack([mean, contrast, steps / (2 * pixels)]).astype(np.float64) / 255.0
    return values, (flat < 2).mean(axis=1), (flat > 253).mean(axis=1)


@pytest.mark.parametrize("shape", [(5, 64, 64, 3), (3, 28, 28), (2, 64, 36, 4), (9, 1, 7, 1), (4, 6, 1, 2)])
@pytest.mark.parametrize("kind", ["noise", "white", "extremes"])
def test_statistics_are_those_of_the_plain_formulas_bit_for_bit(shape, kind):
    rng = np.random.default_rng(2)
    images = {
        "noise": rng.integers(0, 256, shape, dtype=np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "extremes": rng.choice(np.array([0, 1, 2, 253, 254, 255], np.uint8), shape),
    }[kind]
    found, plain = input_statistics(images), plain_statistics(images)
    for ours, theirs in zip((found.values, found.dark, found.bright), plain, strict=True):
        assert ours.tobytes() == theirs.tobytes()


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    depth=st.sampled_from([None, 1, 2, 3, 4, 5]),
    turned=st.booleans(),
)
def test_the_pixels_that_are_looked_at_are_each_stride_th(height, width, depth, turned):
    shape = (height, width) if depth is None else (height, width, depth)
    raw = np.random.default_rng(height * 1000 + width).integers(0, 256, shape, dtype=np.uint8)
    raw = np.asfortranarray(raw) if turned else raw
    room, stride = Pixels(2, shape), stride_for(height, width)
    room.put(1, raw)
    seen = raw[::stride, ::stride]
    assert room.first(2)[1].tolist() == seen.tolist()
    assert Pixels.count(shape) == seen.size


# the observer


def counted(*, by_codes, sees, rows=range(BATCH * 2 + 9), shape=(28, 28)):
    """Count answers of a real net, told as codes or as real values, with or without a look before."""
    rng, reference = np.random.default_rng(4), profile()
    logits = TensorSpec("l", "logits", (1, 10), "int8", "NC", 0.1, 3)
    embedding = TensorSpec("e", "embedding", (1, reference.projection.dimension), "uint8", "NC", 0.05, 0)
    specs = {"logits": logits, "embedding": embedding}
    observer, real = Observer(reference, specs=specs if by_codes else {}), {k: decoder(s) for k, s in specs.items()}
    for _ in rows:
        codes = rng.integers(-128, 128, 10).astype(np.int8), rng.integers(0, 256, embedding.shape[1]).astype(np.uint8)
        raw = rng.integers(0, 256, shape, dtype=np.uint8)
        if sees:
            observer.see(raw)
        told = codes if by_codes else (real["logits"](codes[0]), real["embedding"](codes[1]))
        observer.observe(*told, raw, float(rng.integers(1, 9000)))
    return observer.counters()


@pytest.mark.parametrize("shape", [(28, 28), (256, 256, 3)])
def test_codes_count_as_the_real_values_that_they_mean(shape):
    plain = counted(by_codes=False, sees=False, shape=shape)
    assert plain.n_sampled == BATCH * 2 + 9
    assert counted(by_codes=True, sees=False, shape=shape) == plain
    assert counted(by_codes=True, sees=True, shape=shape) == plain


def test_pixels_of_an_answer_that_failed_are_not_counted_and_the_next_ones_are():
    observer, other = Observer(ReferenceProfile.blank(NAMES)), Observer(ReferenceProfile.blank(NAMES))
    raw = np.zeros((8, 8), np.uint8)
    observer.see(np.full((8, 8), 255, np.uint8))
    observer.error()
    observer.see(raw)
    for one in (observer, other):
        one.observe(np.eye(10)[0], None, raw, 1.0)
    other.error()
    assert observer.counters() == other.counters()
    assert (observer.counters().n_sampled, observer.counters().n_err) == (1, 1)


def test_large_images_are_looked_at_in_small_groups_apart_from_the_outputs(monkeypatch):
    calls, observer = [], Observer(ReferenceProfile.blank(NAMES))
    batch = observer._batch
    for name in ("add", "look"):
        monkeypatch.setattr(
            batch, name, lambda *args, name=name, way=getattr(batch, name): (calls.append(name), way(*args))
        )
    raw, worst = np.zeros((256, 256, 3), np.uint8), 0
    for _ in range(3 * BATCH):
        before = len(calls)
        observer.observe(np.eye(10)[0], None, raw, 1.0)
        worst = max(worst, len(calls) - before)
    assert worst == 1, "one answer pays for one summary at most"
    assert calls.count("look") == 3 * BATCH // 8
    assert sum(observer.counters().brightness) == 3 * BATCH


@pytest.mark.parametrize("given_rows", [range(100), range(BATCH)])
def test_float_outputs_that_are_no_numbers_leave_their_pixels_out(given_rows):
    observer, raw = Observer(profile()), digits(0).test
    for row in given_rows:
        answer = answers(0, "test")[row]
        logits = np.full(10, np.nan, np.float32) if row % 7 == 3 else answer.logits
        observer.observe(logits, answer.embedding, raw[row], 5.0)
    found = observer.counters()
    found.check()
    good = sum(row % 7 != 3 for row in given_rows)
    assert (found.n_sampled, found.n_err, sum(found.brightness)) == (good, len(given_rows) - good, good)
