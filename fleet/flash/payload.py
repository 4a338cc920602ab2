# SPDX-License-Identifier: Apache-2.0
"""What a card carries for the first boot: files below ``strop/`` on its boot partition, and the lines that begin it.

::

    strop/first-boot.pyz        the program: edge_agent.provision out of the wheelhouse's own wheel
    strop/plan.json             what it is to do, with the SHA-256 and size of every other file but the token
    strop/wheels/               the wheelhouse: *.whl, requirements.txt, wheelhouse.json
    strop/factory/              the factory model's bundle
    strop/agent.toml            what a person decides about the device
    strop/ca.pem                the CA that the enrolment token must name
    strop/token                 the one-time token; the only file that the first boot deletes
    strop/coral/                the runtime library's package, if given

The boot partition is FAT: names are of ASCII, unlike each other in any case of letters, and no file has 4 GiB.
The token is in no list and in no digest: a plan may be shown to anybody.
"""

import hashlib
import json
import re
import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from edge_contract.enrolment import check_device_name, parse_token
from edge_contract.errors import BundleError, EnrolmentError, UsageError
from edge_contract.manifest import MANIFEST_NAME, Manifest
from fleet.flash.program import program_of
from fleet.flash.wheelhouse import Wheelhouse, read

__all__ = ["Payload", "Settings", "build"]

SCHEMA: Final = "strop.first-boot/1"
PROGRAM: Final = "first-boot.pyz"
MOST_BYTES: Final = (1 << 32) - 1
_NAME: Final = re.compile(r"[A-Za-z0-9_.+!#$%&'()@^`{}~ -]{1,255}")


@dataclass(frozen=True)
class Settings:
    """What a person wants on a card.

    Attributes:
        device: The device's name.
        server: The fleet server's enrolment address, ``https://HOST:PORT``; empty: the device stays alone.
        token: File with the one-time token; needed with a server.
        wheelhouse: Folder that ``strop flash wheelhouse`` made.
        factory: Bundle that answers before any network; None: the first order brings a model.
        agent_toml: A whole ``agent.toml``; None: a first one is written on the device.
        ca: File with the server's CA, to be compared with the token's digest here and on the device.
        model: Name of the model in ``agent.toml``; empty: the factory model's.
        coral: Install the udev rule of Coral sticks.
        coral_package: Debian package of libedgetpu.
        is_generic: Device name and token are brought by whoever unpacks it: ``strop/device``, ``strop/token``.
    """

    device: str
    server: str = ""
    token: Path | None = None
    wheelhouse: Path = Path("wheelhouse")
    factory: Path | None = None
    agent_toml: Path | None = None
    ca: Path | None = None
    model: str = ""
    coral: bool = False
    coral_package: Path | None = None
    is_generic: bool = False


@dataclass(frozen=True)
class Payload:
    """Files by their path on the boot partition, all below ``strop/``, and the shell lines for the first boot.

    The lines run as root and are idempotent; ``{boot}`` stands for the mount point of the boot partition.
    """

    files: Mapping[str, bytes | Path] = field(default_factory=dict)
    first_boot: tuple[str, ...] = ()


def build(settings: Settings) -> Payload:
    """Return what a card carries; everything is checked before anything is written.

    Raises:
        UsageError: A name, an address or a file that cannot be used.
        BundleError: A damaged wheelhouse or factory bundle, or a name that FAT cannot keep.
        EnrolmentError: No token, or one of another server.
    """
    if not settings.is_generic:
        check_device_name(settings.device)
    house = read(settings.wheelhouse)
    files: dict[str, bytes | Path] = dict(_wheels(house))
    facts: dict[str, Any] = {"factory": "", "coral": settings.coral, "coral_package": ""}
    model = settings.model
    if settings.factory is not None:
        found, manifest = _factory(settings.factory, house.runtime)
        files.update(found)
        facts["factory"], model = manifest.bundle_id, model or manifest.model
    files.update(_given(settings))
    if settings.coral_package is not None:
        facts["coral_package"] = f"coral/{settings.coral_package.name}"
        facts["coral"], files[facts["coral_package"]] = True, settings.coral_package
    _check_names(files)
    whose = {"device": settings.device, "server": settings.server, "model": model, "runtime": house.runtime}
    made_for = {"python": house.python, "machine": house.machine}
    plan = {"schema": SCHEMA, **whose, **made_for, **facts, "files": [_entry(p, files[p]) for p in sorted(files)]}
    files["plan.json"] = json.dumps(plan, indent=1, sort_keys=True).encode()
    files.update(_token(settings))
    program = _bytes(files[PROGRAM])
    return Payload({f"strop/{path}": data for path, data in sorted(files.items())}, _lines(program))


