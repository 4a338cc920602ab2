# SPDX-License-Identifier: Apache-2.0
"""What is written for systemd and udev. The agent's own unit is ``deploy/systemd/strop-agent.service``, word for word;
a test holds the two against each other.
"""

from typing import Final

__all__ = ["AGENT", "CORAL_RULE", "FIRST_BOOT", "first_boot"]

FIRST_BOOT: Final = "strop-first-boot.service"

CORAL_RULE: Final = """\
# Coral USB accelerators, before and after their firmware was loaded: for the agent's user (group plugdev).
SUBSYSTEM=="usb", ATTR{idVendor}=="1a6e", ATTR{idProduct}=="089a", MODE="0664", GROUP="plugdev", TAG+="uaccess"
SUBSYSTEM=="usb", ATTR{idVendor}=="18d1", ATTR{idProduct}=="9302", MODE="0664", GROUP="plugdev", TAG+="uaccess"
SUBSYSTEM=="apex", MODE="0660", GROUP="plugdev"
"""

_UNIT: Final = """\
# SPDX-License-Identifier: Apache-2.0
# Written by strop's first boot; it takes itself out when it is done. See docs/first-boot.md.
[Unit]
Description=Strop first boot
After=local-fs.target
RequiresMountsFor={boot}
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart=/usr/bin/python3 -I {program} run --boot {boot}
Restart=on-failure
RestartSec=10
Nice=5
UMask=0022
Environment=PYTHONUNBUFFERED=1
StandardOutput=journal+console
StandardError=journal+console

[Install]
WantedBy=multi-user.target
"""


def first_boot(program: str, boot: str) -> str:
    """Return the unit that carries the first boot out, and begins it again after a power cut.

    Example:
        >>> "ExecStart=/usr/bin/python3 -I /p.pyz run --boot /boot/firmware" in first_boot("/p.pyz", "/boot/firmware")
        True
    """
    return _UNIT.format(program=program, boot=boot)


AGENT: Final = """\
# SPDX-License-Identifier: Apache-2.0
# The Strop agent as a system service. Install: docs/agent.md, "As a service".
[Unit]
Description=Strop device agent
Documentation=man:systemd.exec(5)
# Inference never waits for a network, so there is no After=network-online.target.
After=local-fs.target
StartLimitIntervalSec=600
StartLimitBurst=10

[Service]
Type=notify
# Only the control process may feed the watchdog; a runner that lives does not prove that the loop turns.
NotifyAccess=main
# The launcher of the installed software becomes the agent: the release that an update brought, or the installed one.
ExecStart=/opt/strop/bin/python -P -m edge_agent.launcher --data /var/lib/strop --quiet
WatchdogSec=60
TimeoutStartSec=60
# The runner has 2 s to end, the outbox is committed: 20 s are plenty.
TimeoutStopSec=20
KillMode=mixed
Restart=always
RestartSec=5

# One runner that the kernel ends for its memory must not end the control process: it reports that, and mends it.
OOMPolicy=continue
OOMScoreAdjust=-200
TasksMax=256

User=strop
Group=strop
SupplementaryGroups=video audio
UMask=0077
StateDirectory=strop
StateDirectoryMode=0700
WorkingDirectory=/var/lib/strop
Environment=PYTHONUNBUFFERED=1

# Nothing is written but the data folder: it works on a read-only root.
ProtectSystem=strict
ReadWritePaths=/var/lib/strop
ProtectHome=yes
PrivateTmp=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=yes
LockPersonality=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RemoveIPC=yes
KeyringMode=private
# AF_NETLINK: libusb hears by it of an Edge TPU that comes and goes.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

# LiteRT reads /proc/cpuinfo and /sys/devices/system/cpu to choose its kernels, and without them silently runs without
# XNNPACK, several times slower. So /proc is not reduced to processes and /sys stays readable: never set
# ProcSubset=pid, and never make /sys or /proc inaccessible. The process list of others may be hidden.
ProcSubset=all
ProtectProc=invisible

# Not set, because runners need it: MemoryDenyWriteExecute (XNNPACK writes machine code), PrivateDevices (camera,
# Edge TPU), PrivateNetwork. ProtectClock closes the devices but for these:
DevicePolicy=closed
DeviceAllow=char-video4linux rw
DeviceAllow=char-alsa rw
DeviceAllow=char-usb_device rw
DeviceAllow=char-apex rw

[Install]
WantedBy=multi-user.target
"""
