# SPDX-License-Identifier: Apache-2.0
"""The peers' statistics against other people's formulas, the timer against a clock that we turn, one row end to end."""

import datetime as dt
import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
import torch
from torch.nn import functional as F

from benchmarks.machine import Machine
from benchmarks.peers import (
    child,
    codes,
    environments,
    leftover,
    material,
    measure,
    run,
    sessions,
    show,
    speed,
    store,
    tables,
)
from benchmarks.peers.rows import NETS, PAIRS, ROWS, chosen
from benchmarks.peers.samples import Samples
from benchmarks.peers.statistics import divergence, exact_codes, paired_drop, wilson
from compress.quantize.step import folded, quantize
from edge_contract.errors import DataError, MeasurementError, MissingDependencyError, RuntimeAdapterError, UsageError
from export.onnx import float_writer as float_onnx_writer
from export.onnx import writer as onnx_writer
from export.tflite import float_writer as float_tflite_writer
from export.tflite import writer as tflite_writer
from tests.support.quant_nets import images, mobile, settled

MACHINE = Machine("Some CPU", 2, "Linux", "3.11.7", "", 0.5)


# Statistics


def test_drop_is_that_of_matched_pairs():
    """McNemar's table: with b answers lost and c won, the variance of the difference is (b + c - (b - c)²/n) / n²."""
    generator = np.random.default_rng(3)
    before = generator.random(5000) < 0.9
    after = np.where(generator.random(5000) < 0.02, ~before, before)
    lost, won, n = int((before & ~after).sum()), int((~before & after).sum()), 5000
    half = 1.959964 * np.sqrt((lost + won - (lost - won) ** 2 / n) / (n * (n - 1)))
    drop = paired_drop(before, after)
    assert drop.value == pytest.approx(100 * (lost - won) / n)
    assert drop.high - drop.value == pytest.approx(100 * half, rel=1e-5)
    assert drop.value - drop.low == pytest.approx(100 * half, rel=1e-5)


def test_drop_interval_holds_the_truth_19_times_of_20():
    generator, hits = np.random.default_rng(5), 0
    for _ in range(1000):
        before = generator.random(1000) < 0.9
        after = before & (generator.random(1000) >= 0.02)  # loses 1.8 points on average
        drop = paired_drop(before, after)
        hits += drop.low <= 1.8 <= drop.high
    assert 915 <= hits <= 975  # 1000 draws at 95 %: a little less than 950, as normal intervals of rare events are


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (18, 20), (235, 240), (9949, 10000), (7, 7)])
def test_shares_have_wilsons_interval(hits, n):
    other = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
    share = wilson(hits, n)
    assert (share.low, share.high) == pytest.approx((100 * other.low, 100 * other.high), abs=1e-9)


def test_divergence_is_that_of_pytorch():
    generator = np.random.default_rng(7)
    a, b = generator.normal(0, 5, (50, 10)), generator.normal(0, 5, (50, 10))
    logs = [F.log_softmax(torch.from_numpy(values), 1) for values in (a, b)]
    other = F.kl_div(logs[1], logs[0], log_target=True, reduction="batchmean")
    assert divergence(a, b) == pytest.approx(float(other))
    assert divergence(a, a) == 0.0
    assert np.isfinite(divergence(a * 500, b * 500))  # a probability that underflows is not a NaN


def test_codes_are_compared_one_by_one():
    a = np.array([[0, 5, 1], [9, 2, 3]], np.int16)
    b = np.array([[0, 4, 1], [9, 2, 12]], np.int16)
    found = exact_codes(a, b)
    assert (found["differing"], found["largest_steps"], found["same_class_percent"]) == (2, 9, 50.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: paired_drop(np.array([True]), np.array([True])),
        lambda: wilson(3, 2),
        lambda: wilson(0, 0),
        lambda: divergence(np.zeros((2, 3)), np.zeros((2, 4))),
        lambda: exact_codes(np.zeros((0, 3), np.int16), np.zeros((0, 3), np.int16)),
    ],
)
def test_statistics_of_nothing_are_refused(call):
    with pytest.raises(DataError):
        call()


# Speed


class Bench:
    """Two jobs whose duration we choose by the time of day, and the clock that they move."""

    def __init__(self, a_ns, b_ns):
        self.now, self.order, self.durations = 0, "", {"a": a_ns, "b": b_ns}

    def job(self, name):
        def call():
            self.order += name
            self.now += self.durations[name](self.now)

        return call

    def turns(self, calls, **options):
        return speed.turns(lambda: self.job("a"), lambda: self.job("b"), calls, clock=lambda: self.now, **options)


