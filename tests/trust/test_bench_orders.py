# SPDX-License-Identifier: Apache-2.0
"""Orders of benchmarks: signed by the one job key, bound to device and end, carried out once, and no other document."""

import json
import time
from dataclasses import replace

import pytest

from edge_agent.bench.errand import check
from edge_contract.bench_job import BenchFile, BenchJob, BenchOutcome, file_for
from edge_contract.capture import CaptureOrder
from edge_contract.errors import EnrolmentError, MessageError, SignatureError
from fleet.adapters.job_signing import JobSigner

SHA = "ab" * 32


def order(**changes):
    fields = {
        "id": "b1-0", "run": "b1", "device": "pi-01", "model": "digits", "bundle": SHA, "files": (),
        "plan": {"runs": 50, "seconds": 2.5}, "issued_at": time.time(), "expires_at": time.time() + 600,
        "max_seconds": 60.0, "max_bytes": 1_000_000,
    }  # fmt: skip
    return BenchJob(**{**fields, **changes})


PLAIN = {"model": "", "bundle": "", "files": (BenchFile("m.tflite", SHA, 10), BenchFile("m.onnx", SHA, 11))}


def checked(fleet, data, job, *, device="pi-01", now=None):
    return check(fleet.jobs.sign_bytes(job.to_bytes()).to_bytes(), data, device, now or time.time())


@pytest.mark.parametrize("more", [{}, PLAIN, {"unrecognized": {"colour": "red"}}])
def test_bytes_make_the_same_order_again(more):
    job = order(**more)
    again = BenchJob.from_bytes(job.to_bytes())
    assert again.to_bytes() == job.to_bytes()
    assert again.unrecognized == job.unrecognized


def test_the_helper_process_returns_the_very_order_that_was_signed(shared_fleet, shared_device, helper):
    job = order()
    envelope = shared_fleet.jobs.sign_bytes(job.to_bytes()).to_bytes()
    assert helper(shared_device).check_bench(envelope, "pi-01").to_bytes() == job.to_bytes()


def test_an_order_for_another_device_is_refused(shared_fleet, shared_device):
    with pytest.raises(SignatureError, match="benchmark b1-0: is for device 'pi-02', this is 'pi-01'"):
        checked(shared_fleet, shared_device, order(device="pi-02"))


@pytest.mark.parametrize("now", [None, 0.0])
def test_an_expired_order_is_refused_whatever_the_clock_says(shared_fleet, shared_device, now):
    with pytest.raises(SignatureError, match="benchmark b1-0: has expired"):
        checked(shared_fleet, shared_device, order(expires_at=time.time() - 1), now=now or 0.001)


@pytest.mark.parametrize(
    "changes", [{"device": "pi-01", "max_bytes": 1}, {"plan": {}}, {"expires_at": 4e9}, {"bundle": "cd" * 32}, {"x": 1}]
)
def test_a_changed_order_is_refused(shared_fleet, shared_device, changes):
    signed = shared_fleet.jobs.sign_bytes(order().to_bytes())
    payload = json.dumps({**json.loads(signed.payload), **changes}, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(SignatureError, match="does not fit the document"):
        check(replace(signed, payload=payload).to_bytes(), shared_device, "pi-01", time.time())


def test_an_order_of_a_foreign_key_is_refused(shared_fleet, shared_device, tmp_path):
    signed = JobSigner.create(tmp_path).sign_bytes(order().to_bytes())
    with pytest.raises(SignatureError, match="unknown key"):
        check(signed.to_bytes(), shared_device, "pi-01", time.time())
    with pytest.raises(EnrolmentError, match="no job key"):
        check(signed.to_bytes(), tmp_path, "pi-01", time.time())


def test_another_document_of_the_same_key_is_no_order(shared_fleet, shared_device):
    job = shared_fleet.job("pi-01")
    with pytest.raises(MessageError, match="unknown value 'install'"):
        check(shared_fleet.jobs.sign(job).to_bytes(), shared_device, "pi-01", time.time())
    with pytest.raises(MessageError):
        CaptureOrder.from_bytes(order().to_bytes())


BAD = {
    "neither a bundle nor files": ({"bundle": "", "model": ""}, "names neither a bundle nor files"),
    "both": ({"files": PLAIN["files"]}, "names neither a bundle nor files, or both"),
    "a path as id": ({"id": "../x"}, "is not a name"),
    "a path as run": ({"run": "a/b"}, "is not a name"),
    "one name twice": ({**PLAIN, "files": (PLAIN["files"][0],) * 2}, "two files have one name"),
    "no time": ({"max_seconds": 0.0}, "max_seconds = 0"),
    "a path as file": ({**PLAIN, "files": (BenchFile("../m.tflite", SHA, 1),)}, "is not a name"),
    "an empty file": ({**PLAIN, "files": (BenchFile("m.tflite", SHA, 0),)}, "is below 1"),
    "no bytes": ({"max_bytes": 0}, "is below 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_an_order_that_makes_no_sense_is_refused(case):
    changes, words = BAD[case]
    with pytest.raises(MessageError, match=words):
        BenchJob.from_bytes(order(**changes).to_bytes())


def test_a_runtime_gets_its_own_file():
    files = order(**PLAIN).files
    assert [getattr(file_for(files, name), "name", None) for name in ("edgetpu", "onnxruntime", "tvm")] == [
        "m.tflite", "m.onnx", None,
    ]  # fmt: skip


def test_an_outcome_comes_back_as_it_was_and_names_no_paths():
    outcome = BenchOutcome("b1-0", True, "", {"result.json": SHA}, {"seconds": 1.5})
    assert BenchOutcome.from_bytes(outcome.to_bytes()).to_bytes() == outcome.to_bytes()
    for files in ({"../x": SHA}, {"a": "no digest"}, {f"f{n}": SHA for n in range(17)}):
        with pytest.raises(MessageError):
            BenchOutcome.from_bytes(BenchOutcome("b1-0", True, "", files).to_bytes())
