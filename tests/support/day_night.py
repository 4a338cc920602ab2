# SPDX-License-Identifier: Apache-2.0
"""A camera by day and by night: the model answers alike in any light, and only the images' statistics know the hour."""

from functools import lru_cache

import numpy as np

from edge_agent.runner.observe import Observer
from edge_contract.summary import DriftSummary, Health, short_hash
from export.bundle.reference import build_profile
from tests.support.fleet_bundle import Matcher

HOUR_MS, START_MS = 3_600_000, 1_780_012_800_000  # a midnight
POOL = 1500


class Exposed:
    """A model behind a perfect automatic exposure: it answers to a picture in any light as to the well-lit one."""

    labels = Matcher.labels

    def __init__(self, matcher, lit, clear):
        self.known = {one.tobytes(): matcher.infer(two) for one, two in zip(lit, clear, strict=True)}

    def infer(self, raw):
        return self.known[raw.tobytes()]


@lru_cache(maxsize=1)
def scene():
    """Return the profile, images and the model's answers to them."""
    matcher, random = Matcher(), np.random.default_rng(5)
    clear, truth = matcher.draw(900, seed=1)
    lit = clear * random.uniform(0.2, 1.0, (len(clear), 1, 1)) * content(random, clear)  # a day of recordings
    lit = lit.clip(0, 255).astype(np.uint8)
    raw, _ = matcher.draw(POOL, seed=77)
    answers = [matcher.infer(one) for one in raw]
    return build_profile(Exposed(matcher, lit, clear), lit, truth), raw * content(random, raw), answers


def light(hour, day):
    """How bright it is: full at noon, a quarter at night; some days are cloudy."""
    sun = max(0.0, np.sin((hour - 6) / 12 * np.pi))
    return (0.25 + 0.75 * sun) * (1.0, 0.93, 0.88)[day % 3]


def content(random, images):
    """Scenes differ in brightness, also at one hour."""
    return np.exp(random.normal(0.0, 0.25, (len(images), 1, 1)))


def dirty(raw):
    """What a smeared lens leaves: flat and grey."""
    soft = (raw + np.roll(raw, 1, axis=0) + np.roll(raw, 1, axis=1)) / 3
    return 0.6 * soft + 25


def look(day, hour, *, smeared=False, n=150, seed=0, device="cam", shade=1.0, number=None, bundle="ab" * 32):
    """Return the window of one hour."""
    profile, raw, answers = scene()
    random, observer = np.random.default_rng((seed, day, hour)), Observer(profile)
    for row in random.integers(0, POOL, n):
        image = raw[row] * light(hour + random.uniform(-0.5, 0.5), day) * shade
        image = np.clip(dirty(image) if smeared else image, 0, 255).astype(np.uint8)
        observer.observe(answers[row].logits, answers[row].embedding, image, 900.0)
    start = START_MS + (24 * day + hour) * HOUR_MS
    return DriftSummary(
        device=short_hash(device, 8),
        bundle=bundle[:32],
        profile_crc=profile.crc,
        boot=short_hash("boot", 4),
        window=24 * day + hour + 1 if number is None else number,
        start_ms=start,
        duration_ms=HOUR_MS - 1000,
        counters=observer.counters(),
        health=Health(temperature_c=(40.0, 45.0, 50.0)),
    )
