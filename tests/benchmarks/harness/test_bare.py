# SPDX-License-Identifier: Apache-2.0
"""The bare runtimes give what the agent's path gives, and say of themselves what is true."""

import shutil

import numpy as np
import pytest

from benchmarks.harness import inputs
from benchmarks.harness.bare_onnx import shares
from benchmarks.harness.opening import open_bare
from benchmarks.plan import plan_for
from edge_agent.runner.model import Model
from edge_contract.errors import DataError, MissingDependencyError, RuntimeAdapterError, UsageError

RUNTIMES = ("litert", "onnxruntime")


def answers(bare, feed):
    bare.place(feed)
    bare.invoke()
    return bare.fetch()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_answers_as_the_agent_does(bundle, short, runtime):
    plan = short(runtime=runtime)
    about, bare = inputs.described(plan), open_bare(plan)
    model = Model.open(bundle, runtime=runtime)
    order = [spec.name for spec in about.artefact.outputs]
    for raw, feed in zip(about.golden(), inputs.feeds(plan, bare.inputs, about), strict=True):
        wanted = model.session.run(model.encoded(raw))
        found = dict(zip(names_of(bare, runtime), answers(bare, feed), strict=True))
        for name in order:
            assert np.array_equal(found[name], wanted[name])


def names_of(bare, runtime):
    if runtime == "onnxruntime":
        return [one.name for one in bare.native.get_outputs()]
    return [one["name"] for one in bare.native.get_output_details()]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_batch_gives_the_rows_of_single_inputs_or_is_refused_by_the_file(short, runtime):
    single, several = short(runtime=runtime), short(runtime=runtime, scenario="offline", batch=3)
    one, many = open_bare(single), open_bare(several)
    about = inputs.described(single)
    feeds, batches = inputs.feeds(single, one.inputs, about), inputs.feeds(several, many.inputs, about)
    assert len(batches) == len(feeds)
    if many.batch == 1:  # the file has a fixed size; the harness then runs one after the other
        assert batches[0][0].shape[0] == 1
        return
    wanted = np.concatenate([answers(one, feeds[k])[0] for k in (11, 0, 1)])
    assert np.array_equal(answers(many, batches[11])[0], wanted)


def test_what_ran_it_is_asked_and_not_assumed(short):
    litert, onnx = open_bare(short()), open_bare(short(runtime="onnxruntime"))
    assert (litert.providers, litert.delegated) == (("XNNPACK", "CPU"), 1.0)
    assert litert.arena_kb() >= 1
    assert (onnx.providers, onnx.delegated) == (("CPU",), 0.0)
    assert onnx.flags["allow_spinning"] is False


def test_the_profile_tells_who_took_the_nodes(short):
    plan = short(runtime="onnxruntime")
    about, bare = inputs.described(plan), open_bare(plan)
    assert shares(plan, about.dtype, inputs.feeds(plan, bare.inputs, about)[0]) == {"CPU": 1.0}


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_a_bare_file_runs_on_random_input(bundle, suffix):
    plan = plan_for(bundle / f"model.{suffix}")
    bare = open_bare(plan)
    feeds = inputs.feeds(plan, bare.inputs, None)
    assert len(feeds) == inputs.WANTED
    assert len({feed[0].tobytes() for feed in feeds}) == inputs.WANTED
    assert answers(bare, feeds[0])[0].size


def test_several_inputs_of_several_kinds(tmp_path):
    """A file that adds a vector to rows that an index chooses: two inputs, one of them int64 and of a free size."""
    import onnx
    from onnx import TensorProto, helper

    rows, where = helper.make_tensor_value_info, TensorProto
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "index"], ["row"]), helper.make_node("Add", ["row", "x"], ["y"])],
        "g",
        [rows("x", where.FLOAT, ["n", 4]), rows("index", where.INT64, ["n"])],
        [rows("y", where.FLOAT, ["n", 4])],
        [onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "two.onnx")
    plan = plan_for(tmp_path / "two.onnx", scenario="offline", batch=5)
    bare = open_bare(plan)
    assert [slot.shape for slot in bare.inputs] == [(5, 4), (5,)]
    x, index = inputs.feeds(plan, bare.inputs, None)[0]
    assert np.array_equal(answers(bare, (x, index))[0], x + np.eye(4, dtype=np.float32)[index])


