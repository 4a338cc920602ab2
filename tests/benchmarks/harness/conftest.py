# SPDX-License-Identifier: Apache-2.0
"""One small bundle for all tests of the harness, plans that take a second, and runtimes that misbehave."""

import pytest

from benchmarks.plan import plan_for
from tests.edge_agent.runner import bundles

SHORT = {"seconds": 0.0, "runs": 30, "warmup_s": 0.0, "warmup_cap_s": 0.3, "launches": 1, "cooldown_s": 0.0}


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A bundle for LiteRT and ONNX Runtime with a profile."""
    return bundles.build(tmp_path_factory.mktemp("harness") / "b", profile=True)


@pytest.fixture
def short(bundle):
    """Make a plan of one short launch; words replace its fields."""

    def make(model=None, **chosen):
        return plan_for(model or bundle, **{**SHORT, **chosen})

    return make


@pytest.fixture
def wrong_runtime(tmp_path, monkeypatch):
    """Put another ``ai_edge_litert`` before the real one, in the child only: its Interpreter is what a test says."""

    def put(body):
        folder = tmp_path / "shadow/ai_edge_litert"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text('__version__ = "9.9"\n')
        (folder / "interpreter.py").write_text(
            f"class Interpreter:\n    def __init__(self, **words):\n        {body}\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(folder.parent))

    return put
