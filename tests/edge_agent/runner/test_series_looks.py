# SPDX-License-Identifier: Apache-2.0
"""Inputs that are no images, answers in shares, and thinning: counted as they should, told in their own words."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from edge_agent.runner.engine import _rate_hz
from edge_agent.runner.features import output_statistics, share_statistics
from edge_agent.runner.observe import Observer
from edge_agent.runner.postprocess import softmax
from edge_agent.runner.series_looks import fits, series_statistics
from edge_agent.runner.task_counts import telling
from edge_contract.audio import Audio
from edge_contract.errors import UsageError
from edge_contract.profile import InputLook, ReferenceProfile
from edge_contract.series import Series
from edge_contract.verdict import DriftState, Level, judge
from export.bundle.projection import look_of
from export.bundle.reference import build_profile
from export.bundle.reference_tasks import build_task_profile
from tests.support.task_models import count, series_model, summary

UNITS = np.array([1.0, 10.0, 1000.0])


def recordings(n, seed, length=20):
    """Three sensors of unlike units: a hum, noise, and a pressure about 101 325."""
    random = np.random.default_rng(seed)
    return random.normal(size=(n, length, 3)) * UNITS + [0.0, 5.0, 101_325.0]


SHIFTS = {
    "an offset of one sensor": (lambda x: x + np.array([0, 0, 700.0]), "sensor 2 moved by +"),
    "larger swings": (lambda x: (x - [0, 5, 101_325]) * 1.3 + [0, 5, 101_325], "of larger swings"),
    "a smoother signal": (lambda x: (x + np.roll(x, 1, axis=1)) / 2, "smoother"),
    "opposite offsets": (lambda x: x + np.array([0.5, -5, 0.0]), "sensor"),
}


@pytest.mark.parametrize("shift", SHIFTS)
def test_what_happened_to_a_series_is_told(shift):
    model = series_model()
    profile = build_task_profile(model, recordings(500, 0))
    assert (profile.look.kind, profile.counters.form.sensors) == ("series", 3)
    found, _ = judge(profile, summary(profile, count(model, profile, recordings(250, 1))), DriftState())
    assert found.level is Level.OK
    change, words = SHIFTS[shift]
    found, _ = judge(profile, summary(profile, count(model, profile, change(recordings(250, 2)))), DriftState())
    assert found.level is Level.WARN
    assert words in {c.name: c.text for c in found.channels}["input"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sensor_without_a_number_is_counted_and_breaks_nothing(bad):
    model = series_model()
    profile = build_task_profile(model, recordings(200, 0))
    raw = recordings(100, 3)
    raw[::2, 4, 1] = bad
    observer, tell = _observer(model, profile)
    for one in raw:
        observer.take(tell(one, model.predict(np.nan_to_num(one, posinf=9, neginf=-9))), one, 1000.0)
    found = observer.counters()
    assert sum(found.sharpness) == 100
    found.check()


def _observer(model, profile):
    from edge_agent.runner.task_counts import TaskObserver

    return TaskObserver(profile), telling(model, profile)


def test_the_statistics_are_those_of_a_plain_loop():
    look = InputLook("series", (1.0, 2.0), (0.5, 2.0), -1.0, 1.0)
    raw = np.random.default_rng(0).normal(size=(5, 7, 2)) * 3
    found = series_statistics(look, raw)
    for i, one in enumerate(raw):
        z = [[(row[0] - 1) * 0.5, (row[1] - 2) * 2.0] for row in one]
        flat = [value for row in z for value in row]
        steps = [abs(b[c] - a[c]) for a, b in itertools.pairwise(z) for c in (0, 1)]
        own = [np.var([row[c] for row in z]) for c in (0, 1)]
        expected = (np.mean(flat), np.sqrt(np.mean(own)), np.mean(steps))
        assert found.values[:, i] == pytest.approx(expected)
        assert found.sensors[i] == pytest.approx([np.mean([row[c] for row in z]) for c in (0, 1)])
        shares = (np.mean([v < -1 for v in flat]), np.mean([v > 1 for v in flat]))
        assert (found.dark[i], found.bright[i]) == pytest.approx(shares)


def test_a_tone_is_heard_by_level_pitch_and_clipping():
    time = np.arange(8000) / 8000
    tone = lambda hz, gain: gain * np.sin(2 * np.pi * hz * time)  # noqa: E731
    raw = np.stack([tone(400, 0.5), tone(400, 0.05), tone(1600, 0.5), tone(400, 4.0).clip(-1, 1), np.zeros(8000)])
    for given in (raw, (raw * 32767).astype(np.int16)):
        found = series_statistics(InputLook("audio"), given)
        level, crossings, crest = found.values
        assert level[:2] == pytest.approx([-9.03, -29.03], abs=0.05)
        assert crossings[[0, 2]] == pytest.approx([0.1, 0.4], abs=0.002)
        assert crest[0] == pytest.approx(np.log(np.sqrt(2)), abs=0.01)
        assert found.bright[3] > 0.5 > found.bright[0]
        assert (found.dark[4], level[4]) == (1.0, pytest.approx(-100.0))


def test_a_look_follows_the_preprocessing():
    raw = recordings(50, 0).astype(np.float32)
    assert look_of(Series(3, 20, 20), raw).kind == "series"
    assert look_of(Series(3, 1, 1), raw[:, :1]).kind == "vectors"
    assert look_of(Audio(8000, 20, 20), raw[..., 0]).kind == "audio"
    assert look_of(None, raw).kind == "images"
    wide = look_of(Series(40, 5, 5), np.random.default_rng(0).normal(size=(30, 5, 40)))
    assert len(wide.offset) == 1, "of many sensors one scale for all"
    constant = look_of(Series(3, 20, 20), np.full((9, 20, 3), 7.0))
    assert constant.scale == (1.0, 1.0, 1.0)
    assert not fits(look_of(Series(3, 20, 20), raw), np.zeros((20, 4)))
    assert fits(look_of(Series(3, 1, 1), raw[:, :1]), np.zeros((1, 3)))


class Told:
    """A classifier that says what it is told to say, in int8 shares or in logits."""

    labels = ("a", "b", "c")

    def __init__(self, rows):
        self._rows, self._at = rows, -1

    def infer(self, raw):
        self._at += 1
        return type("Answer", (), {"logits": self._rows[self._at], "embedding": None})()


def logits_of(n, seed, lead):
    random = np.random.default_rng(seed)
    truth = random.integers(0, 3, n)
    return truth, random.normal(size=(n, 3)) + lead * np.eye(3)[truth]


def eighth_bits(logits):
    return np.rint(softmax(logits) * 256) / 256


def test_a_classifier_that_ends_in_an_int8_softmax_is_watched_by_the_lead_of_its_best_class():
    """Its energy would be logsumexp of shares, which hardly moves; the lead moves as the logits' does."""
    truth, logits = logits_of(600, 0, 4.0)
    raw = np.random.default_rng(0).integers(0, 256, (600, 8, 8), dtype=np.uint8)
    profile = build_profile(Told(eighth_bits(logits)), raw, truth, postprocess="none")
    assert profile.scores == "shares"
    assert ReferenceProfile.from_bytes(profile.to_bytes()) == profile
    as_logits = build_profile(Told(eighth_bits(logits)), raw, truth)
    assert as_logits.scores == "logits", "a softmax that follows takes them for logits"
    effects = {}
    for name, lead in (("as ever", 4.0), ("unsure", 3.3)):
        _, later = logits_of(300, 5, lead)
        for known in (profile, as_logits):
            observer = Observer(known)
            for one, image in zip(eighth_bits(later), raw, strict=False):
                observer.observe(one, None, image, 900.0)
            found, _ = judge(known, summary(known, observer.counters()), DriftState())
            effects[name, known.scores] = {c.name: c for c in found.channels}["energy"]
    assert effects["as ever", "shares"].p > 0.01
    told = effects["unsure", "shares"]
    assert told.p < 1e-6
    assert "lead of the best class" in told.text
    assert "smaller" in told.text


