# SPDX-License-Identifier: Apache-2.0
"""The folder of a bundle: it appears only when everything in it was proved, and is verified file by file."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.runner import golden
from edge_agent.runner.contents import Contents
from edge_agent.runner.model import Description, Model
from edge_agent.runner.runtimes import open_session
from edge_contract import canonical
from edge_contract.errors import BundleError, ParityError
from edge_contract.manifest import MANIFEST_NAME, Artefact, BundleFile, Manifest
from export.runtimes.execution import python_for

__all__ = ["array_bytes", "drafting", "files", "seal", "self_test", "verify", "write"]


@contextmanager
def drafting(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give an empty folder beside ``out`` that takes its place at the end; nothing is left of it after an error.

    Raises:
        BundleError: ``out`` exists and may not be replaced, or cannot be written.
    """
    if out.exists() and not overwrite:
        raise BundleError("is there already", where=str(out), fix="choose another folder, or give --overwrite")
    draft = out.with_name(f".{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        yield draft
        shutil.rmtree(out, ignore_errors=True)
        draft.rename(out)
    except OSError as error:
        raise BundleError(f"cannot be written ({error.strerror})", where=str(out), fix="check the folder") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write(path: Path, data: bytes) -> None:
    """Write a file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def array_bytes(values: NDArray[Any]) -> bytes:
    """Return an array as the bytes of an .npy file, the same for the same values."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(values), allow_pickle=False)
    return buffer.getvalue()


def files(folder: Path) -> tuple[BundleFile, ...]:
    """Return the entries of everything in a folder, sorted by path."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(
        BundleFile(path.relative_to(folder).as_posix(), path.stat().st_size, canonical.digest(path.read_bytes()))
        for path in found
    )


def seal(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest of a draft, open it as a device will, and return it as the device reads it.

    Raises:
        ManifestError: The manifest contradicts itself.
        ParityError: The golden self-test failed in a runtime that lives here.
    """
    data = manifest.to_bytes()
    write(folder / MANIFEST_NAME, data)
    self_test(folder)
    return Manifest.from_bytes(data)


def self_test(folder: Path) -> None:
    """Open each artefact in each runtime that it claims and that lives here, and run the golden test.

    Raises:
        ParityError: It failed.
        BundleError: A file is not what the manifest says.
    """
    manifest = verify(folder)
    tried = set[tuple[str, str]]()
    for artefact in manifest.artefacts:
        for runtime in artefact.runtimes:
            if (artefact.path, runtime) not in tried and python_for(runtime) is None:
                tried.add((artefact.path, runtime))
                result = golden.check(_open(folder, artefact, runtime))
                if not result.is_ok:
                    what = f"golden self-test failed: {result.detail}"
                    raise ParityError(what, where=f"{artefact.path} in {runtime}")


def _open(folder: Path, artefact: Artefact, runtime: str) -> Model:
    """Open this artefact; a device chooses by runtime and target, which may name another one."""
    contents = Contents.open(folder)
    told = contents.manifest
    description = Description(
        artefact,
        told.preprocess,
        told.postprocess,
        told.labels,
        told.file(artefact.path).sha256,
        contents.bundle,
        told.version,
        told.task,
    )
    return Model(open_session(contents.path(artefact.path), artefact, runtime), description, contents)


def verify(folder: Path) -> Manifest:
    """Return the manifest of a bundle folder after every file was hashed again.

    Raises:
        BundleError: A file is missing, changed, or not in the manifest; names it.
        ManifestError: The manifest is malformed.
    """
    contents = Contents.open(Path(folder))
    for entry in contents.manifest.files:
        contents.path(entry.path)
    listed = {entry.path for entry in contents.manifest.files} | {MANIFEST_NAME}
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in listed:
            raise BundleError("is not in the manifest", where=str(path), fix="remove it, or build the bundle again")
    return contents.manifest
