# SPDX-License-Identifier: Apache-2.0
"""Where answers go on the device itself, beside the control process: a file of JSON lines, or an MQTT topic.

A sink is declared in its source's table, ``sinks = [{ kind = "jsonl", path = "/var/lib/app/answers.jsonl" }]``. Each
answer is one JSON object: ``{"ref": "camera:17", "class": 3, "label": "cat", "confidence": 0.97, …}``.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

from edge_agent.runner.sources.mqtt import client
from edge_contract.errors import ContractError, DataError, UsageError
from edge_contract.fields import Fields

__all__ = ["JsonLines", "MqttSink", "Sink", "Stream", "open_sinks"]

MAX_BYTES: Final = 16 * 1024 * 1024


class Sink(Protocol):
    """Takes answers; called from the engine's thread."""

    def write(self, document: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class Stream:
    """Writes JSON lines to an open text stream, such as stdout; each is there when ``write`` returns."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, document: dict[str, Any]) -> None:
        self._stream.write(json.dumps(document, separators=(",", ":")) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """The stream belongs to somebody else."""


class JsonLines:
    """Appends to a file of at most ``max_bytes``; then it becomes ``<name>.1``, and a new one begins.

    A disk that refuses costs lines, which are counted, and never the inference.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self._path, self._max_bytes, self.lost = path, max_bytes, 0
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise DataError(f"cannot be written: {error.strerror}", where=str(path)) from error

    def write(self, document: dict[str, Any]) -> None:
        line = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        try:
            if self._file.tell() + len(line) > self._max_bytes:
                self._file.close()
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
                self._file = self._path.open("ab")
            os.write(self._file.fileno(), line)
            self._file.seek(0, os.SEEK_END)
        except (OSError, ValueError):
            self.lost += 1

    def close(self) -> None:
        self._file.close()


class MqttSink:
    """Publishes each answer; while the broker is away, paho keeps at most a thousand."""

    def __init__(self, name: str, broker: str, topic: str, qos: int) -> None:
        self._client, self._topic, self._qos = client(name, broker), topic, qos

    def write(self, document: dict[str, Any]) -> None:
        self._client.publish(self._topic, json.dumps(document, separators=(",", ":")), qos=self._qos)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def open_sinks(specs: Any, where: str) -> list[Sink]:
    """Open the sinks in a source's table.

    Raises:
        UsageError: No list of tables, an unknown kind, or a key that does not fit.
        DataError: A file that cannot be written.
        MissingDependencyError: paho is not installed.
    """
    if not isinstance(specs, Sequence) or isinstance(specs, str):
        raise UsageError("sinks are no list", where=where, fix='write sinks = [{ kind = "jsonl", path = "…" }]')
    try:
        return [_open(spec, f"{where}.sinks[{i}]") for i, spec in enumerate(specs)]
    except ContractError as error:
        raise UsageError(error.what, where=error.where, fix=error.fix) from error


def _open(spec: Any, where: str) -> Sink:
    f = Fields(spec, where, UsageError)
    kind = f.text("kind", among=("jsonl", "mqtt"))
    if kind == "jsonl":
        found: Sink = JsonLines(Path(f.text("path")), f.integer("max_bytes", MAX_BYTES, minimum=1000))
    else:
        found = MqttSink(
            where, f.text("broker", "127.0.0.1:1883"), f.text("topic"), min(1, f.integer("qos", 0, minimum=0))
        )
    if unknown := f.rest():
        found.close()
        raise UsageError(f"unknown key '{min(unknown)}'", where=where)
    return found