def test_the_lead_is_exact_and_has_a_floor():
    said = share_statistics(np.array([[0.75, 0.25, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    assert said.classes.tolist() == [0, 0, 0]
    assert said.energy == pytest.approx([np.log(3), np.log(512), 0.0])
    assert said.confidence == pytest.approx([np.log(0.75), 0.0, np.log(1 / 512)])
    logits = np.array([[2.0, 0.5, -1.0]])
    assert share_statistics(softmax(logits)).energy == pytest.approx([1.5])
    assert share_statistics(softmax(logits)).confidence == pytest.approx(output_statistics(logits).confidence)


def poisson(rate_hz, step_s, n, seed=1):
    now = itertools.count()
    observer = Observer(
        ReferenceProfile.blank(("a", "b")), rate_hz=rate_hz, seed=seed, clock=lambda: next(now) * step_s
    )
    for _ in range(n):
        observer.observe(np.array([1.0, 0.0]), None, None, 900.0)
    return observer.counters()


@pytest.mark.parametrize("step_s", [0.01, 0.5, 10.0])
def test_thinning_takes_as_many_a_second_as_it_says_and_of_rare_inputs_nearly_all(step_s):
    n = 3000
    found = poisson(1.0, step_s, n)
    expected = 1 + (n - 1) * (1 - np.exp(-step_s))
    assert found.n_infer == n
    assert found.n_sampled == pytest.approx(expected, abs=4 * np.sqrt(n * np.exp(-step_s) * (1 - np.exp(-step_s))) + 1)
    assert poisson(0.0, step_s, 50).n_sampled == 50


def test_a_clock_that_stands_or_goes_back_samples_nothing_twice():
    observer = Observer(ReferenceProfile.blank(("a", "b")), rate_hz=1.0, clock=iter([5.0, 5.0, 4.0, 1.0]).__next__)
    for _ in range(4):
        observer.observe(np.array([1.0, 0.0]), None, None, 900.0)
    assert observer.counters().n_sampled == 1, "the first alone"


@pytest.mark.parametrize(
    ("spec", "rate"),
    [
        ({"kind": "camera"}, 1.0),
        ({"kind": "replay"}, None),
        ({"kind": "camera", "sample_hz": 0}, 0.0),
        ({"kind": "http", "sample_hz": 5}, 5.0),
    ],
)
def test_of_a_camera_one_frame_a_second_is_counted_unless_a_person_says_otherwise(spec, rate):
    spec = dict(spec)
    assert _rate_hz(spec, "door") == rate
    assert "sample_hz" not in spec


@pytest.mark.parametrize("bad", [-1, "all", True, 1e9])
def test_a_rate_that_cannot_be_is_refused(bad):
    with pytest.raises(UsageError, match="source 'door': sample_hz"):
        _rate_hz({"kind": "camera", "sample_hz": bad}, "door")


def test_a_profile_of_series_is_of_no_use_for_other_inputs():
    model = series_model()
    profile = build_task_profile(model, recordings(150, 0))
    observer = _observer(model, profile)[0]
    observer.see(np.zeros((20, 9)))
    assert observer.counters() == replace(profile.counters.emptied())
