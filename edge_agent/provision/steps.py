# SPDX-License-Identifier: Apache-2.0
"""The steps of a first boot, in their order. Each may be done twice, and says at its end what a person should read.

::

    check        the files are those of the plan, and made for this Python and processor
    user         the system user, its groups, the data folder
    software     the environment out of the wheels, offline
    settings     agent.toml
    factory      the factory model into its slot, proved by its golden inputs
    coral        udev rule and runtime library, if wanted
    services     the agent as a service: it answers from here on, with or without a network
    bytecode     so that later starts are fast
    enrol        wait for time and network; the one-time token becomes this board's own identity
    token        the token leaves the boot partition
    birth        the agent says hello to its server
"""

import contextlib
import json
import os
import pwd
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_agent.adapters import binding
from edge_agent.adapters.slots import SlotStore
from edge_agent.adapters.trust import TrustHelper
from edge_agent.config import check as check_config
from edge_agent.config import skeleton
from edge_agent.provision import environment, units
from edge_agent.provision.place import USER, Place
from edge_agent.provision.plan import Plan
from edge_contract import durable
from edge_contract.enrolment import parse_token
from edge_contract.errors import BundleError, DownloadError, EnrolmentError, StropError
from edge_contract.manifest import MANIFEST_NAME, Manifest
from edge_contract.renewal import BoardIdentity

__all__ = ["MAY_FAIL", "STEPS", "Run", "describe", "disable", "enable", "system_python"]

SERVICE: Final = "strop-agent.service"
GROUPS: Final = ("video", "audio", "plugdev")
MAY_FAIL: Final = frozenset({"coral", "bytecode"})
"""Steps whose failure is said and then left behind: the model answers without them."""
_BIRTH_S: Final = 60.0
_STARTED: Final = (
    *("edge_agent.launcher", "edge_agent.process", "edge_agent.trust_helper", "edge_agent.runner.process"),
    *("edge_agent.adapters.enrol", "edge_agent.adapters.renewal", "edge_agent.adapters.tuf_client"),
    *("edge_agent.capture.errand", "edge_agent.cli", "strop.cli"),
)


@dataclass(frozen=True)
class Run:
    """One first boot under way: what is to be done, where, on which board; ``tell`` hears how far a step is."""

    plan: Plan
    place: Place
    board: BoardIdentity
    tell: Callable[[str], None]


