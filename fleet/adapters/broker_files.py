# SPDX-License-Identifier: Apache-2.0
"""What the operator of a broker of his own needs from us: CA, a certificate, revocations, and who may speak where.

Devices trust the fleet's CA and no other, so the broker shows a certificate of it; devices prove themselves by
theirs, and the broker takes the certificate's common name as the user name, which the access list is about.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from edge_contract import durable
from edge_contract.batches import CLASSES, MAX_BATCH_BYTES
from edge_contract.enrolment import SERVER_NAME
from edge_contract.errors import UsageError
from edge_contract.topics import DOWN, ROOT, UP
from fleet.adapters import ca
from fleet.adapters.broker import access_list

__all__ = ["emqx_rules", "settings_example", "write_files"]


def emqx_rules(tenant: str) -> str:
    """Return the access list in the form of EMQX's ``acl.conf``; the last rule refuses all that is not named.

    Example:
        >>> emqx_rules("acme").splitlines()[1]
        '{allow, all, publish, ["strop/v1/acme/${username}/state/birth"]}.'
    """
    spoken = [channel for channel in UP if channel != "tm/+"] + [f"tm/{name}" for name in CLASSES]
    lines = [f'{{allow, {{username, "{SERVER_NAME}"}}, all, ["{ROOT}/#", "$share/+/{ROOT}/#"]}}.']
    for verb, channels in (("publish", spoken), ("subscribe", DOWN)):
        lines += [f'{{allow, all, {verb}, ["{ROOT}/{tenant}/${{username}}/{channel}"]}}.' for channel in channels]
    return "\n".join([*lines, "{deny, all}."]) + "\n"


def settings_example(folder: Path) -> str:
    """Return mosquitto's settings for such a broker; other brokers have the same under other names."""
    lines = [
        "listener 8883",
        f"cafile {folder / 'ca.crt'}",
        f"certfile {folder / 'broker.crt'}",
        f"keyfile {folder / 'broker.key'}",
        f"crlfile {folder / ca.REVOCATIONS}",
        "tls_version tlsv1.2",
        "require_certificate true",
        "use_identity_as_username true",
        "allow_anonymous false",
        f"acl_file {folder / 'acl'}",
        f"message_size_limit {2 * MAX_BATCH_BYTES}",
        "max_queued_messages 20000",
        "max_inflight_messages 1000",
    ]
    return "\n".join(lines) + "\n"


def write_files(data: Path, out: Path, tenant: str, hosts: Sequence[str], *, now: float) -> list[Path]:
    """Write all of it into a folder; what is there already of the same names is replaced, but not the key pair.

    Args:
        data: The server's data folder.
        out: Made if missing, mode 0700.
        tenant: Whose devices.
        hosts: Names and addresses of the broker; none keeps the certificate that is there.
        now: Seconds since 1970.

    Raises:
        UsageError: No data folder, or neither names nor a certificate that is there.
        StoreError: The CA cannot be read.
    """
    if not (data / "ca" / "ca.crt").exists():
        raise UsageError("no fleet server's data folder", where=str(data), fix="give --data")
    if not hosts and not (out / "broker.crt").exists():
        raise UsageError("the broker's name is missing", where="--name", fix="give the name by which devices reach it")
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    if hosts:
        ca.issue_broker(data / "ca", out, hosts, now=now)
    if not (data / "ca" / ca.REVOCATIONS).exists():
        ca.write_revocations(data / "ca", [], now=now)
    for name in ("ca.crt", ca.REVOCATIONS):
        shutil.copyfile(data / "ca" / name, out / name)
    durable.write(out / "acl", access_list(tenant).encode())
    durable.write(out / "acl-emqx.conf", emqx_rules(tenant).encode())
    durable.write(out / "mosquitto.conf", settings_example(out.resolve()).encode())
    return sorted(out.iterdir())
