# SPDX-License-Identifier: Apache-2.0
"""A real agent that starts no runner: an application's own inferences are its results, windows and metrics."""

import threading

import pytest

import edge_agent
from edge_agent.config import load
from edge_contract.errors import DataError, UsageError
from tests.edge_agent.runner import tiny
from tests.support.agent_process import _children, until

pytestmark = pytest.mark.broker


def embed(data, model='model = "compass"\n'):
    path = data / "agent.toml"
    path.write_text('runner = "embedded"\n' + model + path.read_text().replace('source = "first"\n', ""))


def test_an_application_s_inferences_become_results_and_drift_windows(bench) -> None:
    embed(bench.data)
    bench.broker.start()
    peer, agent = bench.peer(), bench.agent()
    with edge_agent.Model.open("compass", data=bench.data) as model:
        until(lambda: any(e["kind"] == "loaded" for e in peer.of("event")), "the application is known")
        for raw in tiny.images(120, seed=5):
            model.predict(raw)
        with pytest.raises(DataError):
            model.predict(tiny.images(1)[0][:3])
        until(lambda: peer.of("drift"), "a drift window")
        until(lambda: sum(len(body["rows"]) for body in peer.of("result")) == 120, "results")
        until(lambda: any(body.get("input_shape") == 1 for body in peer.of("metric")), "the violation in a metric")
    assert {body["bundle"] for body in peer.of("drift")} == {bench.bundle}
    assert _children(agent.child.pid) == [], "the agent starts no runner of its own"
    threading.Event().wait(0.2)
    assert not [e for e in peer.of("event") if e["kind"] == "runner_exit"], "leaving is no crash"
    until(lambda: any(e["kind"] == "input" for e in peer.of("event")), "the violation as an event")
    assert agent.stop() == 0


def test_an_embedded_runner_needs_the_model_s_name(bench) -> None:
    embed(bench.data, model="")
    with pytest.raises(UsageError, match='embedded runner without a model; write model = "NAME"'):
        load(bench.data)
