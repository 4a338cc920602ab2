# SPDX-License-Identifier: Apache-2.0
"""The local endpoint as another program sees it: by http.client, by curl, and by bytes that no client would send."""

import io
import json
import shutil
import subprocess
import threading

import numpy as np
import pytest

from edge_agent.counters import CounterFile
from edge_agent.runner.commands import Load, UseSource
from edge_agent.runner.engine import Engine, Settings
from edge_agent.serve import BusyError, Direct, Limits, Server
from edge_contract.errors import UsageError
from tests.edge_agent.runner import bundles, tiny
from tests.edge_agent.serve.conftest import Client

RAW = tiny.images(6, seed=3)
PREDICT = "/v1/models/compass:predict"
CURL = shutil.which("curl")


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.fixture(scope="module")
def expected(model):
    return [(bundles.LABELS[answer.cls], answer.confidence) for answer in model.predict_batch(RAW)]


def said(document):
    return [(one["label"], one["confidence"]) for one in document["predictions"]]


def test_json_instances_are_answered_in_order(client, expected, model):
    status, document, headers = client.predict({"instances": RAW.tolist()})
    assert (status, said(document)) == (200, expected)
    assert (document["model"], document["bundle"]) == ("compass", model.bundle)
    assert headers["Content-Type"] == "application/json"


def test_plain_bytes_npy_and_pictures_mean_the_same(client, expected):
    from PIL import Image

    picture = io.BytesIO()
    Image.fromarray(RAW[0]).save(picture, "PNG")
    octets = {"Content_Type": "application/octet-stream"}
    for body, target, headers in (
        (npy(RAW[0]), PREDICT, octets),
        (npy(RAW[:1]), PREDICT, octets),
        (RAW[0].tobytes(), f"{PREDICT}?shape=8,8", octets),
        (RAW[0].tobytes(), f"{PREDICT}?shape=1,8,8&dtype=uint8", octets),
        (picture.getvalue(), PREDICT, {"Content_Type": "image/png"}),
    ):
        status, document, _ = client.ask("POST", target, body, **headers)
        assert (status, said(document)) == (200, expected[:1])


def test_the_model_its_health_and_its_description(client, model):
    assert client.ask("GET", "/healthz")[:2] == (200, {"status": "ok"})
    assert client.ask("GET", "/readyz")[1]["status"] == "ready"
    status, about, _ = client.ask("GET", "/v1/models/compass")
    assert (status, about["labels"], about["runtime"]["name"]) == (200, list(bundles.LABELS), "litert")
    assert client.ask("GET", "/v1/models")[1]["models"] == [about]
    description = client.ask("GET", "/openapi.json")[1]
    assert description["openapi"].startswith("3.1")
    assert {p for p in description["paths"] if p.endswith(":predict")} == {PREDICT}
    for path, item in description["paths"].items():
        for method in item:
            assert client.ask(method.upper(), path)[0] in (200, 411, 415), path


def test_every_reference_of_the_description_leads_somewhere(client):
    text = json.dumps(client.ask("GET", "/openapi.json")[1])
    schemas = json.loads(text)["components"]["schemas"]
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named == set(schemas)


