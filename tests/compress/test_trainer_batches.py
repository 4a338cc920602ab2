# SPDX-License-Identifier: Apache-2.0
"""How a batch passes: in pieces, mixed with inputs without labels, laid out for speed, shared by processes."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from compress.losses import Objective
from compress.placement import laid_out, placed
from compress.processes import Processes, here
from compress.trainer import Training, train
from edge_contract.errors import DataError, ModelError

ROOT = Path(__file__).resolve().parents[2]
TRAINING = Training(epochs=3, batch=16, learning_rate=0.02, seed=4)


def images(n=70, seed=1):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    x = torch.randn(n, 2, 6, 6, generator=generator)
    x[torch.arange(n), y % 2] += 1.5 * (y[:, None, None] - 1)
    return x, y


def net(*, norm=False):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        conv = [nn.Conv2d(2, 8, 3, bias=not norm), *([nn.BatchNorm2d(8)] if norm else []), nn.ReLU()]
        return nn.Sequential(*conv, nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(32, 3))


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def near(first, second, tolerance):
    return all(torch.allclose(first[name], second[name], atol=tolerance) for name in first)


@pytest.mark.parametrize("pieces", [2, 3, 50])
def test_gradients_of_pieces_add_up_to_that_of_the_batch(pieces):
    whole, parts = net(), net()
    logs = train(whole, *images(), TRAINING)
    again = train(parts, *images(), replace(TRAINING, accumulate=pieces))
    # Sums in another order: single precision, over fifteen steps.
    assert near(state(whole), state(parts), 1e-4)
    assert [log.loss for log in again] == pytest.approx([log.loss for log in logs], rel=1e-4)


def test_no_piece_is_too_small_for_batch_normalisation():
    train(net(norm=True), *images(33), replace(TRAINING, accumulate=16))  # batches of 16, 16 and one left over


def test_model_comes_back_with_its_memory_as_it_was():
    model, x = net(norm=True), images()[0]
    strides = [p.stride() for p in model.parameters()]
    seen = []

    def loss(model, x, y):
        seen.append((x.is_contiguous(memory_format=torch.channels_last), model[0].weight.stride()[1]))
        return nn.functional.cross_entropy(model(x), y)

    train(model, *images(), replace(TRAINING, ema=0.9), loss=loss)
    assert set(seen) == {(True, 1)}  # channels last while it is trained
    assert [p.stride() for p in model.parameters()] == strides
    assert x.is_contiguous() and {p.device.type for p in model.parameters()} == {"cpu"}


def test_model_comes_back_after_an_interruption_too():
    model = net()
    with pytest.raises(KeyboardInterrupt), placed([model], torch.device("cpu"), images=True):
        assert model[0].weight.stride()[1] == 1
        raise KeyboardInterrupt
    assert model[0].weight.is_contiguous()


def test_series_stay_as_they_are():
    assert laid_out(torch.zeros(2, 3, 5), torch.device("cpu")).stride() == (15, 5, 1)


def test_inputs_without_labels_are_seen_once_an_epoch_with_the_label_minus_one():
    x, y = images(20)
    more = images(13, seed=9)[0]
    labels = []

    class Loss(Objective):
        def forward(self, model, x, y):
            labels.extend(y.tolist())
            return model(x).square().mean()

    train(net(), x, y, replace(TRAINING, epochs=2, batch=11), loss=Loss(), unlabelled=more)
    assert labels.count(-1) == 2 * 13 and len(labels) == 2 * 33


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (torch.zeros(4, 2, 5, 6), r"inputs \[2, 5, 6\] without labels, \[2, 6, 6\] with; preprocess both alike"),
        (torch.full((4, 2, 6, 6), torch.nan), "the inputs hold NaN or Inf"),
    ],
)
def test_faulty_inputs_without_labels_are_refused(more, message):
    with pytest.raises(DataError, match=message):
        train(net(), *images(), TRAINING, unlabelled=more)


def test_model_without_anything_to_train_is_refused():
    with pytest.raises(ModelError, match="no parameter asks for a gradient; leave requires_grad on"):
        train(net().requires_grad_(False), *images(), TRAINING)


def test_what_an_objective_learnt_is_resumed(tmp_path):
    class Counter(Objective):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, model, x, y):
            self.calls += 1
            return nn.functional.cross_entropy(model(x), y)

        def kept(self):
            return {"calls": self.calls}

        def restore(self, kept):
            self.calls = kept["calls"]

    class Stop(Exception):
        pass

    def stop(log):
        raise Stop

    with pytest.raises(Stop):
        train(net(), *images(), TRAINING, loss=Counter(), checkpoint=tmp_path / "c.pt", progress=stop)
    counter = Counter()
    train(net(), *images(), TRAINING, loss=counter, checkpoint=tmp_path / "c.pt")
    assert counter.calls == 3 * 5


def test_alone_there_is_one_process():
    assert here() == Processes(0, 1)
    tensor = torch.ones(2)
    Processes().add_up([tensor])
    assert tensor.tolist() == [1, 1] and Processes().from_first("state") == "state"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_shares_are_the_batch(count):
    rows = torch.arange(11)
    shares = [Processes(rank, count).share(rows) for rank in range(count)]
    assert sorted(torch.cat(shares).tolist()) == rows.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


SCRIPT = """
import json, sys
from pathlib import Path
import torch
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from test_trainer_batches import TRAINING, images, net
from compress.checkpoint import read_checkpoint, write_checkpoint
from compress.processes import here
from compress.trainer import train

torch.set_num_threads(1)
folder, me = Path(sys.argv[3]), here()
found = {"rank": me.rank, "count": me.count}
for norm in (False, True):
    model = net(norm=norm)
    logs = train(model, *images(), TRAINING, checkpoint=folder / f"{norm}.pt")
    found[f"losses {norm}"] = [log.loss for log in logs]
    torch.save(model.state_dict(), folder / f"model-{norm}-{me.rank}.pt")
again = net()
found["again"] = [log.loss for log in train(again, *images(), TRAINING, checkpoint=folder / "False.pt")]
write_checkpoint(folder / "kept.pt", "key", {"rank": me.rank})
me.wait()
found["kept"] = read_checkpoint(folder / "kept.pt", "key")
(folder / f"found-{me.rank}.json").write_text(json.dumps(found))
"""


def test_two_processes_train_what_one_trains(tmp_path):
    """Without batch normalisation the two are equal but for the order of sums; with it, both end in one model."""
    (tmp_path / "script.py").write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"]
    words = [tmp_path / "script.py", ROOT, Path(__file__).parent, tmp_path]
    done = subprocess.run(
        [sys.executable, *launch, *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in (0, 1)]
    assert [(one["rank"], one["count"]) for one in found] == [(0, 2), (1, 2)]
    assert found[0]["losses False"] == found[1]["losses False"] == found[0]["again"] == found[1]["again"]

    single = net()
    logs = train(single, *images(), TRAINING)
    models = {(norm, r): torch.load(tmp_path / f"model-{norm}-{r}.pt") for norm in (False, True) for r in (0, 1)}
    assert near(state(single), models[False, 0], 1e-4)  # fifteen steps in single precision
    assert found[0]["losses False"] == pytest.approx([log.loss for log in logs], rel=1e-4)
    for norm in (False, True):
        assert near(models[norm, 0], models[norm, 1], 0.0)
    assert found[1]["kept"] == {"rank": 0}  # the first process alone writes
    assert found[0]["losses True"][-1] < found[0]["losses True"][0]
