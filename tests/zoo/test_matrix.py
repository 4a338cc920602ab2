# SPDX-License-Identifier: Apache-2.0
"""Every method works on every network of the zoo, or refuses it by name with the reason; the page says which."""

import re

import pytest
import torch

from compress.steps import KINDS, cluster, factorize, prune, quantize, sparsify, training
from edge_contract.errors import StropError
from tests.zoo import models, others
from tests.zoo.cases import CASES, case
from tests.zoo.matrix import FIRST, PAGE, REFUSED, between, refusal, table
from tests.zoo.methods import METHODS, step_of, try_out


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("network", CASES)
def test_method_works_on_the_network_or_refuses_it_in_these_words(network, method):
    words = refusal(method, network)
    if not words:
        try_out(method, case(network))
        return
    with pytest.raises(StropError, match=re.escape(words)):
        try_out(method, case(network))


def test_all_networks_and_all_methods_of_the_recipe_are_in_the_matrix():
    assert set(CASES) == {*models.MEMBERS, *others.OTHERS}
    every = {
        "train": ("labels",),
        "distill": training.METHODS,
        "prune": prune.METHODS,
        "factorize": factorize.METHODS,
        "sparsify": sparsify.METHODS,
        "cluster": cluster.METHODS,
        "quantize": quantize.METHODS,
    }
    assert set(every) == set(KINDS)
    tried = {(step.kind, step.method) for step in (step_of(name, "resnet-8") for name in METHODS)}
    assert tried == {(kind, method) for kind, methods in every.items() for method in methods}


def test_every_refusal_of_the_table_is_of_a_cell():
    for methods, networks, words in REFUSED:
        assert set(networks) <= set(CASES)
        assert all(any(refusal(m, n) == words for m in METHODS) for n in networks), (methods, words)


def test_page_shows_the_matrix():
    text = PAGE.read_text(encoding="utf-8")
    assert FIRST in text
    assert between(text, table()) == text, "run: python -m tests.zoo.matrix"
