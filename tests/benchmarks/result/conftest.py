# SPDX-License-Identifier: Apache-2.0
"""One small bundle with both runtimes."""

import pytest

from tests.edge_agent.runner import bundles


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A classifier of 4 classes for LiteRT and ONNX Runtime."""
    return bundles.build(tmp_path_factory.mktemp("result") / "b")
