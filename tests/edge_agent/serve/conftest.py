# SPDX-License-Identifier: Apache-2.0
import http.client
import json
import socket

import pytest

import edge_agent
from edge_agent.serve import Direct, Limits, Server
from tests.edge_agent.runner import bundles


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """One bundle with profiles; do not change it."""
    return bundles.build(tmp_path_factory.mktemp("bundle") / "v1", profile=True)


@pytest.fixture(scope="session")
def model(built):
    with edge_agent.Model.open(built, runtime="litert") as found:
        yield found


class Client:
    """What a program in another language would send, byte by byte where it matters."""

    def __init__(self, server):
        self.server = server

    def ask(self, method, target, body=None, **headers):
        """Return status, document and headers of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        try:
            connection.request(method, target, body, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            data = response.read()
            return response.status, json.loads(data) if data else {}, dict(response.headers)
        finally:
            connection.close()

    def predict(self, document, **headers):
        body = json.dumps(document).encode()
        headers = {"Content_Type": "application/json", **headers}
        return self.ask("POST", "/v1/models/compass:predict", body, **headers)

    def raw(self, data, *, half_close=True):
        """Return every byte that comes back for the bytes sent, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.server.port), 20) as sock:
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            found = b""
            while part := sock.recv(65536):
                found += part
            return found


@pytest.fixture
def serve(model):
    """Make servers that end with the test."""
    made = []

    def serve_(desk=None, **options):
        limits = Limits(**options)
        made.append(Server(desk or Direct(model), port=0, limits=limits))
        return Client(made[-1])

    yield serve_
    for server in made:
        server.close()


@pytest.fixture
def client(serve):
    return serve()
