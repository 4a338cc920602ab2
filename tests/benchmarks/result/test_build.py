# SPDX-License-Identifier: Apache-2.0
"""From a measurement to a result and back: figures against the numbers they come from, and no others."""

import statistics
from dataclasses import replace

import pytest

from benchmarks.record import Reading
from benchmarks.result import build, load, save, to_json
from benchmarks.result.build import as_correctness, status_of
from benchmarks.result.check import check
from benchmarks.result.raw import measurement_of, pack, record_of
from benchmarks.result.schema import Raw, Reason
from edge_contract.canonical import digest
from edge_contract.errors import ContractError, MeasurementError
from tests.benchmarks.result.made import ARTIFACT, QUALITY, launch, measurement, plan

MEASURED = measurement()
RESULT = build(MEASURED, QUALITY, artifact=ARTIFACT)


def test_figures_are_those_of_all_runs():
    times = [t / 1000 for one in MEASURED.launches for t in one.stages_ns["invoke"]]
    found = RESULT.latency_us["invoke"]
    assert (found.n, found.min, found.max) == (800, min(times), max(times))
    assert found.p50 == pytest.approx(statistics.median(times))
    assert found.p50_ci95[0] <= found.p50 <= found.p50_ci95[1]
    assert found.p90 <= found.p90_ub99
    assert set(RESULT.latency_us) == {"preprocess", "invoke", "postprocess", "total"}


def test_everything_else_is_told_as_it_was_seen():
    assert RESULT.status == "valid"
    assert RESULT.cold.load_ms == statistics.median([4.25, 5.25, 6.25, 7.25])
    assert RESULT.memory == {"rss_peak_kb": 41_003, "arena_kb": 60}
    assert RESULT.env.clock_khz == {"min": 2_399_000, "max": 2_400_000}
    assert RESULT.env.temp_c == {"start": 45.0, "max": 49.0}
    assert (RESULT.env.throttled, RESULT.env.governor) == ("0x0", "performance")
    assert (RESULT.counts.launches, RESULT.counts.measured, RESULT.counts.warmup) == (4, 800, 92)
    assert (RESULT.runtime.name, RESULT.runtime.provider, RESULT.golden) == ("litert", ("XNNPACK",), "same")
    assert RESULT.id[14] == "7"
    spans = sum(one.starts_ns[-1] + one.stages_ns["total"][-1] - one.starts_ns[0] for one in MEASURED.launches) / 1e9
    assert RESULT.throughput_ips == pytest.approx(800 / spans)


def test_the_measurement_comes_back_from_its_samples_to_the_nanosecond():
    data, columns = pack(MEASURED)
    again = measurement_of(record_of(MEASURED), Raw("x", digest(data), columns), data, "x")
    assert again.launches == MEASURED.launches
    assert again.preflight.to_json() == MEASURED.preflight.to_json()


def test_times_beyond_four_seconds_are_kept_in_microseconds():
    slow = replace(
        launch(0), stages_ns={"invoke": (5_000_000_400,), "total": (5_000_000_600,)}, starts_ns=(7,), readings=()
    )
    data, columns = pack(replace(MEASURED, launches=(slow,)))
    assert [(column.name, column.unit) for column in columns] == [("invoke", "us"), ("total", "us"), ("start", "ns")]
    again = measurement_of(record_of(replace(MEASURED, launches=(slow,))), Raw("x", digest(data), columns), data, "x")
    assert again.launches[0].stages_ns == {"invoke": (5_000_000_000,), "total": (5_000_001_000,)}


def test_readings_without_a_value_come_back_without_one():
    readings = (Reading(5, None, (), None), Reading(9, 40.5, (600_000, 700_000), 4, 1234.5, 2))
    one = replace(launch(0, runs=2), starts_ns=(6, 7), readings=readings)
    whole = replace(MEASURED, launches=(one,))
    data, columns = pack(whole)
    assert measurement_of(record_of(whole), Raw("x", digest(data), columns), data, "x").launches[0].readings == readings


def test_few_runs_give_no_tail_and_a_quick_profile_none_at_all():
    few = build(measurement(3, runs=10), QUALITY, artifact=ARTIFACT).latency_us["total"]
    assert (few.p90, few.p90_ub99, few.p99, few.p99_ub99) == (None, None, None, None)
    quick = build(measurement(4, profile="quick"), QUALITY, artifact=ARTIFACT).latency_us["total"]
    assert (quick.p90, quick.p99) == (None, None)
    assert "p90" not in to_json(build(measurement(3, runs=10), QUALITY, artifact=ARTIFACT))["latency_us"]["total"]


def test_one_launch_has_no_interval_over_launches():
    found = build(measurement(1), QUALITY, artifact=ARTIFACT)
    assert found.latency_us["invoke"].p50_ci95 is None
    assert found.variance is None


def test_without_a_quality_nothing_is_valid():
    found = build(MEASURED, None, artifact=ARTIFACT)
    assert found.status == "invalid"
    (reason,) = [one for one in found.reasons if one.kind == "quality"]
    assert "nobody knows whether these bytes answer rightly" in reason.words
    assert "--data" in reason.words


def test_a_quality_of_other_bytes_is_refused():
    with pytest.raises(MeasurementError, match="the quality is of 000000000000, the times are of"):
        build(MEASURED, replace(QUALITY, sha256="0" * 64), artifact=ARTIFACT)


def test_a_quality_of_another_runtime_is_flagged():
    found = build(MEASURED, replace(QUALITY, runtime_same_as_perf=False), artifact=ARTIFACT)
    assert (found.status, found.reasons[-1].kind) == ("valid", "quality-runtime")


