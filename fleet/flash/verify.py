# SPDX-License-Identifier: Apache-2.0
"""Read an image or a card back, and say what its board will do at the first boot, and what is wrong with it."""

import hashlib
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge_contract.enrolment import parse_token
from edge_contract.errors import ImageError, StropError
from fleet.flash.formats import Detected, Format, detect
from fleet.flash.image import Card, open_card
from fleet.flash.manifest import MANIFEST, TOKEN, Manifest, digest_of
from fleet.flash.reading import facts_of, starts
from fleet.flash.render import BEGIN, ON_ROOT, TRACES

__all__ = ["Report", "look"]

_PLAN: Final = "strop/plan.json"
_OLDER: Final = ("userconf.txt", "userconf", "ssh", "ssh.txt", "wpa_supplicant.conf")
"""What images before the formats of today read, and some still do."""


@dataclass
class Report:
    """What was seen.

    Attributes:
        facts: For machines: format, board, agent, files.
        faults: What will not work, or contradicts itself.
        remarks: What a person should know and does no harm.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {**self.facts, "faults": self.faults, "remarks": self.remarks, "is_good": not self.faults}

    def to_text(self) -> str:
        """Return it for people."""
        rows = [f"{name:<12}{value}" for name, value in self.facts.get("words", {}).items() if value]
        rows += [f"{'fault':<12}{fault}" for fault in self.faults]
        rows += [f"{'remark':<12}{remark}" for remark in self.remarks]
        return "\n".join([*rows, "good: the board will do this" if not self.faults else "not good: see the faults"])


def _board_words(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the sentences about a board."""
    if not facts:
        return {}
    login = [word for word, is_so in (("password", facts["password"]), (_keys(facts), facts["ssh_keys"])) if is_so]
    ssh = "on, by key" if facts["ssh_keys"] else "as the image has it"
    ssh = "on, by password" + (" or key" if facts["ssh_keys"] else "") if facts["ssh_password"] else ssh
    wifi = f"Wi-Fi '{facts['wifi']}' ({'open' if facts['wifi_open'] else 'WPA key'}, {facts['country']})"
    speech = ", ".join(facts[key] for key in ("locale", "timezone", "keyboard") if facts[key])
    return {
        "hostname": facts["hostname"],
        "user": f"{facts['user']} ({' and '.join(login) or 'cannot log in'})" if facts["user"] else "none is made",
        "ssh": ssh,
        "network": f"cable by DHCP, and {wifi}" if facts["wifi"] else "cable by DHCP",
        "language": speech or "as the image has it",
    }


def _keys(facts: Mapping[str, Any]) -> str:
    return f"{facts['ssh_keys']} SSH key{'s' if facts['ssh_keys'] > 1 else ''}"


def _check_board(report: Report, card: Card, found: Detected, manifest: Manifest | None) -> None:
    try:
        facts = facts_of(card.boot, found.format)
    except ValueError as error:
        report.faults.append(str(error))
        return
    if not facts:
        names = " or ".join(TRACES[found.format])
        after = "; the card was made, so its first boot has run, or it was lost" if manifest is not None else ""
        report.faults.append(f"nothing is set up: there is no {names}{after}")
        return
    report.facts["board"] = facts
    report.facts["words"].update(_board_words(facts))
    if facts["user"] and not facts["password"] and not facts["ssh_keys"]:
        report.faults.append(f"user '{facts['user']}' can never log in")
    if facts["wifi"] and not facts["country"]:
        report.faults.append("Wi-Fi without a country: the radio stays off")
    if manifest is not None:
        wrong = [key for key, value in manifest.board.items() if facts.get(key) != value]
        report.faults += [
            f"{key} is {facts.get(key)!r}, the card was made for {manifest.board[key]!r}" for key in wrong
        ]
    has_begin = _payload_file(card, BEGIN, 1 << 16) is not None
    if has_begin and not facts["begins"]:
        report.faults.append(f"{BEGIN} is there, and nothing runs it")
    if facts["begins"] and not has_begin:
        report.faults.append(f"the first boot runs {BEGIN}, which is not there")
    try:
        report.faults += starts(card.boot, found.format, found.mount, str(facts.get("instance", "")))
    except ImageError as error:
        report.faults.append(f"cmdline.txt: {error.what}")


def _check_strangers(report: Report, card: Card, found: Detected) -> None:
    ours = set(TRACES[found.format])
    if found.format is Format.CUSTOM_TOML:
        ours.add("firstrun.sh")
    for name in sorted({name for names in TRACES.values() for name in names} - ours):
        if card.boot.find(name) is not None:
            report.remarks.append(f"{name} is there, too; an image with {found.format} does not read it")

    for name in _OLDER:
        if card.boot.find(name) is not None:
            report.remarks.append(f"{name} is there, too; images of Raspberry Pi read it besides")


def _check_files(report: Report, card: Card, manifest: Manifest | None) -> None:
    if manifest is None:
        report.remarks.append("no manifest of strop flash: the files were compared with nothing")
        return
    wrong = []
    for path, wanted in manifest.files.items():
        try:
            seen = digest_of(card.pieces(path)) if not path.endswith(TOKEN) else None
        except ImageError as error:
            wrong.append(f"{path}: {error.what}")
            continue
        if seen is not None and seen != wanted:
            wrong.append(f"{path}: is not what was written")
    report.faults += wrong
    total = sum(one.size or 0 for one in manifest.files.values())
    report.facts["words"]["files"] = f"{len(manifest.files)} files, {total} bytes, {len(wrong)} of them wrong"
    report.facts["files"] = {"count": len(manifest.files), "bytes": total, "wrong": wrong}