def test_each_goes_first_in_every_other_turn():
    bench = Bench(lambda now: 2000, lambda now: 1000)
    found = bench.turns(12, warmup=1, parts=2)
    assert bench.order == 2 * ("ab" + "abbaabbaabba")
    assert (found.ratio, found.a_us, found.b_us, found.parts, found.calls) == (2.0, 2.0, 1.0, (2.0, 2.0), 12)


def test_both_are_opened_anew_for_each_part_and_a_slow_session_shows_in_its_part():
    bench, opened = Bench(lambda now: 2000, lambda now: 1000), []

    def open_a():
        opened.append(bench.now)
        return bench.job("a" if len(opened) != 2 else "b")  # the second session happens to be twice as fast

    found = speed.turns(open_a, lambda: bench.job("b"), 18, parts=3, warmup=0, clock=lambda: bench.now)
    assert opened == [0, 18_000, 30_000]
    assert found.parts == (2.0, 1.0, 2.0)
    assert found.ratio == 2.0


def test_a_machine_that_slows_down_moves_no_ratio():
    slower = Bench(lambda now: 2000 + now // 10, lambda now: 1000 + now // 20)
    assert slower.turns(30, warmup=0, parts=1).ratio == pytest.approx(2.0, rel=0.1)


def test_a_spike_in_one_call_moves_no_median():
    bench = Bench(lambda now: 10**9 if now == 0 else 2000, lambda now: 1000)
    assert bench.turns(30, warmup=0).ratio == 2.0


def test_a_run_too_short_for_its_parts_is_refused():
    with pytest.raises(MeasurementError, match="at least six"):
        speed.turns(lambda: int, lambda: int, 29, parts=5)


# Cost of a child


def test_a_childs_memory_and_time_are_its_own():
    """The parent is far fatter than the child, which must not show (it does in getrusage)."""
    ballast = np.ones(400 * 10**6 // 8)
    code = "import time; x = bytearray(60 * 10**6)\nwhile time.process_time() < 0.4: pass"
    cost = child.run([sys.executable, "-c", code])
    assert ballast.nbytes > 3e8
    assert 60 < cost.peak_mib < 120
    assert 0.4 < cost.cpu_s < 2.0
    assert cost.wall_s >= 0.4


def test_a_child_over_the_limit_is_stopped_and_said_to_be():
    code = "import time\nx = []\nwhile True: x.append(bytearray(10**7)); time.sleep(0.01)"
    with pytest.raises(MeasurementError, match="over the limit of 200 MiB"):
        child.run([sys.executable, "-c", code], limit_mib=200)


def test_a_failing_childs_last_words_are_told():
    with pytest.raises(MeasurementError, match="ValueError: no such layer"):
        child.run([sys.executable, "-c", "print('x' * 10**6); raise ValueError('no such layer')"])
    with pytest.raises(MeasurementError, match="exit code 3, saying nothing"):
        child.run([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(MeasurementError, match="cannot be started"):
        child.run(["/no/such/program"])


# Results that survive


def test_a_result_is_made_once_and_an_interrupted_one_again(tmp_path):
    calls = []

    def make(folder):
        calls.append(folder)
        (folder / "model").write_text("half")
        if len(calls) == 1:
            raise KeyboardInterrupt
        return {"kl": 0.5}

    with pytest.raises(KeyboardInterrupt):
        store.once("rows", "key", make, root=tmp_path)
    assert store.once("rows", "key", make, root=tmp_path) == {"kl": 0.5}
    assert store.once("rows", "key", make, root=tmp_path) == {"kl": 0.5}
    assert len(calls) == 2
    store.once("rows", "other", make, root=tmp_path)
    assert len(calls) == 3


def test_a_row_is_made_again_when_what_it_depends_on_changes(tiny):
    row = ROWS["ort-u8-minmax"]
    keys = {measure.key_of(tiny, found) for found in ROWS.values()}
    assert len(keys) == len(ROWS)
    assert measure.key_of(tiny, row) == measure.key_of(tiny, row)
    other = material.Material(tiny.net, tiny.folder, tiny.samples, tiny.reference, "another digest", {})
    assert measure.key_of(other, row) not in keys


def test_our_rows_depend_on_every_module_that_makes_our_files():
    """Asked of a fresh interpreter: what the converter imports of the quantizer and the writers is in the digest."""
    code = "import sys, compress.quantize.step, export.onnx.writer, export.tflite.writer\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=environments.ROOT, capture_output=True, text=True, check=True
    )
    used = {name.replace(".", "/") for name in done.stdout.split() if name.startswith(("compress.", "export."))}
    ours = tuple(f"{path.removesuffix('.py')}/" for path in measure.OURS)
    assert {name for name in used if not f"{name}/".startswith(ours)} == set()
    assert len(used) > 10


def test_a_digest_of_no_code_is_refused(tmp_path):
    (tmp_path / "a.py").write_text("1")
    assert store.code_digest(tmp_path) == store.code_digest(tmp_path) != store.code_digest(tmp_path, tmp_path / "a.py")
    for missing in (tmp_path / "b.py", tmp_path / "folder"):
        with pytest.raises(DataError, match="no source code"):
            store.code_digest(tmp_path, missing)


def test_results_of_two_runs_stand_side_by_side(tmp_path):
    path = run.results_path(MACHINE, dt.date(2026, 11, 21), tmp_path)
    run.merge(path, "mobilenet-v2", {"rows": {"ours": {"kl": 1}}, "float_bytes": {"onnx": 5}}, MACHINE, "first")
    run.merge(path, "mobilenet-v2", {"speed": {"ours onnx": {"ratio": 2}}}, MACHINE, "second")
    found = run.merge(path, "mobilenet-v2", {"rows": {"pt2e": {"kl": 3}}}, MACHINE, "first")
    assert path.name == "some-cpu-2026-11-21.json"
    assert found == json.loads(path.read_text())
    assert set(found["nets"]["mobilenet-v2"]["rows"]) == {"ours", "pt2e"}
    assert found["nets"]["mobilenet-v2"]["speed"] == {"ours onnx": {"ratio": 2}}
    assert found["commands"] == ["second", "first"]
    path.write_text('{"schema": "other"}')
    with pytest.raises(UsageError, match="not a results file"):
        run.merge(path, "mobilenet-v2", {}, MACHINE, "x")
    path.write_text("{")
    with pytest.raises(DataError, match="no JSON object"):
        run.merge(path, "mobilenet-v2", {}, MACHINE, "x")


# Rows and environments


def test_rows_are_chosen_by_name_by_group_and_all():
    assert [row.name for row in chosen(["ort-s8-minmax", "ours"])] == [
        *("ours", "ours-minmax", "ours-percentile", "ours-squared", "ours-adaptive", "ort-s8-minmax")
    ]
    assert chosen(["all"]) == list(ROWS.values())
    with pytest.raises(UsageError, match="unknown row 'tensorrt'"):
        chosen(["ours", "tensorrt"])


def test_every_row_has_a_converter_and_every_pair_its_rows():
    folder = environments.ROOT / "benchmarks/peers/converters"
    assert {row.converter for row in ROWS.values()} <= {path.stem for path in folder.glob("*.py")}
    assert {name for pair in PAIRS for name, _ in pair} <= set(ROWS)
    assert set(NETS) == set(material.SAMPLES)


def test_every_pin_is_exact_and_decides_the_environment():
    for name in ("google", "nncf"):
        lines = (environments.ROOT / f"benchmarks/peers/pins-{name}.txt").read_text().splitlines()
        assert all("==" in line or line.startswith("#") for line in lines)
    assert environments.digest("google") != environments.digest("nncf")
    with pytest.raises(UsageError, match="unknown environment"):
        environments.digest("conda")


def test_a_missing_environment_is_an_error_of_its_rows_alone(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    with pytest.raises(MissingDependencyError, match=r"benchmarks\.peers\.environments nncf"):
        environments.python("nncf")
    found = measure.measure(tiny, ROWS["nncf-default"], root=tmp_path)
    assert "is not built" in found["error"]
    assert not list(tmp_path.iterdir())


# Files


@pytest.fixture(scope="module")
def net():
    return settled(mobile)


@pytest.fixture(scope="module")
def tiny(net, tmp_path_factory):
    """Material of a small settled network: 64 samples for calibration, 60 to judge, every second with a label."""
    folder = tmp_path_factory.mktemp("material")
    float_onnx_writer.write(folded(net, images(1, 0)), folder / "float.onnx", embedding=False)
    inputs = images(60, 1).numpy()
    np.save(folder / "calibration.npy", images(64, 2).numpy())
    reference = sessions.answers(folder / "float.onnx", inputs)
    labels = np.where(np.arange(60) % 2, reference.logits.argmax(1), -1)
    samples = Samples(np.load(folder / "calibration.npy"), inputs, labels, np.arange(60) < 50)
    return material.Material("mobilenet-v2", folder, samples, reference, "tiny", {})


def test_a_float_file_gives_pytorchs_logits_and_has_no_codes(net, tiny):
    with torch.no_grad():
        expected = net(torch.from_numpy(tiny.samples.inputs)).numpy()
    assert np.abs(tiny.reference.logits - expected).max() < 1e-4
    assert tiny.reference.codes is None
    assert sum(leftover.float_operators(tiny.folder / "float.onnx").values()) > 10


def test_both_of_our_files_are_read_with_their_codes(net, tiny, tmp_path):
    plan = quantize(net, torch.from_numpy(tiny.samples.calibration), embedding=False)
    onnx_writer.write(plan, tmp_path / "u8.onnx")
    onnx_writer.write(plan, tmp_path / "s8.onnx", activation="int8", is_qdq=True)
    tflite_writer.write(plan, tmp_path / "model.tflite")
    found = [sessions.answers(tmp_path / name, tiny.samples.inputs) for name in ("u8.onnx", "s8.onnx", "model.tflite")]
    assert exact_codes(found[0].codes, found[2].codes)["differing"] == 0
    assert np.array_equal(found[0].logits, found[2].logits)
    assert exact_codes(found[0].codes, found[1].codes)["same_class_percent"] > 90
    assert leftover.float_operators(tmp_path / "u8.onnx") == {"casts": 0}
    assert leftover.float_operators(tmp_path / "model.tflite") == {"casts": 0}
    assert leftover.float_operators(tmp_path / "s8.onnx").keys() & {"Add", "Conv"}  # int8 pairs are not fused on x86
    turns = speed.files(tiny.folder / "float.onnx", tmp_path / "u8.onnx", tiny.samples.inputs, 30)
    assert turns["ratio"] > 0
    with pytest.raises(MeasurementError, match="different runtimes"):
        speed.files(tmp_path / "u8.onnx", tmp_path / "model.tflite", tiny.samples.inputs, 30)


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_a_file_that_no_runtime_takes_is_one_error(tmp_path, name):
    (tmp_path / name).write_bytes(b"not a model")
    with pytest.raises(RuntimeAdapterError, match=name):
        sessions.load(tmp_path / name)


def test_one_row_end_to_end(tiny, tmp_path):
    """ONNX Runtime's quantizer in its own process, judged, kept, shown; a second call reads what was kept."""
    row = ROWS["ort-u8-minmax"]
    found = measure.measure(tiny, row, root=tmp_path)
    assert "error" not in found
    assert found["versions"]["onnxruntime"] == "1.31.1"
    assert found["cost"]["cpu_s"] > found["cost"]["convert_cpu_s"] > 0
    assert 100 < found["cost"]["peak_mib"] < 1000
    file = found["files"]["onnx"]
    assert (file["labelled"], file["judged"], file["right_float"], file["input"]) == (30, 50, 30, "float32")
    assert 0 < file["kl"] < 0.5
    assert file["stripped_bytes"] <= file["bytes"]
    assert codes.compare(tiny, {row.name: found}) == []
    result = next(tmp_path.glob("rows/*/result.json"))
    stamp = result.stat().st_mtime_ns
    assert measure.measure(tiny, row, root=tmp_path) == found
    assert result.stat().st_mtime_ns == stamp


@pytest.mark.peers
@pytest.mark.parametrize(("name", "kind"), [("aeq-minmax", "tflite"), ("nncf-default", "onnx")])
def test_a_row_of_another_environment(net, tiny, tmp_path, name, kind):
    """Needs ``python -m benchmarks.peers.environments``."""
    float_tflite_writer.write(folded(net, images(1, 0)), tiny.folder / "float.tflite", embedding=False)
    found = measure.measure(tiny, ROWS[name], root=tmp_path)
    assert "error" not in found
    assert found["files"][kind]["kl"] < 0.5
    assert set(found["versions"]) > {"ai-edge-quantizer" if name == "aeq-minmax" else "nncf"}


def test_a_tool_that_fails_is_a_row_with_its_reason(tiny, tmp_path):
    row = ROWS["ort-u8-minmax"]
    broken = type(row)(row.name, row.title, row.converter, row.environment, row.start, {"activation": "uint8"})
    found = measure.measure(tiny, broken, root=tmp_path)
    assert "KeyError: 'method'" in found["error"]
    table = tables.accuracy_table("mobilenet-v2", {"rows": {row.name: found}})
    assert table.rows[0][1] == "failed"
    assert "KeyError" in table.notes[0]


# Tables


DOCUMENT = {
    "machine": {
        "processor": "Some CPU",
        "cores": 2,
        "system": "Linux",
        "python": "3",
        "governor": "",
        "load_1min": 0.1,
    },
    "commands": ["python -m benchmarks.peers.run --net mobilenet-v2"],
    "nets": {
        "mobilenet-v2": {
            "float_bytes": {"onnx": 390_000},
            "rows": {
                "pt2e": {"error": "no"},
                "ours": {
                    "cost": {"cpu_s": 3.04, "convert_cpu_s": 1, "wall_s": 2, "peak_mib": 300.4},
                    "files": {
                        "onnx": {
                            "bytes": 112_345,
                            "labelled": 10000,
                            "right": 9281,
                            "right_float": 9290,
                            "drop": {"value": 0.09, "low": -0.1, "high": 0.28},
                            "judged": 10000,
                            "agreement": {"value": 99.49, "low": 99.33, "high": 99.61},
                            "kl": 0.00063,
                            "float_operators": {"Gemm": 1, "casts": 3},
                        }
                    },
                },
            },
            "speed": {
                "ours onnx": {"ratio": 1.25, "parts": [1.24, 1.26, 1.25]},
                "A/A onnx": {"ratio": 1.004, "parts": [1.0, 1.01, 1.0], "a_us": 99, "calls": 2000, "load_1min": 0.2},
            },
            "pairs": {"x": {"a": "ours onnx", "b": "ours tflite", **exact_codes(np.ones((2, 3)), np.ones((2, 3)))}},
            "flatness": {
                "ours": [
                    {"samples": 64, "samples_mib": 1.2, "cpu_s": 1.0, "peak_mib": 300},
                    {"samples": 256, "samples_mib": 5, "error": "fat"},
                ]
            },
        }
    },
}


def test_tables_hold_the_numbers():
    table = tables.accuracy_table("mobilenet-v2", DOCUMENT["nets"]["mobilenet-v2"])
    assert table.rows[0] == (
        *("Strop, default", "onnx", "92.81", "0.09 [-0.10, 0.28]", "99.49 [99.33, 99.61]", ".00063", "110"),
        *("1.25 (1.24–1.26)", "1 (1 Gemm)", "3.0", "300"),
    )
    assert table.rows[1][1] == "failed"
    assert tables.markdown(table).endswith("|\n\n- torchao pt2e + LiteRT quantizer: no")
    assert "92.81" in tables.text(table)
    assert tables.pairs_table("", DOCUMENT["nets"]["mobilenet-v2"]).rows[0][2] == "0"
    assert tables.noise_table(DOCUMENT["nets"]).rows[0][2] == "1.004"
    flat = tables.flatness_table(DOCUMENT["nets"])
    assert [row[1:] for row in flat.rows] == [("64", "1", "1.0", "300"), ("256", "5", "–", "–")]
    assert flat.notes == ("mobilenet-v2, Strop, default, 256 samples: fat",)


def test_a_pages_blocks_are_written_anew_and_nothing_else():
    page = (
        "# Peers\n<!-- peers: mobilenet-v2 -->\nold\n<!-- /peers -->\nwords\n<!-- peers: noise -->\n<!-- /peers -->\n"
    )
    once = show.filled(page, DOCUMENT)
    assert "old" not in once
    assert "| Strop, default | onnx | 92.81 |" in once
    assert once.startswith("# Peers\n<!-- peers: mobilenet-v2 -->\n| row |")
    assert "<!-- /peers -->\nwords\n<!-- peers: noise -->\n| network" in once
    assert show.filled(once, DOCUMENT) == once
    with pytest.raises(UsageError, match="nothing about 'lite0'"):
        show.filled("<!-- peers: lite0 -->\n<!-- /peers -->", DOCUMENT)


def test_the_newest_results_are_those_of_the_last_day(tmp_path):
    for name in ("z-cpu-2026-11-20.json", "a-cpu-2026-11-21.json"):
        (tmp_path / name).write_text("{}")
    assert show.newest(tmp_path).name == "a-cpu-2026-11-21.json"
    with pytest.raises(UsageError, match="no results file"):
        show.newest(tmp_path / "empty")