BAD = {
    "no list": ({"inputs": []}, "no list 'instances'"),
    "none": ({"instances": []}, "0 inputs; send 1 to 64"),
    "too many": ({"instances": [[0]] * 65}, "65 inputs"),
    "unknown key": ({"instances": [1], "x": 1}, "unknown key 'x'"),
    "unknown type": ({"instances": [1], "dtype": "int4"}, "type 'int4'; use one of uint8"),
    "ragged": ({"instances": [[[1, 2], [3]]]}, "instances[0]: lists of different lengths"),
    "text": ({"instances": [["a"]]}, "instances[0]: not numbers alone"),
    "bool": ({"instances": [[True]]}, "not numbers alone"),
    "null": ({"instances": [None]}, "not numbers alone"),
    "half": ({"instances": [[[0.5] * 8] * 8]}, "values that are no uint8; send whole numbers"),
    "256": ({"instances": [[[256] * 8] * 8]}, "values that are no uint8"),
    "huge": ({"instances": [[[10**400]]]}, "instances[0]"),
    "another shape": ({"instances": [[[1] * 9] * 8]}, "instances[0]: an input of shape [8, 9, 1], the artefact wants"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_input_that_does_not_fit_is_400_and_says_where(client, name):
    document, words = BAD[name]
    status, answer, _ = client.predict(document)
    assert (status, answer["error"]["code"]) == (400, "bad_input")
    assert words in answer["error"]["message"]


OCTETS = {
    "no shape": (b"\0" * 64, "", "add ?shape=28,28"),
    "too few": (b"\0" * 63, "?shape=8,8", "63 bytes for uint8 [8, 8], which has 64"),
    "negative": (b"\0" * 64, "?shape=-8,-8", "shape '-8,-8'"),
    "overflow": (b"\0" * 64, "?shape=999999999,999999999,999999999", "which has 99999999"),
    "objects": (npy(np.zeros(3, np.uint8)).replace(b"'|u1'", b"'|O' "), "", "an array of object"),
    "a lie": (npy(RAW[0]).replace(b"(8, 8)", b"(8,99)"), "", "64 bytes for uint8 [8, 99]"),
    "a huge lie": (npy(RAW[0]).replace(b"(8, 8), }      ", b"(99999999999,)}"), "", "64 bytes for uint8"),
    "only magic": (b"\x93NUMPY", "", "no .npy file"),
    "deep header": (b"\x93NUMPY\x01\x00\xff\x0f" + b"(" * 4095, "", "no .npy file"),
}


@pytest.mark.parametrize("name", OCTETS)
def test_bytes_that_lie_about_themselves_are_refused(client, name):
    body, query, words = OCTETS[name]
    status, answer, _ = client.ask("POST", PREDICT + query, body, Content_Type="application/octet-stream")
    assert status == 400
    assert words in answer["error"]["message"]


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/models/weather", 404, "not_found"),
        ("POST", "/v1/models/compass:explain", 404, "not_found"),
        ("GET", PREDICT, 405, "not_allowed"),
        ("POST", "/healthz", 405, "not_allowed"),
        ("DELETE", "/v1/models/compass", 405, "not_allowed"),
        ("BREW", "/healthz", 501, "bad_request"),
        ("GET", "/v1/models/%ff", 400, "bad_request"),
        ("GET", "/v1/models/..%2f..%2fetc", 404, "not_found"),
    ],
)
def test_addresses_and_methods_that_are_not_there(client, method, target, status, code):
    found = client.ask(method, target, b"{}" if method == "POST" else None)
    assert (found[0], found[1]["error"]["code"]) == (status, code)


def test_other_bodies_are_415_and_broken_ones_400(client):
    assert client.ask("POST", PREDICT, b"a=1", Content_Type="application/x-www-form-urlencoded")[0] == 415
    assert client.ask("POST", PREDICT, b"{", Content_Type="application/json")[0] == 400
    assert client.ask("POST", PREDICT, b'{"instances":[NaN]}', Content_Type="application/json")[0] == 400
    assert client.ask("POST", PREDICT, b"[" * 100_000, Content_Type="application/json")[0] == 400
    assert client.ask("POST", PREDICT, b"GIF89a", Content_Type="image/png")[0] == 400


def test_a_page_in_a_browser_cannot_reach_the_model(client):
    """DNS rebinding: the browser sends the attacker's name as Host."""
    assert client.ask("GET", "/v1/models", Host="evil.example:80")[0] == 403
    assert client.ask("GET", "/v1/models", Host=f"localhost:{client.server.port}")[0] == 200
    assert client.ask("GET", "/v1/models", Host="[::1]")[0] == 200
    assert "Access-Control-Allow-Origin" not in client.ask("OPTIONS", PREDICT)[2]


