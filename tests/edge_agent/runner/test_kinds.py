# SPDX-License-Identifier: Apache-2.0
"""Sources with a thread behind them, and sinks: real files, pipes, a real broker, and a video through OpenCV."""

import io
import json
import os
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edge_agent.runner.commands import Load, UseSource
from edge_agent.runner.sinks import JsonLines, open_sinks
from edge_agent.runner.sources import KINDS, Pushed, Taken, open_source
from edge_agent.runner.sources.frames import Form, frames
from edge_agent.runner.sources.microphone import Clips
from edge_contract.errors import DataError, MissingDependencyError, UsageError
from tests.edge_agent.runner import tiny
from tests.edge_agent.runner.bench import Bench
from tests.support.agent_process import Broker, until

ROOT = Path(__file__).resolve().parents[3]
RAW = tiny.images(5, seed=3)


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def framed(*arrays):
    return b"".join(struct.pack(">I", len(npy(a))) + npy(a) for a in arrays)


class Reader:
    """A source, and the engine's side of it."""

    def __init__(self, name, **spec):
        self.woken = threading.Semaphore(0)
        self.source = open_source(name, spec, wake=self.woken.release)

    def next(self):
        assert self.woken.acquire(timeout=20), "the source never woke the engine"
        return self.source.take()

    def all(self, count):
        return [self.next() for _ in range(count)]


@pytest.fixture
def read():
    made = []

    def read_(name="in", **spec):
        made.append(Reader(name, **spec))
        return made[-1]

    yield read_
    for reader in made:
        reader.source.close()


def test_a_full_queue_loses_the_oldest_or_makes_the_feeder_wait():
    camera = Pushed("camera", lambda: None, room=2, keeps_newest=True)
    for i in range(5):
        camera.push(Taken(str(i), RAW[0]))
    assert [camera.take().ref, camera.take().ref, camera.take()] == ["3", "4", None]
    assert (camera.lost(), camera.lost(), camera.due) == (3, 0, None)
    file = Pushed("file", lambda: None, room=1, keeps_newest=False)
    feeder = threading.Thread(target=lambda: [file.push(Taken(str(i), RAW[0])) for i in range(3)])
    feeder.start()
    refs = []
    while feeder.is_alive() or file.due is not None:
        if file.due is not None:
            refs.append(file.take().ref)
    assert (refs, file.lost()) == (["0", "1", "2"], 0)
    file.push(Taken("x", RAW[0]))
    stuck = threading.Thread(target=file.push, args=(Taken("y", RAW[0]),))
    stuck.start()
    file.close()
    stuck.join(20)
    assert not stuck.is_alive(), "closing sets a waiting feeder free"


def test_after_a_pause_only_the_newest_picture_counts():
    camera = Pushed("camera", lambda: None, room=3, keeps_newest=True)
    for i in range(3):
        camera.push(Taken(str(i), RAW[0]))
    camera.restart(0.0)
    assert (camera.take().ref, camera.take(), camera.lost()) == ("2", None, 2)


def test_new_files_in_a_folder_come_oldest_first_whole_and_once(tmp_path, read):
    from PIL import Image

    np.save(tmp_path / "before.npy", RAW[4])
    reader = read("belt", kind="folder", path=str(tmp_path), poll_s=0.02, settle_s=0.0)
    np.save(tmp_path / ".hidden.npy", RAW[4])
    (tmp_path / "notes.txt").write_text("no picture")
    now = time.time_ns()
    for i, name in enumerate(("b.npy", "a.png", "c.jpg")):
        path = tmp_path / f".{name}"
        if name.endswith("npy"):
            np.save(path, RAW[0])
        elif name.endswith("png"):
            Image.fromarray(RAW[1]).save(path, "PNG")
        else:
            path.write_bytes(b"no picture")
        os.utime(path, ns=(now, now + i))
        path.rename(tmp_path / name)
    found = sorted(reader.all(3), key=lambda taken: taken.ref)
    assert [taken.ref for taken in found] == ["belt:a.png", "belt:b.npy", "belt:c.jpg"]
    assert (found[0].raw == RAW[1][..., None]).all()
    assert (found[1].raw == RAW[0]).all()
    assert "no picture" in found[2].raw


def test_what_lies_there_already_is_taken_and_deleted_when_asked(tmp_path, read):
    np.save(tmp_path / "one.npy", RAW[0])
    reader = read(kind="folder", path=str(tmp_path), poll_s=0.02, settle_s=0, existing=True, after="delete")
    assert reader.next().ref == "in:one.npy"
    assert not (tmp_path / "one.npy").exists()


def test_a_young_file_waits_until_it_is_whole(tmp_path, read):
    reader = read(kind="folder", path=str(tmp_path), poll_s=0.02, settle_s=0.3, existing=True)
    begun = time.monotonic()
    np.save(tmp_path / "one.npy", RAW[0])
    reader.next()
    assert time.monotonic() - begun >= 0.25