def test_a_file_that_only_seems_to_take_a_batch_gets_one_input_at_a_time(tmp_path):
    """Its first dimension is free, and a reshape inside of it is not."""
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [onnx.numpy_helper.from_array(np.array([1, 4], np.int64), "shape")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "fixed.onnx")
    bare = open_bare(plan_for(tmp_path / "fixed.onnx", scenario="offline", batch=3))
    assert (bare.batch, bare.inputs[0].shape) == (1, (1, 2, 2))


@pytest.mark.parametrize(
    ("suffix", "words"), [("tflite", "litert .* refuses the file"), ("onnx", "onnxruntime .* refuses the file")]
)
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path, suffix, words):
    path = tmp_path / f"bad.{suffix}"
    path.write_bytes(b"no model at all" * 10)
    with pytest.raises(RuntimeAdapterError, match=words) as caught:
        open_bare(plan_for(path))
    assert "\n" not in str(caught.value)


def test_a_runtime_that_is_not_installed_says_how_to_get_it(short):
    with pytest.raises(MissingDependencyError, match=r"pip install|libedgetpu"):
        open_bare(plan_for(short().artefact, runtime="tflite-runtime"))


def test_a_provider_that_is_not_there_is_named(short):
    with pytest.raises(RuntimeAdapterError, match="no execution provider 'npu'"):
        open_bare(short(runtime="onnxruntime", delegate="npu"))


def test_inputs_of_a_person(bundle, short, tmp_path):
    about = inputs.described(short())
    raws = np.stack(about.golden())
    np.savez(tmp_path / "d.npz", x=raws[:5], y=np.zeros(5))
    np.save(tmp_path / "d.npy", raws[:4])
    folder = tmp_path / "folder"
    folder.mkdir()
    for k in range(3):
        np.save(folder / f"{k}.npy", raws[k])
    counts = [len(inputs.raws(short(data=str(tmp_path / name)), about)) for name in ("d.npz", "d.npy", "folder")]
    assert counts == [5, 4, 3]
    from PIL import Image

    Image.fromarray(raws[0]).convert("RGB").save(folder / "z.png")
    assert inputs.read_file(folder / "z.png").shape == (*raws[0].shape[:2], 3)


def test_inputs_that_do_not_fit_are_refused(bundle, short, tmp_path):
    np.savez(tmp_path / "labels.npz", y=np.zeros(3))
    (tmp_path / "none").mkdir()
    (tmp_path / "text.npz").write_text("x")
    for name, words in (("labels.npz", "no array 'x' among y"), ("none", "no picture"), ("text.npz", "no array")):
        with pytest.raises(DataError, match=words):
            inputs.raws(short(data=str(tmp_path / name)), None)
    np.save(tmp_path / "wrong.npy", np.zeros((2, 3, 3), np.float32))
    plan = plan_for(bundle / "model.tflite", data=str(tmp_path / "wrong.npy"), input="real")
    with pytest.raises(DataError, match="the file takes"):
        inputs.feeds(plan, open_bare(plan).inputs, None)


def test_a_bare_file_has_no_real_inputs_of_its_own(bundle):
    with pytest.raises(UsageError, match="give --data, or --input random"):
        inputs.raws(plan_for(bundle / "model.tflite", input="real"), None)


def test_a_file_outside_of_its_bundle_is_refused(bundle, short, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "b")
    manifest = (copy / "manifest.json").read_text().replace("model.tflite", "other.tflite")
    (copy / "manifest.json").write_text(manifest)
    plan = short()
    moved = type(plan)(**{**vars(plan), "bundle": str(copy), "artefact": str(copy / "model.tflite")})
    with pytest.raises(UsageError, match=r"no model file 'model.tflite'"):
        inputs.described(moved)