def system_python() -> str:
    """Return the path of the interpreter that is installed on this system, also within an environment."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def _check(run: Run) -> str:
    run.plan.check_machine()
    damaged = list(run.plan.damaged())
    if damaged:
        what = f"{len(damaged)} of {len(run.plan.files)} files are missing or damaged, first {damaged[0]}"
        raise BundleError(what, where=str(run.plan.folder), fix="write the card again")
    return f"{len(run.plan.files)} files are whole"


def _user(run: Run) -> str:
    place = run.place
    place.data.mkdir(parents=True, exist_ok=True)
    place.data.chmod(0o700)
    if not place.is_this_system:
        return "another root: nobody is made"
    with contextlib.suppress(KeyError):
        pwd.getpwnam(USER)
        place.give([place.data])
        return f"user {USER} is there"
    words = ["useradd", "--system", "--user-group", "--home-dir", "/var/lib/strop", "--no-create-home"]
    done = place.run([*words, "--shell", "/usr/sbin/nologin", USER])
    if done.code != 0:
        raise StropError(f"useradd ended with code {done.code}: {done.said}", where=f"user {USER}")
    for group in GROUPS:  # a system may lack some of them
        place.run(["usermod", "--append", "--groups", group, USER])
    place.give([place.data])
    return f"user {USER} was made"


def _software(run: Run) -> str:
    place = run.place
    place.software.parent.mkdir(parents=True, exist_ok=True)
    count = environment.build(
        place.software, run.plan.folder, run.plan.wheels, shown=place.software,
        python=system_python(), tell=run.tell,
    )  # fmt: skip
    done = place.run([str(place.python), "-I", "-c", "import edge_agent.process"])
    if done.code != 0:
        raise BundleError(f"what was installed does not start: {done.said}", where=str(place.software))
    return f"{count} packages in {place.software}"


def _settings(run: Run) -> str:
    path, given = run.place.data / "agent.toml", run.plan.path("agent.toml")
    if path.exists():
        return "agent.toml was there and stays"
    text = given.read_text() if given else skeleton(run.plan.device, run.plan.runtime, run.plan.model)
    check_config(text, "agent.toml")
    durable.write(path, text.encode())
    run.place.give([run.place.data])
    return "agent.toml of the card" if given else "a first agent.toml"


def _factory(run: Run) -> str:
    plan, place = run.plan, run.place
    if not plan.factory:
        return "no factory model: the first order brings one"
    source = plan.folder / "factory"
    manifest = Manifest.from_bytes((source / MANIFEST_NAME).read_bytes())
    if manifest.bundle_id != plan.factory:
        raise BundleError("is not the bundle of the plan", where=str(source), fix="write the card again")
    slots = SlotStore(place.data / "models")
    if not slots.is_complete(manifest.model, plan.factory):
        partial = slots.partial(manifest.model, plan.factory)
        shutil.copytree(source, partial, dirs_exist_ok=True)
        slots.publish(manifest.model, plan.factory)
    said = _proved(run, slots.folder(manifest.model, plan.factory))
    if not slots.read(manifest.model).active:  # a board that was in service keeps its model
        slots.flip(manifest.model, plan.factory, "")
    slots.pin_factory(manifest.model)
    place.give([place.data])
    return f"{manifest.model} {manifest.version}: {said}"


def _proved(run: Run, slot: Path) -> str:
    words = [str(run.place.python), "-P", "-m", "edge_agent.provision.proof", str(slot), run.plan.runtime]
    done = run.place.run(words)
    if done.code != 0:
        raise BundleError(f"does not answer right on this board: {done.said}", where=f"factory model {slot.name[:16]}")
    found = json.loads(done.answer)
    return f"golden {found['golden']}, {found['delegate']}, loaded and answered in {found['ms']:g} ms"


def _coral(run: Run) -> str:
    if not run.plan.coral:
        return "not wanted"
    run.place.rules.mkdir(parents=True, exist_ok=True)
    durable.write(run.place.rules / "99-strop-coral.rules", units.CORAL_RULE.encode())
    if not run.place.is_this_system:
        return "udev rule"
    run.place.run(["udevadm", "control", "--reload-rules"])
    run.place.run(["udevadm", "trigger", "--subsystem-match=usb"])
    if not run.plan.coral_package:
        return "udev rule; the library is not on the card"
    done = run.place.run(["dpkg", "--install", str(run.plan.folder / run.plan.coral_package)])
    if done.code != 0:
        raise StropError(f"dpkg ended with code {done.code}: {done.said}", where=run.plan.coral_package)
    return f"udev rule and {Path(run.plan.coral_package).name}"


def _services(run: Run) -> str:
    place = run.place
    place.units.mkdir(parents=True, exist_ok=True)
    durable.write(place.units / SERVICE, units.AGENT.encode())
    enable(place, SERVICE)
    place.service("daemon-reload")
    place.give([place.data])
    done = place.service("restart", SERVICE)
    if done.code not in (0, 127):
        raise StropError(f"systemctl ended with code {done.code}: {done.said}", where=SERVICE)
    return "the agent runs" if done.code == 0 else "the agent is enabled for the next start"


def enable(place: Place, unit: str) -> None:
    """Let a unit begin with the system, by the link that ``systemctl enable`` would make; raises OSError."""
    wants = place.units / "multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (wants / unit).symlink_to(f"/etc/systemd/system/{unit}")
    durable.sync_folder(wants)


def disable(place: Place, unit: str) -> None:
    """Take the link away again; raises OSError."""
    wants = place.units / "multi-user.target.wants"
    (wants / unit).unlink(missing_ok=True)
    if wants.is_dir():
        durable.sync_folder(wants)


def _bytecode(run: Run) -> str:
    """Import as the user who may write there what the agent's user will import: the rest needs no bytecode."""
    done = run.place.run([str(run.place.python), "-P", "-c", f"import {', '.join(_STARTED)}"])
    if done.code != 0:
        raise StropError(f"ended with code {done.code}: {done.said}", where="bytecode")
    return "what the agent starts is compiled"


