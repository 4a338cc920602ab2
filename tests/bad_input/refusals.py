# SPDX-License-Identifier: Apache-2.0
"""What every refusal owes: one line on stderr, an exit code, nothing on stdout, and everything as it was."""

import contextlib
import hashlib
import io
import os
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.cli import main

PROGRAM = Path(sys.executable).with_name("strop")
MARK = "STROP_TEST_MARK"
PATIENCE_S = 90.0


@dataclass(frozen=True)
class Strop:
    """The command line, started in ``folder``; what it starts inherits a mark by which leftovers are found."""

    folder: Path

    def run(self, *words: str | Path, **env: str | Path) -> subprocess.CompletedProcess[str]:
        mark = uuid.uuid4().hex
        environment = {**os.environ, "NO_COLOR": "1", **{k: str(v) for k, v in env.items()}, MARK: mark}
        ended = subprocess.run(
            [str(PROGRAM), *(str(word) for word in words)],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=environment,
            timeout=PATIENCE_S,
            check=False,
        )
        assert list(_marked(mark)) == [], "it left a process running"
        return ended

    def refuses(self, code: int, *parts: str, words: tuple[str | Path, ...], **env: str | Path) -> str:
        """Assert that these words are refused with one line that holds the parts in this order; return the line."""
        ended = self.run(*words, **env)
        said = f"\n$ strop {' '.join(map(str, words))}\n{ended.stdout}{ended.stderr}exit code {ended.returncode}"
        assert ended.returncode == code, said
        assert ended.stdout == "", said
        return one_line(ended.stderr, *parts, said=said)


@dataclass(frozen=True)
class Within:
    """The same command line in this process: for tables of cases of which the real one has run some."""

    folder: Path

    def refuses(self, code: int, *parts: str, words: tuple[str | Path, ...]) -> str:
        """As ``Strop.refuses``."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main([str(word) for word in words])
            except SystemExit as end:
                ended = end.code
        said = f"\n$ strop {' '.join(map(str, words))}\n{out.getvalue()}{err.getvalue()}exit code {ended}"
        assert (ended, out.getvalue()) == (code, ""), said
        return one_line(err.getvalue(), *parts, said=said)


def one_line(text: str, *parts: str, said: str = "") -> str:
    """Assert that a text is one whole ``error:`` line that holds the parts in this order."""
    said = said or text
    assert text.endswith("\n") and text.count("\n") == 1, said
    assert text.startswith("error: "), said
    assert "Traceback" not in text and "internal error" not in text, said
    at = 0
    for part in parts:
        found = text.find(part, at)
        assert found >= 0, f"{part!r} is not said (in this order): {said}"
        at = found + len(part)
    return text


def _marked(mark: str) -> Iterator[int]:
    """Processes that carry our mark: children, their children, also those with a session of their own."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)


def changed_files(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Return path → kind, mode and digest of everything below a folder; an absent folder is empty.

    An absent folder and an empty one differ: the folder itself is an entry.
    """
    if not folder.exists():
        return {}
    paths = [folder, *sorted(folder.rglob("*"))]
    return {str(path.relative_to(folder)): _described(path) for path in paths if path.name not in without}


def _described(path: Path) -> str:
    mode = f"{path.lstat().st_mode:o}"
    if path.is_symlink():
        return f"{mode} -> {path.readlink()}"
    return mode if path.is_dir() else f"{mode} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def database(path: Path) -> list[str]:
    """Return every row of a SQLite database as SQL."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return list(db.iterdump())
    finally:
        db.close()


@contextlib.contextmanager
def unchanged(*what: Path | Callable[[], Any]) -> Iterator[None]:
    """Assert that folders, or what functions return, are the same after the block."""
    looks = [(lambda p=w: changed_files(p)) if isinstance(w, Path) else w for w in what]  # type: ignore[misc]
    before = [look() for look in looks]
    yield
    for subject, was, look in zip(what, before, looks, strict=True):
        _same(was, look(), str(subject))


def _same(was: Any, now: Any, subject: str) -> None:
    """Assert equality; of large things only what differs is shown."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted({*was, *now}):
            _same(was.get(key), now.get(key), f"{subject}/{key}")
    elif isinstance(was, list) and isinstance(now, list):
        assert set(was) ^ set(now) == set(), f"{subject} changed"
    assert was == now, f"{subject} changed"


def until(claim: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Return the first true value of a claim about another process."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := claim():
            return found
        time.sleep(0.05)
    raise AssertionError(f"never came true: {what}")
