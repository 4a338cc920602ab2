# SPDX-License-Identifier: Apache-2.0
"""What device and server say in two stories: a good update and one that is rolled back.

``python -m tests.support.recording tests/vectors/recorded/VERSION`` records it when a version is released. The files
stay for ever: a later device or server must read them (tests/edge_contract/test_recorded.py).
"""

import sys
from dataclasses import replace
from pathlib import Path

from edge_agent.core import effects as ef
from edge_agent.core import events as ev
from edge_contract import canonical
from edge_contract.batches import TelemetryAck, TelemetryBatch, TelemetryRow, encode_batch
from edge_contract.jobs import Signed
from edge_contract.messages import Death
from tests.support.device_sim import Behaviour, Device, job


class _Recorder(Device):
    """Keeps the first journal of each phase."""

    journals: dict[str, bytes]

    def _sample(self) -> ev.Sample:
        """Counters that a drift summary takes: as many observations as inferences."""
        sample = super()._sample()
        if sample.counters is None:
            return sample
        epoch, bundle, found = sample.counters
        n = found.n_infer
        seen = {name: (n, *getattr(found, name)[1:]) for name in ("cells", "confidence", "energy")}
        return replace(sample, counters=(epoch, bundle, replace(found, n_sampled=n, **seen)))

    def _on_Persist(self, effect: ef.Persist) -> None:
        super()._on_Persist(effect)
        update = effect.journal["update"]
        name = "finished" if update["finished"] else "idle"
        self.__dict__.setdefault("journals", {})
        self.journals.setdefault(update["execution"]["phase"] if update["execution"] else name, self.disk.journal)


def _story(how: Behaviour) -> _Recorder:
    device = _Recorder(new=how)
    device.run(3)
    device.want(4, source="other", heartbeat_s=5, colour="red")
    device.run(2)
    device.order(job())
    device.run(80)
    return device


def _name(channel: str, payload: bytes) -> str:
    if channel == "state/birth":
        return "birth"
    document = canonical.loads(payload)
    if channel == "twin/reported":
        model = document["models"].get("digits", {})
        return f"reported-{model.get('phase') or ('new' if model.get('version') == '2.0.0' else 'idle')}"
    return f"job-status-{document['phase']}"


def record() -> dict[str, dict[str, bytes]]:
    """Return folder → file name → bytes."""
    good, bad = _story(Behaviour("2.0.0")), _story(Behaviour("2.0.0", agreement=0.2))
    up: dict[str, bytes] = {"death.json": Death("pi", "boot1", 1).to_bytes()}
    for channel, payload in [*good.server.said, *bad.server.said]:
        up.setdefault(f"{_name(channel, payload)}.json", payload)
    for (boot, cls), rows in good.server.rows.items():
        kept = tuple(TelemetryRow(seq, 1000.0 + seq, rows[seq]) for seq in sorted(rows)[:5])
        up[f"batch-{cls}.bin"] = encode_batch(TelemetryBatch("pi", boot, cls, 0, kept))
    nothing = job(kind="none", bundle="", model="", version="")
    down = {
        "desired.json": good.retained["twin/desired"],
        "order.json": good.retained["job/next"],
        "cancel.json": Signed(job(kind="cancel").to_bytes(), "key", "00").to_bytes(),
        "nothing.json": Signed(nothing.to_bytes(), "key", "00").to_bytes(),
        "ack.json": TelemetryAck("boot1", "metric", 3).to_bytes(),
    }
    journals = {f"{name}.json": data for name, data in {**bad.journals, **good.journals}.items()}
    return {"up": up, "down": down, "journal": journals}


if __name__ == "__main__":
    for folder, files in record().items():
        place = Path(sys.argv[1], folder)
        place.mkdir(parents=True)
        for file, data in files.items():
            (place / file).write_bytes(data)
