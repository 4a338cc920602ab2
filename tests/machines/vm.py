# SPDX-License-Identifier: Apache-2.0
"""A kernel and a small system in memory for a virtual machine whose power is cut: ``python -m tests.machines.vm``.

``.power/guest/`` holds Debian 12's x86-64 kernel, and as a cpio archive its Python 3.11 with what that needs, busybox
and the drivers of QEMU's virtual disk. Python code is added by ``initrd``, so a change of ours needs no other build.
The guest is x86-64 because its emulation starts twice as fast as that of ARM64; what is tested is ext4 and the agent.
"""

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.machines import cpio
from tests.machines.unpacked import ROOT, CannotBuildError, Place, debian, require_tools, tell

__all__ = ["QEMU", "build", "drivers", "initrd", "kernel", "missing"]

QEMU = "qemu-system-x86_64"
SYSTEM, PYTHON = "bookworm", "python3.11"
PACKAGES = ("linux-image-cloud-amd64", "busybox-static", PYTHON)
DRIVERS = ("virtio_pci", "virtio_blk")
PROGRAMS = ("usr/bin/busybox", "bin/busybox", f"usr/bin/{PYTHON}")
INIT = f"""#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /data
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox ifconfig lo 127.0.0.1 up
cd /strop
exec /usr/bin/{PYTHON} -m $start
"""
PLACE = Place(
    ROOT / ".power",
    "tests.machines.vm",
    "make power-cuts",
    {"system": SYSTEM, "packages": PACKAGES, "drivers": DRIVERS, "init": INIT},
)


def missing() -> str:
    """Return why there is no virtual machine here, with the line to run; empty if there is."""
    if shutil.which(QEMU) is None:
        return "apt-get install --no-install-recommends qemu-system-x86"
    return PLACE.missing()


def kernel() -> Path:
    """Return the kernel's file."""
    return PLACE.folder / "guest/vmlinuz"


def initrd(target: Path, sources: Sequence[str]) -> Path:
    """Write the guest's system with our code below ``/strop``: Python files, and folders of them, of the repository.

    The kernel starts the module that its command line names, such as ``start=tests.edge_agent.power.guest``.
    """
    files = [path for name in sources for path in _python_files(ROOT / name)]
    code = cpio.archive((f"strop/{path.relative_to(ROOT)}", path.read_bytes(), 0o644) for path in files)
    target.write_bytes((PLACE.folder / "guest/root.cpio").read_bytes() + code)
    return target


def _python_files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _guest(folder: Path) -> None:
    system = folder.with_name("guest.unpacked")
    shutil.rmtree(system, ignore_errors=True)
    debian(SYSTEM, "amd64", PACKAGES, system)
    folder.mkdir()
    (found,) = system.glob("boot/vmlinuz-*")
    found.rename(folder / "vmlinuz")
    (folder / "root.cpio").write_bytes(
        cpio.archive([*_system(system), *drivers(system, DRIVERS), ("init", INIT.encode(), 0o755)])
    )
    shutil.rmtree(system)


def _system(root: Path) -> Iterator[cpio.Entry]:
    """Yield Python, its library, what it is linked to, and the folders' links of a merged /usr."""
    for name in PROGRAMS:
        if (root / name).exists():
            yield name, (root / name).read_bytes(), 0o755
    for folder in ("lib64", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", f"usr/lib/{PYTHON}", f"etc/{PYTHON}"):
        if (root / folder).exists():
            yield from cpio.tree(root, folder)


def drivers(root: Path, names: Sequence[str]) -> Iterator[cpio.Entry]:
    """Yield drivers of an unpacked kernel as ``/drivers/NN-name.ko``, each behind those that it needs."""
    known = {path.stem.replace("-", "_"): path for path in root.glob("lib/modules/*/kernel/**/*.ko")}
    order: list[str] = []

    def add(name: str) -> None:
        needs = re.search(rb"\0depends=([^\0]*)\0", known[name].read_bytes())
        for other in needs[1].decode().split(",") if needs else ():
            if other and other.replace("-", "_") not in order:
                add(other.replace("-", "_"))
        order.append(name)

    for name in names:
        add(name)
    for number, name in enumerate(order):
        yield f"drivers/{number:02}-{name}.ko", known[name].read_bytes(), 0o644


def _check(draft: Path) -> None:
    if (draft / "guest/root.cpio").stat().st_size < 10_000_000:
        raise CannotBuildError("the guest's system is not whole")


def build() -> None:
    """Build ``.power/`` if it is missing or of other versions; raises CannotBuildError."""
    if not PLACE.missing():
        return tell(".power is there")
    require_tools(PLACE.module)
    return PLACE.build({"guest": _guest}, _check)


if __name__ == "__main__":
    try:
        build()
    except CannotBuildError as error:
        sys.exit(f"error: {error}")
