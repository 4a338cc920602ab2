# SPDX-License-Identifier: Apache-2.0
"""``first-boot.pyz``: the part of our own wheel that a bare Python runs, so its version is always the agent's.

Nothing is imported from the agent: its files are copied from one archive into another. The same wheel gives the same
bytes, on every computer with the same zlib.
"""

import io
import zipfile
from pathlib import Path
from typing import Final

from edge_contract.errors import BundleError

__all__ = ["ENTRY", "program_of"]

PACKAGES: Final = ("edge_agent/", "edge_contract/")
ENTRY: Final = "edge_agent/provision/__main__.py"
_MAIN: Final = b"from edge_agent.provision.__main__ import main\n\nraise SystemExit(main())\n"
_LEFT_OUT: Final = ("edge_agent/runner/", "edge_agent/serve/", "edge_agent/cli.py")
"""What needs numpy or typer, or is called by nobody before the environment is there."""
_LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)


def program_of(wheel: Path) -> bytes:
    """Return the program of an agent's wheel.

    Raises:
        BundleError: No wheel, or one of an agent that knows no first boot.
    """
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
            names = [name for name in archive.namelist() if name.startswith(PACKAGES) and name.endswith(".py")]
            if ENTRY not in names:
                raise BundleError("this agent knows no first boot", where=str(wheel), fix="take a newer wheel of strop")
            for name in sorted(name for name in names if not name.startswith(_LEFT_OUT)):
                made.writestr(zipfile.ZipInfo(name, _LONG_AGO), archive.read(name), zipfile.ZIP_DEFLATED, 9)
            made.writestr(zipfile.ZipInfo("__main__.py", _LONG_AGO), _MAIN, zipfile.ZIP_DEFLATED, 9)
    except (OSError, zipfile.BadZipFile) as error:
        raise BundleError(f"cannot be read: {error}", where=str(wheel)) from error
    return out.getvalue()
