# SPDX-License-Identifier: Apache-2.0
"""A publisher that costs little: MQTT 3.1.1 frames made beforehand, over TLS, from a process of its own.

Reads one JSON object of settings from standard input, waits for a line, sends, and prints one JSON object: when it
began, and for each acknowledgement when it came and what it covers. Times are of the machine's monotonic clock, so
processes can compare them.
"""

import json
import selectors
import socket
import ssl
import struct
import sys
import time
import zlib
from collections import deque
from typing import Any, Final

from edge_contract.batches import TelemetryBatch, TelemetryRow, encode_batch
from edge_contract.topics import topic

__all__ = ["batch_bytes", "main"]

_PUBLISH_QOS_1: Final = 0x32
_PUBACK: Final = 0x40
_PUBLISH: Final = 0x30
_UP_TO: Final = b'"up_to_seq":'
IN_FLIGHT: Final = 200
_IDLE_S: Final = 30.0


def batch_bytes(device: str, seq: int, salt: int) -> bytes:
    """Return a batch of one metric row of about 1 KB on the wire: counters, a histogram, and what does not shrink.

    Example:
        >>> 900 < len(batch_bytes("d1", 1, 0)) < 1150
        True
    """
    noise = "".join(f"{zlib.crc32(f'{device}.{seq}.{salt}.{i}'.encode()):08x}" for i in range(154))
    hist = [(zlib.crc32(f"{seq}{i}".encode()) % 40) for i in range(40)]
    body = {"inferences": 1000 + seq, "errors": 0, "latency": hist, "rss_kb": 24_000, "blob": noise, "cpu": 51.5}
    return encode_batch(TelemetryBatch(device, "b1", "metric", seq - 1, (TelemetryRow(seq, float(seq), body),)))


def _length(n: int) -> bytes:
    out = bytearray()
    while True:
        n, digit = n >> 7, n & 0x7F
        out.append(digit | (0x80 if n else 0))
        if not n:
            return bytes(out)


def _text(value: str) -> bytes:
    return struct.pack("!H", len(value)) + value.encode()


def _frame(name: str, payload: bytes, mid: int) -> bytes:
    body = _text(name) + struct.pack("!H", mid) + payload
    return bytes([_PUBLISH_QOS_1]) + _length(len(body)) + body


