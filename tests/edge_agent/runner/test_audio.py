# SPDX-License-Identifier: Apache-2.0
"""Sound: frames and spectra against scipy and a direct sum, filterbanks by their areas, MFCC against scipy's DCT."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.runner.audio import filterbank, mel_hz, window
from edge_agent.runner.preprocess import apply, apply_batch, channels, cut, is_single
from edge_contract.audio import Audio
from edge_contract.errors import DataError

ROOT = Path(__file__).resolve().parents[3]
SPECTRUM = Audio(rate_hz=16000, length=4000, hop=4000, frame=400, step=160, fft=512)
MELS = replace(SPECTRUM, bands=40, low_hz=20.0, high_hz=4000.0)


def noise(length=4000, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, length)


def test_spectrum_is_scipy_s_short_time_transform():
    clip = noise()
    _, _, found = scipy.signal.stft(
        clip, nperseg=400, noverlap=240, nfft=512, window="hann", boundary=None, padded=False, scaling="spectrum"
    )
    expected = np.abs(found * window("hann", 400).sum()) ** 2
    ours = apply(SPECTRUM, clip)[..., 0]
    assert ours.shape == (SPECTRUM.frames, 257) == expected.T.shape
    np.testing.assert_allclose(ours, expected.T, rtol=1e-5, atol=1e-9)  # ours is rounded to float32


def test_spectrum_is_the_sum_of_its_definition():
    p = Audio(rate_hz=100, length=20, hop=20, frame=8, step=3, fft=12, window="hamming", power=1)
    clip = noise(20)
    n, k = np.arange(8), np.arange(7)[:, None]
    weights = 0.54 - 0.46 * np.cos(2 * np.pi * n / 8)
    for i, frame in enumerate(apply(p, clip)[..., 0]):
        direct = np.abs((clip[3 * i : 3 * i + 8] * weights * np.exp(-2j * np.pi * k * n / 12)).sum(axis=1))
        np.testing.assert_allclose(frame, direct, rtol=1e-5)
    assert p.frames == 5  # starts 0, 3, 6, 9, 12; 15 + 8 > 20


@pytest.mark.parametrize(("name", "scipy_name"), [("hann", "hann"), ("hamming", "hamming"), ("none", "boxcar")])
def test_windows_are_the_periodic_ones(name, scipy_name):
    np.testing.assert_allclose(window(name, 480), scipy.signal.get_window(scipy_name, 480, fftbins=True), atol=1e-12)


@pytest.mark.parametrize(("edges", "mode"), [("reflect", "reflect"), ("zero", "constant")])
def test_edges_add_half_a_frame_on_both_sides(edges, mode):
    clip = noise()
    padded = np.pad(clip, 200, mode=mode)
    found = apply(replace(SPECTRUM, edges=edges), clip)
    assert (found == apply(replace(SPECTRUM, length=4400, hop=4400), padded)).all()


def test_a_tone_is_where_it_should_be():
    t = np.arange(4000) / 16000
    found = apply(SPECTRUM, np.sin(2 * np.pi * 1000 * t))[..., 0]
    assert (found.argmax(axis=1) == 32).all()  # 1000 Hz / (16000 / 512)
    mels = apply(MELS, np.sin(2 * np.pi * 1000 * t))[..., 0]
    low, high = mel_hz("htk", np.array([20.0, 4000.0]))
    centres = np.linspace(low, high, 42)[1:-1]
    assert (mels.argmax(axis=1) == np.abs(centres - mel_hz("htk", np.array(1000.0))).argmin()).all()


@pytest.mark.parametrize("mel", ["htk", "tensorflow"])
def test_neighbouring_triangles_sum_to_one(mel):
    """Between the first and the last peak every bin is shared by two bands whose weights sum to 1."""
    p = replace(MELS, mel=mel, fft=2048)
    bank, hz = filterbank(p), np.arange(1025) * (16000 / 2048)
    peaks = np.linspace(*mel_hz(mel, np.array([20.0, 4000.0])), 42)
    inside = (mel_hz(mel, hz) >= peaks[1]) & (mel_hz(mel, hz) <= peaks[-2])
    np.testing.assert_allclose(bank[:, inside].sum(axis=0), 1.0, atol=1e-9)
    assert (bank >= 0).all()
    assert not bank[:, (hz < 20) | (hz > 4000)].any()


def test_slaney_s_triangles_have_area_one():
    """A fine grid, so that the sum over bins is the integral: 2 / (right - left) makes it 1 Hz × 1 / Hz."""
    p = replace(MELS, mel="slaney", fft=65536)
    areas = filterbank(p).sum(axis=1) * (16000 / 65536)
    np.testing.assert_allclose(areas, 1.0, rtol=1e-3)


def test_slaney_s_scale_is_linear_then_logarithmic():
    np.testing.assert_allclose(mel_hz("slaney", np.array([200.0, 1000.0, 6400.0])), [3.0, 15.0, 42.0])


@given(st.floats(0, 24000), st.floats(0, 24000), st.sampled_from(["htk", "slaney"]))
def test_mel_keeps_the_order_of_frequencies(one, other, mel):
    low, high = sorted((one, other))
    assert mel_hz(mel, np.array(low)) <= mel_hz(mel, np.array(high))


@pytest.mark.parametrize("dct", ["ortho", "htk"])
def test_coefficients_are_scipy_s_dct(dct):
    logs = replace(MELS, log="natural")
    clip = noise()
    bands = apply(logs, clip)[..., 0]
    found = apply(replace(logs, coefficients=13, dct=dct), clip)[..., 0]
    expected = scipy.fft.dct(bands.astype(float), type=2, norm="ortho", axis=1)[:, :13]
    if dct == "htk":
        expected[:, 0] *= np.sqrt(2)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_logarithms_are_those_of_the_formula():
    power = apply(MELS, noise()).astype(float)
    natural, decibel = (apply(replace(MELS, log=log, offset=1e-3), noise()) for log in ("natural", "decibel"))
    np.testing.assert_allclose(natural, np.log(power + 1e-3), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(decibel, 10 * np.log10(power + 1e-3), rtol=1e-5, atol=1e-6)
    assert np.isfinite(apply(replace(MELS, log="natural"), np.zeros(4000))).all()


def test_pcm_is_a_share_of_full_scale_and_a_short_clip_ends_in_silence():
    clip = Audio(rate_hz=16000, length=5, hop=5)
    pcm = np.array([-32768, 16384, 1], np.int16)
    found = apply(clip, pcm)
    assert found.shape == (5, 1)
    assert found[:, 0].tolist() == [-1.0, 0.5, 1 / 32768, 0.0, 0.0]
    assert (apply(clip, pcm / 32768) == found).all()


def test_mean_and_std_run_along_the_bands():
    p = replace(MELS, mean=tuple(range(40)), std=(2.0,) * 40)
    plain = apply(MELS, noise())
    found = apply(p, noise())
    assert (found == (plain - np.arange(40, dtype=np.float32)[:, None]) / 2).all()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (np.zeros((4000, 2)), r"a clip of shape \[4000, 2\], not \[1 to 4000\]; give mono samples at 16000 Hz"),
        (np.zeros(4001), r"a clip of shape \[4001\]"),
        (np.zeros(0), r"a clip of shape \[0\]"),
        (np.zeros(9, np.uint8), "a clip of type uint8; give int16, or reals"),
        (np.zeros(9, np.int32), "a clip of type int32"),
    ],
)
def test_what_is_no_clip_is_refused(raw, words):
    with pytest.raises(DataError, match=words):
        apply(MELS, raw)


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 4000), st.sampled_from([Audio(8000, 4000, 4000), SPECTRUM, MELS]))
def test_a_clip_gives_the_same_bits_alone_and_in_a_batch(count, length, p):
    clips = np.stack([noise(length, seed=i) for i in range(count)])
    batch = apply_batch(p, clips)
    assert batch.shape == (count, *p.shape)
    assert batch.shape[-1] == channels(p)
    for one, expected in zip(clips, batch, strict=True):
        assert apply(p, one).tobytes() == expected.tobytes()


def test_a_recording_is_cut_into_whole_clips():
    p = replace(SPECTRUM, hop=1000)
    recording = noise(9999)
    clips = cut(p, recording)
    assert clips.shape == (6, 4000)
    assert (clips[3] == recording[3000:7000]).all()
    assert is_single(p, recording)
    assert not is_single(p, clips)
    with pytest.raises(
        DataError, match=r"a recording of shape \[3999\] for windows of 4000 samples; record for longer"
    ):
        cut(p, recording[:3999])


def test_a_band_between_two_bins_gives_silence_and_no_error():
    narrow = Audio(rate_hz=16000, length=64, hop=64, frame=64, step=64, fft=64, bands=3, low_hz=10.0, high_hz=40.0)
    assert (apply(narrow, noise(64)) == 0).all()


BITS = """
import hashlib, numpy as np
from edge_agent.runner.preprocess import apply
from edge_contract.audio import Audio
clip = ((np.arange(16000, dtype=np.int64) ** 2 % 65521) - 32768).astype(np.int16)
p = Audio(rate_hz=16000, length=16000, hop=16000, frame=480, step=320, fft=512, bands=40, low_hz=20.0, high_hz=4000.0,
          log="natural", coefficients=10)
print(hashlib.sha256(apply(p, clip).tobytes()).hexdigest())
"""


def test_bits_are_the_same_in_both_numpys_that_devices_have(legacy):
    found = {
        subprocess.run([python, "-c", BITS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for python in (sys.executable, str(legacy))
    }
    assert len(found) == 1
