# SPDX-License-Identifier: Apache-2.0
"""Images that the tests share: built once, copied for each test."""

import pytest

from tests.fleet.flash.fake_image import KINDS, build, copy


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    """Return a base image of a kind, built when it is first asked for; nobody changes it."""
    folder, found = tmp_path_factory.mktemp("bases"), {}

    def base(kind):
        assert kind in KINDS
        if kind not in found:
            found[kind] = build(folder, kind)
        return found[kind]

    return base


@pytest.fixture
def fresh(bases, tmp_path):
    """Return a copy of a base image, to be changed."""
    return lambda kind, name="card.img": copy(bases(kind), tmp_path / name)