class _Reader:
    """Cuts what arrives into packets (first byte, body)."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        data, found, at = self._data + data, [], 0
        while len(data) - at >= 2:
            length, shift, pos = 0, 0, at + 1
            while pos < len(data) and data[pos] & 0x80:
                length |= (data[pos] & 0x7F) << shift
                shift, pos = shift + 7, pos + 1
            if pos >= len(data):
                break
            length |= data[pos] << shift
            if len(data) - pos - 1 < length:
                break
            found.append((data[at], data[pos + 1 : pos + 1 + length]))
            at = pos + 1 + length
        self._data = data[at:]
        return found


class _Wire:
    """One connection to the broker."""

    def __init__(self, settings: dict[str, Any]) -> None:
        context = ssl.create_default_context(cafile=settings["ca"])
        context.load_cert_chain(settings["certificate"], settings["key"])
        raw = socket.create_connection((settings["host"], settings["port"]))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(raw, server_hostname=settings["host"])
        body = _text("MQTT") + bytes([4, 2]) + struct.pack("!H", 0) + _text(settings["name"])
        self.socket.sendall(bytes([0x10]) + _length(len(body)) + body)
        self._reader = _Reader()
        self._expect(0x20)
        if settings["acks"]:
            body = struct.pack("!H", 1) + _text(f"strop/v1/{settings['tenant']}/+/tm/ack") + b"\x00"
            self.socket.sendall(bytes([0x82]) + _length(len(body)) + body)
            self._expect(0x90)
        self.socket.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.socket, selectors.EVENT_READ)

    def _expect(self, kind: int) -> None:
        while not any(first & 0xF0 == kind for first, _ in self._reader.feed(self.socket.recv(4096))):
            pass

    def send(self, data: bytes) -> None:
        self.socket.setblocking(True)
        self.socket.sendall(data)
        self.socket.setblocking(False)

    def poll(self, wait_s: float) -> list[tuple[int, bytes]]:
        """Return the packets that came; waits for the first."""
        if not self.socket.pending() and not self.selector.select(wait_s):
            return []
        try:
            data = self.socket.recv(1 << 16)
        except (ssl.SSLWantReadError, BlockingIOError):
            return []
        if not data:
            raise ConnectionError("the broker closed the connection")
        return self._reader.feed(data)


class _Run:
    """Sends frames with a window or at a rate and notes what is acknowledged."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.wire = settings, _Wire(settings)
        self.frames: list[tuple[str, int, bytes]] = []
        for i in range(settings["first"], settings["first"] + settings["count"]):
            device, seq = f"{settings['devices']}-{i % settings['every']}", settings["seq"] + i // settings["every"]
            name = topic(settings["tenant"], device, "tm/metric")
            self.frames.append((device, seq, _frame(name, batch_bytes(device, seq, 0), 1 + i % 60_000)))
        self.sent: dict[tuple[str, int], float] = {}
        self.covered: dict[str, int] = {}
        self.waits: list[float] = []
        self.pubacks, self.last_ack = 0, 0.0

    def go(self) -> dict[str, Any]:
        queue, began = deque(self.frames), time.monotonic()
        rate, sent = self.settings["rate"], 0
        heard = began
        while queue or not self._is_complete():
            due = min(len(self.frames), int((time.monotonic() - began) * rate)) if rate else len(self.frames)
            room = min(due - sent, IN_FLIGHT - (sent - self.pubacks), len(queue), 20)
            if room > 0:
                self._send([queue.popleft() for _ in range(room)])
                sent += room
            packets = self.wire.poll(0.0 if room > 0 else (0.001 if rate else 0.05))
            heard = self._hear(packets) if packets else heard
            if time.monotonic() - heard > _IDLE_S:
                break
        return {"began": began, "ended": self.last_ack, "covered": sum(self.covered.values()), "waits": self.waits}

    def _is_complete(self) -> bool:
        if not self.settings["acks"]:
            return self.pubacks >= len(self.frames)
        return all(self.covered.get(device, 0) >= seq for device, seq, _ in self.frames[-self.settings["every"] :])

    def _send(self, frames: list[tuple[str, int, bytes]]) -> None:
        now = time.monotonic()
        for device, seq, _ in frames:
            self.sent[device, seq] = now
        self.wire.send(b"".join(frame for _, _, frame in frames))

    def _hear(self, packets: list[tuple[int, bytes]]) -> float:
        now = time.monotonic()
        for first, body in packets:
            if first == _PUBACK:
                self.pubacks += 1
            elif first & 0xF0 == _PUBLISH:
                self._acknowledged(body, now)
        return now

    def _acknowledged(self, body: bytes, now: float) -> None:
        end = 2 + struct.unpack_from("!H", body)[0]
        device = body[2:end].split(b"/")[3].decode()
        if not device.startswith(self.settings["devices"]):
            return
        up_to = int(body[body.rindex(_UP_TO) + len(_UP_TO) :].split(b",", 1)[0])
        for seq in range(self.covered.get(device, self.settings["seq"] - 1) + 1, up_to + 1):
            if (sent := self.sent.pop((device, seq), None)) is not None:
                self.waits.append(now - sent)
                self.last_ack = now
        self.covered[device] = max(self.covered.get(device, 0), up_to)


def main() -> None:
    """Run one publisher by the settings on standard input."""
    run = _Run(json.loads(sys.stdin.readline()))
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(run.go()), flush=True)


if __name__ == "__main__":
    main()
