# SPDX-License-Identifier: Apache-2.0
"""The kernel's command line on a boot partition: one line, which stays one line."""

from collections.abc import Iterable

from edge_contract.errors import ImageError

__all__ = ["changed", "words_of"]


def words_of(data: bytes) -> list[str]:
    r"""Return the words of a ``cmdline.txt``.

    Raises:
        ImageError: More than one line: the firmware reads the first one only; or no text.

    Example:
        >>> words_of(b"console=tty1 root=PARTUUID=1-02 rootwait\n")
        ['console=tty1', 'root=PARTUUID=1-02', 'rootwait']
    """
    try:
        lines = [line for line in data.decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ImageError("not text", where="cmdline.txt", fix="the image is damaged: fetch it again") from error
    if len(lines) > 1:
        fix = "join them: the firmware reads the first one only"
        raise ImageError(f"has {len(lines)} lines", where="cmdline.txt", fix=fix)
    return lines[0].split() if lines else []


def changed(data: bytes, drop: Iterable[str], add: Iterable[str]) -> bytes:
    r"""Return a command line without the words that begin so, and with others at its end.

    Example:
        >>> changed(b"root=/dev/sda2 ds=nocloud;i=old quiet\n", ["ds="], ["ds=nocloud;i=new"])
        b'root=/dev/sda2 quiet ds=nocloud;i=new\n'
    """
    starts = tuple(drop)
    kept = [word for word in words_of(data) if not (starts and word.startswith(starts))]
    return (" ".join([*kept, *add]) + "\n").encode()
