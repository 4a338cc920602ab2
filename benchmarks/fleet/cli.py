# SPDX-License-Identifier: Apache-2.0
"""``strop bench swarm``: the fleet server under thousands of simulated devices."""

import sys
from typing import Annotated

import typer

__all__ = ["swarm"]


def swarm(
    devices: Annotated[int, typer.Option(min=1, help="Devices on a plain loopback listener.")] = 1000,
    secure: Annotated[int, typer.Option(min=0, help="More devices, enrolled, over mTLS.")] = 50,
    moving: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share that goes on and off.")] = 0.2,
    every: Annotated[float, typer.Option(min=1.0, help="Seconds between a device's batches.")] = 60.0,
    warm: Annotated[float, typer.Option(min=0.0, help="Seconds of telemetry before the rollout.")] = 30.0,
    timeout: Annotated[float, typer.Option(min=10.0, help="Seconds that the rollout may take.")] = 900.0,
    restart: Annotated[bool, typer.Option(help="Kill the broker after the rollout.")] = True,
    database: Annotated[str, typer.Option(help="postgresql://…; default: SQLite.")] = "",
    seed: Annotated[int, typer.Option(help="Of the devices' tempers and moments.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Connect a swarm to a server of its own, roll a model out in five waves, kill the broker, balance the books."""
    from benchmarks.fleet.swarm import run

    plan = run.Plan(devices, secure, moving, every, warm, timeout, restart, seed)
    result = run.swarm(plan, database, say=lambda words: print(words, file=sys.stderr, flush=True))
    print(run.to_json(result) if as_json else run.to_text(result))
    raise typer.Exit(0 if result.is_good else 1)
