# SPDX-License-Identifier: Apache-2.0
"""The agent inside an application: names, swaps between calls, threads, asyncio, lent memory, the agent."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import edge_agent
from edge_agent.adapters.embedded_runner import EmbeddedRunner
from edge_agent.adapters.slots import SlotStore
from edge_agent.counters import CounterFile
from edge_agent.embedding import counters_path, socket_path
from edge_agent.runner import answering
from edge_agent.runner.embedded import link, live
from edge_agent.runner.embedded.place import ENVIRONMENT
from edge_agent.runner.model import Model as FileModel
from edge_contract.errors import DataError, RuntimeAdapterError, SlotError, UsageError
from tests.edge_agent.runner import bundles, tiny
from tests.support.agent_process import install, until

RAW = tiny.images(40, seed=3)


@pytest.fixture(scope="session")
def second(tmp_path_factory):
    """Another bundle of the same model: other weights."""
    return bundles.build(tmp_path_factory.mktemp("bundle") / "v2", seed=5, version="2.0.0", profile=True)


@pytest.fixture
def data(tmp_path, built):
    """A data folder as an agent keeps it, with the first bundle active."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "agent.toml").write_text('device = "pi"\nruntime = "litert"\nrunner = "embedded"\nmodel = "compass"\n')
    install(folder, built)
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Publish, compare and connect ten times as often: the tests wait for these."""
    monkeypatch.setattr(live, "FLUSH_S", 0.05)
    monkeypatch.setattr(answering, "SHADOW_EVERY_S", 0.05)
    monkeypatch.setattr(link, "RETRY_S", 0.05)


@pytest.fixture
def opened():
    """Open models that end with the test."""
    held = []

    def open_(*words, **options):
        held.append(edge_agent.Model.open(*words, **options))
        return held[-1]

    yield open_
    for model in held:
        model.close()


def classes(folder, runtime="litert"):
    model = FileModel.open(folder, runtime=runtime)
    return [model.infer(raw).cls for raw in RAW]


def flip(data, bundle):
    slots = SlotStore(data / "models")
    before = slots.read("compass").active
    after = install(data, bundle)
    slots.flip("compass", after, before)
    return after


def counted(data):
    return CounterFile(counters_path(data, "compass")).read()


def test_a_name_leads_to_the_active_slot_and_its_answers_count(data, built, opened):
    model = opened("compass", data=data)
    assert [model.infer(raw).cls for raw in RAW] == classes(built)
    assert (model.version, model.labels, model.is_counted) == ("1.0.0", bundles.LABELS, True)
    model.close()
    reading = counted(data)
    assert (reading.bundle, reading.counters.n_infer) == (model.bundle, len(RAW))
    assert sum(reading.counters.brightness) == len(RAW)


def test_the_data_folder_is_the_argument_or_the_environment_or_nothing(data, opened, monkeypatch, tmp_path):
    monkeypatch.setenv(ENVIRONMENT, str(data))
    assert opened("compass").version == "1.0.0"
    with pytest.raises(SlotError, match="there is no active model; roll a bundle out"):
        opened("weather")
    with pytest.raises(UsageError, match="no agent's data folder; enrol this device, set STROP_DATA"):
        opened("compass", data=tmp_path / "nowhere")


def test_a_folder_is_a_bundle_that_stays_and_counts_nothing(built, opened):
    model = opened(built)  # the first runtime that is installed
    assert model.file.session.runtime == "onnxruntime"
    assert opened(str(built), runtime="litert").file.session.runtime == "litert"
    assert (model.is_counted, model.refresh(), model.swaps) == (False, False, 0)
    assert [a.cls for a in model.predict_batch(RAW)] == classes(built, "onnxruntime")
    with pytest.raises(DataError, match="input 1 of 2"):
        model.predict_batch([RAW[0], np.zeros((3, 3), np.uint8)])


def test_a_flipped_pointer_swaps_between_two_calls_and_begins_a_new_epoch(data, second, opened):
    model = opened("compass", data=data, watch_s=60)
    model.predict(RAW[0])
    first = counted(data).epoch
    after = flip(data, second)
    assert model.refresh()
    assert [model.infer(raw).cls for raw in RAW] == classes(second)
    assert (model.bundle, model.version, model.swaps) == (after, "2.0.0", 1)
    model.close()
    assert counted(data).epoch != first
    assert counted(data).counters.n_infer == len(RAW)


def test_the_thread_follows_the_pointer_by_itself(data, second, opened):
    model = opened("compass", data=data, watch_s=0.05)
    after = flip(data, second)
    until(lambda: model.bundle == after, "the swap")


def test_a_model_that_fails_its_self_test_never_answers_and_the_old_one_goes_on(data, built, bundle, opened):
    heard = []
    model = opened("compass", data=data, watch_s=60, hear=heard.append)
    spoil(bundle)
    bad = flip(data, bundle)
    assert [model.refresh(), model.refresh()] == [False, False]
    failed = [event for event in heard if event["event"] == "load_failed"]
    assert [event["bundle"] for event in failed] == [bad], "tried once, and not at every look"
    assert "golden self-test failed" in failed[0]["reason"]
    assert [model.infer(raw).cls for raw in RAW] == classes(built)


def spoil(bundle):
    reference = np.load(bundle / "golden/logits.npy") + 9
    np.save(bundle / "golden/logits.npy", reference)
    bundles.write_golden(bundle, [])
    bundles.reseal(bundle)


def test_a_bad_active_slot_at_the_start_falls_back_to_the_standby(data, bundle, built, opened):
    spoil(bundle)
    flip(data, bundle)
    assert opened("compass", data=data).bundle == bundles.manifest_of(built).bundle_id
    slots = SlotStore(data / "models")
    slots.flip("compass", slots.read("compass").active, "")
    with pytest.raises(SlotError, match=r"no slot holds a model that answers: .*golden self-test failed"):
        opened("compass", data=data)


def test_calls_from_many_threads_are_answered_one_by_one_while_models_change(data, built, second, opened):
    """The rule: any thread, at any time. Each answer is one of the two models', whole, and none is lost."""
    model = opened("compass", data=data, watch_s=0.01)
    expected = list(zip(classes(built), classes(second), strict=True))
    wrong, n = [], 300

    def work():
        for i in range(n):
            at = i % len(RAW)
            if model.infer(RAW[at]).cls not in expected[at]:
                wrong.append(at)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    flip(data, second)
    for thread in threads:
        thread.join()
    until(lambda: model.swaps == 1, "the swap")
    assert not wrong


