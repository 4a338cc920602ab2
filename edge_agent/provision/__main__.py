# SPDX-License-Identifier: Apache-2.0
"""``first-boot.pyz VERB``: ``begin`` hands it to systemd, ``run`` carries it out, ``status`` tells of it."""

import argparse
import fcntl
import json
import sys
from pathlib import Path
from typing import IO

from edge_agent.adapters import binding
from edge_agent.provision import plan as plans
from edge_agent.provision import progress, units
from edge_agent.provision.journal import Journal
from edge_agent.provision.place import Place
from edge_agent.provision.steps import Run, describe, disable, enable
from edge_contract import durable
from edge_contract.errors import StropError, UsageError

__all__ = ["main"]

PROGRAM = "first-boot.pyz"


def _words() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Set this board up from its boot partition, and enrol.")
    parser.add_argument("verb", choices=("begin", "run", "status"))
    parser.add_argument("--boot", type=Path, default=Path("/boot/firmware"), help="where the boot partition is mounted")
    parser.add_argument("--root", type=Path, default=Path("/"), help="set up a system that begins here")
    parser.add_argument("--systemctl", default="", help="the program that manages services")
    parser.add_argument("--watch", action="store_true", help="begin: carry it out here, and leave the rest to systemd")
    parser.add_argument("--once", action="store_true", help="try each step once, do not wait")
    parser.add_argument("--longest-pause", type=float, default=progress.Patience.cap, help="seconds between attempts")
    parser.add_argument("--json", action="store_true", help="status for machines")
    return parser


def _begin(place: Place, boot: Path, *, is_watched: bool) -> int:
    """Copy the program to the root file system, write its unit and start it; returns before the work is done.

    With ``is_watched`` the steps are carried out here, once each, and systemd goes on with what is left.
    """
    plan = plans.read(boot)
    place.memory.mkdir(parents=True, exist_ok=True)
    program = place.memory / PROGRAM
    durable.write(program, (plan.folder / PROGRAM).read_bytes(), mode=0o755)
    place.units.mkdir(parents=True, exist_ok=True)
    shown = Path("/") / program.relative_to(place.root)
    durable.write(place.units / units.FIRST_BOOT, units.first_boot(str(shown), str(boot)).encode())
    enable(place, units.FIRST_BOOT)
    place.service("daemon-reload")
    if is_watched and _run(place, boot, progress.Patience(is_once=True)) == 0:
        return 0
    place.service("start", "--no-block", units.FIRST_BOOT)
    if is_watched:
        progress.say("what is left is tried again by itself; follow it: journalctl -fu strop-first-boot")
        return 1
    progress.say(f"the first boot of {plan.device} begins; follow it: journalctl -fu strop-first-boot")
    return 0


def _run(place: Place, boot: Path, patience: progress.Patience) -> int:
    place.memory.mkdir(parents=True, exist_ok=True)
    with _alone(place.memory / "lock"):
        plan, board = plans.read(boot), binding.read_board(place.root)
        journal = Journal(place.memory, plan.digest, board)
        run = Run(plan, place, board, progress.say)
        if plan.token.exists():  # it may have been brought again
            journal.undone("token")
        code = progress.carry_out(run, journal, patience)
        if code == 0:
            disable(place, units.FIRST_BOOT)
            progress.say(f"{plan.device} is set up")
        return code


def _alone(path: Path) -> IO[str]:
    """Return the held lock: the boot's service and a person may both begin."""
    handle = path.open("a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        fix = "follow it: journalctl -fu strop-first-boot"
        raise StropError("a first boot is under way here", where=str(path), fix=fix) from error
    return handle


def _status(place: Place, *, as_json: bool) -> int:
    path = place.memory / "status.json"
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError("no first boot was begun here", where=str(path)) from error
    if as_json:
        print(json.dumps(found, sort_keys=True))
        return 0
    for name, said in found.get("done", {}).items():
        print(f"{name}: {said}")
    print(describe(found))
    return 0


def main(words: list[str] | None = None) -> int:
    """Carry a verb out; return the exit code: 0 done, 1 refused, 2 wrong words."""
    given = _words().parse_args(words)
    place = Place(given.root.resolve(), given.systemctl)
    patience = progress.Patience(cap=given.longest_pause, is_once=given.once)
    try:
        if given.verb == "begin":
            return _begin(place, given.boot.resolve(), is_watched=given.watch)
        if given.verb == "status":
            return _status(place, as_json=given.json)
        return _run(place, given.boot.resolve(), patience)
    except StropError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