def test_a_body_over_the_limit_is_413_before_it_is_read(serve):
    client = serve(body=1000)
    answer = client.raw(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", half_close=False)
    assert answer.startswith(b"HTTP/1.1 413 ")
    expecting = b"POST /x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n"
    answer = client.raw(expecting, half_close=False)
    assert answer.startswith(b"HTTP/1.1 413 "), "no '100 Continue' for what will not be read"
    chunks = b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + b"200\r\n" + b"x" * 512
    assert client.raw(chunks + b"\r\n200\r\n")[:13] == b"HTTP/1.1 413 "


HEAD = b"POST /v1/models/compass:predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GARBAGE = {
    "two lengths": (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    "length and chunks": (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a length of letters": (HEAD + b"Content-Length: 0x10\r\n\r\n", 400),
    "a negative length": (HEAD + b"Content-Length: -1\r\n\r\n", 400),
    "a long length": (HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", 400),
    "no length": (HEAD + b"\r\n", 411),
    "gzip": (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "no size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\n", 400),
    "a size with a sign": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n", 400),
    "a longer chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n", 400),
    "no end": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", 400),
    "endless trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 99, 400),
    "cut off": (HEAD + b"Content-Length: 200\r\n\r\n{", 400),
    "no version": (b"GET\r\n\r\n", 400),
    "a strange version": (b"GET / HTTP/9.9.9\r\n\r\n", 400),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
    "a long line": (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_malformed_requests_get_a_reason_and_the_connection_ends(client, name):
    data, status = GARBAGE[name]
    answer = client.raw(data)
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1"):  # a request without a version is one of HTTP/0.9, which has no head
        body = answer
    else:
        assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer[:100]
        assert b"Connection: close" in head
    assert json.loads(body)["error"]["code"] == "bad_request"


def test_noise_never_stops_the_server(client, expected):
    """A little fuzz: valid requests with bytes flipped, cut and doubled; afterwards all is as before."""
    body = json.dumps({"instances": RAW[:1].tolist()}).encode()
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    plain = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    rng = np.random.default_rng(7)
    for i in range(300):
        data = bytearray(chunked if i % 2 else plain)
        for _ in range(int(rng.integers(1, 6))):
            at = int(rng.integers(len(data)))
            data[at : at + int(rng.integers(0, 4))] = rng.bytes(int(rng.integers(0, 4)))
        answer = client.raw(bytes(data))
        assert not answer or b'"code":"internal"' not in answer, (bytes(data), answer)
    assert said(client.predict({"instances": RAW[:1].tolist()})[1]) == expected[:1]


def test_one_connection_serves_many_requests_and_a_slow_one_is_closed(serve):
    client = serve(idle_s=0.3)
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = client.raw(one * 3, half_close=False)  # returns when the server closes the silent connection
    assert answer.count(b"HTTP/1.1 200 OK") == 3


class Slow:
    """A desk that answers when it may."""

    def __init__(self, model):
        self.go, self.model_ = threading.Event(), model
        self.entered = threading.Semaphore(0)

    def model(self):
        return self.model_.file

    def ask(self, raw):
        self.entered.release()
        self.go.wait(20)
        return self.model_.predict(raw), self.model_.file


def test_more_requests_than_there_is_room_for_are_503_at_once(model, serve):
    slow = Slow(model)

    class Waiting:
        """``Direct`` over a model that takes its time."""

        file = model.file
        predict = staticmethod(lambda raw: slow.ask(raw)[0])

    client = serve(Direct(Waiting(), room=2))
    threads = [threading.Thread(target=client.predict, args=({"instances": RAW[:1].tolist()},)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in threads:
        slow.entered.acquire(timeout=20)
    status, document, headers = client.predict({"instances": RAW[:1].tolist()})
    assert (status, document["error"]["code"], headers["Retry-After"]) == (503, "busy", "1")
    slow.go.set()
    for thread in threads:
        thread.join()
    assert client.predict({"instances": RAW[:1].tolist()})[0] == 200


def test_more_connections_than_there_is_room_for_are_told_so(serve):
    import socket

    client = serve(connections=1)
    with socket.create_connection(("127.0.0.1", client.server.port)) as first:
        first.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        status, _, headers = client.ask("GET", "/healthz")
        assert (status, headers["Retry-After"]) == (503, "1")
    assert client.ask("GET", "/healthz")[0] in (200, 503)


def curl(*words):
    done = subprocess.run([CURL, "-sS", *words], capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(CURL is None, reason="apt-get install curl")
def test_curl_over_a_unix_socket_with_chunks_and_keep_alive(tmp_path, model, expected):
    path = tmp_path / "model.socket"
    (tmp_path / "in.json").write_text(json.dumps({"instances": RAW[:2].tolist()}))
    server = Server(Direct(model), path=path)
    try:
        url = f"http://strop{PREDICT}"
        words = ["--unix-socket", str(path), "-H", "Content-Type: application/json"]
        data = ["--data-binary", f"@{tmp_path / 'in.json'}"]
        assert said(json.loads(curl(*words, *data, url))) == expected[:2]
        chunked = ["-H", "Transfer-Encoding: chunked"]
        both = curl(*words, *chunked, *data, "-w", "\n%{num_connects}\n", url, url).decode().splitlines()
        assert [said(json.loads(line)) for line in both[::2]] == [expected[:2]] * 2
        assert both[1::2] == ["1", "0"], "the second request went over the first one's connection"
    finally:
        server.close()
    assert not path.exists()


@pytest.mark.skipif(CURL is None, reason="apt-get install curl")
def test_curl_over_loopback_with_a_large_npy(serve, model):
    """More than a megabyte: curl then asks first whether it may send it."""
    client = serve()
    body = npy(np.repeat(RAW, 11, axis=0)[:64])
    url = f"http://127.0.0.1:{client.server.port}{PREDICT}"
    send = ["--data-binary", "@-", url]
    done = subprocess.run(
        [CURL, "-sS", "-H", "Content-Type: application/octet-stream", "-H", "Expect: 100-continue", *send],
        input=body,
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert len(json.loads(done.stdout)["predictions"]) == 64


def test_neither_port_nor_path_and_a_port_that_is_taken(model, client):
    with pytest.raises(UsageError, match="neither a port nor a Unix socket"):
        Server(Direct(model))
    with pytest.raises(UsageError, match="cannot listen"):
        Server(Direct(model), port=client.server.port, limits=Limits())


class Loop:
    """An engine that a thread turns, as the runner process does."""

    def __init__(self, folder):
        import queue
        import time

        self.inbox, self.events = queue.SimpleQueue(), []
        self.counters = folder / "counters.bin"
        self.engine = Engine(
            Settings("litert", self.counters), self.events.append, time.monotonic, lambda: self.inbox.put(b"")
        )
        self.thread = threading.Thread(target=self.turn)
        self.thread.start()

    def turn(self):
        import queue

        while True:
            wait = self.engine.wait_s()
            try:
                command = self.inbox.get(timeout=wait) if wait != 0 else self.inbox.get_nowait()
            except queue.Empty:
                command = b""
            if command is None:
                self.engine.close()
                return
            if command:
                self.engine.obey(command)
            self.engine.work()

    def client(self):
        """The endpoint's client, once the source is open."""
        from tests.support.agent_process import until

        until(lambda: any(e["event"].startswith("source") for e in self.events), "the source")
        assert not [e for e in self.events if e["event"] == "source_failed"]
        return Client(self.engine._source.server)

    def end(self):
        self.inbox.put(None)
        self.thread.join()


@pytest.fixture
def loop(tmp_path):
    found = Loop(tmp_path)
    yield found
    if found.thread.is_alive():
        found.end()


def test_requests_to_a_runner_are_its_results_and_its_drift(loop, built, expected):
    loop.inbox.put(UseSource("desk", {"kind": "http", "port": 0}))
    client = loop.client()
    assert client.ask("GET", "/readyz")[0] == client.predict({"instances": [[0]]})[0] == 503
    loop.inbox.put(Load("active", built))
    from tests.support.agent_process import until

    until(lambda: client.ask("GET", "/readyz")[0] == 200, "the model")
    found = [client.predict({"instances": [raw.tolist()]})[1] for raw in RAW]
    assert [said(document)[0] for document in found] == expected
    assert client.predict({"instances": [[[1] * 3] * 3]})[0] == 400
    loop.end()
    rows = [row for event in loop.events if event["event"] == "results" for row in event["rows"]]
    assert [row[0] for row in rows] == [f"desk:{i}" for i in range(6)]
    reading = CounterFile(loop.counters).read()
    assert (reading.counters.n_infer, reading.counters.n_err) == (7, 1)
    assert reading.counters.brightness != (0,) * len(reading.counters.brightness)


def test_a_full_queue_and_a_paused_runner_are_503(loop, built):
    from edge_agent.runner.commands import Pause
    from tests.support.agent_process import until

    spec = {"kind": "http", "port": 0, "max_waiting": 1, "timeout_s": 0.3}
    loop.inbox.put(UseSource("desk", spec))
    loop.inbox.put(Load("active", built))
    client = loop.client()
    until(lambda: client.ask("GET", "/readyz")[0] == 200, "the model")
    loop.inbox.put(Pause())
    status, document, _ = client.predict({"instances": RAW[:1].tolist()})
    assert (status, "no answer within 0.3 s" in document["error"]["message"]) == (503, True)
    status, document, _ = client.predict({"instances": RAW[:1].tolist()})
    assert (status, "too many requests wait" in document["error"]["message"]) == (503, True)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "neither a port nor a Unix socket"),
        ({"port": 70000}, "port 70000; use 1 to 65535"),
        ({"port": 0, "host": "0.0.0.0"}, "unknown key 'host'"),
        ({"port": 0, "max_waiting": 0}, "0 is below 1"),
        ({"socket": "/nowhere/x.socket"}, "cannot listen"),
    ],
)
def test_an_endpoint_that_cannot_be_opened_says_why(tmp_path, spec, words):
    from edge_agent.runner.sources import open_source

    with pytest.raises(UsageError, match=words):
        open_source("desk", {"kind": "http", **spec})


def test_busy_is_one_of_ours():
    assert BusyError("x").exit_code == 1