def test_golden_answers_that_differ_make_it_invalid():
    found = build(measurement(golden="differs"), QUALITY, artifact=ARTIFACT)
    assert (found.status, found.golden) == ("invalid", "differs")
    assert "golden" in {one.kind for one in found.reasons}


def test_no_launch_is_no_result():
    with pytest.raises(MeasurementError, match="no launch came to its end: launch 0 ended with signal 9"):
        build(replace(MEASURED, launches=(), notes=("launch 0 ended with signal 9",)), QUALITY, artifact=ARTIFACT)


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        ([], "valid"),
        (["flag"], "valid"),
        (["flag", "uncontrolled"], "uncontrolled"),
        (["invalid", "uncontrolled"], "invalid"),
    ],
)
def test_the_worst_reason_decides(kinds, status):
    assert status_of([Reason("x", kind, "") for kind in kinds]) == status


def test_an_emulated_board_claims_no_time(tmp_path):
    found = build(MEASURED, QUALITY, artifact=ARTIFACT, emulated=True)
    assert (found.status, found.device.key) == ("correctness", "emulated-aarch64")
    kept = to_json(found)
    assert not {"cold", "variance", "throughput_ips", "energy", "sustained", "raw"} & set(kept)
    assert (kept["latency_us"], kept["memory"], kept["timer_ns"], kept["record"]["launches"]) == ({}, {}, 0.0, [])
    path = save(found, None, tmp_path)
    check(path, load(path))
    with pytest.raises(ContractError, match="nothing was checked"):
        as_correctness(replace(RESULT, golden="none", quality=None))
    assert as_correctness(replace(RESULT, golden="differs")).status == "invalid"


def test_minutes_at_full_load():
    second = 1_000_000_000
    first, then = [i * second // 20 for i in range(20 * 60)], [60 * second + i * second // 10 for i in range(10 * 120)]
    starts = tuple(7 + at for at in first + then)
    readings = tuple(Reading(7 + i * second, 50.0 + i / 10, (), 0 if i < 60 else 4) for i in range(180))
    one = replace(launch(0), stages_ns={"invoke": (1000,) * len(starts), "total": (second // 10,) * len(starts)},
                  starts_ns=starts, readings=readings)  # fmt: skip
    found = build(
        replace(MEASURED, plan=plan(scenario="sustained", launches=1), launches=(one,)), QUALITY, artifact=ARTIFACT
    )
    assert found.sustained.minutes == pytest.approx((20.0, 10.0, 10.0), abs=0.2)
    assert found.sustained.t_first_throttle_s == pytest.approx(60.0)
    assert found.sustained.temp_end_c == pytest.approx(65.0, abs=0.2)


def test_energy_is_told_in_the_words_of_the_sensor():
    reading = {
        "gross_mj": 8.1,
        "net_mj": 3.0,
        "idle_w": 2.5,
        "rate_hz": 200.0,
        "method": "ina226",
        "sensor": "x",
        "faults": [],
    }
    found = build(replace(MEASURED, energy=reading), QUALITY, artifact=ARTIFACT)
    assert (found.energy.method, found.energy.gross_mj, found.energy.more) == ("ina226", 8.1, {"sensor": "x"})
    refused = {**reading, "gross_mj": None, "net_mj": None, "faults": ["it vanished"]}
    found = build(replace(MEASURED, energy=refused), QUALITY, artifact=ARTIFACT)
    assert (found.energy.gross_mj, found.energy.faults) == (None, ("it vanished",))


class TestCheck:
    @pytest.fixture
    def path(self, tmp_path):
        return save(RESULT, MEASURED, tmp_path)

    def test_what_was_built_is_supported(self, path):
        check(path, load(path))

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            ('"measured": 800', '"measured": 900', "counts.measured says 900, they give 800"),
            ('"max": 2400000', '"max": 2500000', "env.clock_khz.max says 2500000, they give 2400000"),
            ('"status": "valid"', '"status": "uncontrolled"', "status says uncontrolled, they give valid"),
            ('"load_ms": 5.75', '"load_ms": 1.75', "cold.load_ms says 1.75, they give 5.75"),
        ],
    )
    def test_a_figure_that_was_changed_by_hand_is_refused(self, path, old, new, words):
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new), "utf-8")
        with pytest.raises(MeasurementError, match=words):
            check(path, load(path))

    def test_a_tail_that_the_runs_do_not_bound_is_refused(self, tmp_path):
        few = measurement(3, runs=10)
        made = build(few, QUALITY, artifact=ARTIFACT)
        total = replace(made.latency_us["total"], p99=230.0, p99_ub99=240.0)
        path = save(replace(made, latency_us={**made.latency_us, "total": total}), few, tmp_path)
        with pytest.raises(MeasurementError, match=r"latency_us.total.p99 says 230.0, they give nothing"):
            check(path, load(path))

    def test_samples_that_were_changed_lost_or_cut_are_refused(self, path):
        raw = path.parent / load(path).raw.file
        data = raw.read_bytes()
        raw.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        with pytest.raises(ContractError, match="the result says"):
            check(path, load(path))
        raw.unlink()
        with pytest.raises(MeasurementError, match="no figure can be computed again"):
            check(path, load(path))

    def test_columns_that_do_not_fill_the_file_are_refused(self):
        data, columns = pack(MEASURED)
        with pytest.raises(ContractError, match="bytes, the columns need"):
            measurement_of(record_of(MEASURED), Raw("x", digest(data), columns[:-1]), data, "x")
        lost = (replace(columns[0], launch=9), *columns[1:])
        with pytest.raises(ContractError, match="of launch 9, which is not there"):
            measurement_of(record_of(MEASURED), Raw("x", digest(data), lost), data, "x")