def test_no_answer_is_counted_twice_or_never(data, opened):
    model = opened("compass", data=data)
    threads = [threading.Thread(target=lambda: [model.predict(raw) for raw in RAW]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    model.close()
    assert counted(data).counters.n_infer == 4 * len(RAW)


def test_asyncio_waits_for_room_and_a_cancelled_call_is_never_inferred(data, built, opened):
    model = opened("compass", data=data, queue=2)

    async def main():
        answers = await asyncio.gather(*(model.apredict(raw) for raw in RAW))
        with model._held.exclusively():  # nothing is answered meanwhile
            tasks = [asyncio.ensure_future(model.apredict(RAW[0])) for _ in range(5)]
            await asyncio.sleep(0.05)
            waiting = model._worker._work_queue.qsize()
            for task in tasks[1:]:
                task.cancel()
            await asyncio.sleep(0.01)
        await tasks[0]
        return [answer.cls for answer in answers], waiting

    found, waiting = asyncio.run(main())
    assert found == classes(built)
    assert waiting <= 2
    model.close()
    assert counted(data).counters.n_infer == len(RAW) + 1


def test_the_second_application_infers_and_does_not_count(data, opened):
    first, second = opened("compass", data=data), opened("compass", data=data)
    assert (first.is_counted, second.is_counted) == (True, False)
    second.predict(RAW[0])
    first.close()
    assert counted(data).counters.n_infer == 0


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_lent_memory_is_the_runtime_s_own_and_gives_the_same_codes(built, opened, runtime):
    model = opened(built, runtime=runtime)
    encoded = model.file._encode(RAW[0])
    with model.borrow() as lent:
        lent.input[...] = encoded
        lent.run()
        found = {key: view.copy() for key, view in lent.outputs.items()}
        addresses = {lent.outputs["logits"].ctypes.data for _ in range(2)}
        lent.input[...] = model.file._encode(RAW[1])
        lent.run()
        again = lent.outputs["logits"].copy()
        assert {lent.outputs["logits"].ctypes.data} == addresses, "no copy was made"
    expected = [model.infer(raw).codes for raw in RAW[:2]]
    assert {key: codes.reshape(-1).tolist() for key, codes in found.items()} == {
        key: codes.tolist() for key, codes in expected[0].items()
    }
    assert again.reshape(-1).tolist() == expected[1]["logits"].tolist()
    with pytest.raises(RuntimeAdapterError, match="the loan is over; use it inside the block"):
        _ = lent.input


def test_a_view_that_is_kept_stops_litert_with_a_reason_and_not_with_wrong_numbers(built, opened):
    model = opened(built, runtime="litert")
    with model.borrow() as lent:
        kept = lent.input
        with pytest.raises(RuntimeAdapterError, match=r"keep no view of lent.input"):
            lent.run()
        assert kept.shape == (1, 8, 8, 1)
    with pytest.raises(RuntimeAdapterError, match="reference to internal data"):
        model.predict(RAW[0])
    del kept
    assert model.predict(RAW[0]).cls in range(4)


class Control:
    """The control process's end, and what it heard."""

    def __init__(self, data):
        self.said, self.codes = [], []
        self.runner = EmbeddedRunner(socket_path(data, "compass"), self.said.append, self.codes.append)
        self.runner.start()

    def of(self, kind, role=""):
        return [e for e in self.said if e["event"] == kind and role in ("", e.get("role"))]

    def end(self):
        self.runner.stop(0.0)
        self.runner.wait(5.0)


@pytest.fixture
def control(data):
    found = Control(data)
    yield found
    found.end()


def test_an_application_speaks_as_a_runner_does(control, data, built, second, opened):
    model = opened("compass", data=data, watch_s=60)
    until(lambda: control.of("loaded"), "introduction")
    (ready,) = control.of("ready")
    assert (ready["runtime"], ready["pid"], control.runner.pid) == ("litert", os.getpid(), os.getpid())
    slot = install(data, second)
    folder = str(data / "models/compass/slots" / slot)
    control.runner.send({"cmd": "load", "role": "shadow", "folder": folder})
    until(lambda: control.of("loaded", "shadow"), "the shadow")
    until(lambda: model.predict(RAW[0]) and control.of("shadow") and control.of("results"), "a comparison")
    assert control.of("shadow")[0]["bundle"] == slot
    control.runner.send({"cmd": "load", "role": "active", "folder": folder})
    until(lambda: len(control.of("loaded", "active")) == 2, "the swap")
    assert model.bundle == slot
    control.runner.send({"cmd": "unload", "role": "shadow"})
    control.runner.send({"cmd": "load", "role": "active", "folder": str(data / "nothing")})
    until(lambda: control.of("unloaded") and control.of("load_failed"), "answers")
    rows = [row for event in control.of("results") for row in event["rows"]]
    assert rows[0][0] == "app:1"
    model.close()
    until(lambda: control.codes == [0], "good-bye")


def test_a_bad_input_is_told_as_an_error_and_a_faulty_sensor_is_not(control, data, opened):
    model = opened("compass", data=data)
    until(lambda: control.of("loaded"), "introduction")
    with pytest.raises(DataError, match="shape"):
        model.predict(np.zeros((3, 3), np.uint8))
    until(lambda: control.of("error"), "the error")
    until(lambda: control.of("input"), "the violation")
    assert control.of("input")[0]["shape"] == 1
    model.close()
    assert (counted(data).counters.n_err, counted(data).tallies.shape) == (1, 1)


APPLICATION = """
import sys, os, signal, pathlib, numpy, edge_agent
model = edge_agent.Model.open("compass", data=sys.argv[1])
model.predict(numpy.zeros((8, 8), numpy.uint8))
print("up", flush=True)
sys.stdin.readline()
if sys.argv[2] == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.mark.parametrize(("how", "code"), [("leave", 0), ("crash", -1)])
def test_leaving_is_no_crash_and_a_crash_is_one(control, data, how, code):
    """The next agent life begins with the next application: the same socket is listened on again."""
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", APPLICATION, str(data), how]
    quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=root, **quiet) as child:
        assert child.stdout.readline() == b"up\n"
        until(lambda: control.of("loaded"), "introduction")
        child.communicate(b"go\n")
    until(lambda: control.codes == [code], "the end")
    control.runner.start()
    with edge_agent.Model.open("compass", data=data):
        until(lambda: len(control.of("ready")) == 2, "the next application")


def test_an_agent_that_comes_and_goes_does_not_disturb_the_application(data, opened):
    model = opened("compass", data=data)
    for _ in range(2):
        control = Control(data)
        until(lambda found=control: model.predict(RAW[0]) and found.of("results"), "results")
        control.end()
        assert control.codes == [-1]
    assert not socket_path(data, "compass").exists()
    assert model.predict(RAW[0]).cls in range(4)


def test_lines_that_are_no_events_do_not_end_the_line(control, data):
    from edge_agent.embedding import meet

    with meet(socket_path(data, "compass"), listening=False) as guest:
        guest.sendall(b'\xff\xfe\n[1]\n{"event": NaN}\n{"event":"ready","runtime_version":"1"}\n' + b"x" * 2_000_000)
        until(lambda: control.of("ready"), "the good line")
        assert len(control.of("log")) >= 2
    until(lambda: control.codes == [-1], "the end")
