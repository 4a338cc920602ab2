# SPDX-License-Identifier: Apache-2.0
"""Two releases share one data folder: what 0.1.0 wrote is taken over, and 0.1.0 finds its words where it looks."""

from pathlib import Path

import pytest

from edge_agent.core.execution import SCHEMA
from edge_agent.software.check import check
from edge_contract import canonical
from edge_contract.errors import StropError
from edge_contract.messages import SOFTWARE, ReportedState
from tests.edge_agent.software.conftest import bare
from tests.edge_agent.software.sim import SECOND, Release, SelfUpdating
from tests.support.device_sim import NEW, OLD

RECORDED = Path(__file__).resolve().parents[2] / "vectors" / "recorded" / "0.1.0"
JOURNALS = sorted((RECORDED / "journal").glob("*.json"))


@pytest.mark.parametrize("path", JOURNALS, ids=lambda path: path.stem)
def test_a_journal_of_0_1_0_is_taken_over_by_an_agent_that_can_update_itself(path: Path, tmp_path: Path) -> None:
    before = canonical.loads(path.read_bytes())
    device = SelfUpdating()
    device.disk.journal = path.read_bytes()
    device.disk.complete |= {OLD, NEW}
    device.boot()
    update = device.state.first.update.to_json()
    assert update["last_job"] == before["update"]["last_job"]
    assert bool(update["finished"] or update["execution"]) == bool(
        before["update"]["finished"] or before["update"]["execution"]
    )
    assert device.state.twin.version == before["twin"]["version"]
    (bare(tmp_path) / "journal.json").write_bytes(path.read_bytes())
    assert check(tmp_path)["journal"] == SCHEMA  # the self-test of a release says the same


def test_what_0_1_0_reads_of_a_journal_stands_where_it_stood() -> None:
    """Beside its words there is one more, which it does not look at."""
    device = SelfUpdating(releases={SECOND: Release(connects=False)})
    device.run(2)
    device.order_software(SECOND)
    device.run(8)
    ours = device.journal
    theirs = canonical.loads((RECORDED / "journal" / "idle.json").read_bytes())
    assert set(theirs) <= set(ours)
    assert set(ours) - set(theirs) <= {"software", "lanes", "commands"}  # the last two came with later versions
    assert set(theirs["update"]) <= set(ours["update"])
    assert ours["software"]["update"]["execution"]["job"]["model"] == SOFTWARE


def test_a_server_of_0_1_0_reads_our_report() -> None:
    """It knows models by their names: one more is one more; and it orders nothing for it."""
    device = SelfUpdating()
    device.run(3)
    payload = next(p for channel, p in reversed(device.server.said) if channel == "twin/reported")
    found = ReportedState.from_bytes(payload)
    assert set(found.models) == {"digits", SOFTWARE}
    theirs = canonical.loads(next(iter(sorted((RECORDED / "up").glob("reported-*.json")))).read_bytes())
    assert set(theirs) - {"features"} <= set(canonical.loads(payload))


SPOILT = {
    "no such key": (b'device = "pi"\ncolour = "red"\n', b"", "colour"),
    "a journal of tomorrow": (b"", b'{"schema":9}', "journal_unreadable"),
    "an order that is lost": (
        b"",
        b'{"model":"","software":{"update":3},"twin":{"config":{},"version":0}}',
        "journal_unreadable",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_release_that_cannot_read_this_device_says_so(tmp_path: Path, what: str) -> None:
    config, journal, words = SPOILT[what]
    data = bare(tmp_path)
    if config:
        (data / "agent.toml").write_bytes(config)
    if journal:
        (data / "journal.json").write_bytes(journal)
    with pytest.raises(StropError, match=words):
        check(data)