def _enrol(run: Run) -> str:
    plan, data = run.plan, run.place.data
    if not plan.server:
        return "no server: the device stays alone"
    for _, line in binding.at_start(data, run.board):
        run.tell(line)
    if not (data / "identity").is_dir():
        TrustHelper(data, str(run.place.python)).enrol(plan.server, _token(plan), plan.device)
        binding.bind(data / "identity", run.board)
    run.place.give([data])
    return f"{plan.device} is enrolled at {plan.server}"


def _token(plan: Plan) -> str:
    try:
        text = plan.token.read_text().strip()
    except FileNotFoundError as error:
        fix = f"'strop fleet enrol new' makes one: write its line to {plan.token}"
        raise EnrolmentError("there is no token on this card", where=str(plan.token), fix=fix) from error
    except (OSError, UnicodeDecodeError) as error:
        raise EnrolmentError(f"the token cannot be read: {error}", where=str(plan.token)) from error
    token, ca = parse_token(text), plan.path("ca.pem")
    if ca is not None and _ca_digest(ca.read_text()) != token.ca_digest:
        fix = "make the card again with a token of this server"
        raise EnrolmentError("the token is of another server than the CA on this card", where=str(plan.token), fix=fix)
    return text


def _ca_digest(pem: str) -> str:
    """Return the SHA-256 by which a token names a CA; raises ValueError for what is no certificate."""
    import hashlib
    import ssl

    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.strip())).hexdigest()


def _remove_token(run: Run) -> str:
    path = run.plan.token
    if not path.exists():
        return "no token is on the boot partition"
    size = path.stat().st_size
    with path.open("r+b") as file:  # first its bytes, since FAT leaves those of a deleted file where they are
        file.write(b"\n" * size)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    durable.sync_folder(path.parent)
    return f"{path} was overwritten and removed"


def _birth(run: Run) -> str:
    if not run.plan.server:
        return "not asked for"
    log = run.place.data / "logs" / "agent.log"
    seen = _online(log)
    done = run.place.service("restart", SERVICE)
    if done.code == 127:
        return "the agent connects at its next start"
    if done.code != 0:
        raise StropError(f"systemctl ended with code {done.code}: {done.said}", where=SERVICE)
    until = time.monotonic() + _BIRTH_S
    while _online(log) <= seen:
        if time.monotonic() > until:
            what = f"the agent did not come online within {_BIRTH_S:g} s"
            raise DownloadError(what, where=SERVICE, fix="it goes on trying by itself; strop agent logs")
        time.sleep(0.2)
    return "the agent is online"


def _online(log: Path) -> int:
    """Return how often the agent said that it is online."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return 0
    return sum(line.endswith(" info online") for line in lines)


STEPS: Final[Mapping[str, Callable[[Run], str]]] = {
    "check": _check,
    "user": _user,
    "software": _software,
    "settings": _settings,
    "factory": _factory,
    "coral": _coral,
    "services": _services,
    "bytecode": _bytecode,
    "enrol": _enrol,
    "token": _remove_token,
    "birth": _birth,
}


def describe(found: Mapping[str, Any]) -> str:
    """Return one line about a status document.

    Example:
        >>> describe({"step": "enrol", "state": "waiting", "said": "no way to the server", "tries": 3})
        'enrol: waiting: no way to the server (3 times)'
    """
    tries = int(found.get("tries", 0))
    often = f" ({tries} times)" if tries > 1 else ""
    return f"{found.get('step')}: {found.get('state')}: {found.get('said')}{often}"
