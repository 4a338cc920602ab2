# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.peers.agents BUNDLE``: what device clients of other fleets take while they stand idle.

Each is connected to the same kind of broker on loopback, listens for work, and says every minute that it is there. Ours
does that too, and stands guard over a runner that holds a model; its two processes are two rows.
"""

import contextlib
import datetime as dt
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from benchmarks import footprint
from benchmarks.footprint_agent import Plan
from benchmarks.footprint_agent import measure as measure_ours
from benchmarks.live import broker, ended
from benchmarks.machine import Machine, describe
from benchmarks.peers import environments, store
from benchmarks.peers.run import RESULTS, results_path
from benchmarks.peers.tables import Table, text
from edge_contract.errors import MeasurementError, MissingDependencyError, StropError

__all__ = ["CLIENTS", "FOLDER", "Client", "Span", "main", "measure", "table"]

FOLDER: Final = RESULTS / "agents"
_CODE: Final = Path(__file__).with_name("clients")


@dataclass(frozen=True)
class Client:
    """A device client: its program in ``clients/``, the environment that it runs in, what a table calls it."""

    program: str
    environment: str
    title: str


@dataclass(frozen=True)
class Span:
    """How long is looked, in seconds: before the first look, between two, and altogether."""

    warmup_s: float
    every_s: float
    total_s: float


CLIENTS: Final[Mapping[str, Client]] = {
    "bare-paho": Client("bare_paho.py", "main", "paho-mqtt alone: connect, listen, a heartbeat"),
    "thingsboard": Client("thingsboard.py", "agents", "ThingsBoard's Python client 1.13.14"),
    "aws": Client("aws.py", "agents", "AWS IoT's device SDK 1.31.0 with its jobs client"),
}


def measure(client: Client, port: int, span: Span) -> dict[str, Any]:
    """Return PSS, RSS and processor time of one client at a broker, and the seconds until it was connected.

    Raises:
        MissingDependencyError: Its environment is not built, or there is no broker.
        MeasurementError: It does not come up, or ends meanwhile.
    """
    if not port:
        raise MissingDependencyError("mosquitto is not installed", fix="run: apt-get install mosquitto")
    with _running(client, port) as (pid, ready_s):
        time.sleep(span.warmup_s)
        samples = footprint.watch(pid, every_s=span.every_s, total_s=span.total_s)
    return {**footprint.report(samples)["control"], "ready_s": ready_s}


@contextlib.contextmanager
def _running(client: Client, port: int) -> Iterator[tuple[int, float]]:
    words = [str(environments.python(client.environment)), str(_CODE / client.program), str(port)]
    began = time.monotonic()
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with ended(child), child.stdout or contextlib.nullcontext():
        said = child.stdout.readline() if child.stdout else b""
        if said.strip() != b"ready":
            raise MeasurementError(f"said {said[:80]!r} instead of being ready", where=client.title)
        yield child.pid, round(time.monotonic() - began, 3)


def table(document: Mapping[str, Any]) -> Table:
    """Return the side by side; ours by process."""
    columns = ("idle at a broker", "PSS MiB", "RSS MiB", "% of a core", "ready s", "looks")
    rows = [(found["title"], *_cells(found)) for found in document["rows"].values()]
    origin = f"`{document['command']}`, {Machine(**document['machine'])}"
    return Table("device clients", columns, tuple(rows), (*document["missing"], origin))


def _cells(found: Mapping[str, Any]) -> tuple[str, ...]:
    ready = "–" if found.get("ready_s") is None else f"{found['ready_s']:.2f}"
    return f"{found['pss_mib']:.1f}", f"{found['rss_mib']:.1f}", f"{found['cpu_percent']:.2f}", ready, str(found["n"])


def _ours(bundle: Path, span: Span, command: str) -> dict[str, Any]:
    plan = Plan(bundle, every_s=span.every_s, total_s=span.total_s, warmup_s=span.warmup_s)
    found = measure_ours(plan, command)
    titles = {"control": "Strop's control process", "runner": "Strop's runner: numpy, LiteRT and a model"}
    rows = {f"strop-{role}": {"title": title, **found["processes"][role]} for role, title in titles.items()}
    rows["strop-control"]["ready_s"] = found["ready_s"]
    return rows


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle for our agent.")],
    minutes: Annotated[float, typer.Option(min=0.02, help="How long each is looked at.")] = 5.0,
    warmup: Annotated[float, typer.Option(min=0.0, help="Minutes before the first look.")] = 1.0,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 10.0,
    output: Annotated[Path | None, typer.Option(help="The results file; else one for machine and day.")] = None,
) -> None:
    """Measure ours and the peers, one after the other; print the table and keep it."""
    span, command = Span(60 * warmup, every, 60 * minutes), f"python -m benchmarks.peers.agents {bundle}"
    command += f" --minutes {minutes:g} --warmup {warmup:g} --every {every:g}"
    machine, missing = describe(), list[str]()
    rows = _ours(bundle, span, command)
    with tempfile.TemporaryDirectory(prefix="strop-peers-") as folder, broker(Path(folder)) as port:
        for name, client in CLIENTS.items():
            typer.echo(client.title, err=True)
            try:
                rows[name] = {"title": client.title, **measure(client, port, span)}
            except (MissingDependencyError, MeasurementError) as error:
                missing.append(f"{client.title}: {error}")
    document = {"schema": "strop.peer-agents/1", "command": command, "machine": asdict(machine), "rows": rows}
    document["missing"] = missing
    path = output or results_path(machine, dt.datetime.now(dt.UTC).date(), FOLDER)
    store.write_json(path, document)
    typer.echo(f"{text(table(document))}\nwritten to {path}")


def _run() -> int:
    try:
        typer.run(main)
    except StropError as error:
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(_run())
