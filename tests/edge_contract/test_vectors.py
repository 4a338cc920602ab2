# SPDX-License-Identifier: Apache-2.0
"""Run the files of tests/vectors, which another implementation of the contract could run as well."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_contract import batches, canonical, jobs, messages, targets, topics
from edge_contract.errors import StropError
from edge_contract.manifest import Manifest

VECTORS = Path(__file__).parents[1] / "vectors"

READERS: dict[str, Callable[[bytes], Any]] = {
    "manifest": Manifest.from_bytes,
    "birth": messages.Birth.from_bytes,
    "death": messages.Death.from_bytes,
    "desired": messages.DesiredState.from_bytes,
    "reported": messages.ReportedState.from_bytes,
    "job": jobs.JobDocument.from_bytes,
    "envelope": jobs.Signed.from_bytes,
    "job-status": jobs.JobStatus.from_bytes,
    "ack": batches.TelemetryAck.from_bytes,
    "batch": batches.decode_batch,
    "topic": lambda data: topics.parse(data.decode()),
    "target": lambda data: targets.parse(data.decode(), where="board.toml"),
}


def files(folder: str) -> list[Any]:
    found = sorted((VECTORS / folder).glob("*/*"))
    kept = [path for path in found if path.suffix != ".error" and path.parent.name in READERS]
    return [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in kept]


@pytest.mark.parametrize("path", [p for p in files("valid") if p.values[0].suffix == ".json"])
def test_bytes_to_value_to_bytes_is_identity(path):
    data = path.read_bytes()
    assert READERS[path.parent.name](data).to_bytes() == data


@pytest.mark.parametrize("path", [p for p in files("valid") if p.values[0].suffix == ".bin"])
def test_a_batch_survives_its_wire_form(path):
    batch = batches.decode_batch(path.read_bytes())
    assert batches.decode_batch(batches.encode_batch(batch)) == batch
    assert batches.decode_batch(batches.encode_batch(batch)).to_json() == batch.to_json()


def test_a_plain_batch_keeps_its_bytes():
    data = (VECTORS / "valid/batch/unknown-field.bin").read_bytes()
    assert canonical.dumps(batches.decode_batch(data).to_json()) == data[1:]


@pytest.mark.parametrize("path", files("invalid"))
def test_bad_input_is_refused_in_these_words(path):
    with pytest.raises(StropError) as caught:
        READERS[path.parent.name](path.read_bytes())
    found = f"{type(caught.value).__name__}: {caught.value}\n"
    expected = path.with_name(path.name + ".error")
    if not expected.exists():
        expected.write_text(found, encoding="utf-8")
        pytest.fail(f"wrote {expected.name}: read it, then commit it: {found}")
    assert found == expected.read_text(encoding="utf-8")
    assert "\n" not in str(caught.value)


def test_every_expectation_has_its_input():
    expectations = list((VECTORS / "invalid").glob("*/*.error"))
    assert expectations
    assert [p.name for p in expectations if not p.with_name(p.name.removesuffix(".error")).exists()] == []


@pytest.mark.parametrize("case", json.loads((VECTORS / "valid/topics.json").read_text()), ids=lambda c: c["channel"])
def test_topic_is_built_and_parsed(case):
    assert topics.topic(case["tenant"], case["device"], case["channel"]) == case["topic"]
    assert topics.parse(case["topic"]) == topics.Topic(case["tenant"], case["device"], case["channel"])


@pytest.mark.parametrize(
    "case", json.loads((VECTORS / "valid/canonical.json").read_text("utf-8")), ids=lambda case: case["name"]
)
def test_canonical_bytes_and_digest(case):
    found = canonical.dumps(canonical.loads(case["input"]))
    assert found.decode() == case["canonical"]
    assert canonical.digest(found) == case["sha256"]


@pytest.mark.parametrize("kind", sorted(READERS))
def test_every_kind_has_invalid_vectors(kind):
    assert list((VECTORS / "invalid" / kind).glob("*")), f"no invalid vector for {kind}"