def _lines(program: bytes) -> tuple[str, ...]:
    """Return the lines that begin a first boot; the program proves its digest before it is run."""
    digest, path = hashlib.sha256(program).hexdigest(), f"{{boot}}/strop/{PROGRAM}"
    return (
        f"echo '{digest}  {path}' | sha256sum --check --status && /usr/bin/python3 -I {path} begin --boot {{boot}}",
    )


def _bytes(data: bytes | Path) -> bytes:
    return data if isinstance(data, bytes) else data.read_bytes()


def _wheels(house: Wheelhouse) -> dict[str, bytes | Path]:
    files: dict[str, bytes | Path] = {f"wheels/{path.name}": path for path in house.files}
    return {**files, PROGRAM: program_of(house.ours)}


def _factory(folder: Path, runtime: str) -> tuple[dict[str, bytes | Path], Manifest]:
    """Return a bundle's files that a device with one runtime needs, and its manifest."""
    try:
        data = (folder / MANIFEST_NAME).read_bytes()
    except OSError as error:
        raise UsageError(f"is no bundle: {error}", where=str(folder)) from error
    manifest = Manifest.from_bytes(data)
    manifest.artefact_for(runtime)
    for entry in manifest.files:
        try:
            found = hashlib.sha256((folder / entry.path).read_bytes()).hexdigest()
        except OSError as error:
            raise BundleError(f"file '{entry.path}' cannot be read: {error}", where=str(folder)) from error
        if found != entry.sha256:
            raise BundleError(f"file '{entry.path}' is not what the manifest says", where=str(folder))
    files: dict[str, bytes | Path] = {f"factory/{entry.path}": folder / entry.path for entry in manifest.files}
    return {**files, f"factory/{MANIFEST_NAME}": data}, manifest


def _given(settings: Settings) -> dict[str, bytes | Path]:
    """Return the files that a person gave, read and checked."""
    found: dict[str, bytes | Path] = {}
    if settings.agent_toml is not None:
        text = _read(settings.agent_toml)
        _check_toml(text, settings)
        found["agent.toml"] = text.encode()
    if settings.ca is not None:
        found["ca.pem"] = _read(settings.ca).encode()
    return found


def _check_toml(text: str, settings: Settings) -> None:
    try:
        named = tomllib.loads(text).get("device")
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not TOML: {error}", where=str(settings.agent_toml)) from error
    if named != settings.device:
        fix = f'write device = "{settings.device}"'
        raise UsageError(f"it is for device {named!r}", where=str(settings.agent_toml), fix=fix)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from error


def _token(settings: Settings) -> dict[str, bytes | Path]:
    """Return the token's file, checked against the CA; raises EnrolmentError, UsageError."""
    if not settings.server:
        if settings.token is not None:
            raise UsageError("a token without a server", fix="add the server's enrolment address")
        return {}
    parts = urlsplit(settings.server)
    if parts.scheme != "https" or not parts.hostname:
        raise UsageError(f"'{settings.server}' is not an https address", fix="write https://HOST:PORT")
    if settings.is_generic and settings.token is None:
        return {}
    if settings.token is None:
        raise UsageError("a server without a token", fix="strop fleet enrol new --out FILE makes one")
    text = _read(settings.token).strip()
    token = parse_token(text)
    if settings.ca is not None and _ca_digest(_read(settings.ca), settings.ca) != token.ca_digest:
        fix = "take a token and the ca.crt of the same server"
        raise EnrolmentError("the token names another CA", where=str(settings.ca), fix=fix)
    return {"token": f"{text}\n".encode()}


def _ca_digest(pem: str, path: Path) -> str:
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.strip())).hexdigest()
    except ValueError as error:
        raise UsageError("not a certificate in PEM", where=str(path)) from error


def _check_names(files: Mapping[str, bytes | Path]) -> None:
    """Raise BundleError for what FAT cannot keep: foreign letters, names alike but for their case, huge files."""
    seen: dict[str, str] = {}
    for path, data in files.items():
        for part in Path(path).parts:
            if not _NAME.fullmatch(part) or part.endswith((".", " ")):
                raise BundleError(f"'{part}' is no name for a boot partition", where=path, fix="rename the file")
        twin = seen.setdefault(path.lower(), path)
        if twin != path:
            raise BundleError(f"'{path}' and '{twin}' are one name on a boot partition", fix="rename one of them")
        if _size(data) > MOST_BYTES:
            raise BundleError("is larger than a file on FAT may be", where=path)


def _size(data: bytes | Path) -> int:
    try:
        return len(data) if isinstance(data, bytes) else data.stat().st_size
    except OSError as error:
        raise UsageError(f"cannot be read: {error}", where=str(data)) from error


def _entry(path: str, data: bytes | Path) -> dict[str, Any]:
    content = _bytes(data)
    return {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
