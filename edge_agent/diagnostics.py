# SPDX-License-Identifier: Apache-2.0
"""``python -m edge_agent.diagnostics KIND DATA KB``: what a person far away needs to know of this device.

A process of its own, which the control process starts on request: it may read much, and what it takes of memory is
given back. It prints the text that goes to the server, with everything that looks like a secret taken out.
"""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from edge_contract.errors import StropError

__all__ = ["collect", "redact", "tail"]

_HIDDEN: Final = "[redacted]"
_KEY_BYTES: Final = 16_000
_RULES: Final = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), _HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {_HIDDEN}"),
    (re.compile(r"(://)[^/\s@\"']+@"), rf"\1{_HIDDEN}@"),
    (
        re.compile(
            r"(?i)(\b[\w-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|psk)[\w-]*[\"']?\s*[:=]\s*)"
            r"(\"(?:[^\"\\\n]|\\.)*\"?|'[^'\n]*'?|[^\s,;}\]&]+)"
        ),
        rf"\1{_HIDDEN}",
    ),
)


def redact(text: str) -> str:
    """Return a text without private keys, passwords, tokens and names in addresses.

    Example:
        >>> redact('url = "rtsp://me:pw@cam/1", token=abc, bundle=12ab')
        'url = "rtsp://[redacted]@cam/1", token=[redacted], bundle=12ab'
    """
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    return text


def tail(path: Path, size: int) -> str:
    """Return the whole lines within the last ``size`` bytes of a file, empty if there is none."""
    try:
        with path.open("rb") as file:
            length = file.seek(0, 2)
            file.seek(max(0, length - size))
            data = file.read(size)
    except OSError:
        return ""
    return (data.partition(b"\n")[2] if length > size else data).decode(errors="replace")


def _logs(data: Path, size: int) -> str:
    """The last bytes of each log. More is read: a key that is cut at the front would not be known as one."""
    found = sorted((data / "logs").glob("*.log"))
    return "\n".join(f"== {path.name}\n{redact(tail(path, size + _KEY_BYTES))[-size:]}" for path in found)


def _asked(what: Callable[[Path], Any], data: Path) -> Any:
    """A part that cannot be told must not cost the others."""
    try:
        return what(data)
    except (StropError, OSError, ValueError, LookupError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _diagnostics(data: Path, size: int) -> str:
    from edge_agent import folder
    from edge_agent.adapters import board
    from edge_agent.adapters.sensors import Sensors

    found = {
        "status": _asked(folder.status, data),
        "doctor": _asked(lambda path: [asdict(one) for one in folder.examine(path)], data),
        "versions": _versions(),
        "board": board.facts(),
        "health": {**_asked(board.health, data), **Sensors().read()},
        "agent.toml": _asked(lambda path: (path / "agent.toml").read_text(), data),
        "files": _asked(_files, data),
    }
    return f"{redact(json.dumps(found, indent=1, sort_keys=True))}\n{_logs(data, size)}"


def _versions() -> dict[str, str]:
    from importlib import metadata

    names = ("strop", "paho-mqtt", "tuf", "cryptography", "numpy", "ai-edge-litert", "onnxruntime", "tflite-runtime")
    found = {"python": sys.version}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _files(data: Path) -> dict[str, int]:
    """Return the size of each file of the data folder but of captures, of which nobody has to know."""
    paths = (path for path in sorted(data.rglob("*")) if path.is_file() and not path.is_symlink())
    names = {str(path.relative_to(data)): path for path in paths}
    return {name: path.stat().st_size for name, path in names.items() if not name.startswith("capture/")}


def collect(kind: str, data: Path, kb: int) -> str:
    """Return the text of ``logs`` or ``diagnostics``, with the last ``kb`` kilobytes of each log."""
    return (_diagnostics if kind == "diagnostics" else _logs)(data, kb * 1000)


if __name__ == "__main__":
    sys.stdout.write(collect(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