def _payload_file(card: Card, path: str, most: int = 16 << 20) -> bytes | None:
    """Return a file of the payload, from the boot partition or from the root; None if it is in neither."""
    if card.boot.find(path) is not None:
        return card.boot.read(path, most=most)
    return card.ext4.read(f"{ON_ROOT}/{path}", most) if card.ext4 is not None else None


def _check_agent(report: Report, card: Card) -> None:
    raw = _payload_file(card, _PLAN)
    if raw is None:
        report.facts["words"]["agent"] = "none is installed"
        return
    try:
        plan = dict(json.loads(raw))
    except (ValueError, TypeError):
        report.faults.append(f"{_PLAN} is damaged")
        return
    keys = ("device", "server", "model", "runtime", "python", "machine", "factory")
    agent = {key: str(plan.get(key, "")) for key in keys}
    report.facts["agent"] = agent
    words = report.facts["words"]
    words["agent"] = f"device '{agent['device']}', {agent['runtime']}, Python {agent['python']} on {agent['machine']}"
    model = f"'{agent['model']}', bundle {agent['factory'][:16]}…" if agent["factory"] else "none: waits for an order"
    words["model"] = model
    words["fleet"] = agent["server"] or "none: it stays alone"
    host = report.facts.get("board", {}).get("hostname", "")
    if host and host != agent["device"]:
        report.remarks.append(f"the host is called '{host}', the device '{agent['device']}'")
    for key in ("python", "machine"):
        has = getattr(card.system, key, "")
        if has and agent[key] and has != agent[key]:
            report.faults.append(f"the wheelhouse is for {key} {agent[key]}, the image has {has}")
    _check_token(report, card, agent)


def _check_token(report: Report, card: Card, agent: Mapping[str, str]) -> None:
    text = _payload_file(card, TOKEN, 4096)
    has_token = text is not None
    if has_token != bool(agent["server"]):
        report.faults.append("a token without a server" if has_token else "no token: it can never enrol")
    if text is None:
        return
    try:
        token = parse_token(text.decode("ascii", "replace"))
    except StropError as error:
        report.faults.append(f"token: {error.what}")
        return
    report.facts["token"] = token.id
    report.facts["words"]["token"] = f"{token.id}, one use, for the CA {token.ca_digest[:16]}…"
    ca = "strop/ca.pem"
    pem = _payload_file(card, ca, 1 << 16)
    if pem is None:
        return
    try:
        der = ssl.PEM_cert_to_DER_cert(pem.decode("ascii").strip())
    except ValueError:
        report.faults.append(f"{ca} is no certificate")
        return
    if hashlib.sha256(der).hexdigest() != token.ca_digest:
        report.faults.append("token and ca.pem are of different servers")


def _format(card: Card, manifest: Manifest | None, report: Report) -> Detected | None:
    try:
        found = detect(card.boot, card.system)
    except ImageError as error:
        if manifest is None:
            report.faults.append(error.what)
            return None
        report.remarks.append("the image does not show which format it reads; the card was made by --format")
        return detect(card.boot, card.system, Format(manifest.format))
    if manifest is not None and manifest.format != found.format:
        if manifest.format == Format.CUSTOM_TOML and found.format is Format.FIRSTRUN:
            return detect(card.boot, card.system, Format.CUSTOM_TOML)
        report.faults.append(f"the image reads {found.format}, the card was made for {manifest.format}")
    return found


def look(path: Path) -> Report:
    """Return what a board will do with an image or a card.

    Raises:
        UsageError: It cannot be opened.
        ImageError: No image of a card, or one that is damaged or cut short.
    """
    with open_card(path) as card:
        return _look(card, path)


def _look(card: Card, path: Path) -> Report:
    report = Report({"path": str(path), "words": {}})
    report.remarks += card.table.remarks
    for fault in card.boot.check():
        (report.faults if fault.is_grave else report.remarks).append(f"boot partition: {fault.words}")
    manifest = _manifest(card, report)
    system = card.system
    says = " ".join(word for word in (system.name, system.machine, f"Python {system.python}") if word) if system else ""
    words = report.facts["words"]
    words["image"] = f"{path.name}: {card.table.scheme.upper()}, boot {card.boot.layout.kind}"
    words["system"] = says
    found = _format(card, manifest, report)
    if found is not None:
        report.facts.update(format=str(found.format), mount=found.mount, evidence=list(found.evidence))
        words["format"] = f"{found.format} ({found.evidence[0]})"
        _check_board(report, card, found, manifest)
        _check_strangers(report, card, found)
    _check_agent(report, card)
    _check_files(report, card, manifest)
    if manifest is not None:
        report.facts.update(made=manifest.made, instance=manifest.instance, base=dict(manifest.base))
        words["made"] = f"{manifest.made}, card {manifest.instance}"
    return report


def _manifest(card: Card, report: Report) -> Manifest | None:
    if card.boot.find(MANIFEST) is None:
        return None
    try:
        return Manifest.from_bytes(card.boot.read(MANIFEST))
    except ImageError as error:
        report.faults.append(f"{MANIFEST}: {error.what}")
        return None