@pytest.mark.parametrize("after", ["keep", "delete"])
def test_a_clock_that_jumps_by_hours_hides_no_file(after, tmp_path, read):
    """Back: what was written before lies in the future, and what is written now is older than what was taken."""
    reader = read("belt", kind="folder", path=str(tmp_path), poll_s=0.02, settle_s=0.05, existing=True, after=after)
    for name, hours in (("now", 0), ("future", 9), ("past", -9), ("long ago", -24 * 3650), ("now again", 0)):
        hidden = tmp_path / f".{name}.npy"
        np.save(hidden, RAW[0])
        when = time.time() + 3600 * hours
        os.utime(hidden, (when, when))
        hidden.rename(tmp_path / f"{name}.npy")
        assert reader.next().ref == f"belt:{name}.npy"
    assert not reader.woken.acquire(timeout=0.2), "each file once"


def test_a_pipe_goes_on_with_its_next_writer(tmp_path, read):
    path = tmp_path / "frames"
    os.mkfifo(path)
    reader = read("cam", kind="frames", path=str(path))
    for start in (0, 2):
        with path.open("wb") as writer:
            writer.write(framed(*RAW[start : start + 2]))
        assert [(t.ref, t.raw.tolist()) for t in reader.all(2)] == [
            (f"cam:{i}", RAW[i].tolist()) for i in (start, start + 1)
        ]


def test_a_file_of_raw_frames_ends(tmp_path, read):
    (tmp_path / "f.bin").write_bytes(RAW.tobytes())
    reader = read(kind="frames", path=str(tmp_path / "f.bin"), form="raw", shape=[8, 8])
    assert [t.raw.tolist() for t in reader.all(5)] == RAW.tolist()
    assert reader.next() is None
    assert reader.source.due is not None, "the engine is told of the end"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (framed(RAW[0])[:-1], "ends inside a frame"),
        (b"\0\0", "ends inside a frame, 2 bytes early"),
        (struct.pack(">I", 1 << 30), "more than 67108864"),
        (struct.pack(">I", 4) + b"abcd", "no .npy file"),
    ],
)
def test_a_stream_that_is_malformed_says_where(data, words):
    with pytest.raises(DataError, match=words):
        list(frames(io.BytesIO(data), Form()))


@pytest.mark.broker
def test_messages_of_a_topic_and_answers_to_another(tmp_path, built):
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    broker = Broker(tmp_path)
    broker.start()
    peer, heard = paho.Client(CallbackAPIVersion.VERSION2), []
    peer.on_message = lambda _c, _u, message: heard.append(json.loads(message.payload))
    peer.connect("127.0.0.1", broker.port)
    peer.subscribe("answers")
    peer.loop_start()
    address = f"127.0.0.1:{broker.port}"
    bench = Bench(tmp_path)
    sinks = [{"kind": "mqtt", "broker": address, "topic": "answers"}]
    bench.tell(
        Load("active", built), UseSource("in", {"kind": "mqtt", "broker": address, "topic": "q", "sinks": sinks})
    )
    try:
        until(lambda: bench.engine._source._client.is_connected(), "the subscription")
        for payload in (npy(RAW[0]), json.dumps(RAW[1].tolist()).encode(), b"[[1, 2", b"\xff\xd8nonsense"):
            peer.publish("q", payload, qos=1)
        until(lambda: bench.engine.work() or (len(heard) >= 2 and len(bench.of("error")) >= 2), "answers and errors")
        bench.engine.flush()
        assert [document["ref"] for document in heard] == ["in:0", "in:1"]
        assert {row[2] for row in bench.rows()} == {round(d["confidence"], 4) for d in heard}
    finally:
        bench.engine.close()
        peer.disconnect()
        peer.loop_stop()
        broker.kill()


def test_a_film_through_opencv_loses_no_picture_and_is_red_first(tmp_path, read):
    cv2 = pytest.importorskip("cv2", reason="pip install opencv-python-headless")
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(12):
        writer.write(np.full((48, 64, 3), (250, 10, 10), np.uint8))  # blue
    writer.release()
    reader = read("cam", kind="camera", device=str(path))
    found = reader.all(12)
    assert [t.ref for t in found] == [f"cam:{i}" for i in range(12)]
    assert found[0].raw[20, 30].argmax() == 2
    assert [t.taken_at for t in found] == sorted(t.taken_at for t in found)
    assert reader.next() is None


def test_clips_overlap_and_a_gap_begins_anew():
    clips, samples = Clips(5, 3), np.arange(20, dtype=np.int16)
    whole = [clip.tolist() for clip in Clips(5, 3).feed(samples)]
    parts = [clip.tolist() for part in np.split(samples, [1, 2, 9, 17]) for clip in clips.feed(part)]
    assert parts == whole == [list(range(i, i + 5)) for i in range(0, 16, 3)]
    clips.forget()
    assert [clip.tolist() for clip in clips.feed(samples[:6])] == [[0, 1, 2, 3, 4]]


REFUSED = {
    "unknown kind": ({"kind": "telepathy"}, UsageError, "unknown value 'telepathy'; use one of replay, folder"),
    "no kind": ({}, UsageError, "field 'kind' is missing"),
    "folder without path": ({"kind": "folder"}, UsageError, "field 'path' is missing"),
    "no folder": ({"kind": "folder", "path": "/nowhere"}, DataError, "no such folder"),
    "backwards": ({"kind": "folder", "path": "/", "poll_s": 0}, UsageError, "use positive times"),
    "unknown key": ({"kind": "folder", "path": "/", "glob": "*"}, UsageError, "unknown key 'glob'; use kind, path"),
    "no pipe": ({"kind": "frames", "path": "/nowhere"}, DataError, "make it: mkfifo /nowhere"),
    "raw without shape": ({"kind": "frames", "path": "/", "form": "raw"}, UsageError, "'raw' without a shape"),
    "npy with shape": ({"kind": "frames", "path": "/", "shape": [1]}, UsageError, "'npy' with a shape"),
    "shape of nothing": (
        {"kind": "frames", "path": "/", "form": "raw", "shape": [0]},
        UsageError,
        "a frame of 0 bytes",
    ),
    "no topic": ({"kind": "mqtt"}, UsageError, "field 'topic' is missing"),
    "no port": ({"kind": "mqtt", "topic": "t", "broker": "here"}, UsageError, "broker 'here'"),
    "no samples": ({"kind": "microphone"}, UsageError, "field 'samples' is missing"),
    "a hop too far": ({"kind": "microphone", "samples": 4, "hop": 5}, UsageError, "a hop of 5"),
    "no alsa": ({"kind": "microphone", "samples": 4}, MissingDependencyError, "pip install pyalsaaudio"),
    "half a size": ({"kind": "camera", "width": 3}, UsageError, "give both or neither"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_source_that_cannot_be_opened_says_why(name):
    spec, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        open_source("n", spec)


def test_a_camera_that_is_not_there_is_refused_by_name(monkeypatch, capfd):
    pytest.importorskip("cv2", reason="pip install opencv-python-headless")
    with pytest.raises(DataError, match="/dev/video99: gives no pictures; is it there"):
        open_source("cam", {"kind": "camera", "device": "/dev/video99"})
    capfd.readouterr()  # OpenCV's own word
    monkeypatch.setitem(sys.modules, "cv2", None)  # as where it is not installed
    with pytest.raises(MissingDependencyError, match="pip install opencv-python-headless"):
        open_source("cam", {"kind": "camera"})


def test_answers_go_to_a_file_that_stays_small(tmp_path, built):
    np.save(tmp_path / "frames.npy", RAW)
    bench, path = Bench(tmp_path), tmp_path / "out.jsonl"
    spec = {"kind": "replay", "path": str(tmp_path / "frames.npy"), "rate_hz": 0, "loop": True}
    bench.tell(
        Load("active", built),
        UseSource("b", {**spec, "sinks": [{"kind": "jsonl", "path": str(path), "max_bytes": 2000}]}),
    )
    for _ in range(40):
        bench.engine.work()
    bench.engine.close()
    lines = [json.loads(line) for name in (f"{path}.1", path) for line in Path(name).read_text().splitlines()]
    assert [line["ref"] for line in lines][-3:] == ["b:2", "b:3", "b:4"]
    assert {"ref", "class", "label", "confidence", "latency_us"} == set(lines[0])
    assert path.stat().st_size <= 2000
    assert Path(f"{path}.1").stat().st_size <= 2000


@pytest.mark.parametrize(
    ("sinks", "words"),
    [
        ("jsonl", "sinks are no list"),
        ([{"kind": "webhook"}], "unknown value 'webhook'; use one of jsonl, mqtt"),
        ([{"kind": "jsonl", "path": "/tmp/x", "colour": 1}], "unknown key 'colour'"),
        ([3], "expected an object"),
    ],
)
def test_sinks_that_do_not_fit_are_refused(sinks, words):
    with pytest.raises(UsageError, match=words):
        open_sinks(sinks, "source 'x'")


def test_a_disk_that_refuses_costs_lines_and_not_the_inference():
    full = JsonLines(Path("/dev/full"))
    for _ in range(3):
        full.write({"a": 1})
    assert full.lost == 3
    full.close()
    with pytest.raises(DataError, match="cannot be written"):
        JsonLines(Path("/nowhere/x"))


def test_pipe_answers_frames_from_stdin_with_lines_on_stdout(built):
    data = framed(RAW[0], np.zeros((3, 3), np.uint8), RAW[1])
    command = [sys.executable, "-m", "strop", "agent", "pipe", f"{built}/", "--runtime", "litert"]
    done = subprocess.run(command, input=data, cwd=ROOT, capture_output=True, timeout=60, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1, "one could not be answered"
    assert [line["ref"] for line in lines] == ["0", "1", "2"]
    assert ["label" in line for line in lines] == [True, False, True]
    assert "an input of shape [3, 3, 1]" in lines[1]["error"]


def test_every_kind_has_its_module():
    import importlib

    assert all(callable(importlib.import_module(module).open_spec) for module in KINDS.values())
